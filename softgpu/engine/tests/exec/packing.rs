//! `lop3` with a predicate, `cvt.pack`, video instructions, 128-bit registers.

use crate::harness::{Device, eval, kernel, shape};

/// Words that sit on edges of bytes and halves, in every pair.
fn words() -> Vec<[u64; 3]> {
    let list = [
        0u64,
        1,
        0x7f,
        0x80,
        0xff,
        0x7fff,
        0x8000,
        0xffff,
        0x7fff_ffff,
        0x8000_0000,
        0xffff_ffff,
        0x0180_7fff,
        0xdead_beef,
        0x1234_5678,
    ];
    let mut cases = Vec::new();
    for (k, a) in list.into_iter().enumerate() {
        for b in list {
            cases.push([a, b, list[(k * 5 + 2) % list.len()] ^ (b << 3 & 0xffff_ffff)]);
        }
    }
    cases
}

fn check(snippet: &str, expected: impl Fn(u32, u32, u32) -> u32) {
    let cases = words();
    for (case, got) in cases.iter().zip(eval(snippet, &cases)) {
        let [a, b, c] = case.map(|v| v as u32);
        assert_eq!(got as u32, expected(a, b, c), "{snippet} with {a:#x}, {b:#x}, {c:#x}");
    }
}

#[test]
fn lop3_gives_a_predicate() {
    check(
        "lop3.or.b32 %r4|%p1, %a32, %b32, %c32, 0x80, %ap; selp.b32 %r5, 1, 0, %p1; xor.b32 %o32, %r4, %r5;",
        |a, b, c| a & b & c ^ u32::from(a & b & c != 0 || a != 0),
    );
    check("lop3.and.b32 _|%p1, %a32, %b32, %c32, 0x96, !%bp; selp.b32 %o32, 1, 0, %p1;", |a, b, c| {
        u32::from(a ^ b ^ c != 0 && b == 0)
    });
}

#[test]
fn packs_saturate_each_number() {
    let field = |v: u32, low: i64, high: i64, bits: u32| {
        (i64::from(v as i32).clamp(low, high) as u32) & ((1 << bits) - 1)
    };
    check("cvt.pack.sat.s16.s32 %o32, %a32, %b32;", |a, b, _| {
        field(a, -32768, 32767, 16) << 16 | field(b, -32768, 32767, 16)
    });
    check("cvt.pack.sat.u16.s32 %o32, %a32, %b32;", |a, b, _| {
        field(a, 0, 65535, 16) << 16 | field(b, 0, 65535, 16)
    });
    check("cvt.pack.sat.u8.s32.b32 %o32, %a32, %b32, %c32;", |a, b, c| {
        c << 16 | field(a, 0, 255, 8) << 8 | field(b, 0, 255, 8)
    });
    check("cvt.pack.sat.s4.s32.b32 %o32, %a32, %b32, %c32;", |a, b, c| {
        c << 8 | field(a, -8, 7, 4) << 4 | field(b, -8, 7, 4)
    });
    check("cvt.pack.sat.s2.s32.b32 %o32, %a32, %b32, %c32;", |a, b, c| {
        c << 4 | field(a, -2, 1, 2) << 2 | field(b, -2, 1, 2)
    });
}

#[test]
fn a_product_of_24_bits_saturates_its_sum() {
    check("mad24.hi.sat.s32 %o32, %a32, %b32, %c32;", |a, b, c| {
        let factor = |v: u32| i64::from((v << 8) as i32 >> 8);
        let sum = i64::from(((factor(a) * factor(b)) >> 16) as i32) + i64::from(c as i32);
        sum.clamp(i32::MIN.into(), i32::MAX.into()) as u32
    });
}

#[test]
fn video_works_on_selected_parts() {
    check("vadd.s32.u32.s32.sat %o32, %a32.b3, %b32.h0;", |a, b, _| {
        ((a >> 24) as i32 + i32::from(b as i16)) as u32
    });
    check("vadd.u32.u32.u32.sat %o32, %a32, %b32;", |a, b, _| a.saturating_add(b));
    check("vsub.s32.s32.s32.sat.add %o32, %a32, %b32, %c32;", |a, b, c| {
        (a as i32).saturating_sub(b as i32).wrapping_add(c as i32) as u32
    });
    check("vabsdiff.u32.s32.s32.max %o32, %a32, %b32, %c32;", |a, b, c| (a as i32).abs_diff(b as i32).max(c));
    check("mov.b32 %o32, 0; vmax.s32.s32.s32.sat %o32.b1, %a32, %b32, %c32;", |a, b, c| {
        let byte = (a as i32).max(b as i32).clamp(-128, 127) as u8;
        c & 0xffff_00ff | u32::from(byte) << 8
    });
    check("vshl.u32.u32.u32.clamp %o32, %a32, %b32;", |a, b, _| if b > 31 { 0 } else { a << b });
    check("vshr.s32.s32.u32.wrap %o32, %a32, %b32;", |a, b, _| ((a as i32) >> (b & 31)) as u32);
    check("vset.s32.u32.lt %o32, %a32.b0, %b32.b1;", |a, b, _| {
        u32::from(i32::from(a as i8) < (b >> 8 & 255) as i32)
    });
}

