//! Pinned host memory: the program's memfds, mapped here at the same address and registered with the driver.
//!
//! Memory that the program allocates pinned lies in the reserved arena. Memory of its own that it registers later lies where its
//! allocator put it; the same address is usually free here, and where it is not, the program is told so.
//!
//! Copies may name host addresses inside these ranges only. The files are sealed against shrinking, so a range that is mapped stays
//! readable whatever the program does.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::os::fd::AsFd;

use lightos_protocol::arena;
use lightos_protocol::mapping::{Access, Reservation, sealed_bytes};

use super::Executor;
use super::driver::{CuError, check, sys};

/// Ranges mapped and registered: size in bytes by address.
#[derive(Debug, Default)]
pub(crate) struct HostMemory {
    ranges: BTreeMap<u64, u64>,
    /// Those of them outside the arena.
    shared: BTreeMap<u64, Reservation>,
}

/// Addresses that no program can have: the first page, and everything beyond the 47 bits of user space.
const LOWEST_ADDRESS: u64 = 1 << 16;
const USER_ADDRESSES: u64 = 1 << 47;
/// Granularity of memory that is registered where it lies.
const PAGE_BYTES: u64 = 4096;

impl HostMemory {
    /// Whether all of `[address, address + bytes)` is pinned memory of one range.
    pub(super) fn contains(&self, address: u64, bytes: u64) -> bool {
        self.ranges.range(..=address).next_back().is_some_and(|(base, length)| {
            let offset = address - base;
            offset < *length && bytes <= length - offset
        })
    }

    fn overlaps(&self, address: u64, bytes: u64) -> bool {
        let before = self.ranges.range(..address + bytes).next_back();
        before.is_some_and(|(base, length)| base + length > address)
    }
}

impl Executor {
    pub(super) fn host_map(&mut self, address: u64, bytes: u64, tag: u64, flags: u32) -> Result<(), CuError> {
        let fd = self.fds.take(tag)?;
        let aligned = bytes != 0
            && bytes.is_multiple_of(arena::HOST_PAGE_BYTES)
            && address.is_multiple_of(arena::HOST_PAGE_BYTES);
        if !aligned || !arena::is_shared_host_range(address, bytes) || self.host.overlaps(address, bytes) {
            return Err(CuError::INVALID_VALUE);
        }
        if sealed_bytes(fd.as_fd()).map_err(|_| CuError::INVALID_VALUE)? < bytes {
            return Err(CuError::INVALID_VALUE);
        }
        let offset = address - arena::HOST_ARENA_BASE;
        self.host_arena
            .map(offset, fd.as_fd(), 0, bytes, Access::ReadWrite)
            .map_err(|_| CuError::OUT_OF_MEMORY)?;
        if let Err(error) = register(address, bytes, flags) {
            let _ = self.host_arena.unmap(offset, bytes);
            return Err(error);
        }
        self.host.ranges.insert(address, bytes);
        Ok(())
    }

    pub(super) fn host_unmap(&mut self, address: u64, bytes: u64) -> Result<(), CuError> {
        if self.host.ranges.get(&address) != Some(&bytes) {
            return Err(CuError::INVALID_VALUE);
        }
        // SAFETY: the range was registered when it entered `ranges`.
        check(unsafe { sys::cuMemHostUnregister(pointer(address)) })?;
        self.host.ranges.remove(&address);
        self.host_arena.unmap(address - arena::HOST_ARENA_BASE, bytes).map_err(|_| CuError::OPERATING_SYSTEM)
    }
}

impl Executor {
    pub(super) fn host_share(
        &mut self,
        address: u64,
        bytes: u64,
        tag: u64,
        flags: u32,
    ) -> Result<(), CuError> {
        let fd = self.fds.take(tag)?;
        let aligned = bytes != 0 && bytes.is_multiple_of(PAGE_BYTES) && address.is_multiple_of(PAGE_BYTES);
        if !aligned
            || !(LOWEST_ADDRESS..USER_ADDRESSES).contains(&address)
            || bytes > USER_ADDRESSES - address
        {
            return Err(CuError::INVALID_VALUE);
        }
        if sealed_bytes(fd.as_fd()).map_err(|_| CuError::INVALID_VALUE)? < bytes {
            return Err(CuError::INVALID_VALUE);
        }
        // Nothing that this process has mapped, the arenas included, is ever replaced.
        let place = Reservation::fixed(address, bytes).map_err(|error| {
            tracing::info!(address, bytes, %error, "the address of registered memory is taken");
            CuError::NOT_SUPPORTED
        })?;
        place.map(0, fd.as_fd(), 0, bytes, Access::ReadWrite).map_err(|_| CuError::OUT_OF_MEMORY)?;
        register(address, bytes, flags)?;
        self.host.ranges.insert(address, bytes);
        self.host.shared.insert(address, place);
        Ok(())
    }

    pub(super) fn host_unshare(&mut self, address: u64) -> Result<(), CuError> {
        if !self.host.shared.contains_key(&address) {
            return Err(CuError::INVALID_VALUE);
        }
        // SAFETY: the range was registered when it entered `shared`.
        check(unsafe { sys::cuMemHostUnregister(pointer(address)) })?;
        self.host.ranges.remove(&address);
        self.host.shared.remove(&address);
        Ok(())
    }
}

/// Pins a range so that the device reaches it at its host address.
fn register(address: u64, bytes: u64, flags: u32) -> Result<(), CuError> {
    let wanted = sys::CU_MEMHOSTREGISTER_PORTABLE | sys::CU_MEMHOSTREGISTER_DEVICEMAP;
    let flags = wanted | flags & sys::CU_MEMHOSTREGISTER_READ_ONLY;
    let mut device = 0;
    // SAFETY: the range was just mapped and stays mapped until it is unregistered; no Rust reference points into it.
    check(unsafe { sys::cuMemHostRegister_v2(pointer(address), bytes as usize, flags) })?;
    // SAFETY: `device` is a valid out-pointer, the range is registered.
    let got = check(unsafe { sys::cuMemHostGetDevicePointer_v2(&mut device, pointer(address), 0) });
    if got.is_ok() && device == address {
        return Ok(());
    }
    // The program passes host addresses to kernels, so a device that sees the memory elsewhere cannot serve it.
    // SAFETY: registered above.
    let _ = unsafe { sys::cuMemHostUnregister(pointer(address)) };
    Err(got.err().unwrap_or(CuError::NOT_SUPPORTED))
}

fn pointer(address: u64) -> *mut c_void {
    std::ptr::with_exposed_provenance_mut(address as usize)
}

#[cfg(test)]
mod tests {
    use super::HostMemory;

    #[test]
    fn only_whole_ranges_count() {
        let mut memory = HostMemory::default();
        memory.ranges.insert(0x1000, 0x1000);
        memory.ranges.insert(0x2000, 0x1000);
        assert!(memory.contains(0x1000, 0x1000));
        assert!(memory.contains(0x1fff, 1));
        assert!(!memory.contains(0x1fff, 2), "two registrations are not one");
        assert!(!memory.contains(0x3000, 0));
        assert!(!memory.contains(0x1800, u64::MAX));
        assert!(!memory.contains(0xfff, 1));
        assert!(memory.overlaps(0x2fff, 1) && memory.overlaps(0xfff, 2));
        assert!(!memory.overlaps(0x3000, 0x1000) && !memory.overlaps(0, 0x1000));
    }
}
