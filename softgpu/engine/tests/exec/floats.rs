//! Floating point: exact roundings, NaN, subnormals, conversions, half precision.

use half::{bf16, f16};

use crate::harness::eval;

const F32: [f32; 22] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    1.5,
    2.5,
    -2.5,
    3.0,
    1.0e-3,
    65504.0,
    65520.0,
    1.0e10,
    -1.0e20,
    f32::MAX,
    f32::MIN,
    f32::MIN_POSITIVE,
    f32::INFINITY,
    f32::NEG_INFINITY,
    f32::NAN,
    1.0e-40,
    0.1,
];

fn triples32() -> Vec<[u64; 3]> {
    let bits = |f: f32| u64::from(f.to_bits());
    let mut cases = Vec::new();
    for (i, &a) in F32.iter().enumerate() {
        for (j, &b) in F32.iter().enumerate() {
            cases.push([bits(a), bits(b), bits(F32[(i * 5 + j * 3) % F32.len()])]);
        }
    }
    cases
}

fn check32(snippet: &str, expected: impl Fn(f32, f32, f32) -> f32) {
    let cases = triples32();
    let f = |v: u64| f32::from_bits(v as u32);
    for (case, result) in cases.iter().zip(eval(snippet, &cases)) {
        let [a, b, c] = case.map(f);
        let wanted = expected(a, b, c);
        let wanted = if wanted.is_nan() { 0x7fff_ffff } else { wanted.to_bits() };
        assert_eq!(result, u64::from(wanted), "{snippet} with {a:e}, {b:e}, {c:e}: {:e}", f(result));
    }
}

fn check64(snippet: &str, expected: impl Fn(f64, f64, f64) -> f64) {
    let values: Vec<f64> =
        F32.iter().map(|&f| f64::from(f)).chain([1e300, -1e-300, 5e-324, f64::MAX, 1.0 / 3.0]).collect();
    let mut cases = Vec::new();
    for (i, &a) in values.iter().enumerate() {
        for (j, &b) in values.iter().enumerate() {
            cases.push([a.to_bits(), b.to_bits(), values[(i * 5 + j * 3) % values.len()].to_bits()]);
        }
    }
    for (case, result) in cases.iter().zip(eval(snippet, &cases)) {
        let [a, b, c] = case.map(f64::from_bits);
        let (result, wanted) = (f64::from_bits(result), expected(a, b, c));
        let same = result.to_bits() == wanted.to_bits() || result.is_nan() && wanted.is_nan();
        assert!(same, "{snippet} with {a:e}, {b:e}, {c:e}: {result:e}, not {wanted:e}");
    }
}

fn flush(a: f32) -> f32 {
    if a.is_subnormal() { 0.0f32.copysign(a) } else { a }
}

#[test]
fn nearest_is_ieee() {
    check32("add.f32 %o32, %a32, %b32;", |a, b, _| a + b);
    check32("sub.rn.f32 %o32, %a32, %b32;", |a, b, _| a - b);
    check32("mul.f32 %o32, %a32, %b32;", |a, b, _| a * b);
    check32("div.rn.f32 %o32, %a32, %b32;", |a, b, _| a / b);
    check32("fma.rn.f32 %o32, %a32, %b32, %c32;", f32::mul_add);
    check32("sqrt.rn.f32 %o32, %a32;", |a, _, _| a.sqrt());
    check32("rcp.rn.f32 %o32, %a32;", |a, _, _| 1.0 / a);
    check64("add.f64 %o64, %a64, %b64;", |a, b, _| a + b);
    check64("mul.rn.f64 %o64, %a64, %b64;", |a, b, _| a * b);
    check64("div.rn.f64 %o64, %a64, %b64;", |a, b, _| a / b);
    check64("fma.rn.f64 %o64, %a64, %b64, %c64;", f64::mul_add);
    check64("sqrt.rn.f64 %o64, %a64;", |a, _, _| a.sqrt());
}

#[test]
fn ftz_flushes_inputs_and_results() {
    check32("add.ftz.f32 %o32, %a32, %b32;", |a, b, _| flush(flush(a) + flush(b)));
    check32("mul.ftz.f32 %o32, %a32, %b32;", |a, b, _| flush(flush(a) * flush(b)));
    check32("fma.rn.ftz.f32 %o32, %a32, %b32, %c32;", |a, b, c| flush(flush(a).mul_add(flush(b), flush(c))));
    check32("div.full.ftz.f32 %o32, %a32, %b32;", |a, b, _| flush(flush(a) / flush(b)));
}

