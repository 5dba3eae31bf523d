//! Logic, shifts, bit fields, counting, byte permutation and the small dot products.

use lightos_kernels::ptx::ast::{Instruction, Operand, Type};

use super::alu_int::by_type;
use super::decode::{Decoded, Decoder, invalid, operands, unsupported};
use super::lanes::{lift1, lift2, lift2_flags, lift3, lift3_flags, lift4};
use super::op::Op;
use super::words::{Words, is_signed};

pub fn decode<'a>(d: &mut Decoder<'a, '_>, i: &'a Instruction, w: &Words<'a>) -> Decoded {
    match i.opcode.as_str() {
        "and" | "or" | "xor" | "not" | "cnot" => logic(d, i, w),
        "shl" | "shr" | "shf" => shift(d, i, w),
        "lop3" => lop3(d, i, w),
        "prmt" => permute(d, i, w),
        "dp4a" | "dp2a" => dot(d, i, w),
        _ => fields(d, i, w),
    }
}

fn logic<'a>(d: &mut Decoder<'a, '_>, i: &'a Instruction, w: &Words<'a>) -> Decoded {
    let Some(ty) = w.ty() else { return invalid("the instruction needs a type") };
    let opcode = i.opcode.as_str();
    if ty == Type::Pred {
        let run = match opcode {
            "and" => lift2(|a: bool, b: bool| a & b),
            "or" => lift2(|a: bool, b: bool| a | b),
            "xor" => lift2(|a: bool, b: bool| a ^ b),
            "not" => return d.alu(i, lift1(|a: bool| !a), ty, &[ty]),
            _ => return invalid("this operation does not take predicates"),
        };
        return d.alu(i, run, ty, &[ty; 2]);
    }
    let run = match opcode {
        "and" => by_type!(ty, T => lift2(|a: T, b: T| a & b)),
        "or" => by_type!(ty, T => lift2(|a: T, b: T| a | b)),
        "xor" => by_type!(ty, T => lift2(|a: T, b: T| a ^ b)),
        "not" => return d.alu(i, by_type!(ty, T => lift1(|a: T| !a)), ty, &[ty]),
        _ => return d.alu(i, by_type!(ty, T => lift1(|a: T| (a == 0) as T)), ty, &[ty]),
    };
    d.alu(i, run, ty, &[ty; 2])
}

/// Shift amounts beyond the width shift everything out.
fn shift<'a>(d: &mut Decoder<'a, '_>, i: &'a Instruction, w: &Words<'a>) -> Decoded {
    if i.opcode == "shf" {
        let left = w.one_of(&["l", "r"]) == Some("l");
        let wrap = w.one_of(&["wrap", "clamp"]) == Some("wrap");
        w.ty();
        fn both(a: u32, b: u32) -> u64 {
            u64::from(b) << 32 | u64::from(a)
        }
        let run = match (left, wrap) {
            (true, true) => lift3(|a: u32, b: u32, c: u32| (both(a, b) << (c & 31) >> 32) as u32),
            (true, false) => lift3(|a: u32, b: u32, c: u32| (both(a, b) << c.min(32) >> 32) as u32),
            (false, true) => lift3(|a: u32, b: u32, c: u32| (both(a, b) >> (c & 31)) as u32),
            (false, false) => lift3(|a: u32, b: u32, c: u32| (both(a, b) >> c.min(32)) as u32),
        };
        return d.alu(i, run, Type::B32, &[Type::B32, Type::B32, Type::U32]);
    }
    let Some(ty) = w.ty() else { return invalid("the instruction needs a type") };
    let run = if i.opcode == "shl" {
        by_type!(ty, T => lift2(|a: T, b: u32| if b < T::BITS { a << b } else { 0 }))
    } else if is_signed(ty) {
        by_type!(ty, T => lift2(|a: T, b: u32| a >> b.min(T::BITS - 1)))
    } else {
        by_type!(ty, T => lift2(|a: T, b: u32| if b < T::BITS { a >> b } else { 0 }))
    };
    d.alu(i, run, ty, &[ty, Type::U32])
}

