//! A sidecar of our own, for as long as the command runs.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;

use crate::cli::RunArgs;
use crate::layout::{self, LayoutError};

const START_TIMEOUT: Duration = Duration::from_secs(10);
/// The sidecar's own patience with its executors, and some more.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no private sidecar.
#[derive(Debug, thiserror::Error)]
pub(super) enum PrivateError {
    #[error(transparent)]
    Layout(#[from] LayoutError),
    #[error("cannot start a private sidecar: {0}")]
    Start(#[from] io::Error),
    #[error("the private sidecar ended at once ({0})")]
    Ended(ExitStatus),
    #[error("the private sidecar did not listen within {} s", START_TIMEOUT.as_secs())]
    Silent,
}

/// The process and the folder of its socket, which only its user can enter.
#[derive(Debug)]
pub(super) struct PrivateSidecar {
    child: Child,
    socket: PathBuf,
    _folder: tempfile::TempDir,
}

impl PrivateSidecar {
    /// Starts it and waits until it listens.
    pub(super) fn start(args: &RunArgs) -> Result<Self, PrivateError> {
        let folder = tempfile::Builder::new().prefix("lightos-").tempdir()?;
        let socket = folder.path().join("lightos.sock");
        let mut command = Command::new(layout::binary()?.0);
        command
            .args([
                "sidecar",
                "--with-parent",
                &std::process::id().to_string(),
                "--config",
                "/dev/null",
                "--log",
                &args.log,
                "--socket",
            ])
            .arg(&socket)
            .stdin(Stdio::null())
            // The command's output is the command's; the sidecar's log goes to stderr.
            .stdout(Stdio::null())
            // The terminal's signals are for the command; the sidecar ends after it.
            .process_group(0);
        if args.softgpu {
            command.arg("--softgpu");
        }
        if let Some(duty) = args.duty {
            command.args(["--duty", &duty.to_string()]);
        }
        let child = command.spawn()?;
        let mut sidecar = Self { child, socket, _folder: folder };
        let deadline = Instant::now() + START_TIMEOUT;
        while UnixStream::connect(&sidecar.socket).is_err() {
            if let Some(status) = sidecar.child.try_wait()? {
                return Err(PrivateError::Ended(status));
            }
            if Instant::now() > deadline {
                return Err(PrivateError::Silent);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(sidecar)
    }

    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Ends it and whatever it still serves.
    pub(super) fn stop(self) {
        drop(self);
    }
}

impl Drop for PrivateSidecar {
    fn drop(&mut self) {
        if let Some(pid) = Pid::from_raw(self.child.id() as i32) {
            // Not reaped yet, so the process id is still its own.
            let _ = kill_process(pid, Signal::TERM);
        }
        let deadline = Instant::now() + STOP_TIMEOUT;
        while let Ok(None) = self.child.try_wait() {
            if Instant::now() > deadline {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
