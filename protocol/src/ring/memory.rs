//! The ring's memory: one sealed memfd, mapped as control page, stamps, data, data again.
//!
//! Owns the mapping and the raw copies into and out of it. Producers write only lines whose ticket they
//! hold; the consumer reads only lines whose stamp says they are complete. A peer that breaks this can tear
//! bytes, which readers tolerate because they judge their private copy; it cannot make an access leave the
//! mapping, because every offset is reduced by the capacity and every length is checked against
//! [`MAX_RECORD_BYTES`] first.

use std::io;
use std::os::fd::OwnedFd;
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use zerocopy::{FromBytes, IntoBytes};

use super::layout::{
    ConsumerState, Control, LINE_BYTES, MAGIC, MAX_RECORD_BYTES, Padded, STAMPS_OFFSET, data_offset,
    file_bytes, is_capacity,
};
use super::sync::{AtomicU32, Ordering};
use crate::mapping::{MAP_ALIGN_BYTES, Piece, Shared, SharedMapping, sealed_memfd};
use crate::record::{HEADER_BYTES, RecordHeader};

// SAFETY: nothing but atomics and padding, repr(C), aligned to 128.
unsafe impl Shared for Control {}
// SAFETY: two atomics, repr(C).
unsafe impl Shared for ConsumerState {}
// SAFETY: its content and padding; the alignment of 128 is far below a page.
unsafe impl<T: Shared> Shared for Padded<T> {}

/// One side's mapping of a ring. Clones share it.
#[derive(Debug, Clone)]
pub struct RingMemory {
    /// Keeps the memory behind the pointers below.
    _mapping: Arc<SharedMapping>,
    capacity_bytes: u64,
    /// Where `Control`, the stamps and the data start: views made once, valid while `_mapping` lives.
    control: ptr::NonNull<Control>,
    stamps: ptr::NonNull<[AtomicU32]>,
    data: *mut u8,
}

// SAFETY: the pointers refer to shared memory that lives as long as `_mapping`. `control` and `stamps` are
// atomics; writes to and reads from `data` are unsafe functions whose callers uphold the ticket protocol.
unsafe impl Send for RingMemory {}
// SAFETY: as for Send.
unsafe impl Sync for RingMemory {}

