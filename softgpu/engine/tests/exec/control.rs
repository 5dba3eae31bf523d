//! Divergence and reconvergence, barriers, calls, faults.

use std::sync::atomic::Ordering;

use lightos_softgpu_engine::exec::Fault;

use crate::harness::{Device, HEADER, Shape, kernel, results, shape};

#[test]
fn nested_conditions() {
    let body = "
        and.b32 %r1, %r0, 1; setp.eq.u32 %p1, %r1, 0;
        and.b32 %r2, %r0, 2; setp.eq.u32 %p2, %r2, 0;
        mov.u32 %r3, 0;
        @%p1 bra EVEN;
        @%p2 bra ODD_LOW;
        add.u32 %r3, %r3, 100; bra.uni ODD_JOIN;
    ODD_LOW: add.u32 %r3, %r3, 200;
    ODD_JOIN: add.u32 %r3, %r3, 1; bra JOIN;
    EVEN: @!%p2 bra EVEN_JOIN; add.u32 %r3, %r3, 300;
    EVEN_JOIN: add.u32 %r3, %r3, 2;
    JOIN: activemask.b32 %r4;
        mov.b64 %rd1, {%r3, %r4};
        st.global.u64 [%rd0], %rd1; ret;";
    for (tid, result) in results(body, 70).into_iter().enumerate() {
        let expected = match (tid & 1, tid & 2) {
            (0, 0) => 302,
            (0, _) => 2,
            (_, 0) => 201,
            _ => 101,
        };
        assert_eq!(result as u32, expected, "thread {tid}");
        // All lanes of the warp have met again.
        assert_eq!(result >> 32, if tid < 64 { 0xffff_ffff } else { 0x3f }, "thread {tid}");
    }
}

#[test]
fn loops_of_different_length() {
    let body = "
        mov.u32 %r1, 0; mov.u32 %r2, 0;
    OUTER: setp.ge.u32 %p1, %r1, %r0; @%p1 bra DONE;
        mov.u32 %r3, 0;
    INNER: add.u32 %r2, %r2, 1; add.u32 %r3, %r3, 1;
        setp.lt.u32 %p2, %r3, %r1; @%p2 bra INNER;
        add.u32 %r1, %r1, 1; bra OUTER;
    DONE: activemask.b32 %r4; mov.b64 %rd1, {%r2, %r4}; st.global.u64 [%rd0], %rd1; ret;";
    for (tid, result) in results(body, 64).into_iter().enumerate() {
        let expected: u32 = (0..tid as u32).map(|i| i.max(1)).sum();
        assert_eq!(result, u64::from(expected) | 0xffff_ffff << 32, "thread {tid}");
    }
}

#[test]
fn early_return_leaves_the_others_running() {
    let body = "
        st.global.u64 [%rd0], 7;
        setp.lt.u32 %p1, %r0, 10; @%p1 ret;
        setp.gt.u32 %p2, %r0, 50; @%p2 bra OUT;
        bar.sync 0;
        activemask.b32 %r1; cvt.u64.u32 %rd1, %r1; st.global.u64 [%rd0], %rd1;
    OUT: exit;";
    for (tid, result) in results(body, 64).into_iter().enumerate() {
        let expected = match tid {
            10..=31 => 0xffff_fc00,
            32..=50 => 0x7_ffff,
            _ => 7,
        };
        assert_eq!(result, expected, "thread {tid}");
    }
}

