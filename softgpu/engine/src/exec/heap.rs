//! The device heap behind `malloc` and `free` in device code: first fit over one arena per program.

use std::collections::BTreeMap;
use std::sync::Mutex;

const ALIGN: u64 = 16;
/// The default of `CU_LIMIT_MALLOC_HEAP_SIZE`.
pub const HEAP_BYTES: u64 = 8 << 20;

/// An arena of device memory. Threads: any; one lock.
#[derive(Debug, Default)]
pub struct Heap {
    blocks: Mutex<Blocks>,
}

#[derive(Debug, Default)]
struct Blocks {
    /// Start to length.
    free: BTreeMap<u64, u64>,
    used: BTreeMap<u64, u64>,
}

impl Heap {
    /// A heap over `bytes` bytes at `start`.
    pub fn new(start: u64, bytes: u64) -> Heap {
        let free = BTreeMap::from([(start, bytes)]);
        Heap { blocks: Mutex::new(Blocks { free, used: BTreeMap::new() }) }
    }

    /// Address of `bytes` fresh bytes, aligned to 16.
    pub fn allocate(&self, bytes: u64) -> Option<u64> {
        let bytes = bytes.max(1).checked_next_multiple_of(ALIGN)?;
        let mut blocks = self.blocks.lock().unwrap_or_else(|e| e.into_inner());
        let (&start, &length) = blocks.free.iter().find(|(_, length)| **length >= bytes)?;
        blocks.free.remove(&start);
        if length > bytes {
            blocks.free.insert(start + bytes, length - bytes);
        }
        blocks.used.insert(start, bytes);
        Some(start)
    }

    /// Gives a block back and merges it with free neighbours. Anything else than an allocated block is ignored.
    pub fn free(&self, address: u64) {
        let mut blocks = self.blocks.lock().unwrap_or_else(|e| e.into_inner());
        let Some(mut length) = blocks.used.remove(&address) else { return };
        let mut start = address;
        if let Some(behind) = blocks.free.remove(&(start + length)) {
            length += behind;
        }
        let before = blocks.free.range(..start).next_back().map(|(&s, &l)| (s, l));
        if let Some((before, before_length)) = before
            && before + before_length == start
        {
            start = before;
            length += before_length;
        }
        blocks.free.insert(start, length);
    }
}

#[cfg(test)]
mod tests {
    use super::Heap;

    #[test]
    fn freed_neighbours_become_one_block() {
        let heap = Heap::new(4096, 64);
        let blocks: Vec<_> = (0..4).map(|_| heap.allocate(16)).collect();
        assert_eq!(blocks, [4096, 4112, 4128, 4144].map(Some));
        assert_eq!(heap.allocate(1), None);
        for block in [1, 3, 0, 2] {
            heap.free(4096 + block * 16);
        }
        heap.free(4096);
        assert_eq!(heap.allocate(64), Some(4096));
    }
}
