//! Streams: the program's handle, the executor's stream under the same value, and a timeline word that says how far it got.
//!
//! Three kinds of handle are not addresses: 0 and 1 (`CU_STREAM_LEGACY`) mean the legacy default stream, 2
//! (`CU_STREAM_PER_THREAD`) the calling thread's default stream, which the executor knows under an id made up here.
//!
//! Invariants: values of a stream's timeline word are taken and pushed under the stream's lock, so the device writes them in
//! growing order; the word is released only when its last value was reached.

mod thread;
mod value;

use super::capture::{self, captures};
use super::{context, pool};
use crate::edge::{In, Out};
use crate::handles::Handles;
use crate::outcome::{Outcome, Reason};
use crate::real;
use crate::result::CuResult;
use crate::session::{Session, session};
use lightos_protocol::record::{Handle, Op, Timeline, TimelineScope};
use lightos_protocol::request::{Request, StreamRequest};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use zerocopy::IntoBytes;

pub use value::{MemOp, batch_values, value};

/// `CU_STREAM_LEGACY`.
const LEGACY: u64 = 1;
/// `CU_STREAM_PER_THREAD`.
const PER_THREAD: u64 = 2;

/// What the shim knows about a stream.
#[derive(Debug)]
pub struct Stream {
    /// What records call it.
    wire: AtomicU64,
    /// Its timeline word; 0 until the first mark.
    slot: AtomicU32,
    /// Whether work may have been pushed since the last mark.
    used: AtomicBool,
    /// The value of the last mark.
    marked: Mutex<u32>,
    /// The `CUcontext` with whose end it ends; 0 for the default streams.
    context: AtomicU64,
}

impl Default for Stream {
    fn default() -> Self {
        Self::new()
    }
}

impl Stream {
    const fn new() -> Self {
        Self {
            wire: AtomicU64::new(0),
            slot: AtomicU32::new(0),
            used: AtomicBool::new(false),
            marked: Mutex::new(0),
            context: AtomicU64::new(0),
        }
    }

    /// What records call it.
    #[inline]
    pub fn wire(&self) -> u64 {
        self.wire.load(Relaxed)
    }

    /// Notes that work was pushed.
    #[inline]
    pub fn touch(&self) {
        self.used.store(true, Relaxed);
    }

    /// Takes the next value of the stream's timeline word and pushes the record that has the device write it.
    pub fn mark(
        &self,
        session: &Session,
        push: impl FnOnce(u32, u32) -> Result<(), CuResult>,
    ) -> Result<(u32, u32), CuResult> {
        let mut marked = self.marked.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = match self.slot.load(Relaxed) {
            0 => {
                sweep(session);
                let slot = session.slots().allocate().ok_or(CuResult::OUT_OF_MEMORY)?;
                self.slot.store(slot, Relaxed);
                slot
            }
            slot => slot,
        };
        self.used.store(false, Relaxed);
        let value = session.slots().next_value(slot);
        *marked = value;
        push(slot, value)?;
        Ok((slot, value))
    }

    fn push_mark(&self, session: &Session) -> Result<(u32, u32), CuResult> {
        self.mark(session, |slot, value| {
            let scope = TimelineScope::Stream.into();
            session.send(&Timeline { stream: self.wire(), slot, value, scope, pad: 0 }, &[])
        })
    }

    /// Waits for everything pushed to the stream so far.
    pub fn synchronize(&self, session: &Session) -> Result<(), CuResult> {
        let (slot, value) = self.push_mark(session)?;
        session.wait(slot, value)
    }

    /// Whether the device has done everything pushed so far.
    fn is_idle(&self, session: &Session) -> Result<bool, CuResult> {
        if self.used.load(Relaxed) {
            self.push_mark(session)?;
        }
        let value = *self.marked.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = self.slot.load(Relaxed);
        Ok(slot == 0 || session.reached(slot, value))
    }
}

/// The legacy default stream.
static DEFAULT: Stream = Stream::new();
/// Streams that the program created, by handle.
static STREAMS: Handles<Stream> = Handles::new();
/// Timeline words whose last value was not reached when their stream went.
static LEAVING: Mutex<Vec<u32>> = Mutex::new(Vec::new());

