//! The thread that ends the process.
//!
//! It sleeps in poll(2) on three descriptors: the program's socket (hang-up), a pidfd of the program (a forked child may keep the socket
//! open), and the daemon's channel (hang-up, besides PR_SET_PDEATHSIG). The end is `_exit`: the ring thread may be inside the driver for
//! as long as a kernel runs, and the kernel returns every resource of a process that is gone.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use lightos_protocol::socket::Channel;
use rustix::event::{PollFd, PollFlags, poll};

use super::control::{Ending, Notice};

/// Tells the daemon why and ends the process at once.
pub(crate) fn end(daemon: &Channel, ending: Ending) -> ! {
    tracing::debug!(%ending, "executor ends");
    let _ = daemon.send(&Notice::Ending(ending), &[]);
    // SAFETY: `_exit` takes no pointer and runs no destructor, which is the purpose.
    unsafe { libc::_exit(0) }
}

/// Starts the thread.
pub(crate) fn start(daemon: Arc<Channel>, program: Arc<Channel>, pidfd: OwnedFd) -> std::io::Result<()> {
    std::thread::Builder::new().name("monitor".into()).spawn(move || watch(&daemon, &program, &pidfd))?;
    Ok(())
}

fn watch(daemon: &Channel, program: &Channel, pidfd: &OwnedFd) -> ! {
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
        let ending = if fds[2].revents().is_empty() { Ending::ProgramEnded } else { Ending::Shutdown };
        end(daemon, ending);
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
