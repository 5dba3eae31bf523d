//! Starting an executor process and learning how it ended.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use lightos_protocol::control::{DRIVER_ENVIRONMENT, ExecutorExit};
use lightos_protocol::socket::Channel;

use super::Options;
use super::tenants::Leash;
use crate::executor::control::{
    DeviceFacts, Ending, IpcAnswer, IpcDenial, IpcGrant, IpcQuestion, Notice, Setup,
};
use crate::layout;

/// Opening a device may take seconds on a machine with many of them. Shorter than the program's own patience, so that it learns why.
const READY_TIMEOUT: Duration = Duration::from_secs(25);

/// Variables that were meant for the daemon's own process, or that load foreign code into the executor.
const DAEMONS_OWN: [&str; 4] =
    ["LD_PRELOAD", "CUDA_INJECTION64_PATH", "NVTX_INJECTION64_PATH", "CUDA_LAUNCH_BLOCKING"];

/// Moves the new process's libraries and mappings away from the addresses where its program has its own: with an unlimited stack
/// Linux maps from a third of the address space upwards instead of down from its top. The program's registered memory and the module
/// globals of the executor must have the same addresses in both. Where the limit cannot be raised, they may collide, which those calls report.
fn spread_out() -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Stack);
    let _ = setrlimit(Resource::Stack, Rlimit { current: maximum, maximum });
    Ok(())
}

fn is_driver_variable(name: &str, value: &str) -> bool {
    DRIVER_ENVIRONMENT.contains(&name) && !value.contains('\0')
}

/// What an executor is given of its program.
#[derive(Debug)]
pub(super) struct ProgramFds {
    pub(super) socket: OwnedFd,
    pub(super) ring: OwnedFd,
    pub(super) pages: OwnedFd,
    pub(super) pidfd: OwnedFd,
    pub(super) verdict: OwnedFd,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
}

/// Why an executor does not serve.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    #[error("cannot start the executor process: {0}")]
    Spawn(io::Error),
    #[error("{0}")]
    Device(String),
    #[error("{0}")]
    Failed(String),
}

/// A running executor process. It dies with the thread that started it.
#[derive(Debug)]
pub(super) struct ExecutorProcess {
    child: Child,
    channel: Channel,
}

impl ExecutorProcess {
    /// Starts the process and hands it the program. `environment` is what the program asks of the driver.
    pub(super) fn spawn(
        options: &Options,
        setup: &Setup,
        environment: &[(String, String)],
        fds: ProgramFds,
    ) -> Result<Self, StartError> {
        let (ours, theirs) = UnixStream::pair().map_err(StartError::Spawn)?;
        let (binary, _) =
            layout::binary().map_err(|error| StartError::Spawn(io::Error::other(error.to_string())))?;
        let mut command = Command::new(binary);
        command
            .arg("executor")
            .args(["--tenant", &setup.tenant.to_string(), "--pid", &setup.pid.to_string()])
            // One word: the program's name is its own and may begin with a dash.
            .arg(format!("--program={}", setup.program))
            // The preload library must never forward the executor's own calls, whatever the environment preloads.
            .env("LIGHTOS_DISPATCH", "off")
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::from(fds.stdout))
            .stderr(Stdio::from(fds.stderr))
            // A terminal's interrupt is for the program; what the executor does about it follows from the program's end.
            .process_group(0);
        for variable in DAEMONS_OWN {
            command.env_remove(variable);
        }
        command.envs(environment.iter().filter(|(name, value)| is_driver_variable(name, value)).cloned());
        // SAFETY: `spread_out` makes one system call and allocates nothing, as a forked child must.
        unsafe { command.pre_exec(spread_out) };
        let mut libraries = std::env::var_os("LD_LIBRARY_PATH").map(|list| layout::without_stubs(&list));
        if let Some(folder) = &options.softgpu {
            libraries = Some(layout::prepend(folder, libraries.as_deref()));
        }
        if let Some(libraries) = libraries {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        let child = command.spawn().map_err(StartError::Spawn)?;
        let process = Self { child, channel: Channel::from(ours) };
        let log = io::stderr();
        let passed: [BorrowedFd<'_>; crate::executor::control::SETUP_FDS] = [
            fds.socket.as_fd(),
            fds.ring.as_fd(),
            fds.pages.as_fd(),
            fds.pidfd.as_fd(),
            fds.verdict.as_fd(),
            log.as_fd(),
        ];
        process
            .channel
            .send(setup, &passed)
            .map_err(|error| StartError::Failed(format!("executor takes no set-up: {error}")))?;
        Ok(process)
    }

