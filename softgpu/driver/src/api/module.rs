//! Modules and libraries.

use std::ffi::c_void;

use crate::abi::Text;
use crate::edge::{exports, put, put_some, text};
use crate::error::{Error, Result};
use crate::jit::Options;
use crate::{capture, context, library, module};

/// # Safety
/// `name` is null or a C string that outlives `'a`.
unsafe fn name<'a>(name: Text) -> Result<&'a str> {
    // SAFETY: this function's contract.
    unsafe { text(name) }?.to_str().map_err(|_| Error::NOT_FOUND)
}

/// Copies up to `room` handles.
///
/// # Safety
/// `out` is null or valid for `room` values.
unsafe fn put_handles(out: *mut u64, room: u32, handles: &[u64]) -> Result {
    if out.is_null() || room == 0 {
        return Err(Error::INVALID_VALUE);
    }
    for (i, handle) in handles.iter().take(room as usize).enumerate() {
        // SAFETY: `i` is below `room`.
        unsafe { out.add(i).write_unaligned(*handle) };
    }
    Ok(())
}

exports! { TABLE:
    entry cuModuleLoadData: (out: *mut u64, image: *const c_void) {
        context::healthy()?;
        if out.is_null() { Err(Error::INVALID_VALUE) } else { put(out, module::load(image, &Options::NONE)?) }
    }
    entry cuModuleLoadDataEx: (
        out: *mut u64, image: *const c_void, count: u32, names: *const u32, values: *mut *mut c_void
    ) {
        context::healthy()?;
        if out.is_null() { Err(Error::INVALID_VALUE) } else {
            put(out, module::load(image, &Options::new(names, values, count)?)?)
        }
    }
    entry cuModuleLoadFatBinary: (out: *mut u64, image: *const c_void) {
        context::healthy()?;
        if out.is_null() { Err(Error::INVALID_VALUE) } else { put(out, module::load(image, &Options::NONE)?) }
    }
    entry cuModuleLoad: (out: *mut u64, path: Text) {
        context::healthy()?;
        if out.is_null() {
            return Err(Error::INVALID_VALUE);
        }
        let bytes = module::read_file(text(path)?)?;
        put(out, module::load(bytes.as_ptr().cast(), &Options::NONE)?)
    }
    entry cuModuleUnload: (module: u64) {
        capture::forbid_unsafe()?;
        module::unload(module)
    }
    entry cuModuleGetLoadingMode: (mode: *mut u32) {
        // CU_MODULE_LAZY_LOADING, the default since CUDA 12.2.
        put(mode, 2)
    }
    entry cuModuleGetFunction: (out: *mut u64, module: u64, function: Text) {
        context::healthy()?;
        let (module, function) = (module::find(module)?, name(function)?);
        if out.is_null() { Err(Error::INVALID_VALUE) } else { put(out, module.function(function)?) }
    }
    entry cuModuleGetFunctionCount: (count: *mut u32, module: u64) {
        put(count, module::find(module)?.kernel_names().len() as u32)
    }
    entry cuModuleEnumerateFunctions: (out: *mut u64, room: u32, module: u64) {
        let module = module::find(module)?;
        let handles: Result<Vec<u64>> = module.kernel_names().iter().map(|name| module.function(name)).collect();
        put_handles(out, room, &handles?)
    }
    entry cuModuleGetGlobal_v2: (address: *mut u64, bytes: *mut usize, module: u64, global: Text) {
        context::healthy()?;
        let (start, length) = module::find(module)?.global(name(global)?)?;
        put_some(address, start);
        put_some(bytes, length);
        Ok(())
    }
    entry cuLibraryLoadData: (
        out: *mut u64, image: *const c_void, jit: *const u32, jit_values: *mut *mut c_void, jit_count: u32,
        _options: *const u32, _values: *mut *mut c_void, _count: u32
    ) {
        if out.is_null() { Err(Error::INVALID_VALUE) } else {
            put(out, library::load(image, &Options::new(jit, jit_values, jit_count)?)?)
        }
    }
    entry cuLibraryLoadFromFile: (
        out: *mut u64, path: Text, jit: *const u32, jit_values: *mut *mut c_void, jit_count: u32,
        _options: *const u32, _values: *mut *mut c_void, _count: u32
    ) {
        if out.is_null() {
            return Err(Error::INVALID_VALUE);
        }
        let bytes = module::read_file(text(path)?)?;
        put(out, library::load(bytes.as_ptr().cast(), &Options::new(jit, jit_values, jit_count)?)?)
    }
    entry cuLibraryUnload: (library: u64) {
        capture::forbid_unsafe()?;
        library::unload(library)
    }
    entry cuLibraryGetKernel: (out: *mut u64, library: u64, kernel: Text) {
        put(out, library::find(library)?.kernel(name(kernel)?)?)
    }
    entry cuLibraryGetKernelCount: (count: *mut u32, library: u64) {
        put(count, library::find(library)?.kernels().len() as u32)
    }
    entry cuLibraryEnumerateKernels: (out: *mut u64, room: u32, library: u64) {
        put_handles(out, room, &library::find(library)?.kernels())
    }
    entry cuLibraryGetModule: (out: *mut u64, library: u64) {
        let (library, context) = (library::find(library)?, context::healthy()?);
        put(out, library.module(context.device)?.handle)
    }
    entry cuLibraryGetGlobal: (address: *mut u64, bytes: *mut usize, library: u64, global: Text) {
        let (library, context) = (library::find(library)?, context::healthy()?);
        let (start, length) = library.module(context.device)?.global(name(global)?)?;
        put_some(address, start);
        put_some(bytes, length);
        Ok(())
    }
    entry cuLibraryGetManaged: (_address: *mut u64, _bytes: *mut usize, library: u64, global: Text) {
        library::find(library)?;
        name(global)?;
        // PTX has no managed variables but those with the `.attribute(.managed)` directive, which the machine does not tell apart.
        Err(Error::NOT_FOUND)
    }
    entry cuLibraryGetUnifiedFunction: (_function: *mut *mut c_void, library: u64, symbol: Text) {
        library::find(library)?;
        name(symbol)?;
        Err(Error::INVALID_VALUE)
    }
}
