//! Integer arithmetic, bits, comparison, selection.

use crate::harness::eval;

/// Values that sit on edges, in every pair.
fn pairs() -> Vec<[u64; 3]> {
    let values = [
        0u64,
        1,
        2,
        3,
        5,
        7,
        31,
        32,
        33,
        63,
        64,
        65,
        127,
        128,
        255,
        256,
        0x7fff,
        0x8000,
        0xffff,
        0x1_0000,
        0x7fff_ffff,
        0x8000_0000,
        0xffff_ffff,
        0x1_0000_0000,
        0x1234_5678_9abc_def0,
        i64::MAX as u64,
        1 << 63,
        u64::MAX,
        u64::MAX - 1,
        0xffff_ffff_0000_0000,
    ];
    let mut cases = Vec::new();
    for (i, &a) in values.iter().enumerate() {
        for &b in &values {
            cases.push([a, b, values[(i * 7 + 3) % values.len()] ^ b.rotate_left(9)]);
        }
    }
    cases
}

fn check(snippet: &str, expected: impl Fn(u64, u64, u64) -> u64) {
    let cases = pairs();
    for (case, result) in cases.iter().zip(eval(snippet, &cases)) {
        let [a, b, c] = *case;
        assert_eq!(result, expected(a, b, c), "{snippet} with {a:#x}, {b:#x}, {c:#x}");
    }
}

fn w(v: i32) -> u64 {
    u64::from(v as u32)
}

#[test]
fn sums_and_products() {
    check("add.s32 %o32, %a32, %b32;", |a, b, _| u64::from((a as u32).wrapping_add(b as u32)));
    check("sub.u64 %o64, %a64, %b64;", |a, b, _| a.wrapping_sub(b));
    check("add.u16 %o16, %a16, %b16;", |a, b, _| u64::from((a as u16).wrapping_add(b as u16)));
    check("add.sat.s32 %o32, %a32, %b32;", |a, b, _| w((a as i32).saturating_add(b as i32)));
    check("sub.sat.s32 %o32, %a32, %b32;", |a, b, _| w((a as i32).saturating_sub(b as i32)));
    check("mul.lo.s32 %o32, %a32, %b32;", |a, b, _| w((a as i32).wrapping_mul(b as i32)));
    check("mul.hi.u32 %o32, %a32, %b32;", |a, b, _| (a as u32 as u64 * b as u32 as u64) >> 32);
    check("mul.hi.s32 %o32, %a32, %b32;", |a, b, _| w(((a as i32 as i64 * b as i32 as i64) >> 32) as i32));
    check("mul.hi.u64 %o64, %a64, %b64;", |a, b, _| ((a as u128 * b as u128) >> 64) as u64);
    check("mul.hi.s64 %o64, %a64, %b64;", |a, b, _| ((a as i64 as i128 * b as i64 as i128) >> 64) as u64);
    check("mul.wide.s32 %o64, %a32, %b32;", |a, b, _| (a as i32 as i64 * b as i32 as i64) as u64);
    check("mul.wide.u16 %o32, %a16, %b16;", |a, b, _| u64::from(a as u16) * u64::from(b as u16));
    check("mad.lo.s32 %o32, %a32, %b32, %c32;", |a, b, c| {
        w((a as i32).wrapping_mul(b as i32).wrapping_add(c as i32))
    });
    check("mad.wide.u32 %o64, %a32, %b32, %c64;", |a, b, c| {
        (u64::from(a as u32) * u64::from(b as u32)).wrapping_add(c)
    });
    check("mad.hi.s32 %o32, %a32, %b32, %c32;", |a, b, c| {
        w((((a as i32 as i64 * b as i32 as i64) >> 32) as i32).wrapping_add(c as i32))
    });
    check("mul24.lo.u32 %o32, %a32, %b32;", |a, b, _| ((a & 0xff_ffff) * (b & 0xff_ffff)) & 0xffff_ffff);
    check("mad24.lo.s32 %o32, %a32, %b32, %c32;", |a, b, c| {
        let cut = |v: u64| i64::from((v as i32) << 8 >> 8);
        w(((cut(a) * cut(b)) as i32).wrapping_add(c as i32))
    });
    check("sad.u32 %o32, %a32, %b32, %c32;", |a, b, c| {
        u64::from((a as u32).abs_diff(b as u32).wrapping_add(c as u32))
    });
    check("sad.s32 %o32, %a32, %b32, %c32;", |a, b, c| {
        u64::from((a as i32).abs_diff(b as i32).wrapping_add(c as u32))
    });
}