/// The stream of a handle.
///
/// # Errors
/// What the local driver says about a handle that it does not know either.
#[inline]
pub fn find(stream: u64) -> Result<&'static Stream, CuResult> {
    match stream {
        0 | LEGACY => Ok(&DEFAULT),
        PER_THREAD => thread::own(),
        _ => match STREAMS.get(stream) {
            Some(found) => Ok(found),
            None => adopt(stream),
        },
    }
}

/// A number that no other stream of the process has: the handle of the per-thread default stream means another one in each thread.
pub fn identity(stream: u64) -> u64 {
    if stream == PER_THREAD { thread::own().map_or(stream, Stream::wire) } else { stream }
}

/// A stream that the local driver made without our seeing it.
#[cold]
fn adopt(stream: u64) -> Result<&'static Stream, CuResult> {
    let session = session().ok_or(CuResult::DEINITIALIZED)?;
    let (mut flags, mut priority) = (0, 0);
    // SAFETY: valid out-parameters; the handle is the program's.
    unsafe {
        real::cuStreamGetFlags(stream, &mut flags).ok()?;
        real::cuStreamGetPriority(stream, &mut priority).ok()?;
    }
    announce(session, stream, stream, flags, priority)
}

/// Makes a stream known to the executor as `wire` and here under `handle`, unless that is 0.
fn announce(
    session: &Session,
    handle: u64,
    wire: u64,
    flags: u32,
    priority: i32,
) -> Result<&'static Stream, CuResult> {
    session.cast(&Request::Stream(StreamRequest::Create { stream: wire, flags, priority }))?;
    let stream = STREAMS.spare();
    stream.wire.store(wire, Relaxed);
    stream.used.store(false, Relaxed);
    stream.context.store(if handle == 0 { 0 } else { context::current() }, Relaxed);
    STREAMS.insert(handle, stream);
    Ok(stream)
}

/// Tells the executor that a stream is gone and gives back what it had.
fn release(session: &Session, stream: &'static Stream) -> Result<(), CuResult> {
    pool::stream_gone(stream.wire());
    let sent = session.send_op(Op::StreamDestroy, stream.wire());
    let slot = stream.slot.swap(0, Relaxed);
    if slot != 0 {
        LEAVING.lock().unwrap_or_else(PoisonError::into_inner).push(slot);
    }
    STREAMS.recycle(stream);
    sweep(session);
    sent
}

/// Gives back the timeline words of streams that are gone and done.
fn sweep(session: &Session) {
    let slots = session.slots();
    LEAVING.lock().unwrap_or_else(PoisonError::into_inner).retain(|&slot| {
        let done = session.reached(slot, slots.last_value(slot));
        if done {
            slots.release(slot);
        }
        !done
    });
}

/// cuStreamCreate and cuStreamCreateWithPriority: the local stream first, which also judges the arguments.
pub fn create(out: Out<u64>, flags: u32, priority: i32, local: impl FnOnce(*mut u64) -> CuResult) -> Outcome {
    let run = || {
        let session = session().ok_or(CuResult::DEINITIALIZED)?;
        let out = out.required()?;
        let mut stream = 0;
        local(&mut stream).ok()?;
        announce(session, stream, stream, flags, priority)?;
        out.put(stream);
        Ok(())
    };
    Outcome::from(run())
}

/// cuStreamDestroy.
pub fn destroy(stream: u64, local: impl FnOnce() -> CuResult) -> Outcome {
    let Some(session) = session() else { return PASS_UNKNOWN };
    let Some(known) = STREAMS.remove(stream) else { return PASS_UNKNOWN };
    capture::over(stream);
    // The executor first: as soon as the local handle is free, another thread may be given the same value.
    let sent = release(session, known);
    local().ok().and(sent).into()
}

/// The streams of a context that has ended.
pub fn end_of_context(session: &Session, context: u64) {
    for (handle, stream) in STREAMS.remove_where(|stream| stream.context.load(Relaxed) == context) {
        capture::over(handle);
        let _ = release(session, stream);
    }
}

