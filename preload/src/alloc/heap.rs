//! Device memory for the program, cut from slabs.
//!
//! Creating device memory costs a round trip to the executor and an import (hundreds of microseconds), so small allocations share
//! slabs. A slab begins at 2 MiB and later ones double up to 32 MiB, so that a small program stays small. Large allocations get a slab
//! each. Empty slabs are kept up to [`CACHE_BYTES`] and given back before the program is told that memory is out.

use std::collections::BTreeMap;

use lightos_protocol::arena::{DEVICE_PAGE_BYTES, device_pages};

use super::ranges::Ranges;
use crate::result::CuResult;

/// Alignment of small allocations: what the driver gives.
pub const SMALL_ALIGN_BYTES: u64 = 512;
/// Larger allocations get their own slab, at 2 MiB alignment.
pub const SMALL_MAX_BYTES: u64 = 1 << 20;
/// Largest slab shared by small allocations.
const MAX_SLAB_BYTES: u64 = 32 << 20;
/// Empty slabs kept for reuse, in total.
const CACHE_BYTES: u64 = 64 << 20;

/// What an allocation of `bytes` bytes takes; `None` when no device has that much.
pub fn footprint(bytes: u64) -> Option<u64> {
    if bytes > SMALL_MAX_BYTES {
        device_pages(bytes)
    } else {
        Some(bytes.max(1).next_multiple_of(SMALL_ALIGN_BYTES))
    }
}

/// Makes addresses usable. Addresses and sizes are multiples of [`DEVICE_PAGE_BYTES`].
pub trait Backing {
    /// Backs `[address, address + bytes)` with device memory on both sides; on failure nothing is left.
    fn create(&self, address: u64, bytes: u64) -> Result<(), CuResult>;
    /// Gives the memory back.
    fn destroy(&self, address: u64, bytes: u64);
}

/// The program's device memory. Calls into its backing under the caller's lock.
#[derive(Debug)]
pub struct Heap<B> {
    backing: B,
    /// Addresses, by pages.
    arena: Ranges,
    /// Slabs with at least one allocation or kept empty, by address.
    slabs: BTreeMap<u64, Slab>,
    /// Bytes of `slabs` whose slab is shared.
    shared_bytes: u64,
    /// Bytes of `slabs` that are empty.
    cached_bytes: u64,
}

#[derive(Debug)]
struct Slab {
    bytes: u64,
    /// `None` for a slab with one large allocation; then `used` tells whether it is there.
    small: Option<Ranges>,
    used: bool,
}

impl<B: Backing> Heap<B> {
    /// A heap over the addresses `[base, base + bytes)`, all of them pages.
    pub fn new(backing: B, base: u64, bytes: u64) -> Self {
        Self {
            backing,
            arena: Ranges::new(base, bytes),
            slabs: BTreeMap::new(),
            shared_bytes: 0,
            cached_bytes: 0,
        }
    }

    /// Empty slabs: memory that the driver counts as used but that the program's next allocations can have, in bytes.
    pub fn cached_bytes(&self) -> u64 {
        self.cached_bytes
    }

    /// Address and size of everything that the backing has created.
    pub fn slabs(&self) -> impl Iterator<Item = (u64, u64)> {
        self.slabs.iter().map(|(&address, slab)| (address, slab.bytes))
    }

    /// `bytes` bytes of device memory, aligned to 512 bytes, above [`SMALL_MAX_BYTES`] to 2 MiB.
    ///
    /// # Errors
    /// What the backing reports, after every empty slab was given back; `OUT_OF_MEMORY` when addresses are used up.
    pub fn allocate(&mut self, bytes: u64) -> Result<u64, CuResult> {
        let taken = footprint(bytes).ok_or(CuResult::OUT_OF_MEMORY)?;
        if bytes > SMALL_MAX_BYTES {
            return self.allocate_large(taken);
        }
        let bytes = taken;
        if let Some(address) = self.allocate_in_slabs(bytes) {
            return Ok(address);
        }
        let wanted = self.shared_bytes.next_power_of_two().clamp(DEVICE_PAGE_BYTES, MAX_SLAB_BYTES);
        // Near the end of device memory a small slab may still fit.
        self.grow(wanted).or_else(|_| self.grow(DEVICE_PAGE_BYTES))?;
        self.allocate_in_slabs(bytes).ok_or(CuResult::OUT_OF_MEMORY)
    }

