//! The ring between honest peers: two mappings, several threads, a full ring, a sleeping consumer, a
//! consumer that leaves.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lightos_protocol::record::{HEADER_BYTES, Handle, Launch, LaunchView, Op};
use lightos_protocol::ring::{
    Consumer, MAX_RECORD_BYTES, MIN_CAPACITY_BYTES, Producer, PushError, RingMemory,
};
use proptest::prelude::*;

const LONG: Duration = Duration::from_secs(20);

fn ring(capacity_bytes: usize) -> (Producer, Consumer) {
    let (memory, fd) = RingMemory::create(capacity_bytes).unwrap();
    (Producer::new(memory), Consumer::new(RingMemory::open(fd).unwrap()))
}

#[test]
fn parts_arrive_as_one_payload_with_their_header() {
    let (producer, mut consumer) = ring(MIN_CAPACITY_BYTES);
    producer.push(7, 3, &[b"ab", b"", b"cde"]).unwrap();
    producer.send(&Handle { handle: 99 }, 5, &[b"tail"]).unwrap();
    let mut scratch = Vec::new();
    let first = consumer.next(LONG, &mut scratch).unwrap().unwrap();
    assert_eq!((first.header.op, first.header.flags, first.header.reply), (7, 3, 0));
    assert_eq!((first.header.len as usize, first.payload), (HEADER_BYTES + 5, &b"abcde"[..]));
    let second = consumer.next(LONG, &mut scratch).unwrap().unwrap();
    assert_eq!((second.header.op, second.header.reply), (Op::StreamDestroy as u16, 5));
    assert_eq!(second.payload, [&99u64.to_ne_bytes()[..], b"tail"].concat());
    assert!(consumer.next(Duration::ZERO, &mut scratch).unwrap().is_none());
}

#[test]
fn capacity_is_checked() {
    for bad in [0, MIN_CAPACITY_BYTES - 1, MIN_CAPACITY_BYTES / 2, 3 * MIN_CAPACITY_BYTES, 2 << 30] {
        assert!(RingMemory::create(bad).is_err(), "{bad}");
    }
}

#[test]
fn the_longest_record_passes_and_a_longer_one_does_not() {
    let (producer, mut consumer) = ring(MIN_CAPACITY_BYTES);
    let longest: Vec<u8> = (0..MAX_RECORD_BYTES - HEADER_BYTES).map(|i| i as u8).collect();
    let mut scratch = Vec::new();
    // An odd start makes the record straddle the end of the data area.
    for round in 0..9 {
        producer.push(round, 0, &[&[1; 100]]).unwrap();
        consumer.next(LONG, &mut scratch).unwrap().unwrap();
        producer.push(round, 0, &[&longest]).unwrap();
        assert_eq!(consumer.next(LONG, &mut scratch).unwrap().unwrap().payload, longest);
    }
    let error = producer.push(1, 0, &[&longest, &[0]]).unwrap_err();
    assert_eq!(error, PushError::TooLong { bytes: MAX_RECORD_BYTES + 1 });
    producer.push(2, 0, &[]).unwrap();
    assert_eq!(consumer.next(LONG, &mut scratch).unwrap().unwrap().header.op, 2);
}

#[test]
fn launch_with_every_parameter_byte_fits() {
    let (producer, mut consumer) = ring(MIN_CAPACITY_BYTES);
    let params = vec![0xa5; 32_764];
    let attributes = vec![0u8; 64 * 72];
    let launch = Launch {
        function: 1,
        attribute_count: 64,
        param_bytes: 32_764,
        grid: [4, 5, 6],
        ..Launch::default()
    };
    producer.send(&launch, 0, &[&attributes, &params]).unwrap();
    let mut scratch = Vec::new();
    let record = consumer.next(LONG, &mut scratch).unwrap().unwrap();
    let view = LaunchView::parse(record.payload).unwrap();
    assert_eq!((view.launch, view.params), (launch, &params[..]));
    assert_eq!(view.attributes().len(), 64);
}

#[test]
fn threads_share_the_ring_without_losing_or_reordering() {
    const THREADS: u16 = 4;
    const EACH: u32 = 4000;
    let (producer, mut consumer) = ring(MIN_CAPACITY_BYTES);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let producer = &producer;
            scope.spawn(move || {
                for index in 0..EACH {
                    let filler = vec![index as u8; (index as usize * 37 + thread as usize) % 700];
                    producer.push(thread, 0, &[&index.to_ne_bytes(), &filler]).unwrap();
                }
            });
        }
        let mut expected = [0; THREADS as usize];
        let mut scratch = Vec::new();
        for _ in 0..u32::from(THREADS) * EACH {
            let record = consumer.next(LONG, &mut scratch).unwrap().expect("a record is lost");
            let (index, filler) = record.payload.split_at(4);
            let index = u32::from_ne_bytes(index.try_into().unwrap());
            let next = &mut expected[usize::from(record.header.op)];
            assert_eq!(index, *next);
            assert_eq!(filler.len(), (index as usize * 37 + usize::from(record.header.op)) % 700);
            assert!(filler.iter().all(|&byte| byte == index as u8));
            *next += 1;
        }
    });
    assert!(consumer.next(Duration::ZERO, &mut Vec::new()).unwrap().is_none());
}