impl RingMemory {
    /// Makes a ring whose data area has `capacity_bytes` bytes, and the file descriptor to send to the
    /// consumer.
    ///
    /// # Errors
    /// `InvalidInput` unless the capacity is a power of two from [`MIN_CAPACITY_BYTES`](super::MIN_CAPACITY_BYTES) to
    /// [`MAX_CAPACITY_BYTES`](super::MAX_CAPACITY_BYTES); what memfd_create or mmap report.
    pub fn create(capacity_bytes: usize) -> io::Result<(Self, OwnedFd)> {
        if !is_capacity(capacity_bytes as u64) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "ring capacity out of range"));
        }
        let fd = sealed_memfd("lightos-ring", file_bytes(capacity_bytes))?;
        let memory = Self::map(&fd, capacity_bytes)?;
        memory.control().capacity_bytes.store(capacity_bytes as u64, Ordering::Relaxed);
        memory.control().magic.store(MAGIC, Ordering::Release);
        Ok((memory, fd))
    }

    /// Maps a ring made by the peer.
    ///
    /// # Errors
    /// `InvalidData` when the file is not sealed, not a ring, or of another size than its header says.
    pub fn open(fd: OwnedFd) -> io::Result<Self> {
        let invalid = |what| io::Error::new(io::ErrorKind::InvalidData, what);
        let header = SharedMapping::whole(&fd, MAP_ALIGN_BYTES as u64)?;
        let control: &Control = header.view(0).ok_or_else(|| invalid("ring file too short"))?;
        if control.magic.load(Ordering::Acquire) != MAGIC {
            return Err(invalid("not a ring"));
        }
        let capacity_bytes = control.capacity_bytes.load(Ordering::Relaxed);
        if !is_capacity(capacity_bytes) {
            return Err(invalid("ring capacity out of range"));
        }
        let capacity_bytes = capacity_bytes as usize;
        if crate::mapping::sealed_bytes(std::os::fd::AsFd::as_fd(&fd))? != file_bytes(capacity_bytes) {
            return Err(invalid("ring file size does not match its capacity"));
        }
        Self::map(&fd, capacity_bytes)
    }

    fn map(fd: &OwnedFd, capacity_bytes: usize) -> io::Result<Self> {
        let data_offset = data_offset(capacity_bytes);
        let data = Piece { file_offset: data_offset as u64, bytes: capacity_bytes as u64 };
        let front = Piece { file_offset: 0, bytes: file_bytes(capacity_bytes) };
        let mapping = SharedMapping::map(fd, &[front, data])?;
        let invalid = || io::Error::new(io::ErrorKind::InvalidData, "ring layout does not fit its mapping");
        let control = ptr::NonNull::from(mapping.view::<Control>(0).ok_or_else(invalid)?);
        let lines = capacity_bytes / LINE_BYTES;
        let stamps =
            ptr::NonNull::from(mapping.slice::<AtomicU32>(STAMPS_OFFSET, lines).ok_or_else(invalid)?);
        let data = mapping.pointer(data_offset);
        Ok(Self { _mapping: Arc::new(mapping), capacity_bytes: capacity_bytes as u64, control, stamps, data })
    }

    /// Size of the data area.
    pub const fn capacity_bytes(&self) -> u64 {
        self.capacity_bytes
    }

    /// Largest record this ring takes.
    pub(super) const fn max_record_bytes(&self) -> usize {
        MAX_RECORD_BYTES
    }

    /// The control page.
    pub(super) const fn control(&self) -> &Control {
        // SAFETY: made from a checked view of `_mapping`, which `self` keeps alive.
        unsafe { self.control.as_ref() }
    }

    /// The stamp of the line at `position`.
    pub(super) fn stamp(&self, position: u64) -> &AtomicU32 {
        // SAFETY: made from a checked slice of `_mapping`, which `self` keeps alive.
        let stamps = unsafe { self.stamps.as_ref() };
        // The remainder by the capacity is below it, so the line exists.
        &stamps[self.place(position) / LINE_BYTES]
    }

    /// Writes header and parts contiguously at `position`.
    ///
    /// # Safety
    /// The caller holds the ticket for these lines, the consumer has released them, and the total is at
    /// most [`MAX_RECORD_BYTES`].
    pub(super) unsafe fn write(&self, position: u64, header: &RecordHeader, first: &[u8], rest: &[&[u8]]) {
        // SAFETY: `place` is below the capacity and a record is at most half of it, so with the data mapped
        // twice every byte written lies inside; the ticket excludes other producers, the released head
        // excludes the consumer.
        unsafe {
            let mut at = self.data.add(self.place(position));
            for part in [header.as_bytes(), first].iter().chain(rest) {
                ptr::copy_nonoverlapping(part.as_ptr(), at, part.len());
                at = at.add(part.len());
            }
        }
    }

    /// A private copy of the header at `position`.
    pub(super) fn read_header(&self, position: u64) -> RecordHeader {
        let mut bytes = [0; HEADER_BYTES];
        self.read(position, &mut bytes);
        RecordHeader::read_from_bytes(&bytes).unwrap_or_default()
    }

    /// Copies bytes from `position` into private memory. The bytes may be torn if the peer breaks the protocol.
    /// Copies at most [`MAX_RECORD_BYTES`].
    pub(super) fn read(&self, position: u64, into: &mut [u8]) {
        let bytes = into.len().min(MAX_RECORD_BYTES);
        // SAFETY: `place` is below the capacity and the length at most half of it, so the source lies
        // inside the double mapping; the destination is private. A hostile concurrent write can only change
        // which bytes arrive, and any byte is valid.
        unsafe { ptr::copy_nonoverlapping(self.data.add(self.place(position)), into.as_mut_ptr(), bytes) };
    }

    /// Sleeps while PARKED is set, at most `timeout`.
    pub(super) fn park(&self, timeout: Duration) {
        crate::futex::wait(&self.control().consumer.0.parked, 1, timeout);
    }

    /// Ends [`RingMemory::park`].
    pub(super) fn unpark(&self) {
        crate::futex::wake_all(&self.control().consumer.0.parked);
    }

    const fn place(&self, position: u64) -> usize {
        (position & (self.capacity_bytes - 1)) as usize
    }
}
