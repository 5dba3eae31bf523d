//! Copies: which memory each end is, and how the bytes get there.
//!
//! | from, to | way |
//! | --- | --- |
//! | both ends device or shared pinned memory | one record; the executor's device copies |
//! | small pageable source | the bytes travel in the record |
//! | larger pageable source or destination | through staging chunks in shared pinned memory ([`staging`]), several under way at once |
//! | both ends pageable | the processor, after the stream's work |
//! | registered memory that is not shared | through a stand-in that is ([`staged`]) |
//!
//! When a call returns follows the driver: a pageable source has been read, a pageable destination written, a synchronous copy
//! that involves the host is done. Copies from device to device never wait.

pub mod boxes;
pub mod pitched;
pub mod staged;
mod staging;

use std::sync::atomic::Ordering::Relaxed;

use lightos_protocol::arena::{Region, classify};
use lightos_protocol::record::{CopyKind, Memcpy, MemcpyInline};

use super::host::registration;
use super::memory::{LIVE, sidecar};
use super::{capture, context, global, stream};
use crate::alloc::live::Kind;
use crate::outcome::{Outcome, Reason};
use crate::result::CuResult;
use crate::session::Session;

/// Largest pageable source that travels in the ring, in bytes. The executor's driver stages up to 64 KiB before it returns.
const INLINE_MAX_BYTES: u64 = 32 << 10;

/// Which memory an address belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Device memory, globals included.
    Device,
    /// Memory of the host in a mapping of the program's own, which the executor has in the device arena.
    Mapped,
    /// Host memory that the executor maps too.
    Pinned,
    /// The program's own memory.
    Pageable,
    /// The program's own memory, registered.
    Staged,
}

impl Place {
    /// Whether the executor takes addresses there for its device's.
    pub fn is_in_device_arena(self) -> bool {
        matches!(self, Self::Device | Self::Mapped)
    }
}

/// What the function says that an argument is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A host pointer.
    Host,
    /// A `CUdeviceptr`, which may be the device address of pinned memory.
    Device,
    /// Any address.
    Unified,
}

/// Whether the call waits for the copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// The function is synchronous.
    Yes,
    /// The function is asynchronous.
    No,
}

/// Where `[address, address + bytes)` lies. An address that is nothing of ours is the program's own host memory, unless the function
/// wants a device address.
pub fn place(address: u64, bytes: u64, role: Role) -> Result<Place, CuResult> {
    let region = classify(address);
    if role == Role::Host && region == Region::ClientHost {
        return match address {
            0 => Err(CuResult::INVALID_VALUE),
            _ => Ok(match registration(address, bytes) {
                Some(Kind::Registered { .. }) => Place::Pinned,
                Some(_) => Place::Staged,
                None => Place::Pageable,
            }),
        };
    }
    match LIVE.covering(address, bytes).map(|allocation| allocation.kind) {
        Some(Kind::Managed | Kind::Host { .. } | Kind::Registered { .. }) => Ok(Place::Pinned),
        Some(Kind::Staged { .. }) => Ok(Place::Staged),
        Some(Kind::Mapping { host: true, .. }) => Ok(Place::Mapped),
        Some(_) if role != Role::Host => Ok(Place::Device),
        None if region == Region::ClientHost && role == Role::Unified && address != 0 => {
            // The start of a global, too short for the copy, is not host memory.
            let device = LIVE.find(address).is_some_and(|allocation| allocation.kind.is_device());
            if device { Err(CuResult::INVALID_VALUE) } else { Ok(Place::Pageable) }
        }
        _ => Err(CuResult::INVALID_VALUE),
    }
}

/// The kind of a copy whose ends the executor can reach.
pub fn kind(dst: Place, src: Place) -> CopyKind {
    match (dst.is_in_device_arena(), src.is_in_device_arena()) {
        (true, true) => CopyKind::DeviceToDevice,
        (true, false) => CopyKind::HostToDevice,
        (false, true) => CopyKind::DeviceToHost,
        (false, false) => CopyKind::HostToHost,
    }
}

/// Counts bytes by direction.
pub fn count(session: &Session, dst: Place, src: Place, bytes: u64) {
    let traffic = session.pages().counters().traffic();
    let counter = match kind(dst, src) {
        CopyKind::HostToDevice => &traffic.host_to_device_bytes,
        CopyKind::DeviceToHost => &traffic.device_to_host_bytes,
        CopyKind::DeviceToDevice => &traffic.device_to_device_bytes,
        CopyKind::HostToHost => return,
    };
    counter.fetch_add(bytes, Relaxed);
}

/// One end of a linear copy.
pub type End = (u64, Role);

/// A linear copy as the program asked for it: any of cuMemcpy*, with `stream` as the program's handle.
pub fn linear(dst: End, src: End, bytes: usize, stream: u64, wait: Wait) -> Result<Outcome, CuResult> {
    context::check()?;
    if capture::captures(stream) {
        global::introduce([dst.0, src.0]);
        return Ok(Outcome::PassThrough(Reason::Capturing));
    }
    if bytes == 0 {
        return Ok(Outcome::Done);
    }
    let bytes = bytes as u64;
    let from = place(src.0, bytes, src.1)?;
    let to = place(dst.0, bytes, dst.1)?;
    transfer((dst.0, to), (src.0, from), bytes, wire(stream)?, wait)?;
    Ok(Outcome::Done)
}