fn lop3<'a>(d: &mut Decoder<'a, '_>, i: &'a Instruction, w: &Words<'a>) -> Decoded {
    let combine = w.one_of(&["and", "or"]);
    w.ty();
    operands(i, if combine.is_some() { 6 } else { 5 })?;
    let table = d.immediate(&i.operands[4])? as u32;
    let run = match table & 0xff {
        0x80 => lift3(|a: u32, b: u32, c: u32| a & b & c),
        0xfe => lift3(|a: u32, b: u32, c: u32| a | b | c),
        0x96 => lift3(|a: u32, b: u32, c: u32| a ^ b ^ c),
        0xea => lift3(|a: u32, b: u32, c: u32| (a & b) | c),
        _ => lift3_flags(lookup3),
    };
    let mut op = Op { flags: table, ..Op::new(run) };
    op.a = d.source(&i.operands[1], Type::B32)?;
    op.b = d.source(&i.operands[2], Type::B32)?;
    op.c = d.source(&i.operands[3], Type::B32)?;
    let Some(combine) = combine else { return d.emit_to(op, &i.operands[0], Type::B32) };
    // `d|p`: p is (d != 0) combined with the last operand.
    let Operand::Pair(word, truth) = &i.operands[0] else {
        return invalid("expected a word and a predicate");
    };
    let (word, truth) = (d.destination(word, Type::B32)?, d.destination(truth, Type::Pred)?);
    let other = d.source(&i.operands[5], Type::Pred)?;
    d.emit(Op { dst: word, ..op });
    let run = match combine {
        "and" => lift2(|v: u32, q: bool| (v != 0) & q),
        _ => lift2(|v: u32, q: bool| (v != 0) | q),
    };
    d.emit(Op { dst: truth, a: word, b: other, ..Op::new(run) });
    Ok(())
}

fn lookup3(a: u32, b: u32, c: u32, table: u32) -> u32 {
    let term = |index: u32, value: u32| if table >> index & 1 != 0 { value } else { 0 };
    term(0, !a & !b & !c)
        | term(1, !a & !b & c)
        | term(2, !a & b & !c)
        | term(3, !a & b & c)
        | term(4, a & !b & !c)
        | term(5, a & !b & c)
        | term(6, a & b & !c)
        | term(7, a & b & c)
}

fn permute<'a>(d: &mut Decoder<'a, '_>, i: &'a Instruction, w: &Words<'a>) -> Decoded {
    w.ty();
    let modes = ["f4e", "b4e", "rc8", "ecl", "ecr", "rc16"];
    let mode = w.one_of(&modes).and_then(|m| modes.iter().position(|&k| k == m)).map_or(0, |m| m as u32 + 1);
    d.alu_flags(i, lift3_flags(bytes_permuted), Type::B32, &[Type::B32, Type::B32, Type::B32], mode)
}

/// `mode` 0 takes four selector nibbles (bit 3 replicates the sign); 1 to 6 are f4e, b4e, rc8, ecl, ecr, rc16.
fn bytes_permuted(a: u32, b: u32, selector: u32, mode: u32) -> u32 {
    let bytes = (u64::from(b) << 32 | u64::from(a)).to_le_bytes();
    let s = selector & 3;
    let pick = |k: u32| -> u8 {
        let index = match mode {
            0 => {
                let nibble = selector >> (k * 4) & 15;
                let byte = bytes[(nibble & 7) as usize];
                return if nibble & 8 != 0 { 0u8.wrapping_sub(byte >> 7) } else { byte };
            }
            1 => s + k,
            2 => (s + 8 - k) & 7,
            3 => s,
            4 => s.max(k),
            5 => s.min(k),
            _ => (s & 1) * 2 + (k & 1),
        };
        bytes[(index & 7) as usize]
    };
    u32::from_le_bytes([pick(0), pick(1), pick(2), pick(3)])
}

