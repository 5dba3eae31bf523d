//! `cargo xtask dist`: the release files, and a check that they keep their promises of size and portability.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::build::{self, Profile};

/// docs/SPECIFICATION.md promises the whole of dist/ under this.
const MAX_BYTES: u64 = 40_000_000;
/// The oldest C library that the files may ask for.
const GLIBC: (u32, u32) = (2, 36);

#[derive(clap::Args, Debug)]
pub struct Options {
    /// Where to write.
    #[arg(long, default_value = "dist")]
    out: PathBuf,
}

pub fn run(options: &Options) -> Result<()> {
    let out = build::root().join(&options.out);
    let artefacts = build::build(Profile::Release, &[])?;
    build::install(&artefacts, &out)?;
    let mut total = 0;
    for file in ["lightos", "liblightos_intercept.so", "softgpu/libcuda.so.1", "softgpu/libnvidia-ml.so.1"] {
        let path = out.join(file);
        let bytes = path.metadata()?.len();
        total += bytes;
        let needs = newest_glibc(&path)?;
        println!("{:>10} bytes  glibc {}.{}  {}", bytes, needs.0, needs.1, path.display());
        if needs > GLIBC {
            bail!("{file} needs glibc {}.{}, newer than {}.{}", needs.0, needs.1, GLIBC.0, GLIBC.1);
        }
    }
    println!("{total:>10} bytes in all");
    if total > MAX_BYTES {
        bail!("dist/ is {total} bytes, over the promised {MAX_BYTES}");
    }
    Ok(())
}

/// The newest `GLIBC_x.y` version among the symbols that `path` asks for.
fn newest_glibc(path: &std::path::Path) -> Result<(u32, u32)> {
    let output = Command::new("objdump")
        .arg("-T")
        .arg(path)
        .output()
        .context("objdump (binutils comes with the C linker) is needed to check the glibc version")?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text
        .split("GLIBC_")
        .skip(1)
        .filter_map(|rest| {
            let version = rest.split([')', ' ', '\n']).next()?;
            let mut parts = version.split('.').map(str::parse);
            Some((parts.next()?.ok()?, parts.next()?.ok()?))
        })
        .max()
        .unwrap_or((2, 0)))
}