#[test]
fn division_by_zero_gives_all_ones_and_the_dividend() {
    check("div.u32 %o32, %a32, %b32;", |a, b, _| match b as u32 {
        0 => 0xffff_ffff,
        b => u64::from(a as u32 / b),
    });
    check("div.s32 %o32, %a32, %b32;", |a, b, _| match b as i32 {
        0 => 0xffff_ffff,
        b => w((a as i32).wrapping_div(b)),
    });
    check("rem.u64 %o64, %a64, %b64;", |a, b, _| if b == 0 { a } else { a % b });
    check(
        "rem.s64 %o64, %a64, %b64;",
        |a, b, _| {
            if b == 0 { a } else { (a as i64).wrapping_rem(b as i64) as u64 }
        },
    );
    check("div.s16 %o16, %a16, %b16;", |a, b, _| match b as i16 {
        0 => 0xffff,
        b => u64::from((a as i16).wrapping_div(b) as u16),
    });
}

#[test]
fn extremes_and_signs() {
    check("min.s32 %o32, %a32, %b32;", |a, b, _| w((a as i32).min(b as i32)));
    check("max.u32 %o32, %a32, %b32;", |a, b, _| u64::from((a as u32).max(b as u32)));
    check("max.s64 %o64, %a64, %b64;", |a, b, _| (a as i64).max(b as i64) as u64);
    check("min.s16 %o16, %a16, %b16;", |a, b, _| u64::from((a as i16).min(b as i16) as u16));
    check("abs.s32 %o32, %a32;", |a, _, _| w((a as i32).wrapping_abs()));
    check("neg.s64 %o64, %a64;", |a, _, _| a.wrapping_neg());
    check("min.s16x2 %o32, %a32, %b32;", |a, b, _| {
        let half = |k: u32| u64::from(((a >> k) as i16).min((b >> k) as i16) as u16);
        half(16) << 16 | half(0)
    });
}

#[test]
fn shifts_beyond_the_width() {
    check("shl.b32 %o32, %a32, %b32;", |a, b, _| match b as u32 {
        n @ 0..32 => u64::from((a as u32) << n),
        _ => 0,
    });
    check("shr.u64 %o64, %a64, %b32;", |a, b, _| match b as u32 {
        n @ 0..64 => a >> n,
        _ => 0,
    });
    check("shr.s32 %o32, %a32, %b32;", |a, b, _| w(a as i32 >> (b as u32).min(31)));
    check("shr.s16 %o16, %a16, %b32;", |a, b, _| u64::from((a as i16 >> (b as u32).min(15)) as u16));
    check("shl.b16 %o16, %a16, %b32;", |a, b, _| match b as u32 {
        n @ 0..16 => u64::from((a as u16) << n),
        _ => 0,
    });
    let both = |a: u64, b: u64| (b & 0xffff_ffff) << 32 | a & 0xffff_ffff;
    check("shf.l.wrap.b32 %o32, %a32, %b32, %c32;", move |a, b, c| (both(a, b) << (c & 31)) >> 32);
    check("shf.r.wrap.b32 %o32, %a32, %b32, %c32;", move |a, b, c| (both(a, b) >> (c & 31)) & 0xffff_ffff);
    check("shf.l.clamp.b32 %o32, %a32, %b32, %c32;", move |a, b, c| (both(a, b) << (c as u32).min(32)) >> 32);
    check("shf.r.clamp.b32 %o32, %a32, %b32, %c32;", move |a, b, c| {
        (both(a, b) >> (c as u32).min(32)) & 0xffff_ffff
    });
}

