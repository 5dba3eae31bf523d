//! Host functions: cuLaunchHostFunc, stream callbacks, and the host nodes of graphs.
//!
//! The program's function and argument stay here under a number. When a stream of the executor reaches the function, its number
//! arrives in the callback queue; the thread `lightos-callback`, started at the first use, runs the function and says so,
//! and the stream goes on. The thread takes none of the program's signals.

use super::capture::{self, captures};
use super::copy::staged::Move;
use super::{context, stream};
use crate::outcome::Outcome;
use crate::result::CuResult;
use crate::session::{self, Session, session};
use lightos_protocol::record::{HostFunc, HostFuncKind};
use rustc_hash::FxHashMap;
use std::ffi::c_void;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{LazyLock, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// `CUhostFn`.
pub type HostFn = unsafe extern "C" fn(data: *mut c_void);
/// `CUstreamCallback`.
pub type StreamCallback = unsafe extern "C" fn(stream: u64, status: CuResult, data: *mut c_void);

/// How long the thread sleeps before it looks whether the session has ended.
const NAP: Duration = Duration::from_millis(500);
/// The program's functions expect a thread like the driver's own.
const STACK_BYTES: usize = 8 << 20;

/// A function and its argument.
#[derive(Clone, Copy, Debug)]
pub struct Callback {
    function: Function,
    data: Data,
    /// Forgotten once it has run: not a graph's.
    once: bool,
}

#[derive(Clone, Copy, Debug)]
enum Function {
    Host(HostFn),
    Stream(StreamCallback, u64),
    /// A part of a copy, see [`super::copy::staged`].
    Move(Move),
}

/// The program's argument, passed back to it untouched.
#[derive(Clone, Copy, Debug)]
struct Data(*mut c_void);

// SAFETY: never dereferenced here; the program gives it for use on the driver's thread.
unsafe impl Send for Data {}

static CALLBACKS: LazyLock<Mutex<FxHashMap<u64, Callback>>> = LazyLock::new(Default::default);

fn callbacks() -> MutexGuard<'static, FxHashMap<u64, Callback>> {
    CALLBACKS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn register(callback: Callback) -> Result<u64, CuResult> {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    start()?;
    let id = NEXT.fetch_add(1, Relaxed);
    callbacks().insert(id, callback);
    Ok(id)
}

/// Gives a graph's host function a number, until [`forget`].
///
/// # Safety
/// The program promises that `function` may be called with `data` at every launch of the graph.
pub unsafe fn of_graph(function: HostFn, data: *mut c_void) -> Result<u64, CuResult> {
    register(Callback { function: Function::Host(function), data: Data(data), once: false })
}

/// A graph does not need its host functions any more.
pub fn forget(ids: &[u64]) {
    let mut callbacks = callbacks();
    for id in ids {
        callbacks.remove(id);
    }
}

/// cuLaunchHostFunc.
///
/// # Safety
/// The program promises that `function` may be called with `data` once the stream gets there.
pub unsafe fn launch(stream: u64, function: Option<HostFn>, data: *mut c_void) -> Outcome {
    let Some(function) = function else { return Outcome::Fail(CuResult::INVALID_VALUE) };
    submit(stream, Function::Host(function), data, HostFuncKind::Launch)
}

/// cuLaunchHostFunc_v2. How the driver's thread waits for its turn is a hint.
///
/// # Safety
/// As [`launch`].
pub unsafe fn launch_with(
    stream: u64,
    function: Option<HostFn>,
    data: *mut c_void,
    sync_mode: u32,
) -> Outcome {
    /// `CU_HOST_TASK_BLOCKING`, `CU_HOST_TASK_SPINWAIT`.
    const MODES: u32 = 2;
    if sync_mode >= MODES {
        return Outcome::Fail(CuResult::INVALID_VALUE);
    }
    // SAFETY: as the caller vouches.
    unsafe { launch(stream, function, data) }
}

/// cuStreamAddCallback.
///
/// # Safety
/// As [`launch`].
pub unsafe fn add_callback(
    stream: u64,
    function: Option<StreamCallback>,
    data: *mut c_void,
    flags: u32,
) -> Outcome {
    let (Some(function), 0) = (function, flags) else { return Outcome::Fail(CuResult::INVALID_VALUE) };
    submit(stream, Function::Stream(function, stream), data, HostFuncKind::Callback)
}

fn submit(stream: u64, function: Function, data: *mut c_void, kind: HostFuncKind) -> Outcome {
    if captures(stream) {
        return capture::PASS;
    }
    let run = || {
        let session = session().ok_or(CuResult::DEINITIALIZED)?;
        context::check()?;
        let stream = stream::find(stream)?;
        let callback = register(Callback { function, data: Data(data), once: true })?;
        session.send(&HostFunc { stream: stream.wire(), callback, kind: kind.into(), pad: 0 }, &[])?;
        stream.touch();
        Ok(())
    };
    run().into()
}

/// Has rows of host memory moved when a stream, as in records, gets there.
pub fn move_rows(session: &Session, stream: u64, rows: Move) -> Result<(), CuResult> {
    let data = Data(std::ptr::null_mut());
    let callback = register(Callback { function: Function::Move(rows), data, once: true })?;
    session.send(&HostFunc { stream, callback, kind: HostFuncKind::Launch.into(), pad: 0 }, &[])
}

/// Starts the thread, once.
fn start() -> Result<(), CuResult> {
    static STARTED: OnceLock<bool> = OnceLock::new();
    let started = STARTED.get_or_init(|| {
        let Some(session) = session() else { return false };
        session::spawn_quietly("lightos-callback", STACK_BYTES, move || serve(session)).is_ok()
    });
    if *started { Ok(()) } else { Err(CuResult::OPERATING_SYSTEM) }
}

/// The thread: runs what arrives until the session ends.
fn serve(current: &'static Session) {
    let queue = current.pages().callbacks();
    while session().is_some() && current.sticky().is_none() {
        let Some(posted) = queue.next(NAP) else { continue };
        let callback = callbacks().get(&posted.id).copied();
        if let Some(Callback { function, data: Data(data), once }) = callback {
            if once {
                callbacks().remove(&posted.id);
            }
            // SAFETY: the program gave the function and its argument for this call.
            unsafe {
                match function {
                    Function::Host(function) => function(data),
                    Function::Stream(function, stream) => function(stream, CuResult(posted.status), data),
                    Function::Move(rows) => rows.run(),
                }
            }
        }
        queue.finish(posted);
    }
}
