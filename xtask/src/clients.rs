//! Programs and test-suites of others: installed into virtual environments or taken from cargo's own copies, run on the software GPU.
//!
//! | suite | what | how |
//! | --- | --- | --- |
//! | clients | our cases on NVIDIA's cuda-bindings, and how processes live and end | natively and under the shim |
//! | frameworks | tinygrad programs | natively and under the shim |
//! | numba | numba-cuda's own tests | natively |
//! | cudarc | cudarc's own tests of its driver and NVRTC layers | natively |

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::build::{self, cargo, check};

/// cudarc's tests that are left out.
const LEFT_OUT: [&str; 4] = [
    // They compare speeds which only hardware has, or that two shared cores do not show.
    "test_default_pinned_host_reads_are_faster_than_write_combined",
    "test_pinned_copy_is_faster",
    "test_par_launch",
    // It asks NVRTC for an architecture that CUDA 13 has dropped.
    "test_launch_with_half",
];

/// Our suites of client programs; `rest` goes to pytest. Some test must match it.
pub fn programs(installed: &Path, rest: &[String]) -> Result<()> {
    let clients = build::root().join("tests/clients");
    let frameworks = clients.join("frameworks");
    // Frameworks want versions of their own, so each suite has its own environment.
    let mut any_ran = false;
    for (name, suite) in [("clients", &clients), ("frameworks", &frameworks)] {
        any_ran |= pytest(installed, name, suite, rest)?;
    }
    ensure!(any_ran, "no test of the client suites matches {rest:?}");
    Ok(())
}

/// Runs the `test_*.py` of folder `suite` in the environment `name`, with the requirements beside them; false: no test matches `rest`.
fn pytest(installed: &Path, name: &str, suite: &Path, rest: &[String]) -> Result<bool> {
    /// pytest's exit status when it collected no test.
    const NO_TESTS: i32 = 5;
    let python = venv(name, &suite.join("requirements.txt"))?.join("bin/python");
    let is_test = |file: &OsString| {
        let file = file.to_string_lossy();
        file.starts_with("test_") && file.ends_with(".py")
    };
    let entries = std::fs::read_dir(suite)?.map(|entry| Ok(entry?.file_name()));
    let files = entries.collect::<std::io::Result<Vec<_>>>()?;
    let status = Command::new(python)
        .args(["-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider"])
        .args(files.iter().filter(|file| is_test(file)))
        .args(rest)
        .current_dir(suite)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("LIGHTOS_BIN", installed.join("lightos"))
        .env("LIGHTOS_INTERCEPT", installed.join("liblightos_intercept.so"))
        .env("SOFTGPU_LIB", installed.join("softgpu"))
        .status()?;
    ensure!(
        status.success() || status.code() == Some(NO_TESTS),
        "the tests of {} failed: {status}",
        suite.display()
    );
    Ok(status.success())
}

/// Other projects' own tests; `rest` goes to numba's runner, and without it cudarc's run too.
pub fn suites(installed: &Path, rest: &[String]) -> Result<()> {
    let suite = build::root().join("tests/suites");
    let environment = venv("suites", &suite.join("requirements.txt"))?;
    let softgpu = installed.join("softgpu");
    if rest.is_empty() {
        cudarc(&softgpu, &environment)?;
    }
    let python = environment.join("bin/python");
    check(Command::new(python).arg(suite.join("run.py")).args(rest).env("LD_LIBRARY_PATH", softgpu))
}

/// The tests in cudarc's own sources, of the version that the workspace uses.
fn cudarc(softgpu: &Path, environment: &Path) -> Result<()> {
    let work = build::root().join("target/suites");
    let copy = work.join("cudarc");
    if copy.exists() {
        std::fs::remove_dir_all(&copy)?;
    }
    std::fs::create_dir_all(&work)?;
    check(Command::new("cp").arg("-r").arg(source_of("cudarc")?).arg(&copy))?;
    let manifest = copy.join("Cargo.toml");
    // It lies below our workspace and is no part of it.
    let text = std::fs::read_to_string(&manifest)? + "\n[workspace]\n";
    std::fs::remove_file(&manifest)?;
    std::fs::write(&manifest, text)?;
    let libraries = std::env::join_paths([softgpu.to_owned(), nvrtc(environment)?])?;
    let mut command = cargo();
    command.args(["test", "--lib", "--no-default-features", "--features"]);
    command.arg("std,driver,nvrtc,dynamic-loading,cuda-13000,f16").arg("--manifest-path").arg(manifest);
    command.args(["--", "--test-threads=2"]);
    for test in LEFT_OUT {
        command.args(["--skip", test]);
    }
    check(command.env("CARGO_TARGET_DIR", work.join("build")).env("LD_LIBRARY_PATH", libraries))
}

/// The folder where cargo keeps a dependency's sources.
fn source_of(package: &str) -> Result<PathBuf> {
    let output = cargo().args(["metadata", "--format-version=1", "--locked"]).output()?;
    ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists packages")?;
    let found = packages.iter().find(|found| found["name"] == package);
    let manifest = found.and_then(|found| found["manifest_path"].as_str());
    let folder = manifest.and_then(|path| Path::new(path).parent());
    folder.map(Path::to_owned).with_context(|| format!("the workspace does not depend on {package}"))
}

/// The folder of NVRTC in a virtual environment, whose layout follows the CUDA version.
fn nvrtc(environment: &Path) -> Result<PathBuf> {
    let mut open = vec![environment.join("lib")];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder)?.flatten() {
            let name = entry.file_name();
            if entry.file_type()?.is_dir() {
                open.push(entry.path());
            } else if name.to_string_lossy().starts_with("libnvrtc.so") {
                return Ok(folder);
            }
        }
    }
    anyhow::bail!("no libnvrtc.so in {}", environment.display())
}

/// The virtual environment `name` under .venv, holding what `requirements` names; made again when the list changes.
pub fn venv(name: &str, requirements: &Path) -> Result<PathBuf> {
    let folder = build::root().join(".venv").join(name);
    let python = folder.join("bin/python");
    let wanted = std::fs::read_to_string(requirements)?;
    let stamp = folder.join("requirements.installed");
    if std::fs::read_to_string(&stamp).is_ok_and(|had| had == wanted) {
        return Ok(folder);
    }
    check(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder))
        .context("python3 with the venv module is needed for the client suite (Debian: python3-venv)")?;
    check(
        Command::new(&python).args(["-m", "pip", "install", "--quiet", "--requirement"]).arg(requirements),
    )?;
    std::fs::write(stamp, wanted)?;
    Ok(folder)
}