#[test]
fn a_full_ring_blocks_and_loses_nothing() {
    let (producer, mut consumer) = ring(MIN_CAPACITY_BYTES);
    const RECORDS: u32 = 1000;
    let blocked = AtomicBool::new(true);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for index in 0..RECORDS {
                producer.push(1, 0, &[&index.to_ne_bytes(), &[0; 1000]]).unwrap();
            }
            blocked.store(false, Ordering::Release);
        });
        std::thread::sleep(Duration::from_millis(50));
        assert!(blocked.load(Ordering::Acquire), "1000 records of 1 KiB cannot fit 256 KiB");
        let mut scratch = Vec::new();
        for index in 0..RECORDS {
            let record = consumer.next(LONG, &mut scratch).unwrap().expect("a record is lost");
            assert_eq!(record.payload[..4], index.to_ne_bytes());
        }
    });
}

#[test]
fn should_abort_ends_a_wait_for_space_for_good() {
    let (memory, fd) = RingMemory::create(MIN_CAPACITY_BYTES).unwrap();
    let _consumer = Consumer::new(RingMemory::open(fd).unwrap());
    let dead = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&dead);
    let producer = Producer::with_abort(memory, move || told.load(Ordering::Relaxed));
    let payload = vec![0; MAX_RECORD_BYTES - HEADER_BYTES];
    producer.push(1, 0, &[&payload]).unwrap();
    producer.push(1, 0, &[&payload]).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| producer.push(1, 0, &[]));
        std::thread::sleep(Duration::from_millis(20));
        assert!(!waiting.is_finished());
        dead.store(true, Ordering::Relaxed);
        assert_eq!(waiting.join().unwrap(), Err(PushError::Disconnected));
    });
    assert_eq!(producer.push(1, 0, &[]), Err(PushError::Disconnected));
}

#[test]
fn a_consumer_that_leaves_disconnects_producers() {
    let (producer, consumer) = ring(MIN_CAPACITY_BYTES);
    producer.push(1, 0, &[]).unwrap();
    drop(consumer);
    assert_eq!(producer.push(1, 0, &[]), Err(PushError::Disconnected));
    assert!(producer.is_disconnected());
}

#[test]
fn a_sleeping_consumer_wakes_long_before_its_timeout() {
    let (memory, fd) = RingMemory::create(MIN_CAPACITY_BYTES).unwrap();
    let producer = Producer::new(memory);
    let mut consumer = Consumer::new(RingMemory::open(fd).unwrap()).with_spin(Duration::ZERO);
    let sleeping = std::thread::spawn(move || {
        let mut scratch = Vec::new();
        consumer.next(LONG, &mut scratch).unwrap().map(|record| record.header.op)
    });
    std::thread::sleep(Duration::from_millis(30));
    let start = Instant::now();
    producer.push(9, 0, &[]).unwrap();
    assert_eq!(sleeping.join().unwrap(), Some(9));
    assert!(start.elapsed() < LONG / 4);
}

#[test]
fn an_idle_consumer_returns_at_its_timeout() {
    let (_producer, mut consumer) = ring(MIN_CAPACITY_BYTES);
    let start = Instant::now();
    assert!(consumer.next(Duration::from_millis(30), &mut Vec::new()).unwrap().is_none());
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(30) && took < LONG / 4, "{took:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any mixture of sizes, consumed in any rhythm, comes out as it went in.
    #[test]
    fn any_sequence_of_records_survives(
        records in prop::collection::vec((any::<u16>(), 0usize..20_000, any::<u8>()), 1..40),
        rhythm in prop::collection::vec(any::<bool>(), 40),
    ) {
        let (producer, mut consumer) = ring(MIN_CAPACITY_BYTES);
        let mut scratch = Vec::new();
        let mut waiting = std::collections::VecDeque::new();
        let mut queued = 0;
        for ((op, bytes, fill), pause) in records.into_iter().zip(rhythm) {
            while pause || queued + bytes + 4096 > MIN_CAPACITY_BYTES {
                let Some((op, bytes, fill)) = waiting.pop_front() else { break };
                let record = consumer.next(LONG, &mut scratch).unwrap().unwrap();
                prop_assert_eq!(record.header.op, op);
                prop_assert_eq!(record.payload, vec![fill; bytes]);
                queued -= bytes + 4096;
            }
            producer.push(op, 0, &[&vec![fill; bytes]]).unwrap();
            queued += bytes + 4096;
            waiting.push_back((op, bytes, fill));
        }
        for (op, bytes, fill) in waiting {
            let record = consumer.next(LONG, &mut scratch).unwrap().unwrap();
            prop_assert_eq!(record.header.op, op);
            prop_assert_eq!(record.payload, vec![fill; bytes]);
        }
    }
}
