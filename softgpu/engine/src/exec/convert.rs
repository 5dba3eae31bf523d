//! `cvt`: between all integer and floating types.
//!
//! Common pairs are lifted directly. Everything else goes through an exact wide value (i128 for integers, f64 for
//! floats; every narrower type is exact there) and one final rounding. `cvt.pack` is in `packed`.

use half::{bf16, f16};
use lightos_kernels::ptx::ast::{Instruction, Type};

use super::decode::{Decoded, Decoder, invalid, operands, unsupported};
use super::float::{canonical, flush, unit_interval};
use super::lanes::{LANES, Lane, lift1, lift1_flags, lift2_flags};
use super::narrow::{self, narrow_float};
use super::op::{Flow, Handler, Machine, Op};
use super::packed;
use super::rounding::{Rounding, round_to_odd};
use super::words::{Words, is_float, type_bytes};

const FTZ: u32 = 1 << 4;
const SAT: u32 = 1 << 5;
/// Round to an integral value (`rni` and its like).
const INTEGRAL: u32 = 1 << 6;
const RELU: u32 = 1 << 7;
/// Ties away from zero.
const AWAY: u32 = 1 << 8;
/// Overflow gives the largest finite value.
const FINITE: u32 = 1 << 9;
const SOURCE_SHIFT: u32 = 16;
const TARGET_SHIFT: u32 = 24;

pub fn decode<'a>(d: &mut Decoder<'a, '_>, i: &'a Instruction, w: &Words<'a>) -> Decoded {
    if w.has("pack") {
        return packed::convert(d, i, w);
    }
    let mut flags = 0;
    let modes = ["rn", "rz", "rm", "rp", "rni", "rzi", "rmi", "rpi", "rna", "rs"];
    match w.one_of(&modes) {
        Some("rs") => return unsupported("stochastic rounding"),
        Some("rna") => flags |= AWAY,
        Some(mode) => {
            flags |= match mode.as_bytes()[1] {
                b'n' => Rounding::Nearest,
                b'z' => Rounding::Zero,
                b'm' => Rounding::Down,
                _ => Rounding::Up,
            } as u32;
            if mode.len() == 3 {
                flags |= INTEGRAL;
            }
        }
        None => {}
    }
    for (word, flag) in [("ftz", FTZ), ("sat", SAT), ("satfinite", FINITE), ("relu", RELU)] {
        if w.has(word) {
            flags |= flag;
        }
    }
    let (Some(to), Some(from)) = (w.ty(), w.ty()) else {
        return match w.left() {
            Some(word) => unsupported(format!("type '.{word}'")),
            None => invalid("cvt needs two types"),
        };
    };
    let paired = |ty| matches!(ty, Type::F16x2 | Type::BF16x2 | Type::E4M3x2 | Type::E5M2x2);
    if paired(to) || paired(from) {
        return pairs(d, i, to, from, flags);
    }
    if flags & FTZ != 0 && to != Type::F32 && from != Type::F32 {
        flags &= !FTZ;
    }
    operands(i, 2)?;
    if to == Type::TF32 && !matches!(Rounding::of_flags(flags), Rounding::Nearest | Rounding::Zero) {
        return unsupported("tf32 with this rounding");
    }
    if flags & FINITE != 0 && matches!(to, Type::F32 | Type::F64)
        || flags & SAT != 0 && matches!(to, Type::BF16 | Type::TF32)
    {
        return invalid("this saturation does not apply to the type");
    }
    let run = direct(to, from, flags).map_or_else(|| general(to, from), Ok)?;
    let flags = flags | code(from) << SOURCE_SHIFT | code(to) << TARGET_SHIFT;
    let result = if to == Type::TF32 { Type::F32 } else { to };
    d.alu_flags(i, run, result, &[from], flags)
}

