//! Stream capture: turning work submitted to streams into the nodes of a graph.
//!
//! A session starts on one stream; other streams join it by waiting for an event recorded in it, and must be joined back before it
//! ends. While a session is active, calls that would synchronise or allocate are refused according to the mode of the session
//! and of the calling thread, and invalidate it.
//!
//! Lock order: a stream's `capture` before a session's `members`; no other lock is taken under them but those of a graph.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use rustc_hash::FxHashSet;

use crate::abi::EdgeData;
use crate::error::{Error, Result};
use crate::graph::{self, Graph};
use crate::stream::{Kind, Stream};
use crate::thread;
use crate::work::Work;

/// `CUstreamCaptureMode`.
pub const MODE_GLOBAL: u32 = 0;
const MODE_THREAD_LOCAL: u32 = 1;
pub const MODE_RELAXED: u32 = 2;
/// `CUstreamCaptureStatus`.
pub const STATUS_NONE: u32 = 0;
pub const STATUS_ACTIVE: u32 = 1;
pub const STATUS_INVALIDATED: u32 = 2;

/// One capture sequence.
#[derive(Debug)]
pub struct Session {
    pub id: u64,
    pub graph: Arc<Graph>,
    /// False where the program gave the graph, which then outlives a failed capture.
    owns_graph: bool,
    mode: u32,
    origin: u64,
    thread: thread::Id,
    invalid: AtomicBool,
    ended: AtomicBool,
    members: Mutex<Vec<Arc<Stream>>>,
}

/// A stream's part in a session: the nodes that its next node depends on.
#[derive(Clone, Debug)]
pub struct Member {
    pub session: Arc<Session>,
    pub tail: Vec<u64>,
    /// As many entries as `tail`, all zero: captured edges carry no data.
    edges: Vec<EdgeData>,
}

/// A point in a captured stream, as an event records it.
#[derive(Clone, Debug)]
pub struct Point {
    session: Arc<Session>,
    tail: Vec<u64>,
}

impl Point {
    pub fn invalidate(&self) {
        self.session.invalid.store(true, Ordering::Release);
    }
}

static ACTIVE: AtomicUsize = AtomicUsize::new(0);
static SESSIONS: Mutex<Vec<Arc<Session>>> = Mutex::new(Vec::new());

thread_local! {
    static THREAD_MODE: Cell<u32> = const { Cell::new(MODE_GLOBAL) };
}

/// `cuThreadExchangeStreamCaptureMode`: sets the thread's mode, returns the former.
pub fn exchange_mode(mode: u32) -> Result<u32> {
    if mode > MODE_RELAXED { Err(Error::INVALID_VALUE) } else { Ok(THREAD_MODE.replace(mode)) }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn member(stream: &Stream) -> MutexGuard<'_, Option<Member>> {
    lock(&stream.capture)
}

/// `cuStreamBeginCapture`, into a new graph.
pub fn begin(stream: &Arc<Stream>, mode: u32) -> Result {
    start(stream, mode, None, Vec::new())
}

/// `cuStreamBeginCaptureToGraph`: the first nodes come after `dependencies`, nodes of the given graph.
pub fn begin_to(stream: &Arc<Stream>, mode: u32, graph: Arc<Graph>, dependencies: Vec<u64>) -> Result {
    for dependency in &dependencies {
        if graph::node(*dependency)?.graph != graph.handle {
            return Err(Error::INVALID_VALUE);
        }
    }
    start(stream, mode, Some(graph), dependencies)
}

fn start(stream: &Arc<Stream>, mode: u32, graph: Option<Arc<Graph>>, tail: Vec<u64>) -> Result {
    if mode > MODE_RELAXED {
        return Err(Error::INVALID_VALUE);
    }
    if stream.kind == Kind::Legacy {
        return Err(Error::STREAM_CAPTURE_UNSUPPORTED);
    }
    let mut slot = member(stream);
    if slot.is_some() {
        return Err(Error::ILLEGAL_STATE);
    }
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let session = Arc::new(Session {
        id: NEXT.fetch_add(1, Ordering::Relaxed),
        owns_graph: graph.is_none(),
        graph: graph.unwrap_or_else(graph::create),
        mode,
        origin: stream.id,
        thread: thread::me(),
        invalid: AtomicBool::new(false),
        ended: AtomicBool::new(false),
        members: Mutex::new(vec![stream.clone()]),
    });
    lock(&SESSIONS).push(session.clone());
    ACTIVE.fetch_add(1, Ordering::AcqRel);
    *slot = Some(Member { session, tail, edges: Vec::new() });
    Ok(())
}

