//! Arithmetic of constant expressions: ISA "Integer Constant Expression Evaluation". Integers are 64 bits and wrap; an
//! operation is unsigned as soon as one side is; comparisons and logic give a signed 0 or 1.

use super::ast::Constant;
use super::error::ParseErrorKind;

type Result = std::result::Result<Constant, ParseErrorKind>;

fn int(value: u64, unsigned: bool) -> Constant {
    Constant::Int { value, unsigned }
}

fn float(value: f64) -> Constant {
    Constant::F64(value.to_bits())
}

/// How tightly a binary operator binds; `None` for anything else.
pub(super) fn precedence(operator: &str) -> Option<u8> {
    Some(match operator {
        "*" | "/" | "%" => 10,
        "+" | "-" => 9,
        "<<" | ">>" => 8,
        "<" | ">" | "<=" | ">=" => 7,
        "==" | "!=" => 6,
        "&" => 5,
        "^" => 4,
        "|" => 3,
        "&&" => 2,
        "||" => 1,
        _ => return None,
    })
}

pub(super) fn unary(operator: &str, operand: Constant) -> Result {
    match (operator, operand) {
        ("+", _) => Ok(operand),
        ("-", Constant::Int { value, unsigned }) => Ok(int(value.wrapping_neg(), unsigned)),
        ("~", Constant::Int { value, unsigned }) => Ok(int(!value, unsigned)),
        ("!", Constant::Int { value, .. }) => Ok(int(u64::from(value == 0), false)),
        ("-", Constant::F64(bits)) => Ok(float(-f64::from_bits(bits))),
        // `0f` literals stand for exact bits and take part in no expression.
        _ => Err(ParseErrorKind::FloatOperator),
    }
}

/// `.s64` and `.u64` casts.
pub(super) fn cast(unsigned: bool, operand: Constant) -> Result {
    match operand {
        Constant::Int { value, .. } => Ok(int(value, unsigned)),
        Constant::F64(bits) if unsigned => Ok(int(f64::from_bits(bits) as u64, true)),
        Constant::F64(bits) => Ok(int(f64::from_bits(bits) as i64 as u64, false)),
        Constant::F32(_) => Err(ParseErrorKind::FloatOperator),
    }
}

pub(super) fn binary(operator: &str, left: Constant, right: Constant) -> Result {
    match (left, right) {
        (Constant::Int { value: a, unsigned: left }, Constant::Int { value: b, unsigned: right }) => {
            integers(operator, (a, left), (b, right))
        }
        (Constant::F64(a), Constant::F64(b)) => floats(operator, f64::from_bits(a), f64::from_bits(b)),
        _ => Err(ParseErrorKind::FloatOperator),
    }
}

fn integers(operator: &str, (a, a_unsigned): (u64, bool), (b, b_unsigned): (u64, bool)) -> Result {
    let unsigned = a_unsigned || b_unsigned;
    let (sa, sb) = (a as i64, b as i64);
    let order = if unsigned { a.cmp(&b) } else { sa.cmp(&sb) };
    let truth = |value: bool| Ok(int(u64::from(value), false));
    let value = match operator {
        "+" => a.wrapping_add(b),
        "-" => a.wrapping_sub(b),
        "*" => a.wrapping_mul(b),
        "/" | "%" if b == 0 => return Err(ParseErrorKind::DivisionByZero),
        "/" if unsigned => a / b,
        "/" => sa.wrapping_div(sb) as u64,
        "%" if unsigned => a % b,
        "%" => sa.wrapping_rem(sb) as u64,
        "<<" => return Ok(int(shift(b).map_or(0, |by| a << by), a_unsigned)),
        ">>" if a_unsigned => return Ok(int(shift(b).map_or(0, |by| a >> by), true)),
        ">>" => return Ok(int((sa >> shift(b).unwrap_or(63)) as u64, false)),
        "&" => a & b,
        "^" => a ^ b,
        "|" => a | b,
        "<" => return truth(order.is_lt()),
        ">" => return truth(order.is_gt()),
        "<=" => return truth(order.is_le()),
        ">=" => return truth(order.is_ge()),
        "==" => return truth(a == b),
        "!=" => return truth(a != b),
        "&&" => return truth(a != 0 && b != 0),
        _ => return truth(a != 0 || b != 0),
    };
    Ok(int(value, unsigned))
}

fn shift(by: u64) -> Option<u32> {
    u32::try_from(by).ok().filter(|by| *by < u64::BITS)
}

fn floats(operator: &str, a: f64, b: f64) -> Result {
    let truth = |value: bool| Ok(int(u64::from(value), false));
    match operator {
        "+" => Ok(float(a + b)),
        "-" => Ok(float(a - b)),
        "*" => Ok(float(a * b)),
        "/" => Ok(float(a / b)),
        "<" => truth(a < b),
        ">" => truth(a > b),
        "<=" => truth(a <= b),
        ">=" => truth(a >= b),
        "==" => truth(a == b),
        "!=" => truth(a != b),
        _ => Err(ParseErrorKind::FloatOperator),
    }
}