#[test]
fn sat_clamps_and_turns_nan_to_zero() {
    let sat = |v: f32| if v.is_nan() || v <= 0.0 { 0.0 } else { v.min(1.0) };
    check32("add.sat.f32 %o32, %a32, %b32;", |a, b, _| sat(a + b));
    check32("fma.rn.sat.f32 %o32, %a32, %b32, %c32;", |a, b, c| sat(a.mul_add(b, c)));
    check32("cvt.sat.f32.f32 %o32, %a32;", |a, _, _| sat(a));
}

/// The directed result is the nearest one or its neighbour, on the right side of the exact value.
#[test]
fn directed_roundings_bracket() {
    let cases: Vec<[u64; 3]> = (0..512u64)
        .map(|k| {
            let value = |s: u64| {
                let x = (k * 2 + s).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                // Exponents around 1, so that nothing overflows.
                (x & 0x8000_0000_007f_ffff) as u32 as u64
                    | ((100 + (x >> 40) % 50) << 23) & 0x7f80_0000
                    | (x & 1) << 31
            };
            [value(0), value(1), value(7)]
        })
        .collect();
    for name in ["add", "mul"] {
        let f = |a: f64, b: f64| if name == "add" { a + b } else { a * b };
        let run = |mode: &str| eval(&format!("{name}.{mode}.f32 %o32, %a32, %b32;"), &cases);
        let (zero, down, up, near) = (run("rz"), run("rm"), run("rp"), run("rn"));
        for (k, case) in cases.iter().enumerate() {
            let v = |bits: u64| f32::from_bits(bits as u32);
            // Sums of these exponents are exact in f64, as are products.
            let exact = f(f64::from(v(case[0])), f64::from(v(case[1])));
            let (d, u) = (v(down[k]), v(up[k]));
            assert!(f64::from(d) <= exact && exact <= f64::from(u), "{name} {exact:e}: {d:e} {u:e}");
            assert!(d == u || d.next_up() == u, "{name} {exact:e}: {d:e} {u:e}");
            assert_eq!(v(zero[k]), if exact > 0.0 { d } else { u });
            assert_eq!(v(near[k]), exact as f32);
        }
    }
    check64("add.rz.f64 %o64, %a64, %b64;", |a, b, _| {
        let sum = a + b;
        if !a.is_finite() || !b.is_finite() {
            return sum;
        }
        // The residual of a sum of two doubles is a double.
        let part = sum - a;
        let error = (a - (sum - part)) + (b - part);
        match sum {
            _ if sum.is_infinite() => f64::MAX.copysign(sum),
            _ if sum > 0.0 && error < 0.0 => sum.next_down(),
            _ if sum < 0.0 && error > 0.0 => sum.next_up(),
            _ => sum,
        }
    });
}

#[test]
fn extremes_prefer_numbers() {
    let less = |a: f32, b: f32| match (a.is_nan(), b.is_nan()) {
        (true, _) => b,
        (_, true) => a,
        _ if a == b && a.is_sign_negative() => a,
        _ => {
            if a < b {
                a
            } else {
                b
            }
        }
    };
    check32("min.f32 %o32, %a32, %b32;", move |a, b, _| less(a, b));
    check32("max.f32 %o32, %a32, %b32;", move |a, b, _| -less(-a, -b));
    check32(
        "max.NaN.f32 %o32, %a32, %b32;",
        move |a, b, _| {
            if a.is_nan() || b.is_nan() { f32::NAN } else { -less(-a, -b) }
        },
    );
    check32("min.ftz.f32 %o32, %a32, %b32;", move |a, b, _| less(flush(a), flush(b)));
    check64("min.f64 %o64, %a64, %b64;", |a, b, _| match (a.is_nan(), b.is_nan()) {
        (true, _) => b,
        (_, true) => a,
        _ if a == b && a.is_sign_negative() => a,
        _ => {
            if a < b {
                a
            } else {
                b
            }
        }
    });
}

