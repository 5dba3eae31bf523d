//! Events: a place in a stream's timeline, which the program queries and waits for without asking; only times come from the
//! executor's event.
//!
//! An event that processes share has no such place: another process may record it at any time, so each question goes to the executor's
//! driver, and every call about it returns when that driver has seen it. Otherwise a record could come after a wait in another
//! process that was told of it.
//!
//! Invariant: an event's state names a value that was pushed to the stream's timeline word after everything the record covers.

use super::capture::{self, captures};
use super::ipc::Handle;
use super::memory::sidecar;
use super::{context, stream};
use crate::edge::Out;
use crate::handles::Handles;
use crate::outcome::{Outcome, Reason};
use crate::real;
use crate::result::CuResult;
use crate::session::{Session, session};
use lightos_protocol::record::{EventRecord, Op, StreamWaitEvent};
use lightos_protocol::request::{IpcRequest, Reply, Request, StreamRequest};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// What the shim knows about an event.
#[derive(Debug, Default)]
pub struct Event {
    /// [`NEVER`], [`DONE`], [`ASK`], or timeline slot and value of the latest record.
    state: AtomicU64,
    /// Whether the latest record belongs to a stream capture.
    captured: AtomicBool,
    /// The `CUcontext` with whose end it ends.
    context: AtomicU64,
    /// Whether other processes may record it.
    shared: AtomicBool,
}

/// Never recorded: complete, as native has it.
const NEVER: u64 = 0;
/// Found complete. Timeline values wrap around, so a record must not be compared with the word for ever. (Slot 0 belongs to nobody.)
const DONE: u64 = 1;
/// Recorded by a graph or a launch, or shared: the executor knows.
const ASK: u64 = u64::MAX;
/// Pause between questions to the executor.
const ASK_AGAIN: Duration = Duration::from_micros(50);

/// `CU_EVENT_DISABLE_TIMING`.
const DISABLE_TIMING: u32 = 2;
/// `CU_EVENT_INTERPROCESS`.
const INTERPROCESS: u32 = 4;

static EVENTS: Handles<Event> = Handles::new();

/// The local driver says what is wrong with the handle.
const UNKNOWN: Outcome = Outcome::PassThrough(Reason::InvalidArgument);

impl Event {
    /// Whether the local driver has the event's latest record, even after that capture has ended.
    fn is_captured(&self) -> bool {
        self.captured.load(Relaxed)
    }

    fn is_shared(&self) -> bool {
        self.shared.load(Relaxed)
    }

    /// Its latest record is a graph's or a launch's, which the executor makes.
    pub fn recorded_by_executor(&self) {
        self.captured.store(false, Relaxed);
        self.state.store(ASK, Relaxed);
    }

    fn is_complete(&self, handle: u64, session: &Session) -> Result<bool, CuResult> {
        match self.state.load(Relaxed) {
            NEVER | DONE => Ok(true),
            ASK => match session.call(&Request::Stream(StreamRequest::EventQuery { event: handle })) {
                Ok(_) => Ok(true),
                Err(CuResult::NOT_READY) => Ok(false),
                Err(error) => Err(error),
            },
            state => {
                let reached = session.reached((state >> 32) as u32, state as u32);
                if reached {
                    self.settle(state);
                }
                Ok(reached)
            }
        }
    }

    /// The record that `state` names is complete; a newer one keeps its own state.
    fn settle(&self, state: u64) {
        let _ = self.state.compare_exchange(state, DONE, Relaxed, Relaxed);
    }

    fn wait(&self, handle: u64, session: &Session) -> Result<(), CuResult> {
        match self.state.load(Relaxed) {
            _ if self.is_shared() => wait_for_shared(handle, session),
            NEVER | DONE => Ok(()),
            ASK => {
                while !self.is_complete(handle, session)? {
                    std::thread::sleep(ASK_AGAIN);
                }
                Ok(())
            }
            state => {
                session.wait((state >> 32) as u32, state as u32)?;
                self.settle(state);
                Ok(())
            }
        }
    }
}

/// Waits for the record that is the event's latest now, whichever process made it: what is recorded meanwhile must not prolong the wait.
fn wait_for_shared(event: u64, session: &Session) -> Result<(), CuResult> {
    let slot = session.slots().allocate().ok_or(CuResult::OUT_OF_MEMORY)?;
    let value = session.slots().next_value(slot);
    // Without an answer nobody knows whether the word will be written, and it stays taken.
    session.call(&Request::Ipc(IpcRequest::EventAwait { event, slot, value }))?;
    session.wait(slot, value)?;
    session.slots().release(slot);
    Ok(())
}

