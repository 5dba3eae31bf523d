//! Adds two vectors, then adds the second again in place, once per iteration: the result depends on every launch.

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use cudarc::driver::PushKernelArg;
use lightos_examples::{Report, Work, finish, launch_config, load, open_device, values};
use lightos_kernels::vector_add::{ENTRY, PTX, geometry, reference};

/// Adds vectors on the GPU and checks every element.
#[derive(Parser)]
#[command(name = "vector_add")]
struct Options {
    /// Elements of each vector.
    #[arg(short, default_value_t = 1 << 20, value_name = "SIZE", value_parser = clap::value_parser!(u32).range(1..))]
    n: u32,
    /// Launches, each of which adds once more.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    iterations: u32,
}

fn main() -> ExitCode {
    finish("vector_add", run(&Options::parse()))
}

fn run(options: &Options) -> Result<Report> {
    let &Options { n, iterations } = options;
    let (a, b) = (values(1, n as usize), values(2, n as usize));

    let context = open_device()?;
    let mut work = Work::begin();
    let stream = context.default_stream();
    let kernel = load(&context, PTX, ENTRY)?;
    let sum = stream.clone_htod(&a)?;
    work.copied(&a);
    let addend = stream.clone_htod(&b)?;
    work.copied(&b);
    for _ in 0..iterations {
        // In place: each thread reads its element before it writes it, so that input and output may be one buffer.
        let (view, out) = (sum.as_view(), sum.as_view());
        let mut launch = stream.launch_builder(&kernel);
        launch.arg(&view).arg(&addend).arg(&out).arg(&n);
        // SAFETY: the parameters are the kernel's, and each buffer holds n elements.
        unsafe { launch.launch(launch_config(geometry(n))) }?;
        work.launched();
    }
    let result = stream.clone_dtoh(&sum)?;
    work.copied(&result);
    stream.synchronize()?;

    let expected = (0..iterations).fold(a, |sum, _| reference(&sum, &b));
    Ok(work.end(n, &result, &expected, 0.0))
}
