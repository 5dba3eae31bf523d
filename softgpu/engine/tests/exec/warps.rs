//! Warp collectives, atomics, memory spaces, printing.

use lightos_softgpu_engine::exec::Fault;

use crate::harness::{Device, HEADER, Shape, kernel, results, shape};

#[test]
fn shuffles() {
    let run = |mode: &str, b: u32, c: u32| {
        results(
            &format!(
                "mul.lo.u32 %r1, %r0, 3; shfl.sync.{mode}.b32 %r2|%p1, %r1, {b}, {c}, -1; selp.u32 %r3, 1, 0, %p1;
                mov.b64 %rd1, {{%r2, %r3}}; st.global.u64 [%rd0], %rd1; ret;"
            ),
            32,
        )
    };
    let pack = |source: u64, valid: bool| (source * 3) | (u64::from(valid) << 32);
    for (lane, got) in (0u64..).zip(run("up", 3, 0)) {
        assert_eq!(got, if lane >= 3 { pack(lane - 3, true) } else { pack(lane, false) });
    }
    for (lane, got) in (0u64..).zip(run("down", 5, 31)) {
        assert_eq!(got, if lane + 5 < 32 { pack(lane + 5, true) } else { pack(lane, false) });
    }
    for (lane, got) in (0u64..).zip(run("bfly", 6, 31)) {
        assert_eq!(got, pack(lane ^ 6, true));
    }
    // Segments of 8 lanes.
    for (lane, got) in (0u64..).zip(run("idx", 2, 0x181f)) {
        assert_eq!(got, pack(lane / 8 * 8 + 2, true));
    }
    for (lane, got) in (0u64..).zip(run("down", 1, 0x181f)) {
        assert_eq!(got, if lane % 8 < 7 { pack(lane + 1, true) } else { pack(lane, false) });
    }
}

#[test]
fn votes_matches_reductions() {
    let body = "
        setp.lt.u32 %p1, %r0, 5; vote.sync.ballot.b32 %r1, %p1, -1; vote.sync.any.pred %p2, !%p1, -1;
        vote.sync.all.pred %p3, %p1, -1; and.b32 %r2, %r0, 3; match.any.sync.b32 %r3, %r2, -1;
        redux.sync.add.u32 %r4, %r0, -1; sub.s32 %r5, 10, %r0; redux.sync.min.s32 %r6, %r5, -1;
        match.all.sync.b32 %r8|%p4, %r1, -1;
        selp.u32 %r7, 1, 0, %p2; selp.u32 %r9, 2, 0, %p3; selp.u32 %r10, 4, 0, %p4;
        or.b32 %r7, %r7, %r9; or.b32 %r7, %r7, %r10;
        setp.ne.u32 %p5, %r1, 31; @%p5 trap; setp.ne.u32 %p5, %r4, 496; @%p5 trap;
        setp.ne.s32 %p5, %r6, -21; @%p5 trap; setp.ne.u32 %p5, %r8, -1; @%p5 trap;
        mov.b64 %rd1, {%r3, %r7}; st.global.u64 [%rd0], %rd1; ret;";
    for (lane, got) in results(body, 32).into_iter().enumerate() {
        assert_eq!(got, 0x1111_1111u64 << (lane & 3) | 5 << 32);
    }
}

