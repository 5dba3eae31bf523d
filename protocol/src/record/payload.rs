//! The fixed payloads of hot records.
//!
//! All are `repr(C)` without implicit padding, in native byte order (both sides run on one machine). Their
//! fields are raw: `kind` and `scope` become enums through `try_from`, sizes and addresses are judged by
//! the executor.

// zerocopy's derives add a private marker type for each field, and inside a macro the lint sees those.
#![allow(missing_debug_implementations)]

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Op, Payload, RecordError, read_prefix, wrong_size};

/// Most bytes of kernel parameters a launch may carry (CUDA 12.1 and later).
pub const MAX_PARAM_BYTES: usize = 32_764;
/// Most launch attributes a record may carry; `CUlaunchAttributeID` knows fewer.
pub const MAX_LAUNCH_ATTRIBUTES: usize = 64;

/// Derives for, and the op of, each payload.
macro_rules! payloads {
    ($($(#[$doc:meta])* $name:ident => $op:ident { $($(#[$fdoc:meta])* $field:ident: $ty:ty,)* })*) => { $(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
        #[repr(C)]
        pub struct $name { $($(#[$fdoc])* pub $field: $ty,)* }

        impl Payload for $name {
            const OP: Op = Op::$op;
        }
    )* };
}

payloads! {
    /// cuLaunchKernel and its kin. `attribute_count` times [`LaunchAttribute`] and `param_bytes` bytes follow.
    Launch => Launch {
        /// `CUfunction`, or a `CUkernel` used as one.
        function: u64,
        /// `CUstream`, special values included.
        stream: u64,
        /// Blocks by axis.
        grid: [u32; 3],
        /// Threads by axis.
        block: [u32; 3],
        /// Dynamic shared memory in bytes.
        shared_bytes: u32,
        /// [`LAUNCH_COOPERATIVE`] | [`LAUNCH_EX`].
        flags: u32,
        /// How many attributes follow.
        attribute_count: u32,
        /// How many bytes of parameters follow, laid out as the kernel reads them.
        param_bytes: u32,
    }

    /// A linear copy. Host addresses lie inside the shared host arena, device addresses inside the device
    /// arena.
    Memcpy => Memcpy {
        /// Destination address.
        dst: u64,
        /// Source address.
        src: u64,
        /// Bytes to copy.
        bytes: u64,
        /// `CUstream`.
        stream: u64,
        /// A [`CopyKind`].
        kind: u32,
        /// Zero.
        flags: u32,
        /// Timeline slot written by the stream when the copy is done; 0 for none.
        release_slot: u32,
        /// The value written to it.
        release_value: u32,
    }

    /// A small host-to-device copy of pageable memory; the `bytes` bytes follow.
    MemcpyInline => MemcpyInline {
        /// Destination address on the device.
        dst: u64,
        /// `CUstream`.
        stream: u64,
        /// How many bytes follow.
        bytes: u32,
        /// Zero.
        pad: u32,
    }

    /// A pitched copy; addresses as in [`Memcpy`].
    Memcpy2D => Memcpy2D {
        /// First byte of the destination.
        dst: u64,
        /// Bytes from one destination row to the next.
        dst_pitch: u64,
        /// First byte of the source.
        src: u64,
        /// Bytes from one source row to the next.
        src_pitch: u64,
        /// Bytes copied of each row.
        width_bytes: u64,
        /// Rows.
        height: u64,
        /// `CUstream`.
        stream: u64,
        /// A [`CopyKind`].
        kind: u32,
        /// Zero.
        pad: u32,
        /// Timeline slot written by the stream when the copy is done; 0 for none.
        release_slot: u32,
        /// The value written to it.
        release_value: u32,
    }

    /// cuMemsetD8/16/32, linear (`height` 1) or 2D.
    Memset => Memset {
        /// First byte on the device.
        dst: u64,
        /// Bytes from one row to the next; meaningless for one row.
        pitch: u64,
        /// The value, in its low bits.
        value: u32,
        /// 1, 2 or 4.
        element_bytes: u32,
        /// Elements by row.
        width: u64,
        /// Rows.
        height: u64,
        /// `CUstream`.
        stream: u64,
    }

    /// cuEventRecord. The stream also writes `value` to timeline word `slot` when it gets here, so that the
    /// client can query the event without asking.
    EventRecord => EventRecord {
        /// `CUevent`.
        event: u64,
        /// `CUstream`.
        stream: u64,
        /// `CUevent_record_flags`.
        flags: u32,
        /// Timeline slot; 0 for none.
        slot: u32,
        /// The value written to it.
        value: u32,
        /// Zero.
        pad: u32,
    }

    /// cuStreamWaitEvent.
    StreamWaitEvent => StreamWaitEvent {
        /// `CUstream` that waits.
        stream: u64,
        /// `CUevent` waited for.
        event: u64,
        /// `CUevent_wait_flags`.
        flags: u32,
        /// Zero.
        pad: u32,
    }

    /// Write `value` to timeline word `slot` when the work submitted so far is done.
    Timeline => Timeline {
        /// `CUstream`, for [`TimelineScope::Stream`].
        stream: u64,
        /// Timeline slot, not 0.
        slot: u32,
        /// The value written to it.
        value: u32,
        /// A [`TimelineScope`].
        scope: u32,
        /// Zero.
        pad: u32,
    }

    /// cuStreamWaitValue32/64, cuStreamWriteValue32/64, or one operation of cuStreamBatchMemOp.
    StreamValue => StreamValue {
        /// `CUstream`.
        stream: u64,
        /// Address of the word, in either arena; 0 for a barrier or flush.
        address: u64,
        /// Value written or compared with.
        value: u64,
        /// `CUstreamWaitValue_flags`, `CUstreamWriteValue_flags` or `CUstreamMemoryBarrier_flags`.
        flags: u32,
        /// A [`MemOpKind`].
        operation: u32,
    }

    /// cuGraphLaunch.
    GraphLaunch => GraphLaunch {
        /// `CUgraphExec`.
        exec: u64,
        /// `CUstream`.
        stream: u64,
    }

    /// cuLaunchHostFunc and cuStreamAddCallback: the stream stops until the client has run the function.
    HostFunc => HostFunc {
        /// `CUstream`.
        stream: u64,
        /// The client's number for function and argument.
        callback: u64,
        /// A [`HostFuncKind`].
        kind: u32,
        /// Zero.
        pad: u32,
    }

    /// A handle to destroy: stream or event, by the op of the record.
    Handle => StreamDestroy {
        /// The client's handle.
        handle: u64,
    }

    /// Refers to a memfd that travelled over the socket in an [`FdMessage`](crate::control::FdMessage) with
    /// the same tag.
    BlobRef => ColdBlob {
        /// The tag.
        tag: u64,
        /// How many bytes of the file are meant, from its start.
        bytes: u64,
    }
}

/// [`Launch::flags`]: cuLaunchCooperativeKernel.
pub const LAUNCH_COOPERATIVE: u32 = 1;
/// [`Launch::flags`]: cuLaunchKernelEx, whose attributes follow.
pub const LAUNCH_EX: u32 = 2;

/// `CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_EVENT` and `_LAUNCH_COMPLETION_EVENT`, whose values begin with a `CUevent`: the client's, in place of
/// which the executor puts its own.
pub const EVENT_ATTRIBUTES: [u32; 2] = [7, 12];

/// One `CUlaunchAttribute`, the pointer-free part of the C struct.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct LaunchAttribute {
    /// `CUlaunchAttributeID`.
    pub id: u32,
    /// Zero.
    pub pad: u32,
    /// `CUlaunchAttributeValue`, handles inside being the client's.
    pub value: [u8; 64],
}

/// A launch record taken apart: sizes agree with the payload and keep the limits.
#[derive(Debug, Clone, Copy)]
pub struct LaunchView<'a> {
    /// The fixed part.
    pub launch: Launch,
    attributes: &'a [u8],
    /// The parameter bytes.
    pub params: &'a [u8],
}

impl<'a> LaunchView<'a> {
    /// Takes the payload of an [`Op::Launch`] record apart.
    ///
    /// # Errors
    /// Counts beyond the limits; a payload of another size than the counts imply.
    pub fn parse(payload: &'a [u8]) -> Result<Self, RecordError> {
        let (launch, rest) = read_prefix::<Launch>(payload)?;
        let attributes = bounded("attribute_count", launch.attribute_count, MAX_LAUNCH_ATTRIBUTES)?;
        let params = bounded("param_bytes", launch.param_bytes, MAX_PARAM_BYTES)?;
        let attribute_bytes = attributes * size_of::<LaunchAttribute>();
        if rest.len() != attribute_bytes + params {
            let expected = size_of::<Launch>() + attribute_bytes + params;
            return Err(wrong_size::<Launch>(payload.len(), expected));
        }
        let (attributes, params) = rest.split_at(attribute_bytes);
        Ok(Self { launch, attributes, params })
    }

    /// The attributes, in the order given by the program.
    pub fn attributes(&self) -> impl ExactSizeIterator<Item = LaunchAttribute> + 'a {
        self.attributes.chunks_exact(size_of::<LaunchAttribute>()).map(|chunk| {
            // The chunk has the exact size, so the read cannot fail; zeros are attribute 0,
            // CU_LAUNCH_ATTRIBUTE_IGNORE.
            LaunchAttribute::read_from_bytes(chunk).unwrap_or(LaunchAttribute {
                id: 0,
                pad: 0,
                value: [0; 64],
            })
        })
    }
}

impl MemcpyInline {
    /// Takes the payload of an [`Op::MemcpyInline`] record apart.
    ///
    /// # Errors
    /// [`RecordError::WrongSize`] when `bytes` differs from what follows.
    pub fn parse(payload: &[u8]) -> Result<(Self, &[u8]), RecordError> {
        let (copy, data) = read_prefix::<Self>(payload)?;
        let expected = size_of::<Self>().saturating_add(copy.bytes as usize);
        if data.len() != copy.bytes as usize {
            return Err(wrong_size::<Self>(payload.len(), expected));
        }
        Ok((copy, data))
    }
}

fn bounded(what: &'static str, found: u32, limit: usize) -> Result<usize, RecordError> {
    if found as usize > limit {
        return Err(RecordError::TooMany { what, found: found.into(), limit: limit as u64 });
    }
    Ok(found as usize)
}

/// An enum that travels as a u32.
macro_rules! wire_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $value:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        #[repr(u32)]
        pub enum $name { $($(#[$vdoc])* $variant = $value,)* }

        impl TryFrom<u32> for $name {
            type Error = RecordError;

            fn try_from(found: u32) -> Result<Self, RecordError> {
                match found {
                    $($value => Ok(Self::$variant),)*
                    _ => Err(RecordError::UnknownValue { what: stringify!($name), found }),
                }
            }
        }

        impl From<$name> for u32 {
            fn from(value: $name) -> u32 {
                value as u32
            }
        }
    };
}

wire_enum! {
    /// Direction of a copy.
    CopyKind {
        /// Shared host memory to device memory.
        HostToDevice = 1,
        /// Device memory to shared host memory.
        DeviceToHost = 2,
        /// Device memory to device memory.
        DeviceToDevice = 3,
        /// Shared host memory to shared host memory, in stream order.
        HostToHost = 4,
    }
}

wire_enum! {
    /// What a [`Timeline`] record waits for.
    TimelineScope {
        /// Everything before it in one stream.
        Stream = 0,
        /// Everything before it in every stream of the context.
        Context = 1,
    }
}

wire_enum! {
    /// An operation on a word in memory: `CUstreamBatchMemOpType` with its numbers.
    MemOpKind {
        /// Wait for 32 bits.
        WaitValue32 = 1,
        /// Write 32 bits.
        WriteValue32 = 2,
        /// Flush remote writes.
        FlushRemoteWrites = 3,
        /// Wait for 64 bits.
        WaitValue64 = 4,
        /// Write 64 bits.
        WriteValue64 = 5,
        /// A memory barrier.
        Barrier = 6,
    }
}

impl MemOpKind {
    /// Bytes of the word; 0 where there is none.
    pub fn word_bytes(self) -> u64 {
        match self {
            Self::WaitValue32 | Self::WriteValue32 => 4,
            Self::WaitValue64 | Self::WriteValue64 => 8,
            Self::FlushRemoteWrites | Self::Barrier => 0,
        }
    }
}

wire_enum! {
    /// Which contract the host function has.
    HostFuncKind {
        /// cuLaunchHostFunc: not called after an error of the context.
        Launch = 0,
        /// cuStreamAddCallback: always called, with the stream's status.
        Callback = 1,
    }
}
