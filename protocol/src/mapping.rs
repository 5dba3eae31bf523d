//! Memory that two processes share: sealed memfds, address reservations, mappings.
//!
//! A [`Reservation`] owns a range of addresses and fills it with mappings of memfds at chosen places; it
//! hands out addresses only, never references, so remapping part of it cannot leave a dangling borrow. A
//! [`SharedMapping`] is filled once, when it is made, and lends out typed views for as long as it lives.
//!
//! Invariant of every memfd that crosses the boundary: it is sealed against shrinking and growing before it
//! is sent, and the receiver verifies that ([`sealed_bytes`]), else a peer could truncate it and turn our
//! reads into SIGBUS.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicU32, AtomicU64};

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};

/// Placement granularity inside reservations and shared files: the largest base page of a supported machine.
pub const MAP_ALIGN_BYTES: usize = 64 << 10;

/// Every mapping starts at a multiple of this.
const SMALLEST_PAGE_BYTES: usize = 4096;

/// `f_type` of tmpfs, where memfds live; a hugetlbfs memfd is refused because it can fault with SIGBUS when
/// the pool is dry.
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// `value` rounded up to a multiple of `align` (a power of two); `None` when that overflows.
pub const fn align_up(value: u64, align: u64) -> Option<u64> {
    match value.checked_add(align - 1) {
        Some(sum) => Some(sum & !(align - 1)),
        None => None,
    }
}

/// Creates a zeroed memfd of `bytes` bytes that can neither shrink nor grow. `name` shows in /proc/PID/maps.
///
/// # Errors
/// What memfd_create, ftruncate or fcntl report (memory limits, mostly).
pub fn sealed_memfd(name: &str, bytes: u64) -> io::Result<OwnedFd> {
    let fd = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    rustix::fs::ftruncate(&fd, bytes)?;
    rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(fd)
}

/// The size of a memfd from a peer, after checking that its size can no longer change.
///
/// # Errors
/// `InvalidData` when it is not a tmpfs memfd or lacks a seal.
pub fn sealed_bytes(fd: BorrowedFd<'_>) -> io::Result<u64> {
    let invalid = |what| io::Error::new(io::ErrorKind::InvalidData, what);
    if rustix::fs::fstatfs(fd)?.f_type as u64 != TMPFS_MAGIC {
        return Err(invalid("not a memfd on tmpfs"));
    }
    let seals = rustix::fs::fcntl_get_seals(fd).map_err(|_| invalid("not a memfd"))?;
    if !seals.contains(SealFlags::SHRINK | SealFlags::GROW) {
        return Err(invalid("memfd is not sealed against shrinking and growing"));
    }
    u64::try_from(rustix::fs::fstat(fd)?.st_size).map_err(|_| invalid("negative size"))
}

/// What a mapping permits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Loads and stores.
    ReadWrite,
    /// Loads only.
    ReadOnly,
}

/// A range of addresses that nothing else in this process can be given. Dropping it unmaps everything inside.
#[derive(Debug)]
pub struct Reservation {
    address: usize,
    bytes: usize,
}

impl Reservation {
    /// Reserves `bytes` bytes at exactly `address`.
    ///
    /// # Errors
    /// `EEXIST` when something is mapped there; whatever else mmap reports.
    pub fn fixed(address: u64, bytes: u64) -> io::Result<Self> {
        let wanted = to_usize(address)?;
        let reserved = Self::reserve(wanted, to_usize(bytes)?, MapFlags::FIXED_NOREPLACE)?;
        // Kernels before 4.17 ignore the flag and treat the address as a hint.
        if reserved.address != wanted {
            return Err(io::Error::from(rustix::io::Errno::EXIST));
        }
        Ok(reserved)
    }

    /// Reserves `bytes` bytes wherever the kernel likes.
    ///
    /// # Errors
    /// What mmap reports.
    pub fn anywhere(bytes: u64) -> io::Result<Self> {
        Self::reserve(0, to_usize(bytes)?, MapFlags::empty())
    }