#[test]
fn logic() {
    check("and.b32 %o32, %a32, %b32;", |a, b, _| a & b & 0xffff_ffff);
    check("xor.b64 %o64, %a64, %b64;", |a, b, _| a ^ b);
    check("not.b16 %o16, %a16;", |a, _, _| !a & 0xffff);
    check("cnot.b32 %o32, %a32;", |a, _, _| u64::from(a as u32 == 0));
    check("or.pred %op, %ap, %bp;", |a, b, _| u64::from(a != 0 || b != 0));
    check("and.pred %p1, %ap, !%bp; not.pred %op, %p1;", |a, b, _| u64::from(!(a != 0 && b == 0)));
    for table in [0x00u32, 0x1b, 0x80, 0x96, 0xca, 0xd8, 0xe8, 0xea, 0xfe, 0xff] {
        check(&format!("lop3.b32 %o32, %a32, %b32, %c32, {table:#x};"), move |a, b, c| {
            let bit = |k: u32| (a >> k & 1) << 2 | (b >> k & 1) << 1 | c >> k & 1;
            (0..32).fold(0, |v, k| v | u64::from(table >> bit(k) & 1) << k)
        });
    }
}

#[test]
fn counting_and_fields() {
    check("popc.b64 %o32, %a64;", |a, _, _| a.count_ones().into());
    check("clz.b32 %o32, %a32;", |a, _, _| (a as u32).leading_zeros().into());
    check("brev.b64 %o64, %a64;", |a, _, _| a.reverse_bits());
    check("bfind.u32 %o32, %a32;", |a, _, _| u64::from((a as u32).checked_ilog2().unwrap_or(u32::MAX)));
    check("bfind.s64 %o32, %a64;", |a, _, _| {
        let a = if (a as i64) < 0 { !a } else { a };
        u64::from(a.checked_ilog2().unwrap_or(u32::MAX))
    });
    check("bfind.shiftamt.u32 %o32, %a32;", |a, _, _| match a as u32 {
        0 => 0xffff_ffff,
        a => a.leading_zeros().into(),
    });
    // The reference of the ISA manual, bit by bit.
    let extract = |a: u64, b: u64, c: u64, width: u32, signed: bool| {
        let (pos, len, msb) = ((b & 255) as u32, (c & 255) as u32, width - 1);
        let bit = |k: u32| a >> k & 1;
        let sign = if !signed || len == 0 { 0 } else { bit((pos + len - 1).min(msb)) };
        (0..width).fold(0, |d, i| d | (if i < len && pos + i <= msb { bit(pos + i) } else { sign }) << i)
    };
    check("bfe.u32 %o32, %a32, %b32, %c32;", move |a, b, c| extract(a, b, c, 32, false));
    check("bfe.s32 %o32, %a32, %b32, %c32;", move |a, b, c| extract(a, b, c, 32, true));
    check("bfe.u64 %o64, %a64, %b32, %c32;", move |a, b, c| extract(a, b, c, 64, false));
    check("bfe.s64 %o64, %a64, %b32, %c32;", move |a, b, c| extract(a, b, c, 64, true));
    let insert = |a: u64, into: u64, b: u64, c: u64, width: u32| {
        let (pos, len) = ((b & 255) as u32, (c & 255) as u32);
        (0..width).fold(0, |d, i| {
            d | (if i >= pos && i < pos + len { a >> (i - pos) & 1 } else { into >> i & 1 }) << i
        })
    };
    check("bfi.b32 %o32, %a32, %c32, %b32, 7;", move |a, b, c| insert(a, c, b, 7, 32));
    check("bfi.b64 %o64, %a64, %c64, 60, %b32;", move |a, b, c| insert(a, c, 60, b, 64));
    check("prmt.b32 %o32, %a32, %b32, %c32;", |a, b, c| {
        let bytes = ((b & 0xffff_ffff) << 32 | a & 0xffff_ffff).to_le_bytes();
        (0..4).fold(0, |d, k| {
            let nibble = c >> (4 * k) & 15;
            let byte = bytes[(nibble & 7) as usize];
            let byte = if nibble < 8 { byte } else { (byte as i8 >> 7) as u8 };
            d | u64::from(byte) << (8 * k)
        })
    });
    check("dp4a.s32.u32 %o32, %a32, %b32, %c32;", |a, b, c| {
        w((0..4).fold(c as i32, |s, k| {
            s.wrapping_add(i32::from((a >> (8 * k)) as i8) * i32::from((b >> (8 * k)) as u8))
        }))
    });
    check("bmsk.clamp.b32 %o32, %a32, %b32;", |a, b, _| {
        let (start, width) = ((a as u32).min(32), (b as u32).min(32));
        (((1u128 << width) - 1) << start) as u64 & 0xffff_ffff
    });
    check("szext.wrap.s32 %o32, %a32, %b32;", |a, b, _| match b as u32 & 31 {
        0 => 0,
        n => w((a as i32) << (32 - n) >> (32 - n)),
    });
    check("fns.b32 %o32, %a32, 3, 2;", |a, _, _| {
        let at = (3..32).filter(|k| a >> k & 1 != 0).nth(1);
        at.unwrap_or(0xffff_ffff)
    });
}

