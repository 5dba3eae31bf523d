//! The address space: which ranges of this process device code may touch, and what each one is.
//!
//! A device address is a host virtual address. Every allocation, registration and accessible mapping is one [`Range`]; ranges
//! do not overlap. Kernels, copies and pointer queries all ask here.
//!
//! SYNC: `epoch` is bumped under the write lock, so a reader that sees an old epoch still holds a range that was valid then.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

use lightos_softgpu_engine::exec::Memory;
use lightos_softgpu_engine::exec::image::{Surface, Texture};

use crate::check;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::texture;

/// Where a pool's memory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Device,
    /// Pinned memory of the host, on any of its NUMA nodes.
    Host,
    Managed,
}

/// What a range of memory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// From `cuMemAlloc` and its pitched form.
    Device,
    /// From a memory pool, named by its handle.
    Pool(u64, Place),
    /// From a memory allocation node of a graph.
    Graph,
    /// From `cuMemAllocManaged`.
    Managed,
    /// Device memory of another process, from `cuIpcOpenMemHandle`.
    Imported,
    /// From `cuMemHostAlloc` or `cuMemAllocHost`, with the flags of the call.
    Host(u32),
    /// From `cuMemHostRegister`, with the flags of the call.
    Registered(u32),
    /// A mapping made by `cuMemMap`; `host` where the physical memory is the host's.
    Mapped { host: bool },
    /// A module's global variable.
    Global,
    /// The memory of a CUDA array, whose address no program gets.
    Array,
}

impl Kind {
    /// True for memory that migrates between host and device.
    pub fn is_managed(self) -> bool {
        matches!(self, Kind::Managed | Kind::Pool(_, Place::Managed))
    }

    /// True for memory that `CU_POINTER_ATTRIBUTE_MEMORY_TYPE` calls host memory.
    pub fn is_host(self) -> bool {
        matches!(
            self,
            Kind::Host(_) | Kind::Registered(_) | Kind::Mapped { host: true } | Kind::Pool(_, Place::Host)
        )
    }
}

/// One accessible range of addresses.
#[derive(Debug)]
pub struct Range {
    pub start: u64,
    /// The size that was asked for.
    pub bytes: u64,
    /// End of the accessible addresses: `start + bytes` rounded up to the allocation's granularity.
    pub end: u64,
    pub kind: Kind,
    pub device: Device,
    /// Handle of the context that allocated it; 0 for mappings, which belong to no context.
    pub context: u64,
    /// `CU_POINTER_ATTRIBUTE_BUFFER_ID`: unique in this process.
    pub id: u64,
    /// `CU_POINTER_ATTRIBUTE_SYNC_MEMOPS`.
    pub sync_memops: AtomicBool,
    /// A stream-ordered free is queued: the memory is still there for work before it, but it cannot be freed again.
    pub is_freed: AtomicBool,
}

impl Range {
    /// A range with a fresh identifier. `granularity` is a power of two.
    pub fn new(start: u64, bytes: u64, granularity: u64, kind: Kind, device: Device, context: u64) -> Range {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let end = start + bytes.next_multiple_of(granularity);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Range {
            start,
            bytes,
            end,
            kind,
            device,
            context,
            id,
            sync_memops: AtomicBool::new(false),
            is_freed: AtomicBool::new(false),
        }
    }
}

type Map = BTreeMap<u64, Arc<Range>>;

/// All ranges of the process.
#[derive(Debug)]
pub struct Space {
    ranges: RwLock<Map>,
    epoch: AtomicU64,
}

/// The process's address space.
pub static SPACE: Space = Space { ranges: RwLock::new(BTreeMap::new()), epoch: AtomicU64::new(1) };

impl Space {
    /// Enters a range; false where it overlaps another one.
    pub fn insert(&self, range: Range) -> bool {
        let mut ranges = self.write();
        if overlaps(&ranges, range.start, range.end) {
            return false;
        }
        check::entered(&range);
        ranges.insert(range.start, Arc::new(range));
        self.epoch.fetch_add(1, Ordering::Release);
        true
    }

