//! Kernels and short forms of driver calls for the launch suites.
#![allow(dead_code)]

use std::ffi::{CStr, c_void};
use std::fmt::Debug;
use std::ptr::{self, null_mut};

pub use cudarc::driver::sys;

/// What a body notes: compared between the native run and the one under the shim.
#[derive(Debug, Default)]
pub struct Notes(pub Vec<String>);

impl Notes {
    /// Notes a value under a name.
    pub fn add(&mut self, what: &str, value: impl Debug) {
        self.0.push(format!("{what}: {value:?}"));
    }

    /// Notes a result code.
    pub fn code(&mut self, what: &str, code: sys::CUresult) {
        self.add(what, code as u32);
    }
}

/// Panics unless the call succeeded.
#[track_caller]
pub fn ok(code: sys::CUresult) {
    assert_eq!(code as u32, 0, "{code:?}");
}

/// Initialises the driver and makes the primary context current.
pub fn start() {
    let mut context = null_mut();
    // SAFETY: valid out-pointers.
    unsafe {
        ok(sys::cuInit(0));
        ok(sys::cuDevicePrimaryCtxRetain(&mut context, 0));
        ok(sys::cuCtxSetCurrent(context));
    }
}

/// Zeroed words in device memory.
pub fn words(count: usize) -> u64 {
    let mut address = 0;
    // SAFETY: a valid out-pointer; the range was just allocated.
    unsafe {
        ok(sys::cuMemAlloc_v2(&mut address, count * 4));
        ok(sys::cuMemsetD32_v2(address, 0, count));
        // A memset does not wait, and not every stream waits for it.
        ok(sys::cuCtxSynchronize());
    }
    address
}

/// Copies words to the device.
pub fn put(address: u64, words: &[u32]) {
    // SAFETY: the slice is valid for its length.
    ok(unsafe { sys::cuMemcpyHtoD_v2(address, words.as_ptr().cast(), size_of_val(words)) });
}

/// Copies words from the device, once everything before is done on the NULL stream.
pub fn get(address: u64, count: usize) -> Vec<u32> {
    let mut words = vec![0xdead_beef_u32; count];
    // SAFETY: the vector is valid for its length.
    ok(unsafe { sys::cuMemcpyDtoH_v2(words.as_mut_ptr().cast(), address, count * 4) });
    words
}

/// Waits for the context.
pub fn synchronize() {
    // SAFETY: no arguments.
    ok(unsafe { sys::cuCtxSynchronize() });
}

