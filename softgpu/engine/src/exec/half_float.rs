//! f16 and bf16, single and in pairs.
//!
//! Every operation is computed exactly enough in f64 and rounded once. One interpreter function serves all forms, told
//! by `flags`; half precision is not where a CPU is asked to be fast.

use half::{bf16, f16};
use lightos_kernels::ptx::ast::{Instruction, Operand, Type};

use super::decode::{Bank, Decoded, Decoder, invalid, unsupported};
use super::float::take_rounding;
use super::lanes::{lift1, lift1_flags, lift2, lift2_flags, lift3_flags};
use super::narrow::narrow_float;
use super::op::Op;
use super::rounding::round_to_odd;
use super::words::Words;

const OPERATIONS: [&str; 10] = ["add", "sub", "mul", "fma", "abs", "neg", "min", "max", "ex2", "tanh"];
const OPERATION: u32 = 15;
const BF16: u32 = 1 << 4;
const PAIR: u32 = 1 << 5;
const FTZ: u32 = 1 << 6;
const SAT: u32 = 1 << 7;
const RELU: u32 = 1 << 8;
const NAN_WINS: u32 = 1 << 9;
const XOR_SIGN: u32 = 1 << 10;
const COMPARISON_SHIFT: u32 = 16;

fn type_flags(ty: Type) -> u32 {
    let brain = matches!(ty, Type::BF16 | Type::BF16x2);
    let pair = matches!(ty, Type::F16x2 | Type::BF16x2);
    (if brain { BF16 } else { 0 }) | if pair { PAIR } else { 0 }
}

fn raw(ty: Type) -> Type {
    if matches!(ty, Type::F16x2 | Type::BF16x2) { Type::B32 } else { Type::B16 }
}

fn operation(name: &str) -> Decoded<u32> {
    match OPERATIONS.iter().position(|&known| known == name) {
        Some(index) => Ok(index as u32),
        None => unsupported("for half precision"),
    }
}

pub fn arithmetic<'a>(d: &mut Decoder<'a, '_>, i: &'a Instruction, w: &Words<'a>, ty: Type) -> Decoded {
    if matches!(take_rounding(w), Some(rounding) if rounding as u32 != 0) {
        return unsupported("with this rounding");
    }
    let mut flags = operation(&i.opcode)? | type_flags(ty);
    for (word, flag) in [("ftz", FTZ), ("sat", SAT), ("relu", RELU), ("NaN", NAN_WINS), ("xorsign", XOR_SIGN)]
    {
        if w.has(word) {
            flags |= flag;
        }
    }
    w.has("abs");
    let raw = raw(ty);
    match i.opcode.as_str() {
        "abs" | "neg" => function_flags(d, i, raw, flags),
        "fma" => d.alu_flags(i, lift3_flags(compute), raw, &[raw; 3], flags),
        _ => d.alu_flags(i, lift2_flags(|a: u32, b: u32, f| compute(a, b, 0, f)), raw, &[raw; 2], flags),
    }
}

/// `ex2` and `tanh`.
pub fn function<'a>(d: &mut Decoder<'a, '_>, i: &'a Instruction, ty: Type, ftz: bool) -> Decoded {
    let flags = operation(&i.opcode)? | type_flags(ty) | if ftz { FTZ } else { 0 };
    function_flags(d, i, raw(ty), flags)
}

fn function_flags<'a>(d: &mut Decoder<'a, '_>, i: &'a Instruction, raw: Type, flags: u32) -> Decoded {
    d.alu_flags(i, lift1_flags(|a: u32, f| compute(a, 0, 0, f)), raw, &[raw], flags)
}

fn compute(a: u32, b: u32, c: u32, flags: u32) -> u32 {
    let low = element(a as u16, b as u16, c as u16, flags);
    if flags & PAIR == 0 {
        return low;
    }
    element((a >> 16) as u16, (b >> 16) as u16, (c >> 16) as u16, flags) << 16 | low
}

/// An f16 as a number, a subnormal as zero.
pub fn flush(a: f16) -> f32 {
    f16::from_bits(flushed(a.to_bits(), FTZ)).to_f32()
}

/// Subnormals to zero, sign kept, where the instruction says `.ftz`.
fn flushed(bits: u16, flags: u32) -> u16 {
    let exponent = if flags & BF16 != 0 { 0x7f80 } else { 0x7c00 };
    if flags & FTZ != 0 && bits & exponent == 0 { bits & 0x8000 } else { bits }
}

fn value(bits: u16, flags: u32) -> f64 {
    let bits = flushed(bits, flags);
    if flags & BF16 != 0 { bf16::from_bits(bits).to_f64() } else { f16::from_bits(bits).to_f64() }
}

fn element(a: u16, b: u16, c: u16, flags: u32) -> u32 {
    let operation = OPERATIONS[(flags & OPERATION) as usize % OPERATIONS.len()];
    // Signs move on the bits, NaNs included.
    match operation {
        "abs" => return u32::from(flushed(a, flags) & 0x7fff),
        "neg" => return u32::from(flushed(a, flags) ^ 0x8000),
        _ => {}
    }
    let (x, y, z) = (value(a, flags), value(b, flags), value(c, flags));
    let result = match operation {
        "add" => round_to_odd(x, y),
        "sub" => round_to_odd(x, -y),
        "mul" => x * y,
        "fma" => round_to_odd(x * y, z),
        "ex2" => x.exp2(),
        "tanh" => x.tanh(),
        _ => return extreme(a, b, flags, operation == "max"),
    };
    let result = if flags & SAT != 0 { super::float::unit_interval(result) + 0.0 } else { result };
    let result = if flags & RELU != 0 && result <= 0.0 { 0.0 } else { result };
    narrow(result, flags)
}

