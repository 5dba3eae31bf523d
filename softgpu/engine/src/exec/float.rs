//! Single and double precision: arithmetic with every rounding, and the approximate functions.
//!
//! f32 NaN results are canonical (0x7fffffff), as the hardware gives them; f64 keeps payloads. `.ftz` flushes subnormal
//! inputs and results to zero of the same sign.

use half::{bf16, f16};
use lightos_kernels::ptx::ast::{Instruction, Type};

use super::decode::{Bank, Decoded, Decoder, invalid, operands, unsupported};
use super::half_float;
use super::lanes::{lift1, lift1_flags, lift2, lift2_flags, lift3_flags, lift3_fused};
use super::op::{Handler, NONE, Op};
use super::rounding::Rounding;
use super::words::{Words, is_float};

const FTZ: u32 = 1 << 4;
const SAT: u32 = 1 << 5;
const NAN_WINS: u32 = 1 << 6;
const XOR_SIGN: u32 = 1 << 7;
const ABS: u32 = 1 << 8;
const MAX: u32 = 1 << 9;

/// Subnormals to zero, sign kept.
#[inline(always)]
pub fn flush(a: f32) -> f32 {
    if a.abs() < f32::MIN_POSITIVE { f32::from_bits(a.to_bits() & 0x8000_0000) } else { a }
}

/// NaN as the hardware writes it. Compared as bits: to the optimiser one float NaN is as good as another.
#[inline(always)]
pub fn canonical(a: f32) -> f32 {
    let bits = a.to_bits();
    f32::from_bits(if bits & 0x7fff_ffff > 0x7f80_0000 { 0x7fff_ffff } else { bits })
}

/// To [0, 1]; NaN becomes 0.
#[expect(clippy::manual_clamp, reason = "clamp keeps a NaN")]
fn saturate(a: f32) -> f32 {
    a.max(0.0).min(1.0)
}

#[expect(clippy::manual_clamp, reason = "clamp keeps a NaN")]
fn saturate64(a: f64) -> f64 {
    a.max(0.0).min(1.0)
}

fn input(a: f32, flags: u32) -> f32 {
    if flags & FTZ != 0 { flush(a) } else { a }
}

fn output(a: f32, flags: u32) -> f32 {
    let a = input(a, flags);
    if flags & SAT != 0 { saturate(a) + 0.0 } else { canonical(a) }
}

/// Takes a rounding word.
pub fn take_rounding(w: &Words<'_>) -> Option<Rounding> {
    Some(match w.one_of(&["rn", "rz", "rm", "rp"])? {
        "rn" => Rounding::Nearest,
        "rz" => Rounding::Zero,
        "rm" => Rounding::Down,
        _ => Rounding::Up,
    })
}

/// Lifts an f32 expression in two forms, plain and flushing.
macro_rules! f32_forms {
    ($ftz:expr, $lift:ident, |$($a:ident),*| $body:expr) => {
        if $ftz {
            $lift(|$($a: f32),*| {
                $(let $a = flush($a);)*
                canonical(flush($body))
            })
        } else {
            $lift(|$($a: f32),*| canonical($body))
        }
    };
}

