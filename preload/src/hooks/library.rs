//! Hooks of the library and kernel functions.

use super::hooks;
use crate::edge::Out;
use crate::ops::function::{Image, enumerated, found_kernel, function_of};
use crate::ops::global::absent;
use crate::ops::module::{Options, Source, load, managed_variable, of_library, unload};
use std::ffi::{c_char, c_void};

hooks! {
    area library;
    fn cuLibraryLoadData(
        out: *mut u64, image: *const c_void, names: *mut u32, values: *mut *mut c_void, count: u32,
        library_names: *mut u32, library_values: *mut *mut c_void, library_count: u32,
    ) => load(
        Out::new(out), Source::Memory(image), Options::new(names, values, count), true,
        |out| real::cuLibraryLoadData(out, image, names, values, count, library_names, library_values, library_count),
        |library| real::cuLibraryUnload(library),
    );
    fn cuLibraryLoadFromFile(
        out: *mut u64, path: *const c_char, names: *mut u32, values: *mut *mut c_void, count: u32,
        library_names: *mut u32, library_values: *mut *mut c_void, library_count: u32,
    ) => load(
        Out::new(out), Source::File(path), Options::new(names, values, count), true,
        |out| real::cuLibraryLoadFromFile(out, path, names, values, count, library_names, library_values, library_count),
        |library| real::cuLibraryUnload(library),
    );
    fn cuLibraryUnload(library: u64) => unload(library, true, || real::cuLibraryUnload(library));
    fn cuLibraryGetModule(out: *mut u64, library: u64)
        => of_library(Out::new(out), library, |out| real::cuLibraryGetModule(out, library));
    fn cuLibraryGetKernel(out: *mut u64, library: u64, name: *const c_char) => found_kernel(
        Out::new(out), Image { handle: library, is_library: true }, |out| real::cuLibraryGetKernel(out, library, name),
    );
    fn cuLibraryEnumerateKernels(kernels: *mut u64, count: u32, library: u64) => enumerated(
        Out::new(kernels), count, Image { handle: library, is_library: true },
        || real::cuLibraryEnumerateKernels(kernels, count, library),
    );
    fn cuLibraryGetManaged(address: *mut u64, bytes: *mut usize, library: u64, name: *const c_char)
        => managed_variable(real::cuLibraryGetManaged(address, bytes, library, name));
    fn cuLibraryGetUnifiedFunction(address: *mut *mut c_void, library: u64, symbol: *const c_char)
        => absent(real::cuLibraryGetUnifiedFunction(address, library, symbol));
    fn cuKernelGetFunction(out: *mut u64, kernel: u64)
        => function_of(Out::new(out), kernel, |out| real::cuKernelGetFunction(out, kernel));
}
