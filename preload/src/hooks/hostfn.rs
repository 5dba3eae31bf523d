//! Hooks of the functions that put the program's own functions into a stream.

use super::hooks;
use crate::ops::hostfn::{self as ops, HostFn, StreamCallback};
use std::ffi::c_void;

hooks! {
    area hostfn;
    fn cuLaunchHostFunc(stream: u64, function: Option<HostFn>, data: *mut c_void) ptsz cuLaunchHostFunc_ptsz[stream]
        => ops::launch(stream, function, data);
    fn cuLaunchHostFunc_v2(stream: u64, function: Option<HostFn>, data: *mut c_void, sync_mode: u32)
        ptsz cuLaunchHostFunc_v2_ptsz[stream] => ops::launch_with(stream, function, data, sync_mode);
    fn cuStreamAddCallback(stream: u64, callback: Option<StreamCallback>, data: *mut c_void, flags: u32)
        ptsz cuStreamAddCallback_ptsz[stream] => ops::add_callback(stream, callback, data, flags);
}
