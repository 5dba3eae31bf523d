//! The session pages between two mappings: replies, callbacks, timeline, counters, status, and a peer that
//! writes nonsense.

use std::mem::offset_of;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lightos_protocol::control::{CallCount, MemoryUse};
use lightos_protocol::mapping::{SharedMapping, sealed_memfd};
use lightos_protocol::pages::layout::{CallbackArea, CallbackCell, Layout, ReplyArea, StatusArea};
use lightos_protocol::pages::{
    CALLBACK_CELLS, COUNTER_ROWS, ERROR_TEXT_BYTES, ExecutorState, Outcome, PAGES_BYTES, REASON_COUNT,
    REPLY_PAYLOAD_BYTES, REPLY_SLOTS, ReplyError, SessionPages, TIMELINE_SLOTS, Timeline,
};

const LONG: Duration = Duration::from_secs(10);

/// The client's mapping, the executor's, and the bare file for a hostile peer.
fn session() -> (SessionPages, SessionPages, SharedMapping) {
    let (client, fd) = SessionPages::create().unwrap();
    let file = SharedMapping::whole(&fd, PAGES_BYTES as u64).unwrap();
    (client, SessionPages::open(fd).unwrap(), file)
}

fn never() -> bool {
    false
}

#[test]
fn files_that_are_no_pages_are_refused() {
    let refused = |fd: OwnedFd| assert!(SessionPages::open(fd).is_err());
    refused(sealed_memfd("short", PAGES_BYTES as u64 - 4096).unwrap());
    refused(sealed_memfd("no-magic", PAGES_BYTES as u64).unwrap());
    refused(tempfile::tempfile().unwrap().into());
}

#[test]
fn a_reply_finds_its_waiter() {
    let (client, executor, _) = session();
    std::thread::scope(|scope| {
        for round in 0..50u32 {
            let ticket = client.replies().claim(never).unwrap();
            let reply = ticket.reply();
            let executor = &executor;
            scope.spawn(move || {
                // Every other answer comes late enough to find the client asleep.
                std::thread::sleep(Duration::from_micros(u64::from(round % 2) * 300));
                executor.replies().answer(reply, round, format!("answer {round}").as_bytes()).unwrap();
            });
            let answer = ticket.wait(never).unwrap();
            assert_eq!((answer.result, answer.payload), (round, format!("answer {round}").into_bytes()));
        }
    });
}

#[test]
fn slots_are_distinct_run_out_and_come_back() {
    let (client, executor, _) = session();
    let tickets: Vec<_> = (0..REPLY_SLOTS).map(|_| client.replies().claim(never).unwrap()).collect();
    let mut numbers: Vec<u32> = tickets.iter().map(|ticket| ticket.reply()).collect();
    numbers.dedup();
    assert_eq!(numbers.len(), REPLY_SLOTS);
    assert!(client.replies().claim(|| true).is_none());
    for ticket in tickets {
        executor.replies().answer(ticket.reply(), 0, &[1; REPLY_PAYLOAD_BYTES]).unwrap();
        assert_eq!(ticket.wait(never).unwrap().payload.len(), REPLY_PAYLOAD_BYTES);
    }
    client.replies().claim(never).unwrap().cancel();
}

#[test]
fn an_abandoned_slot_is_not_used_again() {
    let (client, executor, _) = session();
    let ticket = client.replies().claim(never).unwrap();
    let lost = ticket.reply();
    assert_eq!(ticket.wait(|| true), None);
    executor.replies().answer(lost, 0, b"late").unwrap();
    let next = client.replies().claim(never).unwrap();
    assert_ne!(next.reply(), lost);
    next.cancel();
}

#[test]
fn answers_nobody_awaits_are_violations() {
    let (client, executor, _) = session();
    for reply in [0, REPLY_SLOTS as u32 + 1, u32::MAX] {
        assert_eq!(executor.replies().answer(reply, 0, &[]), Err(ReplyError::UnknownSlot { reply }));
    }
    assert_eq!(executor.replies().answer(3, 0, &[]), Err(ReplyError::NotWaiting { reply: 3, state: 0 }));
    let ticket = client.replies().claim(never).unwrap();
    let long = vec![0; REPLY_PAYLOAD_BYTES + 1];
    let error = executor.replies().answer(ticket.reply(), 0, &long);
    assert_eq!(error, Err(ReplyError::TooLong { bytes: REPLY_PAYLOAD_BYTES + 1 }));
    executor.replies().answer(ticket.reply(), 0, &[]).unwrap();
    let twice = executor.replies().answer(ticket.reply(), 0, &[]);
    assert!(matches!(twice, Err(ReplyError::NotWaiting { .. })));
    assert_eq!(ticket.wait(never).unwrap().payload, []);
}