#[test]
fn lanes_meet_behind_a_region_that_some_return_from() {
    let body = "
        mov.u32 %r3, 0; setp.lt.u32 %p1, %r0, 20; @!%p1 bra JOIN;
        and.b32 %r1, %r0, 1; setp.eq.u32 %p2, %r1, 0; @%p2 bra GONE;
        and.b32 %r2, %r0, 2; setp.eq.u32 %p3, %r2, 0; @%p3 bra JOIN;
        mov.u32 %r3, 5;
    JOIN: activemask.b32 %r4; mov.b64 %rd1, {%r3, %r4}; st.global.u64 [%rd0], %rd1;
    GONE: ret;";
    for (lane, got) in results(body, 32).into_iter().enumerate() {
        let expected = match lane {
            0..20 if lane & 1 == 0 => 0,
            0..20 if lane & 2 != 0 => 5 | 0xfffa_aaaa << 32,
            _ => 0xfffa_aaaa << 32,
        };
        assert_eq!(got, expected, "lane {lane}");
    }
    // A branch to the next instruction parts nobody.
    let body = "setp.lt.u32 %p1, %r0, 5; @%p1 bra NEXT; NEXT: activemask.b32 %r1; cvt.u64.u32 %rd1, %r1;
        st.global.u64 [%rd0], %rd1; ret;";
    assert_eq!(results(body, 32), vec![0xffff_ffff; 32]);
}

#[test]
fn switch_by_table() {
    let body = "
        and.b32 %r1, %r0, 3;
        TABLE: .branchtargets A, B, C, A;
        brx.idx %r1, TABLE;
    A: mov.u64 %rd1, 10; bra JOIN;
    B: mov.u64 %rd1, 20; bra JOIN;
    C: mov.u64 %rd1, 30;
    JOIN: activemask.b32 %r2; setp.ne.u32 %p1, %r2, -1; @%p1 trap;
        st.global.u64 [%rd0], %rd1; ret;";
    for (tid, result) in results(body, 32).into_iter().enumerate() {
        assert_eq!(result, [10, 20, 30, 10][tid & 3]);
    }
}

#[test]
fn lanes_of_one_warp_may_wait_for_each_other() {
    // A lock taken lane by lane: whoever spins must not keep the holder from releasing it.
    let ptx = kernel(
        "ld.param.u64 %rd1, [in];
    SPIN: atom.global.cas.b32 %r1, [%rd1], 0, 1; setp.ne.u32 %p1, %r1, 0; @%p1 bra SPIN;
        ld.global.volatile.u32 %r2, [%rd1+4]; add.u32 %r2, %r2, 1; st.global.volatile.u32 [%rd1+4], %r2;
        membar.gl; atom.global.exch.b32 %r3, [%rd1], 0; ret;",
    );
    let device = Device::default();
    let program = device.load(&ptx).unwrap();
    let lock = device.allocate(8);
    device.run(&program, "k", shape(4, 64), &[device.allocate(64 * 8), lock]).unwrap();
    assert_eq!(device.download::<u32>(lock, 2), [0, 256]);
}

#[test]
fn barriers_order_shared_memory() {
    // A tree sum over 256 threads.
    let body = "
        .shared .align 4 .b8 tile[1024];
        mov.u32 %r1, tile; shl.b32 %r2, %r0, 2; add.u32 %r1, %r1, %r2;
        st.shared.u32 [%r1], %r0; mov.u32 %r3, 128;
    LOOP: bar.sync 0; setp.ge.u32 %p1, %r0, %r3; @%p1 bra SKIP;
        shl.b32 %r4, %r3, 2; add.u32 %r4, %r1, %r4; ld.shared.u32 %r5, [%r4]; ld.shared.u32 %r6, [%r1];
        add.u32 %r6, %r6, %r5; st.shared.u32 [%r1], %r6;
    SKIP: shr.u32 %r3, %r3, 1; setp.ne.u32 %p2, %r3, 0; @%p2 bra LOOP;
        bar.sync 0; ld.shared.u32 %r7, [tile]; cvt.u64.u32 %rd1, %r7; st.global.u64 [%rd0], %rd1; ret;";
    assert_eq!(results(body, 256), vec![255 * 128; 256]);
}

#[test]
fn barrier_arrivals_on_different_paths_count() {
    let body = "
        setp.lt.u32 %p1, %r0, 16; @%p1 bra LOW;
        bar.sync 0; mov.u64 %rd1, 1; bra JOIN;
    LOW: bar.sync 0; mov.u64 %rd1, 2;
    JOIN: st.global.u64 [%rd0], %rd1; ret;";
    let expected: Vec<u64> = (0..64).map(|t| if t < 16 { 2 } else { 1 }).collect();
    assert_eq!(results(body, 64), expected);
}