fn checkp(snippet: &str, expected: impl Fn(f32, f32) -> bool) {
    let cases = triples32();
    for (case, result) in cases.iter().zip(eval(snippet, &cases)) {
        let [a, b, _] = case.map(|v| f32::from_bits(v as u32));
        assert_eq!(result != 0, expected(a, b), "{snippet} with {a:e}, {b:e}");
    }
}

#[test]
fn comparisons_of_nan() {
    let unordered = |a: f32, b: f32| a.is_nan() || b.is_nan();
    checkp("setp.lt.f32 %op, %a32, %b32;", |a, b| a < b);
    checkp("setp.ne.f32 %op, %a32, %b32;", move |a, b| a != b && !unordered(a, b));
    checkp("setp.neu.f32 %op, %a32, %b32;", |a, b| a != b);
    checkp("setp.equ.f32 %op, %a32, %b32;", move |a, b| a == b || unordered(a, b));
    checkp("setp.geu.f32 %op, %a32, %b32;", move |a, b| a >= b || unordered(a, b));
    checkp("setp.num.f32 %op, %a32, %b32;", move |a, b| !unordered(a, b));
    checkp("setp.eq.ftz.f32 %op, %a32, %b32;", |a, b| flush(a) == flush(b));
    checkp("testp.subnormal.f32 %op, %a32;", |a, _| a.is_subnormal());
    checkp("testp.finite.f32 %op, %a32;", |a, _| a.is_finite());
}

#[test]
fn approximations_are_close() {
    let close = |snippet: &str, f: fn(f64) -> f64, tolerance: f64| {
        let inputs: Vec<f32> = (1..400).map(|k| k as f32 * 0.05).collect();
        let cases: Vec<[u64; 3]> = inputs.iter().map(|f| [u64::from(f.to_bits()), 0, 0]).collect();
        for (x, result) in inputs.iter().zip(eval(snippet, &cases)) {
            let (got, want) = (f64::from(f32::from_bits(result as u32)), f(f64::from(*x)));
            assert!(
                (got - want).abs() <= tolerance * want.abs().max(1.0),
                "{snippet} of {x}: {got} not {want}"
            );
        }
    };
    close("rsqrt.approx.f32 %o32, %a32;", |x| 1.0 / x.sqrt(), 1e-6);
    close("sin.approx.f32 %o32, %a32;", f64::sin, 1e-6);
    close("cos.approx.ftz.f32 %o32, %a32;", f64::cos, 1e-6);
    close("lg2.approx.f32 %o32, %a32;", f64::log2, 1e-6);
    close("ex2.approx.f32 %o32, %a32;", f64::exp2, 1e-6);
    close("tanh.approx.f32 %o32, %a32;", f64::tanh, 1e-6);
    close("sqrt.approx.f32 %o32, %a32;", f64::sqrt, 1e-6);
}

fn check_int(snippet: &str, expected: impl Fn(f32) -> u64) {
    let mut inputs = F32.to_vec();
    inputs.extend([
        2.147_483_5e9,
        2.147_483_6e9,
        -2.147_483_6e9,
        4.294_967_3e9,
        9.3e18,
        1.9e19,
        255.5,
        -0.7,
        254.5,
        7.5,
    ]);
    let cases: Vec<[u64; 3]> = inputs.iter().map(|f| [u64::from(f.to_bits()), 0, 0]).collect();
    for (x, result) in inputs.iter().zip(eval(snippet, &cases)) {
        assert_eq!(result, expected(*x), "{snippet} of {x:e}");
    }
}

#[test]
fn float_to_integer_rounds_and_clamps() {
    check_int("cvt.rzi.s32.f32 %o32, %a32;", |x| u64::from(x as i32 as u32));
    check_int("cvt.rni.s32.f32 %o32, %a32;", |x| u64::from(x.round_ties_even() as i32 as u32));
    check_int("cvt.rmi.u32.f32 %o32, %a32;", |x| u64::from(x.floor() as u32));
    check_int("cvt.rpi.s64.f32 %o64, %a32;", |x| if x.is_nan() { 1 << 63 } else { x.ceil() as i64 as u64 });
    check_int("cvt.rzi.u64.f32 %o64, %a32;", |x| if x.is_nan() { 1 << 63 } else { x as u64 });
    check_int("cvt.rzi.u8.f32 %o32, %a32;", |x| u64::from(x as u8));
    check_int("cvt.rzi.s16.f32 %o16, %a32;", |x| u64::from(x as i16 as u16));
}