#[test]
fn a_reply_length_beyond_the_slot_is_cut() {
    let (client, executor, file) = session();
    let ticket = client.replies().claim(never).unwrap();
    executor.replies().answer(ticket.reply(), 0, b"short").unwrap();
    let slot = offset_of!(Layout, replies) + (ticket.reply() as usize - 1) * size_of::<ReplyArea>();
    let length = file.view::<AtomicU32>(slot + offset_of!(ReplyArea, payload_bytes)).unwrap();
    length.store(u32::MAX, Ordering::Relaxed);
    assert_eq!(ticket.wait(never).unwrap().payload.len(), REPLY_PAYLOAD_BYTES);
}

#[test]
fn callbacks_run_in_order_and_release_their_posters() {
    let (client, executor, _) = session();
    let total = CALLBACK_CELLS as u64 * 3;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for id in 0..total {
                assert!(executor.callbacks().run(id, id as u32 + 1, never));
            }
        });
        for id in 0..total {
            let callback = client.callbacks().next(LONG).expect("a callback is lost");
            assert_eq!((callback.id, callback.status), (id, id as u32 + 1));
            client.callbacks().finish(callback);
        }
    });
    assert_eq!(client.callbacks().next(Duration::ZERO), None);
}

#[test]
fn a_full_callback_queue_blocks_until_a_cell_is_free() {
    let (client, executor, _) = session();
    for id in 0..CALLBACK_CELLS as u64 {
        executor.callbacks().post(id, 0, never).unwrap();
    }
    std::thread::scope(|scope| {
        let blocked = scope.spawn(|| executor.callbacks().post(1000, 0, never));
        std::thread::sleep(Duration::from_millis(20));
        assert!(!blocked.is_finished());
        let first = client.callbacks().next(LONG).unwrap();
        client.callbacks().finish(first);
        assert_eq!(blocked.join().unwrap(), Some(CALLBACK_CELLS as u32 + 1));
    });
    assert_eq!(executor.callbacks().post(1001, 0, || true), None);
}

#[test]
fn a_client_that_dies_in_a_callback_releases_the_executor() {
    let (_client, executor, _) = session();
    let start = Instant::now();
    assert!(!executor.callbacks().run(1, 0, || start.elapsed() > Duration::from_millis(30)));
    assert!(start.elapsed() < LONG / 2);
}

#[test]
fn nonsense_in_the_callback_area_releases_nobody_by_accident() {
    let (client, executor, file) = session();
    let number = executor.callbacks().post(7, 0, never).unwrap();
    let cell = offset_of!(Layout, callbacks) + offset_of!(CallbackArea, cells) + size_of::<CallbackCell>();
    file.view::<AtomicU32>(cell + offset_of!(CallbackCell, done)).unwrap().store(77, Ordering::Relaxed);
    let start = Instant::now();
    assert!(!executor.callbacks().wait(number, || start.elapsed() > Duration::from_millis(20)));
    file.view::<AtomicU32>(cell).unwrap().store(55, Ordering::Relaxed);
    assert_eq!(client.callbacks().next(Duration::from_millis(20)), None);
}

#[test]
fn the_timeline_is_a_registrable_area_of_its_own() {
    let (client, executor, _) = session();
    let timeline = client.timeline();
    assert_eq!(timeline.bytes(), TIMELINE_SLOTS * 4);
    assert_eq!(timeline.address() % 4096, 0);
    assert_eq!(timeline.slot_address(3), Some(timeline.address() + 12));
    assert_eq!((timeline.slot_address(0), timeline.slot_address(TIMELINE_SLOTS as u32)), (None, None));
    assert!(Timeline::is_slot(TIMELINE_SLOTS as u32 - 1) && !Timeline::is_slot(TIMELINE_SLOTS as u32));
    executor.timeline().store(9, 5);
    assert_eq!((timeline.load(9), timeline.load(u32::MAX)), (5, 0));
}

#[test]
fn timeline_values_compare_across_the_wrap() {
    let (client, _, _) = session();
    let timeline = client.timeline();
    for (held, wanted, reached) in
        [(5, 5, true), (6, 5, true), (4, 5, false), (2, u32::MAX, true), (u32::MAX, 2, false)]
    {
        timeline.store(1, held);
        assert_eq!(timeline.reached(1, wanted), reached, "{held} {wanted}");
    }
}

