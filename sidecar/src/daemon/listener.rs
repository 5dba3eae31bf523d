//! The listening socket: one daemon per path, mode 0660, taken over from a daemon that died.
//!
//! A lock file beside the socket belongs to the running daemon (flock, released by the kernel however the daemon ends), so what lies at
//! the socket's path once the lock is held is left over and may be replaced.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use interprocess::local_socket::{GenericFilePath, Listener, ListenerOptions, prelude::*};
use interprocess::os::unix::local_socket::ListenerOptionsExt;
use rustix::fs::{FlockOperation, Gid, flock};

use super::peer::Peer;

const MODE: u32 = 0o660;

/// Why the daemon cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("a sidecar is already running at {} (pid {pid}); stop it first, or choose another path with --socket", socket.display())]
    Running { socket: PathBuf, pid: String },
    #[error("{} exists and is not a socket; remove it, or choose another path with --socket", .0.display())]
    NotASocket(PathBuf),
    #[error("cannot listen at {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("no folder for the socket: {0}; choose a path with --socket")]
    NoFolder(String),
    #[error("group {0:?} of the configuration does not exist")]
    NoGroup(String),
}

/// The path to listen at when none is configured: the first candidate whose folder exists or can be made.
pub fn default_socket() -> Result<PathBuf, ListenError> {
    let mut failures = Vec::new();
    for path in crate::layout::socket_candidates() {
        let folder = path.parent().unwrap_or(Path::new("/"));
        match std::fs::create_dir_all(folder)
            .and_then(|()| Ok(rustix::fs::access(folder, rustix::fs::Access::WRITE_OK)?))
        {
            Ok(()) => return Ok(path),
            Err(error) => failures.push(format!("{}: {error}", folder.display())),
        }
    }
    Err(ListenError::NoFolder(failures.join("; ")))
}

/// A bound socket and the lock that makes it the only one.
#[derive(Debug)]
pub(super) struct Listening {
    socket: PathBuf,
    listener: Listener,
    _lock: File,
}

impl Listening {
    /// Binds `socket`, open to the daemon's user and to `group`.
    pub(super) fn bind(socket: &Path, group: Option<Gid>) -> Result<Self, ListenError> {
        let io = |source| ListenError::Io { path: socket.to_owned(), source };
        if let Some(folder) = socket.parent() {
            std::fs::create_dir_all(folder).map_err(io)?;
        }
        let lock = lock(socket)?;
        match std::fs::symlink_metadata(socket) {
            Ok(found) if found.file_type().is_socket() => std::fs::remove_file(socket).map_err(io)?,
            Ok(_) => return Err(ListenError::NotASocket(socket.to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io(error)),
        }
        let name = socket.to_fs_name::<GenericFilePath>().map_err(io)?;
        let listener =
            ListenerOptions::new().name(name).reclaim_name(false).mode(MODE).create_sync().map_err(io)?;
        if let Some(group) = group {
            rustix::fs::chown(socket, None, Some(group)).map_err(|error| io(error.into()))?;
        }
        // The umask has taken bits away from the mode above; the group comes first, so that no other group ever has them.
        std::fs::set_permissions(socket, Permissions::from_mode(MODE)).map_err(io)?;
        Ok(Self { socket: socket.to_owned(), listener, _lock: lock })
    }

    /// Removes the socket, so that programs see at once that nobody serves.
    pub(super) fn remove(&self) {
        if let Err(error) = std::fs::remove_file(&self.socket) {
            tracing::warn!(socket = %self.socket.display(), %error, "socket is not removed");
        }
    }

    /// The next connection and who is at its other end.
    pub(super) fn accept(&self) -> io::Result<(UnixStream, Peer)> {
        let stream = self.listener.accept()?;
        let peer = Peer::of(&stream)?;
        let LocalSocketStream::UdSocket(stream) = stream;
        Ok((UnixStream::from(OwnedFd::from(stream)), peer))
    }
}

/// The lock file, locked, with our process id in it for the next one's message.
fn lock(socket: &Path) -> Result<File, ListenError> {
    let mut path = socket.as_os_str().to_owned();
    path.push(".lock");
    let path = PathBuf::from(path);
    let io = |source| ListenError::Io { path: path.clone(), source };
    let flags = (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::CLOEXEC).bits() as i32;
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(flags);
    let mut file = options.open(&path).map_err(io)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut pid = String::new();
            let _ = file.read_to_string(&mut pid);
            let pid = pid.trim();
            let pid = if pid.is_empty() { "unknown" } else { pid }.to_owned();
            return Err(ListenError::Running { socket: socket.to_owned(), pid });
        }
        Err(error) => return Err(io(error.into())),
    }
    file.set_len(0).map_err(io)?;
    file.rewind().map_err(io)?;
    writeln!(file, "{}", std::process::id()).map_err(io)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_daemon_is_told_who_runs() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("x.sock");
        let first = Listening::bind(&socket, None).unwrap();
        let message = Listening::bind(&socket, None).unwrap_err().to_string();
        assert!(message.contains(&std::process::id().to_string()) && message.contains("x.sock"), "{message}");
        first.remove();
        assert!(!socket.exists());
        drop(first);
        Listening::bind(&socket, None).unwrap();
    }

    #[test]
    fn a_left_over_socket_is_taken_over_and_closed_to_others() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("sub/x.sock");
        std::fs::create_dir(folder.path().join("sub")).unwrap();
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        assert!(socket.exists());
        let listening = Listening::bind(&socket, None).unwrap();
        assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, MODE);
        let _client = UnixStream::connect(&socket).unwrap();
        let (_, peer) = listening.accept().unwrap();
        assert_eq!(peer.pid, std::process::id());
    }

    #[test]
    fn other_files_are_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(Listening::bind(&path, None), Err(ListenError::NotASocket(_))));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }
}
