//! Free pieces of a range of addresses, merged where they touch, handed out best fit.
//!
//! Two ordered views of the same pieces: by address (merging) and by size (choice). Invariant: pieces are not empty, do not
//! touch each other, and both views hold the same pieces.

use std::collections::{BTreeMap, BTreeSet};

/// The free part of `[base, base + bytes)`.
#[derive(Debug)]
pub struct Ranges {
    base: u64,
    bytes: u64,
    by_address: BTreeMap<u64, u64>,
    by_size: BTreeSet<(u64, u64)>,
    free_bytes: u64,
}

impl Ranges {
    /// All of `[base, base + bytes)` free; `base + bytes` must not overflow.
    pub fn new(base: u64, bytes: u64) -> Self {
        let mut ranges =
            Self { base, bytes, by_address: BTreeMap::new(), by_size: BTreeSet::new(), free_bytes: 0 };
        ranges.put(base, bytes);
        ranges
    }

    /// Whether nothing is handed out.
    pub fn is_unused(&self) -> bool {
        self.free_bytes == self.bytes
    }

    /// Takes `bytes` bytes at a multiple of `align` (a power of two) from the smallest piece that has room.
    pub fn allocate(&mut self, bytes: u64, align: u64) -> Option<u64> {
        if bytes == 0 {
            return None;
        }
        let fit = self.by_size.range((bytes, 0)..).find_map(|&(length, start)| {
            let address = start.checked_next_multiple_of(align)?;
            (address - start <= length - bytes).then_some((start, length, address))
        });
        let (start, length, address) = fit?;
        self.carve(start, length, address, bytes);
        Some(address)
    }

    /// Takes exactly `[address, address + bytes)`; false when part of it is not free.
    pub fn allocate_at(&mut self, address: u64, bytes: u64) -> bool {
        let Some((&start, &length)) = self.by_address.range(..=address).next_back() else { return false };
        let offset = address - start;
        if bytes == 0 || offset >= length || length - offset < bytes {
            return false;
        }
        self.carve(start, length, address, bytes);
        true
    }

    /// Gives `[address, address + bytes)` back. Ignored when it is empty, outside, or partly free already: a caller's mistake must
    /// not let two allocations overlap.
    pub fn free(&mut self, address: u64, bytes: u64) {
        let inside = address >= self.base && bytes <= self.bytes && address - self.base <= self.bytes - bytes;
        if bytes == 0 || !inside {
            return;
        }
        let end = address + bytes;
        let before = self.by_address.range(..end).next_back().map(|(&start, &length)| (start, length));
        let (mut start, mut stop) = (address, end);
        if let Some((left, length)) = before {
            if left + length > address {
                return;
            }
            if left + length == address {
                self.take(left, length);
                start = left;
            }
        }
        if let Some(&length) = self.by_address.get(&end) {
            self.take(end, length);
            stop = end + length;
        }
        self.put(start, stop - start);
    }

    fn carve(&mut self, start: u64, length: u64, address: u64, bytes: u64) {
        self.take(start, length);
        self.put(start, address - start);
        self.put(address + bytes, start + length - (address + bytes));
    }

    fn put(&mut self, start: u64, length: u64) {
        if length > 0 {
            self.by_address.insert(start, length);
            self.by_size.insert((length, start));
            self.free_bytes += length;
        }
    }

    fn take(&mut self, start: u64, length: u64) {
        self.by_address.remove(&start);
        self.by_size.remove(&(length, start));
        self.free_bytes -= length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: u64 = 0x3000_0000_0000;

    /// A byte map of 64 units against which every step is compared.
    #[test]
    fn agrees_with_a_unit_map() {
        const UNITS: u64 = 64;
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = move |below: u64| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed % below
        };
        for _ in 0..50 {
            let mut ranges = Ranges::new(BASE, UNITS);
            let mut used = [false; UNITS as usize];
            let mut held: Vec<(u64, u64)> = Vec::new();
            for _ in 0..400 {
                if random(2) == 0 || held.is_empty() {
                    let bytes = 1 + random(12);
                    let align = 1 << random(4);
                    let got = ranges.allocate(bytes, align);
                    let possible = (0..=UNITS - bytes)
                        .any(|at| at % align == 0 && (at..at + bytes).all(|unit| !used[unit as usize]));
                    assert_eq!(got.is_some(), possible);
                    if let Some(address) = got {
                        assert_eq!(address % align, 0);
                        for unit in address - BASE..address - BASE + bytes {
                            assert!(!used[unit as usize], "two allocations share unit {unit}");
                            used[unit as usize] = true;
                        }
                        held.push((address, bytes));
                    }
                } else {
                    let (address, bytes) = held.swap_remove(random(held.len() as u64) as usize);
                    ranges.free(address, bytes);
                    used[(address - BASE) as usize..(address - BASE + bytes) as usize].fill(false);
                }
                assert_eq!(ranges.free_bytes, used.iter().filter(|used| !**used).count() as u64);
            }
            for (address, bytes) in held {
                ranges.free(address, bytes);
            }
            assert!(ranges.is_unused());
            assert_eq!(ranges.by_address.len(), 1, "free neighbours are merged");
        }
    }

    #[test]
    fn exact_places_and_wrong_frees() {
        let mut ranges = Ranges::new(BASE, 100);
        assert!(ranges.allocate_at(BASE + 10, 20));
        assert!(!ranges.allocate_at(BASE + 29, 2), "partly taken");
        assert!(!ranges.allocate_at(BASE + 90, 11), "reaches beyond the end");
        assert!(!ranges.allocate_at(BASE - 1, 1));
        ranges.free(BASE + 5, 10);
        ranges.free(BASE + 200, 10);
        ranges.free(u64::MAX, 2);
        assert_eq!(ranges.free_bytes, 80, "frees of free or foreign ranges change nothing");
        ranges.free(BASE + 10, 20);
        assert!(ranges.is_unused());
        assert_eq!(ranges.allocate(0, 1), None);
        assert_eq!(ranges.allocate(101, 1), None);
        assert_eq!(ranges.allocate(u64::MAX, 1), None);
    }
}
