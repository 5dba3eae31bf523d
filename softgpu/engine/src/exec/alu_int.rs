//! Integer arithmetic, and the split of shared opcodes (`add`, `min`, ...) over integer, float and packed types.

use lightos_kernels::ptx::ast::{Instruction, Type};

use super::decode::{Decoded, Decoder, invalid, operands, unsupported};
use super::lanes::{lift_carry, lift1, lift2, lift3};
use super::op::{Handler, Op};
use super::words::{Words, is_float};
use super::{float, half_float, packed};

/// Chooses the expression by type, with `$t` the Rust type of the PTX type.
macro_rules! by_type {
    ($ty:expr, $t:ident => $body:expr) => {
        match $ty {
            Type::U16 | Type::B16 => {
                type $t = u16;
                $body
            }
            Type::S16 => {
                type $t = i16;
                $body
            }
            Type::U32 | Type::B32 => {
                type $t = u32;
                $body
            }
            Type::S32 => {
                type $t = i32;
                $body
            }
            Type::U64 | Type::B64 => {
                type $t = u64;
                $body
            }
            Type::S64 => {
                type $t = i64;
                $body
            }
            _ => return unsupported("for this type"),
        }
    };
}
pub(super) use by_type;

/// Integer arithmetic with the device's answers where Rust has none.
pub trait Integer: Copy {
    /// Quotient; all bits set for a zero divisor.
    fn quotient(self, by: Self) -> Self;
    /// Remainder; the dividend for a zero divisor.
    fn remainder(self, by: Self) -> Self;
    /// `|self - by|`, truncated.
    fn distance(self, by: Self) -> Self;
    /// The upper half of the double-width product.
    fn product_high(self, by: Self) -> Self;
}

macro_rules! integer {
    ($($ty:ty, $wide:ty);*) => {$(
        impl Integer for $ty {
            #[inline(always)]
            fn quotient(self, by: Self) -> Self {
                if by == 0 { !0 } else { self.wrapping_div(by) }
            }
            #[inline(always)]
            fn remainder(self, by: Self) -> Self {
                if by == 0 { self } else { self.wrapping_rem(by) }
            }
            #[inline(always)]
            fn distance(self, by: Self) -> Self {
                if self < by { by.wrapping_sub(self) } else { self.wrapping_sub(by) }
            }
            #[inline(always)]
            fn product_high(self, by: Self) -> Self {
                ((self as $wide * by as $wide) >> <$ty>::BITS) as $ty
            }
        }
    )*};
}
integer!(u16, u32; i16, i32; u32, u64; i32, i64; u64, u128; i64, i128);

/// `add`, `sub`, `mul`, ... of any type.
pub fn arithmetic<'a>(d: &mut Decoder<'a, '_>, i: &'a Instruction, w: &Words<'a>) -> Decoded {
    let Some(ty) = w.ty() else { return invalid("the instruction needs a type") };
    match ty {
        Type::F32 | Type::F64 => float::arithmetic(d, i, w, ty),
        Type::F32x2 => float::pairs(d, i, w),
        _ if is_float(ty) => half_float::arithmetic(d, i, w, ty),
        Type::U16x2 | Type::S16x2 => packed::arithmetic(d, i, w, ty),
        _ => integer(d, i, w, ty),
    }
}

fn integer<'a>(d: &mut Decoder<'a, '_>, i: &'a Instruction, w: &Words<'a>, ty: Type) -> Decoded {
    let cc = w.has("cc");
    let opcode = i.opcode.as_str();
    if cc || matches!(opcode, "addc" | "subc" | "madc") {
        return carrying(d, i, w, ty, cc);
    }
    if w.has("sat") {
        let run = match (opcode, ty) {
            ("add", Type::S32) => lift2(|a: i32, b: i32| a.saturating_add(b)),
            ("sub", Type::S32) => lift2(|a: i32, b: i32| a.saturating_sub(b)),
            ("mad", Type::S32) if w.has("hi") => {
                return d.alu(
                    i,
                    lift3(|a: i32, b: i32, c: i32| a.product_high(b).saturating_add(c)),
                    ty,
                    &[ty; 3],
                );
            }
            ("mad24", Type::S32) if w.has("hi") => {
                let run = lift3(|a: i32, b: i32, c: i32| ((signed24(a, b) >> 16) as i32).saturating_add(c));
                return d.alu(i, run, ty, &[ty; 3]);
            }
            _ => return unsupported("saturation of this operation"),
        };
        return d.alu(i, run, ty, &[ty; 2]);
    }
    let run = match opcode {
        "add" => by_type!(ty, T => lift2(|a: T, b: T| a.wrapping_add(b))),
        "sub" => by_type!(ty, T => lift2(|a: T, b: T| a.wrapping_sub(b))),
        "div" => by_type!(ty, T => lift2(|a: T, b: T| a.quotient(b))),
        "rem" => by_type!(ty, T => lift2(|a: T, b: T| a.remainder(b))),
        "min" if w.has("relu") => match ty {
            Type::S32 => lift2(|a: i32, b: i32| a.min(b).max(0)),
            _ => return unsupported("relu of this type"),
        },
        "max" if w.has("relu") => match ty {
            Type::S32 => lift2(|a: i32, b: i32| a.max(b).max(0)),
            _ => return unsupported("relu of this type"),
        },
        "min" => by_type!(ty, T => lift2(|a: T, b: T| a.min(b))),
        "max" => by_type!(ty, T => lift2(|a: T, b: T| a.max(b))),
        "abs" => match ty {
            Type::S16 => lift1(|a: i16| a.wrapping_abs()),
            Type::S32 => lift1(|a: i32| a.wrapping_abs()),
            Type::S64 => lift1(|a: i64| a.wrapping_abs()),
            _ => return invalid("abs takes a signed type"),
        },
        "neg" => by_type!(ty, T => lift1(|a: T| a.wrapping_neg())),
        "sad" => {
            let run = by_type!(ty, T => lift3(|a: T, b: T, c: T| c.wrapping_add(a.distance(b))));
            return d.alu(i, run, ty, &[ty; 3]);
        }
        "mul" | "mad" => return product(d, i, w, ty),
        "mul24" | "mad24" => return product24(d, i, w, ty),
        _ => return unsupported("for integers"),
    };
    let sources = if matches!(opcode, "abs" | "neg") { 1 } else { 2 };
    d.alu(i, run, ty, &[ty, ty][..sources])
}

