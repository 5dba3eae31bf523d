//! `lightos run`: the command's exit status, its signals, its environment, the report.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use lightos_tests::{Sidecar, command, intercept, is_running, softgpu, wait_until};
use serde_json::Value;

const SECOND: Duration = Duration::from_secs(1);

/// Opens the driver, makes a context and one allocation, by ctypes.
const PROGRAM: &str = "import ctypes\n\
    cuda = ctypes.CDLL('libcuda.so.1')\n\
    assert cuda.cuInit(0) == 0\n\
    context, address = ctypes.c_void_p(), ctypes.c_uint64()\n\
    assert cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0) == 0\n\
    assert cuda.cuCtxSetCurrent(context) == 0\n\
    assert cuda.cuMemAlloc_v2(ctypes.byref(address), ctypes.c_size_t(1 << 20)) == 0\n\
    print('done', flush=True)\n";

fn run(options: &[&str], program: &[&str]) -> Command {
    let mut run = command(["run", "--softgpu"]);
    run.env("LIGHTOS_INTERCEPT", intercept()).env("SOFTGPU_LIB_DIR", softgpu()).env_remove("LD_LIBRARY_PATH");
    run.args(options).arg("--").args(program).stdin(Stdio::null());
    run
}

fn output(options: &[&str], program: &[&str]) -> (Output, String, String) {
    let output = run(options, program).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    (output, stdout, stderr)
}

fn report(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn the_exit_status_is_the_commands() {
    for (script, code) in [("exit 0", 0), ("exit 3", 3), ("kill -TERM $$", 143), ("kill -KILL $$", 137)] {
        let (done, _, stderr) = output(&[], &["sh", "-c", script]);
        assert_eq!((done.status.code(), stderr.as_str()), (Some(code), ""), "{script}");
    }
}

#[test]
fn output_is_the_commands_alone() {
    let (done, stdout, stderr) = output(&[], &["sh", "-c", "echo out; echo err >&2"]);
    assert_eq!((done.status.code(), stdout.as_str(), stderr.as_str()), (Some(0), "out\n", "err\n"));
}

#[test]
fn a_command_that_cannot_start_is_named_with_the_shells_code() {
    let (missing, _, stderr) = output(&[], &["no-such-command-anywhere"]);
    assert_eq!(missing.status.code(), Some(127));
    assert!(stderr.contains("no-such-command-anywhere: command not found"), "{stderr}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data");
    std::fs::write(&path, "no program").unwrap();
    let (data, _, stderr) = output(&[], &[path.to_str().unwrap()]);
    assert_eq!(data.status.code(), Some(126));
    assert!(stderr.contains("data") && stderr.contains("ermission"), "{stderr}");
}

#[test]
fn what_the_user_preloads_stays() {
    let mut command = run(&[], &["sh", "-c", "echo $LD_PRELOAD"]);
    let output = command.env("LD_PRELOAD", "/nonexistent/theirs.so").output().unwrap();
    let expected = format!("{}:/nonexistent/theirs.so\n", intercept().display());
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
}

#[test]
fn a_report_that_cannot_be_written_stops_before_the_command() {
    let (done, stdout, stderr) = output(&["--report", "/nonexistent/report.json"], &["echo", "ran"]);
    assert_eq!((done.status.code(), stdout.as_str()), (Some(125), ""));
    assert!(stderr.contains("/nonexistent/report.json"), "{stderr}");
}

#[test]
fn a_program_without_cuda_has_a_report_without_tenants() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.json");
    let (done, ..) = output(&["--report", path.to_str().unwrap()], &["sh", "-c", "exit 9"]);
    assert_eq!(done.status.code(), Some(9));
    let report = report(&path);
    assert_eq!(
        (&report["schema"], &report["exit_status"], &report["sidecar"]),
        (&1.into(), &9.into(), &"private".into())
    );
    assert_eq!(report["tenants"], serde_json::json!([]));
    assert_eq!(report["command"], serde_json::json!(["sh", "-c", "exit 9"]));
}

