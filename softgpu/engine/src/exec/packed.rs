//! Pairs of 16-bit integers in one word, and `cvt.pack`.

use lightos_kernels::ptx::ast::{Instruction, Type};

use super::decode::{Decoded, Decoder, invalid, unsupported};
use super::lanes::{lift2, lift2_flags, lift3_flags};
use super::words::Words;

pub fn arithmetic<'a>(d: &mut Decoder<'a, '_>, i: &'a Instruction, w: &Words<'a>, ty: Type) -> Decoded {
    fn unsigned(a: u32, b: u32, f: impl Fn(u16, u16) -> u16) -> u32 {
        u32::from(f((a >> 16) as u16, (b >> 16) as u16)) << 16 | u32::from(f(a as u16, b as u16))
    }
    fn signed(a: u32, b: u32, f: impl Fn(i16, i16) -> i16) -> u32 {
        unsigned(a, b, |a, b| f(a as i16, b as i16) as u16)
    }
    let relu = w.has("relu");
    let run = match (i.opcode.as_str(), ty, relu) {
        ("add", _, false) => lift2(|a: u32, b: u32| unsigned(a, b, u16::wrapping_add)),
        ("sub", _, false) => lift2(|a: u32, b: u32| unsigned(a, b, u16::wrapping_sub)),
        ("min", Type::U16x2, false) => lift2(|a: u32, b: u32| unsigned(a, b, u16::min)),
        ("max", Type::U16x2, false) => lift2(|a: u32, b: u32| unsigned(a, b, u16::max)),
        ("min", Type::S16x2, false) => lift2(|a: u32, b: u32| signed(a, b, i16::min)),
        ("max", Type::S16x2, false) => lift2(|a: u32, b: u32| signed(a, b, i16::max)),
        ("min", Type::S16x2, true) => lift2(|a: u32, b: u32| signed(a, b, |a, b| a.min(b).max(0))),
        ("max", Type::S16x2, true) => lift2(|a: u32, b: u32| signed(a, b, |a, b| a.max(b).max(0))),
        _ => return unsupported("for pairs of integers"),
    };
    d.alu(i, run, Type::B32, &[Type::B32; 2])
}

/// `cvt.pack.sat.type.s32 d, a, b`: both clamped to 16 bits, `a` in the upper half. With `.b32` and a fourth operand:
/// to 8, 4 or 2 bits, packed at the bottom, below the low bits of `c`.
pub fn convert<'a>(d: &mut Decoder<'a, '_>, i: &'a Instruction, w: &Words<'a>) -> Decoded {
    let types = ["u16", "s16", "u8", "s8", "u4", "s4", "u2", "s2"];
    let (true, Some(to)) = (w.has("sat"), w.one_of(&types)) else { return unsupported("") };
    if w.ty() != Some(Type::S32) {
        return unsupported("");
    }
    let Ok(bits) = to[1..].parse::<u32>() else { return unsupported("") };
    let flags = bits | if to.starts_with('s') { SIGNED } else { 0 };
    match (bits, w.ty()) {
        (16, None) => {
            d.alu_flags(i, lift2_flags(|a: i32, b: i32, f| pack(a, b, f)), Type::B32, &[Type::S32; 2], flags)
        }
        (2..=8, Some(Type::B32)) => {
            let run = lift3_flags(|a: i32, b: i32, c: u32, f| c << (2 * (f & WIDTH)) | pack(a, b, f));
            d.alu_flags(i, run, Type::B32, &[Type::S32, Type::S32, Type::B32], flags)
        }
        _ => invalid("cvt.pack takes .b32 with 8 bits or fewer"),
    }
}

const WIDTH: u32 = 31;
const SIGNED: u32 = 1 << 8;

fn pack(a: i32, b: i32, flags: u32) -> u32 {
    let bits = flags & WIDTH;
    let (low, high) =
        if flags & SIGNED != 0 { (-1 << (bits - 1), (1 << (bits - 1)) - 1) } else { (0, (1 << bits) - 1) };
    let one = |value: i32| value.clamp(low, high) as u32 & ((1 << bits) - 1);
    one(a) << bits | one(b)
}
