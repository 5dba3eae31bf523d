//! Directed rounding from error-free transformations.
//!
//! The host rounds to nearest even. A result that must round otherwise is computed together with its residual (the exact
//! value less the rounded one), and moved to its neighbour where the residual's sign demands. Where residuals would
//! underflow, `tiny` takes over.

mod tiny;

/// How a result that is not representable rounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Rounding {
    /// To nearest, ties to even.
    Nearest = 0,
    /// Towards zero.
    Zero = 1,
    /// Towards minus infinity.
    Down = 2,
    /// Towards plus infinity.
    Up = 3,
}

impl Rounding {
    pub const MASK: u32 = 3;

    pub fn of_flags(flags: u32) -> Rounding {
        match flags & Rounding::MASK {
            0 => Rounding::Nearest,
            1 => Rounding::Zero,
            2 => Rounding::Down,
            _ => Rounding::Up,
        }
    }

    /// `nearest` moved to where the exact value `nearest + residual` rounds. Only the residual's sign counts.
    pub fn adjust64(self, nearest: f64, residual: f64) -> f64 {
        if residual == 0.0 || residual.is_nan() || nearest.is_nan() {
            return nearest;
        }
        if nearest.is_infinite() {
            // A finite value that overflowed: the largest finite one, unless rounding goes outwards.
            let stays = match self {
                Rounding::Nearest => true,
                Rounding::Zero => false,
                Rounding::Down => nearest < 0.0,
                Rounding::Up => nearest > 0.0,
            };
            return if stays { nearest } else { f64::MAX.copysign(nearest) };
        }
        match self {
            Rounding::Down if residual < 0.0 => nearest.next_down(),
            Rounding::Up if residual > 0.0 => nearest.next_up(),
            Rounding::Zero if nearest > 0.0 && residual < 0.0 => nearest.next_down(),
            Rounding::Zero if nearest < 0.0 && residual > 0.0 => nearest.next_up(),
            _ => nearest,
        }
    }

    /// The exact value `high + low` (`high` its nearest f64) as an f32.
    pub fn to_f32(self, high: f64, low: f64) -> f32 {
        if self == Rounding::Nearest && low != 0.0 && high.is_finite() {
            // Rounding to odd first keeps the second rounding from seeing a tie that is none.
            return f64::from_bits(Rounding::Zero.adjust64(high, low).to_bits() | 1) as f32;
        }
        let nearest = high as f32;
        if nearest.is_nan() || high.is_infinite() {
            return nearest;
        }
        let above = f64::from(nearest);
        let residual = if above == high { low } else { high - above };
        if residual == 0.0 {
            return nearest;
        }
        let below_exact = residual > 0.0;
        if nearest.is_infinite() {
            let outwards = matches!((self, nearest > 0.0), (Rounding::Up, true) | (Rounding::Down, false));
            return if outwards || self == Rounding::Nearest { nearest } else { f32::MAX.copysign(nearest) };
        }
        match self {
            Rounding::Down if !below_exact => nearest.next_down(),
            Rounding::Up if below_exact => nearest.next_up(),
            Rounding::Zero if nearest > 0.0 && !below_exact => nearest.next_down(),
            Rounding::Zero if nearest < 0.0 && below_exact => nearest.next_up(),
            _ => nearest,
        }
    }

    /// An exact sum of zero is -0 when rounding down, unless both terms are +0.
    fn zero_sum(self, sum: f64, a: f64, b: f64) -> f64 {
        if self == Rounding::Down && sum == 0.0 && (a.is_sign_negative() || b.is_sign_negative()) && a == -b {
            -0.0
        } else {
            sum
        }
    }

    pub fn add64(self, a: f64, b: f64) -> f64 {
        let (sum, error) = two_sum(a, b);
        self.zero_sum(self.adjust64(sum, overflowed(sum, error, a, b)), a, b)
    }

    pub fn mul64(self, a: f64, b: f64) -> f64 {
        if let Some(product) = self.small_product(a, b) {
            return product;
        }
        let product = a * b;
        let error = a.mul_add(b, -product);
        self.adjust64(product, overflowed(product, error, a, b))
    }

    pub fn fma64(self, a: f64, b: f64, c: f64) -> f64 {
        if let Some(sum) = self.small_sum(a, b, c) {
            return sum;
        }
        let nearest = a.mul_add(b, c);
        let product = a * b;
        let product_error = a.mul_add(b, -product);
        let (sum, sum_error) = two_sum(product, c);
        let (errors, rest) = two_sum(product_error, sum_error);
        let residual = (sum - nearest) + errors;
        let residual = if residual == 0.0 { rest } else { residual };
        let finite = a.is_finite() && b.is_finite() && c.is_finite();
        let residual = if finite && nearest.is_infinite() { -nearest } else { residual };
        self.zero_sum(self.adjust64(nearest, residual), product, c)
    }

    pub fn div64(self, a: f64, b: f64) -> f64 {
        if let Some(quotient) = self.small_quotient(a, b) {
            return quotient;
        }
        let quotient = a / b;
        // The exact quotient is `quotient + remainder / b`.
        let remainder = (-quotient).mul_add(b, a);
        let residual = if b < 0.0 { -remainder } else { remainder };
        let residual = if quotient.is_infinite() && b != 0.0 && a.is_finite() { -quotient } else { residual };
        self.adjust64(quotient, if b.is_infinite() { 0.0 } else { residual })
    }