#[test]
fn the_report_tells_of_every_process_even_when_the_command_fails() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.json");
    let script = format!("python3 -c \"{PROGRAM}\" && python3 -c \"{PROGRAM}\"; exit 4");
    let (done, stdout, stderr) = output(&["--report", path.to_str().unwrap()], &["sh", "-c", &script]);
    assert_eq!((done.status.code(), stdout.as_str(), stderr.as_str()), (Some(4), "done\ndone\n", ""));
    let report = report(&path);
    let tenants = report["tenants"].as_array().unwrap();
    assert_eq!(tenants.len(), 2, "{report:#}");
    for tenant in tenants {
        assert!(tenant["program"].as_str().unwrap().starts_with("python"), "{tenant:#}");
        assert_eq!(tenant["calls"]["cuMemAlloc_v2"]["forwarded"], 1, "{tenant:#}");
        assert!(tenant["memory"]["peak_bytes"].as_u64().unwrap() >= 1 << 20, "{tenant:#}");
        assert_eq!((&tenant["state"], &tenant["executor_exit"]), (&"finished".into(), &"clean".into()));
        assert_eq!(tenant["launches"], 0);
        assert!(tenant["pid"].as_u64().unwrap() > 1);
    }
    assert_ne!(tenants[0]["pid"], tenants[1]["pid"]);
}

#[test]
fn a_running_sidecar_is_used_and_reports_this_commands_processes_only() {
    let sidecar = Sidecar::start();
    let other = lightos_tests::raw::RawClient::connect(&sidecar.socket()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.json");
    let socket = sidecar.socket();
    let options = ["--socket", socket.to_str().unwrap(), "--report", path.to_str().unwrap()];
    let (done, _, stderr) = output(&options, &["python3", "-c", PROGRAM]);
    assert_eq!((done.status.code(), stderr.as_str()), (Some(0), ""));
    let report = report(&path);
    assert_eq!(report["sidecar"], socket.to_str().unwrap());
    assert_eq!(report["tenants"].as_array().unwrap().len(), 1, "{report:#}");
    assert!(other.is_served());
}

#[test]
fn dispatch_off_runs_natively_without_a_sidecar() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.json");
    let options = ["--dispatch", "off", "--report", path.to_str().unwrap()];
    let (done, stdout, stderr) = output(&options, &["python3", "-c", PROGRAM]);
    assert_eq!((done.status.code(), stdout.as_str(), stderr.as_str()), (Some(0), "done\n", ""));
    assert_eq!(
        (&report(&path)["sidecar"], &report(&path)["tenants"]),
        (&Value::Null, &serde_json::json!([]))
    );
}

#[test]
fn signals_are_the_commands() {
    let mut child = run(&[], &["sh", "-c", "trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = [0; 6];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut ready).unwrap();
    // SAFETY: a child that is not reaped; nothing but a signal is sent.
    unsafe { libc::kill(child.id() as i32, libc::SIGTERM) };
    assert_eq!(child.wait().unwrap().code(), Some(5));
}

#[test]
fn a_private_sidecar_ends_with_the_run_however_that_ends() {
    for signal in [None, Some(libc::SIGKILL)] {
        let mut child = run(&[], &["sleep", if signal.is_some() { "3" } else { "0.3" }]).spawn().unwrap();
        let sidecar = || {
            let name = |pid: &u32| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let is_sidecar = |pid: &u32| name(pid).split(|byte| *byte == 0).any(|word| word == b"sidecar");
            lightos_tests::children(child.id()).into_iter().find(is_sidecar)
        };
        let mut found = None;
        assert!(wait_until(5 * SECOND, || {
            found = sidecar();
            found.is_some()
        }));
        if let Some(signal) = signal {
            // SAFETY: a child that is not reaped; nothing but a signal is sent.
            unsafe { libc::kill(child.id() as i32, signal) };
        }
        child.wait().unwrap();
        assert!(wait_until(2 * SECOND, || !is_running(found.unwrap())), "{signal:?}");
    }
}

#[test]
fn a_run_ends_only_when_its_executors_have() {
    let sidecar = Sidecar::start();
    let socket = sidecar.socket();
    let program = format!("{PROGRAM}import sys; sys.stdin.read()");
    let mut child = run(&["--socket", socket.to_str().unwrap()], &["python3", "-c", &program])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut done = [0; 5];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut done).unwrap();
    let executor = sidecar.executors()[0];
    // As if the driver took its time to give memory back.
    lightos_tests::stop(executor);
    drop(child.stdin.take());
    let early = wait_until(SECOND, || child.try_wait().unwrap().is_some());
    // SAFETY: the executor is stopped, so its sidecar has not reaped it; nothing but a signal is sent.
    unsafe { libc::kill(executor as i32, libc::SIGCONT) };
    assert!(!early, "the run has ended before its executor");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(sidecar.executors().is_empty());
}

#[test]
fn a_private_sidecar_stands_in_for_a_named_one_and_says_so() {
    let (done, stdout, stderr) = output(&["--socket", "/nonexistent/x.sock"], &["echo", "ran"]);
    assert_eq!((done.status.code(), stdout.as_str()), (Some(0), "ran\n"));
    assert!(stderr.contains("/nonexistent/x.sock") && stderr.contains("lightos sidecar"), "{stderr}");
}
