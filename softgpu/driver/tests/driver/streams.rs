//! Order within and between streams, events, host functions, waits and writes.

use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use cuda::api::{context, event, memory, memset, stream};

use crate::support::{INVALID_HANDLE, INVALID_VALUE, code, ok, primary};

const NOT_READY: u32 = 600;

fn pinned<T>() -> &'static T {
    let mut pointer = std::ptr::null_mut();
    ok!(memory::cuMemHostAlloc(&mut pointer, 4096, 0));
    // SAFETY: zeroed pinned memory that is never freed, larger and more aligned than the atomics the tests use.
    unsafe { &*pointer.cast::<T>() }
}

fn new_stream(flags: u32) -> u64 {
    let mut handle = 0;
    ok!(stream::cuStreamCreate(&mut handle, flags));
    handle
}

fn new_event(flags: u32) -> u64 {
    let mut handle = 0;
    ok!(event::cuEventCreate(&mut handle, flags));
    handle
}

unsafe extern "C" fn wait_for_gate(gate: *mut c_void) {
    // SAFETY: the test passes a live atomic.
    let gate = unsafe { &*gate.cast::<AtomicBool>() };
    while !gate.load(Ordering::Acquire) {
        std::thread::sleep(Duration::from_micros(50));
    }
}

fn block(stream: u64, gate: &AtomicBool) {
    ok!(stream::cuLaunchHostFunc(stream, Some(wait_for_gate), std::ptr::from_ref(gate).cast_mut().cast()));
}

#[test]
fn a_stream_runs_its_work_in_order() {
    primary();
    let (stream_handle, word) = (new_stream(1), pinned::<AtomicU32>());
    let gate = AtomicBool::new(false);
    block(stream_handle, &gate);
    let at = std::ptr::from_ref(word) as u64;
    ok!(memset::cuMemsetD32Async(at, 1, 1, stream_handle));
    ok!(stream::cuStreamWriteValue32_v2(stream_handle, at + 4, 2, 0));
    assert_eq!(code!(stream::cuStreamQuery(stream_handle)), NOT_READY);
    assert_eq!(word.load(Ordering::Acquire), 0);
    gate.store(true, Ordering::Release);
    ok!(stream::cuStreamSynchronize(stream_handle));
    ok!(stream::cuStreamQuery(stream_handle));
    assert_eq!(word.load(Ordering::Acquire), 1);
    ok!(stream::cuStreamDestroy_v2(stream_handle));
    assert_eq!(code!(stream::cuStreamSynchronize(stream_handle)), INVALID_HANDLE);
}

#[test]
fn the_legacy_stream_orders_blocking_streams_alone() {
    crate::support::in_own_process("streams::the_legacy_stream_orders_blocking_streams_alone", || {
        primary();
        let (blocking, free, word) = (new_stream(0), new_stream(1), pinned::<AtomicU32>());
        let at = std::ptr::from_ref(word) as u64;
        let gate = AtomicBool::new(false);
        block(blocking, &gate);
        ok!(memset::cuMemsetD32Async(at, 7, 1, 0));
        ok!(memset::cuMemsetD32Async(at + 4, 8, 1, free));
        ok!(stream::cuStreamSynchronize(free));
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(word.load(Ordering::Acquire), 0, "the NULL stream waits for the blocking stream");
        assert_eq!(code!(stream::cuStreamQuery(0)), NOT_READY);
        gate.store(true, Ordering::Release);
        ok!(stream::cuStreamSynchronize(1));
        assert_eq!(word.load(Ordering::Acquire), 7);
        let gate = AtomicBool::new(false);
        block(0, &gate);
        ok!(memset::cuMemsetD32Async(at, 9, 1, blocking));
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(word.load(Ordering::Acquire), 7, "the blocking stream waits for the NULL stream");
        gate.store(true, Ordering::Release);
        ok!(context::cuCtxSynchronize());
        assert_eq!(word.load(Ordering::Acquire), 9);
    });
}

#[test]
fn the_per_thread_variant_uses_the_threads_own_stream() {
    primary();
    let (mut legacy, mut own, mut variant) = (0, 0, 0);
    ok!(stream::cuStreamGetId(0, &mut legacy));
    ok!(stream::cuStreamGetId(2, &mut own));
    ok!(stream::cuStreamGetId_ptsz(0, &mut variant));
    assert_ne!(legacy, own);
    assert_eq!(own, variant);
    let other = std::thread::spawn(|| {
        primary();
        let mut id = 0;
        ok!(stream::cuStreamGetId_ptsz(0, &mut id));
        id
    });
    assert_ne!(other.join().unwrap(), own);
}

#[test]
fn the_default_streams_of_ended_threads_end_too() {
    crate::support::in_own_process("streams::the_default_streams_of_ended_threads_end_too", || {
        primary();
        let word = std::ptr::from_ref(pinned::<AtomicU32>()) as u64;
        for value in 0..40 {
            let use_it = move || {
                primary();
                ok!(memset::cuMemsetD32Async(word, value, 1, 2));
            };
            std::thread::spawn(use_it).join().unwrap();
        }
        ok!(context::cuCtxSynchronize());
        let servers = || {
            let tasks = std::fs::read_dir("/proc/self/task").unwrap();
            let name = |task: std::io::Result<std::fs::DirEntry>| {
                std::fs::read_to_string(task.unwrap().path().join("comm"))
            };
            tasks
                .map(name)
                .filter(|name| name.as_ref().is_ok_and(|name| name.starts_with("softgpu-str")))
                .count()
        };
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while servers() > 1 {
            assert!(std::time::Instant::now() < deadline, "{} threads are left", servers());
            std::thread::sleep(Duration::from_millis(5));
        }
    });
}

