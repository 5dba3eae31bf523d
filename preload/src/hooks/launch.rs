//! Hooks of the launch functions.

use super::hooks;
use crate::edge::In;
use crate::ops::launch::{self as ops, Config, Shape, legacy, params::Arguments};
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
    fn cuFuncSetBlockShape(function: u64, x: i32, y: i32, z: i32)
        => legacy::set_block(function, [x, y, z], real::cuFuncSetBlockShape(function, x, y, z));
    fn cuFuncSetSharedSize(function: u64, bytes: u32)
        => legacy::set_shared(function, bytes, real::cuFuncSetSharedSize(function, bytes));
    fn cuParamSetSize(function: u64, bytes: u32)
        => legacy::set_size(function, bytes, real::cuParamSetSize(function, bytes));
    fn cuParamSeti(function: u64, offset: i32, value: u32)
        => legacy::set_params(function, offset, &value.to_ne_bytes(), real::cuParamSeti(function, offset, value));
    fn cuParamSetf(function: u64, offset: i32, value: f32)
        => legacy::set_params(function, offset, &value.to_ne_bytes(), real::cuParamSetf(function, offset, value));
    fn cuParamSetv(function: u64, offset: i32, data: *const c_void, bytes: u32)
        => legacy::set_bytes(function, offset, data, bytes, real::cuParamSetv(function, offset, data, bytes));
    [launch] fn cuLaunch(function: u64) => legacy::launch(function, [1, 1], 0);
    [launch] fn cuLaunchGrid(function: u64, width: i32, height: i32) => legacy::launch(function, [width, height], 0);
    [launch] fn cuLaunchGridAsync(function: u64, width: i32, height: i32, stream: u64)
        => legacy::launch(function, [width, height], stream);
    [launch] fn cuLaunchCooperativeKernelMultiDevice(list: *mut c_void, devices: u32, flags: u32) => Outcome::Refuse(Reason::OtherDevice);
}
