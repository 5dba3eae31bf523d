//! `cargo xtask`: everything a contributor or CI does with the repository beyond plain cargo.

mod build;
mod clients;
mod demo;
mod dist;
mod soak;
mod test;

use clap::{Parser, Subcommand};

#[derive(Parser, Debug)]
#[command(name = "cargo xtask", about = "Build, try and check LightOS", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand, Debug)]
enum Task {
    /// Run the example programs natively and through a sidecar, and compare.
    Demo(demo::Options),
    /// Run every test that needs only cargo; `--clients` runs the third-party client suite instead.
    Test(test::Options),
    /// Write dist/: the binaries that run on any x86-64 Linux with glibc 2.36 or newer.
    Dist(dist::Options),
    /// Put a daemon under a mixed load for as long as asked, and say whether anything grows.
    Soak(soak::Options),
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().task {
        Task::Demo(options) => demo::run(&options),
        Task::Test(options) => test::run(&options),
        Task::Dist(options) => dist::run(&options),
        Task::Soak(options) => soak::run(&options),
    }
}