/// `cuStreamEndCapture`: the graph's handle.
pub fn end(stream: &Arc<Stream>) -> Result<u64> {
    let Some(Member { session, tail, .. }) = member(stream).clone() else { return Err(Error::ILLEGAL_STATE) };
    if session.origin != stream.id {
        return Err(Error::STREAM_CAPTURE_UNMATCHED);
    }
    if session.mode != MODE_RELAXED && session.thread != thread::me() {
        return Err(Error::STREAM_CAPTURE_WRONG_THREAD);
    }
    let joined = session.is_joined(stream, &tail);
    session.finish();
    let outcome = match (session.invalid.load(Ordering::Acquire), joined) {
        (true, _) => Err(Error::STREAM_CAPTURE_INVALIDATED),
        (_, false) => Err(Error::STREAM_CAPTURE_UNJOINED),
        _ => Ok(session.graph.handle),
    };
    if outcome.is_err() && session.owns_graph {
        let _ = graph::destroy(session.graph.handle);
    }
    outcome
}

/// A destroyed stream breaks the session that it takes part in.
pub fn leave(stream: &Arc<Stream>) {
    if let Some(member) = member(stream).take() {
        member.session.invalid.store(true, Ordering::Release);
        if member.session.origin == stream.id {
            member.session.finish();
        }
    }
}

/// Adds work to the graph that the stream captures; false where it captures nothing.
pub fn add(stream: &Arc<Stream>, work: &Work) -> Result<bool> {
    let mut slot = member(stream);
    let Some(member) = slot.as_mut() else { return Ok(false) };
    member.session.check()?;
    let node = member.session.graph.add(work.clone(), &member.tail)?;
    member.tail = vec![node];
    Ok(true)
}

/// Whether the stream is captured; an error where its session is invalid.
pub fn is_capturing(stream: &Stream) -> Result<bool> {
    match member(stream).as_ref() {
        Some(member) => member.session.check().map(|()| true),
        None => Ok(false),
    }
}

/// The status of `cuStreamIsCapturing`, with the stream's part where it has one.
pub fn status(stream: &Stream) -> Result<(u32, Option<Member>)> {
    if stream.kind == Kind::Legacy && blocking_capture(stream).is_some() {
        return Err(Error::STREAM_CAPTURE_IMPLICIT);
    }
    let member = member(stream).clone();
    Ok(match &member {
        None => (STATUS_NONE, None),
        Some(found) if found.session.check().is_err() => (STATUS_INVALIDATED, member),
        Some(_) => (STATUS_ACTIVE, member),
    })
}

/// Runs `look` on the stream's current dependencies and their edge data; the slices' addresses are stable until the next
/// captured call.
pub fn with_tail<T>(stream: &Stream, look: impl FnOnce(&[u64], &[EdgeData]) -> T) -> Option<T> {
    member(stream).as_mut().map(|member| {
        member.edges.resize(member.tail.len(), EdgeData::default());
        look(&member.tail, &member.edges)
    })
}

/// Replaces or extends the stream's dependencies.
pub fn set_tail(stream: &Stream, nodes: &[u64], replace: bool) -> Result {
    let mut slot = member(stream);
    let member = slot.as_mut().ok_or(Error::ILLEGAL_STATE)?;
    member.session.check()?;
    for node in nodes {
        if graph::node(*node)?.graph != member.session.graph.handle {
            return Err(Error::INVALID_VALUE);
        }
    }
    if replace {
        member.tail.clear();
    }
    extend(&mut member.tail, nodes);
    Ok(())
}

fn extend(tail: &mut Vec<u64>, nodes: &[u64]) {
    for node in nodes {
        if !tail.contains(node) {
            tail.push(*node);
        }
    }
}

/// Where the stream's capture stands, for an event; `None` where the stream is not captured.
pub fn point(stream: &Stream) -> Result<Option<Point>> {
    match member(stream).as_ref() {
        Some(Member { session, tail, .. }) => {
            session.check()?;
            Ok(Some(Point { session: session.clone(), tail: tail.clone() }))
        }
        None => Ok(None),
    }
}

/// Makes a stream wait for a captured point: it joins the session.
pub fn join(stream: &Arc<Stream>, point: &Point) -> Result {
    if point.session.ended.load(Ordering::Acquire) {
        return Err(Error::CAPTURED_EVENT);
    }
    point.session.check()?;
    if stream.kind == Kind::Legacy {
        point.session.invalid.store(true, Ordering::Release);
        return Err(Error::STREAM_CAPTURE_IMPLICIT);
    }
    let mut slot = member(stream);
    match slot.as_mut() {
        Some(member) if Arc::ptr_eq(&member.session, &point.session) => extend(&mut member.tail, &point.tail),
        Some(member) => {
            member.session.invalid.store(true, Ordering::Release);
            point.session.invalid.store(true, Ordering::Release);
            return Err(Error::STREAM_CAPTURE_MERGE);
        }
        None => {
            *slot =
                Some(Member { session: point.session.clone(), tail: point.tail.clone(), edges: Vec::new() });
            drop(slot);
            lock(&point.session.members).push(stream.clone());
        }
    }
    Ok(())
}