    /// Removes the range that starts exactly there, if `accept` agrees.
    pub fn remove(&self, start: u64, accept: impl FnOnce(&Range) -> bool) -> Option<Arc<Range>> {
        let mut ranges = self.write();
        if !accept(ranges.get(&start)?) {
            return None;
        }
        self.epoch.fetch_add(1, Ordering::Release);
        ranges.remove(&start).inspect(|range| check::left(range))
    }

    /// Removes and returns the ranges for which `which` holds.
    pub fn drain(&self, which: impl Fn(&Range) -> bool) -> Vec<Arc<Range>> {
        let mut ranges = self.write();
        let (out, kept) =
            std::mem::take(&mut *ranges).into_iter().partition::<Map, _>(|(_, range)| which(range));
        *ranges = kept;
        self.epoch.fetch_add(1, Ordering::Release);
        out.into_values().inspect(|range| check::left(range)).collect()
    }

    /// Every range.
    pub fn all(&self) -> Vec<Arc<Range>> {
        self.read().values().cloned().collect()
    }

    /// The range that contains the address.
    pub fn find(&self, address: u64) -> Option<Arc<Range>> {
        containing(&self.read(), address).cloned()
    }

    /// True where every byte of `[address, address + bytes)` is accessible; adjoining ranges count as one.
    pub fn covers(&self, address: u64, bytes: u64) -> bool {
        let ranges = self.read();
        let Some(end) = address.checked_add(bytes) else { return false };
        let mut at = address;
        loop {
            match containing(&ranges, at) {
                Some(range) if range.end >= end => return true,
                Some(range) => at = range.end,
                None => return false,
            }
        }
    }

    /// [`Space::covers`] as a result: hardware answers INVALID_VALUE for an address it does not know.
    pub fn require(&self, address: u64, bytes: u64) -> Result {
        if bytes == 0 || self.covers(address, bytes) { Ok(()) } else { Err(Error::INVALID_VALUE) }
    }

    /// True where any byte of the range is known.
    pub fn overlaps(&self, start: u64, end: u64) -> bool {
        overlaps(&self.read(), start, end)
    }

    fn read(&self) -> RwLockReadGuard<'_, Map> {
        self.ranges.read().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn write(&self) -> RwLockWriteGuard<'_, Map> {
        self.ranges.write().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

fn containing(ranges: &Map, address: u64) -> Option<&Arc<Range>> {
    ranges.range(..=address).next_back().map(|(_, range)| range).filter(|range| address < range.end)
}

fn overlaps(ranges: &Map, start: u64, end: u64) -> bool {
    ranges.range(..end).next_back().is_some_and(|(_, range)| range.end > start)
}

impl Memory for Space {
    fn range(&self, address: u64) -> Option<(u64, u64)> {
        containing(&self.read(), address).map(|range| (range.start, range.end))
    }

    fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    fn texture(&self, handle: u64) -> Option<Arc<Texture>> {
        texture::in_kernel(handle)
    }

    fn surface(&self, handle: u64) -> Option<Arc<Surface>> {
        texture::surface_in_kernel(handle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_adjoin_but_never_overlap() {
        let space = Space { ranges: RwLock::default(), epoch: AtomicU64::new(0) };
        let device = Device::new(0).unwrap();
        let range = |start, bytes| Range::new(start, bytes, 512, Kind::Device, device, 0);
        assert!(space.insert(range(0x1000, 100)));
        assert!(!space.insert(range(0x1100, 1)), "inside the padding of the first");
        assert!(space.insert(range(0x1200, 512)));
        assert!(space.covers(0x1000, 0x400) && !space.covers(0x1000, 0x401));
        assert!(!space.covers(0xfff, 2) && !space.covers(u64::MAX, 2));
        assert_eq!(Memory::range(&space, 0x11ff), Some((0x1000, 0x1200)));
        let before = space.epoch();
        assert!(space.remove(0x1100, |_| true).is_none() && space.remove(0x1000, |_| true).is_some());
        assert!(space.epoch() > before && space.find(0x1000).is_none());
    }
}
