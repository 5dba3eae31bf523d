//! Timeline words: who may use which.
//!
//! A slot belongs to one stream or event at a time. Its values only grow, across owners too, so that "reached" is one wrapping
//! compare; two rules keep it so: the writes of one slot are ordered (one stream at a time), and a slot is released only once
//! its last value was reached.

use lightos_protocol::pages::TIMELINE_SLOTS;
use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU32, Ordering::Relaxed},
};

/// The free timeline words of a session. Slots are taken on cold calls (creation of streams and events); values are taken
/// without a lock.
#[derive(Debug)]
pub struct TimelineSlots {
    /// Released slots, and the lowest slot never used.
    free: Mutex<(Vec<u32>, u32)>,
    /// Last value given out, by slot.
    values: Box<[AtomicU32]>,
}

impl TimelineSlots {
    pub fn new() -> Self {
        // Slot 0 means "none" in records.
        Self {
            free: Mutex::new((Vec::new(), 1)),
            values: (0..TIMELINE_SLOTS).map(|_| AtomicU32::new(0)).collect(),
        }
    }

    /// A free slot, or `None` when all are taken.
    pub fn allocate(&self) -> Option<u32> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let (released, unused) = &mut *free;
        released.pop().or_else(|| {
            let slot = *unused;
            ((slot as usize) < self.values.len()).then(|| {
                *unused += 1;
                slot
            })
        })
    }

    /// Gives a slot back whose last value was reached.
    pub fn release(&self, slot: u32) {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).0.push(slot);
    }

    /// The next value of a slot: put it into a record, then wait for it.
    pub fn next_value(&self, slot: u32) -> u32 {
        match self.values.get(slot as usize) {
            Some(value) => value.fetch_add(1, Relaxed).wrapping_add(1),
            None => 0,
        }
    }

    /// The last value that [`TimelineSlots::next_value`] gave.
    pub fn last_value(&self, slot: u32) -> u32 {
        self.values.get(slot as usize).map_or(0, |value| value.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_distinct_until_released_and_values_survive_their_owner() {
        let slots = TimelineSlots::new();
        let (a, b) = (slots.allocate().unwrap(), slots.allocate().unwrap());
        assert!(a != b && a != 0 && b != 0);
        assert_eq!((slots.next_value(a), slots.next_value(a), slots.last_value(a)), (1, 2, 2));
        slots.release(a);
        assert_eq!(slots.allocate(), Some(a));
        assert_eq!(slots.next_value(a), 3);
    }

    #[test]
    fn exhaustion_is_an_answer() {
        let slots = TimelineSlots::new();
        let taken = std::iter::from_fn(|| slots.allocate()).count();
        assert_eq!(taken, TIMELINE_SLOTS - 1);
        assert_eq!(slots.allocate(), None);
    }
}