/// The conversions that programs are full of.
fn direct(to: Type, from: Type, flags: u32) -> Option<Handler> {
    use Type::{B32, B64, BF16, F16, F32, F64, S8, S16, S32, S64, U8, U16, U32, U64};
    if flags & (SAT | FINITE) != 0 {
        return None;
    }
    let nearest = flags & Rounding::MASK == 0;
    Some(match (to, from) {
        (U64 | S64 | B64, U32 | B32) => lift1(|a: u32| a as u64),
        (U64 | S64 | B64, S32) => lift1(|a: i32| a as i64),
        (U64 | S64, U64 | S64) => lift1(|a: u64| a),
        (U32 | S32 | B32, U64 | S64 | B64) => lift1(|a: u64| a as u32),
        (U32 | S32, U32 | S32) => lift1(|a: u32| a),
        (U32 | S32, U16) => lift1(|a: u16| a as u32),
        (U32 | S32, S16) => lift1(|a: i16| a as i32),
        (U32 | S32, U8) => lift1(|a: u8| a as u32),
        (U32 | S32, S8) => lift1(|a: i8| a as i32),
        (U64 | S64, U16) => lift1(|a: u16| a as u64),
        (U64 | S64, S16) => lift1(|a: i16| a as i64),
        (U64 | S64, U8) => lift1(|a: u8| a as u64),
        (U64 | S64, S8) => lift1(|a: i8| a as i64),
        (U16, U8) => lift1(|a: u8| a as u16),
        (S16 | U16, S8) => lift1(|a: i8| a as i16),
        (U16, U32 | S32) => lift1(|a: u32| a as u16),
        (S16, U32 | S32) => lift1(|a: u32| a as i16),
        (U16, U64 | S64) => lift1(|a: u64| a as u16),
        (S16, U64 | S64) => lift1(|a: u64| a as i16),
        (U8, U16 | S16 | U32 | S32 | U8 | S8) => lift1(|a: u32| a as u8),
        (S8, U16 | S16 | U32 | S32 | U8 | S8) => lift1(|a: u32| a as i8),
        (F32, S32) if nearest => lift1(|a: i32| a as f32),
        (F32, U32) if nearest => lift1(|a: u32| a as f32),
        (F64, S32) => lift1(|a: i32| a as f64),
        (F64, U32) => lift1(|a: u32| a as f64),
        (F64, F32) if flags & FTZ == 0 => lift1(|a: f32| a as f64),
        (F32, F64) if nearest && flags & FTZ == 0 => lift1(|a: f64| canonical(a as f32)),
        (F32, F16) if flags & FTZ == 0 => lift1(|a: f16| canonical(a.to_f32())),
        (F32, BF16) if flags & FTZ == 0 => lift1(|a: bf16| canonical(a.to_f32())),
        (F16, F32) if nearest && flags & (FTZ | RELU) == 0 => lift1(narrow::to_f16),
        (BF16, F32) if nearest && flags & (FTZ | RELU) == 0 => lift1(narrow::to_bf16),
        (S32, F32) if flags & 0xf3 == INTEGRAL | Rounding::Zero as u32 => lift1(|a: f32| a as i32),
        _ => return None,
    })
}

const CODES: [Type; 16] = [
    Type::U8,
    Type::S8,
    Type::U16,
    Type::S16,
    Type::U32,
    Type::S32,
    Type::U64,
    Type::S64,
    Type::F16,
    Type::BF16,
    Type::F32,
    Type::F64,
    Type::TF32,
    Type::E4M3,
    Type::E5M2,
    Type::B32,
];

fn code(ty: Type) -> u32 {
    CODES.iter().position(|&known| known == ty).unwrap_or(15) as u32
}

fn at(code: u32) -> Type {
    CODES[(code & 15) as usize]
}

fn general(to: Type, from: Type) -> Decoded<Handler> {
    let known = |ty: Type| CODES[..13].contains(&ty);
    if !known(to) || !known(from) || from == Type::TF32 {
        return unsupported("between these types");
    }
    let forms: [Handler; 4] =
        [convert::<u32, u32>, convert::<u64, u32>, convert::<u32, u64>, convert::<u64, u64>];
    Ok(forms[usize::from(type_bytes(to) == 8) * 2 + usize::from(type_bytes(from) == 8)])
}

trait Raw: Lane {
    fn bits(self) -> u64;
    fn of(bits: u64) -> Self;
}

impl Raw for u32 {
    fn bits(self) -> u64 {
        u64::from(self)
    }
    fn of(bits: u64) -> u32 {
        bits as u32
    }
}

impl Raw for u64 {
    fn bits(self) -> u64 {
        self
    }
    fn of(bits: u64) -> u64 {
        bits
    }
}

