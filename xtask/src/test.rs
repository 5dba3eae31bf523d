//! `cargo xtask test`: the suites that need only cargo, and with `--clients` the third-party clients in a venv.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::build::{self, Profile, cargo, check};

#[derive(clap::Args, Debug)]
pub struct Options {
    /// Run the third-party client suite (installs its packages into .venv/clients first).
    #[arg(long)]
    clients: bool,
    /// Run numba-cuda's own test-suite on the software GPU (installs its packages into .venv/suites first).
    #[arg(long)]
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
        return clients(&options.rest);
    }
    if options.suites {
        return suites(&options.rest);
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

/// Other projects' tests, natively on the software GPU.
fn suites(rest: &[String]) -> Result<()> {
    let installed = installation()?;
    let suite = build::root().join("tests/suites");
    let python = venv(&build::root().join(".venv/suites"), &suite.join("requirements.txt"))?;
    check(
        Command::new(python)
            .arg(suite.join("run.py"))
            .args(rest)
            .env("LD_LIBRARY_PATH", installed.join("softgpu")),
    )
}

fn clients(rest: &[String]) -> Result<()> {
    let installed = installation()?;
    let clients = build::root().join("tests/clients");
    let frameworks = clients.join("frameworks");
    // Frameworks want versions of their own, so each suite has its own environment.
    let mut any_ran = false;
    for (name, suite) in [("clients", &clients), ("frameworks", &frameworks)] {
        any_ran |= pytest(&installed, name, suite, rest)?;
    }
    ensure!(any_ran, "no test of the client suites matches {rest:?}");
    Ok(())
}

/// Runs `test_<name>.py` of folder `suite` with the requirements beside it; false: no test matches `rest`.
fn pytest(installed: &Path, name: &str, suite: &Path, rest: &[String]) -> Result<bool> {
    /// pytest's exit status when it collected no test.
    const NO_TESTS: i32 = 5;
    let python = venv(&build::root().join(".venv").join(name), &suite.join("requirements.txt"))?;
    let status = Command::new(python)
        .args(["-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider"])
        .arg(format!("test_{name}.py"))
        .args(rest)
        .current_dir(suite)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("LIGHTOS_BIN", installed.join("lightos"))
        .env("LIGHTOS_INTERCEPT", installed.join("liblightos_intercept.so"))
        .env("SOFTGPU_LIB", installed.join("softgpu"))
        .status()?;
    ensure!(status.success() || status.code() == Some(NO_TESTS), "test_{name}.py failed: {status}");
    Ok(status.success())
}

/// A virtual environment that holds what `requirements` names; made again when the list changes.
fn venv(folder: &Path, requirements: &Path) -> Result<PathBuf> {
    let python = folder.join("bin/python");
    let wanted = std::fs::read_to_string(requirements)?;
    let stamp = folder.join("requirements.installed");
    if std::fs::read_to_string(&stamp).is_ok_and(|had| had == wanted) {
        return Ok(python);
    }
    check(Command::new("python3").args(["-m", "venv", "--clear"]).arg(folder))
        .context("python3 with the venv module is needed for the client suite (Debian: python3-venv)")?;
    check(
        Command::new(&python).args(["-m", "pip", "install", "--quiet", "--requirement"]).arg(requirements),
    )?;
    std::fs::write(stamp, wanted)?;
    Ok(python)
}
