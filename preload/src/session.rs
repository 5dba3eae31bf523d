//! The session with the sidecar: pushing calls, waiting for answers and for the device, ending.
//!
//! There is at most one session in a process, made by the first successful `cuInit` (see [`crate::dispatch`]) and never freed: calls on other
//! threads may be using it. It ends (for the hooks) when the process starts to exit, in the child of a fork, or with a sticky error when the
//! executor is gone.
//!
//! Threads: every application thread pushes; `lightos-watch` waits for the end of the socket and then makes the error sticky, so
//! that no wait here lasts longer than that takes.

mod connect;
mod slots;
mod threads;

use crate::{dispatch, life, ops, result::CuResult};
use lightos_protocol::{
    codec,
    control::{FdMessage, Limits},
    mapping::sealed_memfd,
    pages::{Outcome, SessionPages},
    record::{BlobRef, Op, Payload, RecordHeader},
    request::{Reply, Request},
    ring::{Producer, PushError},
    socket::{Channel, FdInbox},
};
use std::{
    io::Write,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    ptr,
    sync::{
        Arc,
        atomic::{
            AtomicPtr, AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    time::Duration,
};
use zerocopy::IntoBytes;

pub use connect::{ConnectError, introduce_locally, wait_for_hangup};
pub use slots::TimelineSlots;
pub use threads::{spawn_quietly, spawn_watch};

/// How long a file descriptor may take that a reply announces.
const FD_TIMEOUT: Duration = Duration::from_secs(10);

static SESSION: AtomicPtr<Session> = AtomicPtr::new(ptr::null_mut());

/// The session; `None` without one (no sidecar, switched off, forked child, exiting). One atomic load.
#[inline]
pub fn session() -> Option<&'static Session> {
    // SAFETY: the pointer is null or a leaked `Session`, published with Release.
    unsafe { SESSION.load(Acquire).as_ref() }
}

/// Ends the session for the hooks without touching it.
pub fn retire() {
    SESSION.store(ptr::null_mut(), Release);
}

/// In the child of a fork: forgets the session and closes the child's copy of the socket, whose end tells the executor that
/// the parent is gone. Async-signal-safe.
pub fn forget_in_child() {
    if let Some(session) = session() {
        retire();
        close_in_child(&session.channel, session.socket);
    }
}

/// Connects to the sidecar and starts the session.
pub fn begin() -> Result<(), ConnectError> {
    let session: &'static Session = Box::leak(Box::new(connect::connect(life::settings())?));
    ops::memory::reserve(session.device_arena_bytes).map_err(ConnectError::Arena)?;
    life::register_handlers();
    SESSION.store(ptr::from_ref(session).cast_mut(), Release);
    // After that: without a session the watch has nobody to warn.
    let watch = spawn_watch(move || session.watch());
    watch.inspect_err(|_| retire()).map_err(ConnectError::Thread)
}

/// Ends a session with whose executor nothing of the program lies; calls that come later find none.
pub fn leave() {
    if let Some(session) = session() {
        retire();
        session.channel.hang_up();
        ops::memory::unreserve(session.device_arena_bytes);
    }
}

/// A session with the sidecar.
#[derive(Debug)]
pub struct Session {
    pages: Arc<SessionPages>,
    producer: Producer,
    channel: Channel,
    /// What the channel's socket is known by.
    socket: (u64, u64),
    inbox: FdInbox,
    tags: AtomicU64,
    slots: TimelineSlots,
    device_arena_bytes: u64,
    limits: Limits,
}

impl Session {
    /// Waits for the executor's end, which is the end of the socket.
    fn watch(&self) {
        connect::wait_for_hangup(&self.channel);
        let text = self.pages.status().error_text();
        // The line first: a program that sees the error may end at once.
        if session().is_some() {
            let why = if text.is_empty() { "the executor is gone".to_owned() } else { text };
            life::warn(&format!(
                "the session with the sidecar ended ({why}); CUDA calls of this process fail from now on"
            ));
        }
        self.fail(CuResult::LAUNCH_FAILED);
        if session().is_some() {
            ops::memory::abandon();
        }
    }

    /// Pushes a record in program order and returns; waits only while the ring is full.
    pub fn push(&self, op: Op, parts: &[&[u8]]) -> Result<(), CuResult> {
        dispatch::settle();
        self.check()?;
        self.producer.push(op.into(), 0, parts).map_err(|error| self.push_error(error))
    }

    /// Pushes a record with a fixed payload and the bytes that follow it.
    pub fn send<T: Payload>(&self, payload: &T, rest: &[&[u8]]) -> Result<(), CuResult> {
        dispatch::settle();
        self.check()?;
        self.producer.send(payload, 0, rest).map_err(|error| self.push_error(error))
    }

    /// As [`Session::send`], but waits for what the executor's driver says of it. An error that does not break the context
    /// is the call's alone.
    pub fn ask<T: Payload>(&self, payload: &T, rest: &[&[u8]]) -> Result<(), CuResult> {
        dispatch::settle();
        self.check()?;
        self.answered(|reply| {
            self.producer.send(payload, reply, rest).map_err(|error| self.push_error(error))
        })
        .map(drop)
    }

    /// A cold call whose outcome is not waited for: an error becomes the session's sticky error.
    pub fn cast(&self, request: &Request) -> Result<(), CuResult> {
        self.check()?;
        self.push_request(request, 0)
    }

    /// A cold call, in program order with everything else; waits for the answer.
    pub fn call(&self, request: &Request) -> Result<Reply, CuResult> {
        self.check()?;
        let payload = self.answered(|reply| self.push_request(request, reply))?;
        if payload.is_empty() {
            return Ok(Reply::Done);
        }
        codec::decode(&payload).map_err(|_| CuResult::UNKNOWN)
    }

    /// Pushes a record with a reply slot and waits for the answer's payload.
    fn answered(&self, push: impl FnOnce(u32) -> Result<(), CuResult>) -> Result<Vec<u8>, CuResult> {
        let Some(ticket) = self.pages.replies().claim(|| self.is_over()) else { return Err(self.end()) };
        if let Err(error) = push(ticket.reply()) {
            ticket.cancel();
            return Err(error);
        }
        let answer = ticket.wait(|| self.is_over()).ok_or_else(|| self.end())?;
        CuResult(answer.result).ok()?;
        Ok(answer.payload)
    }

    /// As [`Session::call`], for a request that the executor answers with a file descriptor under `tag`.
    pub fn call_for_fd(&self, request: &Request, tag: u64) -> Result<(Reply, OwnedFd), CuResult> {
        if !self.has_socket() {
            return Err(self.lost_fd());
        }
        let reply = self.call(request)?;
        let fd = self.inbox.take(&self.channel, tag, FD_TIMEOUT).map_err(|_| self.lost_fd())?;
        Ok((reply, fd))
    }

    /// Sends a descriptor that a request pushed later names by `tag`.
    pub fn send_fd(&self, tag: u64, fd: BorrowedFd<'_>) -> Result<(), CuResult> {
        if !self.has_socket() {
            return Err(self.lost_fd());
        }
        self.channel.send(&FdMessage { tag }, &[fd]).map_err(|_| self.lost_fd())
    }

    /// Whether the socket's number still is the socket: programs that become daemons close every descriptor, and what they open then has
    /// our numbers. Async-signal-safe.
    fn has_socket(&self) -> bool {
        identity(self.channel.as_fd()) == Some(self.socket)
    }

    /// A tag that was never used before in this session.
    pub fn next_tag(&self) -> u64 {
        self.tags.fetch_add(1, Relaxed)
    }

    /// Timeline words that nobody uses.
    pub fn slots(&self) -> &TimelineSlots {
        &self.slots
    }

    /// Whether the device has written `value`, or a later one, to the timeline word.
    pub fn reached(&self, slot: u32, value: u32) -> bool {
        self.pages.timeline().reached(slot, value)
    }

    /// Waits until the device has written `value` to the timeline word; ends with the sticky error if there is one.
    pub fn wait(&self, slot: u32, value: u32) -> Result<(), CuResult> {
        if self.pages.timeline().wait(slot, value, || self.is_over()) {
            self.check()
        } else {
            Err(self.end())
        }
    }

    /// The error that every forwarded call returns from now on.
    #[inline]
    pub fn sticky(&self) -> Option<CuResult> {
        match self.pages.status().sticky_error() {
            0 => None,
            error => Some(CuResult(error)),
        }
    }

    /// Makes `error` sticky unless there is an earlier one.
    pub fn fail(&self, error: CuResult) {
        self.pages.status().set_sticky_error(error.0);
    }

    /// The shared pages.
    pub fn pages(&self) -> &SessionPages {
        &self.pages
    }

    /// What policy grants this tenant.
    pub fn tenant_limits(&self) -> &Limits {
        &self.limits
    }

    /// Counts a call of the hook in `row`.
    pub fn count(&self, row: u16, outcome: Outcome) {
        self.pages.counters().count(row.into(), outcome);
    }

    #[inline]
    fn check(&self) -> Result<(), CuResult> {
        self.sticky().map_or(Ok(()), Err)
    }

    /// Whether a wait is pointless: the session has failed, or the process has begun to exit.
    fn is_over(&self) -> bool {
        self.sticky().is_some() || session().is_none()
    }

    /// The error of a call that was cut short: the session failed, or the process has begun to exit.
    fn end(&self) -> CuResult {
        self.sticky().unwrap_or(CuResult::DEINITIALIZED)
    }

    /// The error of a file descriptor that did not cross.
    fn lost_fd(&self) -> CuResult {
        self.sticky().unwrap_or(CuResult::OPERATING_SYSTEM)
    }

    fn push_error(&self, error: PushError) -> CuResult {
        match error {
            PushError::Disconnected => {
                self.fail(CuResult::LAUNCH_FAILED);
                self.end()
            }
            PushError::TooLong { .. } => CuResult::INVALID_VALUE,
        }
    }

    fn push_request(&self, request: &Request, reply: u32) -> Result<(), CuResult> {
        if request.keeps_state_of_its_own() {
            dispatch::settle();
        }
        let bytes = codec::encode(request).map_err(|_| CuResult::INVALID_VALUE)?;
        let header = RecordHeader { op: Op::Cold.into(), reply, ..RecordHeader::default() };
        match self.producer.push_record(header, &[], &[&bytes]) {
            Err(PushError::TooLong { .. }) => self.push_blob(&bytes, reply),
            result => result.map_err(|error| self.push_error(error)),
        }
    }

    /// A request too long for a record: its bytes travel in a memfd, its place in the order is the record's.
    fn push_blob(&self, bytes: &[u8], reply: u32) -> Result<(), CuResult> {
        let tag = self.next_tag();
        let fd = blob(bytes).map_err(|_| CuResult::OUT_OF_MEMORY)?;
        self.send_fd(tag, fd.as_fd())?;
        let header = RecordHeader { op: Op::ColdBlob.into(), reply, ..RecordHeader::default() };
        let reference = BlobRef { tag, bytes: bytes.len() as u64 };
        self.producer.push_record(header, reference.as_bytes(), &[]).map_err(|error| self.push_error(error))
    }
}

/// Closes the child's copy of a socket, unless the program has closed it and has another file under its number. Async-signal-safe.
pub fn close_in_child(channel: &Channel, socket: (u64, u64)) {
    if identity(channel.as_fd()) == Some(socket) {
        // SAFETY: the child's own copy of the descriptor; its owner is never used or dropped in the child.
        unsafe { libc::close(channel.as_fd().as_raw_fd()) };
    }
}

/// Device and inode of an open file.
pub fn identity(fd: BorrowedFd<'_>) -> Option<(u64, u64)> {
    rustix::fs::fstat(fd).ok().map(|file| (file.st_dev, file.st_ino))
}

/// A sealed memfd with these bytes, for what is too long for the ring (requests, module images).
pub fn blob(bytes: &[u8]) -> std::io::Result<OwnedFd> {
    let mut file = std::fs::File::from(sealed_memfd("lightos-blob", bytes.len() as u64)?);
    file.write_all(bytes)?;
    Ok(file.into())
}