#[test]
fn timeline_waits_end_by_value_or_by_abort() {
    let (client, executor, _) = session();
    let dead = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reached = scope.spawn(|| client.timeline().wait(1, 10, never));
        let aborted = scope.spawn(|| client.timeline().wait(2, 10, || dead.load(Ordering::Relaxed)));
        std::thread::sleep(Duration::from_millis(15));
        executor.timeline().store(1, 9);
        assert!(!reached.is_finished());
        executor.timeline().store(1, 11);
        assert!(reached.join().unwrap());
        assert!(!aborted.is_finished());
        dead.store(true, Ordering::Relaxed);
        assert!(!aborted.join().unwrap());
    });
}

#[test]
fn the_first_sticky_error_stays() {
    let (client, executor, _) = session();
    assert_eq!(client.status().sticky_error(), 0);
    executor.status().set_error_text("illegal address at 0x10");
    assert!(executor.status().set_sticky_error(700));
    assert!(!client.status().set_sticky_error(46));
    assert_eq!(client.status().sticky_error(), 700);
    assert_eq!(client.status().error_text(), "illegal address at 0x10");
}

#[test]
fn the_executor_announces_its_state() {
    let (client, executor, file) = session();
    assert_eq!(client.status().wait_while_starting(Duration::from_millis(5)), ExecutorState::Starting);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| client.status().wait_while_starting(LONG));
        std::thread::sleep(Duration::from_millis(10));
        executor.status().set_executor_state(ExecutorState::Ready);
        assert_eq!(waiting.join().unwrap(), ExecutorState::Ready);
    });
    let word = file.view::<AtomicU32>(offset_of!(StatusArea, executor_state)).unwrap();
    word.store(12345, Ordering::Relaxed);
    assert_eq!(client.status().executor_state(), ExecutorState::Failed);
}

#[test]
fn hostile_error_text_is_cut_and_repaired() {
    let (client, executor, file) = session();
    executor.status().set_error_text(&"x".repeat(5000));
    assert_eq!(client.status().error_text().len(), ERROR_TEXT_BYTES);
    let length = file.view::<AtomicU32>(offset_of!(StatusArea, error_text_bytes)).unwrap();
    length.store(u32::MAX, Ordering::Relaxed);
    assert_eq!(client.status().error_text().len(), ERROR_TEXT_BYTES);
    let first = file.view::<AtomicU64>(offset_of!(StatusArea, error_text)).unwrap();
    first.store(u64::MAX, Ordering::Relaxed);
    assert!(client.status().error_text().starts_with('\u{fffd}'));
}

#[test]
fn counters_name_what_was_counted() {
    let (client, daemon, _) = session();
    let counters = client.counters();
    for outcome in [Outcome::Forwarded, Outcome::Forwarded, Outcome::Passed, Outcome::Refused] {
        counters.count(1, outcome);
    }
    counters.count(COUNTER_ROWS - 1, Outcome::Failed);
    counters.count(COUNTER_ROWS, Outcome::Failed);
    counters.count_reason(0);
    counters.count_reason(REASON_COUNT);
    counters.traffic().launches.fetch_add(3, Ordering::Relaxed);
    counters.memory_allocated(100);
    counters.memory_allocated(50);
    counters.memory_freed(120);
    let hooks = ["cuInit", "cuLaunchKernel", "cuCtxCreate"].map(String::from);
    client.counters().refuse_unknown(3, b"cuFutureFunction");
    client.counters().refuse_unknown(3, b"cuFutureFunction");
    client.counters().refuse_unknown(5, b"\x1b[2J");
    client.counters().refuse_unknown(64, b"cuNoRoom");
    let snapshot = daemon.counters().snapshot(&hooks, &["stream capture".into(), "no".into()]);
    let expected =
        CallCount { function: "cuLaunchKernel".into(), forwarded: 2, passed: 1, failed: 0, refused: 1 };
    let future = CallCount { function: "cuFutureFunction".into(), refused: 2, ..CallCount::default() };
    assert_eq!(snapshot.calls, [expected, future]);
    assert_eq!(snapshot.reasons, [("stream capture".to_owned(), 1)]);
    assert_eq!(snapshot.traffic.launches, 3);
    assert_eq!(snapshot.memory, MemoryUse { current_bytes: 30, peak_bytes: 150 });
}
