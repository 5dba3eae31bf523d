//! Functions, kernels and occupancy.

use std::ffi::{c_char, c_int};

use crate::device::Device;
use crate::edge::{exports, put, put_some};
use crate::error::{Error, Result};
use crate::function::{self, Function, param};
use crate::{context, library};

type SharedBytesOf = Option<unsafe extern "C" fn(threads: c_int) -> usize>;

/// `CU_DEVICE_INVALID` and the default device of kernel queries: the current context's.
fn device(ordinal: c_int) -> Result<Device> {
    Device::new(ordinal)
}

fn active_blocks(function: u64, threads: c_int, dynamic_bytes: usize) -> Result<c_int> {
    context::current()?;
    let threads = u32::try_from(threads).map_err(|_| Error::INVALID_VALUE)?;
    function::find(function)?.blocks_per_sm(threads, dynamic_bytes as u64).map(|blocks| blocks as c_int)
}

/// The block size that fills an SM best: the largest among equals, as CUDA's own search starts from the top.
unsafe fn best_block(
    function: &Function,
    shared: SharedBytesOf,
    fixed: usize,
    limit: c_int,
) -> Result<(c_int, c_int)> {
    let most = function.info.max_threads_per_block as c_int;
    let limit = if limit <= 0 { most } else { limit.min(most) };
    let mut best = (0u32, 0u32, 0);
    let mut threads = (limit as u32).div_ceil(32) * 32;
    while threads > 0 {
        let size = threads.min(limit as u32);
        // SAFETY: the program passed the function for exactly this call.
        let bytes = shared.map_or(fixed, |shared| unsafe { shared(size as c_int) });
        let blocks = function.blocks_per_sm(size, bytes as u64)?;
        if blocks * size > best.0 {
            best = (blocks * size, size, blocks);
        }
        threads -= 32;
    }
    if best.0 == 0 {
        return Err(Error::INVALID_VALUE);
    }
    Ok((best.2 as c_int * function.device.profile().sm_count as c_int, best.1 as c_int))
}

exports! { TABLE:
    entry cuFuncGetAttribute: (value: *mut c_int, attribute: u32, function: u64) {
        put(value, function::find(function)?.attribute(attribute)?)
    }
    entry cuFuncSetAttribute: (function: u64, attribute: u32, value: c_int) {
        function::find(function)?.set_attribute(attribute, value)
    }
    entry cuFuncSetCacheConfig: (function: u64, config: u32) {
        function::find(function)?;
        if config > 3 { Err(Error::INVALID_VALUE) } else { Ok(()) }
    }
    entry cuFuncSetSharedMemConfig: (function: u64, config: u32) {
        function::find(function)?;
        if config > 2 { Err(Error::INVALID_VALUE) } else { Ok(()) }
    }
    entry cuFuncGetModule: (module: *mut u64, function: u64) { put(module, function::find(function)?.module.handle) }
    entry cuFuncGetName: (name: *mut *const c_char, function: u64) {
        if name.is_null() {
            return Err(Error::INVALID_VALUE);
        }
        // The text lives as long as the function, whose table entry keeps it.
        put(name, function::find(function)?.name.as_ptr())
    }
    entry cuFuncGetParamInfo: (function: u64, index: usize, offset: *mut usize, bytes: *mut usize) {
        let (at, size) = function::find(function)?.param(index)?;
        put(offset, at)?;
        put_some(bytes, size);
        Ok(())
    }
    entry cuFuncIsLoaded: (state: *mut u32, function: u64) {
        function::find(function)?;
        put(state, 1)
    }
    entry cuFuncLoad: (function: u64) { function::find(function).map(drop) }
    entry cuKernelGetFunction: (out: *mut u64, kernel: u64) {
        let (kernel, context) = (function::kernel(kernel)?, context::healthy()?);
        put(out, kernel.function(context.device)?.handle)
    }
    entry cuKernelGetLibrary: (out: *mut u64, kernel: u64) {
        let kernel = function::kernel(kernel)?;
        library::find(kernel.library.handle)?;
        put(out, kernel.library.handle)
    }
    entry cuKernelGetName: (name: *mut *const c_char, kernel: u64) {
        if name.is_null() { Err(Error::INVALID_VALUE) } else { put(name, function::kernel(kernel)?.name.as_ptr()) }
    }
    entry cuKernelGetAttribute: (value: *mut c_int, attribute: u32, kernel: u64, ordinal: c_int) {
        put(value, function::kernel(kernel)?.function(device(ordinal)?)?.attribute(attribute)?)
    }
    entry cuKernelSetAttribute: (attribute: u32, value: c_int, kernel: u64, ordinal: c_int) {
        function::kernel(kernel)?.function(device(ordinal)?)?.set_attribute(attribute, value)
    }
    entry cuKernelSetCacheConfig: (kernel: u64, config: u32, ordinal: c_int) {
        function::kernel(kernel)?;
        device(ordinal)?;
        if config > 3 { Err(Error::INVALID_VALUE) } else { Ok(()) }
    }
    entry cuKernelGetParamInfo: (kernel: u64, index: usize, offset: *mut usize, bytes: *mut usize) {
        let (at, size) = param(&function::kernel(kernel)?.info, index)?;
        put(offset, at)?;
        put_some(bytes, size);
        Ok(())
    }
    entry cuOccupancyMaxActiveBlocksPerMultiprocessor: (
        blocks: *mut c_int, function: u64, threads: c_int, dynamic_bytes: usize
    ) {
        put(blocks, active_blocks(function, threads, dynamic_bytes)?)
    }
    entry cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags: (
        blocks: *mut c_int, function: u64, threads: c_int, dynamic_bytes: usize, flags: u32
    ) {
        if flags > 1 { Err(Error::INVALID_VALUE) } else { put(blocks, active_blocks(function, threads, dynamic_bytes)?) }
    }
    entry cuOccupancyMaxPotentialBlockSize: (
        grid: *mut c_int, block: *mut c_int, function: u64, shared: SharedBytesOf, fixed: usize, limit: c_int
    ) {
        context::current()?;
        let (min_grid, size) = best_block(&*function::find(function)?, shared, fixed, limit)?;
        put(grid, min_grid)?;
        put(block, size)
    }
    entry cuOccupancyMaxPotentialBlockSizeWithFlags: (
        grid: *mut c_int, block: *mut c_int, function: u64, shared: SharedBytesOf, fixed: usize, limit: c_int, flags: u32
    ) {
        context::current()?;
        if flags > 1 {
            return Err(Error::INVALID_VALUE);
        }
        let (min_grid, size) = best_block(&*function::find(function)?, shared, fixed, limit)?;
        put(grid, min_grid)?;
        put(block, size)
    }
    entry cuOccupancyAvailableDynamicSMemPerBlock: (bytes: *mut usize, function: u64, blocks: c_int, threads: c_int) {
        context::current()?;
        let (Ok(blocks), Ok(threads)) = (u32::try_from(blocks), u32::try_from(threads)) else {
            return Err(Error::INVALID_VALUE);
        };
        put(bytes, function::find(function)?.dynamic_shared_for(blocks, threads)?)
    }
}
