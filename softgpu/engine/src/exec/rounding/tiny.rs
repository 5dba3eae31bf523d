//! Directed rounding of results so small that their residuals would underflow: the operation is done on operands scaled
//! into the middle of the range, where it is exact up to the residual, and the result scaled back with one rounding.

use super::{Rounding, two_sum};

/// Below this, residuals of products may underflow.
const SMALL: f64 = f64::from_bits((1023 - 900) << 52);
/// How far sums lift their terms.
const LIFT: i32 = 900;

/// 2 to the `exponent`, which is that of a normal number.
fn power(exponent: i32) -> f64 {
    f64::from_bits(((1023 + exponent) as u64) << 52)
}

/// A finite number other than zero as a factor of magnitude 1 to 2, and a power of two.
fn split(a: f64) -> (f64, i32) {
    let (lifted, lift) = if a.is_normal() { (a, 0) } else { (a * power(200), 200) };
    let exponent = (lifted.to_bits() >> 52 & 0x7ff) as i32 - 1023;
    (f64::from_bits(lifted.to_bits() & !(0x7ff << 52) | 1023 << 52), exponent - lift)
}

fn small(a: f64) -> bool {
    a.abs() < SMALL
}

fn plain(a: f64) -> bool {
    a.is_finite() && a != 0.0
}

impl Rounding {
    /// `(nearest + residual) * 2^exponent`, where `nearest` is of ordinary magnitude.
    fn scaled(self, nearest: f64, residual: f64, exponent: i32) -> f64 {
        // Below the least subnormal only the sign counts.
        let exponent = exponent.max(-1200);
        let down = |a: f64| a * power(exponent / 2) * power(exponent - exponent / 2);
        let rounded = self.adjust64(nearest, residual);
        if split(rounded).1 + exponent >= -1022 {
            return down(rounded);
        }
        // Rounded to odd, the value keeps on which side of every coarser number it lies.
        let towards_zero = Rounding::Zero.adjust64(nearest, residual);
        let odd = f64::from_bits(towards_zero.to_bits() | u64::from(residual != 0.0));
        // The first step down is exact, the second rounds.
        let coarse = down(odd);
        let back = coarse * power(-(exponent / 2)) * power(exponent / 2 - exponent);
        self.adjust64(coarse, odd - back)
    }

    pub(super) fn small_product(self, a: f64, b: f64) -> Option<f64> {
        if !plain(a) || !plain(b) || !small(a * b) {
            return None;
        }
        let ((a, ea), (b, eb)) = (split(a), split(b));
        let product = a * b;
        Some(self.scaled(product, a.mul_add(b, -product), ea + eb))
    }

    pub(super) fn small_quotient(self, a: f64, b: f64) -> Option<f64> {
        if !plain(a) || !plain(b) || !small(a / b) && !small(a) {
            return None;
        }
        let ((a, ea), (b, eb)) = (split(a), split(b));
        let quotient = a / b;
        let remainder = (-quotient).mul_add(b, a);
        let residual = if b < 0.0 { -remainder } else { remainder };
        match ea - eb {
            down if down < -800 => Some(self.scaled(quotient, residual, down)),
            up if up > 1000 => None,
            near => Some(self.adjust64(quotient, residual) * power(near / 2) * power(near - near / 2)),
        }
    }

    pub(super) fn small_sum(self, a: f64, b: f64, c: f64) -> Option<f64> {
        if !plain(a) || !plain(b) || !c.is_finite() || !small(a * b) {
            return None;
        }
        if c == 0.0 {
            return Some(self.small_product(a, b).unwrap_or(0.0));
        }
        let ((a, ea), (b, eb)) = (split(a), split(b));
        if c.abs() > power(-800) {
            return Some(self.adjust64(c, a * b));
        }
        let c = c * power(LIFT);
        // A product below the lifted term's last place counts by its sign alone.
        let b = b * power((ea + eb + LIFT).clamp(-700, LIFT));
        let nearest = a.mul_add(b, c);
        let product = a * b;
        let (sum, sum_error) = two_sum(product, c);
        let (errors, rest) = two_sum(a.mul_add(b, -product), sum_error);
        let residual = (sum - nearest) + errors;
        let residual = if residual == 0.0 { rest } else { residual };
        if nearest == 0.0 {
            return Some(self.zero_sum(nearest, product, c));
        }
        Some(self.scaled(nearest, residual, -LIFT))
    }