#[test]
fn named_barriers_and_reductions() {
    // Producer and consumer warps on barrier 1 with 64 threads, then votes over the block.
    let body = "
        .shared .align 4 .u32 cell;
        setp.lt.u32 %p1, %r0, 32; @%p1 bra WRITE;
        setp.ge.u32 %p2, %r0, 64; @%p2 bra VOTE;
        bar.sync 1, 64; ld.shared.u32 %r1, [cell]; bra VOTE;
    WRITE: mov.u32 %r1, 5; st.shared.u32 [cell], 77; bar.arrive 1, 64;
    VOTE: setp.gt.u32 %p3, %r0, 80;
        bar.red.popc.u32 %r2, 0, %p3; bar.red.and.pred %p4, 0, %p3; barrier.cta.red.or.aligned.pred %p5, 0, %p3;
        selp.u32 %r3, 2, 0, %p4; selp.u32 %r4, 1, 0, %p5; or.b32 %r3, %r3, %r4;
        mad.lo.u32 %r2, %r2, 4, %r3; mov.b64 %rd1, {%r2, %r1}; st.global.u64 [%rd0], %rd1; ret;";
    let got = results(body, 96);
    for (tid, result) in got.into_iter().enumerate() {
        assert_eq!(result as u32, 15 * 4 + 1, "thread {tid}");
        assert_eq!(result >> 32, [5, 77, 0][tid / 32], "thread {tid}");
    }
}

#[test]
fn a_cooperative_grid_meets() {
    // Every block counts itself and waits for all: 64 blocks, all resident.
    let ptx = kernel(
        "ld.param.u64 %rd1, [in]; mov.u32 %r5, %nctaid.x;
        setp.ne.u32 %p1, %r0, 0; @%p1 bra WAIT;
        membar.gl; red.release.gpu.global.add.u32 [%rd1], 1;
    SPIN: ld.acquire.gpu.global.u32 %r1, [%rd1]; setp.lt.u32 %p2, %r1, %r5; @%p2 bra SPIN;
    WAIT: bar.sync 0; ld.volatile.global.u32 %r1, [%rd1]; cvt.u64.u32 %rd2, %r1; st.global.u64 [%rd0], %rd2; ret;",
    );
    for cooperative in [true, false] {
        let device = Device::default();
        let program = device.load(&ptx).unwrap();
        let (out, cell) = (device.allocate(64 * 8), device.allocate(4));
        let blocks = if cooperative { 64 } else { 8 };
        device.run(&program, "k", Shape { cooperative, ..shape(blocks, 64) }, &[out, cell]).unwrap();
        assert_eq!(device.download::<u64>(out, 64), vec![u64::from(blocks); 64]);
    }
}

#[test]
fn a_cooperative_grid_has_a_workspace() {
    // As cooperative_groups does: a counter behind the pointer in %envreg1 and %envreg2.
    let ptx = kernel(
        "mov.u32 %r1, %envreg1; mov.u32 %r2, %envreg2; mov.b64 %rd1, {%r2, %r1}; mov.u32 %r5, %nctaid.x;
        setp.eq.u64 %p1, %rd1, 0; @%p1 trap; setp.ne.u32 %p2, %r0, 0; @%p2 bra WAIT;
        atom.add.release.gpu.u32 %r3, [%rd1+4], 1;
    SPIN: ld.acquire.gpu.u32 %r4, [%rd1+4]; setp.ne.u32 %p3, %r4, %r5; @%p3 bra SPIN;
    WAIT: barrier.sync 0; ld.u32 %r4, [%rd1+4]; cvt.u64.u32 %rd2, %r4; st.global.u64 [%rd0], %rd2; ret;",
    );
    let device = Device::default();
    let program = device.load(&ptx).unwrap();
    let out = device.allocate(64 * 8);
    for _ in 0..2 {
        device.run(&program, "k", Shape { cooperative: true, ..shape(20, 64) }, &[out, 0]).unwrap();
        assert_eq!(device.download::<u64>(out, 64), vec![20; 64]);
    }
    assert!(matches!(device.run(&program, "k", shape(1, 64), &[out, 0]), Err(Fault::Trap { .. })));
}

