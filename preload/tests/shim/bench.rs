//! The workbench of the shim's tests: builds the fake driver and small C programs, runs them under the real shim.

use std::{
    env, fs,
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{Command, Output},
};
use tempfile::TempDir;

/// The shim that cargo built beside this test.
pub fn shim() -> PathBuf {
    let test = env::current_exe().expect("path of the test");
    let shim = test.with_file_name("liblightos_intercept.so");
    assert!(shim.exists(), "{} is built with this test", shim.display());
    shim
}

/// A folder with a fake `libcuda.so.1` and the programs of one test.
pub struct Bench {
    folder: TempDir,
}

impl Bench {
    pub fn new() -> Self {
        let bench = Self { folder: TempDir::new().expect("temporary folder") };
        fs::write(bench.path("fake_libcuda.c"), include_str!("fake_libcuda.c")).expect("write");
        fs::write(bench.path("probe.h"), include_str!("probe.h")).expect("write");
        fs::create_dir(bench.path("lib")).expect("folder");
        bench.driver("lib/libcuda.so.1");
        bench
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Builds a fake driver at `name`.
    pub fn driver(&self, name: &str) {
        self.cc(&["-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", name, "fake_libcuda.c"]);
    }

    /// Builds a program from `source`, with further arguments for the C compiler.
    pub fn program(&self, name: &str, source: &str, arguments: &[&str]) {
        let file = format!("{}.c", name.replace('/', "-"));
        fs::write(self.path(&file), format!("#include \"probe.h\"\n{source}")).expect("write");
        self.cc(&[&["-o", name, &file], arguments].concat());
    }

    /// Builds a shared library from `source`.
    pub fn library(&self, name: &str, source: &str, arguments: &[&str]) {
        self.program(name, source, &[&["-shared", "-fPIC"], arguments].concat());
    }

    fn cc(&self, arguments: &[&str]) {
        let output = Command::new("cc")
            .args(["-Wall", "-Wno-unused-function", "-O1"])
            .args(arguments)
            .current_dir(self.folder.path())
            .output()
            .expect("a C compiler");
        assert!(output.status.success(), "cc {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// A command of this folder under the shim, with the fake driver on the library path and no sidecar to be found.
    pub fn command(&self, program: &str) -> Command {
        let own = self.path(program);
        let mut command = Command::new(if own.exists() { own } else { program.into() });
        command
            .env("LD_PRELOAD", shim())
            .env("LD_LIBRARY_PATH", self.path("lib"))
            .env("LIGHTOS_SOCKET", self.path("socket"))
            .env_remove("LIGHTOS_DISPATCH")
            .env_remove("LIGHTOS_REQUIRE")
            .current_dir(self.folder.path());
        command
    }
}

/// Runs to the end, and requires success.
#[track_caller]
pub fn passes(mut command: Command) -> Output {
    let output = command.output().expect("run");
    assert!(
        output.status.success(),
        "{command:?}: {:?} signal {:?}\n{}{}",
        output.status.code(),
        output.status.signal(),
        String::from_utf8_lossy(&output.stdout),
        stderr(&output)
    );
    output
}

/// Runs to the end, and requires success and a clean stderr.
#[track_caller]
pub fn passes_quietly(command: Command) -> Output {
    let output = passes(command);
    assert_eq!(stderr(&output), "");
    output
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}