#[test]
fn lanes_of_one_instruction_may_name_different_groups() {
    // Each half of the warp names itself, as a reduction over 16 lanes does.
    let body = "
        setp.lt.u32 %p1, %r0, 16; selp.b32 %r1, 0xffff, 0xffff0000, %p1;
        redux.sync.add.u32 %r2, %r0, %r1; redux.sync.max.u32 %r3, %r0, %r1;
        setp.eq.u32 %p2, %r0, 20; vote.sync.any.pred %p3, %p2, %r1; selp.u32 %r4, 1, 0, %p3;
        and.b32 %r5, %r0, 1; setp.eq.u32 %p4, %r5, 0; vote.sync.ballot.b32 %r6, %p4, %r1;
        match.any.sync.b32 %r7, %r5, %r1; elect.sync %r8|%p5, %r1; selp.u32 %r9, 1, 0, %p5; bar.warp.sync %r1;
        mad.lo.u32 %r2, %r3, 1000, %r2; mad.lo.u32 %r2, %r4, 100000, %r2; mad.lo.u32 %r2, %r9, 1000000, %r2;
        add.u32 %r6, %r6, %r7; mov.b64 %rd1, {%r2, %r6}; st.global.u64 [%rd0], %rd1; ret;";
    for (lane, got) in (0u64..).zip(results(body, 32)) {
        let (first, last) = if lane < 16 { (0, 15) } else { (16, 31) };
        let sum: u64 = (first..=last).sum();
        let (any, leads) = (u64::from(first == 16), u64::from(lane == first));
        let even = 0x5555u64 << first;
        let same = even << (lane & 1);
        assert_eq!(got & 0xffff_ffff, leads * 1_000_000 + any * 100_000 + last * 1000 + sum, "{lane}");
        assert_eq!(got >> 32, (even + same) & 0xffff_ffff, "{lane}");
    }
}

#[test]
fn collectives_gather_lanes_from_different_paths() {
    // Both arms of the branch reach the same instruction through code of different length.
    let body = "
        mov.u32 %r2, 0; setp.lt.u32 %p1, %r0, 7; @%p1 bra SHORT;
    LONG: add.u32 %r2, %r2, 1; setp.lt.u32 %p2, %r2, %r0; @%p2 bra LONG;
    SHORT: bar.warp.sync -1; shfl.sync.idx.b32 %r3, %r0, 31, 31, -1; add.u32 %r3, %r3, %r2;
        cvt.u64.u32 %rd1, %r3; st.global.u64 [%rd0], %rd1; ret;";
    for (lane, got) in (0u64..).zip(results(body, 32)) {
        assert_eq!(got, 31 + if lane < 7 { 0 } else { lane });
    }
}

#[test]
fn atomics_hold_against_all_blocks() {
    let ptx = kernel(
        "ld.param.u64 %rd1, [in]; mov.u32 %r1, %ctaid.x; mov.u32 %r2, %ntid.x; mad.lo.u32 %r3, %r1, %r2, %r0;
        red.global.add.u32 [%rd1], 1; atom.global.add.u64 %rd2, [%rd1+8], 3; red.global.add.f32 [%rd1+16], 0f3F800000;
        red.global.add.f64 [%rd1+24], 0d3FE0000000000000; red.global.max.s32 [%rd1+32], %r3; atom.global.min.u32 %r4, [%rd1+36], %r3;
        red.global.or.b32 [%rd1+40], %r3; atom.global.inc.u32 %r5, [%rd1+44], 99; red.global.add.noftz.f16x2 [%rd1+48], %r10;
    AGAIN: ld.global.volatile.b16 %h1, [%rd1+52]; add.u16 %h2, %h1, 1; atom.global.cas.b16 %h3, [%rd1+52], %h1, %h2;
        setp.ne.u16 %p1, %h3, %h1; @%p1 bra AGAIN;
        ret;",
    )
    .replacen("ld.param.u64 %rd1, [in];", "ld.param.u64 %rd1, [in]; mov.b32 %r10, 0x3c000000;", 1);
    let device = Device::default();
    let program = device.load(&ptx).unwrap();
    let mut cells = [0u32; 16];
    cells[9] = u32::MAX;
    let cell = device.upload(&cells);
    let threads = 64 * 256u32;
    device.run(&program, "k", shape(64, 256), &[device.allocate(256 * 8), cell]).unwrap();
    let got = device.download::<u32>(cell, 16);
    assert_eq!(got[0], threads);
    assert_eq!(got[2], threads * 3);
    assert_eq!(f32::from_bits(got[4]), threads as f32);
    assert_eq!(device.download::<f64>(cell + 24, 1), [f64::from(threads) / 2.0]);
    assert_eq!((got[8], got[9], got[10], got[11]), (threads - 1, 0, threads - 1, threads % 100));
    // 1.0 is lost against 2048 in half precision.
    assert_eq!(got[12], 0x6800_0000);
    assert_eq!(got[13] as u16, threads as u16);
}