    /// Frees what [`Heap::allocate`] gave for the same `bytes`. The device no longer uses it.
    pub fn free(&mut self, address: u64, bytes: u64) {
        let Some(taken) = footprint(bytes) else { return };
        let Some((&base, slab)) = self.slabs.range_mut(..=address).next_back() else { return };
        if let Some(small) = &mut slab.small {
            small.free(address, taken);
            slab.used = !small.is_unused();
        } else if base == address {
            slab.used = false;
        }
        if slab.used {
            return;
        }
        let bytes = slab.bytes;
        if self.cached_bytes + bytes > CACHE_BYTES {
            self.destroy(base);
        } else {
            self.cached_bytes += bytes;
        }
    }

    /// Gives empty slabs back until at most `keep_bytes` are cached.
    pub fn trim(&mut self, keep_bytes: u64) {
        while self.cached_bytes > keep_bytes {
            let empty = self.slabs.iter().rev().find(|(_, slab)| !slab.used);
            let Some((&base, &Slab { bytes, .. })) = empty else { return };
            self.cached_bytes -= bytes;
            self.destroy(base);
        }
    }

    /// Reserves addresses without memory for the program's own mappings. `hint` 0 means anywhere.
    pub fn reserve(&mut self, bytes: u64, align: u64, hint: u64) -> Option<u64> {
        if hint != 0 && hint.is_multiple_of(align) && self.arena.allocate_at(hint, bytes) {
            return Some(hint);
        }
        self.arena.allocate(bytes, align)
    }

    /// Ends a reservation made by [`Heap::reserve`].
    pub fn unreserve(&mut self, address: u64, bytes: u64) {
        self.arena.free(address, bytes);
    }

    fn allocate_large(&mut self, bytes: u64) -> Result<u64, CuResult> {
        let fit = |slab: &Slab| !slab.used && slab.small.is_none() && slab.bytes == bytes;
        if let Some((&base, slab)) = self.slabs.iter_mut().find(|(_, slab)| fit(slab)) {
            slab.used = true;
            self.cached_bytes -= bytes;
            return Ok(base);
        }
        let base = self.create(bytes)?;
        self.slabs.insert(base, Slab { bytes, small: None, used: true });
        Ok(base)
    }

    fn allocate_in_slabs(&mut self, bytes: u64) -> Option<u64> {
        for slab in self.slabs.values_mut() {
            let Some(address) =
                slab.small.as_mut().and_then(|small| small.allocate(bytes, SMALL_ALIGN_BYTES))
            else {
                continue;
            };
            if !slab.used {
                slab.used = true;
                self.cached_bytes -= slab.bytes;
            }
            return Some(address);
        }
        None
    }

    /// Adds an empty shared slab; it counts as cached until its first allocation.
    fn grow(&mut self, bytes: u64) -> Result<(), CuResult> {
        let base = self.create(bytes)?;
        self.slabs.insert(base, Slab { bytes, small: Some(Ranges::new(base, bytes)), used: false });
        self.shared_bytes += bytes;
        self.cached_bytes += bytes;
        Ok(())
    }

    fn create(&mut self, bytes: u64) -> Result<u64, CuResult> {
        let address = self.arena.allocate(bytes, DEVICE_PAGE_BYTES).ok_or(CuResult::OUT_OF_MEMORY)?;
        let mut created = self.backing.create(address, bytes);
        if created == Err(CuResult::OUT_OF_MEMORY) && self.cached_bytes > 0 {
            self.trim(0);
            created = self.backing.create(address, bytes);
        }
        if let Err(error) = created {
            self.arena.free(address, bytes);
            return Err(error);
        }
        Ok(address)
    }

    fn destroy(&mut self, base: u64) {
        let Some(slab) = self.slabs.remove(&base) else { return };
        self.backing.destroy(base, slab.bytes);
        self.arena.free(base, slab.bytes);
        if slab.small.is_some() {
            self.shared_bytes -= slab.bytes;
        }
    }
}

#[cfg(test)]
mod tests;