/// cuMemcpyPeer: every context of the process is on the session's device, so this is a copy inside it. Each end is an address and its context.
pub fn peer(
    dst: (u64, u64),
    src: (u64, u64),
    bytes: usize,
    stream: u64,
    wait: Wait,
) -> Result<Outcome, CuResult> {
    if dst.1 == 0 || src.1 == 0 {
        return Ok(Outcome::PassThrough(Reason::InvalidArgument));
    }
    linear((dst.0, Role::Device), (src.0, Role::Device), bytes, stream, wait)
}

/// What records call a stream that is about to be given work.
pub fn wire(stream: u64) -> Result<u64, CuResult> {
    let stream = stream::find(stream)?;
    stream.touch();
    Ok(stream.wire())
}

/// Copies between places that were checked, on a stream as in records.
pub fn transfer(
    dst: (u64, Place),
    src: (u64, Place),
    bytes: u64,
    stream: u64,
    wait: Wait,
) -> Result<(), CuResult> {
    let session = sidecar()?;
    let (mut dst, mut src) = (dst, src);
    if dst.1 == Place::Staged || src.1 == Place::Staged {
        let pageable = dst.1 == Place::Pageable || src.1 == Place::Pageable;
        if wait == Wait::No && !pageable {
            return staged::copy((dst.0, bytes, dst.1), (src.0, bytes, src.1), (bytes, 1), stream);
        }
        (dst.1, src.1) = staged::settle(dst, src.1, stream)?;
    }
    count(session, dst.1, src.1, bytes);
    match (dst.1, src.1) {
        (Place::Pageable, Place::Pageable) => {
            stream::synchronize(stream)?;
            return staging::move_bytes(dst.0, src.0, bytes);
        }
        (Place::Pageable, _) => return staging::download(session, dst.0, src, bytes, stream),
        (_, Place::Pageable) if bytes <= INLINE_MAX_BYTES => {
            let record = MemcpyInline { dst: dst.0, stream, bytes: bytes as u32, pad: 0 };
            session.send(&record, &[staging::bytes_at(src.0, bytes)?])?;
        }
        (_, Place::Pageable) => staging::upload(session, dst, src.0, bytes, stream)?,
        (to, from) => {
            let record = Memcpy {
                dst: dst.0,
                src: src.0,
                bytes,
                stream,
                kind: kind(to, from).into(),
                ..Memcpy::default()
            };
            session.send(&record, &[])?;
            if to == Place::Device && from == Place::Device {
                return Ok(());
            }
        }
    }
    match wait {
        Wait::Yes => stream::synchronize(stream),
        Wait::No => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lightos_protocol::arena::{DEVICE_ARENA_BASE, HOST_ARENA_BASE};

    #[test]
    fn places_by_role() {
        // A corner of the arenas that no other test uses.
        let device = DEVICE_ARENA_BASE + (700 << 30);
        let pinned = HOST_ARENA_BASE + (700 << 30);
        LIVE.insert(device, 4096, Kind::Device);
        LIVE.insert(pinned, 4096, Kind::Host { flags: 0 });
        LIVE.insert(0x1234_0000, 64, Kind::Global { module: 1 });
        let mapped = device + (1 << 30);
        LIVE.insert(mapped, 4096, Kind::Mapping { allocation: 1, host: true });
        let invalid = Err(CuResult::INVALID_VALUE);

        assert_eq!(place(device, 4096, Role::Device), Ok(Place::Device));
        assert_eq!(place(device, 4096, Role::Unified), Ok(Place::Device));
        assert_eq!(place(device, 4096, Role::Host), invalid, "the processor cannot read it");
        assert_eq!(place(device + 1, 4096, Role::Device), invalid, "reaches beyond the allocation");
        assert_eq!(place(device + 4096, 1, Role::Device), invalid, "free memory of a slab");
        assert_eq!(place(pinned, 4096, Role::Host), Ok(Place::Pinned));
        assert_eq!(place(pinned, 4096, Role::Device), Ok(Place::Pinned), "unified addressing");
        assert_eq!(place(pinned, 4097, Role::Host), invalid);
        assert_eq!(place(0x7f00_0000_0000, 1 << 20, Role::Host), Ok(Place::Pageable));
        assert_eq!(place(0x7f00_0000_0000, 1, Role::Device), invalid);
        assert_eq!(place(0x7f00_0000_0000, 1, Role::Unified), Ok(Place::Pageable));
        assert_eq!(place(0, 1, Role::Host), invalid);
        assert_eq!(place(0, 1, Role::Unified), invalid);
        assert_eq!(place(0x1234_0000, 64, Role::Device), Ok(Place::Device));
        assert_eq!(place(0x1234_0000, 65, Role::Unified), invalid);

        assert_eq!(
            place(mapped, 4096, Role::Host),
            Ok(Place::Mapped),
            "the processor's as well as the device's"
        );
        assert_eq!(place(mapped, 4096, Role::Device), Ok(Place::Mapped));
        assert_eq!(kind(Place::Mapped, Place::Pageable), CopyKind::HostToDevice, "an address of the arena");

        let _ = LIVE.remove_all(|known| [device, pinned, mapped, 0x1234_0000].contains(&known.base));
        assert_eq!(place(device, 1, Role::Device), invalid, "freed");
    }
}
