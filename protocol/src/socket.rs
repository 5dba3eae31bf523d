//! Framed messages and file descriptors over a Unix stream socket.
//!
//! A frame is a u32 length (little-endian) and that many bytes of [`codec`] encoding; descriptors ride on
//! its first byte. Sends and receives lock separately, so threads may share a channel. Every operation ends
//! at its deadline. Whoever sees half a frame has lost the boundary between messages: that direction of the
//! channel then fails for good with [`SocketError::Broken`].

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec::{self, CodecError, MAX_MESSAGE_BYTES};
use crate::futex::timespec;

mod inbox;
pub use inbox::FdInbox;

/// Most descriptors one frame may carry.
pub const MAX_FDS: usize = 16;
/// Longest first frame of a connection: what a stranger can make the daemon hold. A hello with every hook's
/// name takes about 60 KiB.
pub const MAX_OPENING_BYTES: usize = 256 << 10;
/// How long a send may take before the peer counts as stuck.
pub const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a message did not get through.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The peer closed the connection between two frames.
    #[error("connection closed by peer")]
    Closed,
    /// The connection ended in the middle of a frame.
    #[error("connection ended inside a frame")]
    Truncated,
    /// Nothing arrived, or nothing could be sent, in time.
    #[error("timed out")]
    TimedOut,
    /// The peer announced a frame longer than this end accepts.
    #[error("frame of {bytes} bytes announced, limit {limit_bytes}")]
    FrameTooLong {
        /// Announced size.
        bytes: usize,
        /// What would be accepted.
        limit_bytes: usize,
    },
    /// A frame carries more than [`MAX_FDS`] descriptors.
    #[error("frame carries more than {MAX_FDS} descriptors")]
    TooManyFds,
    /// An earlier error lost the boundary between frames.
    #[error("channel unusable after an earlier error")]
    Broken,
    /// The frame is complete but not the message expected.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The operating system's word.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<Errno> for SocketError {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::PIPE | Errno::CONNRESET => Self::Closed,
            other => Self::Io(other.into()),
        }
    }
}

/// Who is on the other end, as the kernel vouches (SO_PEERCRED: at the time of connect).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerCredentials {
    /// Process id.
    pub pid: i32,
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
}

/// One end of a connection. Share it by reference.
#[derive(Debug)]
pub struct Channel {
    stream: UnixStream,
    /// Whether sending is broken; locked for the length of a frame.
    sending: Mutex<bool>,
    /// Whether receiving is broken; locked for the length of a frame.
    receiving: Mutex<bool>,
}

impl From<UnixStream> for Channel {
    fn from(stream: UnixStream) -> Self {
        Self { stream, sending: Mutex::new(false), receiving: Mutex::new(false) }
    }
}

impl From<OwnedFd> for Channel {
    fn from(fd: OwnedFd) -> Self {
        UnixStream::from(fd).into()
    }
}