#[test]
fn generic_addresses_reach_every_space() {
    let body = "
        .shared .align 8 .b64 cell[32]; .local .align 8 .b64 own[2];
        mov.u64 %rd1, cell; cvta.shared.u64 %rd2, %rd1; mad.wide.u32 %rd2, %r0, 8, %rd2;
        mov.u64 %rd3, own; cvta.local.u64 %rd4, %rd3;
        cvt.u64.u32 %rd5, %r0; st.u64 [%rd2], %rd5; add.u64 %rd6, %rd5, 100; st.u64 [%rd4+8], %rd6;
        ld.local.u64 %rd7, [own+8]; ld.u64 %rd8, [%rd2]; add.u64 %rd9, %rd7, %rd8;
        isspacep.shared %p1, %rd2; isspacep.local %p2, %rd4; isspacep.global %p3, %rd0; isspacep.global %p4, %rd2;
        and.pred %p1, %p1, %p2; and.pred %p1, %p1, %p3; not.pred %p4, %p4; and.pred %p1, %p1, %p4; @!%p1 trap;
        cvta.to.shared.u64 %rd10, %rd2; ld.shared.u64 %rd11, [%rd10]; add.u64 %rd9, %rd9, %rd11;
        atom.add.u64 %rd12, [%rd2], 5; ld.u64 %rd13, [%rd2]; add.u64 %rd9, %rd9, %rd13;
        st.u64 [%rd0], %rd9; ret;";
    for (tid, got) in (0u64..).zip(results(body, 32)) {
        assert_eq!(got, 4 * tid + 105);
    }
}

#[test]
fn dynamic_shared_memory_follows_the_static() {
    let ptx = format!(
        "{HEADER}.extern .shared .align 16 .b8 pool[];
        .visible .entry k(.param .u64 out) {{
        .reg .b32 %r<9>; .reg .b64 %rd<3>; .shared .align 4 .b8 fixed[20];
        ld.param.u64 %rd1, [out]; mov.u32 %r1, pool; mov.u32 %r2, fixed; sub.u32 %r3, %r1, %r2;
        st.shared.u32 [pool+12], 9; ld.shared.u32 %r4, [%r1+12]; mov.u32 %r5, %dynamic_smem_size;
        st.global.v4.u32 [%rd1], {{%r3, %r4, %r5, %r2}}; ret; }}"
    );
    let device = Device::default();
    let program = device.load(&ptx).unwrap();
    assert_eq!(program.kernel("k").unwrap().static_shared_bytes, 20);
    let out = device.allocate(16);
    device.run(&program, "k", Shape { shared: 16, ..shape(1, 1) }, &[out]).unwrap();
    assert_eq!(device.download::<u32>(out, 4), [32, 9, 16, 0]);
    device.run(&program, "k", Shape { shared: 22, ..shape(1, 1) }, &[out]).unwrap();
    assert_eq!(device.download::<u32>(out, 4), [32, 9, 22, 0], "the size is the launch's own, not rounded");
    let beyond = ptx.replace("[%r1+12]", "[%r1+16]");
    let program = device.load(&beyond).unwrap();
    let run = device.run(&program, "k", Shape { shared: 16, ..shape(1, 1) }, &[out]);
    assert!(matches!(run, Err(Fault::IllegalAddress { space: "shared", .. })));
}

