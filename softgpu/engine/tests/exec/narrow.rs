//! Conversions to narrow formats, half precision beyond arithmetic, mixed precision, and pairs of f32.

use half::{bf16, f16};

use crate::harness::eval;

/// Bit patterns of f32 on and around every edge of the narrow formats.
fn singles() -> Vec<u32> {
    let mut list = vec![0, 0x8000_0000, 1, 0x8000_0001, 0x7f80_0000, 0xff80_0000, 0x7fc0_0000, 0xffc1_2345];
    for value in [
        1.0f32,
        448.0,
        464.0,
        465.0,
        57344.0,
        61440.0,
        65504.0,
        65519.9,
        65520.0,
        1e30,
        f32::MAX,
        6e-8,
        1e-5,
        1e-40,
    ] {
        for bits in value.to_bits().saturating_sub(2)..=value.to_bits() + 2 {
            list.extend([bits, bits | 0x8000_0000]);
        }
    }
    let mut state = 1u32;
    for _ in 0..300 {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        list.push(state);
    }
    // Ties of tf32 and bf16.
    list.extend([0x3f80_1000, 0x3f80_3000, 0x3f80_8000, 0x3f81_8000, 0x7f7f_f000, 0xff7f_ffff]);
    list
}

fn check(snippet: &str, expected: impl Fn(f32) -> u64) {
    let cases: Vec<[u64; 3]> = singles().into_iter().map(|bits| [u64::from(bits), 0, 0]).collect();
    for (case, got) in cases.iter().zip(eval(snippet, &cases)) {
        let value = f32::from_bits(case[0] as u32);
        assert_eq!(got, expected(value), "{snippet} of {value:e} ({:#x})", case[0]);
    }
}

/// NaN is 0x7fff; `.satfinite` keeps it and clamps the rest.
fn clamped(value: f32, largest: f32, narrow: impl Fn(f32) -> u16) -> u64 {
    if value.is_nan() { 0x7fff } else { u64::from(narrow(value.clamp(-largest, largest))) }
}

#[test]
fn satfinite_clamps_to_the_largest_finite_number() {
    let half = |v: f32| clamped(v, 65504.0, |v| f16::from_f32(v).to_bits());
    let brain = |v: f32| clamped(v, bf16::MAX.to_f32(), |v| bf16::from_f32(v).to_bits());
    check("mov.b32 %r4, %a32; cvt.rn.satfinite.f16.f32 %o16, %r4;", half);
    check("cvt.rn.satfinite.bf16.f32 %o16, %a32;", brain);
    let relu = |v: f32| if v <= 0.0 { 0.0 } else { v };
    check("cvt.rn.relu.satfinite.f16.f32 %o16, %a32;", |v| half(relu(v)));
    check("cvt.rn.relu.satfinite.bf16.f32 %o16, %a32;", |v| brain(relu(v)));
    check("cvt.rn.satfinite.f16x2.f32 %o32, %a32, 0f3F800000;", |v| half(v) << 16 | 0x3c00);
}

#[test]
fn tf32_rounds_as_asked() {
    /// To a multiple of 2^13 in the bits, by whole numbers.
    fn rounded(value: f32, up: impl Fn(u32, u32) -> bool) -> u64 {
        let bits = value.to_bits();
        if value.is_nan() || value.is_infinite() {
            return if value.is_nan() { 0x7fff_ffff } else { u64::from(bits) };
        }
        let (kept, lost) = (bits >> 13, bits & 0x1fff);
        u64::from(kept + u32::from(up(kept, lost))) << 13
    }
    let even = |kept: u32, lost: u32| lost > 0x1000 || lost == 0x1000 && kept & 1 == 1;
    check("cvt.rna.tf32.f32 %o32, %a32;", |v| rounded(v, |_, lost| lost >= 0x1000));
    check("cvt.rn.tf32.f32 %o32, %a32;", |v| rounded(v, even));
    check("cvt.rz.tf32.f32 %o32, %a32;", |v| rounded(v, |_, _| false));
    check("cvt.rn.relu.tf32.f32 %o32, %a32;", |v| if v <= 0.0 { 0 } else { rounded(v, even) });
    check("cvt.rna.satfinite.tf32.f32 %o32, %a32;", |v| match rounded(v, |_, lost| lost >= 0x1000) {
        nan if v.is_nan() => nan,
        bits if bits & 0x7fff_ffff >= 0x7f80_0000 => bits & 0x8000_0000 | 0x7f7f_e000,
        bits => bits,
    });
}

