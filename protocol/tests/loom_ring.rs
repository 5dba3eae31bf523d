//! The ring's commit, park and wake protocol under loom, which explores every interleaving and every value
//! a weak memory may show.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p lightos-protocol --release --test loom_ring`
#![cfg(loom)]

use std::time::Duration;

use lightos_protocol::ring::{Consumer, Producer, RingMemory};
use loom::sync::Arc;
use loom::thread;

/// Long for the real ring; the model's park has no time and a lost wake-up is a dead lock.
const EVER: Duration = Duration::from_secs(3600);

fn model(preemptions: usize, body: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(body);
}

fn next(consumer: &mut Consumer, scratch: &mut Vec<u8>) -> (u16, Vec<u8>) {
    let record = consumer.next(EVER, scratch).unwrap().unwrap();
    (record.header.op, record.payload.to_vec())
}

#[test]
fn a_sleeping_consumer_is_always_woken() {
    model(3, || {
        let memory = RingMemory::in_memory(4);
        let producer = Producer::new(memory.clone());
        let mut consumer = Consumer::new(memory);
        let pushing = thread::spawn(move || producer.push(5, 0, &[b"abc"]).unwrap());
        assert_eq!(next(&mut consumer, &mut Vec::new()), (5, b"abc".to_vec()));
        pushing.join().unwrap();
    });
}

#[test]
fn two_producers_lose_nothing_and_keep_their_order() {
    model(3, || {
        let memory = RingMemory::in_memory(8);
        let producer = Arc::new(Producer::new(memory.clone()));
        let mut consumer = Consumer::new(memory);
        let threads = [10u16, 20].map(|base| {
            let producer = Arc::clone(&producer);
            thread::spawn(move || {
                producer.push(base, 0, &[&[base as u8]]).unwrap();
                if base == 10 {
                    producer.push(base + 1, 0, &[&[base as u8 + 1; 60]]).unwrap();
                }
            })
        });
        let mut scratch = Vec::new();
        let got: Vec<u16> = (0..3).map(|_| next(&mut consumer, &mut scratch).0).collect();
        let place = |op| got.iter().position(|&found| found == op).unwrap();
        assert!(place(10) < place(11), "{got:?}");
        assert!(got.contains(&20), "{got:?}");
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

#[test]
fn lines_are_reused_only_after_they_were_copied() {
    model(3, || {
        let memory = RingMemory::in_memory(2);
        let producer = Producer::new(memory.clone());
        let mut consumer = Consumer::new(memory);
        let pushing = thread::spawn(move || {
            for op in 1..=3u16 {
                producer.push(op, 0, &[&[op as u8; 40]]).unwrap();
            }
        });
        let mut scratch = Vec::new();
        for op in 1..=3u16 {
            assert_eq!(next(&mut consumer, &mut scratch), (op, vec![op as u8; 40]));
        }
        pushing.join().unwrap();
    });
}

#[test]
fn a_consumer_that_leaves_ends_the_wait_for_space() {
    model(3, || {
        let memory = RingMemory::in_memory(1);
        let producer = Producer::new(memory.clone());
        let consumer = Consumer::new(memory);
        producer.push(1, 0, &[]).unwrap();
        let leaving = thread::spawn(move || drop(consumer));
        assert!(producer.push(2, 0, &[]).is_err());
        assert!(producer.is_disconnected());
        leaving.join().unwrap();
    });
}
