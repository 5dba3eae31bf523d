//! mbarriers and what completes on them, clusters of one block, hints that are no more than checked.

use lightos_softgpu_engine::exec::Fault;

use crate::harness::{Device, kernel, results, shape};

#[test]
fn stores_and_reductions_count_their_bytes() {
    // The barrier waits for one arrival and 32 bytes: 4 + 16 stored, 4 + 8 reduced.
    let body = "
        .shared .align 8 .b64 done; .shared .align 16 .b8 tile[64];
        mov.u32 %r1, done; mov.u32 %r2, tile; st.shared.u32 [tile+32], 40; st.shared.u64 [tile+40], 3;
        mbarrier.init.shared::cta.b64 [done], 1; mbarrier.arrive.expect_tx.shared.b64 %rd1, [done], 32;
        st.async.shared::cluster.mbarrier::complete_tx::bytes.u32 [%r2], 7, [%r1];
        mov.u64 %rd2, 11; mov.u64 %rd3, 12;
        st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v2.b64 [%r2+16], {%rd2, %rd3}, [%r1];
        red.async.relaxed.cluster.shared::cluster.mbarrier::complete_tx::bytes.add.u32 [%r2+32], 2, [%r1];
        mbarrier.test_wait.shared.b64 %p1, [done], %rd1; @%p1 trap;
        red.async.relaxed.cluster.shared::cluster.mbarrier::complete_tx::bytes.max.u64 [%r2+40], %rd3, [%r1];
        mbarrier.test_wait.shared.b64 %p1, [done], %rd1; @!%p1 trap;
        ld.shared.u32 %r3, [tile]; ld.shared.u32 %r4, [tile+32]; ld.shared.v2.u64 {%rd4, %rd5}, [tile+16]; ld.shared.u64 %rd6, [tile+40];
        mad.lo.u32 %r3, %r4, 1000, %r3; cvt.u64.u32 %rd7, %r3; add.u64 %rd4, %rd4, %rd5; mad.lo.u64 %rd7, %rd4, 1000000, %rd7;
        mad.lo.u64 %rd7, %rd6, 1000000000, %rd7; st.global.u64 [%rd0], %rd7; ret;";
    assert_eq!(results(body, 1), [12_023_042_007]);
}

#[test]
fn an_arrival_may_drop_and_expect() {
    // Two arrivals a phase; one thread leaves for good with its first, so that the second phase needs one.
    let body = "
        .shared .align 8 .b64 done; .shared .align 16 .b8 tile[16];
        mov.u32 %r2, tile; mbarrier.init.shared.b64 [done], 2;
        mbarrier.arrive_drop.expect_tx.release.cta.shared::cta.b64 %rd1, [done], 4; mbarrier.arrive.shared.b64 %rd2, [done];
        mbarrier.test_wait.parity.shared.b64 %p1, [done], 0; @%p1 trap;
        mbarrier.complete_tx.relaxed.cta.shared.b64 [done], 4;
        mbarrier.test_wait.parity.shared.b64 %p1, [done], 0; @!%p1 trap;
        mbarrier.arrive.shared.b64 %rd2, [done]; mbarrier.test_wait.parity.shared.b64 %p1, [done], 1; @!%p1 trap;
        st.global.u64 [%rd0], 1; ret;";
    assert_eq!(results(body, 1), [1]);
}