fn product<'a>(d: &mut Decoder<'a, '_>, i: &'a Instruction, w: &Words<'a>, ty: Type) -> Decoded {
    let adds = i.opcode == "mad";
    if w.has("wide") {
        let (run, wide): (Handler, Type) = match (ty, adds) {
            (Type::U16, false) => (lift2(|a: u16, b: u16| a as u32 * b as u32), Type::U32),
            (Type::S16, false) => (lift2(|a: i16, b: i16| a as i32 * b as i32), Type::S32),
            (Type::U32, false) => (lift2(|a: u32, b: u32| a as u64 * b as u64), Type::U64),
            (Type::S32, false) => (lift2(|a: i32, b: i32| a as i64 * b as i64), Type::S64),
            (Type::U16, true) => {
                (lift3(|a: u16, b: u16, c: u32| (a as u32 * b as u32).wrapping_add(c)), Type::U32)
            }
            (Type::S16, true) => {
                (lift3(|a: i16, b: i16, c: i32| (a as i32 * b as i32).wrapping_add(c)), Type::S32)
            }
            (Type::U32, true) => {
                (lift3(|a: u32, b: u32, c: u64| (a as u64 * b as u64).wrapping_add(c)), Type::U64)
            }
            (Type::S32, true) => {
                (lift3(|a: i32, b: i32, c: i64| (a as i64 * b as i64).wrapping_add(c)), Type::S64)
            }
            _ => return unsupported("wide products of this type"),
        };
        return if adds { d.alu(i, run, wide, &[ty, ty, wide]) } else { d.alu(i, run, wide, &[ty, ty]) };
    }
    let high = match w.one_of(&["lo", "hi"]) {
        Some(half) => half == "hi",
        None => return invalid("an integer product needs .lo, .hi or .wide"),
    };
    let run = match (high, adds) {
        (false, false) => by_type!(ty, T => lift2(|a: T, b: T| a.wrapping_mul(b))),
        (true, false) => by_type!(ty, T => lift2(|a: T, b: T| a.product_high(b))),
        (false, true) => by_type!(ty, T => lift3(|a: T, b: T, c: T| a.wrapping_mul(b).wrapping_add(c))),
        (true, true) => by_type!(ty, T => lift3(|a: T, b: T, c: T| a.product_high(b).wrapping_add(c))),
    };
    d.alu(i, run, ty, &[ty, ty, ty][..if adds { 3 } else { 2 }])
}

/// The product of two signed 24-bit factors.
fn signed24(a: i32, b: i32) -> i64 {
    i64::from(a << 8 >> 8) * i64::from(b << 8 >> 8)
}