    /// Waits until the device is open.
    pub(super) fn ready(&self) -> Result<DeviceFacts, StartError> {
        match self.channel.recv::<Notice>(Some(READY_TIMEOUT)) {
            Ok((Notice::Ready(facts), _)) => Ok(facts),
            Ok((Notice::Failed { unknown_device: true, message }, _)) => Err(StartError::Device(message)),
            Ok((Notice::Failed { message, .. }, _)) => Err(StartError::Failed(message)),
            Ok((Notice::Ipc { .. }, _)) => {
                Err(StartError::Failed("executor asked before it was ready".to_owned()))
            }
            Ok((Notice::Ending(ending), _)) => Err(StartError::Failed(ending.to_string())),
            Err(error) => {
                Err(StartError::Failed(format!("executor ended while it opened the device: {error}")))
            }
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Handles by which others end the process.
    pub(super) fn leash(&self) -> io::Result<Leash> {
        let channel = self.channel.as_fd().try_clone_to_owned()?;
        Ok(Leash { channel, process: Some(crate::executor::pidfd(self.pid())?) })
    }

    /// Ends a process that did not come up.
    pub(super) fn abandon(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits for the end of the process and says how it came. Until then its questions go to `broker`.
    pub(super) fn wait(
        mut self,
        broker: impl Fn(IpcQuestion, Vec<OwnedFd>) -> Result<(IpcGrant, Option<OwnedFd>), IpcDenial>,
    ) -> ExecutorExit {
        let mut ending = None;
        while let Ok((notice, fds)) = self.channel.recv::<Notice>(None) {
            match notice {
                Notice::Ending(last) => ending = Some(last),
                Notice::Ipc { number, question } => {
                    let (outcome, fd) = match broker(question, fds) {
                        Ok((grant, fd)) => (Ok(grant), fd),
                        Err(denial) => (Err(denial), None),
                    };
                    let fds: Vec<BorrowedFd<'_>> = fd.iter().map(AsFd::as_fd).collect();
                    if let Err(error) = self.channel.send(&IpcAnswer { number, outcome }, &fds) {
                        tracing::debug!(executor = self.pid(), %error, "answer not taken");
                    }
                }
                Notice::Ready(_) | Notice::Failed { .. } => {}
            }
        }
        match self.child.wait() {
            Ok(status) => exit(ending, status),
            Err(_) => ExecutorExit::Status(-1),
        }
    }
}

fn exit(ending: Option<Ending>, status: ExitStatus) -> ExecutorExit {
    match (ending, status.signal(), status.code()) {
        (_, Some(signal), _) => ExecutorExit::Signal(signal),
        (Some(Ending::Violation { reason }), ..) => ExecutorExit::Violation(reason),
        (_, _, Some(0)) => ExecutorExit::Clean,
        (_, _, code) => ExecutorExit::Status(code.unwrap_or(-1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_drivers_variables_pass() {
        assert!(is_driver_variable("CUDA_MODULE_LOADING", "EAGER"));
        assert!(!is_driver_variable("LD_PRELOAD", "/tmp/evil.so"));
        assert!(!is_driver_variable("CUDA_MODULE_LOADING", "a\0b"));
    }

    #[test]
    fn exits_are_told_apart() {
        let status = |raw| ExitStatus::from_raw(raw);
        let violation = || Some(Ending::Violation { reason: "ring: bad".into() });
        assert_eq!(exit(Some(Ending::ProgramEnded), status(0)), ExecutorExit::Clean);
        assert_eq!(exit(None, status(1 << 8)), ExecutorExit::Status(1));
        assert_eq!(exit(None, status(9)), ExecutorExit::Signal(9));
        assert_eq!(exit(violation(), status(0)), ExecutorExit::Violation("ring: bad".into()));
        assert_eq!(exit(violation(), status(11)), ExecutorExit::Signal(11));
    }
}
