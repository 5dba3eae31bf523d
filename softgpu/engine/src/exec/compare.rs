//! Comparison and selection: `setp`, `set`, `selp`, `slct`.

use lightos_kernels::ptx::ast::{Instruction, Operand, Type};

use super::alu_int::by_type;
use super::decode::{Bank, Decoded, Decoder, bank, invalid, operands, unsupported};
use super::float::flush;
use super::half_float;
use super::lanes::{lift1, lift2, lift3};
use super::op::{Handler, Op};
use super::words::{Words, is_float};

const COMPARISONS: [&str; 18] = [
    "eq", "ne", "lt", "le", "gt", "ge", "lo", "ls", "hi", "hs", "equ", "neu", "ltu", "leu", "gtu", "geu",
    "num", "nan",
];

pub fn decode<'a>(d: &mut Decoder<'a, '_>, i: &'a Instruction, w: &Words<'a>) -> Decoded {
    match i.opcode.as_str() {
        "selp" => {
            let Some(ty) = w.ty() else { return invalid("selp needs a type") };
            let run = match bank(ty)? {
                Bank::Word => lift3(|a: u32, b: u32, p: bool| if p { a } else { b }),
                Bank::Long => lift3(|a: u64, b: u64, p: bool| if p { a } else { b }),
                Bank::Predicate => lift3(|a: bool, b: bool, p: bool| if p { a } else { b }),
                Bank::Quad => return invalid("selp does not take 128-bit registers"),
            };
            d.alu(i, run, ty, &[ty, ty, Type::Pred])
        }
        "slct" => {
            let ftz = w.has("ftz");
            let (Some(ty), Some(by)) = (w.ty(), w.ty()) else { return invalid("slct needs two types") };
            let run = match (bank(ty)?, by) {
                (Bank::Word, Type::S32) => lift3(|a: u32, b: u32, c: i32| if c >= 0 { a } else { b }),
                (Bank::Long, Type::S32) => lift3(|a: u64, b: u64, c: i32| if c >= 0 { a } else { b }),
                (Bank::Word, _) if ftz => lift3(|a: u32, b: u32, c: f32| if flush(c) >= 0.0 { a } else { b }),
                (Bank::Word, _) => lift3(|a: u32, b: u32, c: f32| if c >= 0.0 { a } else { b }),
                (Bank::Long, _) if ftz => lift3(|a: u64, b: u64, c: f32| if flush(c) >= 0.0 { a } else { b }),
                (Bank::Long, _) => lift3(|a: u64, b: u64, c: f32| if c >= 0.0 { a } else { b }),
                _ => return invalid("slct does not take predicates"),
            };
            d.alu(i, run, ty, &[ty, ty, by])
        }
        opcode => set(d, i, w, opcode == "setp"),
    }
}

fn set<'a>(d: &mut Decoder<'a, '_>, i: &'a Instruction, w: &Words<'a>, predicate: bool) -> Decoded {
    let Some(comparison) = w.one_of(&COMPARISONS) else { return invalid("a comparison operator is missing") };
    let combine = w.one_of(&["and", "or", "xor"]);
    let ftz = w.has("ftz");
    let result = if predicate { Type::Pred } else { w.ty().unwrap_or(Type::U32) };
    let Some(ty) = w.ty() else { return invalid("a comparison needs a type") };
    operands(i, if combine.is_some() { 4 } else { 3 })?;
    if matches!(ty, Type::F16x2 | Type::BF16x2) {
        return half_float::compare_pairs(d, i, comparison, combine, ftz, result, ty);
    }
    let run = handler(comparison, ty, ftz)?;
    let a = d.source(&i.operands[1], ty)?;
    let b = d.source(&i.operands[2], ty)?;
    let compared = d.register(Bank::Predicate).slot;
    let third = match i.operands.get(3) {
        Some(operand) => Some(d.source(operand, Type::Pred)?),
        None => None,
    };
    if predicate {
        return finish_predicate(d, &i.operands[0], Op { a, b, ..Op::new(run) }, combine, third);
    }
    d.emit(Op { dst: compared, a, b, ..Op::new(run) });
    let truth = match (combine, third) {
        (Some(combine), Some(third)) => {
            let dst = d.register(Bank::Predicate).slot;
            d.emit(Op { dst, a: compared, b: third, ..Op::new(combination(combine)) });
            dst
        }
        _ => compared,
    };
    let run = match result {
        Type::F32 => lift1(|p: bool| if p { 1.0f32 } else { 0.0 }),
        Type::U32 | Type::S32 => lift1(|p: bool| if p { u32::MAX } else { 0 }),
        Type::U16 | Type::S16 => lift1(|p: bool| if p { 0xffffu32 } else { 0 }),
        Type::F16 => lift1(|p: bool| if p { 0x3c00u32 } else { 0 }),
        Type::BF16 => lift1(|p: bool| if p { 0x3f80u32 } else { 0 }),
        _ => return unsupported("a result of this type"),
    };
    d.emit_to(Op { a: truth, ..Op::new(run) }, &i.operands[0], result)
}