#[test]
fn wide_sums_carry() {
    let snippet = "mov.b64 {%r1, %r2}, %a64; mov.b64 {%r3, %r4}, %b64;
        add.cc.u32 %r5, %r1, %r3; addc.u32 %r6, %r2, %r4; mov.b64 %o64, {%r5, %r6};";
    check(snippet, |a, b, _| a.wrapping_add(b));
    let snippet = "mov.b64 {%r1, %r2}, %a64; mov.b64 {%r3, %r4}, %b64;
        sub.cc.u32 %r5, %r1, %r3; subc.cc.u32 %r6, %r2, %r4; mov.b64 %o64, {%r5, %r6};";
    check(snippet, |a, b, _| a.wrapping_sub(b));
    // The low 64 bits of a product from 32-bit parts, as compilers write it.
    let snippet = "mov.b64 {%r1, %r2}, %a64; mov.b64 {%r3, %r4}, %b64; mul.lo.u32 %r5, %r1, %r3; mul.hi.u32 %r6, %r1, %r3;
        mad.lo.cc.u32 %r6, %r1, %r4, %r6; madc.hi.u32 %r7, %r1, %r4, 0; mad.lo.cc.u32 %r6, %r2, %r3, %r6;
        mov.b64 %o64, {%r5, %r6};";
    check(snippet, |a, b, _| a.wrapping_mul(b));
}

#[test]
fn comparison_and_selection() {
    check("setp.lt.s32 %op, %a32, %b32;", |a, b, _| u64::from((a as i32) < b as i32));
    check("setp.hs.u64 %op, %a64, %b64;", |a, b, _| u64::from(a >= b));
    check("setp.ne.b16 %op, %a16, %b16;", |a, b, _| u64::from(a as u16 != b as u16));
    check("setp.ge.u32.and %op|%p2, %a32, %b32, %cp;", |a, b, c| u64::from(a as u32 >= b as u32 && c != 0));
    check("setp.ge.u32.xor %p2|%op, %a32, %b32, !%cp;", |a, b, c| {
        u64::from(((a as u32) < b as u32) ^ (c == 0))
    });
    check("set.lt.u32.s32 %o32, %a32, %b32;", |a, b, _| if (a as i32) < b as i32 { 0xffff_ffff } else { 0 });
    check("set.eq.f32.u32 %o32, %a32, %b32;", |a, b, _| if a as u32 == b as u32 { 0x3f80_0000 } else { 0 });
    check("selp.b32 %o32, %a32, %b32, %cp;", |a, b, c| (if c != 0 { a } else { b }) & 0xffff_ffff);
    check("slct.u64.s32 %o64, %a64, %b64, %c32;", |a, b, c| if c as i32 >= 0 { a } else { b });
}

#[test]
fn packing() {
    check("mov.b64 {%r1, %r2}, %a64; mov.b64 %o64, {%r2, %r1};", |a, _, _| a.rotate_left(32));
    check("mov.b32 {%h1, %h2}, %a32; mov.b32 %o32, {%h2, %h1};", |a, _, _| {
        u64::from((a as u32).rotate_left(16))
    });
    check("mov.b64 {%h1, %h2, %h3, %h4}, %a64; mov.b64 %o64, {%h4, %h1, %h2, %h3};", |a, _, _| {
        a.rotate_left(16)
    });
    check("mov.b64 {_, %r1}, %a64; mov.u32 %o32, %r1;", |a, _, _| a >> 32);
}