/// 24-bit factors; `.hi` takes bits 16 to 47 of the product.
fn product24<'a>(d: &mut Decoder<'a, '_>, i: &'a Instruction, w: &Words<'a>, ty: Type) -> Decoded {
    fn unsigned(a: u32, b: u32) -> u64 {
        u64::from(a & 0xff_ffff) * u64::from(b & 0xff_ffff)
    }
    let high = w.one_of(&["lo", "hi"]) == Some("hi");
    let run = match (ty, high, i.opcode == "mad24") {
        (Type::U32, false, false) => lift2(|a: u32, b: u32| unsigned(a, b) as u32),
        (Type::U32, true, false) => lift2(|a: u32, b: u32| (unsigned(a, b) >> 16) as u32),
        (Type::S32, false, false) => lift2(|a: i32, b: i32| signed24(a, b) as i32),
        (Type::S32, true, false) => lift2(|a: i32, b: i32| (signed24(a, b) >> 16) as i32),
        (Type::U32, false, true) => lift3(|a: u32, b: u32, c: u32| (unsigned(a, b) as u32).wrapping_add(c)),
        (Type::U32, true, true) => {
            lift3(|a: u32, b: u32, c: u32| ((unsigned(a, b) >> 16) as u32).wrapping_add(c))
        }
        (Type::S32, false, true) => lift3(|a: i32, b: i32, c: i32| (signed24(a, b) as i32).wrapping_add(c)),
        (Type::S32, true, true) => {
            lift3(|a: i32, b: i32, c: i32| ((signed24(a, b) >> 16) as i32).wrapping_add(c))
        }
        _ => return invalid("24-bit products take .u32 or .s32"),
    };
    d.alu(i, run, ty, &[ty, ty, ty][..if i.opcode == "mad24" { 3 } else { 2 }])
}

/// Extended-precision arithmetic over the condition code.
fn carrying<'a>(d: &mut Decoder<'a, '_>, i: &'a Instruction, w: &Words<'a>, ty: Type, cc: bool) -> Decoded {
    fn add<T: Copy>(low: (T, bool), carry: impl Fn(T) -> (T, bool)) -> (T, bool) {
        let (value, first) = low;
        let (value, second) = carry(value);
        (value, first | second)
    }
    macro_rules! unsigned {
        ($t:ident => $body:expr) => {
            match ty {
                Type::U32 | Type::S32 | Type::B32 => {
                    type $t = u32;
                    $body
                }
                Type::U64 | Type::S64 | Type::B64 => {
                    type $t = u64;
                    $body
                }
                _ => return unsupported("carries of this type"),
            }
        };
    }
    let opcode = i.opcode.as_str();
    let high = w.one_of(&["lo", "hi"]) == Some("hi");
    let signed = matches!(ty, Type::S32 | Type::S64);
    let run = match opcode {
        "add" => unsigned!(T => lift_carry(|a: T, b: T, _: T, _| a.overflowing_add(b))),
        "sub" => unsigned!(T => lift_carry(|a: T, b: T, _: T, _| a.overflowing_sub(b))),
        "addc" => {
            unsigned!(T => lift_carry(|a: T, b: T, _: T, c| add(a.overflowing_add(b), |v: T| v.overflowing_add(c as T))))
        }
        "subc" => {
            unsigned!(T => lift_carry(|a: T, b: T, _: T, c| add(a.overflowing_sub(b), |v: T| v.overflowing_sub(c as T))))
        }
        "mad" | "madc" => {
            let with = opcode == "madc";
            match (high, signed) {
                (false, _) if with => unsigned!(T => lift_carry(|a: T, b: T, c: T, k| {
                    add(a.wrapping_mul(b).overflowing_add(c), |v: T| v.overflowing_add(k as T))
                })),
                (false, _) => {
                    unsigned!(T => lift_carry(|a: T, b: T, c: T, _| a.wrapping_mul(b).overflowing_add(c)))
                }
                (true, false) if with => unsigned!(T => lift_carry(|a: T, b: T, c: T, k| {
                    add(a.product_high(b).overflowing_add(c), |v: T| v.overflowing_add(k as T))
                })),
                (true, false) => {
                    unsigned!(T => lift_carry(|a: T, b: T, c: T, _| a.product_high(b).overflowing_add(c)))
                }
                (true, true) => match (ty, with) {
                    (Type::S32, true) => lift_carry(signed_high32),
                    (Type::S32, false) => {
                        lift_carry(|a: i32, b: i32, c: i32, _| signed_high32(a, b, c, false))
                    }
                    (_, true) => lift_carry(signed_high64),
                    (_, false) => lift_carry(|a: i64, b: i64, c: i64, _| signed_high64(a, b, c, false)),
                },
            }
        }
        _ => return unsupported("with a carry"),
    };
    let sources = if matches!(opcode, "mad" | "madc") { 3 } else { 2 };
    operands(i, sources + 1)?;
    let carry = d.carry();
    let mut op = Op { d: carry, flags: u32::from(cc), ..Op::new(run) };
    op.a = d.source(&i.operands[1], ty)?;
    op.b = d.source(&i.operands[2], ty)?;
    op.c = if sources == 3 { d.source(&i.operands[3], ty)? } else { op.b };
    d.emit_to(op, &i.operands[0], ty)
}

fn signed_high32(a: i32, b: i32, c: i32, carry: bool) -> (i32, bool) {
    let (value, first) = (a.product_high(b) as u32).overflowing_add(c as u32);
    let (value, second) = value.overflowing_add(u32::from(carry));
    (value as i32, first | second)
}

fn signed_high64(a: i64, b: i64, c: i64, carry: bool) -> (i64, bool) {
    let (value, first) = (a.product_high(b) as u64).overflowing_add(c as u64);
    let (value, second) = value.overflowing_add(u64::from(carry));
    (value as i64, first | second)
}
