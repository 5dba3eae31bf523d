//! Signals that reach `lightos run` are meant for the command.

use std::io;

use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;

/// Signals are held back from here on and passed on once the command runs.
pub(super) struct Forwarding {
    signals: Signals,
}

impl Forwarding {
    pub(super) fn prepare() -> io::Result<Self> {
        let signals = Signals::new([SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2])?;
        Ok(Self { signals })
    }

    /// Starts the thread that passes signals on to process `pid`, a child that is not reaped yet.
    pub(super) fn start(mut self, pid: u32) -> io::Result<()> {
        let pid = rustix::process::Pid::from_raw(pid as i32).ok_or(io::ErrorKind::InvalidInput)?;
        let child = pidfd_open(pid, PidfdFlags::empty())?;
        std::thread::Builder::new().name("signals".into()).spawn(move || {
            for number in self.signals.forever() {
                // The terminal has sent these two to the whole foreground group, the command included.
                if matches!(number, SIGINT | SIGQUIT) && is_foreground() {
                    continue;
                }
                if let Some(signal) = Signal::from_named_raw(number) {
                    let _ = pidfd_send_signal(&child, signal);
                }
            }
        })?;
        Ok(())
    }
}

/// Whether this process belongs to the foreground group of its terminal.
fn is_foreground() -> bool {
    let Ok(terminal) = std::fs::File::open("/dev/tty") else { return false };
    let own = rustix::process::getpgrp();
    rustix::termios::tcgetpgrp(&terminal).is_ok_and(|foreground| foreground == own)
}