#[test]
fn copies_arrive_when_they_are_done() {
    // 32 arrivals by `.noinc`; without it the arrival adds itself first and changes nothing.
    let ptx = kernel(
        ".shared .align 8 .b64 done; .shared .align 16 .b8 tile[512]; ld.param.u64 %rd1, [in];
        setp.ne.u32 %p1, %r0, 0; @!%p1 mbarrier.init.shared.b64 [done], 32; bar.sync 0;
        mov.u32 %r1, tile; mad.lo.u32 %r1, %r0, 16, %r1; mad.wide.u32 %rd2, %r0, 16, %rd1;
        cp.async.cg.shared.global [%r1], [%rd2], 16; cp.async.mbarrier.arrive.shared.b64 [done];
        mbarrier.test_wait.parity.shared.b64 %p2, [done], 0; @%p2 trap; bar.sync 0;
        cp.async.mbarrier.arrive.noinc.shared::cta.b64 [done];
    WAIT: mbarrier.try_wait.parity.shared.b64 %p2, [done], 0; @!%p2 bra WAIT;
        xor.b32 %r2, %r0, 31; mov.u32 %r1, tile; mad.lo.u32 %r1, %r2, 16, %r1; ld.shared.u64 %rd3, [%r1]; st.global.u64 [%rd0], %rd3; ret;",
    );
    let device = Device::default();
    let program = device.load(&ptx).unwrap();
    let data: Vec<u64> = (0..64).map(|i| i * 3 + 1).collect();
    let (input, out) = (device.upload(&data), device.allocate(32 * 8));
    device.run(&program, "k", shape(1, 32), &[out, input]).unwrap();
    let expected: Vec<u64> = (0..32).map(|lane| data[(31 - lane) * 2]).collect();
    assert_eq!(device.download::<u64>(out, 32), expected);
}

#[test]
fn bulk_copies_go_both_ways_in_whole_units() {
    let text = kernel(
        ".shared .align 8 .b64 done; .shared .align 16 .b8 tile[256]; .shared .align 16 .b8 other[256]; ld.param.u64 %rd1, [in];
        mbarrier.init.shared.b64 [done], 1; mbarrier.arrive.expect_tx.shared.b64 %rd3, [done], 160; mov.u64 %rd4, 0;
        cp.async.bulk.prefetch.L2.global [%rd1], 80;
        cp.async.bulk.shared::cta.global.mbarrier::complete_tx::bytes.L2::cache_hint [tile], [%rd1], 80, [done], %rd4;
        cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes [other], [tile], 80, [done];
        mbarrier.test_wait.shared.b64 %p1, [done], %rd3; @!%p1 trap;
        add.u64 %rd2, %rd1, 128; cp.async.bulk.global.shared::cta.bulk_group [%rd2], [other], 80;
        cp.async.bulk.commit_group; cp.async.bulk.wait_group.read 0; ret;",
    );
    let device = Device::default();
    let program = device.load(&text).unwrap();
    let data: Vec<u64> = (0..10).map(|i| 1 << i).chain([9; 16]).collect();
    let cell = device.upload(&data);
    device.run(&program, "k", shape(1, 1), &[cell, cell]).unwrap();
    let got = device.download::<u64>(cell, 26);
    assert_eq!((&got[16..26], &got[10..16]), (&data[..10], &[9; 6][..]));
    let odd = device.load(&text.replace("[other], 80;", "[other], 72;")).unwrap();
    assert!(matches!(
        device.run(&odd, "k", shape(1, 1), &[cell, cell]),
        Err(Fault::IllegalInstruction { .. })
    ));
}

#[test]
fn a_clusters_barrier_waits_for_arrivals_alone() {
    // Warp 1 arrives and spins on a flag that warp 0 sets behind its wait: waits need no partner, arrivals do.
    let body = "
        .shared .align 4 .u32 flag; setp.eq.u32 %p1, %r0, 0; @%p1 st.shared.u32 [flag], 0; bar.sync 0;
        setp.ge.u32 %p2, %r0, 32; @%p2 bra SPIN;
        barrier.cluster.arrive.release.aligned; barrier.cluster.wait.acquire.aligned; @%p1 st.volatile.shared.u32 [flag], 5; bra DONE;
    SPIN: barrier.cluster.arrive;
    AGAIN: ld.volatile.shared.u32 %r1, [flag]; setp.ne.u32 %p3, %r1, 5; @%p3 bra AGAIN; barrier.cluster.wait;
    DONE: barrier.cluster.arrive; barrier.cluster.wait; ld.shared.u32 %r1, [flag]; cvt.u64.u32 %rd1, %r1;
        bar.sync 0; st.global.u64 [%rd0], %rd1; ret;";
    assert_eq!(results(body, 64), vec![5; 64]);
}

