//! Which bytes of device memory have been written since they were allocated: one bit a byte, in pages that the host
//! provides when they are first set.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// One allocation.
#[derive(Debug)]
pub struct Region {
    pub start: u64,
    /// Bytes that were asked for.
    pub bytes: u64,
    /// 64 bytes of memory a word.
    bits: Box<[AtomicU64]>,
}

impl Region {
    fn new(start: u64, bytes: u64) -> Region {
        // Zeroed by the allocator, so that untouched words cost address space alone.
        let words = Box::into_raw(vec![0u64; bytes.div_ceil(64) as usize].into_boxed_slice());
        // SAFETY: AtomicU64 has the size, alignment and bit patterns of u64, and the box was just given up.
        let bits = unsafe { Box::from_raw(words as *mut [AtomicU64]) };
        Region { start, bytes, bits }
    }

    /// True where the whole range lies in this allocation.
    pub fn holds(&self, address: u64, bytes: u64) -> bool {
        address >= self.start
            && address - self.start < self.bytes
            && self.bytes - (address - self.start) >= bytes
    }

    /// The words that hold the bits of `[from, to)`, relative to the start, and the bits that count in each.
    fn words(&self, from: u64, to: u64) -> impl Iterator<Item = (&AtomicU64, u64)> {
        (from / 64..to.div_ceil(64)).map(move |word| {
            let low = from.saturating_sub(word * 64);
            let high = (to - word * 64).min(64);
            (&self.bits[word as usize], u64::MAX << low & u64::MAX >> (64 - high))
        })
    }

    /// Notes that the range, which lies in this allocation, has been written.
    pub fn mark(&self, address: u64, bytes: u64) {
        if bytes == 0 {
            return;
        }
        for (word, mask) in self.words(address - self.start, address - self.start + bytes) {
            if word.load(Ordering::Relaxed) & mask != mask {
                word.fetch_or(mask, Ordering::Relaxed);
            }
        }
    }

    /// True where no byte of the range, which lies in this allocation, has been written.
    pub fn is_fresh(&self, address: u64, bytes: u64) -> bool {
        let from = address - self.start;
        bytes > 0
            && self.words(from, from + bytes).all(|(word, mask)| word.load(Ordering::Relaxed) & mask == 0)
    }
}

type Map = BTreeMap<u64, Arc<Region>>;

/// All allocations that are followed.
#[derive(Debug, Default)]
pub struct Written {
    regions: RwLock<Map>,
    epoch: AtomicU64,
}

impl Written {
    /// Enters an allocation of which nothing has been written.
    pub fn allocate(&self, start: u64, bytes: u64) {
        self.write().insert(start, Arc::new(Region::new(start, bytes)));
        self.epoch.fetch_add(1, Ordering::Release);
    }

    /// Forgets the allocation that starts there, if it is one.
    pub fn forget(&self, start: u64) {
        if self.write().remove(&start).is_some() {
            self.epoch.fetch_add(1, Ordering::Release);
        }
    }

    /// Notes that a range has been written, whatever it covers.
    pub fn mark(&self, address: u64, bytes: u64) {
        let end = address.saturating_add(bytes);
        let regions = self.read();
        let first = regions.range(..=address).next_back().map_or(address, |(start, _)| *start);
        for region in regions.range(first..end.max(first)).map(|(_, region)| region) {
            let from = address.max(region.start);
            let to = end.min(region.start + region.bytes);
            if from < to {
                region.mark(from, to - from);
            }
        }
    }

    /// The allocation that contains the address.
    pub fn find(&self, address: u64) -> Option<Arc<Region>> {
        let regions = self.read();
        let (_, region) = regions.range(..=address).next_back()?;
        region.holds(address, 1).then(|| region.clone())
    }

    /// Changes whenever an allocation comes or goes.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    fn read(&self) -> RwLockReadGuard<'_, Map> {
        self.regions.read().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn write(&self) -> RwLockWriteGuard<'_, Map> {
        self.regions.write().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::Written;

    #[test]
    fn bytes_are_followed_one_by_one_across_words() {
        let memory = Written::default();
        memory.allocate(4096, 200);
        let region = memory.find(4195).unwrap();
        assert!(region.is_fresh(4096, 200));
        memory.mark(4159, 66);
        assert!(region.is_fresh(4096, 63) && region.is_fresh(4225, 71));
        for byte in 4159..4225 {
            assert!(!region.is_fresh(byte, 1), "{byte}");
        }
        assert!(!region.is_fresh(4158, 2) && !region.is_fresh(4224, 2));
        assert!(region.holds(4295, 1) && !region.holds(4295, 2) && !region.holds(4095, 1));
    }

    #[test]
    fn a_write_may_cover_several_allocations_and_what_lies_between() {
        let memory = Written::default();
        memory.allocate(1024, 64);
        memory.allocate(2048, 64);
        memory.mark(1056, 1056);
        let (first, second) = (memory.find(1024).unwrap(), memory.find(2048).unwrap());
        assert!(first.is_fresh(1024, 32) && !first.is_fresh(1056, 1) && !first.is_fresh(1087, 1));
        assert!(!second.is_fresh(2048, 1) && !second.is_fresh(2111, 1));
        memory.mark(0, 5000);
        assert!(!first.is_fresh(1024, 1));
        memory.forget(1024);
        assert!(memory.find(1024).is_none());
        memory.allocate(1024, 64);
        assert!(memory.find(1024).unwrap().is_fresh(1024, 64));
        memory.mark(u64::MAX - 4, 100);
    }
}
