//! Pairs of 16-bit integers in one word.

use lightos_kernels::ptx::ast::{Instruction, Type};

use super::decode::{Decoded, Decoder, unsupported};
use super::lanes::lift2;
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
