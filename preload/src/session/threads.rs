//! Threads of ours in the program's process.

use std::sync::mpsc;
use std::time::{Duration, Instant};
use std::{fs, io, thread};

/// The watch unmaps memory through the driver and writes one line.
const WATCH_STACK_BYTES: usize = 256 << 10;
/// How long a watch may take to begin. A slower one watches as well, only that a program which closes all descriptors at once ends its session.
const WATCH_BEGINS: Duration = Duration::from_millis(20);

/// Starts the thread that waits for the peer's end, and returns once it waits. Its wait keeps the socket open when the program closes every
/// descriptor, as daemons do.
pub fn spawn_watch(body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let (tell, told) = mpsc::sync_channel(1);
    spawn_quietly("lightos-watch", WATCH_STACK_BYTES, move || {
        // SAFETY: takes nothing and cannot fail.
        let _ = tell.send(unsafe { libc::gettid() });
        body();
    })?;
    let start = Instant::now();
    if let Ok(thread) = told.recv_timeout(WATCH_BEGINS) {
        while !is_asleep(thread) && start.elapsed() < WATCH_BEGINS {
            thread::sleep(Duration::from_micros(20));
        }
    }
    Ok(())
}

/// Whether a thread of this process waits for something; also where that cannot be told.
fn is_asleep(thread: libc::pid_t) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/self/task/{thread}/stat")) else { return true };
    // Number, name in parentheses, state.
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('S'))
}

/// Starts a thread that takes none of the program's signals.
pub fn spawn_quietly(name: &str, stack_bytes: usize, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    // SAFETY: plain sets on the stack; the mask of this thread is restored below.
    let (all, mut old) = unsafe {
        let (mut all, old) = (std::mem::zeroed(), std::mem::zeroed());
        libc::sigfillset(&mut all);
        (all, old)
    };
    // SAFETY: as above. A new thread inherits the mask.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut old) };
    let spawned = thread::Builder::new().name(name.to_owned()).stack_size(stack_bytes).spawn(body);
    // SAFETY: the mask that was read above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &old, std::ptr::null_mut()) };
    spawned.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_waits_when_its_start_returns() {
        let (end, ended) = mpsc::channel::<()>();
        let (tell, told) = mpsc::channel();
        spawn_watch(move || {
            // SAFETY: as above.
            tell.send(unsafe { libc::gettid() }).unwrap();
            thread::sleep(Duration::from_millis(2));
            let _ = ended.recv();
        })
        .unwrap();
        assert!(is_asleep(told.recv().unwrap()));
        // SAFETY: as above.
        assert!(!is_asleep(unsafe { libc::gettid() }), "this one runs");
        drop(end);
    }
}
