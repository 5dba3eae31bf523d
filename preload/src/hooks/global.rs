//! Hooks of the look-ups of module and library globals.

use super::hooks;
use crate::edge::{Name, Out};
use crate::ops::global;
use std::ffi::c_char;

hooks! {
    area global;
    fn cuModuleGetGlobal_v2(address: *mut u64, bytes: *mut usize, module: u64, name: *const c_char)
        => global::get(Out::new(address), Out::new(bytes), module, Name::new(name), false);
    fn cuLibraryGetGlobal(address: *mut u64, bytes: *mut usize, library: u64, name: *const c_char)
        => global::get(Out::new(address), Out::new(bytes), library, Name::new(name), true);
}
