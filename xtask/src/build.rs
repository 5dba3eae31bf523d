//! Builds the product with cargo and lays the files out as an installation has them:
//!
//! ```text
//! lightos  liblightos_intercept.so  softgpu/libcuda.so.1  softgpu/libnvidia-ml.so.1
//! ```

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The packages whose artefacts make up an installation.
const PACKAGES: [&str; 4] =
    ["lightos", "lightos-intercept", "lightos-softgpu-driver", "lightos-softgpu-nvml"];

/// cargo's artefact and its name in an installation.
const FILES: [(&str, &str); 4] = [
    ("lightos", "lightos"),
    ("liblightos_intercept.so", "liblightos_intercept.so"),
    ("libcuda.so", "softgpu/libcuda.so.1"),
    ("libnvidia_ml.so", "softgpu/libnvidia-ml.so.1"),
];

/// The repository's root folder.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the repository's root")
}

/// `cargo` as the one that runs this task.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Runs a command to its end; a failure names the command.
pub fn check(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {:?}", command.get_program()))?;
    if !status.success() {
        bail!("{:?} failed: {status}", command);
    }
    Ok(())
}

/// Where cargo puts what it builds for `profile`.
pub fn target_folder(profile: Profile) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    root().join(target).join(profile.folder())
}

#[derive(Clone, Copy, Debug)]
pub enum Profile {
    Dev,
    Release,
}

impl Profile {
    fn folder(self) -> &'static str {
        match self {
            Self::Dev => "debug",
            Self::Release => "release",
        }
    }

    fn flags(self) -> &'static [&'static str] {
        match self {
            Self::Dev => &[],
            Self::Release => &["--release"],
        }
    }
}

/// Builds the installation's packages and `extra`, and returns the folder of the artefacts.
pub fn build(profile: Profile, extra: &[&str]) -> Result<PathBuf> {
    let mut command = cargo();
    command.arg("build").args(profile.flags());
    for package in PACKAGES.iter().chain(extra) {
        command.args(["--package", package]);
    }
    check(&mut command)?;
    Ok(target_folder(profile))
}

/// Copies the built files of `artefacts` into the installation folder `to`.
pub fn install(artefacts: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to.join("softgpu"))?;
    for (built, name) in FILES {
        let (from, target) = (artefacts.join(built), to.join(name));
        // A running program may still map the old file: replace it, never write into it.
        let fresh = target.with_extension("new");
        std::fs::copy(&from, &fresh).with_context(|| format!("cannot copy {}", from.display()))?;
        std::fs::rename(&fresh, &target)?;
    }
    // cudarc asks for this name first and must meet the same driver.
    match std::os::unix::fs::symlink("libcuda.so.1", to.join("softgpu/libcuda.so")) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error.into()),
        _ => Ok(()),
    }
}
