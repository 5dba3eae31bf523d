//! `LIGHTOS_DISPATCH=local` and `auto`: who dispatches, what policy does to it, and what the end of the sidecar does not.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

use lightos_tests::{Sidecar, command, native, wait_until};
use serde_json::Value;

const SECOND: Duration = Duration::from_secs(1);

/// By ctypes: what a test adds starts from here. `launch()` adds 1 to each of 256 integers at `data`; `values()` waits and reads them.
const PRELUDE: &str = r#"
import ctypes, os, sys, time
cuda = ctypes.CDLL(os.environ.get('CUDA_PATH_OF_TEST', 'libcuda.so.1'))
def ok(code): assert code == 0, code
context, module, function = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
data = ctypes.c_uint64()
PTX = b'''.version 7.0
.target sm_70
.address_size 64
.visible .entry add(.param .u64 at) {
  .reg .b64 %rd<4>;
  .reg .b32 %r<4>;
  ld.param.u64 %rd1, [at];
  mov.u32 %r1, %tid.x;
  mul.wide.u32 %rd2, %r1, 4;
  add.u64 %rd3, %rd1, %rd2;
  ld.global.u32 %r2, [%rd3];
  add.u32 %r2, %r2, 1;
  st.global.u32 [%rd3], %r2;
  ret;
}
'''
def begin(device=0):
    ok(cuda.cuInit(0))
    ok(cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device))
    ok(cuda.cuCtxSetCurrent(context))
def load():
    ok(cuda.cuModuleLoadData(ctypes.byref(module), PTX))
    ok(cuda.cuModuleGetFunction(ctypes.byref(function), module, b'add'))
def allocate():
    ok(cuda.cuMemAlloc_v2(ctypes.byref(data), ctypes.c_size_t(1024)))
    ok(cuda.cuMemsetD8_v2(data, 0, ctypes.c_size_t(1024)))
def launch(count=1):
    parameters = (ctypes.c_void_p * 1)(ctypes.addressof(data))
    for _ in range(count):
        ok(cuda.cuLaunchKernel(function, 1, 1, 1, 256, 1, 1, 0, None, parameters, None))
def values():
    out = (ctypes.c_uint32 * 256)()
    ok(cuda.cuMemcpyDtoH_v2(out, data, ctypes.c_size_t(1024)))
    return sorted(set(out))
"#;

fn python(program: &str) -> Command {
    let mut python = Command::new("python3");
    python.args(["-c", &format!("{PRELUDE}{program}")]);
    python
}

fn local(sidecar: &Sidecar, program: &str) -> Command {
    let mut command = sidecar.preloaded(python(program));
    command.env("LIGHTOS_DISPATCH", "local");
    command
}

fn done(command: &mut Command) -> (String, String) {
    let output: Output = command.stdin(Stdio::null()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{}\n{stdout}{stderr}", output.status);
    (stdout, stderr)
}

/// The only program that ran under a sidecar of its own: `lightos run --report`.
fn run(options: &[&str], environment: &[(&str, &str)], program: &str) -> (String, String, Value) {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report.json");
    let mut run = command(["run", "--softgpu", "--report"]);
    run.arg(&report).args(options).arg("--");
    let python = python(program);
    run.arg(python.get_program()).args(python.get_args()).envs(environment.iter().copied());
    let (stdout, stderr) = done(&mut run);
    let text = std::fs::read_to_string(&report).unwrap();
    let mut report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["tenants"].as_array().map(Vec::len), Some(1), "{report:#}");
    (stdout, stderr, report["tenants"][0].take())
}

const WORK: &str = "begin(); load(); allocate(); launch(500); print(values())";

#[test]
fn a_local_program_runs_in_its_own_context_and_is_counted() {
    let (stdout, stderr, tenant) = run(&["--dispatch", "local"], &[], WORK);
    assert_eq!((stdout.as_str(), stderr.as_str()), ("[500]\n", ""));
    assert_eq!(
        (tenant["mode"].as_str(), tenant["launches"].as_u64()),
        (Some("local"), Some(500)),
        "{tenant:#}"
    );
    assert_eq!(tenant["calls"]["cuLaunchKernel"]["passed"], 500);
    assert!(tenant["calls"]["cuMemAlloc_v2"].is_null(), "no executor holds its memory");
    assert_eq!(
        (tenant["state"].as_str(), tenant["executor_exit"].as_str()),
        (Some("finished"), Some("clean"))
    );
}

