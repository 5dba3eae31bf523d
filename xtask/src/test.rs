//! `cargo xtask test`: the suites that need only cargo, and with `--clients` those of others ([`crate::clients`]).

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::Result;

use crate::build::{self, Profile, cargo, check};
use crate::clients;

#[derive(clap::Args, Debug)]
pub struct Options {
    /// Run the third-party client programs, then the suites of `--suites` (installs packages into .venv/ first).
    #[arg(long)]
    clients: bool,
    /// Run the own test-suites of numba-cuda and cudarc on the software GPU.
    #[arg(long, conflicts_with = "clients")]
    suites: bool,
    /// Leave out the exhaustive model check of the ring.
    #[arg(long)]
    no_loom: bool,
    /// Passed on to the test runner: a filter, for example.
    #[arg(last = true)]
    rest: Vec<String>,
}

pub fn run(options: &Options) -> Result<()> {
    if options.clients {
        let installed = installation()?;
        clients::programs(&installed, &options.rest)?;
        // A filter is one of pytest's.
        return if options.rest.is_empty() { clients::suites(&installed, &[]) } else { Ok(()) };
    }
    if options.suites {
        return clients::suites(&installation()?, &options.rest);
    }
    // The end-to-end tests start the built binaries, which the test runner would not build by itself.
    installation()?;
    let mut command = cargo();
    if has_nextest() {
        command.args(["nextest", "run", "--workspace", "--no-fail-fast"]);
    } else {
        command.args(["test", "--workspace", "--no-fail-fast", "--"]);
    }
    // Every test process would otherwise ask cargo whether the binaries are up to date.
    check(command.args(&options.rest).env("LIGHTOS_TESTS_BUILT", "1"))?;
    if !options.no_loom {
        loom()?;
    }
    Ok(())
}

/// Builds the product for tests, the software GPU's folder beside it.
fn installation() -> Result<PathBuf> {
    let artefacts = build::build(Profile::Dev, &["lightos-examples"])?;
    let folder = artefacts.join("install");
    build::install(&artefacts, &folder)?;
    Ok(folder)
}

fn has_nextest() -> bool {
    cargo()
        .args(["nextest", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// The ring's protocol, explored exhaustively. It has a target folder of its own because `--cfg loom` changes every crate.
fn loom() -> Result<()> {
    check(
        cargo()
            .args(["test", "--package", "lightos-protocol", "--release", "--test", "loom_ring"])
            .env("RUSTFLAGS", "--cfg loom")
            .env("CARGO_TARGET_DIR", build::root().join("target/loom")),
    )
}
