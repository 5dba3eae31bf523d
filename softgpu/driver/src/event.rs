//! Events: markers in streams, with the time at which they were passed.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Instant;

use crate::capture;
use crate::context;
use crate::error::{Error, Result};
use crate::handle::{self, Table};
use crate::ipc::word::{EventHandle, Word};
use crate::stream::Stream;
use crate::work::{Task, Work};

/// `CU_EVENT_DISABLE_TIMING` and `CU_EVENT_INTERPROCESS`.
pub const DISABLE_TIMING: u32 = 2;
pub const INTERPROCESS: u32 = 4;
const VALID_FLAGS: u32 = 7;
/// `CU_EVENT_RECORD_EXTERNAL`, `CU_EVENT_WAIT_EXTERNAL`: a node of its own in a captured graph.
pub const EXTERNAL: u32 = 1;

/// One recording of an event: passed at some time, or not yet.
#[derive(Debug, Default)]
pub struct Marker {
    passed_at: Mutex<Option<Instant>>,
    passed: Condvar,
    /// Of an event that processes share: its state, and the number of the recording.
    shared: Option<(Arc<Word>, u64)>,
}

impl Marker {
    fn of(word: &Arc<Word>, number: u64) -> Arc<Marker> {
        Arc::new(Marker { shared: Some((word.clone(), number)), ..Marker::default() })
    }

    /// Marks the point as reached now.
    pub fn pass(&self) {
        if let Some((word, number)) = &self.shared {
            word.pass(*number);
        }
        *self.lock() = Some(Instant::now());
        self.passed.notify_all();
    }

    pub fn wait(&self) {
        if let Some((word, number)) = &self.shared {
            return word.wait(*number);
        }
        let held = self.lock();
        drop(self.passed.wait_while(held, |at| at.is_none()));
    }

    pub fn passed_at(&self) -> Option<Instant> {
        match &self.shared {
            // Such events keep no time.
            Some((word, number)) => word.is_passed(*number).then(Instant::now),
            None => *self.lock(),
        }
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
    shared: Option<Arc<Word>>,
}

static EVENTS: Table<Event> = Table::new();

pub fn create(flags: u32) -> Result<u64> {
    let context = context::healthy()?;
    if flags & !VALID_FLAGS != 0 || flags & (INTERPROCESS | DISABLE_TIMING) == INTERPROCESS {
        return Err(Error::INVALID_VALUE);
    }
    let shared = if flags & INTERPROCESS != 0 { Some(Arc::new(Word::create()?)) } else { None };
    Ok(enter(flags, context.handle, shared))
}

fn enter(flags: u32, context: u64, shared: Option<Arc<Word>>) -> u64 {
    let handle = handle::fresh();
    let recorded = Mutex::new(Recorded::Never);
    EVENTS.insert(handle, Arc::new(Event { handle, flags, context, recorded, shared }));
    handle
}

/// `cuIpcGetEventHandle`.
pub fn ipc_handle(event: &Event) -> Result<EventHandle> {
    event.shared.as_ref().ok_or(Error::INVALID_HANDLE)?.handle()
}

/// `cuIpcOpenEventHandle`: an event with the state of the other process's.
pub fn open(handle: &EventHandle) -> Result<u64> {
    let context = context::healthy()?;
    let word = Arc::new(Word::open(handle)?);
    Ok(enter(INTERPROCESS | DISABLE_TIMING, context.handle, Some(word)))
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
        _ => {
            let Some(marker) = event.marker()? else { return Ok(()) };
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
        let marker = match &self.shared {
            Some(word) => Marker::of(word, word.record()),
            None => Arc::default(),
        };
        *self.recorded() = Recorded::InStream(marker.clone());
        marker
    }

    /// The current recording; `None` where the event was never recorded.
    pub fn marker(&self) -> Result<Option<Arc<Marker>>> {
        match (&*self.recorded(), &self.shared) {
            (Recorded::InCapture(_), _) => Err(Error::CAPTURED_EVENT),
            // Another process may have recorded it last.
            (_, Some(word)) => Ok((word.recorded() != 0).then(|| Marker::of(word, word.recorded()))),
            (Recorded::Never, None) => Ok(None),
            (Recorded::InStream(marker), None) => Ok(Some(marker.clone())),
        }
    }

    /// Refuses to ask about an event that was recorded in a capture; a capture still under way is invalid then.
    pub fn forbid_captured(&self) -> Result {
        match &*self.recorded() {
            Recorded::InCapture(point) => {
                point.invalidate();
                Err(Error::CAPTURED_EVENT)
            }
            _ => Ok(()),
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