/// The kernels of these suites:
/// - `add(u64 p, u32 value, u32 n)`: p[i] += value
/// - `times(u64 p, u32 value, u32 n)`: p[i] *= value
/// - `mixed(u64 out, u8 a, u16 b, u32 c, f64 d, {u8, u64, u16})`: writes what it got
/// - `big(u64 out, u8[4000])`: the sum of the words of the array
/// - `shared_size(u64 out)`: bytes of dynamic shared memory
/// - `nothing()`
pub const KERNELS: &CStr = {
    const TEXT: &str = concat!(
        r#"
.version 7.0
.target sm_70
.address_size 64
.visible .global .align 4 .u32 counter = 5;
.visible .entry nothing()
{
    ret;
}
.visible .entry add(.param .u64 p, .param .u32 value, .param .u32 n)
{
    .reg .pred %q;
    .reg .b32 %r<7>;
    .reg .b64 %rd<4>;
    ld.param.u64 %rd1, [p];
    ld.param.u32 %r6, [value];
    ld.param.u32 %r1, [n];
    mov.u32 %r2, %ctaid.x;
    mov.u32 %r3, %ntid.x;
    mov.u32 %r4, %tid.x;
    mad.lo.s32 %r5, %r2, %r3, %r4;
    setp.ge.u32 %q, %r5, %r1;
    @%q bra DONE;
    mul.wide.u32 %rd2, %r5, 4;
    add.s64 %rd3, %rd1, %rd2;
    ld.global.u32 %r2, [%rd3];
    add.s32 %r2, %r2, %r6;
    st.global.u32 [%rd3], %r2;
DONE:
    ret;
}
.visible .entry times(.param .u64 p, .param .u32 value, .param .u32 n)
{
    .reg .pred %q;
    .reg .b32 %r<7>;
    .reg .b64 %rd<4>;
    ld.param.u64 %rd1, [p];
    ld.param.u32 %r6, [value];
    ld.param.u32 %r1, [n];
    mov.u32 %r2, %ctaid.x;
    mov.u32 %r3, %ntid.x;
    mov.u32 %r4, %tid.x;
    mad.lo.s32 %r5, %r2, %r3, %r4;
    setp.ge.u32 %q, %r5, %r1;
    @%q bra DONE;
    mul.wide.u32 %rd2, %r5, 4;
    add.s64 %rd3, %rd1, %rd2;
    ld.global.u32 %r2, [%rd3];
    mul.lo.u32 %r2, %r2, %r6;
    st.global.u32 [%rd3], %r2;
DONE:
    ret;
}
.visible .entry mixed(
    .param .u64 out, .param .u8 a, .param .u16 b, .param .u32 c, .param .f64 d, .param .align 8 .b8 e[24])
{
    .reg .b16 %h<3>;
    .reg .b32 %r<4>;
    .reg .b64 %rd<4>;
    ld.param.u64 %rd1, [out];
    ld.param.u8 %h1, [a];
    cvt.u32.u16 %r1, %h1;
    st.global.u32 [%rd1], %r1;
    ld.param.u16 %h2, [b];
    cvt.u32.u16 %r1, %h2;
    st.global.u32 [%rd1+4], %r1;
    ld.param.u32 %r2, [c];
    st.global.u32 [%rd1+8], %r2;
    ld.param.b64 %rd2, [d];
    st.global.b64 [%rd1+16], %rd2;
    ld.param.u8 %h1, [e];
    cvt.u32.u16 %r1, %h1;
    st.global.u32 [%rd1+24], %r1;
    ld.param.b64 %rd3, [e+8];
    st.global.b64 [%rd1+32], %rd3;
    ld.param.u16 %h2, [e+16];
    cvt.u32.u16 %r1, %h2;
    st.global.u32 [%rd1+40], %r1;
    ret;
}
.visible .entry big(.param .u64 out, .param .align 4 .b8 data[4000])
{
    .reg .b32 %r<4>;
    .reg .b64 %rd<2>;
    ld.param.u64 %rd1, [out];
    ld.param.u32 %r1, [data];
    ld.param.u32 %r2, [data+2000];
    add.s32 %r1, %r1, %r2;
    ld.param.u32 %r3, [data+3996];
    add.s32 %r1, %r1, %r3;
    st.global.u32 [%rd1], %r1;
    ret;
}
.visible .entry shared_size(.param .u64 out)
{
    .reg .b32 %r<2>;
    .reg .b64 %rd<2>;
    ld.param.u64 %rd1, [out];
    mov.u32 %r1, %dynamic_smem_size;
    st.global.u32 [%rd1], %r1;
    ret;
}
"#,
        "\0"
    );
    match CStr::from_bytes_with_nul(TEXT.as_bytes()) {
        Ok(text) => text,
        Err(_) => panic!("one NUL, at the end"),
    }
};

/// A module with [`KERNELS`].
pub fn load() -> sys::CUmodule {
    let mut module = null_mut();
    // SAFETY: the image is a NUL-terminated PTX text.
    ok(unsafe { sys::cuModuleLoadData(&mut module, KERNELS.as_ptr().cast()) });
    module
}

/// A function of a module.
pub fn function(module: sys::CUmodule, name: &CStr) -> sys::CUfunction {
    let mut function = null_mut();
    // SAFETY: the module is loaded.
    ok(unsafe { sys::cuModuleGetFunction(&mut function, module, name.as_ptr()) });
    function
}

/// A stream; `flags` are `CUstream_flags`.
pub fn stream(flags: u32) -> sys::CUstream {
    let mut stream = null_mut();
    // SAFETY: a valid out-pointer.
    ok(unsafe { sys::cuStreamCreate(&mut stream, flags) });
    stream
}

/// An event; `flags` are `CUevent_flags`.
pub fn event(flags: u32) -> sys::CUevent {
    let mut event = null_mut();
    // SAFETY: a valid out-pointer.
    ok(unsafe { sys::cuEventCreate(&mut event, flags) });
    event
}

/// Launches with one block of `threads` threads.
pub fn launch(
    function: sys::CUfunction,
    threads: u32,
    stream: sys::CUstream,
    params: &mut [*mut c_void],
) -> sys::CUresult {
    let params = if params.is_empty() { null_mut() } else { params.as_mut_ptr() };
    // SAFETY: the tests pass parameters as the kernel has them.
    unsafe { sys::cuLaunchKernel(function, 1, 1, 1, threads, 1, 1, 0, stream, params, null_mut()) }
}

/// Launches `add` or `times` on `count` words.
#[track_caller]
pub fn apply(function: sys::CUfunction, address: u64, value: u32, count: u32, stream: sys::CUstream) {
    let (mut address, mut value, mut n) = (address, value, count);
    let mut params = [(&raw mut address).cast(), (&raw mut value).cast(), (&raw mut n).cast()];
    ok(launch(function, count.max(1), stream, &mut params));
}

/// The pointer of a number, for handles and keys that are numbers.
pub fn number(value: usize) -> *mut c_void {
    ptr::without_provenance_mut(value)
}
