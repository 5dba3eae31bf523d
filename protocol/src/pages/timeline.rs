//! Timeline words: the device stores a value when a stream reaches a point, the client polls it.
//!
//! The area is page-aligned so that the executor can register it with the driver (cuMemHostRegister) and
//! have streams write it with cuStreamWriteValue32. Values of one slot grow by wrapping; "reached" compares
//! by wrapping difference.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::layout::TIMELINE_SLOTS;

/// Waits shorter than this are polled without giving up the processor.
const SPIN: Duration = Duration::from_micros(50);
/// Waits shorter than this give it up between polls, longer ones sleep.
const YIELD: Duration = Duration::from_millis(4);
/// Pause of a long wait.
const PAUSE: Duration = Duration::from_micros(50);

/// Typed access to the timeline.
#[derive(Debug, Clone, Copy)]
pub struct Timeline<'a> {
    words: &'a [AtomicU32; TIMELINE_SLOTS],
    address: u64,
}

impl<'a> Timeline<'a> {
    pub(super) const fn new(words: &'a [AtomicU32; TIMELINE_SLOTS], address: u64) -> Self {
        Self { words, address }
    }

    /// Address of the whole area in this process, for registration. It is a multiple of the page size.
    pub const fn address(&self) -> u64 {
        self.address
    }

    /// Size of the area in bytes.
    pub const fn bytes(&self) -> usize {
        size_of::<[AtomicU32; TIMELINE_SLOTS]>()
    }

    /// Whether a record may name this slot: it exists and is not 0.
    pub const fn is_slot(slot: u32) -> bool {
        slot != 0 && (slot as usize) < TIMELINE_SLOTS
    }

    /// Address of a slot's word in this process; `None` for slot 0 and beyond the end.
    pub fn slot_address(&self, slot: u32) -> Option<u64> {
        Self::is_slot(slot).then(|| self.address + u64::from(slot) * size_of::<AtomicU32>() as u64)
    }

    /// The value of a slot; what the device wrote before it is visible after. 0 for a slot that does not exist.
    pub fn load(&self, slot: u32) -> u32 {
        // SYNC: timeline. The device's write carries the completion; Acquire keeps later loads behind it.
        self.words.get(slot as usize).map_or(0, |word| word.load(Ordering::Acquire))
    }

    /// Writes a slot from the processor: to prepare it, or to release waiters of a dead session. Ignores a
    /// slot that does not exist.
    pub fn store(&self, slot: u32, value: u32) {
        if let Some(word) = self.words.get(slot as usize) {
            word.store(value, Ordering::Release);
        }
    }

    /// Whether the slot's value is `value` or later.
    pub fn reached(&self, slot: u32, value: u32) -> bool {
        self.load(slot).wrapping_sub(value) <= i32::MAX as u32
    }

    /// Polls until `value` is reached (true) or `should_abort` says to give up (false). It is asked after
    /// the first 50 us and then between polls, so it should cost about as much as a load.
    pub fn wait(&self, slot: u32, value: u32, should_abort: impl Fn() -> bool) -> bool {
        if self.reached(slot, value) {
            return true;
        }
        let start = Instant::now();
        loop {
            for _ in 0..64 {
                if self.reached(slot, value) {
                    return true;
                }
                std::hint::spin_loop();
            }
            let waited = start.elapsed();
            if waited < SPIN {
                continue;
            }
            if should_abort() {
                return self.reached(slot, value);
            }
            if waited < YIELD {
                std::thread::yield_now();
            } else {
                std::thread::sleep(PAUSE);
            }
        }
    }
}