#[test]
fn module_variables_with_initialisers() {
    let ptx = format!(
        "{HEADER}.visible .global .align 4 .u32 grid[2][3] = {{{{1, 2, 3}}, {{4}}}};
        .visible .const .align 4 .f32 weights[2] = {{0f3F800000, 0f40000000}};
        .global .u64 pointer = generic(grid)+4; .global .align 1 .b8 text[4] = {{72, 105, 10}};
        .visible .entry k(.param .u64 out) {{
        .reg .b32 %r<9>; .reg .f32 %f<3>; .reg .b64 %rd<9>;
        ld.param.u64 %rd1, [out]; ld.global.u64 %rd2, [pointer]; ld.u32 %r1, [%rd2]; ld.global.u32 %r2, [grid+12];
        ld.global.u32 %r3, [grid+16]; ld.const.f32 %f1, [weights+4]; cvt.rzi.u32.f32 %r4, %f1;
        st.global.v4.u32 [%rd1], {{%r1, %r2, %r3, %r4}}; ld.global.u8 %r5, [text+1]; st.global.u32 [%rd1+16], %r5; ret; }}"
    );
    let device = Device::default();
    let program = device.load(&ptx).unwrap();
    let out = device.allocate(20);
    device.run(&program, "k", shape(1, 1), &[out]).unwrap();
    assert_eq!(device.download::<u32>(out, 5), [2, 4, 0, 2, 105]);
    let globals: Vec<_> = program.globals().map(|(name, _, bytes)| (name, bytes)).collect();
    assert_eq!(globals, [("grid", 24), ("weights", 8), ("pointer", 8), ("text", 4)]);
}

#[test]
fn vectors_and_narrow_elements() {
    let body = "
        ld.param.u64 %rd1, [out];
        st.global.v4.u16 [%rd0], {%h1, %h2, %h3, %h4}; ld.global.s8 %r1, [%rd0+1]; ld.global.u8 %rd2, [%rd0+1];
        ld.global.v2.s32 {%r2, %r3}, [%rd0]; cvt.u64.u32 %rd3, %r3; shl.b64 %rd3, %rd3, 32;
        and.b32 %r1, %r1, 0xffff; cvt.u64.u32 %rd4, %r1; or.b64 %rd3, %rd3, %rd4; shl.b64 %rd2, %rd2, 16; or.b64 %rd3, %rd3, %rd2;
        st.global.u64 [%rd0], %rd3; ret;";
    let body = format!("mov.u16 %h1, 0x81ff; mov.u16 %h2, 2; mov.u16 %h3, 3; mov.u16 %h4, 4; {body}");
    assert_eq!(results(&body, 2), vec![0x0004_0003_0081_ff81; 2]);
}

#[test]
fn printf_formats_like_the_host() {
    let ptx = format!(
        "{HEADER}.extern .func (.param .b32 r) vprintf (.param .b64 f, .param .b64 a);
        .global .align 1 .b8 format[32] = {{37, 100, 32, 37, 53, 46, 50, 102, 32, 37, 115, 32, 37, 108, 120, 32, 37, 99, 37, 37, 10, 0}};
        .global .align 1 .b8 word[4] = {{111, 107, 0}};
        .visible .entry k() {{
        .reg .b32 %r<4>; .reg .b64 %rd<9>; .local .align 8 .b8 args[40];
        mov.u64 %rd1, args; cvta.local.u64 %rd1, %rd1; mov.u32 %r1, %tid.x; sub.s32 %r1, 0, %r1;
        st.u32 [%rd1], %r1; mov.b64 %rd2, 0d4009000000000000; st.u64 [%rd1+8], %rd2;
        mov.u64 %rd3, word; cvta.global.u64 %rd3, %rd3; st.u64 [%rd1+16], %rd3; mov.u64 %rd4, 0xabcdef0123; st.u64 [%rd1+24], %rd4;
        mov.u32 %r2, 33; st.u32 [%rd1+32], %r2;
        mov.u64 %rd5, format; cvta.global.u64 %rd5, %rd5;
        {{ .param .b64 f; .param .b64 a; .param .b32 v; st.param.b64 [f], %rd5; st.param.b64 [a], %rd1; call.uni (v), vprintf, (f, a); ld.param.b32 %r3, [v]; }}
        setp.ne.s32 %p, %r3, 5; @%p trap; ret; }}"
    )
    .replace(".reg .b32 %r<4>;", ".reg .b32 %r<4>; .reg .pred %p;");
    let device = Device::default();
    let program = device.load(&ptx).unwrap();
    device.run(&program, "k", shape(1, 2), &[]).unwrap();
    assert_eq!(*device.printed.lock().unwrap(), "0  3.12 ok abcdef0123 !%\n-1  3.12 ok abcdef0123 !%\n");
}

