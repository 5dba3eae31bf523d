//! Stream capture, which happens wholly in the local driver: captured calls execute nothing, and the graph that they make is
//! described to the executor when it is instantiated.
//!
//! Everybody else asks [`captures`] before forwarding; without any capture in the process that is one atomic load.

use super::graph::memory;
use super::stream::identity;
use crate::{
    outcome::{Outcome, Reason},
    real,
    result::CuResult,
};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Captures under way, with those about to begin.
static ACTIVE: AtomicUsize = AtomicUsize::new(0);
/// The streams where they began, and the graphs that they make. A stream that joined one later does not end it.
static ORIGINS: Mutex<Vec<Origin>> = Mutex::new(Vec::new());

#[derive(Clone, Copy, Debug)]
struct Origin {
    /// What [`identity`] says of it.
    stream: u64,
    /// 0 where the capture adds to a graph of the program's.
    graph: u64,
}

real::driver! {
    fn cuThreadExchangeStreamCaptureMode(mode: *mut u32);
    fn cuStreamGetCaptureInfo_v2(
        stream: u64, status: *mut u32, id: *mut u64, graph: *mut u64, dependencies: *mut *const u64, count: *mut usize,
    );
}

/// `CU_STREAM_CAPTURE_MODE_RELAXED`.
const RELAXED: u32 = 2;
/// `CU_STREAM_CAPTURE_STATUS_NONE`.
const NONE: u32 = 0;

/// Whether any stream of the process is being captured.
#[inline]
pub fn active() -> bool {
    ACTIVE.load(Relaxed) != 0
}

/// Whether a call on `stream` belongs to a capture, or is one that the capture forbids: the local driver takes it.
#[inline]
pub fn captures(stream: u64) -> bool {
    active() && !matches!(status(stream), Ok(NONE))
}

fn status(stream: u64) -> Result<u32, CuResult> {
    let mut status = NONE;
    // SAFETY: a valid out-parameter; the stream is the program's, and its own call would use it in the same way.
    unsafe { real::cuStreamIsCapturing(stream, &mut status).ok()? };
    Ok(status)
}

/// What a capture has made so far.
#[derive(Clone, Copy, Debug)]
pub struct Info {
    pub graph: u64,
    /// The nodes that the stream's next one depends on; the driver's, until its next call for this stream.
    pub dependencies: *const u64,
    pub count: usize,
}

/// Asks about the capture that a stream is part of.
pub fn info(stream: u64) -> Result<Info, CuResult> {
    let (mut status, mut id, mut graph, mut dependencies, mut count) = (NONE, 0, 0, std::ptr::null(), 0);
    // SAFETY: valid out-parameters; the stream is the program's.
    unsafe {
        cuStreamGetCaptureInfo_v2(stream, &mut status, &mut id, &mut graph, &mut dependencies, &mut count)
            .ok()?;
    }
    Ok(Info { graph, dependencies, count })
}

/// Gives the local driver the chance to forbid a call that waits or queries while a capture is under way: `harmless` is that call
/// on local twins, where nothing ever runs.
#[inline]
pub fn permits(harmless: impl FnOnce() -> CuResult) -> Result<(), CuResult> {
    if !active() {
        return Ok(());
    }
    match harmless() {
        CuResult::NOT_READY => Ok(()),
        result => result.ok(),
    }
}

/// As [`permits`], for calls that allocate or free, which have no harmless local form: a small local allocation stands for
/// them, since a capture forbids the same calls as it forbids that. Any other error of it (the device may be full) says nothing
/// about the call.
#[inline]
pub fn permits_unsafe() -> Result<(), CuResult> {
    permits(|| {
        let mut address = 0;
        // SAFETY: a valid out-parameter, and an address that was just allocated.
        let result = unsafe {
            match real::cuMemAlloc_v2(&mut address, 1) {
                CuResult::SUCCESS => real::cuMemFree_v2(address),
                error => error,
            }
        };
        if is_of_capture(result) { result } else { CuResult::SUCCESS }
    })
}

/// Whether an error is one of stream capture: `CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED` to `_WRONG_THREAD`.
fn is_of_capture(result: CuResult) -> bool {
    (900..=908).contains(&result.0)
}

