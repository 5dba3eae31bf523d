//! Which allocation of the program an address belongs to.
//!
//! Every range that the device can reach through LightOS is here: device memory, mappings of the program's own virtual memory
//! management, module globals, pinned host memory. Readers take a shared lock for one tree look-up; only calls that allocate or
//! free write. Launches never look here.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// What kind of memory a range is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// cuMemAlloc.
    Device,
    /// cuMemAllocAsync, from the pool with this handle.
    Pooled {
        /// `CUmemoryPool`.
        pool: u64,
    },
    /// Memory of a graph's allocating node, whether or not a launch has allocated it.
    OfGraph,
    /// cuMemMap of the allocation with this number (see `ops::vmm`).
    Mapping {
        /// Number of the physical allocation.
        allocation: u64,
        /// Whether that is memory of the host.
        host: bool,
    },
    /// cuIpcOpenMemHandle: another process's allocation.
    Imported,
    /// A variable of this `CUmodule` or `CUlibrary`. Its address was chosen by the executor's driver.
    Global {
        /// `CUmodule` or `CUlibrary`.
        module: u64,
    },
    /// cuMemAllocManaged: pinned memory of the host, shared as that of cuMemHostAlloc is.
    Managed,
    /// cuMemHostAlloc with these flags: shared with the executor at the same address.
    Host {
        /// `CU_MEMHOSTALLOC_*`.
        flags: u32,
    },
    /// The program's own memory, registered by cuMemHostRegister with these flags.
    Registered {
        /// `CU_MEMHOSTREGISTER_*`.
        flags: u32,
    },
    /// As `Registered`, but the executor does not have its pages: copies only, through other memory.
    Staged {
        /// `CU_MEMHOSTREGISTER_*`.
        flags: u32,
    },
}

impl Kind {
    /// Whether the executor has the memory as that of its device: in the device arena, or a global.
    pub fn is_device(self) -> bool {
        !matches!(self, Self::Managed | Self::Host { .. } | Self::Registered { .. } | Self::Staged { .. })
    }
}

/// One allocation as the program knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allocation {
    /// First address.
    pub base: u64,
    /// Size in bytes that the program asked for.
    pub bytes: u64,
    /// What it is.
    pub kind: Kind,
    /// The `CUcontext` with whose end it ends; 0 for memory that belongs to none.
    pub context: u64,
    /// `CU_POINTER_ATTRIBUTE_BUFFER_ID`: never used twice in one process.
    pub id: u64,
}

impl Allocation {
    /// Bytes from `address` to the end of the allocation; 0 when the address is not inside.
    pub fn room(&self, address: u64) -> u64 {
        address.checked_sub(self.base).map_or(0, |offset| self.bytes.saturating_sub(offset))
    }
}

/// All live allocations by first address. Ranges never overlap.
#[derive(Debug)]
pub struct Live {
    ranges: RwLock<BTreeMap<u64, Allocation>>,
    next_id: AtomicU64,
}

impl Live {
    /// No allocation.
    pub const fn new() -> Self {
        Self { ranges: RwLock::new(BTreeMap::new()), next_id: AtomicU64::new(1) }
    }

    /// Adds a range that belongs to no context. One that starts at the same address is replaced.
    pub fn insert(&self, base: u64, bytes: u64, kind: Kind) {
        self.insert_in(base, bytes, kind, 0);
    }

    /// As [`Live::insert`], for memory of a context.
    pub fn insert_in(&self, base: u64, bytes: u64, kind: Kind, context: u64) {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        self.write().insert(base, Allocation { base, bytes, kind, context, id });
    }

    /// Removes the range that starts at `base`, if `matches` accepts it: of two threads that free one address, one wins.
    pub fn remove(&self, base: u64, matches: impl Fn(Kind) -> bool) -> Option<Allocation> {
        let mut ranges = self.write();
        let found = *ranges.get(&base).filter(|allocation| matches(allocation.kind))?;
        ranges.remove(&base);
        Some(found)
    }

