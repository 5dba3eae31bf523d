//! The current context of a thread, which is a local one: whether forwarded calls may go ahead.
//!
//! A positive answer is kept per thread, because every launch asks. It holds until this thread changes its context or any
//! context is destroyed (the generation moves on).

use super::stream;
use crate::{dispatch, outcome::Outcome, real, result::CuResult, session::session};
use lightos_protocol::request::{ContextRequest, Request};
use std::{
    cell::Cell,
    sync::atomic::{AtomicU64, Ordering},
};

/// Counts what may have ended a context.
static GENERATION: AtomicU64 = AtomicU64::new(1);

thread_local! {
    /// The generation in which this thread's context was found usable; 0: not found yet.
    static CHECKED: Cell<u64> = const { Cell::new(0) };
}

/// The device that the session governs, by the ordinal of this process.
const DEVICE: i32 = 0;

/// Whether this thread has a current context on the session's device, else the error that native gives without one.
#[inline]
pub fn check() -> Result<(), CuResult> {
    let generation = GENERATION.load(Ordering::Acquire);
    if CHECKED.try_with(Cell::get) == Ok(generation) {
        return Ok(());
    }
    ask()?;
    let _ = CHECKED.try_with(|checked| checked.set(generation));
    Ok(())
}

#[cold]
fn ask() -> Result<(), CuResult> {
    let (mut context, mut device) = (0, -1);
    // SAFETY: valid out-parameters.
    unsafe {
        real::cuCtxGetCurrent(&mut context).ok()?;
        if context == 0 {
            return Err(CuResult::INVALID_CONTEXT);
        }
        // Fails for a context that was destroyed while current.
        real::cuCtxGetDevice(&mut device).ok()?;
    }
    if device == DEVICE { Ok(()) } else { Err(CuResult::NOT_SUPPORTED) }
}

/// Runs `call` with the device's primary context current. The context stays retained: what is made in it lives as long as it.
pub fn with_primary<T>(call: impl FnOnce() -> Result<T, CuResult>) -> Result<T, CuResult> {
    let (mut context, mut popped) = (0, 0);
    // SAFETY: valid out-parameters; the context is retained and so alive, and popped by the thread that pushed it.
    unsafe {
        real::cuDevicePrimaryCtxRetain(&mut context, DEVICE).ok()?;
        real::cuCtxPushCurrent_v2(context).ok()?;
        let result = call();
        real::cuCtxPopCurrent_v2(&mut popped).ok()?;
        result
    }
}

/// After a call that may have changed this thread's context.
pub fn changed_here(result: CuResult) -> Outcome {
    let _ = CHECKED.try_with(|checked| checked.set(0));
    result.into()
}

/// Runs a call that makes a context on `device`.
pub fn made_on(device: i32, call: impl FnOnce() -> CuResult) -> Outcome {
    dispatch::uses_device(device);
    changed_here(call())
}

/// Runs a call that changes how the context runs kernels, on both sides: the local context answers the queries. The executor
/// goes first where it can refuse what the local context, which never runs anything, would accept.
pub fn configure(request: ContextRequest, local: impl FnOnce() -> CuResult) -> Outcome {
    let run = || {
        let session = session().ok_or(CuResult::DEINITIALIZED)?;
        check()?;
        // The driver may wait for the device before it changes a limit, which the executor must not.
        stream::synchronize_context()?;
        session.call(&Request::Context(request))?;
        local().ok()
    };
    run().into()
}

/// Runs a call that may end a context which other threads have current.
pub fn changed_everywhere(call: impl FnOnce() -> CuResult) -> Outcome {
    // Work in flight may use what the end of the context takes away; native waits for it too. Without a session left, or
    // with a failed one, there is nothing to wait for.
    let _ = stream::synchronize_context();
    let result = call();
    GENERATION.fetch_add(1, Ordering::AcqRel);
    result.into()
}