#[test]
fn the_only_block_of_a_cluster_has_rank_0() {
    let body = "
        .shared .align 4 .u32 cell; mov.u32 %r1, cell; mapa.shared::cluster.u32 %r2, %r1, 0; st.shared::cluster.u32 [%r2], 9;
        cvt.u64.u32 %rd1, %r1; cvta.shared.u64 %rd1, %rd1; mapa.u64 %rd2, %rd1, 0; ld.u32 %r3, [%rd2];
        getctarank.u64 %r4, %rd2; mov.u32 %r5, %cluster_ctarank; mov.u32 %r6, %cluster_nctarank; mov.pred %p1, %is_explicit_cluster;
        add.u32 %r3, %r3, %r4; add.u32 %r3, %r3, %r5; add.u32 %r3, %r3, %r6; @%p1 trap; cvt.u64.u32 %rd3, %r3; st.global.u64 [%rd0], %rd3; ret;";
    assert_eq!(results(body, 2), [10, 10]);
    let device = Device::default();
    let program =
        device.load(&kernel("mov.u32 %r1, 1; mapa.shared::cluster.u32 %r2, %r0, %r1; ret;")).unwrap();
    let fault = device.run(&program, "k", shape(1, 1), &[device.allocate(8), 0]).unwrap_err();
    assert!(matches!(fault, Fault::IllegalInstruction { .. }), "{fault}");
}

#[test]
fn hints_check_their_operands() {
    let device = Device::default();
    for (good, bad) in [
        ("setmaxnreg.inc.sync.aligned.u32 240;", "setmaxnreg.inc.sync.aligned.u32 241;"),
        ("discard.global.L2 [%rd1], 128;", "discard.global.L2 [%rd1], 64;"),
        ("prefetch.global.L1 [%rd1];", "prefetch.global [%rd1];"),
        ("griddepcontrol.wait;", "griddepcontrol.wait 1;"),
        ("createpolicy.cvt.L2.b64 %rd1, %rd2;", "createpolicy.cvt.L2.b64 %rd1;"),
        ("fence.proxy.async;", "fence.proxy.nothing;"),
        ("nanosleep.u32 5;", "nanosleep.u32;"),
        ("cp.async.wait_group 0;", "cp.async.wait_group;"),
        ("max.xorsign.abs.f32 %f1, %f2, %f3;", "max.abs.f32 %f1, %f2, %f3;"),
    ] {
        assert!(device.load(&kernel(&format!("{good} ret;"))).is_ok(), "{good}");
        let error = device.load(&kernel(&format!("{bad} ret;"))).expect_err(bad);
        assert!(error.log.contains("line 9:"), "{}", error.log);
    }
}

#[test]
fn reductions_of_floats_over_a_warp() {
    // Lane 3 holds a NaN, lane 5 the largest magnitude.
    let input = |lane: usize| match lane {
        3 => f32::NAN,
        5 => -100.0,
        _ => lane as f32 - 10.0,
    };
    let constants = (0..32).map(|lane| {
        format!("setp.eq.u32 %p1, %r0, {lane}; @%p1 mov.b32 %f1, 0f{:08X};", input(lane).to_bits())
    });
    let load: String = constants.collect();
    let cases: [(&str, f32); 4] = [("min", -100.0), ("max", 21.0), ("max.abs", 100.0), ("min.abs", 0.0)];
    for (name, expected) in cases {
        let body = format!(
            "{load} redux.sync.{name}.f32 %f2, %f1, -1; mov.b32 %r1, %f2; cvt.u64.u32 %rd1, %r1; st.global.u64 [%rd0], %rd1; ret;"
        );
        assert_eq!(results(&body, 32), vec![u64::from(expected.to_bits()); 32], "{name}");
        let body = body.replace(&format!(".{name}.f32"), &format!(".{name}.NaN.f32"));
        assert_eq!(results(&body, 32), vec![0x7fff_ffff; 32], "{name}.NaN");
    }
}