pub fn arithmetic<'a>(d: &mut Decoder<'a, '_>, i: &'a Instruction, w: &Words<'a>, ty: Type) -> Decoded {
    let rounding = take_rounding(w);
    let ftz = w.has("ftz");
    let sat = w.has("sat");
    let opcode = i.opcode.as_str();
    let flags =
        rounding.unwrap_or(Rounding::Nearest) as u32 | if ftz { FTZ } else { 0 } | if sat { SAT } else { 0 };
    if matches!(opcode, "min" | "max") {
        return extremes(d, i, w, ty, flags);
    }
    if opcode == "div" && w.one_of(&["approx", "full"]).is_some() {
        return d.alu(i, f32_forms!(ftz, lift2, |a, b| a / b), ty, &[ty; 2]);
    }
    let plain = matches!(rounding, None | Some(Rounding::Nearest)) && !sat;
    if ty == Type::F64 {
        let run = match (opcode, plain) {
            ("add", true) => lift2(|a: f64, b: f64| a + b),
            ("sub", true) => lift2(|a: f64, b: f64| a - b),
            ("mul", true) => lift2(|a: f64, b: f64| a * b),
            ("div", true) => lift2(|a: f64, b: f64| a / b),
            ("fma" | "mad", true) => lift3_fused(|a: f64, b: f64, c: f64| a.mul_add(b, c)),
            ("add", false) => lift2_flags(|a: f64, b: f64, f| Rounding::of_flags(f).add64(a, b)),
            ("sub", false) => lift2_flags(|a: f64, b: f64, f| Rounding::of_flags(f).add64(a, -b)),
            ("mul", false) => lift2_flags(|a: f64, b: f64, f| Rounding::of_flags(f).mul64(a, b)),
            ("div", false) => lift2_flags(|a: f64, b: f64, f| Rounding::of_flags(f).div64(a, b)),
            ("fma" | "mad", false) => {
                lift3_flags(|a: f64, b: f64, c: f64, f| Rounding::of_flags(f).fma64(a, b, c))
            }
            ("abs", _) => lift1(|a: f64| a.abs()),
            ("neg", _) => lift1(|a: f64| -a),
            _ => return unsupported("for .f64"),
        };
        return d.alu_flags(i, run, ty, &[ty; 3][..arity(opcode)], flags);
    }
    let mixed = w.ty();
    let run = match (opcode, plain) {
        ("add", true) => f32_forms!(ftz, lift2, |a, b| a + b),
        ("sub", true) => f32_forms!(ftz, lift2, |a, b| a - b),
        ("mul", true) => f32_forms!(ftz, lift2, |a, b| a * b),
        ("div", true) => f32_forms!(ftz, lift2, |a, b| a / b),
        ("fma" | "mad", true) => f32_forms!(ftz, lift3_fused, |a, b, c| a.mul_add(b, c)),
        ("add", false) => {
            lift2_flags(|a: f32, b: f32, f| output(Rounding::of_flags(f).add32(input(a, f), input(b, f)), f))
        }
        ("sub", false) => {
            lift2_flags(|a: f32, b: f32, f| output(Rounding::of_flags(f).add32(input(a, f), -input(b, f)), f))
        }
        ("mul", false) => {
            lift2_flags(|a: f32, b: f32, f| output(Rounding::of_flags(f).mul32(input(a, f), input(b, f)), f))
        }
        ("div", false) => {
            lift2_flags(|a: f32, b: f32, f| output(Rounding::of_flags(f).div32(input(a, f), input(b, f)), f))
        }
        ("fma" | "mad", false) => lift3_flags(|a: f32, b: f32, c: f32, f| {
            output(Rounding::of_flags(f).fma32(input(a, f), input(b, f), input(c, f)), f)
        }),
        ("abs", _) if ftz => lift1(|a: f32| flush(a).abs()),
        ("neg", _) if ftz => lift1(|a: f32| -flush(a)),
        ("abs", _) => lift1(|a: f32| a.abs()),
        ("neg", _) => lift1(|a: f32| -a),
        _ => return unsupported("for .f32"),
    };
    match mixed {
        None => d.alu_flags(i, run, ty, &[ty; 3][..arity(opcode)], flags),
        Some(narrow) => mixed_precision(d, i, Op { flags, ..Op::new(run) }, narrow),
    }
}

/// `add.f32.f16 d, a, c` and its like: the factors, or the first summand, are half precision. `op` is the f32 operation.
fn mixed_precision<'a>(d: &mut Decoder<'a, '_>, i: &'a Instruction, op: Op, narrow: Type) -> Decoded {
    let widen: Handler = match narrow {
        Type::F16 => lift1(|a: f16| a.to_f32()),
        Type::BF16 => lift1(|a: bf16| a.to_f32()),
        _ => return unsupported("of these types"),
    };
    let halves = match i.opcode.as_str() {
        "add" | "sub" => 1,
        "fma" => 2,
        _ => return unsupported("of these types"),
    };
    operands(i, arity(&i.opcode) + 1)?;
    let mut slots = [NONE; 3];
    for (k, (slot, operand)) in slots.iter_mut().zip(&i.operands[1..]).enumerate() {
        *slot = if k < halves {
            let a = d.source(operand, narrow)?;
            let dst = d.register(Bank::Word).slot;
            d.emit(Op { dst, a, ..Op::new(widen) });
            dst
        } else {
            d.source(operand, Type::F32)?
        };
    }
    let [a, b, c] = slots;
    d.emit_to(Op { a, b, c, ..op }, &i.operands[0], Type::F32)
}

