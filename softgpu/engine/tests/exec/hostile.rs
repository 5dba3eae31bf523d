//! Damaged text must end in an error or in a program that runs or faults: never in a panic, never in a hang.

use std::sync::atomic::Ordering;

use lightos_softgpu_engine::exec::Fault;
use lightos_softgpu_engine::exec::image::{AddressMode, Format, Geometry, Sampler, Surface, Texture};

use crate::harness::{Device, HEADER, kernel, shape};

const BODY: &str = "
    .shared .align 4 .b8 tile[256]; .local .align 8 .b8 own[16];
    ld.param.u64 %rd1, [in]; mov.u32 %r1, tile; and.b32 %r2, %r0, 3; T: .branchtargets A, B, C; brx.idx %r2, T;
 A: shfl.sync.bfly.b32 %r3|%p1, %r0, 1, 31, -1; bra C;
 B: atom.shared.add.u32 %r3, [%r1], 1; cvt.rn.f16x2.f32 %r4, %f1, %f2; @%p1 bra C; mov.b64 {%r5, %r6}, %rd1;
 C: bar.sync 0; vote.sync.ballot.b32 %r7, %p1, -1; mad.wide.s32 %rd2, %r7, 0, %rd0; st.global.v2.u32 [%rd2], {%r3, %r7};
    { .param .b32 a; st.param.b32 [a], %r0; ld.param.b32 %r8, [a]; } st.local.u64 [own+8], %rd2; div.s32 %r9, %r8, %r7;
    cvt.rzi.s32.f64 %r9, %d1; bfe.u32 %r9, %r9, %r8, %r7; setp.lt.and.f32 %p2|%p3, %f1, %f2, %p1; ret;";

/// Instructions with side tables, state of their own, or memory behind them.
const TABLES: &str = "
    .shared .align 16 .b8 tile[256]; .shared .align 8 .b64 done; .reg .b128 %q<4>;
    ld.param.u64 %rd1, [in]; mov.u32 %r1, tile; mov.u32 %r2, done; setp.lt.u32 %p1, %r0, 7;
    F: .calltargets helper, other; mov.u64 %rd3, helper; call (%r3), %rd3, (%r0), F; alloca.u64 %rd4, 32, 16; st.local.u32 [%rd4+8], %r3;
    mov.b128 %q1, {%rd1, %rd3}; mov.b128 {%rd5, %rd6}, %q1; ld.global.b128 %q2, [%rd1]; atom.global.cas.b128 %q3, [%rd1], %q1, %q2;
    stacksave.u64 %rd7; alloca.u32 %r4, %r0; stackrestore.u64 %rd7; @%p1 mbarrier.init.shared.b64 [done], 40; bar.sync 0;
    mbarrier.arrive_drop.expect_tx.release.cta.shared::cta.b64 %rd8, [done], 16; cp.async.mbarrier.arrive.noinc.shared.b64 [%r2];
    st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v2.b64 [%r1], {%rd1, %rd3}, [%r2];
    red.async.relaxed.cluster.shared::cluster.mbarrier::complete_tx::bytes.add.u32 [%r1+16], %r0, [%r2];
    @%p1 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r1], [%rd1], 32, [%r2];
    atom.global.add.v4.f32 {%f1, %f2, %f3, %f4}, [%rd1], {%f5, %f6, %f7, %f8}; red.global.max.noftz.v2.f16x2 [%rd1+8], {%r3, %r4};
    lop3.or.b32 %r5|%p2, %r3, %r4, %r0, 0x1b, %p1; cvt.pack.sat.s4.s32.b32 %r6, %r5, %r3, %r4; cvt.rn.satfinite.e4m3x2.f32 %h1, %f1, %f2;
    vadd4.s32.u32.s32.sat %r7.b20, %r5.b7610, %r6.b3321, %r3; vset2.u32.s32.lt.add %r7, %r5.h31, %r6, %r4; vshl.s32.s32.u32.wrap.add %r7, %r5.h1, %r6.b3, %r4;
    mma.sync.aligned.m16n8k64.row.col.s32.s4.u4.s32 {%r10, %r11, %r12, %r13}, {%r1, %r2, %r3, %r4}, {%r5, %r6}, {%r10, %r11, %r12, %r13};
    wmma.load.a.sync.aligned.row.m8n8k128.global.b1 {%r14}, [%rd1], 128; wmma.load.c.sync.aligned.row.m8n8k4.global.f64 {%d1, %d2}, [%rd1], 8;
    wmma.store.d.sync.aligned.col.m8n8k32.shared.s32 [%r1], {%r14, %r15}, 8; redux.sync.max.abs.NaN.f32 %f9, %f1, -1;
    barrier.cluster.arrive.aligned; barrier.cluster.wait; mapa.shared::cluster.u32 %r16, %r1, 0; add.rz.f32x2 %rd9, %rd1, %rd3;
    fma.rn.f32.bf16 %f10, %h1, %h2, %f1; set.lt.or.u32.f16x2 %r17, %r3, %r4, %p2; setmaxnreg.inc.sync.aligned.u32 40; ret;";

const HELPERS: &str = ".func (.reg .b32 %v) helper(.reg .b32 %x) { .local .b8 pad[32]; .reg .b64 %s; alloca.u64 %s, 8; add.u32 %v, %x, 1; ret; }
    .func (.reg .b32 %v) other(.reg .b32 %x) { call (%v), helper, (%x); ret; }
