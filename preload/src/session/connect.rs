//! Finding the sidecar and shaking hands.

use super::{Session, TimelineSlots};
use crate::{hooks, life::Settings, outcome::Reason, real, result::CuResult};
use lightos_protocol::{
    control::{DRIVER_ENVIRONMENT, HELLO_FDS, Hello, HelloReply, Mode, Opening, Purpose, Welcome},
    pages::{ExecutorState, SessionPages},
    ring::{Producer, RingMemory},
    socket::{Channel, FdInbox, SocketError},
    verdict::Verdict,
};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use std::{
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

/// Bytes of call records in flight. A launch takes 192 to 4,200 bytes.
const RING_BYTES: usize = 4 << 20;
/// The daemon starts an executor with a CUDA context before it answers.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(30);

/// Why there is no session. The texts say what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("no sidecar at {} ({error}): start `lightos sidecar`, or set LIGHTOS_SOCKET", path.display())]
    NoSidecar { path: PathBuf, error: io::Error },
    #[error("the sidecar refused this process: {0}")]
    Refused(String),
    #[error(
        "the sidecar did not answer as expected ({0}): install preload library and sidecar from the same build"
    )]
    Handshake(SocketError),
    #[error("the sidecar's executor did not start: {0}")]
    Executor(String),
    #[error("the sidecar sent no verdict page: install preload library and sidecar from the same build")]
    NoVerdict,
    #[error("shared memory for the session: {0}")]
    SharedMemory(io::Error),
    #[error("the address range for shared device memory is taken ({0:?})")]
    Arena(CuResult),
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
}

/// Connects, introduces this process as one that dispatches for itself, and takes the verdict page.
pub fn introduce_locally(
    settings: &Settings,
    mode: Mode,
) -> Result<(SessionPages, Channel, Verdict), ConnectError> {
    let channel = open(settings)?;
    let (pages, pages_fd) = SessionPages::create().map_err(ConnectError::SharedMemory)?;
    let (_, fds) = introduce(&channel, hello(settings, mode), &[pages_fd.as_fd()])?;
    let [verdict] = <[OwnedFd; 1]>::try_from(fds).map_err(|_| ConnectError::NoVerdict)?;
    Ok((pages, channel, Verdict::open(&verdict).map_err(ConnectError::SharedMemory)?))
}

/// Connects, introduces this process, and waits until the executor is ready.
pub fn connect(settings: &Settings) -> Result<Session, ConnectError> {
    let channel = open(settings)?;
    let (pages, pages_fd) = SessionPages::create().map_err(ConnectError::SharedMemory)?;
    let (memory, ring_fd) = RingMemory::create(RING_BYTES).map_err(ConnectError::SharedMemory)?;
    let output = |fd| output(fd).map_err(ConnectError::SharedMemory);
    let (stdout, stderr) = (output(libc::STDOUT_FILENO)?, output(libc::STDERR_FILENO)?);
    let fds: [BorrowedFd<'_>; HELLO_FDS] =
        [pages_fd.as_fd(), ring_fd.as_fd(), stdout.as_fd(), stderr.as_fd()];
    let (welcome, _) = introduce(&channel, hello(settings, Mode::Sidecar), &fds)?;
    match pages.status().wait_while_starting(WELCOME_TIMEOUT) {
        ExecutorState::Ready => {}
        _ => return Err(ConnectError::Executor(pages.status().error_text())),
    }
    let pages = Arc::new(pages);
    let producer = Producer::with_abort(memory, {
        let pages = Arc::clone(&pages);
        move || pages.status().sticky_error() != 0 || super::session().is_none()
    });
    let socket = super::identity(channel.as_fd()).ok_or(ConnectError::Handshake(SocketError::Closed))?;
    Ok(Session {
        pages,
        socket,
        producer,
        channel,
        inbox: FdInbox::default(),
        tags: AtomicU64::new(1),
        slots: TimelineSlots::new(),
        device_arena_bytes: welcome.device_arena_bytes,
        limits: welcome.limits,
    })
}

/// Says hello and takes the answer, with the descriptors that come along.
fn introduce(
    channel: &Channel,
    hello: Hello,
    fds: &[BorrowedFd<'_>],
) -> Result<(Welcome, Vec<OwnedFd>), ConnectError> {
    channel.send(&Opening::new(Purpose::Client(hello)), fds).map_err(ConnectError::Handshake)?;
    match channel.recv::<HelloReply>(Some(WELCOME_TIMEOUT)).map_err(ConnectError::Handshake)? {
        (HelloReply::Welcome(welcome), fds) => Ok((welcome, fds)),
        (HelloReply::Refused { message, .. }, _) => Err(ConnectError::Refused(message)),
    }
}

/// The first socket at which somebody listens; the error names the last one tried.
fn open(settings: &Settings) -> Result<Channel, ConnectError> {
    let mut result =
        Err(ConnectError::NoSidecar { path: PathBuf::new(), error: io::ErrorKind::NotFound.into() });
    for path in &settings.sockets {
        match Channel::connect(path) {
            Ok(channel) => return Ok(channel),
            Err(error) => result = Err(ConnectError::NoSidecar { path: path.clone(), error }),
        }
    }
    result
}

fn hello(settings: &Settings, mode: Mode) -> Hello {
    let read = |path| std::fs::read(path).unwrap_or_default();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (mut version, mut uuid) = (0, [0; 16]);
    // SAFETY: valid out-parameters of these sizes. The device is the process's ordinal 0; where a query fails, the zeros stay.
    unsafe {
        let _ = real::cuDriverGetVersion(&mut version);
        let _ = real::cuDeviceGetUuid_v2(&mut uuid, 0);
    }
    Hello {
        mode,
        pid: std::process::id(),
        process_name: text(read("/proc/self/comm").trim_ascii_end()),
        argv0: text(read("/proc/self/cmdline").split(|byte| *byte == 0).next().unwrap_or_default()),
        tenant_class: settings.class.clone(),
        hooks: hooks::all().map(|hook| text(hook.slot.name().to_bytes())).collect(),
        reasons: Reason::NAMES.iter().map(|&name| name.to_owned()).collect(),
        driver_version: version,
        device_uuid: uuid,
        environment: DRIVER_ENVIRONMENT
            .iter()
            .filter_map(|&name| Some((name.to_owned(), std::env::var(name).ok()?)))
            .collect(),
    }
}

/// A copy of one of the program's output descriptors, or /dev/null where it is closed.
fn output(fd: i32) -> io::Result<OwnedFd> {
    // SAFETY: the descriptor is only duplicated; a closed one makes the call fail.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    match fd.try_clone_to_owned() {
        Ok(copy) => Ok(copy),
        Err(_) => File::options().write(true).open("/dev/null").map(OwnedFd::from),
    }
}

/// Returns when the peer has closed the connection.
pub fn wait_for_hangup(channel: &Channel) {
    if channel.peer_gone() {
        return;
    }
    // A hang-up is reported whatever is asked for; RDHUP also covers a half-closed peer. Its word is taken: by then the program may have
    // closed the descriptor, as daemons do with all, and have another file under its number.
    while matches!(poll(&mut [PollFd::new(channel, PollFlags::RDHUP)], None), Err(Errno::INTR)) {}
}
