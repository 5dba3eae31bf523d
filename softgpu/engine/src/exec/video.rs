//! Video instructions: arithmetic on selected bytes and halves of words, one (`vadd`), two (`vadd2`) or four (`vadd4`) at
//! a time, with a second operation or a merge into the third operand. `vmad` is not carried.

use lightos_kernels::ptx::ast::{Instruction, Operand, Type};

use super::decode::{Bank, Decoded, Decoder, invalid, operands, unsupported};
use super::lanes::LANES;
use super::moves::lists;
use super::op::{Flow, Machine, Op};
use super::words::{Words, is_signed};

const OPERATIONS: [&str; 9] = ["add", "sub", "absdiff", "min", "max", "avrg", "set", "shl", "shr"];
const COMPARISONS: [&str; 6] = ["eq", "ne", "lt", "le", "gt", "ge"];
const SECOND: [&str; 3] = ["add", "min", "max"];
/// No second operation: the result is merged into the third operand.
const MERGE: u32 = 3;

/// A field of a word, or of two: start and width in bits.
type Field = [u32; 2];

/// One instruction, as it stands in the side table.
#[derive(Clone, Copy, Default)]
struct Video {
    operation: u32,
    comparison: u32,
    second: u32,
    signed: [bool; 3],
    saturates: bool,
    /// Shift amounts wrap instead of being clamped to 32.
    wraps: bool,
    elements: u32,
    /// Elements that the result holds.
    mask: u32,
    a: [Field; 4],
    b: [Field; 4],
    target: [Field; 4],
}

pub fn decode<'a>(d: &mut Decoder<'a, '_>, i: &'a Instruction, w: &Words<'a>) -> Decoded {
    let name = i.opcode.trim_start_matches('v');
    let (name, elements) = match name.as_bytes().last() {
        Some(b'2') => (&name[..name.len() - 1], 2),
        Some(b'4') => (&name[..name.len() - 1], 4),
        _ => (name, 1),
    };
    let Some(operation) = OPERATIONS.iter().position(|&known| known == name) else { return unsupported("") };
    let mut video = Video { operation: operation as u32, elements, second: MERGE, ..Video::default() };
    let result = if name == "set" { Some(Type::U32) } else { w.ty() };
    let (Some(result), Some(a), Some(b)) = (result, w.ty(), w.ty()) else {
        return invalid("a video instruction needs its types");
    };
    video.signed = [result, a, b].map(is_signed);
    if ![result, a, b].iter().all(|ty| matches!(ty, Type::U32 | Type::S32)) {
        return invalid("video instructions take .u32 and .s32");
    }
    if name == "set" {
        let Some(word) = w.one_of(&COMPARISONS) else { return invalid("a comparison operator is missing") };
        video.comparison = COMPARISONS.iter().position(|&known| known == word).unwrap_or(0) as u32;
    }
    video.saturates = w.has("sat");
    if matches!(name, "shl" | "shr") {
        video.wraps = w.one_of(&["wrap", "clamp"]) == Some("wrap");
    }
    let seconds = if elements == 1 { &SECOND[..] } else { &SECOND[..1] };
    if let Some(word) = w.one_of(seconds) {
        video.second = SECOND.iter().position(|&known| known == word).unwrap_or(0) as u32;
    }
    if i.operands.len() != 4 {
        operands(i, 3)?;
    }
    let (target, selector) = split(d, &i.operands[0])?;
    video.select_target(selector)?;
    let (a, selector) = source(d, &i.operands[1])?;
    video.a = fields(elements, selector, 0)?;
    let (b, selector) = source(d, &i.operands[2])?;
    video.b = fields(elements, selector, elements)?;
    // Without a third operand there is nothing to combine with.
    let c = match i.operands.get(3) {
        Some(operand) => d.source(operand, Type::B32)?,
        None if elements == 1 && selector_is_word(&video) && video.second == MERGE => d.constants().word(0),
        None => return operands(i, 4),
    };
    let list = d.list(video.pack());
    d.emit(Op { dst: target, a, b, c, d: list, ..Op::new(run) });
    Ok(())
}

fn selector_is_word(video: &Video) -> bool {
    video.target[0] == [0, 32]
}

/// The slot of `%r1.b0`, and the selector behind the dot.
fn split<'a>(d: &Decoder<'_, '_>, operand: &'a Operand) -> Decoded<(u32, Option<&'a str>)> {
    let Operand::Ident(name) = operand else { return invalid("expected a register") };
    let (name, selector) = match name.rsplit_once('.') {
        Some((name, selector)) => (name, Some(selector)),
        None => (name.as_str(), None),
    };
    match d.named_register(name)? {
        register if register.bank == Bank::Word => Ok((register.slot, selector)),
        _ => invalid(format!("'{name}' has the wrong size")),
    }
}

fn source<'a>(d: &mut Decoder<'a, '_>, operand: &'a Operand) -> Decoded<(u32, Option<&'a str>)> {
    match operand {
        Operand::Ident(_) => split(d, operand),
        other => Ok((d.source(other, Type::B32)?, None)),
    }
}

/// The digits of a selector (`b3210`, `h10`), the last one first, and the width of what they count in bits.
fn digits(selector: &str) -> Decoded<(Vec<u32>, u32)> {
    let width = match selector.as_bytes().first() {
        Some(b'b') => 8,
        Some(b'h') => 16,
        _ => return invalid(format!("selector '.{selector}'")),
    };
    let digits: Option<Vec<u32>> = selector[1..].chars().rev().map(|c| c.to_digit(8)).collect();
    match digits {
        Some(digits) if !digits.is_empty() => Ok((digits, width)),
        _ => invalid(format!("selector '.{selector}'")),
    }
}