/// Writes `p = (a op b) combined with c` and, for `p|q`, `q = !(a op b) combined with c`.
pub fn finish_predicate<'a>(
    d: &mut Decoder<'a, '_>,
    target: &'a Operand,
    compare: Op,
    combine: Option<&str>,
    third: Option<u32>,
) -> Decoded {
    let (p, q) = match target {
        Operand::Pair(p, q) => (&**p, Some(&**q)),
        other => (other, None),
    };
    let p = d.destination(p, Type::Pred)?;
    let q = match q {
        Some(q) => Some(d.destination(q, Type::Pred)?),
        None => None,
    };
    if combine.is_none() && q.is_none() {
        d.emit(Op { dst: p, ..compare });
        return Ok(());
    }
    // `c` may be the register that `p` or `q` names, so everything is computed before anything is written.
    let compared = d.register(Bank::Predicate).slot;
    let negated = d.register(Bank::Predicate).slot;
    d.emit(Op { dst: compared, ..compare });
    d.emit(Op { dst: negated, a: compared, ..Op::new(super::moves::not_predicate()) });
    let mut results = [compared, negated];
    if let (Some(combine), Some(third)) = (combine, third) {
        for result in &mut results {
            let dst = d.register(Bank::Predicate).slot;
            d.emit(Op { dst, a: *result, b: third, ..Op::new(combination(combine)) });
            *result = dst;
        }
    }
    let copy = lift1(|a: bool| a);
    d.emit(Op { dst: p, a: results[0], ..Op::new(copy) });
    if let Some(q) = q {
        d.emit(Op { dst: q, a: results[1], ..Op::new(copy) });
    }
    Ok(())
}

fn combination(name: &str) -> Handler {
    match name {
        "and" => lift2(|a: bool, b: bool| a & b),
        "or" => lift2(|a: bool, b: bool| a | b),
        _ => lift2(|a: bool, b: bool| a ^ b),
    }
}

/// The comparison as a handler with a predicate result. Plain operators are false on NaN (`ne` too); those that end in
/// `u` are true.
#[expect(
    clippy::neg_cmp_op_on_partial_ord,
    reason = "the negation is what makes the unordered forms true on NaN"
)]
fn handler(name: &str, ty: Type, ftz: bool) -> Decoded<Handler> {
    macro_rules! floats {
        ($t:ty, $via:expr) => {
            match name {
                "eq" => lift2(|a: $t, b: $t| $via(a) == $via(b)),
                "ne" => lift2(|a: $t, b: $t| $via(a) < $via(b) || $via(a) > $via(b)),
                "lt" => lift2(|a: $t, b: $t| $via(a) < $via(b)),
                "le" => lift2(|a: $t, b: $t| $via(a) <= $via(b)),
                "gt" => lift2(|a: $t, b: $t| $via(a) > $via(b)),
                "ge" => lift2(|a: $t, b: $t| $via(a) >= $via(b)),
                "equ" => lift2(|a: $t, b: $t| !($via(a) < $via(b) || $via(a) > $via(b))),
                "neu" => lift2(|a: $t, b: $t| $via(a) != $via(b)),
                "ltu" => lift2(|a: $t, b: $t| !($via(a) >= $via(b))),
                "leu" => lift2(|a: $t, b: $t| !($via(a) > $via(b))),
                "gtu" => lift2(|a: $t, b: $t| !($via(a) <= $via(b))),
                "geu" => lift2(|a: $t, b: $t| !($via(a) < $via(b))),
                "num" => lift2(|a: $t, b: $t| !$via(a).is_nan() && !$via(b).is_nan()),
                "nan" => lift2(|a: $t, b: $t| $via(a).is_nan() || $via(b).is_nan()),
                _ => return invalid("this comparison does not take floats"),
            }
        };
    }
    fn same<T>(value: T) -> T {
        value
    }
    Ok(match ty {
        Type::F32 if ftz => floats!(f32, flush),
        Type::F32 => floats!(f32, same),
        Type::F64 => floats!(f64, same),
        Type::F16 if ftz => floats!(half::f16, half_float::flush),
        Type::F16 => floats!(half::f16, f32::from),
        Type::BF16 => floats!(half::bf16, f32::from),
        _ if is_float(ty) => return unsupported("comparison of this type"),
        Type::Pred => return invalid("predicates are not compared"),
        _ => match name {
            "eq" => by_type!(ty, T => lift2(|a: T, b: T| a == b)),
            "ne" => by_type!(ty, T => lift2(|a: T, b: T| a != b)),
            "lt" | "lo" => by_type!(ty, T => lift2(|a: T, b: T| a < b)),
            "le" | "ls" => by_type!(ty, T => lift2(|a: T, b: T| a <= b)),
            "gt" | "hi" => by_type!(ty, T => lift2(|a: T, b: T| a > b)),
            "ge" | "hs" => by_type!(ty, T => lift2(|a: T, b: T| a >= b)),
            _ => return invalid("this comparison does not take integers"),
        },
    })
}
