//! Prints what a push costs the calling thread, in nanoseconds: `cargo run --release -p lightos-protocol
//! --example ring_cost`.
//!
//! Records of 128 bytes: alone (the consumer rests, the ring is drained between bursts) and with a consumer
//! on another thread that copies every record out. The figure of a burst is its total divided by its
//! records; median, mean and best of many bursts are shown; the mean holds the waits for space, so it is
//! the slower of producer and consumer.

use std::hint::black_box;
use std::time::{Duration, Instant};

use lightos_protocol::record::HEADER_BYTES;
use lightos_protocol::ring::{Consumer, Producer, RingMemory};

const BURST: usize = 4096;
const BURSTS: usize = 400;

fn main() -> std::io::Result<()> {
    let payload = [7u8; 128 - HEADER_BYTES];
    let (memory, fd) = RingMemory::create(4 << 20)?;
    let mut consumer = Consumer::new(RingMemory::open(fd)?).with_spin(Duration::from_millis(1));
    let producer = Producer::new(memory);
    let mut scratch = Vec::new();

    let alone = bursts(|| {
        let ns = burst(&producer, &payload);
        for _ in 0..BURST {
            consumer.next(Duration::ZERO, &mut scratch).expect("own records are sound");
        }
        ns
    });
    report("alone", alone);

    let (memory, fd) = RingMemory::create(4 << 20)?;
    let mut consumer = Consumer::new(RingMemory::open(fd)?).with_spin(Duration::from_millis(1));
    let producer = Producer::new(memory);
    let reader = std::thread::spawn(move || {
        let mut left = BURST * BURSTS;
        while left > 0 {
            let record =
                consumer.next(Duration::from_millis(100), &mut scratch).expect("own records are sound");
            left -= usize::from(black_box(record).is_some());
        }
    });
    report("with a consumer", bursts(|| burst(&producer, &payload)));
    reader.join().expect("consumer ends");
    Ok(())
}

/// Pushes a burst; nanoseconds per record.
fn burst(producer: &Producer, payload: &[u8]) -> f64 {
    let start = Instant::now();
    for _ in 0..BURST {
        producer.push(black_box(1), 0, &[black_box(payload)]).expect("consumer lives");
    }
    start.elapsed().as_nanos() as f64 / BURST as f64
}

fn bursts(mut once: impl FnMut() -> f64) -> Vec<f64> {
    let mut all: Vec<f64> = (0..BURSTS).map(|_| once()).collect();
    all.sort_by(f64::total_cmp);
    all
}

fn report(name: &str, sorted: Vec<f64>) {
    let mean = sorted.iter().sum::<f64>() / BURSTS as f64;
    let (median, best) = (sorted[BURSTS / 2], sorted[0]);
    println!(
        "{name:>16}: median {median:5.1} ns, mean {mean:5.1} ns, best {best:5.1} ns per 128-byte record"
    );
}