    fn reserve(address: usize, bytes: usize, extra: MapFlags) -> io::Result<Self> {
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | extra;
        let hint = ptr::without_provenance_mut(address);
        // SAFETY: without MAP_FIXED (FIXED_NOREPLACE fails instead) mmap never replaces an existing mapping.
        let place = unsafe { rustix::mm::mmap_anonymous(hint, bytes, ProtFlags::empty(), flags)? };
        Ok(Self { address: place.expose_provenance(), bytes })
    }

    /// First address.
    pub const fn address(&self) -> u64 {
        self.address as u64
    }

    /// Size in bytes.
    pub const fn bytes(&self) -> u64 {
        self.bytes as u64
    }

    /// Whether `[address, address + bytes)` lies inside.
    pub fn contains(&self, address: u64, bytes: u64) -> bool {
        address.checked_sub(self.address()).is_some_and(|offset| self.offset(offset, bytes).is_ok())
    }

    /// Maps `bytes` bytes of `fd` from `fd_offset` at `offset` bytes into the reservation, replacing what
    /// was there. Returns the address. All three numbers are multiples of the page size.
    ///
    /// # Errors
    /// `EINVAL` outside the reservation; whatever mmap reports.
    pub fn map(
        &self,
        offset: u64,
        fd: BorrowedFd<'_>,
        fd_offset: u64,
        bytes: u64,
        access: Access,
    ) -> io::Result<u64> {
        let (place, length) = self.offset(offset, bytes)?;
        let protection = match access {
            Access::ReadWrite => ProtFlags::READ | ProtFlags::WRITE,
            Access::ReadOnly => ProtFlags::READ,
        };
        // SAFETY: MAP_FIXED replaces pages inside our own reservation only (`offset` checked it), and a
        // reservation lends out no references into itself. The file is MAP_SHARED and stays mapped until
        // replaced or dropped.
        let at = unsafe {
            rustix::mm::mmap(place, length, protection, MapFlags::SHARED | MapFlags::FIXED, fd, fd_offset)?
        };
        Ok(at.expose_provenance() as u64)
    }

    /// Returns `bytes` bytes at `offset` to the unmapped, still reserved state.
    ///
    /// # Errors
    /// `EINVAL` outside the reservation; whatever mmap reports.
    pub fn unmap(&self, offset: u64, bytes: u64) -> io::Result<()> {
        let (place, length) = self.offset(offset, bytes)?;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED;
        // SAFETY: as in `map`: only pages of this reservation are replaced, and nobody holds references
        // into them.
        unsafe { rustix::mm::mmap_anonymous(place, length, ProtFlags::empty(), flags)? };
        Ok(())
    }

    fn offset(&self, offset: u64, bytes: u64) -> io::Result<(*mut std::ffi::c_void, usize)> {
        let end = offset.checked_add(bytes).filter(|end| *end <= self.bytes());
        if end.is_none() || bytes == 0 {
            return Err(io::Error::from(rustix::io::Errno::INVAL));
        }
        Ok((ptr::with_exposed_provenance_mut(self.address + to_usize(offset)?), to_usize(bytes)?))
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // SAFETY: the range was reserved by `reserve` and belongs to this value alone, which is going away.
        let _ = unsafe { rustix::mm::munmap(ptr::with_exposed_provenance_mut(self.address), self.bytes) };
    }
}

/// A type that may be viewed in memory which another process writes at the same time.
///
/// # Safety
/// Every byte of the type lies in an atomic (or in an array or `repr(C)` struct of such types, padding
/// aside), any bit pattern is valid, and its alignment is at most a page's (checked where it is viewed).
pub unsafe trait Shared: Sized {}

// SAFETY: an atomic; every bit pattern is an integer.
unsafe impl Shared for AtomicU32 {}
// SAFETY: an atomic; every bit pattern is an integer.
unsafe impl Shared for AtomicU64 {}
// SAFETY: an array is its elements, without padding.
unsafe impl<T: Shared, const N: usize> Shared for [T; N] {}

/// A stretch of a file, for [`SharedMapping::map`].
#[derive(Debug, Clone, Copy)]
pub struct Piece {
    /// Where it starts in the file, a multiple of [`MAP_ALIGN_BYTES`].
    pub file_offset: u64,
    /// Its size, a multiple of [`MAP_ALIGN_BYTES`].
    pub bytes: u64,
}