#[test]
fn video_in_two_and_four_lanes() {
    let bytes = |v: u32| v.to_le_bytes();
    check("vabsdiff4.u32.u32.u32 %o32, %a32, %b32, %c32;", |a, b, _| {
        u32::from_le_bytes(std::array::from_fn(|k| bytes(a)[k].abs_diff(bytes(b)[k])))
    });
    check("vabsdiff4.u32.u32.u32.add %o32, %a32, %b32, %c32;", |a, b, c| {
        (0..4).fold(c, |sum, k| sum.wrapping_add(u32::from(bytes(a)[k].abs_diff(bytes(b)[k]))))
    });
    check("vavrg4.s32.s32.s32 %o32, %a32, %b32, %c32;", |a, b, _| {
        u32::from_le_bytes(std::array::from_fn(|k| {
            let sum = i32::from(bytes(a)[k] as i8) + i32::from(bytes(b)[k] as i8);
            (if sum >= 0 { (sum + 1) >> 1 } else { sum >> 1 }) as u8
        }))
    });
    let half = |v: u32, k: u32| i32::from((v >> (16 * k)) as i16);
    check("vadd2.s32.s32.s32.sat %o32, %a32, %b32, %c32;", |a, b, _| {
        (0..2).fold(0, |word, k| {
            word | u32::from((half(a, k) + half(b, k)).clamp(-32768, 32767) as i16 as u16) << (16 * k)
        })
    });
    // Only the upper half is written; it adds half 2 (b's lower) of the selection to half 0.
    check("mov.b32 %o32, 0; vadd2.u32.u32.u32 %o32.h1, %a32.h20, %b32.h03, %c32;", |a, b, c| {
        let (x, y) = (b & 0xffff, a & 0xffff);
        c & 0xffff | ((x + y) & 0xffff) << 16
    });
    check("vset4.u32.u32.ge.add %o32, %a32, %b32, %c32;", |a, b, c| {
        (0..4).fold(c, |sum, k| sum.wrapping_add(u32::from(bytes(a)[k] >= bytes(b)[k])))
    });
}

#[test]
fn registers_of_128_bits_move_and_swap() {
    let ptx = kernel(
        ".reg .b128 %q<4>; ld.param.u64 %rd1, [in]; ld.global.v2.u64 {%rd2, %rd3}, [%rd1];
        mov.b128 %q1, {%rd2, %rd3}; mov.b128 %q2, {%rd3, %rd2};
        st.global.b128 [%rd1+16], %q2; ld.global.b128 %q3, [%rd1+16];
        atom.global.cas.b128 %q0, [%rd1], %q1, %q3;
        mov.b128 {%rd4, %rd5}, %q0; st.global.v2.u64 [%rd1+32], {%rd4, %rd5};
        atom.acq_rel.sys.global.cas.b128 %q0, [%rd1], %q1, %q1; st.global.b128 [%rd1+48], %q0;
        atom.global.exch.b128 %q0, [%rd1], %q1; st.global.v2.b128 [%rd1+64], {%q0, %q1}; ret;",
    );
    let device = Device::default();
    let program = device.load(&ptx).unwrap();
    let mut data = [0u64; 12];
    data[..2].copy_from_slice(&[0x1111_2222_3333_4444, 0x5555_6666_7777_8888]);
    let (low, high) = (data[0], data[1]);
    let cell = device.upload(&data);
    device.run(&program, "k", shape(1, 1), &[cell, cell]).unwrap();
    let expected = [low, high, high, low, low, high, high, low, high, low, low, high];
    assert_eq!(device.download::<u64>(cell, 12), expected);
    let misaligned = device.load(&kernel(".reg .b128 %q<2>; ld.global.b128 %q1, [%rd0]; ret;")).unwrap();
    assert!(device.run(&misaligned, "k", shape(1, 1), &[cell + 8, 0]).is_err());
}

#[test]
fn swaps_of_128_bits_are_whole() {
    // Every thread of many blocks swaps in a pair of equal words; a torn one would show as two different words.
    let ptx = kernel(
        ".reg .b128 %q<4>; ld.param.u64 %rd1, [in]; mov.u32 %r1, %ctaid.x; mad.lo.u32 %r1, %r1, 64, %r0; cvt.u64.u32 %rd2, %r1;
        mov.b128 %q1, {%rd2, %rd2}; mov.u32 %r2, 0;
    LOOP: atom.global.exch.b128 %q2, [%rd1], %q1; mov.b128 {%rd3, %rd4}, %q2; setp.ne.u64 %p1, %rd3, %rd4; @%p1 trap;
        add.u32 %r2, %r2, 1; setp.lt.u32 %p2, %r2, 50; @%p2 bra LOOP; ret;",
    );
    let device = Device::default();
    let program = device.load(&ptx).unwrap();
    let cell = device.upload(&[7u64, 7]);
    device.run(&program, "k", shape(64, 64), &[cell, cell]).unwrap();
    let last = device.download::<u64>(cell, 2);
    assert!(last[0] == last[1] && last[0] < 64 * 64);
}
