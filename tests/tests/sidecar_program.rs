//! Real programs under the preload library when something ends under them: the executor, the daemon, a kernel.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lightos_tests::raw::RawClient;
use lightos_tests::{Sidecar, is_running, wait_until};

const SECOND: Duration = Duration::from_secs(1);

/// By ctypes: launches `kernel`, says so, waits for it, and says the result of the wait and of one call after it.
const PROGRAM: &str = r#"
import ctypes, sys
cuda = ctypes.CDLL('libcuda.so.1')
def ok(code): assert code == 0, code
context, module, function = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
address = ctypes.c_uint64()
ok(cuda.cuInit(0))
ok(cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0))
ok(cuda.cuCtxSetCurrent(context))
ok(cuda.cuMemAlloc_v2(ctypes.byref(address), ctypes.c_size_t(1 << 20)))
ptx = b'''.version 7.0
.target sm_70
.address_size 64
.visible .entry spin() {
LOOP:
  bra LOOP;
}
.visible .entry nothing() {
  ret;
}
.visible .entry stray() {
  .reg .b64 %rd<2>;
  .reg .b32 %r<2>;
  mov.u64 %rd1, 16;
  mov.u32 %r1, 1;
  st.global.u32 [%rd1], %r1;
  ret;
}
'''
ok(cuda.cuModuleLoadData(ctypes.byref(module), ptx))
ok(cuda.cuModuleGetFunction(ctypes.byref(function), module, sys.argv[1].encode()))
ok(cuda.cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, None, None, None))
print('launched', flush=True)
print(cuda.cuCtxSynchronize(), flush=True)
print(cuda.cuMemsetD8_v2(address, 0, ctypes.c_size_t(16)), flush=True)
"#;

/// A running program, past its launch.
struct Program {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Program {
    fn start(sidecar: &Sidecar, kernel: &str) -> Self {
        let mut python = Command::new("python3");
        python.args(["-c", PROGRAM, kernel]);
        let mut command = sidecar.preloaded(python);
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut program = Self { child, output };
        assert_eq!(program.line(), "launched", "{}\n{}", program.errors(), sidecar.log());
        program
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn errors(&mut self) -> String {
        let mut text = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            let _ = self.child.kill();
            let _ = stderr.read_to_string(&mut text);
        }
        text
    }

    /// The results of the wait and of the call after it, and how long the wait took from here.
    fn results(&mut self) -> (String, String, Duration) {
        let start = Instant::now();
        let wait = self.line();
        let waited = start.elapsed();
        (wait, self.line(), waited)
    }

    fn ends_normally(mut self) -> bool {
        wait_until(5 * SECOND, || self.child.try_wait().is_ok_and(|status| status.is_some()))
            && self.child.wait().unwrap().success()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_kernel_that_ends_leaves_no_error() {
    let sidecar = Sidecar::start();
    let mut program = Program::start(&sidecar, "nothing");
    let (wait, after, _) = program.results();
    assert_eq!((wait.as_str(), after.as_str()), ("0", "0"));
    assert!(program.ends_normally());
}

/// By ctypes: a kernel that prints, a wait, and the end of the process without any tidying.
const PRINTING: &str = r#"
import ctypes, os
cuda = ctypes.CDLL('libcuda.so.1')
def ok(code): assert code == 0, code
context, module, function = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
ok(cuda.cuInit(0))
ok(cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0))
ok(cuda.cuCtxSetCurrent(context))
ptx = b'''.version 7.0
.target sm_70
.address_size 64
.extern .func (.param .b32 result) vprintf (.param .b64 format, .param .b64 arguments);
.global .align 1 .b8 text[19] = {100,101,118,105,99,101,32,115,97,121,115,32,104,101,108,108,111,10,0};
.visible .entry say() {
  .reg .b64 %rd<3>;
  .reg .b32 %r<2>;
  mov.u64 %rd1, text;
  cvta.global.u64 %rd1, %rd1;
  mov.u64 %rd2, 0;
  {
    .param .b64 format;
    .param .b64 arguments;
    .param .b32 result;
    st.param.b64 [format], %rd1;
    st.param.b64 [arguments], %rd2;
    call.uni (result), vprintf, (format, arguments);
    ld.param.b32 %r1, [result];
  }
  ret;
}
'''
ok(cuda.cuModuleLoadData(ctypes.byref(module), ptx))
ok(cuda.cuModuleGetFunction(ctypes.byref(function), module, b'say'))
ok(cuda.cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, None, None, None))
ok(cuda.cuCtxSynchronize())
os._exit(0)
"#;

#[test]
fn what_kernels_print_appears_in_the_programs_output() {
    let sidecar = Sidecar::start();
    let program = || {
        let mut python = Command::new("python3");
        python.args(["-c", PRINTING]);
        python
    };
    let native = lightos_tests::native(program()).output().unwrap();
    let ours = sidecar.preloaded(program()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&native.stdout), "device says hello\n");
    assert_eq!(ours.stdout, native.stdout);
    assert_eq!(ours.status.code(), Some(0), "{}", String::from_utf8_lossy(&ours.stderr));
    assert!(sidecar.log().contains("tenant begins"), "the program ran natively:\n{}", sidecar.log());
}

#[test]
fn an_executor_killed_in_a_kernel_is_an_error_within_a_second() {
    let sidecar = Sidecar::start();
    let mut program = Program::start(&sidecar, "spin");
    let executors = sidecar.executors();
    assert_eq!(executors.len(), 1);
    // SAFETY: a child of the daemon, which runs; nothing but a signal is sent.
    unsafe { libc::kill(executors[0] as i32, libc::SIGKILL) };
    let (wait, after, waited) = program.results();
    assert!(waited < SECOND, "{waited:?}");
    assert_ne!(wait, "0");
    assert_eq!(wait, after, "the error stays");
    assert!(program.ends_normally());
    assert!(RawClient::connect(&sidecar.socket()).unwrap().is_served());
}

#[test]
fn a_killed_daemon_is_an_error_within_a_second() {
    let sidecar = Sidecar::start();
    let mut program = Program::start(&sidecar, "spin");
    sidecar.signal(libc::SIGKILL);
    let (wait, after, waited) = program.results();
    assert!(waited < SECOND, "{waited:?}");
    assert_ne!(wait, "0");
    assert_eq!(wait, after, "the error stays");
    assert!(program.ends_normally());
}

#[test]
fn a_kernel_that_strays_is_its_own_programs_error() {
    let sidecar = Sidecar::start();
    let bystander = RawClient::connect(&sidecar.socket()).unwrap();
    let mut program = Program::start(&sidecar, "stray");
    let (wait, after, waited) = program.results();
    // CUDA_ERROR_ILLEGAL_ADDRESS
    assert_eq!((wait.as_str(), after.as_str()), ("700", "700"));
    assert!(waited < SECOND, "{waited:?}");
    assert!(program.ends_normally());
    assert!(bystander.is_served());
    assert!(RawClient::connect(&sidecar.socket()).unwrap().is_served());
}

#[test]
fn a_program_killed_in_a_kernel_leaves_nothing() {
    let sidecar = Sidecar::start();
    let mut program = Program::start(&sidecar, "spin");
    let executors = sidecar.executors();
    program.child.kill().unwrap();
    program.child.wait().unwrap();
    assert!(wait_until(SECOND, || executors.iter().all(|pid| !is_running(*pid))), "{}", sidecar.log());
    assert!(wait_until(SECOND, || sidecar.status()["tenants"] == serde_json::json!([])));
}
