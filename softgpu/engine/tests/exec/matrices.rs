//! Tensor-core instructions against plain loops, with the fragment layouts of the ISA manual.

use half::f16;

use crate::harness::{Device, kernel, results, shape};

/// Small integers, exact in every format.
fn small(row: usize, column: usize, seed: usize) -> i32 {
    ((row * 7 + column * 3 + seed) % 9) as i32 - 4
}

#[test]
fn f16_products_accumulate_in_f32() {
    // Each lane loads its fragments of a row-major A (16x16) and a column-major B (16x8) as words.
    let ptx = kernel(
        "ld.param.u64 %rd1, [in]; shr.u32 %r1, %r0, 2; and.b32 %r2, %r0, 3;
        mad.lo.u32 %r3, %r1, 8, %r2; mad.wide.u32 %rd2, %r3, 4, %rd1;
        ld.global.u32 %r10, [%rd2]; ld.global.u32 %r11, [%rd2+256]; ld.global.u32 %r12, [%rd2+16]; ld.global.u32 %r13, [%rd2+272];
        ld.global.u32 %r14, [%rd2+512]; ld.global.u32 %r15, [%rd2+528];
        mov.f32 %f1, 0f3F000000;
        mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%f2, %f3, %f4, %f5}, {%r10, %r11, %r12, %r13}, {%r14, %r15}, {%f1, %f1, %f1, %f1};
        mad.lo.u32 %r3, %r1, 8, %r2; add.u32 %r3, %r3, %r2; mad.wide.u32 %rd3, %r3, 4, %rd1;
        st.global.v2.f32 [%rd3+768], {%f2, %f3}; st.global.v2.f32 [%rd3+1024], {%f4, %f5}; ret;",
    );
    let device = Device::default();
    let program = device.load(&ptx).unwrap();
    let half = |v: i32| f16::from_f32(v as f32).to_bits();
    let mut data: Vec<u16> = Vec::new();
    data.extend((0..256).map(|i| half(small(i / 16, i % 16, 1))));
    data.extend((0..128).map(|i| half(small(i % 16, i / 16, 5))));
    data.resize(640, 0);
    let input = device.upload(&data);
    device.run(&program, "k", shape(1, 32), &[input, input]).unwrap();
    for (i, got) in device.download::<f32>(input + 768, 128).into_iter().enumerate() {
        let (row, column) = (i / 8, i % 8);
        let sum: i32 = (0..16).map(|k| small(row, k, 1) * small(k, column, 5)).sum();
        assert_eq!(got, sum as f32 + 0.5, "({row}, {column})");
    }
}

#[test]
fn bytes_accumulate_in_integers() {
    // A and B hold the same value in each row and column, so the layout over k does not matter.
    let body = "
        shr.u32 %r1, %r0, 2; mul.lo.u32 %r1, %r1, 0x01010101; add.u32 %r2, %r1, 0x08080808; sub.u32 %r3, 0, %r1;
        mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%r4, %r5, %r6, %r7}, {%r1, %r2, %r1, %r2}, {0xfefefefe, 0xfefefefe}, {5, 5, 5, 5};
        mov.b64 %rd1, {%r5, %r7}; st.global.u64 [%rd0], %rd1; ret;";
    for (lane, got) in results(body, 32).into_iter().enumerate() {
        let group = lane as i32 / 4;
        assert_eq!(got as i32, 5 - 64 * group);
        assert_eq!((got >> 32) as i32, 5 - 64 * (group + 8));
    }
}

#[test]
fn rows_load_plain_and_transposed() {
    let body = "
        .shared .align 16 .b8 tile[512];
        mov.u32 %r1, tile; mad.lo.u32 %r2, %r0, 16, %r1; mul.lo.u32 %r3, %r0, 8;
        mad.lo.u32 %r4, %r3, 0x10001, 0x10000; add.u32 %r5, %r4, 0x20002; add.u32 %r6, %r5, 0x20002; add.u32 %r7, %r6, 0x20002;
        st.shared.v4.u32 [%r2], {%r4, %r5, %r6, %r7}; bar.warp.sync -1;
        ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r10, %r11, %r12, %r13}, [%r2];
        ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%r14, %r15, %r16, %r17}, [%r2];
        movmatrix.sync.aligned.m8n8.trans.b16 %r18, %r13; setp.ne.u32 %p1, %r18, %r17; @%p1 trap;
        mov.b64 %rd1, {%r11, %r15}; st.global.u64 [%rd0], %rd1; ret;";
    for (lane, got) in (0u64..).zip(results(body, 32)) {
        // Element (r, c) of matrix 1 is 64 + 8 r + c.
        let at = |row: u64, column: u64| 64 + row * 8 + column;
        let (outer, inner) = (lane / 4, lane % 4 * 2);
        assert_eq!(got & 0xffff_ffff, at(outer, inner) | at(outer, inner + 1) << 16);
        assert_eq!(got >> 32, at(inner, outer) | at(inner + 1, outer) << 16);
    }
}