const CALLS: &str = "
.func (.param .b32 r) fib(.param .b32 n)
{
    .reg .pred %p1; .reg .b32 %r<6>;
    ld.param.u32 %r1, [n];
    setp.lt.u32 %p1, %r1, 2;
    @%p1 bra BASE;
    { .param .b32 a; .param .b32 v; sub.u32 %r2, %r1, 1; st.param.b32 [a], %r2; call.uni (v), fib, (a); ld.param.b32 %r3, [v]; }
    { .param .b32 a; .param .b32 v; sub.u32 %r2, %r1, 2; st.param.b32 [a], %r2; call (v), fib, (a); ld.param.b32 %r4, [v]; }
    add.u32 %r1, %r3, %r4;
BASE: st.param.b32 [r], %r1;
    ret;
}
.func (.reg .b32 %v) twice(.reg .b32 %x) { add.u32 %v, %x, %x; ret; }
.func (.reg .b32 %v) square(.reg .b32 %x) { mul.lo.u32 %v, %x, %x; ret; }
.global .u64 table[2] = {twice, square};
";

#[test]
fn a_result_that_the_callee_does_not_give_is_no_fault() {
    let body = "{ .param .b64 a; .param .b64 v; st.param.b64 [a], %rd0; call.uni (v), consume, (a); ld.param.b64 %rd1, [v]; } ret;";
    let declared = format!(
        "{HEADER}.extern .func (.param .b64 v) consume (.param .b64 a);
        .visible .func consume(.param .b64 a) {{ .reg .b64 %rd<2>; ld.param.u64 %rd1, [a]; st.u32 [%rd1], 42; ret; }}"
    );
    let device = Device::default();
    let program = device.load(&kernel(body).replacen(HEADER, &declared, 1)).unwrap();
    let out = device.allocate(40 * 8);
    device.run(&program, "k", shape(1, 1), &[out, 0]).unwrap();
    assert_eq!(device.download::<u32>(out, 1), [42]);
}

#[test]
fn recursion_with_different_depth_per_lane() {
    let ptx = kernel(
        "{ .param .b32 a; .param .b32 v; and.b32 %r1, %r0, 15; st.param.b32 [a], %r1; call (v), fib, (a); ld.param.b32 %r2, [v]; }
        activemask.b32 %r3; mov.b64 %rd1, {%r2, %r3}; st.global.u64 [%rd0], %rd1; ret;",
    );
    let ptx = ptx.replacen(HEADER, &format!("{HEADER}{CALLS}"), 1);
    let device = Device::default();
    let program = device.load(&ptx).unwrap();
    let out = device.allocate(40 * 8);
    device.run(&program, "k", shape(1, 40), &[out, 0]).unwrap();
    let fib = |n: u64| (0..n).fold((0u64, 1u64), |(a, b), _| (b, a + b)).0;
    for (tid, result) in device.download::<u64>(out, 40).into_iter().enumerate() {
        let mask = if tid < 32 { 0xffff_ffffu64 } else { 0xff };
        assert_eq!(result, fib(tid as u64 & 15) | mask << 32, "thread {tid}");
    }
}

#[test]
fn calls_through_pointers_and_guards() {
    let ptx = kernel(
        "and.b32 %r1, %r0, 1; mov.u64 %rd1, table; mad.wide.u32 %rd1, %r1, 8, %rd1; ld.global.u64 %rd2, [%rd1];
        P: .callprototype (.reg .b32 _) _ (.reg .b32 _);
        call (%r2), %rd2, (%r0), P;
        setp.gt.u32 %p1, %r0, 20; @%p1 call (%r2), twice, (%r2);
        cvt.u64.u32 %rd3, %r2; st.global.u64 [%rd0], %rd3; ret;",
    );
    let ptx = ptx.replacen(HEADER, &format!("{HEADER}{CALLS}"), 1);
    let device = Device::default();
    let program = device.load(&ptx).unwrap();
    let out = device.allocate(32 * 8);
    device.run(&program, "k", shape(1, 32), &[out, 0]).unwrap();
    for (tid, result) in (0u64..).zip(device.download::<u64>(out, 32)) {
        let first = if tid & 1 == 0 { 2 * tid } else { tid * tid };
        assert_eq!(result, if tid > 20 { 2 * first } else { first }, "thread {tid}");
    }
}