#[test]
fn events_order_streams_and_tell_time() {
    primary();
    let (first, second, word) = (new_stream(1), new_stream(1), pinned::<AtomicU32>());
    let (start, end, untimed) = (new_event(0), new_event(0), new_event(2));
    let at = std::ptr::from_ref(word) as u64;
    let gate = AtomicBool::new(false);
    ok!(event::cuEventQuery(end));
    ok!(event::cuEventRecord(start, first));
    block(first, &gate);
    ok!(event::cuEventRecord(end, first));
    ok!(stream::cuStreamWaitEvent(second, end, 0));
    ok!(memset::cuMemsetD32Async(at, 3, 1, second));
    assert_eq!(code!(event::cuEventQuery(end)), NOT_READY);
    let mut ms = -1.0;
    assert_eq!(code!(event::cuEventElapsedTime(&mut ms, start, end)), NOT_READY);
    std::thread::sleep(Duration::from_millis(15));
    assert_eq!(word.load(Ordering::Acquire), 0);
    gate.store(true, Ordering::Release);
    ok!(stream::cuStreamSynchronize(second));
    assert_eq!(word.load(Ordering::Acquire), 3);
    ok!(event::cuEventSynchronize(end));
    ok!(event::cuEventElapsedTime_v2(&mut ms, start, end));
    assert!((10.0..60_000.0).contains(&ms), "{ms}");
    assert_eq!(code!(event::cuEventElapsedTime(&mut ms, start, untimed)), INVALID_HANDLE);
    ok!(event::cuEventDestroy_v2(end));
    assert_eq!(code!(event::cuEventQuery(end)), INVALID_HANDLE);
    assert_eq!(code!(event::cuEventCreate(&mut 0, 64)), INVALID_VALUE);
}

#[test]
fn a_stream_waits_for_a_word_in_memory() {
    primary();
    let (handle, word) = (new_stream(1), pinned::<AtomicU32>());
    let at = std::ptr::from_ref(word) as u64;
    ok!(stream::cuStreamWaitValue32_v2(handle, at, 5, 0));
    ok!(stream::cuStreamWriteValue64_v2(handle, at + 8, 6, 0));
    std::thread::sleep(Duration::from_millis(5));
    assert_eq!(code!(stream::cuStreamQuery(handle)), NOT_READY);
    word.store(5, Ordering::Release);
    ok!(stream::cuStreamSynchronize(handle));
    assert_eq!(code!(stream::cuStreamWaitValue32_v2(handle, 0x10, 5, 0)), INVALID_VALUE);
    assert_eq!(code!(stream::cuStreamWriteValue32_v2(handle, at + 2, 5, 0)), INVALID_VALUE);
    assert_eq!(code!(stream::cuStreamWriteValue32_v2(handle, at, 5, 1)), INVALID_VALUE, "without a barrier");
    assert_eq!(code!(stream::cuStreamWriteValue64_v2(handle, at, 5, 1)), INVALID_VALUE);
}

#[test]
fn destroying_a_context_ends_a_wait_that_nobody_meets() {
    std::thread::spawn(|| {
        let mut own = 0;
        ok!(cuda::api::init::cuInit(0));
        ok!(context::cuCtxCreate_v2(&mut own, 0, 0));
        let (handle, word) = (new_stream(1), pinned::<AtomicU32>());
        ok!(stream::cuStreamWaitValue32_v2(handle, std::ptr::from_ref(word) as u64, 1, 0));
        let start = std::time::Instant::now();
        ok!(context::cuCtxDestroy_v2(own));
        assert!(start.elapsed() < Duration::from_secs(20));
        assert_eq!(code!(stream::cuStreamQuery(handle)), crate::support::INVALID_CONTEXT);
    })
    .join()
    .unwrap();
}

unsafe extern "C" fn try_calling(result: *mut c_void) {
    let mut pointer = 0;
    let code = code!(memory::cuMemAlloc_v2(&mut pointer, 16));
    // SAFETY: the test passes a live word.
    unsafe { result.cast::<u32>().write(code) };
}

#[test]
fn host_functions_may_not_call_cuda() {
    primary();
    let (handle, mut result) = (new_stream(1), 0u32);
    ok!(stream::cuLaunchHostFunc(handle, Some(try_calling), (&raw mut result).cast()));
    ok!(stream::cuStreamSynchronize(handle));
    assert_eq!(result, 800);
}

#[test]
fn a_synchronised_context_has_done_the_work_of_destroyed_streams() {
    primary();
    let (gate, handle) = (pinned::<AtomicBool>(), new_stream(1));
    block(handle, gate);
    let word = pinned::<AtomicU32>();
    ok!(stream::cuStreamWriteValue32_v2(handle, std::ptr::from_ref(word) as u64, 7, 0));
    ok!(stream::cuStreamDestroy_v2(handle));
    let opener = std::thread::spawn(|| {
        std::thread::sleep(Duration::from_millis(50));
        gate.store(true, Ordering::Release);
    });
    ok!(context::cuCtxSynchronize());
    assert_eq!(word.load(Ordering::Acquire), 7);
    opener.join().unwrap();
}

#[test]
fn a_stream_is_idle_once_its_last_event_was_passed() {
    primary();
    let (handle, marker) = (new_stream(1), new_event(0));
    for _ in 0..2000 {
        ok!(event::cuEventRecord(marker, handle));
        ok!(event::cuEventSynchronize(marker));
        ok!(stream::cuStreamQuery(handle));
    }
}
