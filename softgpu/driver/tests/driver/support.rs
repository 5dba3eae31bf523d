//! What the tests share: a context for the thread, result checks, kernels, and tests in a process of their own.

use std::ffi::{CString, c_void};
use std::process::Command;

use cuda::api::{context, init, module};

pub const SUCCESS: u32 = 0;
pub const INVALID_VALUE: u32 = 1;
pub const INVALID_CONTEXT: u32 = 201;
pub const INVALID_HANDLE: u32 = 400;
pub const NOT_READY: u32 = 600;
pub const LAUNCH_OUT_OF_RESOURCES: u32 = 701;

/// Panics with the call's name where it failed.
macro_rules! ok {
    ($call:expr) => {{
        // SAFETY: the test passes live pointers of the documented types.
        #[allow(unused_unsafe)]
        let code = unsafe { $call };
        assert_eq!(code, 0, "{}", stringify!($call));
    }};
}

/// The result code of a call.
macro_rules! code {
    ($call:expr) => {{
        // SAFETY: the test passes live pointers of the documented types.
        #[allow(unused_unsafe)]
        unsafe {
            $call
        }
    }};
}

pub(crate) use {code, ok};

/// Makes the primary context of device 0 current on this thread; it is never released.
pub fn primary() -> u64 {
    let mut handle = 0;
    ok!(init::cuInit(0));
    ok!(context::cuDevicePrimaryCtxRetain(&mut handle, 0));
    ok!(context::cuCtxSetCurrent(handle));
    handle
}

/// Loads PTX text and finds one of its kernels: module and function.
pub fn kernel(ptx: &str, name: &str) -> (u64, u64) {
    let (text, name) = (CString::new(ptx).unwrap(), CString::new(name).unwrap());
    let (mut module, mut function) = (0, 0);
    ok!(module::cuModuleLoadData(&mut module, text.as_ptr().cast()));
    ok!(module::cuModuleGetFunction(&mut function, module, name.as_ptr()));
    (module, function)
}

/// Kernel parameters: pointers to the values.
pub fn params(values: &mut [*mut c_void]) -> *mut *mut c_void {
    values.as_mut_ptr()
}

/// A pointer to a parameter's value.
pub fn param<T>(value: &mut T) -> *mut c_void {
    std::ptr::from_mut(value).cast()
}

/// Changes a parameter's value through its pointer.
pub fn set<T>(at: *mut c_void, value: T) {
    // SAFETY: the pointer came from `param` on a live value of this type.
    unsafe { at.cast::<T>().write(value) };
}

/// Runs a test in a fresh process, because a device fault or a fork would spoil this one, or because other tests' allocations would
/// take the addresses that it has freed. `name` is the test's full path.
pub fn in_own_process(name: &str, body: impl FnOnce()) {
    if std::env::var("SOFTGPU_TEST_CHILD").as_deref() == Ok(name) {
        return body();
    }
    // A state file of its own: the figures of other processes change under a test.
    let file = format!("softgpu-test-{}-{}", std::process::id(), name.replace("::", "-"));
    let state = std::env::temp_dir().join(file);
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture"]);
    let output = command.env("SOFTGPU_TEST_CHILD", name).env("SOFTGPU_STATE", &state).output().unwrap();
    let _ = std::fs::remove_file(state);
    assert!(
        output.status.success() && String::from_utf8_lossy(&output.stdout).contains("1 passed"),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// c[i] = a[i] + b[i] for i < n, in f32.
pub const VECTOR_ADD: &str = r"
.version 8.0
.target sm_80
.address_size 64
.visible .entry vector_add(
    .param .u64 a, .param .u64 b, .param .u64 c, .param .u32 n
)
{
    .reg .pred %p<2>;
    .reg .b32 %r<6>;
    .reg .f32 %f<4>;
    .reg .b64 %rd<11>;
    ld.param.u64 %rd1, [a];
    ld.param.u64 %rd2, [b];
    ld.param.u64 %rd3, [c];
    ld.param.u32 %r2, [n];
    mov.u32 %r3, %ctaid.x;
    mov.u32 %r4, %ntid.x;
    mov.u32 %r5, %tid.x;
    mad.lo.s32 %r1, %r3, %r4, %r5;
    setp.ge.u32 %p1, %r1, %r2;
    @%p1 bra done;
    mul.wide.u32 %rd4, %r1, 4;
    add.s64 %rd5, %rd1, %rd4;
    ld.global.f32 %f1, [%rd5];
    add.s64 %rd6, %rd2, %rd4;
    ld.global.f32 %f2, [%rd6];
    add.f32 %f3, %f1, %f2;
    add.s64 %rd7, %rd3, %rd4;
    st.global.f32 [%rd7], %f3;
done:
    ret;
}
";

/// Adds `step` to the word at `at`, one thread; with a module variable `total` and a constant `scale`.
pub const BUMP: &str = r"
.version 8.0
.target sm_80
.address_size 64
.visible .global .align 4 .u32 total = 5;
.visible .const .align 4 .u32 scale = 3;
.visible .entry bump(.param .u64 at, .param .u32 step)
{
    .reg .b32 %r<6>;
    .reg .b64 %rd<3>;
    ld.param.u64 %rd1, [at];
    ld.param.u32 %r1, [step];
    ld.global.u32 %r2, [%rd1];
    add.u32 %r3, %r2, %r1;
    st.global.u32 [%rd1], %r3;
    ld.global.u32 %r4, [total];
    ld.const.u32 %r5, [scale];
    add.u32 %r4, %r4, %r5;
    st.global.u32 [total], %r4;
    ret;
}
.visible .entry nothing()
{
    ret;
}
";
