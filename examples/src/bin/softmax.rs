//! Takes the softmax of each row of a matrix, through pinned host memory.

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use cudarc::driver::PushKernelArg;
use lightos_examples::{Report, Work, finish, launch_config, load, open_device, values};
use lightos_kernels::softmax::{ENTRY, PTX, geometry, reference, tolerance};

const COLUMNS: u32 = 1000;

/// Computes softmax over rows of 1000 columns on the GPU and checks every element.
#[derive(Parser)]
#[command(name = "softmax")]
struct Options {
    /// Rows of the matrix.
    #[arg(short, default_value_t = 256, value_name = "SIZE", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    n: u32,
    /// Launches; each computes the same again.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    iterations: u32,
}

fn main() -> ExitCode {
    finish("softmax", run(&Options::parse()))
}

fn run(options: &Options) -> Result<Report> {
    let &Options { n, iterations } = options;
    let elements = n as usize * COLUMNS as usize;
    let input: Vec<f32> = values(1, elements).into_iter().map(|value| value * 8.0).collect();

    let context = open_device()?;
    let mut work = Work::begin();
    let stream = context.new_stream()?;
    let kernel = load(&context, PTX, ENTRY)?;
    // SAFETY: every element is written before it is read.
    let mut host = unsafe { context.alloc_pinned::<f32>(elements) }?;
    host.as_mut_slice()?.copy_from_slice(&input);
    let device_input = stream.clone_htod(&host)?;
    work.copied(&input);
    let mut device_output = stream.alloc_zeros::<f32>(elements)?;
    for _ in 0..iterations {
        let mut launch = stream.launch_builder(&kernel);
        launch.arg(&device_input).arg(&mut device_output).arg(&COLUMNS);
        // SAFETY: the parameters are the kernel's; each buffer holds a row of COLUMNS elements per block.
        unsafe { launch.launch(launch_config(geometry(n))) }?;
        work.launched();
    }
    stream.memcpy_dtoh(&device_output, &mut host)?;
    stream.synchronize()?;
    let result = host.as_slice()?;
    work.copied(result);

    let expected = reference(&input, COLUMNS as usize);
    Ok(work.end(n, result, &expected, tolerance(COLUMNS as usize)))
}