#[test]
fn asynchronous_copies_have_landed_after_the_wait() {
    let ptx = kernel(
        ".shared .align 16 .b8 tile[1024];
        ld.param.u64 %rd1, [in]; mad.wide.u32 %rd1, %r0, 16, %rd1; mov.u32 %r1, tile; mad.lo.u32 %r1, %r0, 16, %r1;
        mov.u64 %rd9, 0; cp.async.cg.shared.global.L2::cache_hint [%r1], [%rd1], 16, %rd9; cp.async.ca.shared.global [%r1+512], [%rd1], 8, 4;
        cp.async.commit_group; cp.async.wait_group 0; bar.sync 0;
        ld.shared.u32 %r2, [%r1+12]; ld.shared.v2.u32 {%r3, %r4}, [%r1+512]; add.u32 %r2, %r2, %r4;
        mov.b64 %rd2, {%r2, %r3}; st.global.u64 [%rd0], %rd2; ret;",
    );
    let device = Device::default();
    let program = device.load(&ptx).unwrap();
    let input = device.upload(&(0..128u32).collect::<Vec<_>>());
    let out = device.allocate(32 * 8);
    device.run(&program, "k", shape(1, 32), &[out, input]).unwrap();
    for (tid, got) in (0u64..).zip(device.download::<u64>(out, 32)) {
        assert_eq!(got, (tid * 4 + 3) | (tid * 4) << 32);
    }
}

#[test]
fn fragments_load_multiply_and_store() {
    // d = a b + c with a row-major, b column-major, rows 24 elements apart, and d stored by columns.
    let registers = |prefix: &str| (0..8).map(|k| format!("%{prefix}{k}")).collect::<Vec<_>>().join(", ");
    let (a, b, c) = (registers("x"), registers("y"), registers("z"));
    let ptx = kernel(&format!(
        ".reg .b32 %x<8>; .reg .b32 %y<8>; .reg .f32 %z<8>;
        ld.param.u64 %rd1, [in]; add.u64 %rd2, %rd1, 768; add.u64 %rd3, %rd1, 1536; add.u64 %rd4, %rd1, 2560;
        wmma.load.a.sync.aligned.row.m16n16k16.global.f16 {{{a}}}, [%rd1], 24;
        wmma.load.b.sync.aligned.col.m16n16k16.global.f16 {{{b}}}, [%rd2], 24;
        wmma.load.c.sync.aligned.row.m16n16k16.global.f32 {{{c}}}, [%rd3], 16;
        wmma.mma.sync.aligned.row.col.m16n16k16.f32.f32 {{{c}}}, {{{a}}}, {{{b}}}, {{{c}}};
        wmma.store.d.sync.aligned.col.m16n16k16.global.f32 [%rd4], {{{c}}}, 16; ret;"
    ));
    let device = Device::default();
    let program = device.load(&ptx).unwrap();
    let half = |v: i32| f16::from_f32(v as f32).to_bits();
    let mut data = vec![0u8; 3584];
    let mut put = |at: usize, bytes: &[u8]| data[at..at + bytes.len()].copy_from_slice(bytes);
    for i in 0..16 {
        for j in 0..16 {
            put((i * 24 + j) * 2, &half(small(i, j, 1)).to_le_bytes());
            put(768 + (j * 24 + i) * 2, &half(small(i, j, 5)).to_le_bytes());
            put(1536 + (i * 16 + j) * 4, &(small(i, j, 2) as f32).to_le_bytes());
        }
    }
    let input = device.upload(&data);
    device.run(&program, "k", shape(1, 32), &[input, input]).unwrap();
    for (e, got) in device.download::<f32>(input + 2560, 256).into_iter().enumerate() {
        let (row, column) = (e % 16, e / 16);
        let sum: i32 = (0..16).map(|k| small(row, k, 1) * small(k, column, 5)).sum();
        assert_eq!(got, (sum + small(row, column, 2)) as f32, "({row}, {column})");
    }
}