/// The local driver says what is wrong with the handle.
const PASS_UNKNOWN: Outcome = Outcome::PassThrough(Reason::InvalidArgument);

/// cuStreamSynchronize.
pub fn synchronize_call(stream: u64, local: impl Fn() -> CuResult) -> Outcome {
    if captures(stream) {
        return capture::PASS;
    }
    let run = || {
        context::check()?;
        capture::permits(&local)?;
        synchronize(stream)
    };
    run().into()
}

/// Waits for everything pushed to a stream so far. Takes the program's handle, or its id in records.
pub fn synchronize(stream: u64) -> Result<(), CuResult> {
    let session = session().ok_or(CuResult::DEINITIALIZED)?;
    match stream {
        _ if thread::is_own(stream) => thread::own()?.synchronize(session),
        _ => find(stream)?.synchronize(session),
    }
}

/// cuStreamQuery.
pub fn query(stream: u64, local: impl Fn() -> CuResult) -> Outcome {
    if captures(stream) {
        return capture::PASS;
    }
    let run = || {
        let session = session().ok_or(CuResult::DEINITIALIZED)?;
        context::check()?;
        capture::permits(&local)?;
        let idle = find(stream)?.is_idle(session)?;
        session.sticky().map_or(Ok(()), Err)?;
        if idle { Ok(()) } else { Err(CuResult::NOT_READY) }
    };
    run().into()
}

/// cuCtxSynchronize: waits for everything pushed so far, on all streams.
pub fn synchronize_context() -> Result<(), CuResult> {
    static CONTEXT: Stream = Stream::new();
    let session = session().ok_or(CuResult::DEINITIALIZED)?;
    let (slot, value) = CONTEXT.mark(session, |slot, value| {
        let scope = TimelineScope::Context.into();
        session.send(&Timeline { stream: 0, slot, value, scope, pad: 0 }, &[])
    })?;
    session.wait(slot, value)
}

/// cuCtxSynchronize as the program calls it.
pub fn synchronize_context_call(local: impl Fn() -> CuResult) -> Outcome {
    let run = || {
        context::check()?;
        capture::permits(&local)?;
        synchronize_context()
    };
    run().into()
}

/// cuStreamSetAttribute: the local stream first, which also judges the arguments.
pub fn set_attribute(
    stream: u64,
    attribute: u32,
    value: &In<[u8; 64]>,
    local: impl FnOnce() -> CuResult,
) -> Outcome {
    let run = || {
        let known = find(stream)?;
        local().ok()?;
        forward_attribute(known, attribute, &value.get()?)
    };
    run().into()
}

fn forward_attribute(stream: &Stream, attribute: u32, value: &[u8; 64]) -> Result<(), CuResult> {
    let session = session().ok_or(CuResult::DEINITIALIZED)?;
    let request = StreamRequest::SetAttribute { stream: stream.wire(), attribute, value: value.to_vec() };
    session.call(&Request::Stream(request)).map(drop)
}

/// cuStreamCopyAttributes: what the local driver copied is set on the executor's stream, attribute by attribute.
pub fn copy_attributes(to: u64, local: impl FnOnce() -> CuResult) -> Outcome {
    /// Access policy window, synchronization policy, priority, memory synchronization domain and its map.
    const COPIED: [u32; 5] = [1, 3, 8, 9, 10];
    let run = || {
        let known = find(to)?;
        local().ok()?;
        for attribute in COPIED {
            let mut value = [0u8; 64];
            // SAFETY: 64 bytes for a `CUstreamAttrValue`. A driver that does not know an attribute has not copied it.
            if unsafe { real::cuStreamGetAttribute(to, attribute, value.as_mut_ptr()) } != CuResult::SUCCESS {
                continue;
            }
            forward_attribute(known, attribute, &value)?;
        }
        Ok(())
    };
    run().into()
}

impl Session {
    /// Pushes a record that consists of a handle.
    pub(super) fn send_op(&self, op: Op, handle: u64) -> Result<(), CuResult> {
        self.push(op, &[Handle { handle }.as_bytes()])
    }
}