/// What each element reads. Two and four elements select from both sources together, from `first` on where no selector
/// is given.
fn fields(elements: u32, selector: Option<&str>, first: u32) -> Decoded<[Field; 4]> {
    let width = 32 / elements;
    let (numbers, width, limit) = match selector {
        None => ((0..elements).map(|k| if elements == 1 { k } else { first + k }).collect(), width, u32::MAX),
        Some(selector) => {
            let (numbers, counted) = digits(selector)?;
            if elements != 1 && counted != width {
                return invalid(format!("selector '.{selector}'"));
            }
            (numbers, counted, if elements == 1 { 32 / counted } else { 64 / counted })
        }
    };
    if numbers.len() != elements as usize || numbers.iter().any(|&n| n >= limit) {
        return invalid("a selector names one part for each element");
    }
    let mut fields = [Field::default(); 4];
    for (field, number) in fields.iter_mut().zip(numbers) {
        *field = [number * width, width];
    }
    Ok(fields)
}

impl Video {
    fn select_target(&mut self, selector: Option<&str>) -> Decoded {
        let width = 32 / self.elements;
        self.mask = (1 << self.elements) - 1;
        self.target = std::array::from_fn(|k| [k as u32 * width % 32, width]);
        let Some(selector) = selector else { return Ok(()) };
        let (numbers, counted) = digits(selector)?;
        match (self.elements, numbers.as_slice()) {
            (1, &[number]) if number < 32 / counted => self.target[0] = [number * counted, counted],
            (2 | 4, numbers) if counted == width && numbers.iter().all(|&n| n < self.elements) => {
                self.mask = numbers.iter().fold(0, |mask, n| mask | 1 << n);
            }
            _ => return invalid(format!("selector '.{selector}'")),
        }
        Ok(())
    }

    fn pack(&self) -> Vec<u32> {
        let bits = [self.saturates, self.wraps, self.signed[0], self.signed[1], self.signed[2]];
        let bits = bits.iter().enumerate().fold(0, |all, (k, &bit)| all | u32::from(bit) << k);
        let head = [self.operation, self.comparison, self.second, bits, self.elements, self.mask];
        let fields = [self.a, self.b, self.target];
        head.into_iter().chain(fields.into_iter().flatten().flatten()).collect()
    }

    fn unpack(list: &[u32]) -> Video {
        let bit = |k: u32| list[3] >> k & 1 != 0;
        let fields = |at: usize| std::array::from_fn(|k| [list[at + 2 * k], list[at + 2 * k + 1]]);
        Video {
            operation: list[0],
            comparison: list[1],
            second: list[2],
            saturates: bit(0),
            wraps: bit(1),
            signed: [bit(2), bit(3), bit(4)],
            elements: list[4],
            mask: list[5],
            a: fields(6),
            b: fields(14),
            target: fields(22),
        }
    }

    /// The result of one lane.
    fn compute(&self, a: u32, b: u32, c: u32) -> u32 {
        let both = u64::from(b) << 32 | u64::from(a);
        let (from_a, from_b) = if self.elements == 1 { (u64::from(a), u64::from(b)) } else { (both, both) };
        let mut result = c;
        for k in (0..self.elements as usize).filter(|k| self.mask >> k & 1 != 0) {
            let value = self.element(
                extract(from_a, self.a[k], self.signed[1]),
                extract(from_b, self.b[k], self.signed[2]),
            );
            let [start, width] = self.target[k];
            let value = if self.saturates { clamp(value, width, self.signed[0]) } else { value };
            result = match (self.second, self.signed[0]) {
                (0, _) => result.wrapping_add(value as u32),
                (1, true) => (result as i32).min(value as i32) as u32,
                (1, false) => result.min(value as u32),
                (2, true) => (result as i32).max(value as i32) as u32,
                (2, false) => result.max(value as u32),
                _ => {
                    let field = u32::MAX >> (32 - width) << start;
                    result & !field | (value as u32) << start & field
                }
            };
        }
        result
    }

    fn element(&self, a: i128, b: i128) -> i128 {
        match OPERATIONS[self.operation as usize % OPERATIONS.len()] {
            "add" => a + b,
            "sub" => a - b,
            "absdiff" => (a - b).abs(),
            "min" => a.min(b),
            "max" => a.max(b),
            "avrg" => (a + b + i128::from(a + b >= 0)) >> 1,
            "set" => i128::from(match self.comparison {
                0 => a == b,
                1 => a != b,
                2 => a < b,
                3 => a <= b,
                4 => a > b,
                _ => a >= b,
            }),
            name => {
                let amount = if self.wraps { b & 31 } else { b.clamp(0, 32) };
                if name == "shl" { a << amount } else { a >> amount }
            }
        }
    }
}

fn extract(word: u64, [start, width]: Field, signed: bool) -> i128 {
    let value = (word >> (start & 63)) & (u64::MAX >> (64 - width));
    if signed { i128::from((value << (64 - width)) as i64 >> (64 - width)) } else { i128::from(value) }
}

fn clamp(value: i128, width: u32, signed: bool) -> i128 {
    match signed {
        true => value.clamp(-(1 << (width - 1)), (1 << (width - 1)) - 1),
        false => value.clamp(0, (1 << width) - 1),
    }
}

/// Entries of an instruction in the side table.
const ENTRIES: u32 = 30;

fn run(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
    let video = Video::unpack(lists(m, op.d, ENTRIES));
    let (a, b, c) = (m.words(op.a), m.words(op.b), m.words(op.c));
    let values: [u32; LANES] = std::array::from_fn(|lane| video.compute(a[lane], b[lane], c[lane]));
    m.set_words(op.dst, &values, mask);
    Flow::Next
}
