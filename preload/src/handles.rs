//! A table from driver handles to what the shim knows about them, read without a lock.
//!
//! Readers are the hot path: one multiplication and, as a rule, one probe. Writers (creation and destruction) take a mutex. An
//! entry never moves; the array of slots is replaced when it fills, and the old one is left to readers that still look at it
//! (sizes double, so all old ones together are smaller than the current one).
//!
//! Invariant: a slot's key is written once, after its value; a value goes back to null when the handle ends and may be
//! set again when the driver reuses the handle.

use std::ptr::null_mut;
use std::sync::atomic::{
    AtomicPtr, AtomicU64,
    Ordering::{Acquire, Release},
};
use std::sync::{Mutex, PoisonError};

/// The table; `T` is shared by all threads and lives for ever.
#[derive(Debug)]
pub struct Handles<T: 'static> {
    slots: AtomicPtr<Slots<T>>,
    /// Keys in the current array.
    writer: Mutex<usize>,
}

#[derive(Debug)]
struct Slots<T> {
    slots: Box<[Slot<T>]>,
}

#[derive(Debug)]
struct Slot<T> {
    /// 0: never used.
    key: AtomicU64,
    value: AtomicPtr<T>,
}

impl<T> Slots<T> {
    fn new(count: usize) -> Self {
        let slot = |_| Slot { key: AtomicU64::new(0), value: AtomicPtr::new(null_mut()) };
        Self { slots: (0..count).map(slot).collect() }
    }

    /// The slot of `key`, or the empty one where it would go. There is always an empty one.
    ///
    /// 0 is never found: an empty slot may already hold the value that is about to get its key.
    fn find(&self, key: u64) -> (&Slot<T>, bool) {
        let mask = self.slots.len() - 1;
        // Handles are addresses: the product's high bits depend on all of theirs.
        let mut at = (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize & mask;
        loop {
            let slot = &self.slots[at];
            // SYNC: handle-slot. The value was stored before the key.
            match slot.key.load(Acquire) {
                0 => return (slot, false),
                found if found == key => return (slot, true),
                _ => at = (at + 1) & mask,
            }
        }
    }
}

impl<T: Sync> Handles<T> {
    /// An empty table.
    pub const fn new() -> Self {
        Self { slots: AtomicPtr::new(null_mut()), writer: Mutex::new(0) }
    }

    /// What is known about `handle`.
    #[inline]
    pub fn get(&self, handle: u64) -> Option<&'static T> {
        let (slot, found) = self.current()?.find(handle);
        if !found {
            return None;
        }
        // SAFETY: null, or a `&'static T` stored by `insert`.
        unsafe { slot.value.load(Acquire).as_ref() }
    }

    /// Makes `value` known under `handle`, which is not 0; replaces what was there.
    pub fn insert(&self, handle: u64, value: &'static T) {
        if handle == 0 {
            return;
        }
        let mut used = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let pointer = std::ptr::from_ref(value).cast_mut();
        let slots = self.room(&mut used);
        let (slot, found) = slots.find(handle);
        slot.value.store(pointer, Release);
        if !found {
            // SYNC: handle-slot.
            slot.key.store(handle, Release);
            *used += 1;
        }
    }

    /// Forgets `handle`; returns what was known.
    pub fn remove(&self, handle: u64) -> Option<&'static T> {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let (slot, found) = self.current()?.find(handle);
        if !found {
            return None;
        }
        // SAFETY: as in `get`.
        unsafe { slot.value.swap(null_mut(), Acquire).as_ref() }
    }

    /// Forgets all handles that `condition` holds for; returns them with what was known.
    pub fn remove_where(&self, condition: impl Fn(&T) -> bool) -> Vec<(u64, &'static T)> {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut removed = Vec::new();
        for slot in self.current().into_iter().flat_map(|slots| &slots.slots) {
            // SAFETY: as in `get`.
            if let Some(value) = unsafe { slot.value.load(Acquire).as_ref() }
                && condition(value)
            {
                slot.value.store(null_mut(), Release);
                removed.push((slot.key.load(Acquire), value));
            }
        }
        removed
    }

    fn current(&self) -> Option<&'static Slots<T>> {
        let slots: *const Slots<T> = self.slots.load(Acquire);
        // SAFETY: null, or a leaked `Slots` published with Release by `room`.
        unsafe { slots.as_ref() }
    }

    /// The slots, with room for one more. The caller holds the writer's lock.
    fn room(&self, used: &mut usize) -> &'static Slots<T> {
        let current = self.current();
        let slots = current.map_or(&[][..], |slots| &slots.slots);
        if let Some(current) = current
            && (*used + 1) * 2 <= slots.len()
        {
            return current;
        }
        let entries = slots.iter().map(|slot| (slot.key.load(Acquire), slot.value.load(Acquire)));
        let live: Vec<_> = entries.filter(|(_, value)| !value.is_null()).collect();
        let grown: &'static Slots<T> =
            Box::leak(Box::new(Slots::new(((live.len() + 1) * 4).next_power_of_two().max(64))));
        for &(key, value) in &live {
            let (place, _) = grown.find(key);
            place.value.store(value, Release);
            place.key.store(key, Release);
        }
        *used = live.len();
        self.slots.store(std::ptr::from_ref(grown).cast_mut(), Release);
        grown
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    fn leaked(value: u64) -> &'static u64 {
        Box::leak(Box::new(value))
    }

    #[test]
    fn finds_what_was_inserted_through_growth_and_reuse() {
        let table = Handles::new();
        assert_eq!(table.get(8), None);
        for handle in (8..8 * 2000).step_by(8) {
            table.insert(handle, leaked(handle));
        }
        assert!((8..8 * 2000).step_by(8).all(|handle| table.get(handle) == Some(&handle)));
        assert_eq!(table.get(8 * 2000), None);
        assert_eq!(table.remove(16), Some(&16));
        assert_eq!(table.get(16), None);
        assert_eq!(table.remove(16), None);
        table.insert(16, leaked(17));
        assert_eq!(table.get(16), Some(&17));
        table.remove_where(|value| value % 16 == 0);
        assert_eq!((table.get(32), table.get(24), table.get(16)), (None, Some(&24), Some(&17)));
    }

    #[test]
    fn null_is_never_known() {
        let table = Handles::new();
        table.insert(0, leaked(1));
        table.insert(8, leaked(2));
        assert_eq!(table.get(0), None);
        // An insertion between its two stores.
        let value = std::ptr::from_ref(leaked(3)).cast_mut();
        let (slot, _) = table.current().unwrap().find(0);
        slot.value.store(value, Release);
        assert_eq!((table.get(0), table.remove(0)), (None, None));
        assert_eq!(slot.value.load(Acquire), value, "the insertion's value is still there");
    }

    #[test]
    fn readers_see_complete_entries_while_the_table_grows() {
        static TABLE: Handles<u64> = Handles::new();
        static STOP: AtomicBool = AtomicBool::new(false);
        TABLE.insert(8, leaked(8));
        let reader = std::thread::spawn(|| {
            let mut reads = 0u64;
            while !STOP.load(Acquire) {
                assert_eq!(TABLE.get(8), Some(&8));
                for handle in (16..8000).step_by(8) {
                    assert!(TABLE.get(handle).is_none_or(|value| *value == handle));
                }
                reads += 1;
            }
            reads
        });
        for handle in (16..8000).step_by(8) {
            TABLE.insert(handle, leaked(handle));
        }
        STOP.store(true, Release);
        reader.join().unwrap();
    }
}
