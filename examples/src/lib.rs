//! What the example programs share: opening the device, reproducible data, and the one line that each prints at its end.
//!
//! The programs are ordinary CUDA programs on cudarc's safe layer. They know nothing of LightOS.

use std::fmt;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cudarc::driver::{CudaContext, CudaFunction, LaunchConfig, sys};
use cudarc::nvrtc::Ptx;
use lightos_kernels::{Geometry, max_relative_error};

/// Device 0 in its primary context, or why there is none.
pub fn open_device() -> Result<Arc<CudaContext>> {
    // SAFETY: the question loads the CUDA driver, whose initialisers are safe in any process.
    let present = unsafe { sys::is_culib_present() };
    // Asked first because cudarc panics at the first call into a library that is not there.
    ensure!(present, "no CUDA driver found: libcuda.so.1 is not on the library path");
    CudaContext::new(0).context("cannot open CUDA device 0")
}

/// Loads a module and finds its kernel.
pub fn load(context: &Arc<CudaContext>, ptx: &str, entry: &str) -> Result<CudaFunction> {
    let module =
        context.load_module(Ptx::from_src(ptx)).with_context(|| format!("cannot load {entry}.ptx"))?;
    module.load_function(entry).with_context(|| format!("the module has no kernel {entry}"))
}

/// A kernel's documented geometry as cudarc takes it.
pub fn launch_config(geometry: Geometry) -> LaunchConfig {
    let Geometry { grid, block, shared_bytes } = geometry;
    LaunchConfig { grid_dim: grid.into(), block_dim: block.into(), shared_mem_bytes: shared_bytes }
}

/// `count` reproducible values in [-1, 1), multiples of 2^-23; another `seed` gives other values.
pub fn values(seed: u64, count: usize) -> Vec<f32> {
    // SplitMix64 (Steele, Lea, Flood 2014).
    let mut state = seed;
    let mut next = move || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    };
    (0..count).map(|_| (next() >> 40) as f32 / (1_u32 << 23) as f32 - 1.0).collect()
}

/// The work of a program between its first and its last use of the device, counted.
#[derive(Debug)]
pub struct Work {
    started: Instant,
    launches: u64,
    bytes: u64,
}

impl Work {
    pub fn begin() -> Self {
        Self { started: Instant::now(), launches: 0, bytes: 0 }
    }

    /// Counts a copy between host and device.
    pub fn copied<T>(&mut self, elements: &[T]) {
        self.bytes += size_of_val(elements) as u64;
    }

    pub fn launched(&mut self) {
        self.launches += 1;
    }

    /// Ends the work with its result. `size` is what `-n` named.
    pub fn end(self, size: u32, result: &[f32], reference: &[f32], tolerance: f64) -> Report {
        let elapsed = self.started.elapsed();
        let max_rel_err = max_relative_error(result, reference);
        Report {
            size,
            equal: max_rel_err <= tolerance,
            max_rel_err,
            launches: self.launches,
            bytes: self.bytes,
            checksum: checksum(result),
            elapsed,
        }
    }
}

/// A program's outcome. Everything but the time is the same for every run on one device.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    pub size: u32,
    /// Whether the result agrees with the CPU reference within the kernel's tolerance.
    pub equal: bool,
    pub max_rel_err: f64,
    pub launches: u64,
    /// Bytes copied between host and device, both directions together.
    pub bytes: u64,
    /// [`checksum`] of the result.
    pub checksum: u64,
    pub elapsed: Duration,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { size, equal, max_rel_err, launches, bytes, checksum, elapsed } = self;
        let equal = if *equal { "yes" } else { "no" };
        write!(f, "n={size} equal={equal} ")?;
        match max_rel_err {
            0.0 => f.write_str("max_rel_err=0 ")?,
            error => write!(f, "max_rel_err={error:.2e} ")?,
        }
        write!(f, "launches={launches} bytes={bytes} checksum={checksum:016x} ")?;
        write!(f, "ms={:.3}", elapsed.as_secs_f64() * 1e3)
    }
}

/// FNV-1a over the bits of the values: two results share it only if they are equal bit for bit (or collide).
pub fn checksum(values: &[f32]) -> u64 {
    let bytes = values.iter().flat_map(|value| value.to_bits().to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Prints a program's report as the last line of stdout, or its error on stderr; 1 for an error or a wrong result.
pub fn finish(program: &str, outcome: Result<Report>) -> ExitCode {
    match outcome {
        Ok(report) => {
            println!("{program}: {report}");
            if report.equal { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("{program}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_is_one_stable_line() {
        let mut work = Work::begin();
        work.copied(&[0.0_f32; 3]);
        work.launched();
        let mut report = work.end(3, &[1.0, 2.0], &[1.0, 2.0], 0.0);
        report.elapsed = Duration::from_micros(1500);
        assert_eq!(
            report.to_string(),
            "n=3 equal=yes max_rel_err=0 launches=1 bytes=12 checksum=097a69ee2da301d8 ms=1.500"
        );
        let wrong = Work::begin().end(3, &[1.0], &[2.0], 0.1).to_string();
        assert!(wrong.starts_with("n=3 equal=no max_rel_err=5.00e-1 launches=0 "), "{wrong}");
    }

    #[test]
    fn checksums_see_every_bit() {
        assert_ne!(checksum(&[0.0]), checksum(&[-0.0]));
        assert_ne!(checksum(&[1.0, 2.0]), checksum(&[2.0, 1.0]));
        assert_eq!(checksum(&[]), 0xcbf2_9ce4_8422_2325);
    }

    #[test]
    fn values_are_reproducible_and_in_range() {
        let first = values(1, 1000);
        assert_eq!(first, values(1, 1000));
        assert_ne!(first, values(2, 1000));
        assert!(first.iter().all(|value| (-1.0..1.0).contains(value)));
        let mean: f32 = first.iter().sum::<f32>() / 1000.0;
        assert!(mean.abs() < 0.1, "{mean}");
    }
}
