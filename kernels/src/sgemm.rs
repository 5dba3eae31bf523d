//! `c = alpha a b + beta c` in single precision, tiled through shared memory. Source: `cuda/sgemm_tiled.cu`.
//!
//! Matrices are dense in row-major order: `a` is m x k, `b` is k x n, `c` is m x n. Parameters: `m: u32, n: u32, k: u32,
//! alpha: f32, a: *const f32, b: *const f32, beta: f32, c: *mut f32`. With `beta` zero, `c` is not read.

use crate::Geometry;

/// PTX for compute capability 7.5 and later.
pub const PTX: &str = include_str!("../ptx/sgemm_tiled.ptx");
pub const ENTRY: &str = "sgemm_tiled";
/// Rows and columns of the tile of `c` that a block computes; also its threads in x and y.
pub const TILE: u32 = 16;

/// The launch for an m x n result, both at least 1: a grid of tiles, columns in x.
pub fn geometry(m: u32, n: u32) -> Geometry {
    Geometry { grid: [n.div_ceil(TILE), m.div_ceil(TILE), 1], block: [TILE, TILE, 1], shared_bytes: 0 }
}

/// The sizes and scalars of one product.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub alpha: f32,
    pub beta: f32,
}

/// What the kernel computes, with its roundings: one chain of fused multiply-adds in the order of k per element. Equal to
/// the kernel's result bit for bit, except that a zero may differ in sign where a product underflows.
///
/// # Panics
/// If a slice is shorter than its shape says.
pub fn reference(shape: Shape, a: &[f32], b: &[f32], c: &mut [f32]) {
    let Shape { m, n, k, alpha, beta } = shape;
    for row in 0..m {
        for column in 0..n {
            let sum = (0..k).fold(0.0_f32, |sum, i| a[row * k + i].mul_add(b[i * n + column], sum));
            let at = &mut c[row * n + column];
            *at = if beta == 0.0 { alpha * sum } else { beta.mul_add(*at, alpha * sum) };
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A shape with its three matrices.
    fn product() -> impl Strategy<Value = (Shape, Vec<f32>, Vec<f32>, Vec<f32>)> {
        let shape = (1..12_usize, 1..12_usize, 0..12_usize, -2.0_f32..2.0, -2.0_f32..2.0)
            .prop_map(|(m, n, k, alpha, beta)| Shape { m, n, k, alpha, beta });
        let matrix = |len| prop::collection::vec(-1.0_f32..1.0, len);
        shape.prop_flat_map(move |shape| {
            let Shape { m, n, k, .. } = shape;
            (Just(shape), matrix(m * k), matrix(k * n), matrix(m * n))
        })
    }

    proptest! {
        #[test]
        fn stays_within_the_rounding_bound_of_the_exact_product((shape, a, b, c) in product()) {
            let Shape { m, n, k, alpha, beta } = shape;
            let mut result = c.clone();
            reference(shape, &a, &b, &mut result);
            for row in 0..m {
                for column in 0..n {
                    let terms = (0..k).map(|i| f64::from(a[row * k + i]) * f64::from(b[i * n + column]));
                    let sum: f64 = terms.sum();
                    let at = row * n + column;
                    let exact = f64::from(alpha) * sum + f64::from(beta) * f64::from(c[at]);
                    // Every value is below 2 in magnitude, every step rounds once.
                    let bound = (k + 2) as f64 * k.max(1) as f64 * 4.0 * f64::from(f32::EPSILON);
                    prop_assert!((f64::from(result[at]) - exact).abs() <= bound, "{} {exact}", result[at]);
                }
            }
        }

        #[test]
        fn the_identity_gives_the_matrix_back(side in 1..10_usize, seed in prop::collection::vec(-9.0_f32..9.0, 100)) {
            let identity: Vec<f32> =
                (0..side * side).map(|at| if at / side == at % side { 1.0 } else { 0.0 }).collect();
            let b = &seed[..side * side];
            let mut c = vec![f32::NAN; side * side];
            reference(Shape { m: side, n: side, k: side, alpha: 1.0, beta: 0.0 }, &identity, b, &mut c);
            prop_assert_eq!(&c[..], b);
        }

        #[test]
        fn geometry_covers_the_result(m in 1_u32.., n in 1_u32..) {
            let Geometry { grid, block, .. } = geometry(m, n);
            for (axis, extent) in [(0, n), (1, m)] {
                let threads = u64::from(grid[axis]) * u64::from(block[axis]);
                prop_assert!(threads >= u64::from(extent) && threads - u64::from(extent) < u64::from(TILE));
            }
        }
    }
}
