//! Cold calls about memory and events that processes share by IPC handles.
//!
//! Device memory lies in slabs of virtual memory management, for which drivers give no IPC handles. So a `CUipcMemHandle` is
//! LightOS's own: a token that the daemon has made up, and what the opener must know to make room for the slab. The daemon holds the slab's
//! descriptor and gives it to the executor that presents the token. The handles of events are the driver's.

use serde::{Deserialize, Serialize};

use super::Tag;
use crate::arena::DEVICE_PAGE_BYTES;

/// `CU_IPC_HANDLE_SIZE`.
pub const IPC_HANDLE_BYTES: usize = 64;

/// Whoever presents it may open the memory: 128 random bits.
pub type IpcToken = [u8; 16];

/// First bytes of a `CUipcMemHandle` of ours: "LightOS" and a version. A driver's begins with other bytes.
const MAGIC: [u8; 8] = *b"LightOS\x01";

/// Where an allocation lies in its slab.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpcPlace {
    /// Size of the slab.
    pub slab_bytes: u64,
    /// Of the allocation, from the slab's first byte.
    pub offset: u64,
    /// Size of the allocation.
    pub bytes: u64,
}

impl IpcPlace {
    /// Whether it is a part of a slab at all; a place from a handle may be anything.
    pub fn is_sound(&self) -> bool {
        let end = self.offset.checked_add(self.bytes);
        self.bytes != 0
            && self.slab_bytes.is_multiple_of(DEVICE_PAGE_BYTES)
            && end.is_some_and(|end| end <= self.slab_bytes)
    }
}

/// An allocation that other programs of the same sidecar may open: what its handle says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpcMemory {
    /// What the daemon knows it by.
    pub token: IpcToken,
    /// For the opener, who makes room before it asks; the daemon compares it with its own record.
    pub place: IpcPlace,
}

impl IpcMemory {
    /// The `CUipcMemHandle`.
    pub fn to_handle(&self) -> [u8; IPC_HANDLE_BYTES] {
        let mut handle = [0; IPC_HANDLE_BYTES];
        handle[..8].copy_from_slice(&MAGIC);
        handle[8..24].copy_from_slice(&self.token);
        let IpcPlace { slab_bytes, offset, bytes } = self.place;
        for (index, word) in [slab_bytes, offset, bytes].into_iter().enumerate() {
            handle[24 + index * 8..][..8].copy_from_slice(&word.to_le_bytes());
        }
        handle
    }

    /// What a handle says; `None` for one that LightOS has not made.
    pub fn from_handle(handle: &[u8; IPC_HANDLE_BYTES]) -> Option<Self> {
        let (magic, rest) = handle.split_first_chunk::<8>()?;
        let (token, rest) = rest.split_first_chunk::<16>()?;
        let (words, padding) = rest.split_first_chunk::<24>()?;
        let word = |index: usize| words[index * 8..][..8].try_into().map_or(0, u64::from_le_bytes);
        let place = IpcPlace { slab_bytes: word(0), offset: word(1), bytes: word(2) };
        (*magic == MAGIC && padding.iter().all(|byte| *byte == 0)).then_some(Self { token: *token, place })
    }
}

/// A call about what processes share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum IpcRequest {
    /// cuIpcGetMemHandle; answers [`Reply::Bytes`](super::Reply::Bytes) with the handle.
    Export {
        /// First byte of the allocation, in a slab.
        address: u64,
        /// Its size.
        bytes: u64,
    },
    /// The allocation behind a handle is freed: nobody opens it any more.
    Withdraw {
        /// The handle's.
        token: IpcToken,
    },
    /// cuIpcOpenMemHandle: map the slab at `address`. The executor sends the slab's descriptor under `tag`.
    Open {
        /// What the handle says.
        memory: IpcMemory,
        /// Address in the device arena, with room for the slab.
        address: u64,
        /// Tag of the descriptor.
        tag: Tag,
    },
    /// cuIpcCloseMemHandle: undo [`IpcRequest::Open`].
    Close {
        /// The slab's address.
        address: u64,
    },
    /// cuIpcGetEventHandle; answers [`Reply::Bytes`](super::Reply::Bytes) with the driver's handle.
    EventHandle {
        /// The client's `CUevent`.
        event: u64,
    },
    /// cuIpcOpenEventHandle.
    EventOpen {
        /// The client's `CUevent`, a local one.
        event: u64,
        /// The driver's handle: [`IPC_HANDLE_BYTES`] bytes.
        handle: Vec<u8>,
    },
    /// cuEventSynchronize of an event that another process may record: write a timeline word when the record that is the latest
    /// now is complete.
    EventAwait {
        /// The client's `CUevent`.
        event: u64,
        /// Timeline slot.
        slot: u32,
        /// What to write there.
        value: u32,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: IpcPlace = IpcPlace { slab_bytes: 4 << 20, offset: 512, bytes: 1000 };

    #[test]
    fn a_handle_says_what_was_put_into_it_and_others_are_not_ours() {
        let memory = IpcMemory { token: std::array::from_fn(|index| index as u8 ^ 0xa5), place: PLACE };
        let handle = memory.to_handle();
        assert_eq!(IpcMemory::from_handle(&handle), Some(memory));
        for at in [0, 7, 48, 63] {
            let mut strange = handle;
            strange[at] ^= 1;
            assert_eq!(IpcMemory::from_handle(&strange), None, "byte {at}");
        }
    }

    #[test]
    fn places_beyond_their_slab_are_not_sound() {
        assert!(PLACE.is_sound());
        for place in [
            IpcPlace { bytes: 0, ..PLACE },
            IpcPlace { offset: (4 << 20) - 999, ..PLACE },
            IpcPlace { offset: u64::MAX, ..PLACE },
            IpcPlace { slab_bytes: 0, ..PLACE },
            IpcPlace { slab_bytes: (4 << 20) + 4096, ..PLACE },
        ] {
            assert!(!place.is_sound(), "{place:?}");
        }
    }
}