fn dot<'a>(d: &mut Decoder<'a, '_>, i: &'a Instruction, w: &Words<'a>) -> Decoded {
    let high = w.one_of(&["lo", "hi"]) == Some("hi");
    let (Some(a), Some(b)) = (w.ty(), w.ty()) else { return invalid("a dot product needs two types") };
    // Bit 0: a is signed, bit 1: b is signed, bit 2: the upper half of b.
    let flags = u32::from(is_signed(a)) | u32::from(is_signed(b)) << 1 | u32::from(high) << 2;
    let run = if i.opcode == "dp4a" { lift3_flags(dot4) } else { lift3_flags(dot2) };
    d.alu_flags(i, run, Type::B32, &[Type::B32; 3], flags)
}

fn extended(value: u32, bits: u32, signed: bool) -> i32 {
    let shift = 32 - bits;
    if signed { ((value << shift) as i32) >> shift } else { (value << shift >> shift) as i32 }
}

fn dot4(a: u32, b: u32, c: u32, flags: u32) -> u32 {
    (0..4).fold(c, |sum, k| {
        let (x, y) = (extended(a >> (8 * k), 8, flags & 1 != 0), extended(b >> (8 * k), 8, flags & 2 != 0));
        sum.wrapping_add(x.wrapping_mul(y) as u32)
    })
}

fn dot2(a: u32, b: u32, c: u32, flags: u32) -> u32 {
    let b = if flags & 4 != 0 { b >> 16 } else { b };
    (0..2).fold(c, |sum, k| {
        let (x, y) = (extended(a >> (16 * k), 16, flags & 1 != 0), extended(b >> (8 * k), 8, flags & 2 != 0));
        sum.wrapping_add(x.wrapping_mul(y) as u32)
    })
}

fn fields<'a>(d: &mut Decoder<'a, '_>, i: &'a Instruction, w: &Words<'a>) -> Decoded {
    let u32_ = Type::U32;
    let opcode = i.opcode.as_str();
    if opcode == "bmsk" {
        let wrap = w.one_of(&["clamp", "wrap"]) == Some("wrap");
        w.ty();
        let run = lift2_flags(|a: u32, b: u32, wrap: u32| {
            let (start, width) = if wrap != 0 { (a & 31, b & 31) } else { (a.min(32), b.min(32)) };
            (((1u64 << width) - 1) << start) as u32
        });
        return d.alu_flags(i, run, Type::B32, &[u32_; 2], u32::from(wrap));
    }
    if opcode == "szext" {
        let wrap = w.one_of(&["clamp", "wrap"]) == Some("wrap");
        let Some(ty) = w.ty() else { return invalid("szext needs a type") };
        let run = lift2_flags(|a: u32, b: u32, flags: u32| {
            let bits = if flags & 1 != 0 { b & 31 } else { b.min(32) };
            if bits == 0 { 0 } else { extended(a, bits, flags & 2 != 0) as u32 }
        });
        return d.alu_flags(i, run, ty, &[ty, u32_], u32::from(wrap) | u32::from(is_signed(ty)) << 1);
    }
    let shiftamt = opcode == "bfind" && w.has("shiftamt");
    let Some(ty) = w.ty() else { return invalid("the instruction needs a type") };
    match (opcode, ty) {
        ("popc", Type::B32) => d.alu(i, lift1(|a: u32| a.count_ones()), u32_, &[ty]),
        ("popc", Type::B64) => d.alu(i, lift1(|a: u64| a.count_ones()), u32_, &[ty]),
        ("clz", Type::B32) => d.alu(i, lift1(|a: u32| a.leading_zeros()), u32_, &[ty]),
        ("clz", Type::B64) => d.alu(i, lift1(|a: u64| a.leading_zeros()), u32_, &[ty]),
        ("brev", Type::B32) => d.alu(i, lift1(|a: u32| a.reverse_bits()), ty, &[ty]),
        ("brev", Type::B64) => d.alu(i, lift1(|a: u64| a.reverse_bits()), ty, &[ty]),
        ("bfind", _) => {
            // The most significant bit that differs from the sign; all ones where there is none.
            fn found(value: u64, bits: u32, shiftamt: bool) -> u32 {
                match value {
                    0 => u32::MAX,
                    _ if shiftamt => value.leading_zeros() - (64 - bits),
                    _ => 63 - value.leading_zeros(),
                }
            }
            let run = match (ty, shiftamt) {
                (Type::U32, false) => lift1(|a: u32| found(a.into(), 32, false)),
                (Type::U32, true) => lift1(|a: u32| found(a.into(), 32, true)),
                (Type::S32, false) => lift1(|a: i32| found(((a ^ a >> 31) as u32).into(), 32, false)),
                (Type::S32, true) => lift1(|a: i32| found(((a ^ a >> 31) as u32).into(), 32, true)),
                (Type::U64, false) => lift1(|a: u64| found(a, 64, false)),
                (Type::U64, true) => lift1(|a: u64| found(a, 64, true)),
                (Type::S64, false) => lift1(|a: i64| found((a ^ a >> 63) as u64, 64, false)),
                (Type::S64, true) => lift1(|a: i64| found((a ^ a >> 63) as u64, 64, true)),
                _ => return invalid("bfind takes 32- or 64-bit integers"),
            };
            d.alu(i, run, u32_, &[ty])
        }
        ("fns", Type::B32) => d.alu(i, lift3(nth_set), ty, &[ty, ty, Type::S32]),
        ("bfe", _) => {
            let sources = [ty, u32_, u32_];
            let run = match ty {
                Type::U32 => lift3(|a: u32, b: u32, c: u32| field(a.into(), b, c, 32, false) as u32),
                Type::S32 => lift3(|a: u32, b: u32, c: u32| field(a.into(), b, c, 32, true) as u32),
                Type::U64 => lift3(|a: u64, b: u32, c: u32| field(a, b, c, 64, false)),
                Type::S64 => lift3(|a: u64, b: u32, c: u32| field(a, b, c, 64, true)),
                _ => return invalid("bfe takes 32- or 64-bit integers"),
            };
            d.alu(i, run, ty, &sources)
        }
        ("bfi", Type::B32) => {
            let run = lift4(|a: u32, b: u32, c: u32, e: u32| insert(a.into(), b.into(), c, e, 32) as u32);
            d.alu(i, run, ty, &[ty, ty, u32_, u32_])
        }
        ("bfi", Type::B64) => {
            let run = lift4(|a: u64, b: u64, c: u32, e: u32| insert(a, b, c, e, 64));
            d.alu(i, run, ty, &[ty, ty, u32_, u32_])
        }
        _ => unsupported("for this type"),
    }
}

