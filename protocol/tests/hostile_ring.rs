//! The consumer against a peer that writes what it likes into the shared memory: every trick ends in its
//! named violation or in silence until the timeout, and never in a read outside the mapping (which would
//! fault) or a hang.

use std::mem::offset_of;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lightos_protocol::mapping::{SharedMapping, sealed_memfd};
use lightos_protocol::ring::layout::{Control, LINE_BYTES, STAMPS_OFFSET, data_offset, file_bytes};
use lightos_protocol::ring::{Consumer, MAX_RECORD_BYTES, MIN_CAPACITY_BYTES, RingMemory, RingViolation};
use proptest::prelude::*;

/// A peer that writes to the ring's file without any rule, and the consumer of that ring.
struct Hostile {
    file: SharedMapping,
    consumer: Consumer,
    _keep: RingMemory,
}

const SHORT: Duration = Duration::from_millis(5);

impl Hostile {
    fn new() -> Self {
        let (memory, fd) = RingMemory::create(MIN_CAPACITY_BYTES).unwrap();
        let file = SharedMapping::whole(&fd, file_bytes(MIN_CAPACITY_BYTES)).unwrap();
        let consumer = Consumer::new(RingMemory::open(fd).unwrap()).with_spin(Duration::ZERO);
        Self { file, consumer, _keep: memory }
    }

    fn word64(&self, offset: usize, value: u64) {
        self.file.view::<AtomicU64>(offset).unwrap().store(value, Ordering::Relaxed);
    }

    fn word32(&self, offset: usize, value: u32) {
        self.file.view::<AtomicU32>(offset).unwrap().store(value, Ordering::Relaxed);
    }

    fn tail(&self, value: u64) {
        self.word64(offset_of!(Control, tail), value);
    }

    fn stamp(&self, line: usize, value: u32) {
        self.word32(STAMPS_OFFSET + line * 4, value);
    }

    fn header(&self, line: usize, len: u32, reserved: u32) {
        let at = data_offset(MIN_CAPACITY_BYTES) + line * LINE_BYTES;
        self.word32(at, len);
        self.word32(at + 12, reserved);
    }

    fn next(&mut self) -> Result<Option<usize>, RingViolation> {
        let mut scratch = Vec::new();
        Ok(self.consumer.next(SHORT, &mut scratch)?.map(|record| record.payload.len()))
    }
}

#[test]
fn lengths_outside_the_limits() {
    for len in [0, 1, 15, MAX_RECORD_BYTES as u32 + 1, 1 << 31, u32::MAX] {
        let mut peer = Hostile::new();
        peer.tail(MIN_CAPACITY_BYTES as u64);
        peer.header(0, len, 0);
        peer.stamp(0, 1);
        assert_eq!(peer.next(), Err(RingViolation::BadLength { position: 0, len }));
    }
}

#[test]
fn a_record_beyond_the_tail() {
    let mut peer = Hostile::new();
    peer.tail(64);
    peer.header(0, 65, 0);
    peer.stamp(0, 1);
    assert_eq!(peer.next(), Err(RingViolation::TailOverrun { tail: 64, end: 128 }));
}

#[test]
fn a_tail_that_ran_away_or_is_not_at_a_line() {
    for tail in [1 << 40, u64::MAX - 63, 65] {
        let mut peer = Hostile::new();
        peer.tail(tail);
        peer.header(0, 16, 0);
        peer.stamp(0, 1);
        assert_eq!(peer.next(), Err(RingViolation::TailOverrun { tail, end: 64 }));
    }
}

#[test]
fn a_head_that_the_consumer_did_not_write() {
    let mut peer = Hostile::new();
    peer.word64(offset_of!(Control, head), 64);
    peer.tail(64);
    peer.header(0, 16, 0);
    peer.stamp(0, 1);
    assert_eq!(peer.next(), Err(RingViolation::BadHead { found: 64, expected: 0 }));
}

#[test]
fn a_stamp_from_the_future() {
    for found in [2, 1000, 1 << 30] {
        let mut peer = Hostile::new();
        peer.stamp(0, found);
        assert_eq!(peer.next(), Err(RingViolation::BadStamp { position: 0, found, lap: 1 }));
    }
}

