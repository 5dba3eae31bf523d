//! Hooks of the module functions.

use super::hooks;
use crate::edge::Out;
use crate::ops::function::{Image, found};
use crate::ops::module::{self as ops, Options, Source};
use crate::outcome::{Outcome, Reason};
use std::ffi::{c_char, c_void};

hooks! {
    area module;
    fn cuModuleLoad(out: *mut u64, path: *const c_char) => ops::load(
        Out::new(out), Source::File(path), Options::NONE, false,
        |out| real::cuModuleLoad(out, path), |module| real::cuModuleUnload(module),
    );
    fn cuModuleLoadData(out: *mut u64, image: *const c_void) => ops::load(
        Out::new(out), Source::Memory(image), Options::NONE, false,
        |out| real::cuModuleLoadData(out, image), |module| real::cuModuleUnload(module),
    );
    fn cuModuleLoadDataEx(
        out: *mut u64, image: *const c_void, count: u32, names: *mut u32, values: *mut *mut c_void,
    ) => ops::load(
        Out::new(out), Source::Memory(image), Options::new(names, values, count), false,
        |out| real::cuModuleLoadDataEx(out, image, count, names, values), |module| real::cuModuleUnload(module),
    );
    fn cuModuleLoadFatBinary(out: *mut u64, image: *const c_void) => ops::load(
        Out::new(out), Source::Memory(image), Options::NONE, false,
        |out| real::cuModuleLoadFatBinary(out, image), |module| real::cuModuleUnload(module),
    );
    fn cuModuleUnload(module: u64) => ops::unload(module, false, || real::cuModuleUnload(module));
    fn cuModuleGetFunction(out: *mut u64, module: u64, name: *const c_char) => found(
        Out::new(out), Image { handle: module, is_library: false }, |out| real::cuModuleGetFunction(out, module, name),
    );
    /// The functions say themselves where they come from when they are first used.
    fn cuModuleEnumerateFunctions(functions: *mut u64, count: u32, module: u64) => Outcome::PassThrough(Reason::LocalQuery);
}