#[test]
fn a_duty_slows_both_modes_down_and_changes_no_result() {
    // 40 synchronised launches, 2 ms apart: most of two periods lie between them.
    let spread = "begin(); load(); allocate()\nfor _ in range(40):\n  launch(); ok(cuda.cuCtxSynchronize()); time.sleep(.002)\nprint(values())";
    for mode in ["local", "sidecar"] {
        let (stdout, stderr, tenant) = run(&["--dispatch", mode, "--duty", "20"], &[], spread);
        assert_eq!((stdout.as_str(), stderr.as_str()), ("[40]\n", ""), "{mode}");
        assert_eq!((tenant["mode"].as_str(), tenant["duty_percent"].as_f64()), (Some(mode), Some(20.0)));
        assert!(tenant["held_seconds"].as_f64().unwrap() > 0.02, "{tenant:#}");
        let (_, _, free) = run(&["--dispatch", mode], &[], spread);
        assert_eq!(free["held_seconds"].as_f64(), Some(0.0), "{mode}");
    }
}

/// A program past `begin`, which says "ready" and goes on when told.
struct Running {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut running = Self { child, output };
        assert_eq!(running.line(), "ready");
        running
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// What else it says, and its stderr.
    fn finish(mut self) -> (bool, String, String) {
        let ended = wait_until(20 * SECOND, || !self.is_running());
        let _ = self.child.kill();
        let (mut stdout, mut stderr) = (String::new(), String::new());
        self.output.read_to_string(&mut stdout).unwrap();
        self.child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        (ended && self.child.wait().unwrap().success(), stdout, stderr)
    }
}

fn throttle(sidecar: &Sidecar, arguments: &[&str]) -> Output {
    command(["throttle"]).args(arguments).arg("--socket").arg(sidecar.socket()).output().unwrap()
}

#[test]
fn a_pause_holds_launches_until_it_is_lifted() {
    let sidecar = Sidecar::start();
    let program = "begin(); load(); allocate(); print('ready', flush=True)\n\
                   while not os.path.exists(sys.argv[1]): time.sleep(.01)\n\
                   launch(); print(values(), flush=True)";
    for mode in ["local", "sidecar"] {
        let folder = tempfile::tempdir().unwrap();
        let mut command = local(&sidecar, program);
        let mut running = Running::start({
            command.arg(folder.path().join("go")).env("LIGHTOS_DISPATCH", mode);
            command
        });
        let status = sidecar.status();
        let number =
            status["tenants"].as_array().unwrap().last().unwrap()["tenant"].as_u64().unwrap().to_string();
        assert!(throttle(&sidecar, &["--tenant", &number, "--duty", "0"]).status.success());
        std::fs::write(folder.path().join("go"), "").unwrap();
        std::thread::sleep(Duration::from_millis(300));
        assert!(running.is_running(), "{mode}: a paused program launched");
        let lifted = Instant::now();
        let told = throttle(&sidecar, &["--all", "--duty", "100"]);
        assert_eq!(String::from_utf8_lossy(&told.stdout), format!("100 % of the time: {number}\n"));
        assert_eq!(running.line(), "[1]", "{mode}");
        assert!(lifted.elapsed() < 2 * SECOND, "{mode}");
        assert!(running.finish().0);
    }
    let nobody = throttle(&sidecar, &["--tenant", "99", "--duty", "50"]);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("lightos status"), "{nobody:?}");
    assert_eq!(throttle(&sidecar, &["--tenant", "1", "--duty", "101"]).status.code(), Some(2));
    assert_eq!(throttle(&sidecar, &["--duty", "10"]).status.code(), Some(2), "nobody is named");
}

