//! `cargo xtask soak`: a daemon under a mixed load for as long as asked, and whether anything grows (tests/soak/soak.py).

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::build::{self, Profile, check};
use crate::clients;

#[derive(clap::Args, Debug)]
pub struct Options {
    /// How long.
    #[arg(long, default_value_t = 60.0)]
    minutes: f64,
    /// The machine's own driver instead of the software GPU.
    #[arg(long)]
    hardware: bool,
    /// Where the recording goes.
    #[arg(long, default_value = "docs/results")]
    out: PathBuf,
}

pub fn run(options: &Options) -> Result<()> {
    let artefacts = build::build(Profile::Release, &[])?;
    let installed = artefacts.join("install");
    build::install(&artefacts, &installed)?;
    let tests = build::root().join("tests");
    let environment = clients::venv("clients", &tests.join("clients/requirements.txt"))?;
    let mut command = Command::new(environment.join("bin/python"));
    command.arg(tests.join("soak/soak.py")).args(["--minutes", &options.minutes.to_string()]);
    command.arg("--dist").arg(&installed).arg("--out").arg(build::root().join(&options.out));
    if options.hardware {
        command.arg("--hardware");
    }
    check(command.env("PYTHONDONTWRITEBYTECODE", "1"))
}
