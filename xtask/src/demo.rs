//! `cargo xtask demo`: the example programs, unmodified, natively and through a sidecar, as one table.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::build::{self, Profile};

const PROGRAMS: [&str; 4] = ["vector_add", "sgemm", "reduction", "softmax"];

#[derive(clap::Args, Debug)]
pub struct Options {
    /// Use the software GPU even where a real one exists.
    #[arg(long)]
    softgpu: bool,
    /// Times each program is run in each way, alternated; the table shows medians.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

/// One program's run: the `key=value` fields of its last line, and how long the process took.
struct Run {
    fields: BTreeMap<String, String>,
    wall: Duration,
}

pub fn run(options: &Options) -> Result<()> {
    let artefacts = build::build(Profile::Release, &["lightos-examples"])?;
    let installed = artefacts.join("install");
    build::install(&artefacts, &installed)?;
    let softgpu = options.softgpu || !real_gpu();
    let library_path = softgpu.then(|| installed.join("softgpu"));
    println!(
        "\nDevice: {}\n",
        if softgpu { "the software GPU (no real GPU is used)" } else { "the GPU of this machine" }
    );

    let scratch = tempfile::tempdir()?;
    let socket = scratch.path().join("lightos.sock");
    let mut sidecar = Sidecar::start(&installed, &socket, softgpu)?;
    let mut rows = Vec::new();
    for program in PROGRAMS {
        eprintln!("running {program} …");
        let binary = artefacts.join(program);
        let report = scratch.path().join(format!("{program}.json"));
        let (mut native, mut ours) = (Vec::new(), Vec::new());
        for _ in 0..options.rounds.max(1) {
            native.push(execute(Command::new(&binary), library_path.as_deref())?);
            let mut command = Command::new(installed.join("lightos"));
            command
                .args(["run", "--socket"])
                .arg(&socket)
                .arg("--report")
                .arg(&report)
                .arg("--")
                .arg(&binary);
            ours.push(execute(command, library_path.as_deref())?);
        }
        rows.push(row(program, &native, &ours, &report)?);
    }
    sidecar.stop();
    print_table(&rows);
    if rows.iter().any(|row| row[6] != "yes") {
        bail!("a program's result differs between native and LightOS");
    }
    Ok(())
}

/// Whether this machine's own driver finds a device.
fn real_gpu() -> bool {
    // SAFETY: loading the CUDA driver runs its initialisers, which are safe in any process.
    let Ok(library) = (unsafe { libloading::Library::new("libcuda.so.1") }) else { return false };
    // SAFETY: cuInit has this signature in every driver.
    let Ok(init) = (unsafe { library.get::<unsafe extern "C" fn(u32) -> i32>(b"cuInit\0") }) else {
        return false;
    };
    // SAFETY: 0 is the only defined flag value.
    unsafe { init(0) == 0 }
}

fn execute(mut command: Command, library_path: Option<&Path>) -> Result<Run> {
    if let Some(folder) = library_path {
        command.env("LD_LIBRARY_PATH", folder);
    }
    let started = Instant::now();
    let output =
        command.stderr(Stdio::inherit()).output().with_context(|| format!("cannot start {command:?}"))?;
    let wall = started.elapsed();
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        bail!("{command:?} failed ({}):\n{text}", output.status);
    }
    let last = text.lines().last().unwrap_or_default();
    let fields = last
        .split_whitespace()
        .filter_map(|word| word.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    Ok(Run { fields, wall })
}

fn row(program: &str, native: &[Run], ours: &[Run], report: &Path) -> Result<[String; 7]> {
    let text = std::fs::read_to_string(report).context("lightos run wrote no report")?;
    let report: serde_json::Value = serde_json::from_str(&text)?;
    let tenant = &report["tenants"][0];
    let launches = tenant["launches"].as_u64().context("the report counts no launches")?;
    let bytes: u64 = tenant["bytes"]
        .as_object()
        .context("the report counts no bytes")?
        .values()
        .filter_map(serde_json::Value::as_u64)
        .sum();
    let outcome = |run: &Run| (run.fields.get("checksum").cloned(), run.fields.get("equal").cloned());
    let right = native[0].fields.get("equal").is_some_and(|equal| equal == "yes");
    let equal = right && native.iter().chain(ours).all(|run| outcome(run) == outcome(&native[0]));
    let (before, after) = (median_ms(native), median_ms(ours));
    Ok([
        program.to_owned(),
        launches.to_string(),
        format!("{:.1} MB", bytes as f64 / 1e6),
        format!("{before:.1} ms"),
        format!("{after:.1} ms"),
        format!("{:.2}x", after / before),
        if equal { "yes" } else { "NO" }.to_owned(),
    ])
}

/// The time of the program's own work where it states one (`ms=`), else of the whole process.
fn median_ms(runs: &[Run]) -> f64 {
    let mut times: Vec<f64> = runs
        .iter()
        .map(|run| {
            run.fields.get("ms").and_then(|ms| ms.parse().ok()).unwrap_or(run.wall.as_secs_f64() * 1e3)
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn print_table(rows: &[[String; 7]]) {
    let header = ["program", "launches", "bytes moved", "native", "sidecar", "ratio", "equal"];
    let header = header.map(str::to_owned);
    let width = |column: usize| {
        rows.iter().chain([&header]).map(|row| row[column].chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |row: &[String; 7]| {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .enumerate()
            .map(
                |(i, (cell, &width))| {
                    if i == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
                },
            )
            .collect();
        println!("{}", cells.join("   ").trim_end());
    };
    line(&header);
    println!("{}", "-".repeat(widths.iter().sum::<usize>() + 3 * (widths.len() - 1)));
    rows.iter().for_each(line);
    println!(
        "\nLaunches and bytes are those of one run through the sidecar; times are medians of the program's own work."
    );
}

/// A sidecar for the time of the demo.
struct Sidecar(Child);

impl Sidecar {
    fn start(installed: &Path, socket: &PathBuf, softgpu: bool) -> Result<Self> {
        let mut command = Command::new(installed.join("lightos"));
        command.args(["sidecar", "--log", "warn", "--socket"]).arg(socket);
        if softgpu {
            command.arg("--softgpu");
        }
        let mut child = command.spawn().context("cannot start the sidecar")?;
        let deadline = Instant::now() + Duration::from_secs(10);
        while !socket.exists() {
            if let Some(status) = child.try_wait()? {
                bail!("the sidecar ended early: {status}");
            }
            if Instant::now() > deadline {
                child.kill()?;
                bail!("the sidecar did not open {} within 10 s", socket.display());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(Self(child))
    }

    fn stop(&mut self) {
        // SIGTERM by the shell's kill: the sidecar ends its executors and removes its socket.
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}
