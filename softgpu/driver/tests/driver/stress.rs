//! Several threads drive the same streams with random work; order must hold and nothing may hang.

use std::sync::atomic::{AtomicU32, Ordering};

use cuda::api::{context, copy, event, memory, memset, stream};

use crate::support::{ok, primary};

const THREADS: u32 = 4;
const ROUNDS: u32 = 600;

/// A small generator (xorshift); seeds are never zero.
struct Random(u32);

impl Random {
    fn below(&mut self, limit: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0 % limit
    }
}

/// Each thread owns a word. It alone writes to it, through streams that it orders by events, so the word always holds the last value
/// queued at a synchronisation.
fn drive(seed: u32, streams: &[u64], word: u64, done: u64) {
    primary();
    let mut random = Random(seed);
    let mut last = 0;
    for round in 1..=ROUNDS {
        let target = streams[random.below(streams.len() as u32) as usize];
        ok!(stream::cuStreamWaitEvent(target, done, 0));
        match random.below(3) {
            0 => {
                ok!(memset::cuMemsetD32Async(word, round, 1, target));
                ok!(event::cuEventRecord(done, target));
            }
            1 => {
                ok!(stream::cuStreamWriteValue32_v2(target, word, round, 0));
                ok!(event::cuEventRecord(done, target));
            }
            _ => {
                // The NULL stream knows nothing of non-blocking streams: the event orders it too.
                ok!(stream::cuStreamWaitEvent(0, done, 0));
                ok!(memset::cuMemsetD32_v2(word, round, 1));
                ok!(event::cuEventRecord(done, 0));
            }
        }
        last = round;
        if random.below(8) == 0 {
            let mut value = 0u32;
            ok!(event::cuEventSynchronize(done));
            ok!(copy::cuMemcpyDtoH_v2(&raw mut value as u64, word, 4));
            assert_eq!(value, last);
        }
        if random.below(16) == 0 {
            let mut scratch = 0;
            ok!(memory::cuMemAlloc_v2(&mut scratch, 1 + random.below(1 << 20) as usize));
            ok!(memory::cuMemFree_v2(scratch));
        }
    }
    ok!(context::cuCtxSynchronize());
    let mut value = 0u32;
    ok!(copy::cuMemcpyDtoH_v2(&raw mut value as u64, word, 4));
    assert_eq!(value, last);
}

#[test]
fn threads_share_streams_without_hanging() {
    primary();
    let streams: Vec<u64> = [0, 0, 1, 1]
        .into_iter()
        .map(|flags| {
            let mut handle = 0;
            ok!(stream::cuStreamCreate(&mut handle, flags));
            handle
        })
        .chain([0, 2])
        .collect();
    let finished = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (streams, finished) = (&streams, &finished);
            let (mut word, mut done) = (0, 0);
            ok!(memory::cuMemAlloc_v2(&mut word, 4));
            ok!(event::cuEventCreate(&mut done, 2));
            scope.spawn(move || {
                drive(0x9e37_79b9 ^ (thread + 1), streams, word, done);
                finished.fetch_add(1, Ordering::Relaxed);
            });
        }
    });
    assert_eq!(finished.load(Ordering::Relaxed), THREADS);
}
