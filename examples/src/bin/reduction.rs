//! Sums an array in two launches per iteration: partial sums of blocks on one stream, their total on another, which
//! waits for the first by an event.

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use cudarc::driver::PushKernelArg;
use lightos_examples::{Report, Work, finish, launch_config, load, open_device, values};
use lightos_kernels::reduction::{ENTRY, MAX_BLOCKS, PTX, final_geometry, geometry, reference};

/// Sums an array on the GPU and checks each total.
#[derive(Parser)]
#[command(name = "reduction")]
struct Options {
    /// Elements of the array.
    #[arg(short, default_value_t = 1 << 20, value_name = "SIZE", value_parser = clap::value_parser!(u32).range(1..))]
    n: u32,
    /// Sums, each of another tail of the array.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    iterations: u32,
}

fn main() -> ExitCode {
    finish("reduction", run(&Options::parse()))
}

fn run(options: &Options) -> Result<Report> {
    let &Options { n, iterations } = options;
    let input = values(1, n as usize);
    // Iteration i leaves the first i elements out, as long as one remains.
    let start = |iteration: u32| iteration.min(n - 1);

    let context = open_device()?;
    let mut work = Work::begin();
    let (blocks, totals) = (context.new_stream()?, context.new_stream()?);
    let kernel = load(&context, PTX, ENTRY)?;
    let data = blocks.clone_htod(&input)?;
    work.copied(&input);
    let mut partial = blocks.alloc_zeros::<f32>(MAX_BLOCKS as usize)?;
    let mut total = totals.alloc_zeros::<f32>(iterations as usize)?;
    for iteration in 0..iterations {
        let tail = data.slice(start(iteration) as usize..);
        let count = n - start(iteration);
        let first = geometry(count);
        let mut launch = blocks.launch_builder(&kernel);
        launch.arg(&tail).arg(&mut partial).arg(&count);
        // SAFETY: the parameters are the kernel's; `tail` holds `count` elements, `partial` one per block.
        unsafe { launch.launch(launch_config(first)) }?;
        work.launched();

        totals.wait(&blocks.record_event(None)?)?;
        let mut slot = total.slice_mut(iteration as usize..=iteration as usize);
        let mut launch = totals.launch_builder(&kernel);
        launch.arg(&partial).arg(&mut slot).arg(&first.grid[0]);
        // SAFETY: as above, over the partial sums, whose one block writes one element.
        unsafe { launch.launch(launch_config(final_geometry())) }?;
        work.launched();
        // The next round overwrites the partial sums.
        blocks.wait(&totals.record_event(None)?)?;
    }
    let result = totals.clone_dtoh(&total)?;
    work.copied(&result);
    totals.synchronize()?;

    let expected: Vec<f32> =
        (0..iterations).map(|iteration| reference(&input[start(iteration) as usize..])).collect();
    Ok(work.end(n, &result, &expected, 0.0))
}
