//! Streams, events, host functions: order, queries, time, and what native refuses.

#[path = "launch/device.rs"]
mod device;

use std::ffi::c_void;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use device::{Notes, apply, event, function, get, load, ok, put, start, stream, synchronize, sys, words};
use lightos_tests::twice::twice;

/// `CU_EVENT_DISABLE_TIMING`.
const UNTIMED: u32 = 2;
/// `CU_STREAM_NON_BLOCKING`.
const NON_BLOCKING: u32 = 1;

#[test]
fn work_of_one_stream_is_in_order() {
    twice("work_of_one_stream_is_in_order", || {
        start();
        let module = load();
        let (add, times) = (function(module, c"add"), function(module, c"times"));
        let out = words(8);
        let own = stream(NON_BLOCKING);
        for round in 0..50 {
            apply(add, out, round, 8, own);
            apply(times, out, 3, 8, own);
        }
        // SAFETY: live handles.
        unsafe { ok(sys::cuStreamSynchronize(own)) };
        let mut expected = 0_u32;
        for round in 0..50 {
            expected = expected.wrapping_add(round).wrapping_mul(3);
        }
        assert_eq!(get(out, 8), [expected; 8]);
        // SAFETY: live handles.
        unsafe {
            ok(sys::cuStreamQuery(own));
            ok(sys::cuStreamDestroy_v2(own));
        }
        vec![expected.to_string()]
    });
}

#[test]
fn events_order_streams() {
    twice("events_order_streams", || {
        start();
        let module = load();
        let (add, times) = (function(module, c"add"), function(module, c"times"));
        let out = words(4);
        let streams = [stream(NON_BLOCKING), stream(NON_BLOCKING), stream(NON_BLOCKING)];
        let events = [event(UNTIMED), event(UNTIMED), event(UNTIMED)];
        let mut expected = 0_u32;
        for round in 0..30 {
            let (now, next) = (round % 3, (round + 1) % 3);
            apply(add, out, round as u32 + 1, 4, streams[now]);
            apply(times, out, 5, 4, streams[now]);
            expected = expected.wrapping_add(round as u32 + 1).wrapping_mul(5);
            // SAFETY: live handles.
            unsafe {
                ok(sys::cuEventRecord(events[now], streams[now]));
                ok(sys::cuStreamWaitEvent(streams[next], events[now], 0));
            }
        }
        // SAFETY: live handles; destroying a stream lets its work finish.
        unsafe {
            streams.iter().for_each(|&stream| ok(sys::cuStreamDestroy_v2(stream)));
            events.iter().for_each(|&event| ok(sys::cuEventSynchronize(event)));
            events.iter().for_each(|&event| ok(sys::cuEventQuery(event)));
            events.iter().for_each(|&event| ok(sys::cuEventDestroy_v2(event)));
        }
        assert_eq!(get(out, 4), [expected; 4]);
        vec![expected.to_string()]
    });
}

#[test]
fn the_legacy_stream_waits_for_blocking_streams() {
    twice("the_legacy_stream_waits_for_blocking_streams", || {
        start();
        let module = load();
        let (add, times) = (function(module, c"add"), function(module, c"times"));
        let out = words(1024);
        let (first, second) = (stream(0), stream(0));
        for _ in 0..10 {
            apply(add, out, 1, 1024, first);
            apply(times, out, 2, 1024, null_mut());
            apply(add, out, 3, 1024, second);
            // CU_STREAM_LEGACY
            apply(times, out, 2, 1024, device::number(1).cast());
        }
        let mut expected = 0_u32;
        for _ in 0..10 {
            expected = ((expected + 1) * 2 + 3) * 2;
        }
        assert_eq!(get(out, 1024), vec![expected; 1024]);
        vec![expected.to_string()]
    });
}

#[test]
fn every_thread_has_its_default_stream() {
    let report = twice("every_thread_has_its_default_stream", || {
        start();
        let mut context = null_mut();
        // SAFETY: a valid out-pointer.
        ok(unsafe { sys::cuCtxGetCurrent(&mut context) });
        let context = context as usize;
        let module = load();
        let (add, times) = (function(module, c"add") as usize, function(module, c"times") as usize);
        let results = (1..=4_u32).map(|value| {
            std::thread::spawn(move || {
                // SAFETY: the context lives on.
                ok(unsafe { sys::cuCtxSetCurrent(device::number(context).cast()) });
                // CU_STREAM_PER_THREAD
                let own = device::number(2).cast();
                let out = words(4);
                for _ in 0..20 {
                    apply(device::number(add).cast(), out, value, 4, own);
                    apply(device::number(times).cast(), out, 3, 4, own);
                }
                // SAFETY: a special stream handle.
                unsafe {
                    ok(sys::cuStreamSynchronize(own));
                    ok(sys::cuStreamQuery(own));
                }
                get(out, 4)
            })
        });
        let results: Vec<_> =
            results.collect::<Vec<_>>().into_iter().map(|thread| thread.join().unwrap()).collect();
        results.iter().map(|result| format!("{result:?}")).collect()
    });
    assert_eq!(report["launches"], 160, "{report:#}");
}

