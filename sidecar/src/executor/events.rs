//! Events under the program's handle values.
//!
//! Owned by the ring thread. A record is followed by a write of the stream's timeline word, so that the program queries and waits
//! without asking; only timing needs the driver's event.

use lightos_protocol::record::{EventRecord, StreamWaitEvent};
use rustc_hash::FxHashMap;

use super::Executor;
use super::driver::{CuError, check, sys};

/// `CU_EVENT_DISABLE_TIMING`: the one flag that matters here. Nobody blocks on the executor's events, and none is shared.
const EVENT_FLAGS: u32 = 2;

/// The program's events.
#[derive(Debug, Default)]
pub(crate) struct Events {
    table: FxHashMap<u64, sys::CUevent>,
}

impl Events {
    /// The driver's event for the program's handle.
    pub(crate) fn raw(&self, handle: u64) -> Result<sys::CUevent, CuError> {
        self.table.get(&handle).copied().ok_or(CuError::INVALID_HANDLE)
    }

    pub(super) fn create(&mut self, handle: u64, flags: u32) -> Result<(), CuError> {
        let mut raw = std::ptr::null_mut();
        // SAFETY: `raw` is a valid out-pointer; the context is current on the ring thread.
        check(unsafe { sys::cuEventCreate(&mut raw, flags & EVENT_FLAGS) })?;
        if let Some(old) = self.table.insert(handle, raw) {
            // The program's context was reset, which ended the event of this handle without a call.
            // SAFETY: the handle was ours and has just left the table.
            check(unsafe { sys::cuEventDestroy_v2(old) })?;
        }
        Ok(())
    }

    /// Milliseconds between two recorded events.
    pub(super) fn elapsed(&self, start: u64, end: u64) -> Result<f32, CuError> {
        let (start, end) = (self.raw(start)?, self.raw(end)?);
        let mut milliseconds = 0.0;
        // SAFETY: both events are live and the out-pointer is valid.
        check(unsafe { sys::cuEventElapsedTime_v2(&mut milliseconds, start, end) })?;
        Ok(milliseconds)
    }

    pub(super) fn query(&self, event: u64) -> Result<(), CuError> {
        // SAFETY: the event is live.
        check(unsafe { sys::cuEventQuery(self.raw(event)?) })
    }
}

impl Executor {
    /// Records an event and lets the stream's timeline tell the program when it is reached.
    pub(crate) fn event_record(&mut self, record: &EventRecord) -> Result<(), CuError> {
        let event = self.events.raw(record.event)?;
        let stream = self.streams.raw(record.stream)?;
        // The word first: whoever sees something that waited for the event must find the event complete.
        self.write_timeline(stream, record.slot, record.value)?;
        // SAFETY: both handles are live. The flags (`CU_EVENT_RECORD_EXTERNAL`) mean something in a capture only, and there is none here.
        check(unsafe { sys::cuEventRecord(event, stream) })
    }

    /// Makes a stream wait for an event's latest record.
    pub(crate) fn stream_wait_event(&mut self, wait: &StreamWaitEvent) -> Result<(), CuError> {
        let event = self.events.raw(wait.event)?;
        let stream = self.streams.raw(wait.stream)?;
        // SAFETY: as above.
        check(unsafe { sys::cuStreamWaitEvent(stream, event, 0) })
    }

    /// Destroys an event.
    pub(crate) fn event_destroy(&mut self, handle: u64) -> Result<(), CuError> {
        let event = self.events.table.remove(&handle).ok_or(CuError::INVALID_HANDLE)?;
        // SAFETY: the handle was ours and has just left the table.
        check(unsafe { sys::cuEventDestroy_v2(event) })
    }
}
