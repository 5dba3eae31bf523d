//! Instructions over the lanes of a warp: shuffles, votes, matches, reductions.
//!
//! Each brings the lanes of its member mask together first (`Machine::gather`). The forms without `.sync` take the
//! lanes that are active.

use lightos_kernels::ptx::ast::{Instruction, Operand, Type};

use super::access::{Access, Touch};
use super::decode::{Bank, Decoded, Decoder, bank, invalid, operands, unsupported};
use super::float::{canonical, smaller};
use super::lanes::{LANES, Words as Lanes};
use super::op::{Flow, Machine, NONE, Op};
use super::words::Words;

const COLLECTIVE: Access = Access::of(Touch::Collective);

pub fn decode<'a>(d: &mut Decoder<'a, '_>, i: &'a Instruction, w: &Words<'a>) -> Decoded {
    let sync = w.has("sync");
    match i.opcode.as_str() {
        "shfl" => shuffle(d, i, w, sync),
        "vote" => vote(d, i, w, sync),
        "match" => matching(d, i, w),
        "redux" => reduction(d, i, w),
        "activemask" => {
            w.ty();
            operands(i, 1)?;
            d.emit_to(Op::new(active), &i.operands[0], Type::B32)
        }
        _ => {
            operands(i, 2)?;
            let (leader, elected) = targets(d, &i.operands[0], Type::B32)?;
            let members = d.source(&i.operands[1], Type::B32)?;
            d.emit(Op { dst: leader, b: elected, d: members, access: COLLECTIVE, ..Op::new(elect) });
            Ok(())
        }
    }
}

/// Destinations of `d|p`; a missing or sunk predicate is [`NONE`].
fn targets<'a>(d: &mut Decoder<'a, '_>, operand: &'a Operand, ty: Type) -> Decoded<(u32, u32)> {
    match operand {
        Operand::Pair(value, predicate) => {
            Ok((d.destination(value, ty)?, d.destination(predicate, Type::Pred)?))
        }
        value => Ok((d.destination(value, ty)?, NONE)),
    }
}

/// The lanes that execute `op` now, by the member masks in slot `op.d`. Lanes may name different groups: all of them come together.
fn gathered(m: &mut Machine<'_>, op: &Op, mask: u32) -> Result<u32, Flow> {
    if op.d == NONE {
        return Ok(mask);
    }
    let members = m.words(op.d);
    let named = (0..LANES).filter(|lane| mask >> lane & 1 != 0).fold(0, |all, lane| all | members[lane]);
    m.gather(mask, named, false)
}

/// The groups of `mask`: lanes that name the same members.
fn groups(m: &Machine<'_>, op: &Op, mask: u32) -> impl Iterator<Item = u32> + use<> {
    let members = if op.d == NONE { [0; LANES] } else { *m.words(op.d) };
    let mut left = mask;
    std::iter::from_fn(move || {
        let named = *members.get(left.trailing_zeros() as usize)?;
        let same = (0..LANES).filter(|&lane| members[lane] == named).fold(0, |same, lane| same | 1 << lane);
        let group = same & left;
        left &= !group;
        Some(group)
    })
}

macro_rules! gather {
    ($m:ident, $op:ident, $mask:ident) => {
        match gathered($m, $op, $mask) {
            Ok(mask) => mask,
            Err(flow) => return flow,
        }
    };
}

fn active(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
    m.set_words(op.dst, &[mask; LANES], mask);
    Flow::Next
}

fn elect(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
    let mask = gather!(m, op, mask);
    for group in groups(m, op, mask) {
        let leader = group.trailing_zeros();
        m.set_words(op.dst, &[leader; LANES], group);
        if op.b != NONE {
            m.set_predicate(op.b, 1 << leader, group);
        }
    }
    Flow::Next
}

