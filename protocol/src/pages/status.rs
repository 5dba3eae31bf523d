//! How the session stands: the first thing every forwarded call looks at.

use std::sync::atomic::Ordering;

use super::bytes;
use super::layout::StatusArea;

/// Life of an executor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum ExecutorState {
    /// It has not opened the ring yet.
    Starting = 0,
    /// Records are being dispatched.
    Ready = 1,
    /// The session is over because of an error; the text says which.
    Failed = 2,
    /// The session is over.
    Exited = 3,
}

/// Typed access to the status area.
#[derive(Debug, Clone, Copy)]
pub struct Status<'a> {
    area: &'a StatusArea,
}

impl<'a> Status<'a> {
    pub(super) const fn new(area: &'a StatusArea) -> Self {
        Self { area }
    }

    /// The `CUresult` the session is stuck in; 0 for none. One relaxed load.
    pub fn sticky_error(&self) -> u32 {
        self.area.sticky_error.load(Ordering::Relaxed)
    }

    /// Makes the session stick in `error` (not 0). The first error stays: returns false when there is one
    /// already.
    pub fn set_sticky_error(&self, error: u32) -> bool {
        self.area.sticky_error.compare_exchange(0, error, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Where the executor stands; an unknown number in shared memory counts as failed.
    pub fn executor_state(&self) -> ExecutorState {
        match self.area.executor_state.load(Ordering::Acquire) {
            0 => ExecutorState::Starting,
            1 => ExecutorState::Ready,
            3 => ExecutorState::Exited,
            _ => ExecutorState::Failed,
        }
    }

    /// Announces a new state, and wakes whoever waits in [`Status::wait_while_starting`].
    pub fn set_executor_state(&self, state: ExecutorState) {
        self.area.executor_state.store(state as u32, Ordering::Release);
        crate::futex::wake_all(&self.area.executor_state);
    }

    /// Waits until the executor has left [`ExecutorState::Starting`] or `timeout` has passed; returns the
    /// state then.
    pub fn wait_while_starting(&self, timeout: std::time::Duration) -> ExecutorState {
        let start = std::time::Instant::now();
        loop {
            let state = self.executor_state();
            let left = timeout.saturating_sub(start.elapsed());
            if state != ExecutorState::Starting || left.is_zero() {
                return state;
            }
            crate::futex::wait(&self.area.executor_state, ExecutorState::Starting as u32, left);
        }
    }

    /// Why the session failed; empty when it has not said. Invalid UTF-8 is replaced.
    pub fn error_text(&self) -> String {
        let count = self.area.error_text_bytes.load(Ordering::Acquire) as usize;
        String::from_utf8_lossy(&bytes::load(&self.area.error_text, count)).into_owned()
    }

    /// States why the session fails, cut to [`ERROR_TEXT_BYTES`](super::ERROR_TEXT_BYTES). Call it before
    /// the state or the sticky error.
    pub fn set_error_text(&self, text: &str) {
        let stored = bytes::store(&self.area.error_text, text.as_bytes());
        self.area.error_text_bytes.store(stored as u32, Ordering::Release);
    }
}
