//! The thread that ends the process.
//!
//! It sleeps in poll(2) on three descriptors: the program's socket (hang-up), a pidfd of the program (a forked child may keep the socket
//! open), and the daemon's channel (hang-up, besides PR_SET_PDEATHSIG). The end is `_exit`: the ring thread may be inside the driver for
//! as long as a kernel runs, and the kernel returns every resource of a process that is gone.

use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock, mpsc};
use std::time::Duration;

use lightos_protocol::socket::Channel;
use rustix::event::{PollFd, PollFlags, poll};

use super::control::{Ending, Notice};
use super::driver::{Context, sys};

/// How long an ended program's last device output may take to appear.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(100);

/// Tells the daemon why and ends the process at once.
pub(crate) fn end(daemon: &Channel, ending: Ending) -> ! {
    tracing::debug!(%ending, "executor ends");
    let _ = daemon.send(&Notice::Ending(ending), &[]);
    // SAFETY: `_exit` takes no pointer and runs no destructor, which is the purpose.
    unsafe { libc::_exit(0) }
}

/// What the thread watches.
pub(crate) struct Watch {
    pub(crate) daemon: Arc<Channel>,
    pub(crate) program: Arc<Channel>,
    /// A pidfd of the program.
    pub(crate) pidfd: OwnedFd,
    /// Set once the device is open.
    pub(crate) context: Arc<OnceLock<Context>>,
}

/// Starts the thread.
pub(crate) fn start(watched: Watch) -> std::io::Result<()> {
    std::thread::Builder::new().name("monitor".into()).spawn(move || watch(&watched))?;
    Ok(())
}

/// The driver keeps what kernels print until a call that synchronises: makes that call, on a thread of its own because it may never return.
fn flush_output(context: Context) {
    let (done, wait) = mpsc::channel::<()>();
    let flush = move || {
        if context.bind().is_ok() {
            // SAFETY: takes nothing; the context is current on this thread.
            let _ = unsafe { sys::cuCtxSynchronize() };
        }
        drop(done);
    };
    if std::thread::Builder::new().name("flush".into()).spawn(flush).is_ok() {
        let _ = wait.recv_timeout(FLUSH_TIMEOUT);
    }
}

fn watch(Watch { daemon, program, pidfd, context }: &Watch) -> ! {
    // HUP and ERR are always reported; RDHUP has to be asked for. Readable data is the ring thread's business.
    let mut fds = [
        PollFd::new(program, PollFlags::RDHUP),
        PollFd::new(pidfd, PollFlags::IN),
        PollFd::new(daemon, PollFlags::RDHUP),
    ];
    loop {
        match poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => tracing::error!(%error, "poll"),
            Ok(_) => {}
        }
        if !fds[2].revents().is_empty() {
            end(daemon, Ending::Shutdown);
        }
        if let Some(context) = context.get() {
            flush_output(*context);
        }
        end(daemon, Ending::ProgramEnded);
    }
}

/// A pidfd of `pid`, which becomes readable when the process ends.
pub(crate) fn pidfd(pid: u32) -> std::io::Result<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    let pid = pid.ok_or(std::io::ErrorKind::InvalidInput)?;
    Ok(rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pidfd_becomes_readable_when_its_process_ends() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let fd = pidfd(child.id()).unwrap();
        let readable = |ms: i64| {
            let timeout = rustix::event::Timespec { tv_sec: 0, tv_nsec: ms * 1_000_000 };
            poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)).unwrap() == 1
        };
        assert!(!readable(1));
        child.kill().unwrap();
        assert!(readable(900));
        child.wait().unwrap();
    }

    #[test]
    fn no_pidfd_for_process_zero() {
        assert!(pidfd(0).is_err());
    }
}
