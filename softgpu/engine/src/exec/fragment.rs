//! The element types of matrices, down to single bits.

use half::{bf16, f16};
use lightos_kernels::ptx::ast::Type;

use super::narrow::{from_fp8, to_f16};
use super::words::Words;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    F16,
    BF16,
    TF32,
    F32,
    F64,
    S8,
    U8,
    S4,
    U4,
    B1,
    E4M3,
    E5M2,
    S32,
}

/// Names in the order of the enum.
const NAMES: [&str; 13] =
    ["f16", "bf16", "tf32", "f32", "f64", "s8", "u8", "s4", "u4", "b1", "e4m3", "e5m2", "s32"];

impl Element {
    const ALL: [Element; 13] = [
        Element::F16,
        Element::BF16,
        Element::TF32,
        Element::F32,
        Element::F64,
        Element::S8,
        Element::U8,
        Element::S4,
        Element::U4,
        Element::B1,
        Element::E4M3,
        Element::E5M2,
        Element::S32,
    ];

    /// Takes the first word that names an element type.
    pub fn take(w: &Words<'_>) -> Option<Element> {
        let word = w.one_of(&NAMES)?;
        NAMES.iter().position(|&name| name == word).map(|index| Element::ALL[index])
    }

    pub fn code(self) -> u32 {
        self as u32
    }

    pub fn of_code(code: u32) -> Element {
        Element::ALL[code as usize % Element::ALL.len()]
    }

    /// Bits of one element in a register or in memory.
    pub fn bits(self) -> u32 {
        match self {
            Element::F64 => 64,
            Element::TF32 | Element::F32 | Element::S32 => 32,
            Element::F16 | Element::BF16 => 16,
            Element::S4 | Element::U4 => 4,
            Element::B1 => 1,
            _ => 8,
        }
    }

    /// The registers that hold such elements.
    pub fn register(self) -> Type {
        if self == Element::F64 { Type::B64 } else { Type::B32 }
    }

    /// Whether sums are 32-bit integers.
    pub fn integer(self) -> bool {
        matches!(self, Element::S8 | Element::U8 | Element::S4 | Element::U4 | Element::B1)
    }

    /// Whether A of this type goes with B of the other.
    pub fn pairs_with(self, other: Element) -> bool {
        let family = |e: Element| match e {
            Element::S8 | Element::U8 => 1,
            Element::S4 | Element::U4 => 2,
            Element::E4M3 | Element::E5M2 => 3,
            other => 4 + other.code(),
        };
        family(self) == family(other)
    }

    /// The element in the low bits of `bits`, exactly.
    pub fn value(self, bits: u64) -> f64 {
        let word = bits as u32;
        match self {
            Element::F16 => f16::from_bits(word as u16).to_f64(),
            Element::BF16 => bf16::from_bits(word as u16).to_f64(),
            Element::TF32 => f64::from(f32::from_bits(word & !0x1fff)),
            Element::F32 => f64::from(f32::from_bits(word)),
            Element::F64 => f64::from_bits(bits),
            Element::S8 => f64::from(word as i8),
            Element::U8 => f64::from(word as u8),
            Element::S4 => f64::from((word << 28) as i32 >> 28),
            Element::U4 => f64::from(word & 15),
            Element::B1 => f64::from(word & 1),
            Element::E4M3 => f64::from(from_fp8(word as u8, Type::E4M3)),
            Element::E5M2 => f64::from(from_fp8(word as u8, Type::E5M2)),
            Element::S32 => f64::from(word as i32),
        }
    }
}

/// How an element of A meets one of B.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Product {
    Times,
    /// Single bits that differ.
    Xor,
}

impl Product {
    /// Takes `.xor.popc` or `.and.popc`. The conjunction of bits is their product.
    pub fn take(w: &Words<'_>, single_bits: bool) -> Option<Product> {
        match (w.one_of(&["xor", "and"]), single_bits) {
            (None, false) => Some(Product::Times),
            (Some(name), true) if w.has("popc") => {
                Some(if name == "xor" { Product::Xor } else { Product::Times })
            }
            _ => None,
        }
    }

    pub fn of(self, a: f64, b: f64) -> f64 {
        match self {
            Product::Times => a * b,
            Product::Xor => (a - b).abs(),
        }
    }
}

/// The sum of products `sum` added to accumulator `start` of type `from`, as a result of type `to`. Integers wrap, or
/// saturate.
pub fn accumulate(start: u64, from: Element, sum: f64, to: Element, saturates: bool) -> u64 {
    match to {
        Element::S32 => {
            let exact = i64::from(start as i32) + sum as i64;
            let clamped = exact.clamp(i32::MIN.into(), i32::MAX.into());
            u64::from(if saturates { clamped as u32 } else { exact as u32 })
        }
        Element::F64 => (from.value(start) + sum).to_bits(),
        Element::F16 => u64::from(to_f16((from.value(start) + sum) as f32).to_bits()),
        _ => u64::from(((from.value(start) + sum) as f32).to_bits()),
    }
}