#[test]
fn the_device_heap_serves_every_thread() {
    let ptx = format!(
        "{HEADER}.extern .func (.param .b64 r) malloc (.param .b64 n); .extern .func free (.param .b64 p);
        .visible .entry k(.param .u64 out) {{
        .reg .b32 %r<4>; .reg .b64 %rd<9>;
        ld.param.u64 %rd1, [out]; mov.u32 %r1, %tid.x; mad.wide.u32 %rd1, %r1, 8, %rd1;
        {{ .param .b64 n; .param .b64 v; st.param.b64 [n], 24; call (v), malloc, (n); ld.param.b64 %rd2, [v]; }}
        cvt.u64.u32 %rd3, %r1; st.u64 [%rd2+16], %rd3; bar.sync 0; ld.u64 %rd4, [%rd2+16]; st.global.u64 [%rd1], %rd4;
        {{ .param .b64 p; st.param.b64 [p], %rd2; call free, (p); }}
        ret; }}"
    );
    let device = Device::default();
    let program = device.load(&ptx).unwrap();
    let out = device.allocate(64 * 8);
    for _ in 0..3 {
        device.run(&program, "k", shape(1, 64), &[out]).unwrap();
        assert_eq!(device.download::<u64>(out, 64), (0..64).collect::<Vec<_>>());
    }
}

#[test]
fn what_is_not_supported_is_named() {
    let device = Device::default();
    let error = device.load(&kernel("\n  wgmma.fence.sync.aligned;\n ret;")).unwrap_err();
    assert!(error.unsupported);
    assert!(
        error.log.contains("line 10:3: opcode 'wgmma.fence.sync.aligned' is not supported"),
        "{}",
        error.log
    );
    let error = device.load(&kernel("add.u32 %r1, %r2, %rd1; mul.u32 %r1, %r2, %r3; ret;")).unwrap_err();
    assert!(!error.unsupported, "{}", error.log);
    let error = device.load(&kernel(".reg .b32 %many<4000000000>; ret;")).unwrap_err();
    assert!(error.log.contains("more registers"), "{}", error.log);
    let error = device.load(&kernel("ret;").replace(".address_size 64", ".address_size 32")).unwrap_err();
    assert!(error.unsupported && error.log.contains(".address_size 32"), "{}", error.log);
    assert!(!device.load("this is not PTX").unwrap_err().unsupported);
}

#[test]
fn mbarriers_count_arrivals_and_bytes() {
    let ptx = kernel(
        ".shared .align 8 .b64 done; .shared .align 16 .b8 tile[512];
        ld.param.u64 %rd1, [in]; setp.ne.u32 %p1, %r0, 0; @%p1 bra READY;
        mbarrier.init.shared::cta.b64 [done], 65; fence.mbarrier_init.release.cluster;
    READY: bar.sync 0; @%p1 bra ARRIVE;
        mbarrier.arrive.expect_tx.release.cta.shared::cta.b64 _, [done], 512;
        cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [tile], [%rd1], 512, [done];
    ARRIVE: mbarrier.arrive.shared::cta.b64 %rd2, [done];
    WAIT: mbarrier.try_wait.shared::cta.b64 %p2, [done], %rd2; @!%p2 bra WAIT;
        mbarrier.test_wait.parity.shared::cta.b64 %p3, [done], 0; @!%p3 trap;
        mbarrier.test_wait.parity.shared::cta.b64 %p3, [done], 1; @%p3 trap;
        mov.u32 %r1, tile; mad.lo.u32 %r1, %r0, 8, %r1; ld.shared.u64 %rd3, [%r1]; st.global.u64 [%rd0], %rd3; ret;",
    );
    let device = Device::default();
    let program = device.load(&ptx).unwrap();
    let data: Vec<u64> = (0..64).map(|i| i * i + 7).collect();
    let (input, out) = (device.upload(&data), device.allocate(64 * 8));
    device.run(&program, "k", shape(1, 64), &[out, input]).unwrap();
    assert_eq!(device.download::<u64>(out, 64), data);
}