#[test]
fn integer_to_integer_extends_truncates_saturates() {
    let cases: Vec<[u64; 3]> = [
        0u64,
        1,
        0x7f,
        0x80,
        0xff,
        0x100,
        0x7fff,
        0x8000,
        0xffff,
        0x8000_0000,
        0xffff_ffff,
        1 << 40,
        u64::MAX,
    ]
    .map(|v| [v, 0, 0])
    .to_vec();
    let check = |snippet: &str, expected: fn(u64) -> u64| {
        for (case, result) in cases.iter().zip(eval(snippet, &cases)) {
            assert_eq!(result, expected(case[0]), "{snippet} of {:#x}", case[0]);
        }
    };
    check("cvt.s64.s32 %o64, %a32;", |v| v as i32 as i64 as u64);
    check("cvt.s32.s8 %o32, %a32;", |v| u64::from(v as i8 as i32 as u32));
    check("cvt.u32.u8 %o32, %a64;", |v| u64::from(v as u8));
    check("cvt.s16.s8 %o32, %a32;", |v| u64::from(v as i8 as i32 as u32));
    check("cvt.s64.s16 %o64, %a16;", |v| v as i16 as i64 as u64);
    check("cvt.sat.u8.s32 %o32, %a32;", |v| (v as i32).clamp(0, 255) as u64);
    check("cvt.sat.s16.u64 %o16, %a64;", |v| v.min(32767));
    check("cvt.sat.s32.s64 %o32, %a64;", |v| {
        u64::from((v as i64).clamp(i32::MIN.into(), i32::MAX.into()) as i32 as u32)
    });
    check("cvt.rn.f32.u64 %o32, %a64;", |v| u64::from((v as f32).to_bits()));
    check("cvt.rz.f32.u32 %o32, %a32;", |v| {
        let v = v as u32;
        let near = v as f32;
        u64::from((if near as f64 > v as f64 { near.next_down() } else { near }).to_bits())
    });
    check("cvt.rn.f64.s64 %o64, %a64;", |v| (v as i64 as f64).to_bits());
    check("cvt.rn.f16.s32 %o16, %a32;", |v| u64::from(f16::from_f64((v as i32).into()).to_bits()));
}

#[test]
fn float_to_float() {
    let narrow16 = |x: f32| u64::from(if x.is_nan() { 0x7fff } else { f16::from_f32(x).to_bits() });
    check_int("cvt.rn.f16.f32 %o16, %a32;", narrow16);
    check_int("cvt.rn.bf16.f32 %o16, %a32;", |x| {
        u64::from(if x.is_nan() { 0x7fff } else { bf16::from_f32(x).to_bits() })
    });
    check_int("cvt.rz.f16.f32 %o16, %a32;", |x| {
        if x.is_nan() {
            return 0x7fff;
        }
        let near = f16::from_f32(x);
        let beyond = near.to_f64().abs() > f64::from(x).abs();
        u64::from(near.to_bits() - u16::from(beyond))
    });
    check_int("cvt.rn.f16x2.f32 %o32, %a32, 0f3F800000;", move |x| narrow16(x) << 16 | 0x3c00);
    check_int("cvt.f64.f32 %o64, %a32;", |x| if x.is_nan() { eval_nan() } else { f64::from(x).to_bits() });
    check_int("cvt.rni.f32.f32 %o32, %a32;", |x| {
        u64::from(if x.is_nan() { 0x7fff_ffff } else { x.round_ties_even().to_bits() })
    });
    check_int("cvt.rna.tf32.f32 %o32, %a32;", |x| match x {
        _ if x.is_nan() => 0x7fff_ffff,
        _ if x.is_infinite() => u64::from(x.to_bits()),
        _ => u64::from((x.to_bits() + 0x1000) & !0x1fff),
    });
    check_int("cvt.rn.satfinite.e4m3x2.f32 %o16, 0f00000000, %a32;", |x| match x {
        _ if x.is_nan() => 0x7f,
        _ if x.abs() > 448.0 => {
            if x > 0.0 {
                0x7e
            } else {
                0xfe
            }
        }
        _ => {
            // The nearest of all 8-bit values, ties to the even one.
            let value = |bits: u64| {
                let (e, m) = ((bits >> 3) as i32, (bits & 7) as f64);
                if e == 0 { m / 8.0 * 2f64.powi(-6) } else { (1.0 + m / 8.0) * 2f64.powi(e - 7) }
            };
            let distance = |bits: &u64| (value(*bits) - f64::from(x).abs()).abs();
            let best = (0..0x7f)
                .min_by(|a, b| distance(a).total_cmp(&distance(b)).then((a & 1).cmp(&(b & 1))))
                .unwrap();
            best | u64::from(x.is_sign_negative()) << 7
        }
    });
}