    pub(super) fn small_root(self, a: f64) -> Option<f64> {
        (plain(a) && a > 0.0 && small(a)).then(|| self.sqrt64(a * power(600)) * power(-300))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Rounding::{self, Down, Nearest, Up, Zero};

    /// `mantissa * 2^exponent`, below the normal range, rounded by whole numbers.
    fn reference(negative: bool, mantissa: u128, exponent: i32, mode: Rounding) -> f64 {
        let shift = (-1074 - exponent) as u32;
        let (kept, lost) = match shift {
            0..128 => (mantissa >> shift, mantissa & ((1 << shift) - 1)),
            _ => (0, mantissa),
        };
        let up = match mode {
            Nearest => {
                let half = if shift < 128 { 1u128 << (shift - 1) } else { u128::MAX };
                lost > half || lost == half && kept & 1 == 1
            }
            Zero => false,
            Down => negative && lost != 0,
            Up => !negative && lost != 0,
        };
        let magnitude = f64::from_bits(kept as u64 + u64::from(up));
        if negative { -magnitude } else { magnitude }
    }

    fn parts(a: f64) -> (u128, i32) {
        let exponent = (a.to_bits() >> 52 & 0x7ff) as i32;
        let fraction = u128::from(a.to_bits() & ((1 << 52) - 1));
        if exponent == 0 { (fraction, -1074) } else { (fraction | 1 << 52, exponent - 1075) }
    }

    #[test]
    fn products_below_the_normal_range_round_as_whole_numbers_do() {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        for _ in 0..20_000 {
            let a = f64::from_bits((next() % (400 << 52)) | (next() << 63));
            let b = f64::from_bits(next() & ((1 << 52) - 1) | ((next() % 700 + 1) << 52));
            let ((ma, ea), (mb, eb)) = (parts(a), parts(b));
            if a * b != 0.0 && (a * b).is_normal() || ea + eb > -1075 {
                continue;
            }
            for mode in [Nearest, Zero, Down, Up] {
                let expected = reference(a.is_sign_negative(), ma * mb, ea + eb, mode);
                let got = mode.mul64(a, b);
                assert_eq!(
                    got.to_bits(),
                    expected.to_bits(),
                    "{a:e} * {b:e}, {mode:?}: {got:e} {expected:e}"
                );
                assert_eq!(mode.fma64(a, b, 0.0), expected, "{a:e} * {b:e} + 0, {mode:?}");
            }
        }
    }

    #[test]
    fn quotients_sums_and_roots_do_not_lose_their_residuals() {
        let least = f64::from_bits(1);
        assert_eq!(Up.fma64(1e-300, 1e-300, 1.0), 1.0f64.next_up());
        assert_eq!(Down.fma64(-1e-300, 1e-300, 1.0), 1.0f64.next_down());
        assert_eq!(Up.fma64(1e-300, 1e-300, least), f64::from_bits(2));
        assert_eq!(Zero.fma64(1e-300, -1e-300, least), 0.0);
        assert_eq!(Down.fma64(least, 0.5, least), least);
        assert_eq!(Up.fma64(least, 0.5, least), f64::from_bits(2));
        assert_eq!((Up.div64(least, 3.0), Zero.div64(least, 3.0)), (least, 0.0));
        assert_eq!(Down.div64(-least, 3.0), -least);
        assert_eq!((Down.div64(3e-310, 3e-310), Up.div64(3e-310, 3e-310)), (1.0, 1.0));
        let third = 1e-310 / 3e-310;
        assert!(Down.div64(1e-310, 3e-310) <= third && third <= Up.div64(1e-310, 3e-310));
        assert_eq!(Down.div64(1e-310, 3e-310).next_up(), Up.div64(1e-310, 3e-310));
        let root = 3e-310f64.sqrt();
        assert!(Down.sqrt64(3e-310) <= root && root <= Up.sqrt64(3e-310));
        assert_eq!(Down.sqrt64(3e-310).next_up(), Up.sqrt64(3e-310));
    }
}
