//! Threads of ours in the program's process.

use std::{io, thread};

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
