//! The limits that native checks at the launch itself.

use super::Shape;
use crate::real;
use crate::result::CuResult;
use std::sync::OnceLock;

/// The device that the session governs, by the ordinal of this process.
const DEVICE: i32 = 0;

/// Limits of the device, as its attributes give them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    threads_per_block: u32,
    block: [u32; 3],
    grid: [u32; 3],
}

/// The session's device.
#[inline]
pub fn device() -> &'static Limits {
    static LIMITS: OnceLock<Limits> = OnceLock::new();
    LIMITS.get_or_init(|| {
        // CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK, then MAX_BLOCK_DIM_X to _Z and MAX_GRID_DIM_X to _Z.
        let [threads_per_block, bx, by, bz, gx, gy, gz] = [1, 2, 3, 4, 5, 6, 7].map(attribute);
        Limits { threads_per_block, block: [bx, by, bz], grid: [gx, gy, gz] }
    })
}

/// An attribute of the device; without an answer, a limit that nothing exceeds.
fn attribute(attribute: u32) -> u32 {
    let mut value = 0;
    // SAFETY: a valid out-parameter.
    match unsafe { real::cuDeviceGetAttribute(&mut value, attribute, DEVICE) } {
        CuResult::SUCCESS => value.max(0) as u32,
        _ => u32::MAX,
    }
}

/// Threads of one block.
#[inline]
pub fn threads(shape: &Shape) -> u64 {
    let [x, y, z] = shape.block.map(u64::from);
    x.saturating_mul(y).saturating_mul(z)
}

impl Limits {
    #[inline]
    pub fn allows(&self, shape: &Shape) -> bool {
        let within = |sizes: [u32; 3], limits: [u32; 3]| {
            sizes.iter().zip(limits).all(|(&size, limit)| size != 0 && size <= limit)
        };
        within(shape.grid, self.grid)
            && within(shape.block, self.block)
            && threads(shape) <= u64::from(self.threads_per_block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOPPER: Limits =
        Limits { threads_per_block: 1024, block: [1024, 1024, 64], grid: [i32::MAX as u32, 65535, 65535] };

    fn allows(grid: [u32; 3], block: [u32; 3]) -> bool {
        HOPPER.allows(&Shape { grid, block, shared_bytes: 0 })
    }

    #[test]
    fn every_axis_has_its_limits() {
        assert!(allows([1, 1, 1], [1, 1, 1]));
        assert!(allows([i32::MAX as u32, 65535, 65535], [1024, 1, 1]));
        for axis in 0..3 {
            let with = |value| {
                let mut sizes = [1; 3];
                sizes[axis] = value;
                sizes
            };
            assert!(!allows(with(0), [1; 3]), "empty grid");
            assert!(!allows([1; 3], with(0)), "empty block");
            assert!(!allows(with(u32::MAX), [1; 3]), "large grid");
            assert!(!allows([1; 3], with(1025)), "large block");
        }
        assert!(!allows([1, 65536, 1], [1; 3]));
        assert!(!allows([1; 3], [1, 1, 65]));
    }

    #[test]
    fn a_block_has_few_threads_in_all() {
        assert!(allows([1; 3], [32, 32, 1]));
        assert!(!allows([1; 3], [32, 32, 2]));
        assert_eq!(threads(&Shape { grid: [1; 3], block: [u32::MAX; 3], shared_bytes: 0 }), u64::MAX);
    }
}
