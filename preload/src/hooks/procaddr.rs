//! Hooks of the driver's own look-up, in its two signatures.

use super::hooks;
use crate::ops;
use std::ffi::{c_char, c_void};

hooks! {
    area procaddr;
    [always] fn cuGetProcAddress(symbol: *const c_char, function: *mut *mut c_void, version: i32, flags: u64)
        => ops::procaddr::answer(real::cuGetProcAddress(symbol, function, version, flags), symbol, function);
    [always] fn cuGetProcAddress_v2(symbol: *const c_char, function: *mut *mut c_void, version: i32, flags: u64, status: *mut u32)
        => ops::procaddr::answer(real::cuGetProcAddress_v2(symbol, function, version, flags, status), symbol, function);
}
