//! Streams under the program's handle values, timeline writes, stream memory operations.
//!
//! Owned by the ring thread. Handle 0 is the legacy default stream. A program thread's default stream has an id that the shim
//! makes up; here it is an ordinary blocking stream.
//!
//! Invariant: `used` is true for every stream that may have work which the joiner has not been told to wait for.

use lightos_protocol::record::{MemOpKind, StreamValue, Timeline, TimelineScope};
use lightos_protocol::request::{MemOp, Reply, StreamRequest};
use rustc_hash::FxHashMap;

use super::Executor;
use super::driver::{CuError, check, sys};

/// `CU_STREAM_DEFAULT` | `CU_STREAM_NON_BLOCKING`: the flags that a stream can be created with.
const STREAM_FLAGS: u32 = 1;
/// `CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN`, the highest stream attribute so far.
const LAST_STREAM_ATTRIBUTE: u32 = 10;

/// The program's streams.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    legacy: Stream,
    table: FxHashMap<u64, Stream>,
    joiner: Option<Joiner>,
}

#[derive(Debug)]
struct Stream {
    raw: sys::CUstream,
    used: bool,
}

impl Default for Stream {
    fn default() -> Self {
        Self { raw: std::ptr::null_mut(), used: false }
    }
}

/// `CUstreamBatchMemOpParams`: those for words and those without share the beginning.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(super) struct RawMemOp {
    kind: u32,
    plain_flags: u32,
    address: u64,
    value: u64,
    flags: u32,
    pad: u32,
    rest: [u64; 2],
}

const _: () = assert!(size_of::<RawMemOp>() == size_of::<sys::CUstreamBatchMemOpParams>());

impl RawMemOp {
    pub(super) fn new(operation: MemOp) -> Self {
        let MemOp { kind, flags, address, value } = operation;
        let raw = Self { kind: kind.into(), ..Self::default() };
        match kind.word_bytes() {
            0 => Self { plain_flags: flags, ..raw },
            _ => Self { address, value, flags, ..raw },
        }
    }

    /// As the driver takes it.
    pub(super) fn as_mut_ptr(&mut self) -> *mut sys::CUstreamBatchMemOpParams {
        std::ptr::from_mut(self).cast()
    }
}

/// A stream that waits for all others, and the event it does so with.
#[derive(Debug, Clone, Copy)]
struct Joiner {
    stream: sys::CUstream,
    event: sys::CUevent,
}

impl Joiner {
    fn create() -> Result<Self, CuError> {
        let mut joiner = Self { stream: std::ptr::null_mut(), event: std::ptr::null_mut() };
        // SAFETY: both out-pointers are valid; the context is current on the ring thread.
        unsafe {
            check(sys::cuStreamCreate(
                &mut joiner.stream,
                sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32,
            ))?;
            check(sys::cuEventCreate(&mut joiner.event, sys::CUevent_flags::CU_EVENT_DISABLE_TIMING as u32))?;
        }
        Ok(joiner)
    }

    fn wait_for(self, stream: sys::CUstream) -> Result<(), CuError> {
        // SAFETY: the joiner's handles live as long as the process; `stream` is the caller's live stream or NULL. A stream wait refers to the
        // event's latest record at the time of the call, so one event serves all streams in turn.
        unsafe {
            check(sys::cuEventRecord(self.event, stream))?;
            check(sys::cuStreamWaitEvent(self.stream, self.event, 0))
        }
    }
}

impl Streams {
    /// The driver's stream for the program's handle, about to be given work.
    pub(crate) fn raw(&mut self, handle: u64) -> Result<sys::CUstream, CuError> {
        let stream = match handle {
            0 => &mut self.legacy,
            _ => self.table.get_mut(&handle).ok_or(CuError::INVALID_HANDLE)?,
        };
        stream.used = true;
        Ok(stream.raw)
    }

    fn create(&mut self, handle: u64, flags: u32, priority: i32) -> Result<(), CuError> {
        let mut raw = std::ptr::null_mut();
        // SAFETY: `raw` is a valid out-pointer; flags and priority are plain numbers.
        check(unsafe { sys::cuStreamCreateWithPriority(&mut raw, flags & STREAM_FLAGS, priority) })?;
        if let Some(old) = self.table.insert(handle, Stream { raw, used: false }) {
            // The program's context was reset, which ended the stream of this handle without a call.
            // SAFETY: the handle was ours and has just left the table.
            check(unsafe { sys::cuStreamDestroy_v2(old.raw) })?;
        }
        Ok(())
    }

    fn joiner(&mut self) -> Result<Joiner, CuError> {
        let joiner = match self.joiner {
            Some(joiner) => joiner,
            None => Joiner::create()?,
        };
        self.joiner = Some(joiner);
        Ok(joiner)
    }

    /// A stream that has everything submitted so far, on all streams, before it.
    fn joined(&mut self) -> Result<sys::CUstream, CuError> {
        let joiner = self.joiner()?;
        for stream in self.table.values_mut().chain([&mut self.legacy]).filter(|stream| stream.used) {
            joiner.wait_for(stream.raw)?;
            stream.used = false;
        }
        Ok(joiner.stream)
    }