    pub fn sqrt64(self, a: f64) -> f64 {
        if let Some(root) = self.small_root(a) {
            return root;
        }
        let root = a.sqrt();
        self.adjust64(root, if root.is_finite() { (-root).mul_add(root, a) } else { 0.0 })
    }

    pub fn add32(self, a: f32, b: f32) -> f32 {
        let (a, b) = (f64::from(a), f64::from(b));
        let (sum, error) = two_sum(a, b);
        self.to_f32(self.zero_sum(sum, a, b), error)
    }

    pub fn mul32(self, a: f32, b: f32) -> f32 {
        self.to_f32(f64::from(a) * f64::from(b), 0.0)
    }

    pub fn fma32(self, a: f32, b: f32, c: f32) -> f32 {
        let (product, c) = (f64::from(a) * f64::from(b), f64::from(c));
        let (sum, error) = two_sum(product, c);
        self.to_f32(self.zero_sum(sum, product, c), error)
    }

    pub fn div32(self, a: f32, b: f32) -> f32 {
        let (a, b) = (f64::from(a), f64::from(b));
        let quotient = a / b;
        let remainder = (-quotient).mul_add(b, a);
        let residual = if b < 0.0 { -remainder } else { remainder };
        self.to_f32(quotient, if quotient.is_finite() && b.is_finite() { residual } else { 0.0 })
    }

    pub fn sqrt32(self, a: f32) -> f32 {
        let a = f64::from(a);
        let root = a.sqrt();
        self.to_f32(root, if root.is_finite() { (-root).mul_add(root, a) } else { 0.0 })
    }
}

/// Sum and its rounding error (Knuth). The error is NaN where the sum is not finite.
fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let part = sum - a;
    let error = (a - (sum - part)) + (b - part);
    (sum, if sum.is_finite() { error } else { 0.0 })
}

/// `a + b` rounded to odd: a second rounding to a format with at least two bits less than f64 is then as good as one
/// rounding of the exact sum.
pub fn round_to_odd(a: f64, b: f64) -> f64 {
    let (sum, error) = two_sum(a, b);
    if error == 0.0 || !sum.is_finite() {
        return sum;
    }
    f64::from_bits(Rounding::Zero.adjust64(sum, error).to_bits() | 1)
}

/// The residual where finite operands overflowed points back inwards.
fn overflowed(result: f64, error: f64, a: f64, b: f64) -> f64 {
    if result.is_infinite() && a.is_finite() && b.is_finite() { -result } else { error }
}

#[cfg(test)]
mod tests {
    use super::Rounding::{Down, Nearest, Up, Zero};

    #[test]
    fn directed_sums_bracket_the_exact_one() {
        let tiny = f32::from_bits(1);
        assert_eq!(Up.add32(1.0, tiny), 1.0f32.next_up());
        assert_eq!(Down.add32(1.0, tiny), 1.0);
        assert_eq!(Zero.add32(-1.0, tiny), (-1.0f32).next_up());
        assert_eq!(Up.add64(1.0, -1e-300), 1.0);
        assert_eq!(Down.add64(1.0, -1e-300), 1.0f64.next_down());
        assert!(Down.add32(1.0, -1.0).is_sign_negative());
        assert!(Zero.add32(1.0, -1.0).is_sign_positive());
    }

    #[test]
    fn overflow_goes_to_the_largest_finite_value() {
        assert_eq!(Zero.mul32(f32::MAX, 2.0), f32::MAX);
        assert_eq!(Up.mul32(f32::MAX, 2.0), f32::INFINITY);
        assert_eq!(Down.mul64(f64::MAX, -2.0), f64::NEG_INFINITY);
        assert_eq!(Zero.mul64(f64::MAX, -2.0), -f64::MAX);
        assert_eq!(Zero.add64(f64::INFINITY, 1.0), f64::INFINITY);
    }

    #[test]
    fn quotients_and_roots_round_as_asked() {
        let third = 1.0f32 / 3.0;
        assert_eq!(Up.div32(1.0, 3.0), third);
        assert_eq!(Down.div32(1.0, 3.0), third.next_down());
        assert_eq!(Down.div32(1.0, -3.0), -third);
        // The f64 nearest to the root of 2 lies above it.
        assert_eq!(Up.sqrt64(2.0), 2.0f64.sqrt());
        assert_eq!(Down.sqrt64(2.0), 2.0f64.sqrt().next_down());
        assert_eq!(Up.sqrt32(4.0), 2.0);
    }

    #[test]
    fn nearest_agrees_with_the_host() {
        for (a, b, c) in [(1.1f32, 2.3f32, -2.53f32), (1e20, 1e20, 1.0), (3.0, 1e-40, 1e-45)] {
            assert_eq!(Nearest.fma32(a, b, c), a.mul_add(b, c));
            assert_eq!(Nearest.div32(a, b), a / b);
        }
    }
}