/// `add`, `sub`, `mul`, `fma` of `.f32x2`: two f32 in a 64-bit register.
pub fn pairs<'a>(d: &mut Decoder<'a, '_>, i: &'a Instruction, w: &Words<'a>) -> Decoded {
    fn both(a: u64, b: u64, c: u64, f: u32, one: impl Fn(f32, f32, f32, Rounding) -> f32) -> u64 {
        let half = |shift: u32| {
            let [a, b, c] = [a, b, c].map(|v| input(f32::from_bits((v >> shift) as u32), f));
            u64::from(output(one(a, b, c, Rounding::of_flags(f)), f).to_bits()) << shift
        };
        half(32) | half(0)
    }
    let rounding = take_rounding(w).unwrap_or(Rounding::Nearest);
    let flags = rounding as u32 | if w.has("ftz") { FTZ } else { 0 };
    let run = match i.opcode.as_str() {
        "add" => lift2_flags(|a: u64, b: u64, f| both(a, b, 0, f, |a, b, _, r| r.add32(a, b))),
        "sub" => lift2_flags(|a: u64, b: u64, f| both(a, b, 0, f, |a, b, _, r| r.add32(a, -b))),
        "mul" => lift2_flags(|a: u64, b: u64, f| both(a, b, 0, f, |a, b, _, r| r.mul32(a, b))),
        "fma" => lift3_flags(|a: u64, b: u64, c: u64, f| both(a, b, c, f, |a, b, c, r| r.fma32(a, b, c))),
        _ => return unsupported("for .f32x2"),
    };
    d.alu_flags(i, run, Type::F32x2, &[Type::F32x2; 3][..arity(&i.opcode)], flags)
}

fn arity(opcode: &str) -> usize {
    match opcode {
        "abs" | "neg" => 1,
        "fma" | "mad" => 3,
        _ => 2,
    }
}

/// `min` and `max`: -0 is less than +0, and a NaN loses against a number unless `.NaN` is given.
fn extremes<'a>(d: &mut Decoder<'a, '_>, i: &'a Instruction, w: &Words<'a>, ty: Type, flags: u32) -> Decoded {
    let max = i.opcode == "max";
    let nan = w.has("NaN");
    let xor = w.has("xorsign");
    let abs = w.has("abs");
    if xor != abs {
        return invalid(".xorsign and .abs go together");
    }
    let run: Handler = match (ty, max) {
        (Type::F64, false) => lift2(|a: f64, b: f64| smaller64(a, b)),
        (Type::F64, true) => lift2(|a: f64, b: f64| -smaller64(-a, -b)),
        (_, false) if flags == 0 && !nan && !xor && i.operands.len() == 3 => {
            lift2(|a: f32, b: f32| canonical(smaller(a, b)))
        }
        (_, true) if flags == 0 && !nan && !xor && i.operands.len() == 3 => {
            lift2(|a: f32, b: f32| canonical(-smaller(-a, -b)))
        }
        _ => {
            let set = |on: bool, flag: u32| if on { flag } else { 0 };
            let flags = flags | set(nan, NAN_WINS) | set(xor, XOR_SIGN) | set(abs, ABS) | set(max, MAX);
            if i.operands.len() == 4 {
                let run = lift3_flags(|a: f32, b: f32, c: f32, f| extreme(extreme(a, b, f), c, f));
                return d.alu_flags(i, run, ty, &[ty; 3], flags);
            }
            return d.alu_flags(i, lift2_flags(extreme), ty, &[ty; 2], flags);
        }
    };
    d.alu(i, run, ty, &[ty; 2])
}

#[inline(always)]
pub fn smaller(a: f32, b: f32) -> f32 {
    if b.is_nan() || a < b || (a == b && a.is_sign_negative()) { a } else { b }
}

fn smaller64(a: f64, b: f64) -> f64 {
    if b.is_nan() || a < b || (a == b && a.is_sign_negative()) { a } else { b }
}

fn extreme(a: f32, b: f32, flags: u32) -> f32 {
    let (a, b) = (input(a, flags), input(b, flags));
    if flags & NAN_WINS != 0 && (a.is_nan() || b.is_nan()) {
        return canonical(f32::NAN);
    }
    let sign = (a.to_bits() ^ b.to_bits()) & 0x8000_0000;
    let (a, b) = if flags & ABS != 0 { (a.abs(), b.abs()) } else { (a, b) };
    let value = if flags & MAX != 0 { -smaller(-a, -b) } else { smaller(a, b) };
    let value =
        if flags & XOR_SIGN != 0 { f32::from_bits(value.to_bits() & 0x7fff_ffff | sign) } else { value };
    canonical(value)
}

