//! A ring whose shared memory the peer writes at will: the input is a list of stores into the file, with a
//! look at the ring after every few.
//!
//! `cargo +nightly fuzz run consumer` in `protocol/`.
#![no_main]

use std::mem::offset_of;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use lightos_protocol::mapping::SharedMapping;
use lightos_protocol::record::HEADER_BYTES;
use lightos_protocol::ring::layout::{Control, STAMPS_OFFSET, data_offset, file_bytes};
use lightos_protocol::ring::{Consumer, MAX_RECORD_BYTES, MIN_CAPACITY_BYTES, RingMemory};

fuzz_target!(|bytes: &[u8]| {
    let (_memory, fd) = RingMemory::create(MIN_CAPACITY_BYTES).expect("memfd");
    let file = SharedMapping::whole(&fd, file_bytes(MIN_CAPACITY_BYTES)).expect("map");
    let mut consumer = Consumer::new(RingMemory::open(fd).expect("own ring")).with_spin(Duration::ZERO);
    let mut scratch = Vec::new();
    // Each step: which area, which word of it, the value.
    for (step, store) in bytes.chunks_exact(7).enumerate() {
        let word = usize::from(u16::from_le_bytes([store[1], store[2]]));
        let value = u32::from_le_bytes([store[3], store[4], store[5], store[6]]);
        let offset = match store[0] % 5 {
            0 => offset_of!(Control, tail),
            1 => offset_of!(Control, tail) + 4,
            2 => offset_of!(Control, head),
            3 => STAMPS_OFFSET + word % (MIN_CAPACITY_BYTES / 64) * 4,
            _ => data_offset(MIN_CAPACITY_BYTES) + word * 4,
        };
        if let Some(word) = file.view::<AtomicU32>(offset) {
            word.store(value, Ordering::Relaxed);
        }
        if step % 3 == 2 {
            match consumer.next(Duration::ZERO, &mut scratch) {
                Ok(Some(record)) => assert!(record.payload.len() <= MAX_RECORD_BYTES - HEADER_BYTES),
                Ok(None) => {}
                Err(_) => return,
            }
        }
    }
});
