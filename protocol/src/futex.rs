//! Futex words in memory that two processes share.
//!
//! Never the private flavour: the waiter and the waker usually live in different processes. Errors are not
//! reported, because every caller re-checks its condition in a loop: `EAGAIN` (the word changed), `EINTR`
//! and `ETIMEDOUT` all mean "look again".

use std::sync::atomic::AtomicU32;
use std::time::Duration;

use rustix::event::Timespec;
use rustix::thread::futex::{self, Flags};

/// Sleeps while `word` holds `expected`, at most `timeout`; may return early for no reason.
pub fn wait(word: &AtomicU32, expected: u32, timeout: Duration) {
    let limit = timespec(timeout);
    let _ = futex::wait(word, Flags::empty(), expected, Some(&limit));
}

/// Wakes every waiter of `word`. One system call.
pub fn wake_all(word: &AtomicU32) {
    let _ = futex::wake(word, Flags::empty(), i32::MAX as u32);
}

/// A duration as the kernel takes it; what does not fit becomes the longest wait that does.
pub(crate) fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}