    /// Removes every range that `matches` accepts, and returns them.
    pub fn remove_all(&self, matches: impl Fn(&Allocation) -> bool) -> Vec<Allocation> {
        self.write().extract_if(.., |_, allocation| matches(allocation)).map(|(_, found)| found).collect()
    }

    /// The range that `address` lies in.
    pub fn find(&self, address: u64) -> Option<Allocation> {
        let ranges = self.read();
        let (_, allocation) = ranges.range(..=address).next_back()?;
        (allocation.room(address) > 0).then_some(*allocation)
    }

    /// The range that holds all of `[address, address + bytes)`. Neighbouring mappings of the program's own virtual memory count as
    /// one; the first is returned.
    pub fn covering(&self, address: u64, bytes: u64) -> Option<Allocation> {
        let ranges = self.read();
        let (_, first) = ranges.range(..=address).next_back()?;
        let mut room = first.room(address);
        if room == 0 {
            return None;
        }
        while room < bytes {
            let next = ranges.get(&address.checked_add(room)?)?;
            if !matches!((first.kind, next.kind), (Kind::Mapping { .. }, Kind::Mapping { .. })) {
                return None;
            }
            room += next.bytes;
        }
        Some(*first)
    }

    /// Every range that starts inside `[address, address + bytes)`, in order.
    pub fn starting_in(&self, address: u64, bytes: u64) -> Vec<Allocation> {
        let end = address.saturating_add(bytes);
        self.read().range(address..end).map(|(_, allocation)| *allocation).collect()
    }

    // A panic cannot leave the tree half changed, so a poisoned lock is as good as any.
    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<u64, Allocation>> {
        self.ranges.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<u64, Allocation>> {
        self.ranges.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_find_their_allocation() {
        let live = Live::new();
        live.insert(0x1000, 0x100, Kind::Device);
        live.insert(0x1200, 0x100, Kind::Host { flags: 0 });
        assert_eq!(live.find(0x1000).map(|found| found.base), Some(0x1000));
        assert_eq!(live.find(0x10ff).map(|found| found.base), Some(0x1000));
        assert_eq!(live.find(0x1100), None);
        assert_eq!(live.find(0xfff), None);
        assert!(live.covering(0x1010, 0xf0).is_some());
        assert!(live.covering(0x1010, 0xf1).is_none());
        assert!(live.covering(0x1010, u64::MAX).is_none());
        assert_ne!(live.find(0x1000).map(|found| found.id), live.find(0x1200).map(|found| found.id));
    }

    #[test]
    fn neighbours_count_as_one_only_where_the_program_mapped_them() {
        let live = Live::new();
        live.insert(0x1000, 0x100, Kind::Device);
        live.insert(0x1100, 0x100, Kind::Device);
        assert!(live.covering(0x10f0, 0x20).is_none());
        live.insert(0x2000, 0x100, Kind::Mapping { allocation: 1, host: false });
        live.insert(0x2100, 0x100, Kind::Mapping { allocation: 2, host: false });
        assert!(live.covering(0x20f0, 0x20).is_some());
        assert!(live.covering(0x20f0, 0x111).is_none());
        assert_eq!(live.starting_in(0x2000, 0x200).len(), 2);
    }

    #[test]
    fn memory_ends_with_its_context() {
        let live = Live::new();
        live.insert_in(0x1000, 0x100, Kind::Device, 7);
        live.insert_in(0x2000, 0x100, Kind::Host { flags: 0 }, 8);
        live.insert(0x3000, 0x100, Kind::Mapping { allocation: 1, host: false });
        let ended = live.remove_all(|allocation| allocation.context == 7);
        assert_eq!(ended.iter().map(|allocation| allocation.base).collect::<Vec<_>>(), [0x1000]);
        assert!(live.find(0x1000).is_none() && live.find(0x2000).is_some() && live.find(0x3000).is_some());
    }

    #[test]
    fn one_free_wins() {
        let live = Live::new();
        live.insert(0x1000, 1, Kind::Device);
        assert!(live.remove(0x1000, |kind| !kind.is_device()).is_none(), "wrong kind");
        assert!(live.remove(0x1000, Kind::is_device).is_some());
        assert!(live.remove(0x1000, Kind::is_device).is_none());
    }
}