#[test]
fn vector_atomics_change_each_element() {
    let ptx = kernel(
        "ld.param.u64 %rd1, [in]; mov.f32 %f1, 0f3F800000; mov.f32 %f2, 0f40000000;
        atom.global.add.v2.f32 {%f3, %f4}, [%rd1], {%f1, %f2}; st.global.v2.f32 [%rd1+32], {%f3, %f4};
        mov.b16 %h1, 0x4000; mov.b16 %h2, 0xc000;
        red.global.max.noftz.v2.f16 [%rd1+8], {%h1, %h2}; red.global.min.noftz.v2.bf16 [%rd1+12], {%h1, %h2};
        mov.b32 %r1, 0x3c004000; atom.global.max.noftz.v2.f16x2 {%r2, %r3}, [%rd1+16], {%r1, %r1}; st.global.v2.u32 [%rd1+40], {%r2, %r3}; ret;",
    );
    let device = Device::default();
    let program = device.load(&ptx).unwrap();
    // f16: 1.0 and -1.0 at 8, the bf16 2.0 and -3.0 at 12, pairs (1.0, 3.0) and (-1.0, 0.5) from 16 on.
    let words = [
        0.5f32.to_bits(),
        1.5f32.to_bits(),
        0xbc00_3c00,
        0xc040_4000,
        0x4200_3c00,
        0x3800_bc00,
        0,
        0,
        0,
        0,
        0,
        0,
    ];
    let cell = device.upload(&words);
    device.run(&program, "k", shape(1, 1), &[device.allocate(8), cell]).unwrap();
    let got = device.download::<u32>(cell, 12);
    assert_eq!((f32::from_bits(got[0]), f32::from_bits(got[1])), (1.5, 3.5));
    assert_eq!((f32::from_bits(got[8]), f32::from_bits(got[9])), (0.5, 1.5), "what was there before");
    // 2.0 against 1.0, -2.0 against -1.0.
    assert_eq!(got[2], 0xbc00_4000);
    // The same bits are 2.0 and -2.0 in bf16.
    assert_eq!(got[3], 0xc040_4000);
    // (2.0, 1.0) against (1.0, 3.0) and (-1.0, 0.5).
    assert_eq!(&got[4..6], [0x4200_4000, 0x3c00_4000]);
    assert_eq!(&got[10..12], [0x4200_3c00, 0x3800_bc00]);
    let skew = device
        .load(&kernel("ld.param.u64 %rd1, [in]; red.global.add.v2.f32 [%rd1+4], {%f1, %f1}; ret;"))
        .unwrap();
    assert!(matches!(
        device.run(&skew, "k", shape(1, 1), &[cell, cell]),
        Err(Fault::MisalignedAddress { bytes: 8, .. })
    ));
}

#[test]
fn sums_keep_subnormals_in_shared_memory_alone() {
    let body = "
        .shared .align 4 .u32 cell; st.shared.u32 [cell], 5; mov.u32 %r1, cell; cvt.u64.u32 %rd1, %r1; cvta.shared.u64 %rd1, %rd1;
        st.global.u32 [%rd0], 5; mov.b32 %f1, 3; atom.add.f32 %f2, [%rd1], %f1; atom.add.f32 %f2, [%rd0], %f1;
        ld.shared.u32 %r2, [cell]; st.global.u32 [%rd0+4], %r2; ret;";
    assert_eq!(results(body, 1), [8 << 32]);
}

#[test]
fn constants_are_a_space_of_their_own() {
    let body = "
        .const .align 8 .u64 fixed[2] = {1, 2}; .global .u64 free; mov.u64 %rd1, fixed; cvta.const.u64 %rd1, %rd1; mov.u64 %rd2, free;
        isspacep.const %p1, %rd1; isspacep.global %p2, %rd1; isspacep.const %p3, %rd2; isspacep.global %p4, %rd2;
        selp.u32 %r1, 1, 0, %p1; selp.u32 %r2, 2, 0, %p2; selp.u32 %r3, 4, 0, %p3; selp.u32 %r4, 8, 0, %p4;
        add.u32 %r1, %r1, %r2; add.u32 %r1, %r1, %r3; add.u32 %r1, %r1, %r4; ld.u64 %rd3, [%rd1+8]; cvt.u64.u32 %rd4, %r1;
        mad.lo.u64 %rd4, %rd3, 100, %rd4; st.global.u64 [%rd0], %rd4; ret;";
    assert_eq!(results(body, 1), [209]);
}