fn fault(body: &str, threads: u32, input: u64) -> Fault {
    let device = Device::default();
    let program = device.load(&kernel(body)).unwrap();
    let out = device.allocate(u64::from(threads) * 8);
    device.run(&program, "k", shape(1, threads), &[out, input]).unwrap_err()
}

#[test]
fn faults_name_their_place() {
    // The body starts on line 9 of the text.
    let line = 9;
    match fault(
        "ld.param.u64 %rd1, [in]; setp.eq.u32 %p1, %r0, 37;\n @%p1 ld.global.u32 %r1, [%rd1+4]; ret;",
        64,
        0x1000,
    ) {
        Fault::IllegalAddress { address: 0x1004, bytes: 4, place, .. } => {
            assert_eq!((place.line, place.thread, place.kernel.as_str()), (line + 1, [37, 0, 0], "k"));
        }
        other => panic!("{other}"),
    }
    match fault("add.u64 %rd1, %rd0, 2; st.global.u32 [%rd1], %r0; ret;", 1, 0) {
        Fault::MisalignedAddress { bytes: 4, place, .. } => assert_eq!(place.line, line),
        other => panic!("{other}"),
    }
    // The last 8-byte result is in range, 16 bytes from it are not.
    assert!(matches!(
        fault("ld.param.u64 %rd1, [out]; st.global.v2.u64 [%rd1+16], {%rd1, %rd1}; ret;", 3, 0),
        Fault::IllegalAddress { bytes: 16, .. }
    ));
    assert!(matches!(fault("trap;", 1, 0), Fault::Trap { .. }));
    assert!(matches!(
        fault("ld.shared.u32 %r1, [64]; ret;", 1, 0),
        Fault::IllegalAddress { space: "shared", .. }
    ));
    assert!(matches!(
        fault("ld.param.u64 %rd1, [in]; P: .callprototype _ (); call %rd1, (), P; ret;", 1, 12345),
        Fault::IllegalInstruction { .. }
    ));
}

#[test]
fn endless_recursion_overflows_the_stack() {
    let ptx = format!(
        "{HEADER}.func f(.reg .b32 %x) {{ .local .b32 pad[16]; call f, (%x); ret; }}
        .visible .entry k() {{ call f, (1); ret; }}"
    );
    let device = Device::default();
    let program = device.load(&ptx).unwrap();
    assert!(matches!(device.run(&program, "k", shape(1, 1), &[]), Err(Fault::StackOverflow { .. })));
}

#[test]
fn a_barrier_that_cannot_open_is_a_deadlock() {
    // Barrier 1 waits for 96 threads; there are 64.
    let body =
        "setp.lt.u32 %p1, %r0, 32; @%p1 bra A; bar.sync 1, 32; bar.sync 2, 64; ret; A: bar.sync 3, 64; ret;";
    assert!(matches!(fault(body, 64, 0), Fault::Deadlock { block: [0, 0, 0], .. }));
}

#[test]
fn an_endless_kernel_can_be_cancelled() {
    let device = Device::default();
    let program = device.load(&kernel("LOOP: add.u32 %r1, %r1, 1; bra LOOP;")).unwrap();
    std::thread::scope(|scope| {
        let run = scope.spawn(|| device.run(&program, "k", shape(3, 32), &[0, 0]));
        std::thread::sleep(std::time::Duration::from_millis(30));
        device.cancel.store(true, Ordering::Relaxed);
        assert!(matches!(run.join().unwrap(), Err(Fault::Cancelled)));
    });
}