impl From<Channel> for OwnedFd {
    fn from(channel: Channel) -> Self {
        channel.stream.into()
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl Channel {
    /// Connects to a listening socket.
    ///
    /// # Errors
    /// What connect reports.
    pub fn connect(path: &Path) -> io::Result<Self> {
        UnixStream::connect(path).map(Self::from)
    }

    /// Two connected ends.
    ///
    /// # Errors
    /// What socketpair reports.
    pub fn pair() -> io::Result<(Self, Self)> {
        UnixStream::pair().map(|(a, b)| (a.into(), b.into()))
    }

    /// Sends a message and duplicates of `fds`, within [`SEND_TIMEOUT`].
    ///
    /// # Errors
    /// See [`SocketError`].
    pub fn send<T: Serialize>(&self, message: &T, fds: &[BorrowedFd<'_>]) -> Result<(), SocketError> {
        if fds.len() > MAX_FDS {
            return Err(SocketError::TooManyFds);
        }
        let body = codec::encode(message)?;
        let mut frame = Vec::with_capacity(4 + body.len());
        frame.extend_from_slice(&(body.len() as u32).to_le_bytes());
        frame.extend_from_slice(&body);
        let mut broken = lock(&self.sending)?;
        let deadline = Deadline::after(Some(SEND_TIMEOUT));
        let mut sent = 0;
        while sent < frame.len() {
            let fds = if sent == 0 { fds } else { &[] };
            match self.send_some(&frame[sent..], fds, deadline) {
                Ok(bytes) => sent += bytes,
                Err(error) => {
                    *broken = sent > 0;
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Receives a message and its descriptors; waits for ever when `timeout` is none. A timeout before the
    /// first byte leaves the channel usable.
    ///
    /// # Errors
    /// See [`SocketError`].
    pub fn recv<T: DeserializeOwned>(
        &self,
        timeout: Option<Duration>,
    ) -> Result<(T, Vec<OwnedFd>), SocketError> {
        let (frame, fds) = self.recv_bytes(timeout, MAX_MESSAGE_BYTES)?;
        Ok((codec::decode(&frame)?, fds))
    }

    /// Receives a frame of at most [`MAX_OPENING_BYTES`] undecoded, for
    /// [`Opening::decode`](crate::control::Opening::decode).
    ///
    /// # Errors
    /// See [`SocketError`].
    pub fn recv_frame(&self, timeout: Option<Duration>) -> Result<(Vec<u8>, Vec<OwnedFd>), SocketError> {
        self.recv_bytes(timeout, MAX_OPENING_BYTES)
    }

    fn recv_bytes(
        &self,
        timeout: Option<Duration>,
        limit_bytes: usize,
    ) -> Result<(Vec<u8>, Vec<OwnedFd>), SocketError> {
        let mut broken = lock(&self.receiving)?;
        let deadline = Deadline::after(timeout);
        let mut fds = Vec::new();
        let mut started = false;
        let result = self.recv_whole(limit_bytes, deadline, &mut fds, &mut started);
        *broken = started && result.is_err();
        result.map(|frame| (frame, fds))
    }

    /// Who connected.
    ///
    /// # Errors
    /// What getsockopt reports.
    pub fn peer_credentials(&self) -> io::Result<PeerCredentials> {
        let cred = rustix::net::sockopt::socket_peercred(&self.stream)?;
        Ok(PeerCredentials {
            pid: cred.pid.as_raw_nonzero().get(),
            uid: cred.uid.as_raw(),
            gid: cred.gid.as_raw(),
        })
    }

    /// Closes the connection in both directions: both ends see a hang-up. The descriptor stays.
    pub fn hang_up(&self) {
        let _ = rustix::net::shutdown(self, rustix::net::Shutdown::Both);
    }

    /// Whether the peer has hung up. Does not wait; unread messages may remain.
    pub fn peer_gone(&self) -> bool {
        let mut fds = [PollFd::new(&self.stream, PollFlags::RDHUP)];
        let none = timespec(Duration::ZERO);
        let gone = PollFlags::HUP | PollFlags::RDHUP | PollFlags::ERR | PollFlags::NVAL;
        matches!(poll(&mut fds, Some(&none)), Ok(1..)) && fds[0].revents().intersects(gone)
    }

    fn send_some(
        &self,
        bytes: &[u8],
        fds: &[BorrowedFd<'_>],
        deadline: Deadline,
    ) -> Result<usize, SocketError> {
        loop {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
                return Err(SocketError::TooManyFds);
            }
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match sendmsg(&self.stream, &[IoSlice::new(bytes)], &mut control, flags) {
                Ok(sent) => return Ok(sent),
                Err(Errno::AGAIN) => deadline.wait(&self.stream, PollFlags::OUT)?,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn recv_whole(
        &self,
        limit_bytes: usize,
        deadline: Deadline,
        fds: &mut Vec<OwnedFd>,
        started: &mut bool,
    ) -> Result<Vec<u8>, SocketError> {
        let mut length = [0; 4];
        self.recv_exact(&mut length, deadline, fds, started)?;
        let bytes = u32::from_le_bytes(length) as usize;
        if bytes > limit_bytes {
            return Err(SocketError::FrameTooLong { bytes, limit_bytes });
        }
        let mut frame = Vec::new();
        // Grows with what has arrived, so that a length alone cannot make us allocate.
        while frame.len() < bytes {
            let old = frame.len();
            frame.resize(bytes.min(old + (64 << 10)), 0);
            self.recv_exact(&mut frame[old..], deadline, fds, started)?;
        }
        Ok(frame)
    }

    fn recv_exact(
        &self,
        mut into: &mut [u8],
        deadline: Deadline,
        fds: &mut Vec<OwnedFd>,
        started: &mut bool,
    ) -> Result<(), SocketError> {
        while !into.is_empty() {
            let got = self.recv_some(into, deadline, fds)?;
            if got == 0 {
                return Err(if *started { SocketError::Truncated } else { SocketError::Closed });
            }
            *started = true;
            into = &mut into[got..];
        }
        Ok(())
    }

    fn recv_some(
        &self,
        into: &mut [u8],
        deadline: Deadline,
        fds: &mut Vec<OwnedFd>,
    ) -> Result<usize, SocketError> {
        loop {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
            match recvmsg(&self.stream, &mut [IoSliceMut::new(into)], &mut control, flags) {
                Ok(message) => {
                    for part in control.drain() {
                        if let RecvAncillaryMessage::ScmRights(received) = part {
                            fds.extend(received);
                        }
                    }
                    if message.flags.contains(ReturnFlags::CTRUNC) || fds.len() > MAX_FDS {
                        return Err(SocketError::TooManyFds);
                    }
                    return Ok(message.bytes);
                }
                Err(Errno::AGAIN) => deadline.wait(&self.stream, PollFlags::IN)?,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Locks a direction that is not broken. A panic elsewhere cannot have left it mid-frame with a lock held
/// and no error noted.
fn lock(direction: &Mutex<bool>) -> Result<MutexGuard<'_, bool>, SocketError> {
    let guard = direction.lock().unwrap_or_else(PoisonError::into_inner);
    if *guard { Err(SocketError::Broken) } else { Ok(guard) }
}

/// The end of an operation's time; none never comes.
#[derive(Debug, Clone, Copy)]
struct Deadline(Option<Instant>);

impl Deadline {
    fn after(timeout: Option<Duration>) -> Self {
        Self(timeout.and_then(|timeout| Instant::now().checked_add(timeout)))
    }

    /// Waits until the stream is ready for `events` or has hung up.
    fn wait(self, stream: &UnixStream, events: PollFlags) -> Result<(), SocketError> {
        let left = self.0.map(|end| end.saturating_duration_since(Instant::now()));
        let limit = left.map(timespec);
        match poll(&mut [PollFd::new(stream, events)], limit.as_ref()) {
            Ok(0) => Err(SocketError::TimedOut),
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
