//! The two address ranges that client and executor reserve alike, so that an address means the same on both
//! sides.
//!
//! Device memory (served by `cuMemAddressReserve` with a hint) and pinned host memory (shared memfds mapped
//! with `MAP_FIXED` inside a [`Reservation`](crate::mapping::Reservation)) live in disjoint ranges.
//! Neither overlaps what the kernel hands out by itself: mmap grows down from 0x7fff_..., executables and
//! heaps sit at 0x55.. and below 0x1_0000_0000.

use crate::mapping::align_up;

/// First address of the device arena, in bytes.
pub const DEVICE_ARENA_BASE: u64 = 0x3000_0000_0000;
/// Largest size of the device arena: 16 TiB. A program's own reservations come out of it, and PyTorch's
/// expandable segments reserve more than the whole device for each stream, size class and graph pool.
pub const DEVICE_ARENA_BYTES: u64 = 1 << 44;
/// Sizes of the device arena in the order in which the executor tries them: a driver may not reserve the largest. The client
/// is told which it is.
pub const DEVICE_ARENA_SIZES: [u64; 3] = [DEVICE_ARENA_BYTES, 1 << 42, 1 << 40];
/// First address of the arena of pinned host memory and staging buffers.
pub const HOST_ARENA_BASE: u64 = 0x2e00_0000_0000;
/// Size of the host arena: 1 TiB.
pub const HOST_ARENA_BYTES: u64 = 1 << 40;

/// Granularity of `cuMemCreate` and `cuMemMap` on every device so far: 2 MiB.
pub const DEVICE_PAGE_BYTES: u64 = 2 << 20;
/// Granularity of host mappings: the largest base page of a supported machine (aarch64 with 64 KiB pages).
pub const HOST_PAGE_BYTES: u64 = 64 << 10;

/// Which arena an address belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Region {
    /// Inside the device arena: memory of the executor's device.
    Device,
    /// Inside the host arena: pinned shared memory that both sides map at this address.
    SharedHost,
    /// Anything else: the client's own memory, which the executor cannot see.
    ClientHost,
}

/// Classifies one address.
pub const fn classify(address: u64) -> Region {
    if in_range(address, 1, DEVICE_ARENA_BASE, DEVICE_ARENA_BYTES) {
        Region::Device
    } else if in_range(address, 1, HOST_ARENA_BASE, HOST_ARENA_BYTES) {
        Region::SharedHost
    } else {
        Region::ClientHost
    }
}

/// Whether `[address, address + bytes)` lies wholly inside the device arena. Empty ranges at its end count
/// as inside.
pub const fn is_device_range(address: u64, bytes: u64) -> bool {
    in_range(address, bytes, DEVICE_ARENA_BASE, DEVICE_ARENA_BYTES)
}

/// Whether `[address, address + bytes)` lies wholly inside the shared host arena.
pub const fn is_shared_host_range(address: u64, bytes: u64) -> bool {
    in_range(address, bytes, HOST_ARENA_BASE, HOST_ARENA_BYTES)
}

/// `bytes` rounded up to [`DEVICE_PAGE_BYTES`]; `None` when that overflows.
pub const fn device_pages(bytes: u64) -> Option<u64> {
    align_up(bytes, DEVICE_PAGE_BYTES)
}

/// `bytes` rounded up to [`HOST_PAGE_BYTES`]; `None` when that overflows.
pub const fn host_pages(bytes: u64) -> Option<u64> {
    align_up(bytes, HOST_PAGE_BYTES)
}

const fn in_range(address: u64, bytes: u64, base: u64, length: u64) -> bool {
    address >= base && bytes <= length && address - base <= length - bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classification_is_exact_at_the_edges() {
        assert_eq!(classify(DEVICE_ARENA_BASE), Region::Device);
        assert_eq!(classify(DEVICE_ARENA_BASE - 1), Region::ClientHost);
        assert_eq!(classify(DEVICE_ARENA_BASE + DEVICE_ARENA_BYTES - 1), Region::Device);
        assert_eq!(classify(DEVICE_ARENA_BASE + DEVICE_ARENA_BYTES), Region::ClientHost);
        assert_eq!(classify(HOST_ARENA_BASE), Region::SharedHost);
        assert_eq!(classify(HOST_ARENA_BASE + HOST_ARENA_BYTES), Region::ClientHost);
    }

    #[test]
    fn ranges_that_leave_or_overflow_are_outside() {
        assert!(is_device_range(DEVICE_ARENA_BASE, DEVICE_ARENA_BYTES));
        assert!(!is_device_range(DEVICE_ARENA_BASE + 1, DEVICE_ARENA_BYTES));
        assert!(!is_device_range(DEVICE_ARENA_BASE, u64::MAX));
        assert!(!is_shared_host_range(u64::MAX, 2));
        assert!(is_shared_host_range(HOST_ARENA_BASE + 4096, 4096));
    }

    #[test]
    fn page_rounding() {
        assert_eq!(device_pages(1), Some(DEVICE_PAGE_BYTES));
        assert_eq!(host_pages(HOST_PAGE_BYTES), Some(HOST_PAGE_BYTES));
        assert_eq!(host_pages(u64::MAX), None);
    }
}