#[test]
fn whole_numbers_become_bf16_with_one_rounding() {
    // 2^62 + 2^54 + 1 lies just above the middle of two bf16: a rounding to f64 on the way would make it a tie.
    let values = [
        (1i64 << 62) + (1 << 54) + 1,
        (1 << 62) + (1 << 54),
        -(1 << 62) - (1 << 54) - 1,
        3,
        -1,
        i64::MAX,
        i64::MIN,
    ];
    let cases: Vec<[u64; 3]> = values.iter().map(|&v| [v as u64, 0, 0]).collect();
    let nearest = |v: i64| {
        // The eight leading bits, to nearest even.
        let magnitude = u128::from(v.unsigned_abs());
        let drop = (128 - magnitude.leading_zeros()).saturating_sub(8);
        let (kept, lost, half) =
            (magnitude >> drop, magnitude & ((1 << drop) - 1), if drop == 0 { 1 } else { 1 << (drop - 1) });
        let kept = kept + u128::from(lost > half || drop > 0 && lost == half && kept & 1 == 1);
        let value = kept as f32 * 2f32.powi(drop as i32);
        u64::from(bf16::from_f32(if v < 0 { -value } else { value }).to_bits())
    };
    for (case, got) in values.iter().zip(eval("cvt.rn.bf16.s64 %o16, %a64;", &cases)) {
        assert_eq!(got, nearest(*case), "{case}");
    }
}

#[test]
fn bytes_widen_to_halves_and_lose_their_sign_with_relu() {
    let cases: Vec<[u64; 3]> = (0..=255).map(|byte| [byte | (255 - byte) << 8, 0, 0]).collect();
    /// e4m3 has no infinity and one NaN; 7 is the bias, 3 the number of mantissa bits.
    fn e4m3(byte: u32) -> f32 {
        let (exponent, mantissa) = (byte >> 3 & 15, byte & 7);
        let magnitude = match exponent {
            15 if mantissa == 7 => f32::NAN,
            0 => mantissa as f32 / 512.0,
            _ => (8 + mantissa) as f32 * 2f32.powi(exponent as i32 - 10),
        };
        if byte & 128 != 0 { -magnitude } else { magnitude }
    }
    let bits = |v: f32| if v.is_nan() { 0x7fff } else { u64::from(f16::from_f32(v).to_bits()) };
    let plain = eval("cvt.rn.f16x2.e4m3x2 %o32, %a16;", &cases);
    let relu = eval("cvt.rn.relu.f16x2.e4m3x2 %o32, %a16;", &cases);
    for (byte, (plain, relu)) in plain.into_iter().zip(relu).enumerate() {
        let (low, high) = (e4m3(byte as u32), e4m3(255 - byte as u32));
        assert_eq!(plain, bits(low) | bits(high) << 16, "{byte}");
        let positive = |v: f32| if v <= 0.0 { 0.0 } else { v };
        assert_eq!(relu, bits(positive(low)) | bits(positive(high)) << 16, "{byte}");
    }
}

#[test]
fn halves_flush_where_told() {
    // 0x0001 and 0x83ff are subnormal, 0x0400 is the least normal f16.
    let cases: Vec<[u64; 3]> = [(1, 0), (0x83ff, 0), (0x0400, 0x03ff), (0x8001, 1), (0x3c00, 0x3c00)]
        .map(|(a, b)| [a, b, 0])
        .to_vec();
    let flushed = |bits: u64| if bits & 0x7c00 == 0 { bits & 0x8000 } else { bits };
    for (case, got) in cases.iter().zip(eval("neg.ftz.f16 %o16, %a16;", &cases)) {
        assert_eq!(got, flushed(case[0]) ^ 0x8000, "{case:x?}");
    }
    for (case, got) in cases.iter().zip(eval("abs.ftz.f16 %o16, %a16;", &cases)) {
        assert_eq!(got, flushed(case[0]) & 0x7fff, "{case:x?}");
    }
    let value = |bits: u64| f16::from_bits(bits as u16).to_f32();
    for (case, got) in cases.iter().zip(eval("setp.eq.ftz.f16 %op, %a16, %b16;", &cases)) {
        assert_eq!(got != 0, value(flushed(case[0])) == value(flushed(case[1])), "{case:x?}");
    }
    for (case, got) in cases.iter().zip(eval("setp.eq.f16 %op, %a16, %b16;", &cases)) {
        assert_eq!(got != 0, value(case[0]) == value(case[1]), "{case:x?}");
    }
}