#[test]
fn the_end_of_the_sidecar_ends_no_local_program_paused_or_not() {
    let mut sidecar = Sidecar::start();
    let program = "begin(); load(); allocate(); print('ready', flush=True); launch(200)\n\
                   while not os.path.exists(sys.argv[1]): time.sleep(.01)\n\
                   launch(300); print(values(), flush=True)";
    let folder = tempfile::tempdir().unwrap();
    let mut command = local(&sidecar, program);
    let running = Running::start({
        command.arg(folder.path().join("go"));
        command
    });
    assert!(throttle(&sidecar, &["--all", "--duty", "0"]).status.success());
    sidecar.signal(libc::SIGKILL);
    sidecar.wait(5 * SECOND);
    std::fs::write(folder.path().join("go"), "").unwrap();
    let (success, stdout, stderr) = running.finish();
    assert!(success, "{stderr}");
    assert_eq!(stdout, "[500]\n");
    assert_eq!(stderr, "lightos: the sidecar has ended; this program goes on without it\n");
}

#[test]
fn a_stopped_sidecar_does_not_wait_for_local_programs() {
    let mut sidecar = Sidecar::start();
    let program = "begin(); print('ready', flush=True); time.sleep(30)";
    let mut running = Running::start(local(&sidecar, program));
    let start = Instant::now();
    sidecar.signal(libc::SIGTERM);
    assert_eq!(sidecar.wait(10 * SECOND), Some(0));
    assert!(start.elapsed() < 2 * SECOND, "took {:?}", start.elapsed());
    assert!(running.is_running());
    let _ = running.child.kill();
    running.finish();
}

#[test]
fn a_forked_child_of_a_local_program_is_no_tenant() {
    let program = "begin(); load(); allocate()\npid = os.fork()\nif pid == 0: os._exit(0)\nos.waitpid(pid, 0)\nlaunch(3); print(values())";
    let (stdout, stderr, tenant) = run(&["--dispatch", "local"], &[], program);
    assert_eq!((stdout.as_str(), stderr.as_str(), tenant["launches"].as_u64()), ("[3]\n", "", Some(3)));
}

#[test]
fn without_a_sidecar_a_local_program_runs_natively_or_not_at_all() {
    let bare = |require: bool| {
        let mut command = native(python("print(cuda.cuInit(0))"));
        command.env("LD_PRELOAD", lightos_tests::intercept()).env("LIGHTOS_SOCKET", "/nonexistent/socket");
        command.env("LIGHTOS_DISPATCH", "local");
        if require {
            command.env("LIGHTOS_REQUIRE", "1");
        }
        done(&mut command)
    };
    let (stdout, stderr) = bare(false);
    assert!(stdout == "0\n" && stderr.contains("running natively"), "{stdout}{stderr}");
    assert_eq!(bare(true).0, "802\n");
}

#[test]
fn auto_forwards_what_it_can_and_leaves_ranks_alone() {
    let mode = |environment: &[(&str, &str)]| {
        let (stdout, stderr, tenant) = run(&[], environment, WORK);
        assert_eq!((stdout.as_str(), stderr.as_str()), ("[500]\n", ""), "{environment:?}");
        tenant["mode"].as_str().unwrap().to_owned()
    };
    assert_eq!(mode(&[]), "sidecar");
    assert_eq!(mode(&[("WORLD_SIZE", "1")]), "sidecar");
    assert_eq!(mode(&[("WORLD_SIZE", "2")]), "local");
    assert_eq!(mode(&[("OMPI_COMM_WORLD_SIZE", "4")]), "local");
}

const TWO_DEVICES: [(&str, &str); 1] = [("SOFTGPU_DEVICES", "2")];

#[test]
fn auto_turns_local_when_a_second_device_is_used_first() {
    // Streams, events and modules of the first device were made while the choice was open.
    let program = "begin(); load()\nstream = ctypes.c_void_p(); ok(cuda.cuStreamCreate(ctypes.byref(stream), 1))\n\
        other = ctypes.c_void_p(); ok(cuda.cuDevicePrimaryCtxRetain(ctypes.byref(other), 1)); ok(cuda.cuCtxSetCurrent(other))\n\
        there = ctypes.c_uint64(); ok(cuda.cuMemAlloc_v2(ctypes.byref(there), ctypes.c_size_t(64)))\n\
        ok(cuda.cuCtxSetCurrent(context)); allocate(); launch(7); ok(cuda.cuStreamSynchronize(stream)); print(values())";
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report.json");
    let mut run = command(["run", "--softgpu", "--report"]);
    let python = python(program);
    run.arg(&report).arg("--").arg(python.get_program()).args(python.get_args()).envs(TWO_DEVICES);
    let (stdout, stderr) = done(&mut run);
    assert_eq!((stdout.as_str(), stderr.as_str()), ("[7]\n", ""));
    let report: Value = serde_json::from_str(&std::fs::read_to_string(&report).unwrap()).unwrap();
    let tenants = report["tenants"].as_array().unwrap();
    let modes: Vec<_> = tenants.iter().map(|tenant| tenant["mode"].as_str().unwrap()).collect();
    assert_eq!(modes, ["sidecar", "local"], "the executor went as soon as it was not needed");
    assert_eq!(
        (tenants[0]["executor_exit"].as_str(), tenants[1]["launches"].as_u64()),
        (Some("clean"), Some(7))
    );
}