/// Position of the `n`th set bit from `base`, upwards or downwards.
fn nth_set(mask: u32, base: u32, n: i32) -> u32 {
    let base = base & 31;
    if n == 0 {
        return if mask >> base & 1 != 0 { base } else { u32::MAX };
    }
    let mut left = n.unsigned_abs();
    let mut at = base as i32;
    while (0..32).contains(&at) {
        if mask >> at & 1 != 0 {
            left -= 1;
            if left == 0 {
                return at as u32;
            }
        }
        at += n.signum();
    }
    u32::MAX
}

/// `length` bits of `value` from `start`; signed, the bits beyond repeat the field's last, or the value's sign.
fn field(value: u64, start: u32, length: u32, width: u32, signed: bool) -> u64 {
    let (start, length) = (start & 255, length & 255);
    if length == 0 {
        return 0;
    }
    let last = (start + length - 1).min(width - 1);
    let sign = signed && value >> last & 1 != 0;
    let shifted = if start < width { value >> start } else { 0 };
    let taken = (width.saturating_sub(start)).min(length);
    let keep = if taken >= 64 { u64::MAX } else { (1 << taken) - 1 };
    let bits = shifted & keep;
    if sign { bits | !keep } else { bits }
}

fn insert(a: u64, b: u64, start: u32, length: u32, width: u32) -> u64 {
    let (start, length) = (start & 255, length & 255);
    if start >= width || length == 0 {
        return b;
    }
    let keep = if length >= 64 { u64::MAX } else { (1 << length) - 1 };
    b & !(keep << start) | (a & keep) << start
}