fn shuffle<'a>(d: &mut Decoder<'a, '_>, i: &'a Instruction, w: &Words<'a>, sync: bool) -> Decoded {
    let modes = ["up", "down", "bfly", "idx"];
    let Some(mode) = w.one_of(&modes) else { return invalid("a shuffle needs a mode") };
    w.ty();
    operands(i, if sync { 5 } else { 4 })?;
    let (dst, predicate) = targets(d, &i.operands[0], Type::B32)?;
    let a = d.source(&i.operands[1], Type::B32)?;
    let b = d.source(&i.operands[2], Type::B32)?;
    let c = d.source(&i.operands[3], Type::B32)?;
    let members = if sync { d.source(&i.operands[4], Type::B32)? } else { NONE };
    let flags = modes.iter().position(|&known| known == mode).unwrap_or(0) as u32;
    d.emit(Op {
        dst,
        a,
        b,
        c,
        d: members,
        flags,
        extra: u64::from(predicate),
        access: COLLECTIVE,
        ..Op::new(shuffled)
    });
    Ok(())
}

/// Mode 0 to 3: up, down, bfly, idx. `extra` is the slot of the in-range predicate.
fn shuffled(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
    let mask = gather!(m, op, mask);
    let mut out: Lanes = [0; LANES];
    let mut in_range = 0;
    let (a, b, c) = (m.words(op.a), m.words(op.b), m.words(op.c));
    for lane in 0..LANES as u32 {
        let (shift, clamp) = (b[lane as usize] & 31, c[lane as usize] & 31);
        let segment = c[lane as usize] >> 8 & 31;
        let first = lane & segment;
        let last = first | clamp & !segment;
        let (source, valid) = match op.flags {
            0 => (lane.wrapping_sub(shift), lane as i32 - shift as i32 >= last as i32),
            1 => (lane + shift, lane + shift <= last),
            2 => (lane ^ shift, lane ^ shift <= last),
            _ => (first | shift & !segment, first | shift & !segment <= last),
        };
        let source = if valid { source & 31 } else { lane };
        in_range |= u32::from(valid) << lane;
        out[lane as usize] = a[source as usize];
    }
    m.set_words(op.dst, &out, mask);
    if op.extra as u32 != NONE {
        m.set_predicate(op.extra as u32, in_range, mask);
    }
    Flow::Next
}

fn vote<'a>(d: &mut Decoder<'a, '_>, i: &'a Instruction, w: &Words<'a>, sync: bool) -> Decoded {
    let modes = ["all", "any", "uni", "ballot"];
    let Some(mode) = w.one_of(&modes) else { return invalid("a vote needs a mode") };
    w.ty();
    operands(i, if sync { 3 } else { 2 })?;
    let flags = modes.iter().position(|&known| known == mode).unwrap_or(0) as u32;
    let dst = d.destination(&i.operands[0], if flags == 3 { Type::B32 } else { Type::Pred })?;
    let a = d.source(&i.operands[1], Type::Pred)?;
    let members = if sync { d.source(&i.operands[2], Type::B32)? } else { NONE };
    d.emit(Op { dst, a, d: members, flags, access: COLLECTIVE, ..Op::new(voted) });
    Ok(())
}

fn voted(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
    let mask = gather!(m, op, mask);
    let voters = m.predicate(op.a);
    for group in groups(m, op, mask) {
        let votes = voters & group;
        let truth = match op.flags {
            0 => votes == group,
            1 => votes != 0,
            2 => votes == 0 || votes == group,
            _ => {
                m.set_words(op.dst, &[votes; LANES], group);
                continue;
            }
        };
        m.set_predicate(op.dst, if truth { u32::MAX } else { 0 }, group);
    }
    Flow::Next
}

fn matching<'a>(d: &mut Decoder<'a, '_>, i: &'a Instruction, w: &Words<'a>) -> Decoded {
    let all = w.one_of(&["any", "all"]) == Some("all");
    let Some(ty @ (Type::B32 | Type::B64)) = w.ty() else { return invalid("match takes .b32 or .b64") };
    operands(i, 3)?;
    let (dst, predicate) = targets(d, &i.operands[0], Type::B32)?;
    let a = d.source(&i.operands[1], ty)?;
    let members = d.source(&i.operands[2], Type::B32)?;
    // Bit 0: all lanes must agree; bit 1: 64-bit values.
    let flags = u32::from(all) | u32::from(bank(ty)? == Bank::Long) << 1;
    d.emit(Op { dst, a, b: predicate, d: members, flags, access: COLLECTIVE, ..Op::new(matched) });
    Ok(())
}

