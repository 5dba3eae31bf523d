//! The sum of n values in two launches: one partial sum per block, then one block over the partial sums.
//! Source: `cuda/reduction.cu`.
//!
//! Parameters: `in: *const f32, partial: *mut f32, n: u32`; `partial` holds one value per block. The order of
//! additions follows from n and the geometry alone, so equal launches give equal bits.

use crate::Geometry;

/// PTX for compute capability 7.5 and later.
pub const PTX: &str = include_str!("../ptx/reduction.ptx");
pub const ENTRY: &str = "reduction";
/// Threads of a block; the kernel takes any multiple of 32 up to 1024.
pub const BLOCK: u32 = 256;
/// Most blocks of the first launch: one round of the second.
pub const MAX_BLOCKS: u32 = BLOCK;

const WARP: usize = 32;

/// The first launch over `n` values, `n` at least 1. Each block leaves one partial sum.
pub fn geometry(n: u32) -> Geometry {
    Geometry::line(n.div_ceil(BLOCK).min(MAX_BLOCKS), BLOCK)
}

/// The second launch, over the partial sums of the first.
pub fn final_geometry() -> Geometry {
    Geometry::line(1, BLOCK)
}

/// What the two launches compute, bit for bit: the kernel's own order of additions.
pub fn reference(values: &[f32]) -> f32 {
    let n = u32::try_from(values.len()).unwrap_or(u32::MAX);
    let partial = launch(values, geometry(n.max(1)).grid[0] as usize);
    launch(&partial, 1)[0]
}

fn launch(values: &[f32], blocks: usize) -> Vec<f32> {
    let block = BLOCK as usize;
    let stride = blocks * block;
    let thread_sum =
        |thread: usize| values.iter().skip(thread).step_by(stride).fold(0.0_f32, |sum, value| sum + value);
    let block_sum = |index: usize| {
        let lanes: Vec<f32> = (0..block).map(|thread| thread_sum(index * block + thread)).collect();
        let mut warps = [0.0_f32; WARP];
        for (sum, warp) in warps.iter_mut().zip(lanes.chunks(WARP)) {
            *sum = tree(warp);
        }
        tree(&warps)
    };
    (0..blocks).map(block_sum).collect()
}

/// Lane 0 of five shuffles down, over a full warp.
fn tree(lanes: &[f32]) -> f32 {
    let mut lanes = lanes.to_vec();
    while lanes.len() > 1 {
        let half = lanes.len() / 2;
        lanes = (0..half).map(|lane| lanes[lane] + lanes[lane + half]).collect();
    }
    lanes[0]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn stays_within_the_rounding_bound_of_the_exact_sum(values in prop::collection::vec(-1e3_f32..1e3, 0..5000)) {
            let exact: f64 = values.iter().copied().map(f64::from).sum();
            let magnitude: f64 = values.iter().copied().map(|value| f64::from(value.abs())).sum();
            // A thread adds at most ceil(5000 / 5120) values, then 2 x (5 + 5) levels of trees follow.
            let bound = 22.0 * f64::from(f32::EPSILON) * magnitude;
            prop_assert!((f64::from(reference(&values)) - exact).abs() <= bound);
        }

        #[test]
        fn whole_numbers_add_up_exactly(n in 0..200_000_usize) {
            prop_assert_eq!(reference(&vec![1.0; n]), n as f32);
        }
    }

    #[test]
    fn the_order_is_the_kernels_own() {
        // 2^24 swallows a 1 added to it alone, and keeps two that were added to each other first: lanes 0 and 16
        // meet first, lanes 1 and 17 too, then the two sums.
        let mut values = vec![0.0_f32; 32];
        (values[0], values[1], values[17]) = (16_777_216.0, 1.0, 1.0);
        assert_eq!(reference(&values), 16_777_218.0);
        (values[0], values[1], values[16], values[17]) = (16_777_216.0, 1.0, 1.0, 0.0);
        assert_eq!(reference(&values), 16_777_216.0);
    }
}
