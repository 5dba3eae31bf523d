//! Hooks of the launch functions.

use super::hooks;
use crate::edge::In;
use crate::ops::launch::{self as ops, Config, Shape, params::Arguments};
use crate::outcome::{Outcome, Reason};
use std::ffi::c_void;

hooks! {
    area launch;
    [launch] fn cuLaunchKernel(
        function: u64, gx: u32, gy: u32, gz: u32, bx: u32, by: u32, bz: u32, shared_bytes: u32, stream: u64,
        params: *mut *mut c_void, extra: *mut *mut c_void,
    ) ptsz cuLaunchKernel_ptsz[stream] => ops::kernel(
        function, Shape { grid: [gx, gy, gz], block: [bx, by, bz], shared_bytes }, stream, Arguments::new(params, extra),
    );
    [launch] fn cuLaunchKernelEx(config: *const Config, function: u64, params: *mut *mut c_void, extra: *mut *mut c_void)
        ptds cuLaunchKernelEx_ptsz[stream]
        => ops::ex(&In::new(config), function, Arguments::new(params, extra), stream);
    [launch] fn cuLaunchCooperativeKernel(
        function: u64, gx: u32, gy: u32, gz: u32, bx: u32, by: u32, bz: u32, shared_bytes: u32, stream: u64,
        params: *mut *mut c_void,
    ) ptsz cuLaunchCooperativeKernel_ptsz[stream] => ops::cooperative(
        function, Shape { grid: [gx, gy, gz], block: [bx, by, bz], shared_bytes }, stream,
        Arguments::new(params, std::ptr::null_mut()),
    );
    [launch] fn cuLaunchCooperativeKernelMultiDevice(list: *mut c_void, devices: u32, flags: u32) => Outcome::Refuse(Reason::OtherDevice);
}