/// Runs local driver calls that LightOS makes for its own purposes, which no capture under way may forbid: the driver would not only
/// refuse them, but spoil the capture that forbids them.
pub fn relaxed<T>(calls: impl FnOnce() -> T) -> T {
    if !active() {
        return calls();
    }
    let _mode = Mode::relax();
    calls()
}

/// The calling thread's capture mode before [`Mode::relax`]; set again when dropped.
struct Mode(u32);

impl Mode {
    fn relax() -> Self {
        let mut mode = RELAXED;
        // SAFETY: takes and gives back a mode of this thread.
        let _ = unsafe { cuThreadExchangeStreamCaptureMode(&mut mode) };
        Self(mode)
    }
}

impl Drop for Mode {
    fn drop(&mut self) {
        // SAFETY: as in `relax`.
        let _ = unsafe { cuThreadExchangeStreamCaptureMode(&mut self.0) };
    }
}

/// Runs a call that begins a capture on `stream`, into a graph of its own.
pub fn begin(stream: u64, call: impl FnOnce() -> CuResult) -> Outcome {
    started(stream, call, || info(stream).map_or(0, |info| info.graph))
}

/// Runs a call that begins a capture on `stream` into a graph of the program's.
pub fn begin_in_graph(stream: u64, call: impl FnOnce() -> CuResult) -> Outcome {
    started(stream, call, || 0)
}

fn started(stream: u64, call: impl FnOnce() -> CuResult, graph: impl FnOnce() -> u64) -> Outcome {
    // Calls of other threads must not miss the capture once it has begun.
    ACTIVE.fetch_add(1, Relaxed);
    let result = call();
    if result == CuResult::SUCCESS {
        let graph = graph();
        origins().push(Origin { stream: identity(stream), graph });
    } else {
        ACTIVE.fetch_sub(1, Relaxed);
    }
    result.into()
}

/// Runs the call that ends the capture of `stream`. An error may end it, too, and then there is no graph.
pub fn end(stream: u64, call: impl FnOnce() -> CuResult) -> Outcome {
    // Before the call: as soon as the local graph is gone, another thread may be given the same handle.
    let nodes = graph_of(stream).map(memory::detach);
    let result = call();
    let is_over = result == CuResult::SUCCESS || status(stream) == Ok(NONE);
    if is_over {
        finish(stream);
    }
    match nodes {
        Some(nodes) if is_over && result != CuResult::SUCCESS => nodes.abandon(),
        Some(nodes) => nodes.attach(),
        None => {}
    }
    result.into()
}

/// The stream goes, and with it a capture that began there.
pub fn over(stream: u64) {
    if let Some(graph) = finish(stream) {
        memory::detach(graph).abandon();
    }
}

fn graph_of(stream: u64) -> Option<u64> {
    if !active() {
        return None;
    }
    let stream = identity(stream);
    origins().iter().find(|origin| origin.stream == stream).map(|origin| origin.graph)
}

/// No capture that began on `stream` is under way any more; the graph that it was making.
fn finish(stream: u64) -> Option<u64> {
    if !active() {
        return None;
    }
    let stream = identity(stream);
    let mut origins = origins();
    let at = origins.iter().position(|origin| origin.stream == stream)?;
    ACTIVE.fetch_sub(1, Relaxed);
    Some(origins.swap_remove(at).graph)
}

fn origins() -> MutexGuard<'static, Vec<Origin>> {
    ORIGINS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The outcome of a call that belongs to a capture.
pub const PASS: Outcome = Outcome::PassThrough(Reason::Capturing);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capture_is_over_with_the_stream_that_began_it() {
        let done = || CuResult::SUCCESS;
        assert_eq!(begin_in_graph(7, || CuResult::INVALID_VALUE), Outcome::Fail(CuResult::INVALID_VALUE));
        assert!(!active());
        begin_in_graph(7, done);
        over(8);
        assert!(active(), "another stream, which may have joined");
        over(7);
        over(7);
        assert!(!active());
    }

    #[test]
    fn a_full_device_forbids_nothing() {
        assert!(is_of_capture(CuResult(900)) && is_of_capture(CuResult(908)));
        assert!(!is_of_capture(CuResult::OUT_OF_MEMORY) && !is_of_capture(CuResult::SUCCESS));
    }
}