/// Invalidates the stream's session because of a call that cannot be captured; gives the error back.
pub fn invalidate(stream: &Stream, error: Error) -> Error {
    if let Some(member) = member(stream).as_ref() {
        member.session.invalid.store(true, Ordering::Release);
    }
    error
}

/// Refuses a call that no capture takes, such as one that synchronises with or queries the stream.
pub fn forbid_sync(stream: &Stream) -> Result {
    if is_capturing(stream)? {
        return Err(invalidate(stream, Error::STREAM_CAPTURE_UNSUPPORTED));
    }
    forbid_implicit(stream)
}

/// Refuses work on the legacy stream that would have to wait for a blocking stream in capture.
pub fn forbid_implicit(stream: &Stream) -> Result {
    if ACTIVE.load(Ordering::Acquire) == 0 || stream.kind != Kind::Legacy {
        return Ok(());
    }
    match blocking_capture(stream) {
        Some(captured) => Err(invalidate(&captured, Error::STREAM_CAPTURE_IMPLICIT)),
        None => Ok(()),
    }
}

fn blocking_capture(legacy: &Stream) -> Option<Arc<Stream>> {
    let streams = legacy.context.all_streams();
    streams
        .into_iter()
        .find(|stream| stream.kind != Kind::Legacy && stream.is_blocking() && member(stream).is_some())
}

/// Refuses a call that is unsafe during capture, as the modes of the sessions and of this thread say.
pub fn forbid_unsafe() -> Result {
    if ACTIVE.load(Ordering::Acquire) == 0 {
        return Ok(());
    }
    let (mode, me) = (THREAD_MODE.get(), thread::me());
    let hit = |session: &&Arc<Session>| match (mode, session.mode) {
        (MODE_RELAXED, _) | (_, MODE_RELAXED) => false,
        (MODE_THREAD_LOCAL, _) | (_, MODE_THREAD_LOCAL) => session.thread == me,
        _ => true,
    };
    let sessions = lock(&SESSIONS);
    let mut forbidden = false;
    for session in sessions.iter().filter(hit) {
        session.invalid.store(true, Ordering::Release);
        forbidden = true;
    }
    if forbidden { Err(Error::STREAM_CAPTURE_UNSUPPORTED) } else { Ok(()) }
}

/// Refuses a call that waits for everything, the streams that this thread captures included, whatever the mode.
pub fn forbid_all() -> Result {
    if ACTIVE.load(Ordering::Acquire) == 0 {
        return Ok(());
    }
    let me = thread::me();
    let mut own = false;
    for session in lock(&SESSIONS).iter().filter(|session| session.thread == me) {
        session.invalid.store(true, Ordering::Release);
        own = true;
    }
    if own { Err(Error::STREAM_CAPTURE_UNSUPPORTED) } else { forbid_unsafe() }
}

impl Session {
    fn check(&self) -> Result {
        if self.invalid.load(Ordering::Acquire) { Err(Error::STREAM_CAPTURE_INVALIDATED) } else { Ok(()) }
    }

    /// True where everything captured on other streams comes before the origin's end.
    fn is_joined(&self, origin: &Stream, tail: &[u64]) -> bool {
        let members = lock(&self.members).clone();
        let others: Vec<u64> = members
            .iter()
            .filter(|stream| stream.id != origin.id)
            .filter_map(|stream| member(stream).as_ref().map(|member| member.tail.clone()))
            .flatten()
            .collect();
        let mut reached: FxHashSet<u64> = FxHashSet::default();
        let mut open = tail.to_vec();
        while let Some(handle) = open.pop() {
            if reached.insert(handle)
                && let Ok(node) = graph::node(handle)
            {
                open.extend(node.dependencies());
            }
        }
        others.iter().all(|node| reached.contains(node))
    }

    fn finish(&self) {
        self.ended.store(true, Ordering::Release);
        for stream in lock(&self.members).drain(..) {
            let mut slot = member(&stream);
            if slot.as_ref().is_some_and(|member| member.session.id == self.id) {
                *slot = None;
            }
        }
        let mut sessions = lock(&SESSIONS);
        let before = sessions.len();
        sessions.retain(|session| session.id != self.id);
        ACTIVE.fetch_sub(before - sessions.len(), Ordering::AcqRel);
    }
}
