//! Events under the program's handle values.
//!
//! Owned by the ring thread. With a record goes a write of the stream's timeline word, so that the program queries and waits
//! without asking; only timing needs the driver's event.
//!
//! The word is written before the event is recorded: whoever sees something that waited for the event must find it complete. An
//! interval between two such events would hold the second one's write, which takes as long as a small kernel. So an event that
//! keeps time is recorded a second time, before its word; intervals end there.

use lightos_protocol::record::{EventRecord, StreamWaitEvent};
use rustc_hash::FxHashMap;

use super::driver::{CuError, check, sys};
use super::{Executor, ipc};

/// `CU_EVENT_DISABLE_TIMING`.
const DISABLE_TIMING: u32 = 2;
/// `CU_EVENT_INTERPROCESS`. Nobody blocks on the executor's events, so `CU_EVENT_BLOCKING_SYNC` does not matter.
const INTERPROCESS: u32 = 4;

/// The program's events.
#[derive(Debug, Default)]
pub(crate) struct Events {
    table: FxHashMap<u64, Event>,
    /// Streams that wait for events apart from the program's, see [`Events::wait_apart`].
    apart: Vec<sys::CUstream>,
}

#[derive(Debug, Clone, Copy)]
struct Event {
    /// What streams wait for, and where intervals begin.
    raw: sys::CUevent,
    /// Where intervals end; none for an event that keeps no time, or that graphs or launches record.
    before_word: Option<sys::CUevent>,
}

impl Event {
    fn destroy(self) -> Result<(), CuError> {
        for raw in self.before_word.into_iter().chain([self.raw]) {
            // SAFETY: the handles are ours, and their owner has just left the table.
            check(unsafe { sys::cuEventDestroy_v2(raw) })?;
        }
        Ok(())
    }
}

fn create(flags: u32) -> Result<sys::CUevent, CuError> {
    let mut raw = std::ptr::null_mut();
    // SAFETY: `raw` is a valid out-pointer; the context is current on the ring thread.
    check(unsafe { sys::cuEventCreate(&mut raw, flags & (DISABLE_TIMING | INTERPROCESS)) })?;
    Ok(raw)
}

impl Events {
    fn find(&self, handle: u64) -> Result<Event, CuError> {
        self.table.get(&handle).copied().ok_or(CuError::INVALID_HANDLE)
    }

    /// The driver's event for a node of a graph or an attribute of a launch, which record or await that one alone.
    pub(crate) fn of_graph(&mut self, handle: u64) -> Result<sys::CUevent, CuError> {
        let event = self.table.get_mut(&handle).ok_or(CuError::INVALID_HANDLE)?;
        if let Some(unused) = event.before_word.take() {
            // SAFETY: the handle was ours and has just left the table.
            check(unsafe { sys::cuEventDestroy_v2(unused) })?;
        }
        Ok(event.raw)
    }

    pub(super) fn create(&mut self, handle: u64, flags: u32) -> Result<(), CuError> {
        let raw = create(flags)?;
        let before_word = if flags & DISABLE_TIMING == 0 { Some(create(flags)?) } else { None };
        self.insert(handle, Event { raw, before_word })
    }

    fn insert(&mut self, handle: u64, event: Event) -> Result<(), CuError> {
        match self.table.insert(handle, event) {
            // The program's context was reset, which ended the event of this handle without a call.
            Some(old) => old.destroy(),
            None => Ok(()),
        }
    }

    /// The driver's handle of an event that other processes may open.
    pub(super) fn ipc_handle(&self, handle: u64) -> Result<[u8; 64], CuError> {
        let mut found = sys::CUipcEventHandle { reserved: [0; 64] };
        // SAFETY: the event is live and the out-pointer valid.
        check(unsafe { sys::cuIpcGetEventHandle(&mut found, self.find(handle)?.raw) })?;
        Ok(ipc::bytes_of(found))
    }

    /// Opens another process's event under the program's handle for it.
    pub(super) fn ipc_open(&mut self, handle: u64, shared: [u8; 64]) -> Result<(), CuError> {
        let raw = ipc::open_event(shared)?;
        self.insert(handle, Event { raw, before_word: None })
    }

    /// A stream that waits for the event's latest record and for nothing else. No stream of the program's would do: the host's waits
    /// are not part of what a context has under way.
    pub(super) fn wait_apart(&mut self, event: u64) -> Result<sys::CUstream, CuError> {
        let event = self.find(event)?.raw;
        // SAFETY: streams of this table live as long as the process.
        let idle = |stream: &sys::CUstream| check(unsafe { sys::cuStreamQuery(*stream) }).is_ok();
        let stream = match self.apart.iter().copied().find(|stream| idle(stream)) {
            Some(stream) => stream,
            None => {
                let mut stream = std::ptr::null_mut();
                let flags = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
                // SAFETY: a valid out-pointer; the context is current on the ring thread.
                check(unsafe { sys::cuStreamCreate(&mut stream, flags) })?;
                self.apart.push(stream);
                stream
            }
        };
        // SAFETY: both handles are live.
        check(unsafe { sys::cuStreamWaitEvent(stream, event, 0) })?;
        Ok(stream)
    }

    /// Milliseconds between two recorded events.
    pub(super) fn elapsed(&self, start: u64, end: u64) -> Result<f32, CuError> {
        let (first, last) = (self.find(start)?, self.find(end)?);
        let until = if start == end { last.raw } else { last.before_word.unwrap_or(last.raw) };
        let (start, end) = (first.raw, until);
        let mut milliseconds = 0.0;
        // SAFETY: both events are live and the out-pointer is valid.
        check(unsafe { sys::cuEventElapsedTime_v2(&mut milliseconds, start, end) })?;
        Ok(milliseconds)
    }

    pub(super) fn query(&self, event: u64) -> Result<(), CuError> {
        // SAFETY: the event is live.
        check(unsafe { sys::cuEventQuery(self.find(event)?.raw) })
    }
}

impl Executor {
    /// Records an event and lets the stream's timeline tell the program when it is reached.
    pub(crate) fn event_record(&mut self, record: &EventRecord) -> Result<(), CuError> {
        let event = self.events.find(record.event)?;
        let stream = self.streams.raw(record.stream)?;
        if let Some(before_word) = event.before_word {
            // SAFETY: both handles are live.
            check(unsafe { sys::cuEventRecord(before_word, stream) })?;
        }
        self.write_timeline(stream, record.slot, record.value)?;
        // SAFETY: as above. The flags (`CU_EVENT_RECORD_EXTERNAL`) mean something in a capture only, and there is none here.
        check(unsafe { sys::cuEventRecord(event.raw, stream) })
    }

    /// Makes a stream wait for an event's latest record.
    pub(crate) fn stream_wait_event(&mut self, wait: &StreamWaitEvent) -> Result<(), CuError> {
        let event = self.events.find(wait.event)?.raw;
        let stream = self.streams.raw(wait.stream)?;
        // SAFETY: as above.
        check(unsafe { sys::cuStreamWaitEvent(stream, event, 0) })
    }

    /// Destroys an event.
    pub(crate) fn event_destroy(&mut self, handle: u64) -> Result<(), CuError> {
        self.events.table.remove(&handle).ok_or(CuError::INVALID_HANDLE)?.destroy()
    }
}