/// What is known about an event.
pub fn find(event: u64) -> Option<&'static Event> {
    EVENTS.get(event)
}

/// cuEventCreate: the local event first, which also judges the arguments.
pub fn create(out: Out<u64>, flags: u32, local: impl FnOnce(*mut u64) -> CuResult) -> Outcome {
    let run = || {
        let session = session().ok_or(CuResult::DEINITIALIZED)?;
        let out = out.required()?;
        let mut event = 0;
        local(&mut event).ok()?;
        session.cast(&Request::Stream(StreamRequest::EventCreate { event, flags }))?;
        enter(event, flags & INTERPROCESS != 0);
        out.put(event);
        Ok(())
    };
    run().into()
}

/// Makes an event known.
fn enter(event: u64, shared: bool) {
    let known = EVENTS.spare();
    known.state.store(if shared { ASK } else { NEVER }, Relaxed);
    known.captured.store(false, Relaxed);
    known.context.store(context::current(), Relaxed);
    known.shared.store(shared, Relaxed);
    EVENTS.insert(event, known);
}

/// cuIpcGetEventHandle: the handle is the driver's of the executor, good for any process.
pub fn ipc_handle(out: Out<Handle>, event: u64) -> Result<Outcome, CuResult> {
    // Of an event that was not made to be shared, the local driver gives no handle either.
    if !find(event).is_some_and(Event::is_shared) {
        return Ok(UNKNOWN);
    }
    let out = out.required()?;
    out.put(Handle::of(sidecar()?.call(&Request::Ipc(IpcRequest::EventHandle { event }))?)?);
    Ok(Outcome::Done)
}

/// cuIpcOpenEventHandle: the executor opens it. The local twin is an event without records, which is all that captures ask of it.
pub fn ipc_open(out: Out<u64>, handle: Handle) -> Result<(), CuResult> {
    let session = sidecar()?;
    let out = out.required()?;
    let mut event = 0;
    // SAFETY: a valid out-parameter.
    unsafe { real::cuEventCreate(&mut event, DISABLE_TIMING) }.ok()?;
    let request = IpcRequest::EventOpen { event, handle: handle.0.to_vec() };
    session.call(&Request::Ipc(request)).inspect_err(|_| {
        // SAFETY: made just now, and nobody else knows it.
        let _ = unsafe { real::cuEventDestroy_v2(event) };
    })?;
    enter(event, true);
    out.put(event);
    Ok(())
}

/// cuEventDestroy.
pub fn destroy(event: u64, local: impl FnOnce() -> CuResult) -> Outcome {
    let Some(session) = session() else { return UNKNOWN };
    let Some(known) = EVENTS.remove(event) else { return UNKNOWN };
    // The executor first: as soon as the local handle is free, another thread may be given the same value.
    let sent = session.send_op(Op::EventDestroy, event);
    EVENTS.recycle(known);
    local().ok().and(sent).into()
}

/// The events of a context that has ended.
pub fn end_of_context(session: &Session, context: u64) {
    for (handle, event) in EVENTS.remove_where(|event| event.context.load(Relaxed) == context) {
        let _ = session.send_op(Op::EventDestroy, handle);
        EVENTS.recycle(event);
    }
}

/// cuEventRecord and cuEventRecordWithFlags.
pub fn record(event: u64, stream: u64, flags: u32, local: impl FnOnce() -> CuResult) -> Outcome {
    /// `CU_EVENT_RECORD_EXTERNAL`.
    const FLAGS: u32 = 1;
    let Some(known) = find(event) else { return UNKNOWN };
    if flags & !FLAGS != 0 {
        return UNKNOWN;
    }
    if captures(stream) {
        known.captured.store(true, Relaxed);
        return capture::PASS;
    }
    let run = || {
        let session = session().ok_or(CuResult::DEINITIALIZED)?;
        context::check()?;
        if flags != 0 {
            // Meant for captures; whether it is allowed elsewhere, the local driver says, where the record covers nothing.
            local().ok()?;
        }
        let stream = stream::find(stream)?;
        if known.is_shared() {
            let record = EventRecord { event, stream: stream.wire(), flags, slot: 0, value: 0, pad: 0 };
            session.ask(&record, &[])?;
            stream.touch();
            if known.captured.swap(false, Relaxed) {
                record_locally(event);
            }
            return Ok(());
        }
        let (slot, value) = stream.mark(session, |slot, value| {
            session.send(&EventRecord { event, stream: stream.wire(), flags, slot, value, pad: 0 }, &[])
        })?;
        if known.captured.swap(false, Relaxed) {
            // The local twin still belongs to that capture, and would forbid questions while another one is under way.
            record_locally(event);
        }
        known.state.store(u64::from(slot) << 32 | u64::from(value), Relaxed);
        Ok(())
    };
    run().into()
}

