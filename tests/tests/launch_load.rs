//! Many launches: a full ring, many threads, many handles.

#[path = "launch/device.rs"]
mod device;

use std::ptr::null_mut;

use device::{apply, event, function, get, load, number, ok, start, stream, synchronize, sys, words};
use lightos_tests::twice::twice;

#[test]
fn a_full_ring_loses_nothing() {
    // A launch takes 192 bytes or more, and the ring has 4 MiB: the program runs into its end several times.
    const LAUNCHES: u32 = 60_000;
    let report = twice("a_full_ring_loses_nothing", || {
        start();
        let add = function(load(), c"add");
        let out = words(1);
        (0..LAUNCHES).for_each(|_| apply(add, out, 1, 1, null_mut()));
        vec![format!("{:?}", get(out, 1))]
    });
    assert_eq!(report["launches"], LAUNCHES, "{report:#}");
}

#[test]
fn threads_launch_at_the_same_time() {
    const THREADS: u32 = 8;
    const ROUNDS: u32 = 400;
    let report = twice("threads_launch_at_the_same_time", || {
        start();
        let mut context = null_mut();
        // SAFETY: a valid out-pointer.
        ok(unsafe { sys::cuCtxGetCurrent(&mut context) });
        let context = context as usize;
        let module = load();
        let (add, times) = (function(module, c"add") as usize, function(module, c"times") as usize);
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                std::thread::spawn(move || {
                    // SAFETY: the context lives on.
                    ok(unsafe { sys::cuCtxSetCurrent(number(context).cast()) });
                    let (add, times) = (number(add).cast(), number(times).cast());
                    let (own, done) = (stream(1), event(2));
                    let out = words(2);
                    for round in 0..ROUNDS {
                        apply(add, out, thread + round, 2, own);
                        apply(times, out, 3, 2, own);
                        if round % 50 == 0 {
                            // SAFETY: live handles.
                            unsafe {
                                ok(sys::cuEventRecord(done, own));
                                ok(sys::cuEventSynchronize(done));
                                ok(sys::cuStreamSynchronize(own));
                            }
                        }
                    }
                    // SAFETY: live handles.
                    ok(unsafe { sys::cuStreamSynchronize(own) });
                    let expected = (0..ROUNDS)
                        .fold(0_u32, |sum, round| sum.wrapping_add(thread + round).wrapping_mul(3));
                    assert_eq!(get(out, 2), [expected; 2]);
                    expected
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap().to_string()).collect()
    });
    assert_eq!(report["launches"], THREADS * ROUNDS * 2, "{report:#}");
}

#[test]
fn a_capture_leaves_other_threads_alone() {
    twice("a_capture_leaves_other_threads_alone", || {
        start();
        let mut context = null_mut();
        // SAFETY: a valid out-pointer.
        ok(unsafe { sys::cuCtxGetCurrent(&mut context) });
        let context = context as usize;
        let add = function(load(), c"add");
        let (here, there) = (words(1), words(1));
        let own = stream(1);
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        let (mut graph, mut exec) = (null_mut(), null_mut());
        // SAFETY: live handles and valid out-pointers.
        unsafe {
            ok(sys::cuStreamBeginCapture_v2(own, mode));
            apply(add, here, 1, 1, own);
            let function = add as usize;
            let other = std::thread::spawn(move || {
                ok(sys::cuCtxSetCurrent(number(context).cast()));
                let stream = stream(1);
                for _ in 0..100 {
                    apply(number(function).cast(), there, 1, 1, stream);
                }
                ok(sys::cuStreamSynchronize(stream));
                get(there, 1)
            });
            let there = other.join().unwrap();
            ok(sys::cuStreamEndCapture(own, &mut graph));
            ok(sys::cuGraphInstantiateWithFlags(&mut exec, graph, 0));
            (0..100).for_each(|_| ok(sys::cuGraphLaunch(exec, own)));
            synchronize();
            vec![format!("{there:?} {:?}", get(here, 1))]
        }
    });
}