fn matched(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
    let mask = gather!(m, op, mask);
    let values = if op.flags & 2 != 0 { *m.longs(op.a) } else { m.words(op.a).map(u64::from) };
    for group in groups(m, op, mask) {
        let mut out: Lanes = std::array::from_fn(|lane| {
            (0..LANES).filter(|&other| values[other] == values[lane]).fold(0, |bits, other| bits | 1 << other)
                & group
        });
        if op.flags & 1 != 0 {
            let agree = out[group.trailing_zeros() as usize] == group;
            out = [if agree { group } else { 0 }; LANES];
            if op.b != NONE {
                m.set_predicate(op.b, if agree { u32::MAX } else { 0 }, group);
            }
        }
        m.set_words(op.dst, &out, group);
    }
    Flow::Next
}

fn reduction<'a>(d: &mut Decoder<'a, '_>, i: &'a Instruction, w: &Words<'a>) -> Decoded {
    let names = ["add", "min", "max", "and", "or", "xor"];
    let Some(name) = w.one_of(&names) else { return invalid("redux needs an operation") };
    let (abs, nan) = (w.has("abs"), w.has("NaN"));
    let flags = match (names.iter().position(|&known| known == name).unwrap_or(0) as u32, w.ty()) {
        (flags @ (1 | 2), Some(Type::F32)) => {
            (flags + 7) | if abs { FLOAT_ABS } else { 0 } | if nan { FLOAT_NAN } else { 0 }
        }
        _ if abs || nan => return invalid(".abs and .NaN belong to .f32"),
        (flags @ (1 | 2), Some(Type::S32)) => flags + 5,
        (flags, Some(Type::U32 | Type::S32 | Type::B32)) => flags,
        _ => return unsupported("this reduction of this type"),
    };
    operands(i, 3)?;
    let a = d.source(&i.operands[1], Type::B32)?;
    let members = d.source(&i.operands[2], Type::B32)?;
    d.emit_to(Op { a, d: members, flags, access: COLLECTIVE, ..Op::new(reduced) }, &i.operands[0], Type::B32)
}

/// In the flags of a reduction: magnitudes are compared; a NaN wins.
const FLOAT_ABS: u32 = 1 << 8;
const FLOAT_NAN: u32 = 1 << 9;

/// `min` and `max` of f32: -0 is less than +0, and a NaN loses against a number unless it is to win.
fn extreme(a: u32, b: u32, flags: u32) -> u32 {
    let [a, b] = [a, b].map(f32::from_bits);
    let value = match flags & 15 {
        _ if flags & FLOAT_NAN != 0 && (a.is_nan() || b.is_nan()) => f32::NAN,
        8 => smaller(a, b),
        _ => -smaller(-a, -b),
    };
    canonical(value).to_bits()
}

fn reduced(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
    let mask = gather!(m, op, mask);
    let magnitude = if op.flags & FLOAT_ABS != 0 { 0x7fff_ffff } else { u32::MAX };
    let values = m.words(op.a).map(|value| value & magnitude);
    let combine = |a: u32, b: u32| match op.flags & 15 {
        0 => a.wrapping_add(b),
        1 => a.min(b),
        2 => a.max(b),
        3 => a & b,
        4 => a | b,
        5 => a ^ b,
        6 => (a as i32).min(b as i32) as u32,
        7 => (a as i32).max(b as i32) as u32,
        _ => extreme(a, b, op.flags),
    };
    for group in groups(m, op, mask) {
        let active = (0..LANES).filter(|lane| group >> lane & 1 != 0).map(|lane| values[lane]);
        let value = active.reduce(combine).unwrap_or(0);
        m.set_words(op.dst, &[value; LANES], group);
    }
    Flow::Next
}