/// cuEventQuery.
pub fn query(event: u64, local: impl Fn() -> CuResult) -> Outcome {
    let Some(known) = find(event) else { return UNKNOWN };
    if known.is_captured() {
        return capture::PASS;
    }
    let run = || {
        let session = session().ok_or(CuResult::DEINITIALIZED)?;
        capture::permits(&local)?;
        let complete = known.is_complete(event, session)?;
        session.sticky().map_or(Ok(()), Err)?;
        if complete { Ok(()) } else { Err(CuResult::NOT_READY) }
    };
    run().into()
}

/// cuEventSynchronize.
pub fn synchronize(event: u64, local: impl Fn() -> CuResult) -> Outcome {
    let Some(known) = find(event) else { return UNKNOWN };
    if known.is_captured() {
        return capture::PASS;
    }
    let run = || {
        let session = session().ok_or(CuResult::DEINITIALIZED)?;
        capture::permits(&local)?;
        known.wait(event, session)
    };
    run().into()
}

/// cuEventElapsedTime.
pub fn elapsed(out: Out<f32>, start: u64, end: u64) -> Outcome {
    let (Some(first), Some(second)) = (find(start), find(end)) else { return UNKNOWN };
    if first.is_captured() || second.is_captured() {
        return capture::PASS;
    }
    let run = || {
        let session = session().ok_or(CuResult::DEINITIALIZED)?;
        let out = out.required()?;
        loop {
            match session.call(&Request::Stream(StreamRequest::EventElapsed { start, end })) {
                Ok(Reply::F32(milliseconds)) => {
                    out.put(milliseconds);
                    return Ok(());
                }
                Ok(_) => return Err(CuResult::UNKNOWN),
                // The timeline word is written right before the event is recorded: complete here, but not yet there.
                Err(CuResult::NOT_READY)
                    if first.is_complete(start, session)? && second.is_complete(end, session)? =>
                {
                    std::thread::yield_now();
                }
                Err(error) => return Err(error),
            }
        }
    };
    run().into()
}

/// Tells the local driver that an event was recorded outside any capture: it then refuses to let a capture depend on it, and takes it for no
/// part of one. Only the executor has seen the record itself.
#[cold]
fn record_locally(event: u64) {
    /// `CU_STREAM_NON_BLOCKING`.
    const NON_BLOCKING: u32 = 1;
    static ELSEWHERE: OnceLock<u64> = OnceLock::new();
    let stream = *ELSEWHERE.get_or_init(|| {
        let mut stream = 0;
        // SAFETY: a valid out-parameter.
        unsafe { real::cuStreamCreate(&mut stream, NON_BLOCKING) };
        stream
    });
    if stream != 0 {
        // SAFETY: the event is known, the stream our own. If it fails, the capture gets a dependency on an event without a record.
        unsafe { real::cuEventRecord(event, stream) };
    }
}

/// cuStreamWaitEvent.
pub fn wait(stream: u64, event: u64, flags: u32, local: impl FnOnce() -> CuResult) -> Outcome {
    /// `CU_EVENT_WAIT_EXTERNAL`.
    const FLAGS: u32 = 1;
    let Some(known) = find(event) else { return UNKNOWN };
    if flags & !FLAGS != 0 {
        return UNKNOWN;
    }
    // A captured event draws the stream into the capture.
    if known.is_captured() {
        return capture::PASS;
    }
    if captures(stream) {
        if known.state.load(Relaxed) != NEVER {
            record_locally(event);
        }
        return capture::PASS;
    }
    let run = || {
        let session = session().ok_or(CuResult::DEINITIALIZED)?;
        context::check()?;
        if flags != 0 {
            local().ok()?;
        }
        let stream = stream::find(stream)?;
        let record = StreamWaitEvent { stream: stream.wire(), event, flags, pad: 0 };
        if known.is_shared() {
            session.ask(&record, &[])?;
        } else {
            session.send(&record, &[])?;
        }
        stream.touch();
        Ok(())
    };
    run().into()
}
