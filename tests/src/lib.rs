//! What the end-to-end suites share: the built product, a sidecar on the software GPU, programs under the preload library.
//!
//! The suites run what a user runs: the `lightos` binary, the preload library, and the software GPU's libraries as the driver. They are
//! built once per test process into the folder that the tests themselves were built into; `LIGHTOS_TESTS_BUILT=1` says that
//! they are up to date there.

pub mod raw;
pub mod twice;

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Packages whose artefacts the suites start or load.
const PACKAGES: [&str; 4] =
    ["lightos", "lightos-intercept", "lightos-softgpu-driver", "lightos-softgpu-nvml"];

/// The folder with the built product.
pub fn artefacts() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let test = std::env::current_exe().expect("a test has a path");
        // <target>/<profile>/deps/<test>
        let folder = test.ancestors().nth(2).expect("a test lies two folders deep").to_owned();
        if std::env::var_os("LIGHTOS_TESTS_BUILT").is_none() {
            build(&folder);
        }
        folder
    })
}

fn build(folder: &Path) {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.arg("build").arg("--quiet").current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    command.env("CARGO_TARGET_DIR", folder.parent().expect("a profile folder has a parent"));
    if folder.ends_with("release") {
        command.arg("--release");
    }
    for package in PACKAGES {
        command.args(["--package", package]);
    }
    assert!(command.status().expect("cargo starts").success(), "the product does not build");
}

/// The `lightos` binary.
pub fn lightos() -> PathBuf {
    artefacts().join("lightos")
}

/// The library to preload.
pub fn intercept() -> PathBuf {
    artefacts().join("liblightos_intercept.so")
}

/// A folder in which the software GPU has the driver's names, made beside the artefacts.
pub fn softgpu() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = artefacts().join("softgpu");
        std::fs::create_dir_all(&folder).expect("the target folder can be written to");
        for (built, name) in [
            ("libcuda.so", "libcuda.so.1"),
            ("libcuda.so", "libcuda.so"),
            ("libnvidia_ml.so", "libnvidia-ml.so.1"),
        ] {
            match std::os::unix::fs::symlink(Path::new("..").join(built), folder.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => panic!("{name}: {error}"),
                _ => {}
            }
        }
        folder
    })
}

/// `command` with the software GPU as its driver and without anything of LightOS in its environment.
pub fn native(mut command: Command) -> Command {
    for variable in ["LD_PRELOAD", "LIGHTOS_SOCKET", "LIGHTOS_DISPATCH", "LIGHTOS_REQUIRE", "LIGHTOS_LOG"] {
        command.env_remove(variable);
    }
    command.env("LD_LIBRARY_PATH", softgpu());
    command
}

/// A `lightos` command line.
pub fn command<const N: usize>(arguments: [&str; N]) -> Command {
    let mut command = native(Command::new(lightos()));
    command.args(arguments);
    command
}

/// A sidecar on the software GPU with a socket of its own. It ends with this value.
#[derive(Debug)]
pub struct Sidecar {
    child: Child,
    folder: TempDir,
}

impl Sidecar {
    /// Starts one with the default configuration.
    pub fn start() -> Self {
        Self::with_config("")
    }

    /// Starts one with the given YAML.
    pub fn with_config(yaml: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let config = folder.path().join("sidecar.yaml");
        std::fs::write(&config, yaml).expect("the configuration is written");
        let log = std::fs::File::create(folder.path().join("log")).expect("the log is created");
        let mut command = command(["sidecar", "--softgpu", "--log", "debug"]);
        command.arg("--config").arg(&config).arg("--socket").arg(folder.path().join("lightos.sock"));
        let child = command.stdin(Stdio::null()).stderr(log).spawn().expect("the sidecar starts");
        let mut sidecar = Self { child, folder };
        let listens = wait_until(Duration::from_secs(10), || {
            std::os::unix::net::UnixStream::connect(sidecar.socket()).is_ok()
                || sidecar.child.try_wait().is_ok_and(|status| status.is_some())
        });
        assert!(listens && sidecar.socket().exists(), "the sidecar does not listen:\n{}", sidecar.log());
        sidecar
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("lightos.sock")
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has logged so far, its executors included.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// `program` as a user preloads it against this sidecar.
    pub fn preloaded(&self, program: Command) -> Command {
        let mut command = native(program);
        command.env("LD_PRELOAD", intercept()).env("LIGHTOS_SOCKET", self.socket());
        command
    }

    /// What `lightos status --json` says.
    pub fn status(&self) -> Value {
        let output =
            command(["status", "--json", "--socket"]).arg(self.socket()).output().expect("lightos starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("status is JSON")
    }

    /// Process ids of its executors.
    pub fn executors(&self) -> Vec<u32> {
        children(self.pid())
    }

    /// Sends `signal` to the daemon.
    pub fn signal(&self, signal: i32) {
        // SAFETY: the child is not reaped before `self` is dropped, so the process id is its own.
        unsafe { libc::kill(self.child.id() as i32, signal) };
    }

    /// Waits for the daemon's end; its exit code.
    pub fn wait(&mut self, timeout: Duration) -> Option<i32> {
        wait_until(timeout, || self.child.try_wait().is_ok_and(|status| status.is_some()));
        self.child.try_wait().ok().flatten().and_then(|status| status.code())
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        self.signal(libc::SIGTERM);
        if self.wait(Duration::from_secs(5)).is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Process ids of the children of `pid`.
pub fn children(pid: u32) -> Vec<u32> {
    let mut found = Vec::new();
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    for task in tasks {
        let list = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        found.extend(list.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
    }
    found
}

/// Whether a process runs (a zombie does not).
pub fn is_running(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit(')').next().is_some_and(|rest| !rest.trim_start().starts_with('Z')))
}

/// Stops every thread of an executor that its sidecar has not reaped, as if its driver did not return; SIGCONT or SIGKILL end that.
pub fn stop(pid: u32) {
    // SAFETY: nothing but a signal is sent.
    unsafe { libc::kill(pid as i32, libc::SIGSTOP) };
    let is_stopped = |task: std::fs::DirEntry| {
        std::fs::read_to_string(task.path().join("stat"))
            .is_ok_and(|stat| stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T')))
    };
    let all_are =
        || std::fs::read_dir(format!("/proc/{pid}/task")).is_ok_and(|tasks| tasks.flatten().all(is_stopped));
    assert!(wait_until(Duration::from_secs(5), all_are), "process {pid} does not stop");
}

/// Asks `condition` every few milliseconds; whether it came true in time.
pub fn wait_until(timeout: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + timeout;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