/// Stretches of one sealed memfd, mapped back to back, for the lifetime of this value; readable and writable unless made by
/// [`SharedMapping::read_only`].
#[derive(Debug)]
pub struct SharedMapping {
    memory: Reservation,
}

impl SharedMapping {
    /// Maps the pieces in the given order; one stretch of the file may appear twice.
    ///
    /// # Errors
    /// `InvalidData` when `fd` is not sealed or too short (see [`sealed_bytes`]); whatever mmap reports.
    pub fn map(fd: &OwnedFd, pieces: &[Piece]) -> io::Result<Self> {
        Self::map_for(fd, pieces, Access::ReadWrite)
    }

    /// As [`SharedMapping::map`], for a peer's file that this process must not change: a store through a view faults.
    ///
    /// # Errors
    /// As [`SharedMapping::map`].
    pub fn read_only(fd: &OwnedFd, pieces: &[Piece]) -> io::Result<Self> {
        Self::map_for(fd, pieces, Access::ReadOnly)
    }

    fn map_for(fd: &OwnedFd, pieces: &[Piece], access: Access) -> io::Result<Self> {
        let file_bytes = sealed_bytes(fd.as_fd())?;
        let invalid =
            || io::Error::new(io::ErrorKind::InvalidData, "mapping reaches beyond the end of the memfd");
        let mut total = 0u64;
        for piece in pieces {
            let end = piece.file_offset.checked_add(piece.bytes).ok_or_else(invalid)?;
            if end > file_bytes {
                return Err(invalid());
            }
            total = total.checked_add(piece.bytes).ok_or_else(invalid)?;
        }
        let memory = Reservation::anywhere(total)?;
        let mut offset = 0;
        for piece in pieces {
            memory.map(offset, fd.as_fd(), piece.file_offset, piece.bytes, access)?;
            offset += piece.bytes;
        }
        Ok(Self { memory })
    }

    /// Maps a whole file whose size must be `bytes`.
    ///
    /// # Errors
    /// As [`SharedMapping::map`].
    pub fn whole(fd: &OwnedFd, bytes: u64) -> io::Result<Self> {
        Self::map(fd, &[Piece { file_offset: 0, bytes }])
    }

    /// Size in bytes.
    pub const fn bytes(&self) -> usize {
        self.memory.bytes
    }

    /// Address of byte `offset` in this process, for registration with the driver.
    pub const fn address_of(&self, offset: usize) -> u64 {
        self.memory.address() + offset as u64
    }

    /// A typed view at `offset`; `None` when it is misaligned or does not fit.
    pub fn view<T: Shared>(&self, offset: usize) -> Option<&T> {
        const { assert!(align_of::<T>() <= SMALLEST_PAGE_BYTES) };
        let end = offset.checked_add(size_of::<T>())?;
        if end > self.memory.bytes || !offset.is_multiple_of(align_of::<T>()) {
            return None;
        }
        // SAFETY: in bounds and aligned (the mapping starts at a page boundary, above any alignment
        // `Shared` allows); the pages stay mapped while `self` is borrowed; `Shared` vouches for any
        // content and for concurrent writes by the peer.
        Some(unsafe { &*self.pointer(offset).cast::<T>() })
    }

    /// `count` consecutive `T` at `offset`; `None` when they are misaligned or do not fit.
    pub fn slice<T: Shared>(&self, offset: usize, count: usize) -> Option<&[T]> {
        const { assert!(align_of::<T>() <= SMALLEST_PAGE_BYTES) };
        let end = size_of::<T>().checked_mul(count)?.checked_add(offset)?;
        if end > self.memory.bytes || !offset.is_multiple_of(align_of::<T>()) {
            return None;
        }
        // SAFETY: as in `view`, for `count` elements.
        Some(unsafe { std::slice::from_raw_parts(self.pointer(offset).cast::<T>(), count) })
    }

    /// Pointer to byte `offset`, which the caller has checked to lie inside.
    pub(crate) fn pointer(&self, offset: usize) -> *mut u8 {
        ptr::with_exposed_provenance_mut(self.memory.address + offset)
    }
}

fn to_usize(value: u64) -> io::Result<usize> {
    usize::try_from(value).map_err(|_| io::Error::from(rustix::io::Errno::INVAL))
}
