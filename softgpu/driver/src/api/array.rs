//! Arrays and mipmapped arrays, and the copies that name one by offset.

use crate::abi::image::{Array3dDescriptor, ArrayDescriptor, ArrayMemoryRequirements};
use crate::abi::{MEMORY_ARRAY, MEMORY_DEVICE, MEMORY_HOST, Memcpy3d};
use crate::api::copy::{copy_later, copy_now};
use crate::array::{self, Array, mipmapped};
use crate::copy::linear;
use crate::device::Device;
use crate::edge::{exports, get, put};
use crate::error::{Error, Result};
use crate::{capture, context};

fn known(handle: u64) -> Result<std::sync::Arc<Array>> {
    context::current()?;
    array::find(handle).ok_or(Error::INVALID_HANDLE)
}

fn create(descriptor: &Array3dDescriptor) -> Result<u64> {
    context::healthy()?;
    capture::forbid_unsafe()?;
    array::create(descriptor)
}

/// A copy out of the first row of an array.
fn from_array(dst: (u32, u64), array: u64, offset: usize, bytes: usize) -> Result<Memcpy3d> {
    context::healthy()?;
    array::find(array).ok_or(Error::INVALID_VALUE)?;
    let plain = linear(dst, (MEMORY_HOST, 0), bytes);
    Ok(Memcpy3d { src_type: MEMORY_ARRAY, src_array: array, src_x_bytes: offset, ..plain })
}

/// A copy into the first row of an array.
fn to_array(array: u64, offset: usize, src: (u32, u64), bytes: usize) -> Result<Memcpy3d> {
    context::healthy()?;
    array::find(array).ok_or(Error::INVALID_VALUE)?;
    let plain = linear((MEMORY_HOST, 0), src, bytes);
    Ok(Memcpy3d { dst_type: MEMORY_ARRAY, dst_array: array, dst_x_bytes: offset, ..plain })
}

/// A copy of bytes between the first rows of two arrays, whatever their elements are.
fn between_arrays(
    (dst, dst_offset): (u64, usize),
    (src, src_offset): (u64, usize),
    bytes: usize,
) -> Result<Memcpy3d> {
    let copy = from_array((MEMORY_HOST, 0), src, src_offset, bytes)?;
    array::find(dst).ok_or(Error::INVALID_VALUE)?;
    Ok(Memcpy3d { dst_type: MEMORY_ARRAY, dst_array: dst, dst_x_bytes: dst_offset, ..copy })
}

exports! { TABLE:
    entry cuArrayCreate_v2: (out: *mut u64, descriptor: *const ArrayDescriptor) {
        let ArrayDescriptor { width, height, format, channels } = get(descriptor)?;
        let descriptor = Array3dDescriptor { width, height, depth: 0, format, channels, flags: 0 };
        if out.is_null() { Err(Error::INVALID_VALUE) } else { put(out, create(&descriptor)?) }
    }
    entry cuArray3DCreate_v2: (out: *mut u64, descriptor: *const Array3dDescriptor) {
        let descriptor = get(descriptor)?;
        if out.is_null() { Err(Error::INVALID_VALUE) } else { put(out, create(&descriptor)?) }
    }
    entry cuArrayGetDescriptor_v2: (out: *mut ArrayDescriptor, array: u64) {
        let Array3dDescriptor { width, height, format, channels, .. } = known(array)?.descriptor;
        put(out, ArrayDescriptor { width, height, format, channels })
    }
    entry cuArray3DGetDescriptor_v2: (out: *mut Array3dDescriptor, array: u64) { put(out, known(array)?.descriptor) }
    entry cuArrayGetMemoryRequirements: (_out: *mut ArrayMemoryRequirements, array: u64, device: i32) {
        known(array)?;
        Device::new(device)?;
        // Only arrays whose memory is mapped later have requirements, and those are not made.
        Err(Error::INVALID_VALUE)
    }
    entry cuArrayDestroy: (array: u64) {
        context::healthy()?;
        capture::forbid_unsafe()?;
        array::destroy(array)
    }
    entry cuMipmappedArrayCreate: (out: *mut u64, descriptor: *const Array3dDescriptor, levels: u32) {
        let descriptor = get(descriptor)?;
        context::healthy()?;
        capture::forbid_unsafe()?;
        if out.is_null() { Err(Error::INVALID_VALUE) } else { put(out, mipmapped::create(&descriptor, levels)?) }
    }
    entry cuMipmappedArrayGetLevel: (out: *mut u64, handle: u64, level: u32) {
        if out.is_null() { Err(Error::INVALID_VALUE) } else { put(out, mipmapped::level(handle, level)?) }
    }
    entry cuMipmappedArrayGetMemoryRequirements: (
        _out: *mut ArrayMemoryRequirements, handle: u64, device: i32
    ) {
        context::current()?;
        mipmapped::find(handle)?;
        Device::new(device)?;
        // As for arrays.
        Err(Error::INVALID_VALUE)
    }
    entry cuMipmappedArrayDestroy: (handle: u64) {
        context::healthy()?;
        capture::forbid_unsafe()?;
        mipmapped::destroy(handle)
    }
    entry cuMemcpyAtoA_v2 / cuMemcpyAtoA_v2_ptds: (
        dst: u64, dst_offset: usize, src: u64, src_offset: usize, bytes: usize
    ) {
        copy_now(&between_arrays((dst, dst_offset), (src, src_offset), bytes)?)
    }
    entry cuMemcpyAtoD_v2 / cuMemcpyAtoD_v2_ptds: (dst: u64, src: u64, offset: usize, bytes: usize) {
        copy_now(&from_array((MEMORY_DEVICE, dst), src, offset, bytes)?)
    }
    entry cuMemcpyDtoA_v2 / cuMemcpyDtoA_v2_ptds: (dst: u64, offset: usize, src: u64, bytes: usize) {
        copy_now(&to_array(dst, offset, (MEMORY_DEVICE, src), bytes)?)
    }
    entry cuMemcpyAtoH_v2 / cuMemcpyAtoH_v2_ptds: (dst: u64, src: u64, offset: usize, bytes: usize) {
        copy_now(&from_array((MEMORY_HOST, dst), src, offset, bytes)?)
    }
    entry cuMemcpyHtoA_v2 / cuMemcpyHtoA_v2_ptds: (dst: u64, offset: usize, src: u64, bytes: usize) {
        copy_now(&to_array(dst, offset, (MEMORY_HOST, src), bytes)?)
    }
    entry cuMemcpyAtoHAsync_v2 / cuMemcpyAtoHAsync_v2_ptsz: (
        dst: u64, src: u64, offset: usize, bytes: usize, stream: u64
    ) {
        copy_later(&from_array((MEMORY_HOST, dst), src, offset, bytes)?, stream)
    }
    entry cuMemcpyHtoAAsync_v2 / cuMemcpyHtoAAsync_v2_ptsz: (
        dst: u64, offset: usize, src: u64, bytes: usize, stream: u64
    ) {
        copy_later(&to_array(dst, offset, (MEMORY_HOST, src), bytes)?, stream)
    }
}
