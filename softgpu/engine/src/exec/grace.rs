//! Grace periods: memory goes away only when no warp can still be using an address that it looked up before.
//!
//! A warp resolves its addresses at every access and holds no host address beyond one instruction, so a turn (some
//! thousand instructions) that starts after a range was removed cannot touch it. Whoever takes memory from the program
//! first removes its range, then waits in [`quiesce`] until every turn that was running has ended, then unmaps.
//!
//! Threads: each thread that runs blocks owns one counter, odd while it is inside a turn and written by it alone.
//!
//! SYNC: a worker writes its counter, fences, then loads the memory's epoch; the remover bumps the epoch, fences, then
//! loads the counters. Of the two loads at least one sees the other's write, so either the worker's turn sees the new
//! epoch or the remover waits for the end of that turn.

use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

static COUNTERS: Mutex<Vec<Arc<AtomicU64>>> = Mutex::new(Vec::new());

fn counters() -> MutexGuard<'static, Vec<Arc<AtomicU64>>> {
    COUNTERS.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// A thread's entry in the table, for as long as the thread lives.
struct Registration(Arc<AtomicU64>);

impl Registration {
    fn new() -> Registration {
        let counter = Arc::new(AtomicU64::new(0));
        counters().push(counter.clone());
        Registration(counter)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        counters().retain(|counter| !Arc::ptr_eq(counter, &self.0));
    }
}

thread_local! {
    static OWN: Registration = Registration::new();
}

/// Runs `turn`, during which [`quiesce`] on other threads waits.
#[inline]
pub fn during<T>(turn: impl FnOnce() -> T) -> T {
    let mut turn = Some(turn);
    let mut run = |own: &Registration| turn.take().map(|turn| counted(&own.0, turn));
    // Exit handlers run after the thread's objects are gone.
    let done = OWN.try_with(&mut run).unwrap_or_else(|_| run(&Registration::new()));
    done.expect("a turn is taken once")
}

#[inline]
fn counted<T>(counter: &AtomicU64, turn: impl FnOnce() -> T) -> T {
    let before = counter.load(Ordering::Relaxed);
    // A turn within a turn of the same thread belongs to the outer one.
    if before & 1 != 0 {
        return turn();
    }
    let _end = End { counter, after: before + 2 };
    counter.store(before + 1, Ordering::Relaxed);
    fence(Ordering::SeqCst);
    turn()
}

/// Ends a turn, also one that panics.
struct End<'a> {
    counter: &'a AtomicU64,
    after: u64,
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.counter.store(self.after, Ordering::Release);
    }
}

/// Waits until every turn that runs now on another thread has ended. True if that came within `patience`.
///
/// Call it after the range has left the [`super::Memory`] (and its epoch has changed), before the pages go away, and
/// with no lock held that [`super::Memory::range`] or [`super::Environment::print`] takes.
#[must_use = "memory must stay where a warp may still use it"]
pub fn quiesce(patience: Duration) -> bool {
    fence(Ordering::SeqCst);
    let own = OWN.try_with(|own| own.0.clone()).ok();
    let is_other = |counter: &&Arc<AtomicU64>| own.as_ref().is_none_or(|own| !Arc::ptr_eq(own, counter));
    let in_turn = |counter: &Arc<AtomicU64>| {
        let seen = counter.load(Ordering::Acquire);
        (seen & 1 != 0).then(|| (counter.clone(), seen))
    };
    let running: Vec<_> = counters().iter().filter(is_other).filter_map(in_turn).collect();
    let mut deadline = None;
    for (counter, seen) in running {
        while counter.load(Ordering::Acquire) == seen {
            if Instant::now() > *deadline.get_or_insert_with(|| Instant::now() + patience) {
                return false;
            }
            std::thread::yield_now();
        }
    }
    true
}
