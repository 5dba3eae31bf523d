//! A table from driver handles to what the shim knows about them, read without a lock.
//!
//! Readers are the hot path: one multiplication and, as a rule, one probe. Writers (creation and destruction) take a mutex. What the
//! table hands out lives for ever, and is used again for other handles: its fields are atomic, so a program that uses a handle that
//! it has destroyed finds another object's content, not freed memory.
//!
//! Invariants: a slot's key is written once, after its value; a value goes back to null when the handle ends and may be set again
//! when the driver reuses the handle. An array that filled up with handles that ended is replaced by one of the same size; there are two of
//! them, in turn. `replaced` grows before the one that is not current is written, so a reader that met such a write knows it.
//! A smaller array than the current one is never written again (sizes double, so all of those together are smaller than it).

use std::ptr::null_mut;
use std::sync::atomic::{
    AtomicPtr, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The table; `T` is shared by all threads and lives for ever.
#[derive(Debug)]
pub struct Handles<T: 'static> {
    slots: AtomicPtr<Slots<T>>,
    /// How often the array was replaced.
    replaced: AtomicU64,
    writer: Mutex<Writer<T>>,
    spare: Mutex<Vec<&'static T>>,
}

#[derive(Debug)]
struct Writer<T: 'static> {
    /// Keys in the current array.
    used: usize,
    /// The array before the current one.
    previous: Option<&'static Slots<T>>,
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

    /// The array as it was when it was new. Keys first: a reader that finds one must not find another's value.
    fn clear(&self) {
        self.slots.iter().for_each(|slot| slot.key.store(0, Release));
        self.slots.iter().for_each(|slot| slot.value.store(null_mut(), Release));
    }
}

impl<T: Sync + Default> Handles<T> {
    /// An empty table.
    pub const fn new() -> Self {
        let writer = Writer { used: 0, previous: None };
        Self {
            slots: AtomicPtr::new(null_mut()),
            replaced: AtomicU64::new(0),
            writer: Mutex::new(writer),
            spare: Mutex::new(Vec::new()),
        }
    }

    /// What is known about `handle`.
    #[inline]
    pub fn get(&self, handle: u64) -> Option<&'static T> {
        loop {
            let replaced = self.replaced.load(Acquire);
            let (slot, found) = self.current()?.find(handle);
            let value = slot.value.load(Acquire);
            // SYNC: handle-array. Whoever met a write to an array that is being made new again meets the count that was stored before it.
            if self.replaced.load(Relaxed) == replaced {
                // SAFETY: null, or a `&'static T` stored by `insert`.
                return if found { unsafe { value.as_ref() } } else { None };
            }
        }
    }

    /// Something to fill and to [`insert`](Self::insert): what another handle had, or new.
    pub fn spare(&self) -> &'static T {
        lock(&self.spare).pop().unwrap_or_else(|| Box::leak(Box::default()))
    }

    /// Takes back what no handle means any more.
    pub fn recycle(&self, value: &'static T) {
        lock(&self.spare).push(value);
    }

    /// Makes `value` known under `handle`, which is not 0; replaces what was there.
    pub fn insert(&self, handle: u64, value: &'static T) {
        if handle == 0 {
            return;
        }
        let mut writer = lock(&self.writer);
        let pointer = std::ptr::from_ref(value).cast_mut();
        let slots = self.room(&mut writer);
        let (slot, found) = slots.find(handle);
        slot.value.store(pointer, Release);
        if !found {
            // SYNC: handle-slot.
            slot.key.store(handle, Release);
            writer.used += 1;
        }
    }

    /// Forgets `handle`; returns what was known.
    pub fn remove(&self, handle: u64) -> Option<&'static T> {
        let _writer = lock(&self.writer);
        let (slot, found) = self.current()?.find(handle);
        if !found {
            return None;
        }
        // SAFETY: as in `get`.
        unsafe { slot.value.swap(null_mut(), Acquire).as_ref() }
    }

    /// Forgets all handles that `condition` holds for; returns them with what was known.
    pub fn remove_where(&self, condition: impl Fn(&T) -> bool) -> Vec<(u64, &'static T)> {
        let _writer = lock(&self.writer);
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

    /// The slots, with room for one more.
    fn room(&self, writer: &mut Writer<T>) -> &'static Slots<T> {
        let current = self.current();
        let slots = current.map_or(&[][..], |slots| &slots.slots);
        if let Some(current) = current
            && (writer.used + 1) * 2 <= slots.len()
        {
            return current;
        }
        let entries = slots.iter().map(|slot| (slot.key.load(Acquire), slot.value.load(Acquire)));
        let live: Vec<_> = entries.filter(|(_, value)| !value.is_null()).collect();
        let count = ((live.len() + 1) * 4).next_power_of_two().max(slots.len()).max(64);
        // SYNC: handle-array. Before the first write to the array.
        self.replaced.fetch_add(1, Release);
        let next = match writer.previous.take() {
            Some(previous) if previous.slots.len() == count => {
                previous.clear();
                previous
            }
            _ => Box::leak(Box::new(Slots::new(count))),
        };
        for &(key, value) in &live {
            let (place, _) = next.find(key);
            place.value.store(value, Release);
            place.key.store(key, Release);
        }
        *writer = Writer { used: live.len(), previous: current };
        self.slots.store(std::ptr::from_ref(next).cast_mut(), Release);
        next
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
    fn what_was_given_back_is_used_again() {
        let table = Handles::<AtomicU64>::new();
        let first = table.spare();
        table.insert(8, first);
        let removed = table.remove(8).unwrap();
        table.recycle(removed);
        assert!(std::ptr::eq(table.spare(), first) && !std::ptr::eq(table.spare(), first));
    }

    #[test]
    fn handles_that_come_and_go_need_two_arrays() {
        let table = Handles::new();
        table.insert(8, leaked(8));
        let mut arrays = std::collections::HashSet::new();
        for handle in (16..8 * 10_000).step_by(8) {
            table.insert(handle, leaked(handle));
            assert_eq!(table.remove(handle), Some(&handle));
            arrays.insert(table.slots.load(Acquire).addr());
        }
        assert_eq!((table.get(8), table.get(16), arrays.len()), (Some(&8), None, 2));
        assert!(table.replaced.load(Acquire) > 100);
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
    fn readers_see_complete_entries_while_arrays_are_used_again() {
        static TABLE: Handles<u64> = Handles::new();
        static STOP: AtomicBool = AtomicBool::new(false);
        let values: Vec<_> = (8..8 * 200).step_by(8).map(leaked).collect();
        TABLE.insert(8, values[0]);
        let reader = std::thread::spawn(|| {
            while !STOP.load(Acquire) {
                assert_eq!(TABLE.get(8), Some(&8));
                for handle in (16..8 * 200).step_by(8) {
                    assert!(TABLE.get(handle).is_none_or(|value| *value == handle));
                }
            }
        });
        for value in values[1..].iter().cycle().take(200_000) {
            TABLE.insert(**value, value);
            assert_eq!(TABLE.remove(**value), Some(*value));
        }
        STOP.store(true, Release);
        reader.join().unwrap();
        assert!(TABLE.replaced.load(Acquire) > 1000);
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