#[test]
fn events_tell_the_time_and_their_state() {
    twice("events_tell_the_time_and_their_state", || {
        start();
        let mut notes = Notes::default();
        let add = function(load(), c"add");
        let out = words(1);
        let (first, second, never, untimed) = (event(0), event(0), event(0), event(UNTIMED));
        let mut time = 0.0;
        // SAFETY: live handles and valid out-pointers, or null on purpose.
        unsafe {
            notes.code("query before a record", sys::cuEventQuery(never));
            notes.code("wait before a record", sys::cuEventSynchronize(never));
            ok(sys::cuEventRecord(first, null_mut()));
            apply(add, out, 1, 1, null_mut());
            ok(sys::cuEventRecord(second, null_mut()));
            ok(sys::cuEventRecord(untimed, null_mut()));
            ok(sys::cuEventSynchronize(second));
            ok(sys::cuEventSynchronize(untimed));
            notes.code("query after", sys::cuEventQuery(second));
            notes.code("elapsed", sys::cuEventElapsedTime_v2(&mut time, first, second));
            notes.add("forward", (0.0..10_000.0).contains(&time));
            notes.code("without a record", sys::cuEventElapsedTime_v2(&mut time, first, never));
            notes.code("without timing", sys::cuEventElapsedTime_v2(&mut time, first, untimed));
            notes.code("null event", sys::cuEventRecord(null_mut(), null_mut()));
            notes.code("null query", sys::cuEventQuery(null_mut()));
            notes.code("null out", sys::cuEventCreate(null_mut(), 0));
            notes.code("null stream out", sys::cuStreamCreate(null_mut(), 0));
            notes.code("stream flags", sys::cuStreamCreate(&mut null_mut(), 77));
            notes.code("destroy null", sys::cuEventDestroy_v2(null_mut()));
        }
        notes.add("work", get(out, 1));
        notes.0
    });
}

#[test]
fn streams_and_events_are_reused_many_times() {
    twice("streams_and_events_are_reused_many_times", || {
        start();
        let add = function(load(), c"add");
        let out = words(1);
        for _ in 0..300 {
            let (own, done) = (stream(NON_BLOCKING), event(UNTIMED));
            apply(add, out, 1, 1, own);
            // SAFETY: live handles.
            unsafe {
                ok(sys::cuEventRecord(done, own));
                ok(sys::cuStreamDestroy_v2(own));
                ok(sys::cuEventSynchronize(done));
                ok(sys::cuEventDestroy_v2(done));
            }
        }
        assert_eq!(get(out, 1), [300]);
        vec![]
    });
}

static RAN: AtomicU32 = AtomicU32::new(0);

unsafe extern "C" fn host_function(data: *mut c_void) {
    // SAFETY: the tests pass pointers to words that outlive the stream's work.
    let word = unsafe { &*data.cast::<AtomicU32>() };
    word.store(RAN.fetch_add(1, SeqCst) + 1, SeqCst);
}

unsafe extern "C" fn callback(_: sys::CUstream, status: sys::CUresult, data: *mut c_void) {
    assert_eq!(status as u32, 0);
    // SAFETY: as above.
    unsafe { host_function(data) };
}

#[test]
fn host_functions_run_in_stream_order() {
    let report = twice("host_functions_run_in_stream_order", || {
        start();
        let mut notes = Notes::default();
        let add = function(load(), c"add");
        let out = words(1);
        let own = stream(NON_BLOCKING);
        let order: [AtomicU32; 3] = Default::default();
        let data = |index: usize| (&raw const order[index]).cast_mut().cast::<c_void>();
        // SAFETY: live handles; the words outlive the wait.
        unsafe {
            apply(add, out, 1, 1, own);
            ok(sys::cuLaunchHostFunc(own, Some(host_function), data(0)));
            ok(sys::cuStreamAddCallback(own, Some(callback), data(1), 0));
            apply(add, out, 1, 1, own);
            ok(sys::cuLaunchHostFunc(own, Some(host_function), data(2)));
            ok(sys::cuStreamSynchronize(own));
            notes.code("no function", sys::cuLaunchHostFunc(own, None, null_mut()));
            notes.code("flags", sys::cuStreamAddCallback(own, Some(callback), null_mut(), 1));
        }
        notes.add("order", order.map(|word| word.load(SeqCst)));
        notes.add("work", get(out, 1));
        notes.0
    });
    assert_eq!(report["calls"]["cuLaunchHostFunc"]["forwarded"], 2, "{report:#}");
}

#[test]
fn streams_wait_for_and_write_words() {
    twice("streams_wait_for_and_write_words", || {
        start();
        let mut notes = Notes::default();
        let module = load();
        let (add, times) = (function(module, c"add"), function(module, c"times"));
        let (out, flag) = (words(1), words(4));
        let (first, second) = (stream(NON_BLOCKING), stream(NON_BLOCKING));
        put(out, &[1]);
        // SAFETY: live handles; the words are device memory.
        unsafe {
            ok(sys::cuStreamWaitValue32_v2(second, flag, 7, 0));
            apply(times, out, 10, 1, second);
            apply(add, out, 4, 1, first);
            ok(sys::cuStreamWriteValue32_v2(first, flag, 7, 0));
            ok(sys::cuStreamWriteValue64_v2(first, flag + 8, u64::MAX - 1, 0));
            ok(sys::cuStreamSynchronize(second));
            ok(sys::cuStreamSynchronize(first));
            notes.code("odd address", sys::cuStreamWriteValue32_v2(first, flag + 2, 1, 0));
        }
        notes.add("words", (get(out, 1), get(flag, 4)));
        synchronize();
        notes.0
    });
}