#[test]
fn a_reserved_field_that_is_not_zero() {
    let mut peer = Hostile::new();
    peer.tail(64);
    peer.header(0, 16, 7);
    peer.stamp(0, 1);
    assert_eq!(peer.next(), Err(RingViolation::BadReserved { position: 0, found: 7 }));
}

#[test]
fn stale_stamps_and_stale_bytes_are_no_record() {
    let mut peer = Hostile::new();
    for _ in 0..2 {
        // One record of each half: a lap and its stamps at two lines only.
        for line in [0, MIN_CAPACITY_BYTES / LINE_BYTES / 2] {
            let lap = peer.file.view::<AtomicU64>(offset_of!(Control, tail)).unwrap();
            let tail = lap.fetch_add(MAX_RECORD_BYTES as u64, Ordering::Relaxed);
            peer.header(line, MAX_RECORD_BYTES as u32, 0);
            peer.stamp(line, (tail / MIN_CAPACITY_BYTES as u64 + 1) as u32);
            assert_eq!(peer.next(), Ok(Some(MAX_RECORD_BYTES - 16)));
        }
    }
    // Third lap: the stamp of the second is still there, so is a valid header.
    assert_eq!(peer.next(), Ok(None));
}

#[test]
fn clearing_parked_without_a_record_only_costs_the_peer() {
    let mut peer = Hostile::new();
    let parked = offset_of!(Control, consumer);
    let start = Instant::now();
    let Hostile { file, consumer, .. } = &mut peer;
    let word = file.view::<AtomicU32>(parked).unwrap();
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let mut scratch = Vec::new();
            consumer.next(Duration::from_millis(50), &mut scratch).map(|record| record.is_none())
        });
        while !worker.is_finished() {
            word.store(0, Ordering::Relaxed);
            lightos_protocol::futex::wake_all(word);
            std::thread::sleep(Duration::from_micros(200));
        }
        assert_eq!(worker.join().unwrap(), Ok(true));
    });
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn files_that_are_no_ring_are_refused() {
    let refused = |fd: OwnedFd| RingMemory::open(fd).unwrap_err();
    refused(sealed_memfd("short", 4096).unwrap());
    refused(sealed_memfd("no-magic", file_bytes(MIN_CAPACITY_BYTES)).unwrap());
    refused(tempfile::tempfile().unwrap().into());
    let unsealed = rustix::fs::memfd_create("unsealed", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&unsealed, file_bytes(MIN_CAPACITY_BYTES)).unwrap();
    refused(unsealed);
    for capacity in [0, 1, MIN_CAPACITY_BYTES as u64 * 2, u64::MAX] {
        let (_memory, fd) = RingMemory::create(MIN_CAPACITY_BYTES).unwrap();
        let file = SharedMapping::whole(&fd, file_bytes(MIN_CAPACITY_BYTES)).unwrap();
        let offset = offset_of!(Control, capacity_bytes);
        file.view::<AtomicU64>(offset).unwrap().store(capacity, Ordering::Relaxed);
        refused(fd);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Random words in control page, first stamps and first lines: whatever happens, it is an answer.
    #[test]
    fn random_shared_memory_never_faults(
        words in prop::collection::vec((0usize..3, 0usize..160, any::<u32>()), 0..64),
        stamps in prop::collection::vec(0u32..3, 8),
        lens in prop::collection::vec(0u32..200_000, 8),
        tail in 0u64..1 << 20,
    ) {
        let mut peer = Hostile::new();
        peer.tail(tail);
        for (line, (stamp, len)) in stamps.into_iter().zip(lens).enumerate() {
            peer.header(line, len, 0);
            peer.stamp(line, stamp);
        }
        for (area, word, value) in words {
            let base = [0, STAMPS_OFFSET, data_offset(MIN_CAPACITY_BYTES)][area];
            peer.word32(base + word * 4, value);
        }
        for _ in 0..8 {
            match peer.next() {
                Ok(Some(bytes)) => prop_assert!(bytes <= MAX_RECORD_BYTES),
                Ok(None) | Err(_) => break,
            }
        }
    }
}
