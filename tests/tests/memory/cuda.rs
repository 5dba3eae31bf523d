//! The driver calls of the memory suites, as plain numbers.
#![allow(dead_code)]

use std::ffi::c_void;
use std::fmt::Debug;
use std::ptr;

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
    let mut context = ptr::null_mut();
    // SAFETY: valid out-pointers.
    unsafe {
        ok(sys::cuInit(0));
        ok(sys::cuDevicePrimaryCtxRetain(&mut context, 0));
        ok(sys::cuCtxSetCurrent(context));
    }
}

/// Device memory.
pub fn allocate(bytes: usize) -> u64 {
    let mut address = 0;
    // SAFETY: a valid out-pointer.
    ok(unsafe { sys::cuMemAlloc_v2(&mut address, bytes) });
    address
}

pub fn free(address: u64) {
    // SAFETY: takes a number.
    ok(unsafe { sys::cuMemFree_v2(address) });
}

/// Free and total device memory, in bytes.
pub fn memory() -> (usize, usize) {
    let (mut free, mut total) = (0, 0);
    // SAFETY: valid out-pointers.
    ok(unsafe { sys::cuMemGetInfo_v2(&mut free, &mut total) });
    (free, total)
}

pub fn upload(address: u64, bytes: &[u8]) {
    // SAFETY: the slice is valid for its length.
    ok(unsafe { sys::cuMemcpyHtoD_v2(address, bytes.as_ptr().cast(), bytes.len()) });
}

pub fn download(address: u64, bytes: usize) -> Vec<u8> {
    let mut data = vec![0xa5_u8; bytes];
    // SAFETY: the vector is valid for its length.
    ok(unsafe { sys::cuMemcpyDtoH_v2(data.as_mut_ptr().cast(), address, bytes) });
    data
}

/// Bytes that differ everywhere.
pub fn pattern(bytes: usize, seed: u32) -> Vec<u8> {
    let mut state = seed | 1;
    (0..bytes)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as u8
        })
        .collect()
}

/// FNV-1a, for notes about many bytes.
pub fn digest(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// A kernel `add_one(u32 *p, u32 n)` and a global `u32 table[16]` with 1, 2, 3, 4 at its start.
pub const MODULE: &str = concat!(
    r#"
.version 7.0
.target sm_70
.address_size 64
.visible .global .align 4 .u32 table[16] = {1, 2, 3, 4};
.visible .entry add_one(.param .u64 p, .param .u32 n)
{
    .reg .pred %q;
    .reg .b32 %r<6>;
    .reg .b64 %rd<4>;
    ld.param.u64 %rd1, [p];
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
    add.s32 %r2, %r2, 1;
    st.global.u32 [%rd3], %r2;
DONE:
    ret;
}
"#,
    "\0"
);

pub fn load() -> sys::CUmodule {
    let mut module = ptr::null_mut();
    // SAFETY: the image is a NUL-terminated PTX text.
    ok(unsafe { sys::cuModuleLoadData(&mut module, MODULE.as_ptr().cast()) });
    module
}

/// Runs `add_one` on `count` words at `address`, on the NULL stream, without waiting.
pub fn add_one(module: sys::CUmodule, address: u64, count: u32) {
    let mut function = ptr::null_mut();
    let (mut address, mut count) = (address, count);
    let mut params = [(&raw mut address).cast::<c_void>(), (&raw mut count).cast::<c_void>()];
    // SAFETY: the module is loaded, the parameters match the kernel's and live across the call.
    unsafe {
        ok(sys::cuModuleGetFunction(&mut function, module, c"add_one".as_ptr()));
        ok(sys::cuLaunchKernel(
            function,
            count.div_ceil(64),
            1,
            1,
            64,
            1,
            1,
            0,
            ptr::null_mut(),
            params.as_mut_ptr(),
            ptr::null_mut(),
        ));
    }
}

pub fn synchronize() -> sys::CUresult {
    // SAFETY: no arguments.
    unsafe { sys::cuCtxSynchronize() }
}
