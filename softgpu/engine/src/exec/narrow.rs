//! Narrow floating formats: f16, bf16, tf32, e4m3, e5m2.

use half::{bf16, f16};
use lightos_kernels::ptx::ast::Type;

use super::rounding::Rounding;

/// Nearest even; NaN is 0x7fff, as the hardware writes it.
#[inline(always)]
pub fn to_f16(a: f32) -> f16 {
    if a.is_nan() { f16::from_bits(0x7fff) } else { f16::from_f32(a) }
}

#[inline(always)]
pub fn to_bf16(a: f32) -> bf16 {
    if a.is_nan() { bf16::from_bits(0x7fff) } else { bf16::from_f32(a) }
}

/// What becomes of the bits that tf32 does not keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tie {
    Even,
    Away,
    Truncate,
}

/// The largest finite tf32, in the bits of an f32.
const TF32_MAX: u32 = 0x7f7f_e000;

/// 10 explicit mantissa bits, in the bits of an f32. `finite` clamps to the largest finite value.
pub fn to_tf32(a: f32, tie: Tie, finite: bool) -> u32 {
    let bits = a.to_bits();
    if a.is_nan() {
        return 0x7fff_ffff;
    }
    let up = match tie {
        Tie::Even => 0xfff + (bits >> 13 & 1),
        Tie::Away => 0x1000,
        Tie::Truncate => 0,
    };
    let rounded = if a.is_finite() { bits.wrapping_add(up) & !0x1fff } else { bits };
    if finite && rounded & 0x7fff_ffff > TF32_MAX { bits & 0x8000_0000 | TF32_MAX } else { rounded }
}

/// Exponent bits, mantissa bits.
fn shape(to: Type) -> (u32, u32) {
    match to {
        Type::F16 => (5, 10),
        Type::BF16 => (8, 7),
        Type::E4M3 => (4, 3),
        _ => (5, 2),
    }
}

/// Rounds an exact f64 to a narrow format and gives its bits. `mode` is a [`Rounding`] in flag form; `finite` clamps
/// overflow to the largest finite value (which e4m3, having no infinity, needs).
pub fn narrow_float(value: f64, to: Type, mode: u32, finite: bool) -> u32 {
    let (exponent_bits, mantissa_bits) = shape(to);
    let e4m3 = to == Type::E4M3;
    let width = exponent_bits + mantissa_bits;
    let sign = u32::from(value.is_sign_negative()) << width;
    let all = (1u32 << width) - 1;
    if value.is_nan() {
        return all;
    }
    let bias = (1i32 << (exponent_bits - 1)) - 1;
    let infinity = ((1u32 << exponent_bits) - 1) << mantissa_bits;
    let largest = if e4m3 { all - 1 } else { infinity - 1 };
    let overflow = |outwards: bool| {
        if !outwards || finite {
            sign | largest
        } else if e4m3 {
            sign | all
        } else {
            sign | infinity
        }
    };
    if value.is_infinite() {
        return overflow(true);
    }
    let magnitude = value.abs();
    let least = 1 - bias;
    let exponent =
        if magnitude == 0.0 { least } else { ((magnitude.to_bits() >> 52) as i32 - 1023).max(least) };
    // In units of the last place the value is exact: f64 has bits to spare.
    let scaled = magnitude * 2f64.powi(mantissa_bits as i32 - exponent);
    let negative = sign != 0;
    let units = match Rounding::of_flags(mode) {
        Rounding::Nearest => scaled.round_ties_even(),
        Rounding::Zero => scaled.trunc(),
        Rounding::Down => {
            if negative {
                scaled.ceil()
            } else {
                scaled.floor()
            }
        }
        Rounding::Up => {
            if negative {
                scaled.floor()
            } else {
                scaled.ceil()
            }
        }
    };
    let outwards = match Rounding::of_flags(mode) {
        Rounding::Nearest => true,
        Rounding::Zero => false,
        Rounding::Down => negative,
        Rounding::Up => !negative,
    };
    // Adding the units to the exponent field carries into it where they reach the next binade.
    let base = ((exponent - least) as u32) << mantissa_bits;
    let bits = if exponent > bias + 1 { u32::MAX } else { base + units as u32 };
    if bits > largest { overflow(outwards) } else { sign | bits }
}

/// The value of an 8-bit float.
pub fn from_fp8(byte: u8, from: Type) -> f32 {
    let (exponent_bits, mantissa_bits) = shape(from);
    let bias = (1i32 << (exponent_bits - 1)) - 1;
    let bits = u32::from(byte & 0x7f);
    let (exponent, mantissa) = (bits >> mantissa_bits, bits & ((1 << mantissa_bits) - 1));
    let top = (1 << exponent_bits) - 1;
    let magnitude =
        if from == Type::E4M3 && bits == 0x7f || from == Type::E5M2 && exponent == top && mantissa != 0 {
            f32::NAN
        } else if from == Type::E5M2 && exponent == top {
            f32::INFINITY
        } else if exponent == 0 {
            mantissa as f32 * 2f32.powi(1 - bias - mantissa_bits as i32)
        } else {
            (mantissa as f32 / (1 << mantissa_bits) as f32 + 1.0) * 2f32.powi(exponent as i32 - bias)
        };
    if byte & 0x80 != 0 { -magnitude } else { magnitude }
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};
    use lightos_kernels::ptx::ast::Type;

    use super::{from_fp8, narrow_float};

    #[test]
    fn nearest_agrees_with_the_half_crate() {
        for k in 0..200_000u32 {
            let value = f32::from_bits(k.wrapping_mul(0x9e37_79b9));
            if value.is_nan() {
                continue;
            }
            let exact = f64::from(value);
            assert_eq!(
                narrow_float(exact, Type::F16, 0, false),
                u32::from(f16::from_f32(value).to_bits()),
                "{value:e}"
            );
            assert_eq!(
                narrow_float(exact, Type::BF16, 0, false),
                u32::from(bf16::from_f32(value).to_bits()),
                "{value:e}"
            );
        }
    }

    #[test]
    fn fp8_values_survive_the_way_there_and_back() {
        for (ty, nans) in [(Type::E4M3, 0x7f..=0x7f), (Type::E5M2, 0x7d..=0x7f)] {
            for byte in 0..=255u8 {
                let value = from_fp8(byte, ty);
                if nans.contains(&(byte & 0x7f)) {
                    assert!(value.is_nan());
                } else {
                    assert_eq!(narrow_float(f64::from(value), ty, 0, false), u32::from(byte), "{value}");
                }
            }
        }
        assert_eq!(narrow_float(1e9, Type::E4M3, 0, true), 0x7e);
        assert_eq!(narrow_float(-1e9, Type::E5M2, 0, true), 0xfb);
    }
}