#[test]
fn comparisons_of_pairs_combine() {
    let halves = [0u64, 0x3c00, 0xbc00, 0x7e00, 0x4000];
    let mut cases = Vec::new();
    for a in halves {
        for b in halves {
            cases.extend([[a | b << 16, b | a << 16, 0], [a | b << 16, b | a << 16, 1]]);
        }
    }
    let value = |bits: u64| f16::from_bits(bits as u16).to_f32();
    let spread = |low: bool, high: bool| (u64::from(low) * 0xffff) | (u64::from(high) * 0xffff_0000);
    type Combine = fn(bool, bool) -> bool;
    let ways: [(&str, Combine); 3] = [("and", |p, c| p & c), ("or", |p, c| p | c), ("xor", |p, c| p ^ c)];
    for (name, combine) in ways {
        let got = eval(&format!("set.lt.{name}.u32.f16x2 %o32, %a32, %b32, %cp;"), &cases);
        let snippet = format!(
            "setp.lt.{name}.f16x2 %p1|%p2, %a32, %b32, %cp; selp.b32 %r4, 0xffff, 0, %p1; selp.b32 %r5, 0xffff0000, 0, %p2; or.b32 %o32, %r4, %r5;"
        );
        for ((case, word), predicates) in cases.iter().zip(got).zip(eval(&snippet, &cases)) {
            let c = case[2] != 0;
            let low = combine(value(case[0]) < value(case[1]), c);
            let high = combine(value(case[0] >> 16) < value(case[1] >> 16), c);
            assert_eq!((word, predicates), (spread(low, high), spread(low, high)), "{name} {case:x?}");
        }
    }
}

#[test]
fn halves_meet_singles_in_one_rounding() {
    let mut cases = Vec::new();
    for h in [0x3c00u64, 0x3c01, 0xc400, 0x0001, 0x7bff, 0x7c00, 0x3555] {
        for f in [1.0f32, -1.0, 1e-8, 3.3, -65504.0, f32::MAX] {
            cases.push([h, 0x3555, u64::from(f.to_bits())]);
        }
    }
    let bits = |v: f32| u64::from(if v.is_nan() { 0x7fff_ffff } else { v.to_bits() });
    let run = |snippet: &str, expected: &dyn Fn(f32, f32, f32) -> f32| {
        for (case, got) in cases.iter().zip(eval(snippet, &cases)) {
            let [a, b, c] = *case;
            let half = |h: u64| f16::from_bits(h as u16).to_f32();
            assert_eq!(
                got,
                bits(expected(half(a), half(b), f32::from_bits(c as u32))),
                "{snippet} {case:x?}"
            );
        }
    };
    run("add.f32.f16 %o32, %a16, %c32;", &|a, _, c| a + c);
    run("sub.rn.f32.f16 %o32, %a16, %c32;", &|a, _, c| a - c);
    run("fma.rn.f32.f16 %o32, %a16, %b16, %c32;", &|a, b, c| a.mul_add(b, c));
    run("add.sat.f32.f16 %o32, %a16, %c32;", &|a, _, c| {
        if (a + c).is_nan() { 0.0 } else { (a + c).clamp(0.0, 1.0) + 0.0 }
    });
}

#[test]
fn pairs_of_singles_round_each() {
    let values = [1.0f32, -2.5, 1e-40, f32::MAX, 0.1, 3e38, -0.0];
    let mut cases = Vec::new();
    for a in values {
        for b in values {
            let word = |low: f32, high: f32| u64::from(low.to_bits()) | u64::from(high.to_bits()) << 32;
            cases.push([word(a, b), word(b, 0.1), word(-1.0, a)]);
        }
    }
    let halves = |word: u64| [f32::from_bits(word as u32), f32::from_bits((word >> 32) as u32)];
    let flush = |v: f32| if v.is_subnormal() { 0.0f32.copysign(v) } else { v };
    let run = |snippet: &str, one: &dyn Fn(f32, f32, f32) -> f32| {
        for (case, got) in cases.iter().zip(eval(snippet, &cases)) {
            let [a, b, c] = case.map(halves);
            let expected = [0, 1].map(|k| u64::from(one(a[k], b[k], c[k]).to_bits()));
            assert_eq!(got, expected[0] | expected[1] << 32, "{snippet} {case:x?}");
        }
    };
    run("add.rn.f32x2 %o64, %a64, %b64;", &|a, b, _| a + b);
    run("mul.rn.f32x2 %o64, %a64, %b64;", &|a, b, _| a * b);
    run("fma.rn.f32x2 %o64, %a64, %b64, %c64;", &|a, b, c| a.mul_add(b, c));
    run("add.rn.ftz.f32x2 %o64, %a64, %b64;", &|a, b, _| flush(flush(a) + flush(b)));
    // Towards zero a product never exceeds the exact one, which f64 holds.
    run("mul.rz.f32x2 %o64, %a64, %b64;", &|a, b, _| {
        let exact = f64::from(a) * f64::from(b);
        let near = exact as f32;
        let over = f64::from(near).abs() > exact.abs();
        match (near.is_infinite(), over) {
            (true, _) => f32::MAX.copysign(near),
            (_, true) => f32::from_bits(near.to_bits() - 1),
            _ => near,
        }
    });
}
