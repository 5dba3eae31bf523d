//! `out = a + b`, one thread per element. Source: `cuda/vector_add.cu`.
//!
//! Parameters: `a: *const f32, b: *const f32, out: *mut f32, n: u32`. `out` may be `a` or `b` itself.

use crate::Geometry;

/// PTX for compute capability 7.5 and later.
pub const PTX: &str = include_str!("../ptx/vector_add.ptx");
pub const ENTRY: &str = "vector_add";
/// Threads of a block.
pub const BLOCK: u32 = 256;

/// The launch over `n` elements, `n` at least 1: as many blocks of [`BLOCK`] threads as cover them.
pub fn geometry(n: u32) -> Geometry {
    Geometry::line(n.div_ceil(BLOCK), BLOCK)
}

/// What the kernel computes, bit for bit: one IEEE addition per element.
pub fn reference(a: &[f32], b: &[f32]) -> Vec<f32> {
    a.iter().zip(b).map(|(a, b)| a + b).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn adds_each_pair_once_rounded(pairs in prop::collection::vec((-1e30_f32..1e30, -1e30_f32..1e30), 0..100)) {
            let (a, b): (Vec<_>, Vec<_>) = pairs.iter().copied().unzip();
            let exact: Vec<f32> = pairs.iter().map(|&(a, b)| (f64::from(a) + f64::from(b)) as f32).collect();
            prop_assert_eq!(reference(&a, &b), exact);
        }

        #[test]
        fn geometry_covers_the_elements_with_less_than_a_block_to_spare(n in 1_u32..) {
            let threads = u64::from(geometry(n).grid[0]) * u64::from(BLOCK);
            prop_assert!(threads >= u64::from(n) && threads - u64::from(n) < u64::from(BLOCK));
        }
    }
}
