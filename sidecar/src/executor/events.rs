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

use super::Executor;
use super::driver::{CuError, check, sys};

/// `CU_EVENT_DISABLE_TIMING`: the one flag that matters here. Nobody blocks on the executor's events, and none is shared.
const EVENT_FLAGS: u32 = 2;

/// The program's events.
#[derive(Debug, Default)]
pub(crate) struct Events {
    table: FxHashMap<u64, Event>,
}

#[derive(Debug, Clone, Copy)]
struct Event {
    /// What streams wait for, and where intervals begin.
    raw: sys::CUevent,
    /// Where intervals end; none for an event that keeps no time, or that graphs record.
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
    check(unsafe { sys::cuEventCreate(&mut raw, flags & EVENT_FLAGS) })?;
    Ok(raw)
}

impl Events {
    fn find(&self, handle: u64) -> Result<Event, CuError> {
        self.table.get(&handle).copied().ok_or(CuError::INVALID_HANDLE)
    }

    /// The driver's event for a node of a graph, which records or awaits that one alone.
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
        let before_word = if flags & EVENT_FLAGS == 0 { Some(create(flags)?) } else { None };
        match self.table.insert(handle, Event { raw, before_word }) {
            // The program's context was reset, which ended the event of this handle without a call.
            Some(old) => old.destroy(),
            None => Ok(()),
        }
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
