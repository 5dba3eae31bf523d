//! Hooks of the pinned host memory functions.

use super::hooks;
use crate::edge::Out;
use crate::ops::host;
use std::ffi::c_void;

hooks! {
    area host;
    fn cuMemAllocHost_v2(out: *mut *mut c_void, bytes: usize) => host::allocate(Out::new(out), bytes, 0);
    fn cuMemHostAlloc(out: *mut *mut c_void, bytes: usize, flags: u32) => host::allocate(Out::new(out), bytes, flags);
    fn cuMemFreeHost(pointer: *mut c_void) => host::free(pointer.addr() as u64);
    fn cuMemHostGetDevicePointer_v2(out: *mut u64, pointer: *mut c_void, flags: u32)
        => host::device_pointer(Out::new(out), pointer.addr() as u64, flags);
    fn cuMemHostGetFlags(out: *mut u32, pointer: *mut c_void) => host::flags(Out::new(out), pointer.addr() as u64);
    fn cuMemHostRegister(pointer: *mut c_void, bytes: usize, flags: u32) => host::register(pointer, bytes, flags);
    fn cuMemHostRegister_v2(pointer: *mut c_void, bytes: usize, flags: u32) => host::register(pointer, bytes, flags);
    fn cuMemHostUnregister(pointer: *mut c_void) => host::unregister(pointer);
}