#[test]
fn a_second_device_that_comes_too_late_is_refused_with_advice() {
    let program = "begin(); load(); allocate(); launch(2)\n\
        other = ctypes.c_void_p(); ok(cuda.cuDevicePrimaryCtxRetain(ctypes.byref(other), 1)); ok(cuda.cuCtxSetCurrent(other))\n\
        there = ctypes.c_uint64(); print(cuda.cuMemAlloc_v2(ctypes.byref(there), ctypes.c_size_t(64)))\n\
        ok(cuda.cuCtxSetCurrent(context)); print(values())";
    let (stdout, stderr, tenant) = run(&[], &TWO_DEVICES, program);
    assert_eq!(stdout, "801\n[2]\n", "the first device goes on");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.contains("LIGHTOS_DISPATCH=local"), "{stderr}");
    assert_eq!(tenant["mode"], "sidecar");
}

/// A library that resolves the driver's functions as NCCL does when it starts, under NCCL's name.
fn collective(folder: &Path) -> std::path::PathBuf {
    let (source, library) = (folder.join("nccl.c"), folder.join("libnccl.so.2"));
    let text = "#include <dlfcn.h>\nvoid* start(void) { return dlsym(dlopen(\"libcuda.so.1\", RTLD_NOW), \"cuDeviceGet\"); }\n";
    std::fs::write(&source, text).unwrap();
    let cc = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .arg(&library)
        .arg(&source)
        .arg("-ldl")
        .status();
    assert!(cc.unwrap().success());
    library
}

#[test]
fn auto_turns_local_when_nccl_starts_before_memory_is_allocated() {
    let folder = tempfile::tempdir().unwrap();
    let library = collective(folder.path());
    let start =
        format!("nccl = ctypes.CDLL({library:?}); nccl.start.restype = ctypes.c_void_p; assert nccl.start()");
    let modes = |program: &str| {
        let report = folder.path().join("report.json");
        let mut run = command(["run", "--softgpu", "--report"]);
        let python = python(program);
        run.arg(&report).arg("--").arg(python.get_program()).args(python.get_args());
        let (stdout, stderr) = done(&mut run);
        assert_eq!((stdout.as_str(), stderr.as_str()), ("[5]\n", ""));
        let report: Value = serde_json::from_str(&std::fs::read_to_string(&report).unwrap()).unwrap();
        let modes = report["tenants"]
            .as_array()
            .unwrap()
            .iter()
            .map(|tenant| tenant["mode"].as_str().unwrap().to_owned());
        modes.collect::<Vec<_>>()
    };
    let early = format!("begin(); load(); {start}; allocate(); launch(5); print(values())");
    assert_eq!(modes(&early), ["sidecar", "local"]);
    let late = format!("begin(); load(); allocate(); {start}; launch(5); print(values())");
    assert_eq!(modes(&late), ["sidecar"], "memory lies with the executor already");
}

#[test]
fn a_mode_that_means_nothing_is_named() {
    let sidecar = Sidecar::start();
    let mut command = sidecar.preloaded(python(WORK));
    let (stdout, stderr) = done(command.env("LIGHTOS_DISPATCH", "remote"));
    assert_eq!(stdout, "[500]\n");
    assert!(
        stderr.lines().count() == 1 && stderr.contains("LIGHTOS_DISPATCH=remote") && stderr.contains("local"),
        "{stderr}"
    );
    let wrong = native(Command::new(lightos_tests::lightos()))
        .args(["run", "--dispatch", "remote", "true"])
        .output()
        .unwrap();
    assert_eq!(wrong.status.code(), Some(2));
}