fn narrow(result: f64, flags: u32) -> u32 {
    let to = if flags & BF16 != 0 { Type::BF16 } else { Type::F16 };
    u32::from(flushed(narrow_float(result, to, 0, false) as u16, flags))
}

/// The lesser of two f16, or bf16; a NaN loses against a number.
pub fn least(a: u16, b: u16, brain: bool) -> u16 {
    extreme(a, b, if brain { BF16 } else { 0 }, false) as u16
}

/// The greater of two.
pub fn greatest(a: u16, b: u16, brain: bool) -> u16 {
    extreme(a, b, if brain { BF16 } else { 0 }, true) as u16
}

fn extreme(a: u16, b: u16, flags: u32, max: bool) -> u32 {
    let (a, b, sign) =
        if flags & XOR_SIGN != 0 { (a & 0x7fff, b & 0x7fff, (a ^ b) & 0x8000) } else { (a, b, 0) };
    let (x, y) = (value(a, flags), value(b, flags));
    if x.is_nan() && y.is_nan() || flags & NAN_WINS != 0 && (x.is_nan() || y.is_nan()) {
        return 0x7fff;
    }
    let first = if max {
        y.is_nan() || x > y || x == y && x.is_sign_positive()
    } else {
        y.is_nan() || x < y || x == y && x.is_sign_negative()
    };
    let result = if first { x } else { y };
    let result = if flags & RELU != 0 && result <= 0.0 { 0.0 } else { result };
    let bits = narrow(result, flags);
    if flags & XOR_SIGN != 0 { bits & 0x7fff | u32::from(sign) } else { bits }
}

/// `setp` on pairs gives `p` for the lower and `q` for the upper half; `set` gives both halves of a word.
pub fn compare_pairs<'a>(
    d: &mut Decoder<'a, '_>,
    i: &'a Instruction,
    comparison: &str,
    combine: Option<&str>,
    ftz: bool,
    result: Type,
    ty: Type,
) -> Decoded {
    let names = ["eq", "ne", "lt", "le", "gt", "ge", "equ", "neu", "ltu", "leu", "gtu", "geu", "num", "nan"];
    let Some(index) = names.iter().position(|&name| name == comparison) else {
        return invalid("this comparison does not take floats");
    };
    let flags = type_flags(ty) | if ftz { FTZ } else { 0 } | (index as u32) << COMPARISON_SHIFT;
    let a = d.source(&i.operands[1], Type::B32)?;
    let b = d.source(&i.operands[2], Type::B32)?;
    let both = d.register(Bank::Word).slot;
    let third = match i.operands.get(3) {
        Some(operand) => Some(d.source(operand, Type::Pred)?),
        None => None,
    };
    d.emit(Op { dst: both, a, b, flags, ..Op::new(lift2_flags(compare)) });
    if let (Some(combine), Some(third)) = (combine, third) {
        let run = match combine {
            "and" => lift2(|v: u32, c: bool| v & spread(c)),
            "or" => lift2(|v: u32, c: bool| v | spread(c)),
            _ => lift2(|v: u32, c: bool| v ^ spread(c)),
        };
        d.emit(Op { dst: both, a: both, b: third, ..Op::new(run) });
    }
    let word =
        |d: &mut Decoder<'a, '_>, run| d.emit_to(Op { a: both, ..Op::new(run) }, &i.operands[0], Type::B32);
    match result {
        Type::Pred => {
            let Operand::Pair(p, q) = &i.operands[0] else { return invalid("expected two predicates") };
            let (p, q) = (d.destination(p, Type::Pred)?, d.destination(q, Type::Pred)?);
            d.emit(Op { dst: p, a: both, ..Op::new(lift1(|v: u32| v & 1 != 0)) });
            d.emit(Op { dst: q, a: both, ..Op::new(lift1(|v: u32| v >> 16 != 0)) });
            Ok(())
        }
        Type::F16x2 => word(d, lift1(|v: u32| v.wrapping_mul(0x3c00))),
        Type::BF16x2 => word(d, lift1(|v: u32| v.wrapping_mul(0x3f80))),
        _ => word(d, lift1(|v: u32| v.wrapping_mul(0xffff))),
    }
}

/// A truth for both halves, as [`compare`] gives it.
fn spread(truth: bool) -> u32 {
    if truth { 0x1_0001 } else { 0 }
}

/// Bit 0 and bit 16: the comparison of the lower and the upper halves.
fn compare(a: u32, b: u32, flags: u32) -> u32 {
    let one = |a: u16, b: u16| {
        let (x, y) = (value(a, flags), value(b, flags));
        let unordered = x.is_nan() || y.is_nan();
        u32::from(match flags >> COMPARISON_SHIFT {
            0 => x == y,
            1 => !unordered && x != y,
            2 => x < y,
            3 => x <= y,
            4 => x > y,
            5 => x >= y,
            6 => unordered || x == y,
            7 => x != y,
            8 => unordered || x < y,
            9 => unordered || x <= y,
            10 => unordered || x > y,
            11 => unordered || x >= y,
            12 => !unordered,
            _ => unordered,
        })
    };
    one((a >> 16) as u16, (b >> 16) as u16) << 16 | one(a as u16, b as u16)
}