";

/// Numbers below a bound, the same in every run.
fn noise() -> impl FnMut(usize) -> usize {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    move |bound| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % bound as u64) as usize
    }
}

/// The text of `pieces` with one or two of them replaced, dropped or added.
fn damaged(pieces: &[&str], next: &mut impl FnMut(usize) -> usize) -> String {
    let mut changed = pieces.to_vec();
    for _ in 0..=next(2) {
        let at = next(changed.len());
        match next(3) {
            0 => changed[at] = pieces[next(pieces.len())],
            1 => changed[at] = "",
            _ => changed.insert(at, pieces[next(pieces.len())]),
        }
    }
    changed.concat()
}

#[test]
fn damaged_compiler_output_loads_or_is_refused() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../kernels/tests/fixtures");
    let mut next = noise();
    let mut loaded = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "ptx") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let pieces: Vec<&str> = text.split_inclusive([' ', '\t', ',', ';', '.', '{', '[']).collect();
        for _ in 0..40 {
            loaded += usize::from(Device::default().load(&damaged(&pieces, &mut next)).is_ok());
        }
    }
    assert!(loaded > 100, "only {loaded} of the damaged modules loaded");
}

/// `in` is a texture's handle; its low bit off is a surface's.
const IMAGES: &str = "
    ld.param.u64 %rd1, [in]; mov.f32 %f1, 0f40200000; cvt.rn.f32.u32 %f2, %r0; mul.lo.u32 %r1, %r0, 4; mov.u32 %r9, 7;
    tex.2d.v4.f32.f32 {%f3, %f4, %f5, %f6}, [%rd1, {%f1, %f2}]; tld4.g.2d.v4.f32.f32 {%f7, %f8, %f9, %f10}, [%rd1, {%f2, %f1}];
    tex.2d.v4.u32.s32 {%r2, %r3, %r4, %r5}, [%rd1, {%r0, 1}]; txq.width.b32 %r6, [%rd1]; and.b64 %rd2, %rd1, -2;
    suld.b.2d.v2.b16.zero {%h1, %h2}, [%rd2, {%r1, %r9}]; sust.b.2d.b32.clamp [%rd2, {%r1, %r9}], {%r6};
    suld.b.2d.b8.trap {%h3}, [%rd2, {3, 2}]; suq.height.b32 %r7, [%rd2]; sub.f32 %f2, %f3, %f6; st.global.f32 [%rd0], %f2; ret;";

#[test]
fn damaged_programs_neither_panic_nor_hang() {
    let newer = kernel(TABLES).replacen(HEADER, &format!("{HEADER}{HELPERS}"), 1);
    for (text, least) in [(kernel(BODY), 300), (newer, 300)] {
        let ran = damage(&text, 2000, |_, out| out);
        assert!(ran > least, "only {ran} of the damaged programs loaded");
    }
}

#[test]
fn damaged_image_accesses_neither_panic_nor_hang() {
    let ran = damage(&kernel(IMAGES), 3000, |device, _| {
        let mut next = crate::textures::noise();
        let mut fill = || (next() * 256.0) as u8;
        let (image, _) = crate::textures::texels(device, Geometry::D2, Format::Half, 4, [5, 4, 1], &mut fill);
        let sampler = Sampler {
            address: [AddressMode::Mirror; 3],
            linear: true,
            normalized: true,
            as_integer: false,
            border: [0; 4],
        };
        device.surface(Surface(image));
        device.texture(Texture { texels: image, sampler })
    });
    assert!(ran > 300, "only {ran} of the damaged programs loaded");
}

/// The examples of docs/PTX.md, as they stand and damaged. Registers are zero, so most of them fault.
#[test]
fn examples_of_the_audit_neither_panic_nor_hang() {
    for text in crate::audit::carried() {
        damage(&text, 12, |_, out| out);
    }
}

/// Runs `count` damaged forms of `text`, as far as they load, and gives their number. `input` gives the kernel's `in`.
fn damage(text: &str, count: usize, input: impl Fn(&Device, u64) -> u64) -> usize {
    assert!(Device::default().load(text).is_ok(), "{}", Device::default().load(text).unwrap_err());
    let pieces: Vec<&str> = text.split_inclusive([' ', ',', ';', '.', '{', '[']).collect();
    let mut next = noise();
    let mut ran = 0;
    for _ in 0..count {
        let text = damaged(&pieces, &mut next);
        let device = Device::default();
        let Ok(program) = device.load(&text) else { continue };
        if program.kernel("k").is_none() {
            continue;
        }
        ran += 1;
        let out = device.allocate(64 * 8);
        let input = input(&device, out);
        std::thread::scope(|scope| {
            let run = scope.spawn(|| device.run(&program, "k", shape(1, 40), &[out, input]));
            let started = std::time::Instant::now();
            while !run.is_finished() && started.elapsed().as_millis() < 100 {
                std::thread::yield_now();
            }
            device.cancel.store(true, Ordering::Relaxed);
            // The machine turns its own panics into a fault of that name.
            let internal = |fault: &Fault| fault.to_string().contains("internal error");
            assert!(!run.join().unwrap().is_err_and(|fault| internal(&fault)), "a panic from:\n{text}");
        });
    }
    ran
}
