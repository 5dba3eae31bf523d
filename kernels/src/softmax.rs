//! Softmax of each row of a matrix, one block per row. Source: `cuda/softmax.cu`.
//!
//! Parameters: `in: *const f32, out: *mut f32, columns: u32`; both matrices are dense in row-major order, and the grid
//! has one block per row.

use crate::Geometry;

/// PTX for compute capability 7.5 and later.
pub const PTX: &str = include_str!("../ptx/softmax.ptx");
pub const ENTRY: &str = "softmax";
/// Threads of a block; the kernel takes any power of two.
pub const BLOCK: u32 = 256;

/// The launch over `rows` rows, at least 1: a block per row, one `f32` of dynamic shared memory per thread.
pub fn geometry(rows: u32) -> Geometry {
    Geometry { shared_bytes: BLOCK * size_of::<f32>() as u32, ..Geometry::line(rows, BLOCK) }
}

/// Softmax of each row in double precision, rounded once.
///
/// # Panics
/// If `columns` is zero.
pub fn reference(input: &[f32], columns: usize) -> Vec<f32> {
    let row = |row: &[f32]| {
        let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        // The kernel's difference is rounded to single precision: its error is the input's, not the method's.
        let powers: Vec<f64> = row.iter().map(|value| f64::from(value - largest).exp()).collect();
        let sum: f64 = powers.iter().sum();
        powers.into_iter().map(|power| (power / sum) as f32).collect::<Vec<_>>()
    };
    input.chunks(columns).flat_map(row).collect()
}

/// The relative error that the kernel may show against [`reference()`] where results are normal numbers: two units in the
/// last place of `expf`, one rounding per addition of a thread's share and of the tree, and the division.
pub fn tolerance(columns: usize) -> f64 {
    let additions = columns.div_ceil(BLOCK as usize) + BLOCK.ilog2() as usize;
    (additions + 6) as f64 * f64::from(f32::EPSILON)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn row() -> impl Strategy<Value = Vec<f32>> {
        prop::collection::vec(-50.0_f32..50.0, 1..200)
    }

    proptest! {
        #[test]
        fn each_row_sums_to_one_and_keeps_its_order(row in row()) {
            let result = reference(&row, row.len());
            let sum: f64 = result.iter().copied().map(f64::from).sum();
            prop_assert!((sum - 1.0).abs() < 1e-5, "{sum}");
            for (inputs, outputs) in row.windows(2).zip(result.windows(2)) {
                prop_assert!(inputs[0] >= inputs[1] || outputs[0] <= outputs[1]);
            }
        }

        #[test]
        fn rows_do_not_see_each_other(first in row(), shift in -20.0_f32..20.0) {
            let columns = first.len();
            let second: Vec<f32> = first.iter().map(|value| value * 0.5 + shift).collect();
            let both = reference(&[&first[..], &second[..]].concat(), columns);
            prop_assert_eq!(&both[..columns], &reference(&first, columns)[..]);
            prop_assert_eq!(&both[columns..], &reference(&second, columns)[..]);
        }

        #[test]
        fn equal_values_share_equally(columns in 1..500_usize, value in -1e30_f32..1e30) {
            let expected = (1.0 / columns as f64) as f32;
            prop_assert_eq!(reference(&vec![value; columns], columns), vec![expected; columns]);
        }
    }

    #[test]
    fn a_large_value_takes_all() {
        assert_eq!(reference(&[0.0, 1000.0, -1000.0], 3), [0.0, 1.0, 0.0]);
    }
}