fn convert<A: Raw, D: Raw>(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
    let (from, to) = (at(op.flags >> SOURCE_SHIFT), at(op.flags >> TARGET_SHIFT));
    let mut out = D::out();
    let view = A::view(m, op.a);
    for lane in (0..LANES).filter(|lane| mask >> lane & 1 != 0) {
        D::set(&mut out, lane, D::of(one(A::at(view, lane).bits(), from, to, op.flags)));
    }
    D::commit(m, op.dst, &out, mask);
    Flow::Next
}

/// One value, bits in, bits out.
fn one(bits: u64, from: Type, to: Type, flags: u32) -> u64 {
    if is_float(from) {
        let value = float_value(bits, from, flags);
        return if is_float(to) {
            float_to_float(value, from, to, flags)
        } else {
            float_to_integer(value, from, to, flags)
        };
    }
    let value = integer_value(bits, from);
    if !is_float(to) {
        return integer_to_integer(value, to, flags);
    }
    let rounding = Rounding::of_flags(flags);
    let high = value as f64;
    let low = (value - high as i128) as f64;
    match to {
        Type::F64 => rounding.adjust64(high, low).to_bits(),
        Type::F32 => u64::from(rounding.to_f32(high, low).to_bits()),
        _ => {
            u64::from(narrow_float(round_to_odd(high, low), to, flags & Rounding::MASK, flags & FINITE != 0))
        }
    }
}

fn integer_value(bits: u64, from: Type) -> i128 {
    match from {
        Type::U8 => i128::from(bits as u8),
        Type::S8 => i128::from(bits as i8),
        Type::U16 => i128::from(bits as u16),
        Type::S16 => i128::from(bits as i16),
        Type::U32 | Type::B32 => i128::from(bits as u32),
        Type::S32 => i128::from(bits as i32),
        Type::S64 => i128::from(bits as i64),
        _ => i128::from(bits),
    }
}

