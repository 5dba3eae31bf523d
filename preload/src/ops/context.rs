//! The current context of a thread, which is a local one: whether forwarded calls may go ahead.
//!
//! All contexts of the program are one at the executor. What a context owns natively (memory, streams, events, modules) carries its handle in
//! the shim's tables, so that its end can take them along.
//!
//! A positive answer is kept per thread, because every launch asks. It holds until this thread changes its context or any
//! context is destroyed (the generation moves on).

use super::{array, event, graph, memory, module, stream, texture};
use crate::{dispatch, edge::In, outcome::Outcome, real, result::CuResult, session::session};
use lightos_protocol::request::{ContextRequest, Request};
use std::{
    cell::Cell,
    collections::BTreeSet,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// Counts what may have ended a context.
static GENERATION: AtomicU64 = AtomicU64::new(1);

/// Contexts that have ended. Not every driver says so of one that is current on some thread.
static ENDED: Mutex<BTreeSet<u64>> = Mutex::new(BTreeSet::new());

fn ended() -> MutexGuard<'static, BTreeSet<u64>> {
    ENDED.lock().unwrap_or_else(PoisonError::into_inner)
}

thread_local! {
    /// The generation in which this thread's context was found usable (0: not found yet), and that context.
    static CHECKED: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
}

/// The device that the session governs, by the ordinal of this process.
const DEVICE: i32 = 0;

/// Whether this thread has a current context on the session's device, else the error that native gives without one.
#[inline]
pub fn check() -> Result<(), CuResult> {
    let generation = GENERATION.load(Ordering::Acquire);
    if CHECKED.try_with(Cell::get).is_ok_and(|(found, _)| found == generation) {
        return Ok(());
    }
    let context = ask()?;
    let _ = CHECKED.try_with(|checked| checked.set((generation, context)));
    Ok(())
}

/// The context that [`check`] found usable for this thread, or else whatever is current; 0 for none.
pub fn current() -> u64 {
    let generation = GENERATION.load(Ordering::Acquire);
    match CHECKED.try_with(Cell::get) {
        Ok((found, context)) if found == generation => context,
        _ => {
            let mut context = 0;
            // SAFETY: a valid out-parameter.
            let _ = unsafe { real::cuCtxGetCurrent(&mut context) };
            context
        }
    }
}

#[cold]
fn ask() -> Result<u64, CuResult> {
    let (mut context, mut device) = (0, -1);
    // SAFETY: valid out-parameters.
    unsafe {
        real::cuCtxGetCurrent(&mut context).ok()?;
        if context == 0 {
            return Err(CuResult::INVALID_CONTEXT);
        }
        if ended().contains(&context) {
            return Err(CuResult::CONTEXT_IS_DESTROYED);
        }
        // Fails for a context that was destroyed while current.
        real::cuCtxGetDevice(&mut device).ok()?;
    }
    if device == DEVICE { Ok(context) } else { Err(CuResult::NOT_SUPPORTED) }
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
    let _ = CHECKED.try_with(|checked| checked.set((0, 0)));
    result.into()
}

/// Runs a call that makes a context on `device`.
pub fn made_on(out: In<u64>, device: i32, call: impl FnOnce() -> CuResult) -> Outcome {
    dispatch::uses_device(device);
    let result = call();
    if result == CuResult::SUCCESS {
        // The handle of one that has ended may be given again.
        let _ = out.get().map(|context| ended().remove(&context));
    }
    changed_here(result)
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

/// cuCtxDestroy: the context ends, with all that belongs to it.
pub fn destroy(context: u64, call: impl FnOnce() -> CuResult) -> Outcome {
    ends(call, |result| result == CuResult::SUCCESS, Some(context), false)
}

/// cuCtxDetach: ends the context once it was detached as often as it was created and attached.
pub fn detach(context: u64, call: impl FnOnce() -> CuResult) -> Outcome {
    // SAFETY: reads a version into a valid out-parameter; the driver recognises a context that has ended.
    let is_over = |_| unsafe { real::cuCtxGetApiVersion(context, &mut 0) } != CuResult::SUCCESS;
    ends(call, is_over, Some(context), false)
}

/// cuDevicePrimaryCtxRelease and cuDevicePrimaryCtxReset: the primary context ends if it is inactive afterwards.
pub fn release_primary(device: i32, call: impl FnOnce() -> CuResult) -> Outcome {
    if device != DEVICE {
        return changed_here(call());
    }
    ends(call, |_| !is_primary_active(), primary(), true)
}

fn is_primary_active() -> bool {
    let (mut flags, mut active) = (0, 0);
    // SAFETY: valid out-parameters.
    let asked = unsafe { real::cuDevicePrimaryCtxGetState(DEVICE, &mut flags, &mut active) };
    asked != CuResult::SUCCESS || active != 0
}

/// The primary context, if there is one.
fn primary() -> Option<u64> {
    if !is_primary_active() {
        return None;
    }
    let mut context = 0;
    // SAFETY: a valid out-parameter; it is active, so this retains what exists, and gives that reference back.
    unsafe {
        real::cuDevicePrimaryCtxRetain(&mut context, DEVICE).ok().ok()?;
        real::cuDevicePrimaryCtxRelease_v2(DEVICE).ok().ok()?;
    }
    Some(context)
}

/// Runs a call that may end `context`, which other threads may have current. What belonged to it ends on the executor's side as well.
fn ends(
    call: impl FnOnce() -> CuResult,
    is_over: impl FnOnce(CuResult) -> bool,
    context: Option<u64>,
    is_primary: bool,
) -> Outcome {
    // Work in flight may use what the end of the context takes away; native waits for it too. Without a session left, or
    // with a failed one, there is nothing to wait for.
    let _ = stream::synchronize_context();
    let result = call();
    GENERATION.fetch_add(1, Ordering::AcqRel);
    if let (Some(session), Some(context)) = (session(), context)
        && is_over(result)
    {
        ended().insert(context);
        // What uses memory goes before the memory.
        if is_primary {
            graph::end_of_context(session);
        }
        stream::end_of_context(session, context);
        event::end_of_context(session, context);
        module::end_of_context(session, context, is_primary);
        texture::end_of_context(session, context);
        array::end_of_context(session, context);
        memory::end_of_context(context);
        // What was on the device is free when the call returns, as natively.
        let _ = session.call(&Request::Ping);
    }
    result.into()
}
