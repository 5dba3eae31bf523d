//! Accumulates `c = alpha a b + beta c` once per iteration on a stream of its own: the result depends on every launch.

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use cudarc::driver::PushKernelArg;
use lightos_examples::{Report, Work, finish, launch_config, load, open_device, values};
use lightos_kernels::sgemm::{ENTRY, PTX, Shape, geometry, reference};

const ALPHA: f32 = 1.5;
const BETA: f32 = 0.5;

/// Multiplies square matrices on the GPU and checks every element.
#[derive(Parser)]
#[command(name = "sgemm")]
struct Options {
    /// Rows and columns of each matrix.
    #[arg(short, default_value_t = 128, value_name = "SIZE", value_parser = clap::value_parser!(u32).range(1..=16384))]
    n: u32,
    /// Launches, each of which accumulates onto the last result.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    iterations: u32,
}

fn main() -> ExitCode {
    finish("sgemm", run(&Options::parse()))
}

fn run(options: &Options) -> Result<Report> {
    let &Options { n, iterations } = options;
    let elements = n as usize * n as usize;
    let (a, b, mut c) = (values(1, elements), values(2, elements), values(3, elements));

    let context = open_device()?;
    let mut work = Work::begin();
    let stream = context.new_stream()?;
    let kernel = load(&context, PTX, ENTRY)?;
    let a_device = stream.clone_htod(&a)?;
    work.copied(&a);
    let b_device = stream.clone_htod(&b)?;
    work.copied(&b);
    let mut c_device = stream.clone_htod(&c)?;
    work.copied(&c);
    for _ in 0..iterations {
        let mut launch = stream.launch_builder(&kernel);
        launch.arg(&n).arg(&n).arg(&n);
        launch.arg(&ALPHA).arg(&a_device).arg(&b_device).arg(&BETA).arg(&mut c_device);
        // SAFETY: the parameters are the kernel's, and each buffer holds n x n elements.
        unsafe { launch.launch(launch_config(geometry(n, n))) }?;
        work.launched();
    }
    let result = stream.clone_dtoh(&c_device)?;
    work.copied(&result);
    stream.synchronize()?;

    let side = n as usize;
    let shape = Shape { m: side, n: side, k: side, alpha: ALPHA, beta: BETA };
    for _ in 0..iterations {
        reference(shape, &a, &b, &mut c);
    }
    Ok(work.end(n, &result, &c, 0.0))
}