/// What the widening of an f32 NaN gives.
fn eval_nan() -> u64 {
    f64::from(f32::NAN).to_bits()
}

#[test]
fn half_precision() {
    let values: Vec<u16> =
        (0..=u16::MAX).step_by(1237).chain([0, 0x8000, 0x3c00, 0x7c00, 0xfc00, 0x7e00, 1, 0x7bff]).collect();
    let mut cases = Vec::new();
    for (i, &a) in values.iter().enumerate() {
        for &b in &values {
            let c = values[(i * 11 + usize::from(b)) % values.len()];
            cases.push([
                u64::from(a) | u64::from(b) << 16,
                u64::from(b) | u64::from(a) << 16,
                u64::from(c) * 0x1_0001,
            ]);
        }
    }
    let h = |v: u64| f16::from_bits(v as u16).to_f64();
    let g = |v: u64| bf16::from_bits(v as u16).to_f64();
    let check = |snippet: &str, expected: &dyn Fn(u64, u64, u64) -> u64| {
        for (case, result) in cases.iter().zip(eval(snippet, &cases)) {
            let [a, b, c] = *case;
            assert_eq!(result, expected(a, b, c), "{snippet} with {a:#x}, {b:#x}, {c:#x}");
        }
    };
    let n16 = |v: f64| u64::from(if v.is_nan() { 0x7fff } else { f16::from_f64(v).to_bits() });
    let nb16 = |v: f64| u64::from(if v.is_nan() { 0x7fff } else { bf16::from_f64(v).to_bits() });
    check("add.f16 %o16, %a16, %b16;", &|a, b, _| n16(h(a) + h(b)));
    check("mul.rn.bf16 %o16, %a16, %b16;", &|a, b, _| nb16(g(a) * g(b)));
    check("sub.f16x2 %o32, %a32, %b32;", &|a, b, _| n16(h(a >> 16) - h(b >> 16)) << 16 | n16(h(a) - h(b)));
    check("neg.f16x2 %o32, %a32;", &|a, _, _| (a ^ 0x8000_8000) & 0xffff_ffff);
    check("fma.rn.relu.f16 %o16, %a16, %b16, 0;", &|a, b, _| {
        let v = h(a) * h(b);
        n16(if v <= 0.0 { 0.0 } else { v })
    });
    check("setp.lt.f16 %op, %a16, %b16;", &|a, b, _| u64::from(h(a) < h(b)));
    check("setp.gt.f16x2 %p1|%op, %a32, %b32;", &|a, b, _| u64::from(h(a >> 16) > h(b >> 16)));
    check("set.le.f16x2.f16x2 %o32, %a32, %b32;", &|a, b, _| {
        let one = |t: bool| if t { 0x3c00 } else { 0 };
        one(h(a >> 16) <= h(b >> 16)) << 16 | one(h(a) <= h(b))
    });
    // A fused multiply-add rounds once: the exact value is between f64 neighbours of the computed one.
    check("fma.rn.f16 %o16, %a16, %b16, %c16;", &|a, b, c| {
        let (p, z) = (h(a) * h(b), h(c));
        let sum = p + z;
        let error = if sum.is_finite() { (p - (sum - (sum - p))) + (z - (sum - p)) } else { 0.0 };
        let odd = if error == 0.0 {
            sum
        } else {
            let toward = if (error > 0.0) == (sum > 0.0) { sum } else { f64::from_bits(sum.to_bits() - 1) };
            f64::from_bits(toward.to_bits() | 1)
        };
        n16(odd)
    });
}
