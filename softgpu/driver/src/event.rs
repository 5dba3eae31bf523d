//! Events: markers in streams, with the time at which they were passed.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Instant;

use crate::capture;
use crate::context;
use crate::error::{Error, Result};
use crate::handle::{self, Table};
use crate::stream::Stream;
use crate::work::{Task, Work};

/// `CU_EVENT_DISABLE_TIMING` and `CU_EVENT_INTERPROCESS`.
pub const DISABLE_TIMING: u32 = 2;
const INTERPROCESS: u32 = 4;
const VALID_FLAGS: u32 = 7;
/// `CU_EVENT_RECORD_EXTERNAL`, `CU_EVENT_WAIT_EXTERNAL`: a node of its own in a captured graph.
pub const EXTERNAL: u32 = 1;

/// One recording of an event: passed at some time, or not yet.
#[derive(Debug, Default)]
pub struct Marker {
    passed_at: Mutex<Option<Instant>>,
    passed: Condvar,
}

impl Marker {
    /// Marks the point as reached now.
    pub fn pass(&self) {
        *self.lock() = Some(Instant::now());
        self.passed.notify_all();
    }

    pub fn wait(&self) {
        let held = self.lock();
        drop(self.passed.wait_while(held, |at| at.is_none()));
    }

    pub fn passed_at(&self) -> Option<Instant> {
        *self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        self.passed_at.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// What the event last marked.
#[derive(Clone, Debug)]
enum Recorded {
    Never,
    InStream(Arc<Marker>),
    InCapture(capture::Point),
}

/// One event.
#[derive(Debug)]
pub struct Event {
    pub handle: u64,
    pub flags: u32,
    pub context: u64,
    recorded: Mutex<Recorded>,
}

static EVENTS: Table<Event> = Table::new();

pub fn create(flags: u32) -> Result<u64> {
    let context = context::healthy()?;
    if flags & !VALID_FLAGS != 0 || flags & (INTERPROCESS | DISABLE_TIMING) == INTERPROCESS {
        return Err(Error::INVALID_VALUE);
    }
    let recorded = Mutex::new(Recorded::Never);
    let event = Event { handle: handle::fresh(), flags, context: context.handle, recorded };
    let handle = event.handle;
    EVENTS.insert(handle, Arc::new(event));
    Ok(handle)
}

pub fn find(handle: u64) -> Result<Arc<Event>> {
    EVENTS.get(handle).ok_or(Error::INVALID_HANDLE)
}

pub fn destroy(handle: u64) -> Result {
    EVENTS.remove(handle).map(drop).ok_or(Error::INVALID_HANDLE)
}

/// Handles of the events of the contexts that `of` accepts.
pub(crate) fn created(of: impl Fn(u64) -> bool) -> Vec<u64> {
    EVENTS.all(|event| of(event.context)).iter().map(|event| event.handle).collect()
}

pub(crate) fn forget_context(context: u64) {
    EVENTS.retain(|event| event.context != context);
}

/// `cuEventRecordWithFlags`.
pub fn record(event: &Arc<Event>, stream: &Arc<Stream>, flags: u32) -> Result {
    if flags & !EXTERNAL != 0 {
        return Err(Error::INVALID_VALUE);
    }
    if event.context != stream.context.handle {
        return Err(Error::INVALID_HANDLE);
    }
    if flags == EXTERNAL {
        if !capture::is_capturing(stream)? {
            return Err(Error::ILLEGAL_STATE);
        }
        return stream.submit(Work::RecordEvent(event.clone()));
    }
    if let Some(point) = capture::point(stream)? {
        *event.recorded() = Recorded::InCapture(point);
        return Ok(());
    }
    capture::forbid_implicit(stream)?;
    let marker = event.renew();
    stream.enqueue(Task::Record(marker)).map(drop)
}

/// `cuStreamWaitEvent`.
pub fn make_wait(stream: &Arc<Stream>, event: &Arc<Event>, flags: u32) -> Result {
    if flags & !EXTERNAL != 0 {
        return Err(Error::INVALID_VALUE);
    }
    if flags == EXTERNAL {
        if !capture::is_capturing(stream)? {
            return Err(Error::ILLEGAL_STATE);
        }
        return stream.submit(Work::WaitEvent(event.clone()));
    }
    let recorded = event.recorded().clone();
    match recorded {
        Recorded::InCapture(point) => capture::join(stream, &point),
        _ if capture::is_capturing(stream)? => {
            Err(capture::invalidate(stream, Error::STREAM_CAPTURE_ISOLATION))
        }
        Recorded::Never => Ok(()),
        Recorded::InStream(marker) => {
            capture::forbid_implicit(stream)?;
            stream.enqueue(Task::Await(marker)).map(drop)
        }
    }
}

impl Event {
    fn recorded(&self) -> MutexGuard<'_, Recorded> {
        self.recorded.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Replaces the recording by one that has not been passed yet.
    pub fn renew(&self) -> Arc<Marker> {
        let marker = Arc::<Marker>::default();
        *self.recorded() = Recorded::InStream(marker.clone());
        marker
    }

    /// The current recording; `None` where the event was never recorded.
    pub fn marker(&self) -> Result<Option<Arc<Marker>>> {
        match &*self.recorded() {
            Recorded::Never => Ok(None),
            Recorded::InStream(marker) => Ok(Some(marker.clone())),
            Recorded::InCapture(_) => Err(Error::CAPTURED_EVENT),
        }
    }

    pub fn query(&self) -> Result {
        match self.marker()? {
            Some(marker) if marker.passed_at().is_none() => Err(Error::NOT_READY),
            _ => context::poisoned(),
        }
    }

    pub fn synchronize(&self) -> Result {
        if let Some(marker) = self.marker()? {
            marker.wait();
        }
        context::poisoned()
    }
}

/// Milliseconds from one event to another.
pub fn elapsed_ms(start: &Event, end: &Event) -> Result<f32> {
    if (start.flags | end.flags) & DISABLE_TIMING != 0 || start.context != end.context {
        return Err(Error::INVALID_HANDLE);
    }
    let (start, end) =
        (start.marker()?.ok_or(Error::INVALID_HANDLE)?, end.marker()?.ok_or(Error::INVALID_HANDLE)?);
    let (Some(start), Some(end)) = (start.passed_at(), end.passed_at()) else { return Err(Error::NOT_READY) };
    context::poisoned()?;
    let seconds = match end.checked_duration_since(start) {
        Some(forward) => forward.as_secs_f64(),
        None => -start.duration_since(end).as_secs_f64(),
    };
    Ok((seconds * 1e3) as f32)
}
