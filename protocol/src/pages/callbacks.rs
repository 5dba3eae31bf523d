//! Host functions: the executor's stream stops, the client runs the function, the stream goes on.
//!
//! Numbered cells: callback n (from 1) uses cell n % [`CALLBACK_CELLS`], and only after callback n -
//! [`CALLBACK_CELLS`] has finished there. Any thread of the executor posts and waits; one thread of the
//! client takes callbacks in order and finishes each.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::layout::{CALLBACK_CELLS, CallbackArea, CallbackCell};
use crate::backoff::Backoff;
use crate::futex;

/// How often a waiter asks whether its peer still lives.
const NAP: Duration = Duration::from_millis(10);

/// A host function to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Callback {
    /// The queue's number, for [`Callbacks::finish`].
    pub number: u32,
    /// The client's number for function and argument.
    pub id: u64,
    /// `CUresult` to pass to a stream callback.
    pub status: u32,
}

/// Typed access to the callback queue.
#[derive(Debug, Clone, Copy)]
pub struct Callbacks<'a> {
    area: &'a CallbackArea,
    posted: &'a AtomicU32,
    taken: &'a AtomicU32,
}

impl<'a> Callbacks<'a> {
    pub(super) const fn new(area: &'a CallbackArea, posted: &'a AtomicU32, taken: &'a AtomicU32) -> Self {
        Self { area, posted, taken }
    }

    /// Executor: posts a callback and waits until the client has run it (true), or `should_abort` says to
    /// give up (false).
    pub fn run(&self, id: u64, status: u32, should_abort: impl Fn() -> bool) -> bool {
        match self.post(id, status, &should_abort) {
            Some(number) => self.wait(number, should_abort),
            None => false,
        }
    }

    /// Executor: posts a callback and returns its number; waits while the queue is full. `None` when
    /// `should_abort` said to give up; the queue is dead then.
    pub fn post(&self, id: u64, status: u32, should_abort: impl Fn() -> bool) -> Option<u32> {
        let number = self.posted.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        let cell = self.cell(number);
        let previous = number.wrapping_sub(CALLBACK_CELLS as u32);
        let mut backoff = Backoff::new();
        while cell.done.load(Ordering::Acquire) != previous {
            if backoff.snooze() && should_abort() {
                return None;
            }
        }
        cell.id.store(id, Ordering::Relaxed);
        cell.status.store(status, Ordering::Relaxed);
        // SYNC: callback-post. The data is complete before its number says so.
        cell.posted.store(number, Ordering::Release);
        self.area.doorbell.fetch_add(1, Ordering::Release);
        futex::wake_all(&self.area.doorbell);
        Some(number)
    }

    /// Executor: waits until callback `number` has finished (true) or `should_abort` says to give up
    /// (false), which it is asked every 10 ms.
    pub fn wait(&self, number: u32, should_abort: impl Fn() -> bool) -> bool {
        let cell = self.cell(number);
        loop {
            // SYNC: callback-done.
            let done = cell.done.load(Ordering::Acquire);
            if done == number {
                return true;
            }
            if should_abort() {
                return false;
            }
            futex::wait(&cell.done, done, NAP);
        }
    }

    /// Client: the next callback, in order of posting; `None` when none came within `timeout`. One thread
    /// takes.
    pub fn next(&self, timeout: Duration) -> Option<Callback> {
        let number = self.taken.load(Ordering::Relaxed).wrapping_add(1);
        let cell = self.cell(number);
        let start = Instant::now();
        loop {
            let bell = self.area.doorbell.load(Ordering::Acquire);
            // SYNC: callback-post.
            if cell.posted.load(Ordering::Acquire) == number {
                self.taken.store(number, Ordering::Relaxed);
                let (id, status) = (cell.id.load(Ordering::Relaxed), cell.status.load(Ordering::Relaxed));
                return Some(Callback { number, id, status });
            }
            let left = timeout.saturating_sub(start.elapsed());
            if left.is_zero() {
                return None;
            }
            futex::wait(&self.area.doorbell, bell, left);
        }
    }

    /// Client: the function has returned.
    pub fn finish(&self, callback: Callback) {
        let cell = self.cell(callback.number);
        // SYNC: callback-done. What the function did is visible to whoever sees the number.
        cell.done.store(callback.number, Ordering::Release);
        futex::wake_all(&cell.done);
    }

    /// Marks every cell as finished for a queue whose first callback will be `start` + 1. Numbers wrap; the
    /// count of cells divides 2^32, so each number keeps its cell.
    pub(super) fn prepare(&self, start: u32) {
        self.posted.store(start, Ordering::Relaxed);
        self.taken.store(start, Ordering::Relaxed);
        for ahead in 1..=CALLBACK_CELLS as u32 {
            let number = start.wrapping_add(ahead);
            self.cell(number).done.store(number.wrapping_sub(CALLBACK_CELLS as u32), Ordering::Relaxed);
        }
    }

    fn cell(&self, number: u32) -> &'a CallbackCell {
        &self.area.cells[number as usize % CALLBACK_CELLS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pages::SessionPages;

    #[test]
    fn numbers_wrap_without_losing_a_callback() {
        let (pages, _fd) = SessionPages::create().unwrap();
        let queue = pages.callbacks();
        queue.prepare(u32::MAX - 300);
        for id in 0..1000 {
            let number = queue.post(id, 0, || true).expect("the cell is free");
            let callback = queue.next(Duration::ZERO).expect("posted just before");
            assert_eq!((callback.id, callback.number), (id, number));
            queue.finish(callback);
            assert!(queue.wait(number, || true));
        }
    }
}