    /// Whether the device has done everything submitted so far.
    pub(crate) fn is_idle(&mut self) -> Result<bool, CuError> {
        let everything = self.joined()?;
        // SAFETY: the joiner's stream lives as long as the process.
        match check(unsafe { sys::cuStreamQuery(everything) }) {
            Ok(()) => Ok(true),
            Err(CuError::NOT_READY) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn destroy(&mut self, handle: u64) -> Result<(), CuError> {
        let stream = self.table.remove(&handle).ok_or(CuError::INVALID_HANDLE)?;
        if stream.used {
            // The work goes on without the stream, and a later wait for the context has to include it.
            self.joiner()?.wait_for(stream.raw)?;
        }
        // SAFETY: the handle was ours and has just left the table; the driver lets work under way finish.
        check(unsafe { sys::cuStreamDestroy_v2(stream.raw) })
    }
}

impl Executor {
    /// Executes a cold call about streams or events.
    pub(crate) fn stream_request(&mut self, request: StreamRequest) -> Result<Reply, CuError> {
        match request {
            StreamRequest::Create { stream, flags, priority } => {
                self.streams.create(stream, flags, priority)?
            }
            StreamRequest::EventCreate { event, flags } => self.events.create(event, flags)?,
            StreamRequest::EventElapsed { start, end } => {
                return self.events.elapsed(start, end).map(Reply::F32);
            }
            StreamRequest::EventQuery { event } => self.events.query(event)?,
            StreamRequest::SetAttribute { stream, attribute, value } => {
                self.set_stream_attribute(stream, attribute, &value)?;
            }
        }
        Ok(Reply::Done)
    }

    fn set_stream_attribute(&mut self, handle: u64, attribute: u32, value: &[u8]) -> Result<(), CuError> {
        let raw = self.streams.raw(handle)?;
        let value: [u8; 64] = value.try_into().map_err(|_| CuError::INVALID_VALUE)?;
        if attribute == 0 || attribute > LAST_STREAM_ATTRIBUTE {
            return Err(CuError::INVALID_VALUE);
        }
        // SAFETY: every number up to the last attribute is a variant of the `repr(u32)` enum.
        let attribute = unsafe { std::mem::transmute::<u32, sys::CUlaunchAttributeID>(attribute) };
        // SAFETY: the union is 64 bytes of plain data, and any bytes are valid in its first member.
        let value = unsafe { std::mem::transmute::<[u8; 64], sys::CUlaunchAttributeValue>(value) };
        // SAFETY: `raw` is a live stream, the value is valid for the call.
        check(unsafe { sys::cuStreamSetAttribute(raw, attribute, &value) })
    }

    /// Destroys a stream; its work finishes.
    pub(crate) fn stream_destroy(&mut self, handle: u64) -> Result<(), CuError> {
        self.streams.destroy(handle)
    }

    /// Has `stream` write `value` to a timeline word when it gets here. Slot 0 means that nobody waits.
    pub(crate) fn write_timeline(&self, stream: sys::CUstream, slot: u32, value: u32) -> Result<(), CuError> {
        if slot == 0 {
            return Ok(());
        }
        let address = self.timeline_address(slot).ok_or(CuError::INVALID_VALUE)?;
        // SAFETY: `address` is a word of the registered timeline area, `stream` a live stream or NULL.
        check(unsafe { sys::cuStreamWriteValue32_v2(stream, address, value, 0) })
    }

    /// Writes a timeline word when one stream, or the whole context, got here.
    pub(crate) fn timeline(&mut self, mark: &Timeline) -> Result<(), CuError> {
        let stream = match TimelineScope::try_from(mark.scope).map_err(|_| CuError::INVALID_VALUE)? {
            TimelineScope::Stream => self.streams.raw(mark.stream)?,
            TimelineScope::Context => self.streams.joined()?,
        };
        self.write_timeline(stream, mark.slot, mark.value)
    }

    /// cuStreamWaitValue, cuStreamWriteValue and the other operations of cuStreamBatchMemOp, on a word that both sides see.
    pub(crate) fn stream_value(&mut self, op: &StreamValue) -> Result<(), CuError> {
        let stream = self.streams.raw(op.stream)?;
        let (address, flags) = (op.address, op.flags);
        let kind = MemOpKind::try_from(op.operation).map_err(|_| CuError::INVALID_VALUE)?;
        // SAFETY: `stream` is live; the driver validates address and flags, and a wrong address faults in this tenant's
        // context alone.
        check(unsafe {
            match kind {
                MemOpKind::WaitValue32 => {
                    sys::cuStreamWaitValue32_v2(stream, address, op.value as u32, flags)
                }
                MemOpKind::WaitValue64 => sys::cuStreamWaitValue64_v2(stream, address, op.value, flags),
                MemOpKind::WriteValue32 => {
                    sys::cuStreamWriteValue32_v2(stream, address, op.value as u32, flags)
                }
                MemOpKind::WriteValue64 => sys::cuStreamWriteValue64_v2(stream, address, op.value, flags),
                MemOpKind::Barrier | MemOpKind::FlushRemoteWrites => {
                    let mut operation = RawMemOp::new(MemOp { kind, flags, address, value: op.value });
                    sys::cuStreamBatchMemOp_v2(stream, 1, operation.as_mut_ptr(), 0)
                }
            }
        })
    }
}
