//! The atomics of the ring, real or loom's. Nothing else in `ring` names an atomic type by another path.

#[cfg(not(loom))]
pub use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

#[cfg(loom)]
pub use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// Lets another thread run; under loom this is what makes a polling loop finite.
#[cfg(loom)]
pub fn yield_now() {
    loom::thread::yield_now();
}

/// Lets another thread run.
#[cfg(not(loom))]
pub fn yield_now() {
    std::thread::yield_now();
}
