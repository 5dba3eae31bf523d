//! Where things lie in the ring's memfd: control page, stamp array, data area, each on a page boundary.
//!
//! Positions (tail, head) count bytes since the ring was made and never wrap in practice (2^64); a
//! position's place in the data area is its remainder by the capacity, its lap the quotient plus one, so
//! that a zeroed stamp array means "nothing yet".

use super::sync::{AtomicU32, AtomicU64};
use crate::mapping::MAP_ALIGN_BYTES;

/// First bytes of the file: "LtOsRing" in ASCII, little-endian.
pub const MAGIC: u64 = u64::from_le_bytes(*b"LtOsRing");
/// Records start at multiples of this: one cache line.
pub const LINE_BYTES: usize = 64;
/// Largest record, header included. A launch with every parameter byte and attribute takes 38 KiB.
pub const MAX_RECORD_BYTES: usize = 128 << 10;
/// Smallest data area: the largest record must fit twice.
pub const MIN_CAPACITY_BYTES: usize = 2 * MAX_RECORD_BYTES;
/// Largest data area.
pub const MAX_CAPACITY_BYTES: usize = 1 << 30;
/// Threads of one process that may wait for space at once; bounds how far the tail may run ahead of the head.
pub const MAX_WAITING_PRODUCERS: u64 = 1 << 16;

/// Where the stamp array starts in the file: one stamp for each line of the data area.
pub const STAMPS_OFFSET: usize = MAP_ALIGN_BYTES;
/// Size of a stamp.
pub const STAMP_BYTES: usize = 4;

/// The control page. Each word that one side writes often has a cache line pair of its own.
#[derive(Debug)]
#[repr(C)]
pub struct Control {
    /// [`MAGIC`], written once by the creator.
    pub magic: AtomicU64,
    /// Size of the data area, written once by the creator.
    pub capacity_bytes: AtomicU64,
    /// The next ticket. Written by producers.
    pub tail: Padded<AtomicU64>,
    /// Everything before it has been copied out. Written by the consumer.
    pub head: Padded<AtomicU64>,
    /// State of the consumer; read by producers at every push, written seldom.
    pub consumer: Padded<ConsumerState>,
}

/// What producers need to know about the consumer.
#[derive(Debug)]
#[repr(C)]
pub struct ConsumerState {
    /// 1 while the consumer sleeps, or is about to, on this word.
    pub parked: AtomicU32,
    /// 1 once the consumer has left for good.
    pub gone: AtomicU32,
}

/// Keeps neighbours 128 bytes apart: adjacent-line prefetch couples pairs of lines.
#[derive(Debug)]
#[repr(C, align(128))]
pub struct Padded<T>(pub T);

/// Bytes a record of `len` bytes takes in the ring.
pub const fn padded_bytes(len: usize) -> u64 {
    len.next_multiple_of(LINE_BYTES) as u64
}

/// The stamp that completes a record which starts at `position`.
pub const fn lap(position: u64, capacity_bytes: u64) -> u32 {
    (position / capacity_bytes + 1) as u32
}

/// Whether a ring may have a data area of this size: a power of two within the limits.
pub const fn is_capacity(bytes: u64) -> bool {
    bytes.is_power_of_two() && bytes >= MIN_CAPACITY_BYTES as u64 && bytes <= MAX_CAPACITY_BYTES as u64
}

/// Where the data area starts in the file.
pub const fn data_offset(capacity_bytes: usize) -> usize {
    let stamp_bytes = capacity_bytes / LINE_BYTES * STAMP_BYTES;
    STAMPS_OFFSET + stamp_bytes.next_multiple_of(MAP_ALIGN_BYTES)
}

/// Size of the file.
pub const fn file_bytes(capacity_bytes: usize) -> u64 {
    (data_offset(capacity_bytes) + capacity_bytes) as u64
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn laps_and_padding() {
        assert_eq!((padded_bytes(16), padded_bytes(64), padded_bytes(65)), (64, 64, 128));
        assert_eq!((lap(0, 4096), lap(4095, 4096), lap(4096, 4096)), (1, 1, 2));
    }

    #[test]
    fn hot_words_do_not_share_lines() {
        let offsets = [
            std::mem::offset_of!(Control, tail),
            std::mem::offset_of!(Control, head),
            std::mem::offset_of!(Control, consumer),
            size_of::<Control>(),
        ];
        assert_eq!(offsets, [128, 256, 384, 512]);
    }
}