/// Roots, reciprocals, transcendental approximations, `testp`, `copysign`.
pub fn function<'a>(d: &mut Decoder<'a, '_>, i: &'a Instruction, w: &Words<'a>) -> Decoded {
    let opcode = i.opcode.as_str();
    if opcode == "testp" {
        return test(d, i, w);
    }
    let approximate = w.has("approx");
    let rounding = take_rounding(w);
    let ftz = w.has("ftz");
    let Some(ty) = w.ty() else { return invalid("the instruction needs a type") };
    if is_float(ty) && !matches!(ty, Type::F32 | Type::F64) {
        return half_float::function(d, i, ty, ftz);
    }
    if opcode == "copysign" {
        let run = match ty {
            Type::F32 => lift2(|a: f32, b: f32| b.copysign(a)),
            _ => lift2(|a: f64, b: f64| b.copysign(a)),
        };
        return d.alu(i, run, ty, &[ty; 2]);
    }
    let exact = matches!(rounding, None | Some(Rounding::Nearest));
    let flags = rounding.unwrap_or(Rounding::Nearest) as u32 | if ftz { FTZ } else { 0 };
    let run = match (opcode, ty) {
        ("sqrt", Type::F64) if exact => lift1(|a: f64| a.sqrt()),
        ("sqrt", Type::F64) => lift1_flags(|a: f64, f| Rounding::of_flags(f).sqrt64(a)),
        // The approximate f64 forms work on the upper word alone and always flush.
        ("rcp", Type::F64) if approximate => lift1(|a: f64| upper(1.0 / flush_upper(a))),
        ("rsqrt", Type::F64) => lift1(|a: f64| upper(1.0 / flush_upper(a).sqrt())),
        ("rcp", Type::F64) if exact => lift1(|a: f64| 1.0 / a),
        ("rcp", Type::F64) => lift1_flags(|a: f64, f| Rounding::of_flags(f).div64(1.0, a)),
        ("sqrt", Type::F32) if exact => f32_forms!(ftz, lift1, |a| a.sqrt()),
        ("sqrt", Type::F32) => lift1_flags(|a: f32, f| output(Rounding::of_flags(f).sqrt32(input(a, f)), f)),
        ("rcp", Type::F32) if exact => f32_forms!(ftz, lift1, |a| 1.0 / a),
        ("rcp", Type::F32) => {
            lift1_flags(|a: f32, f| output(Rounding::of_flags(f).div32(1.0, input(a, f)), f))
        }
        ("rsqrt", Type::F32) => f32_forms!(ftz, lift1, |a| (1.0 / f64::from(a).sqrt()) as f32),
        ("sin", Type::F32) => f32_forms!(ftz, lift1, |a| a.sin()),
        ("cos", Type::F32) => f32_forms!(ftz, lift1, |a| a.cos()),
        ("lg2", Type::F32) => f32_forms!(ftz, lift1, |a| a.log2()),
        ("ex2", Type::F32) => f32_forms!(ftz, lift1, |a| a.exp2()),
        ("tanh", Type::F32) => f32_forms!(ftz, lift1, |a| a.tanh()),
        _ => return unsupported("for this type"),
    };
    d.alu_flags(i, run, ty, &[ty], flags)
}

fn upper(a: f64) -> f64 {
    flush_upper(f64::from_bits(a.to_bits() & 0xffff_ffff_0000_0000))
}

fn flush_upper(a: f64) -> f64 {
    if a.abs() < f64::MIN_POSITIVE { 0.0f64.copysign(a) } else { a }
}

fn test<'a>(d: &mut Decoder<'a, '_>, i: &'a Instruction, w: &Words<'a>) -> Decoded {
    macro_rules! tests {
        ($t:ty, $kind:expr) => {
            match $kind {
                "finite" => lift1(|a: $t| a.is_finite()),
                "infinite" => lift1(|a: $t| a.is_infinite()),
                "number" => lift1(|a: $t| !a.is_nan()),
                "notanumber" => lift1(|a: $t| a.is_nan()),
                "normal" => lift1(|a: $t| a.is_normal()),
                _ => lift1(|a: $t| a.is_subnormal()),
            }
        };
    }
    let kinds = ["finite", "infinite", "number", "notanumber", "normal", "subnormal"];
    let Some(kind) = w.one_of(&kinds) else { return invalid("testp needs a test") };
    let Some(ty) = w.ty() else { return invalid("testp needs a type") };
    let run = match ty {
        Type::F32 => tests!(f32, kind),
        Type::F64 => tests!(f64, kind),
        _ => return invalid("testp takes .f32 or .f64"),
    };
    d.alu(i, run, Type::Pred, &[ty])
}

/// Clamps to [0, 1] for the f64 conversions.
pub fn unit_interval(a: f64) -> f64 {
    saturate64(a)
}