fn range(to: Type) -> (i128, i128) {
    let bits = type_bytes(to) * 8;
    if super::words::is_signed(to) {
        (-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
    } else {
        (0, (1 << bits) - 1)
    }
}

/// Truncates, or clamps with `.sat`. The result is extended to the register as its type demands.
fn integer_to_integer(value: i128, to: Type, flags: u32) -> u64 {
    let (low, high) = range(to);
    if flags & SAT != 0 {
        return value.clamp(low, high) as u64;
    }
    match to {
        Type::S8 => value as i8 as u64,
        Type::S16 => value as i16 as u64,
        Type::U8 => value as u8 as u64,
        Type::U16 => value as u16 as u64,
        _ => value as u64,
    }
}

fn float_value(bits: u64, from: Type, flags: u32) -> f64 {
    match from {
        Type::F16 => f16::from_bits(bits as u16).to_f64(),
        Type::BF16 => bf16::from_bits(bits as u16).to_f64(),
        Type::F32 => {
            let value = f32::from_bits(bits as u32);
            f64::from(if flags & FTZ != 0 { flush(value) } else { value })
        }
        _ => f64::from_bits(bits),
    }
}

fn integral(value: f64, flags: u32) -> f64 {
    match Rounding::of_flags(flags) {
        Rounding::Nearest => value.round_ties_even(),
        Rounding::Zero => value.trunc(),
        Rounding::Down => value.floor(),
        Rounding::Up => value.ceil(),
    }
}

/// Clamps to the target's range. NaN gives 0, or the top bit alone where either side is 64 bits wide.
fn float_to_integer(value: f64, from: Type, to: Type, flags: u32) -> u64 {
    if value.is_nan() {
        let wide = from == Type::F64 || type_bytes(to) == 8;
        return if wide { 1 << (type_bytes(to) * 8 - 1) } else { 0 };
    }
    let (low, high) = range(to);
    (integral(value, flags) as i128).clamp(low, high) as u64
}

fn float_to_float(value: f64, from: Type, to: Type, flags: u32) -> u64 {
    let mut value = if flags & INTEGRAL != 0 { integral(value, flags) } else { value };
    if flags & SAT != 0 && matches!(to, Type::F16 | Type::F32 | Type::F64) {
        value = unit_interval(value);
    }
    if flags & RELU != 0 && value <= 0.0 {
        value = 0.0;
    }
    match to {
        Type::F64 => value.to_bits(),
        Type::F32 => {
            let nearest = flags & INTEGRAL != 0 || from != Type::F64;
            let narrow = if nearest { value as f32 } else { Rounding::of_flags(flags).to_f32(value, 0.0) };
            let narrow = if flags & FTZ != 0 { flush(narrow) } else { narrow };
            u64::from(canonical(narrow).to_bits())
        }
        Type::TF32 => u64::from(narrow::to_tf32(value as f32, tie(flags), flags & FINITE != 0)),
        _ => {
            let mode = if flags & INTEGRAL != 0 { 0 } else { flags & Rounding::MASK };
            u64::from(narrow_float(value, to, mode, flags & FINITE != 0))
        }
    }
}

fn tie(flags: u32) -> narrow::Tie {
    match Rounding::of_flags(flags) {
        Rounding::Zero => narrow::Tie::Truncate,
        _ if flags & AWAY != 0 => narrow::Tie::Away,
        _ => narrow::Tie::Even,
    }
}

/// `cvt.rn.f16x2.f32 d, a, b`: `a` goes to the upper half. And the 8-bit pairs.
fn pairs<'a>(d: &mut Decoder<'a, '_>, i: &'a Instruction, to: Type, from: Type, flags: u32) -> Decoded {
    let result = if type_bytes(to) == 2 { Type::B16 } else { Type::B32 };
    let set = flags;
    match (to, from) {
        (Type::F16x2, Type::F32) => d.alu_flags(
            i,
            lift2_flags(|a: f32, b: f32, f| pair(a, b, Type::F16, f, 16)),
            result,
            &[from; 2],
            set,
        ),
        (Type::BF16x2, Type::F32) => d.alu_flags(
            i,
            lift2_flags(|a: f32, b: f32, f| pair(a, b, Type::BF16, f, 16)),
            result,
            &[from; 2],
            set,
        ),
        (Type::E4M3x2, Type::F32) => d.alu_flags(
            i,
            lift2_flags(|a: f32, b: f32, f| pair(a, b, Type::E4M3, f, 8)),
            result,
            &[from; 2],
            set,
        ),
        (Type::E5M2x2, Type::F32) => d.alu_flags(
            i,
            lift2_flags(|a: f32, b: f32, f| pair(a, b, Type::E5M2, f, 8)),
            result,
            &[from; 2],
            set,
        ),
        (Type::E4M3x2 | Type::E5M2x2, Type::F16x2) => {
            let run = if to == Type::E4M3x2 {
                lift1_flags(|a: u32, f| halves(a, Type::E4M3, f))
            } else {
                lift1_flags(|a: u32, f| halves(a, Type::E5M2, f))
            };
            d.alu_flags(i, run, result, &[Type::B32], set)
        }
        (Type::F16x2, Type::E4M3x2) => {
            d.alu_flags(i, lift1_flags(|a: u16, f| widened(a, Type::E4M3, f)), result, &[Type::B16], set)
        }
        (Type::F16x2, Type::E5M2x2) => {
            d.alu_flags(i, lift1_flags(|a: u16, f| widened(a, Type::E5M2, f)), result, &[Type::B16], set)
        }
        _ => unsupported("between these types"),
    }
}

fn pair(a: f32, b: f32, to: Type, flags: u32, shift: u32) -> u32 {
    let one = |v: f32| {
        let v = f64::from(if flags & FTZ != 0 { flush(v) } else { v });
        let v = if flags & RELU != 0 && v <= 0.0 { 0.0 } else { v };
        narrow_float(v, to, flags & Rounding::MASK, flags & FINITE != 0)
    };
    one(a) << shift | one(b)
}

fn halves(a: u32, to: Type, flags: u32) -> u32 {
    let one = |bits: u32| {
        let v = f16::from_bits(bits as u16).to_f64();
        narrow_float(if flags & RELU != 0 && v <= 0.0 { 0.0 } else { v }, to, 0, true)
    };
    one(a >> 16) << 8 | one(a)
}

fn widened(a: u16, from: Type, flags: u32) -> u32 {
    let one = |byte: u16| {
        let value = narrow::from_fp8(byte as u8, from);
        let value = if flags & RELU != 0 && value <= 0.0 { 0.0 } else { value };
        u32::from(narrow::to_f16(value).to_bits())
    };
    one(a >> 8) << 16 | one(a & 0xff)
}
