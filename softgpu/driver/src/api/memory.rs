//! Device, pinned and managed memory, and pointer queries.

use std::ffi::{c_int, c_void};

use crate::abi::MemLocation;
use crate::edge::{array, exports, get, put, put_some};
use crate::error::{Error, Result};
use crate::space::SPACE;
use crate::{capture, context, memory, pointer, stream};

/// Hints about managed memory have no effect beyond their checks: every byte is host memory already.
pub(super) fn check_managed(start: u64, bytes: usize) -> Result {
    context::healthy()?;
    let is_managed = SPACE.find(start).is_some_and(|range| range.kind.is_managed());
    if bytes == 0 || !is_managed || !SPACE.covers(start, bytes as u64) {
        Err(Error::INVALID_VALUE)
    } else {
        Ok(())
    }
}

exports! { TABLE:
    entry cuMemGetInfo_v2: (free: *mut usize, total: *mut usize) {
        let device = context::healthy()?.device;
        put_some(free, device.free_bytes() as usize);
        put_some(total, device.total_bytes() as usize);
        Ok(())
    }
    entry cuMemAlloc_v2: (out: *mut u64, bytes: usize) {
        context::healthy()?;
        capture::forbid_unsafe()?;
        if out.is_null() { Err(Error::INVALID_VALUE) } else { put(out, memory::allocate(bytes)?) }
    }
    entry cuMemAllocPitch_v2: (out: *mut u64, pitch: *mut usize, width: usize, height: usize, element_bytes: u32) {
        context::healthy()?;
        capture::forbid_unsafe()?;
        if out.is_null() || pitch.is_null() {
            return Err(Error::INVALID_VALUE);
        }
        let (address, bytes) = memory::allocate_pitch(width, height, element_bytes)?;
        put(out, address)?;
        put(pitch, bytes)
    }
    entry cuMemFree_v2: (address: u64) {
        context::healthy()?;
        capture::forbid_unsafe()?;
        memory::free(address)
    }
    entry cuMemAllocManaged: (out: *mut u64, bytes: usize, flags: u32) {
        context::healthy()?;
        capture::forbid_unsafe()?;
        if out.is_null() { Err(Error::INVALID_VALUE) } else { put(out, memory::allocate_managed(bytes, flags)?) }
    }
    entry cuMemGetAddressRange_v2: (base: *mut u64, bytes: *mut usize, address: u64) {
        let (start, length) = memory::address_range(address)?;
        put_some(base, start);
        put_some(bytes, length);
        Ok(())
    }
    entry cuMemAllocHost_v2: (out: *mut *mut c_void, bytes: usize) {
        context::healthy()?;
        capture::forbid_unsafe()?;
        if out.is_null() { Err(Error::INVALID_VALUE) } else {
            put(out, memory::allocate_host(bytes, 0)? as *mut c_void)
        }
    }
    entry cuMemHostAlloc: (out: *mut *mut c_void, bytes: usize, flags: u32) {
        context::healthy()?;
        capture::forbid_unsafe()?;
        if out.is_null() { Err(Error::INVALID_VALUE) } else {
            put(out, memory::allocate_host(bytes, flags)? as *mut c_void)
        }
    }
    entry cuMemFreeHost: (address: u64) {
        context::healthy()?;
        capture::forbid_unsafe()?;
        memory::free_host(address)
    }
    entry cuMemHostGetDevicePointer_v2: (out: *mut u64, address: u64, flags: u32) {
        put(out, memory::host_device_pointer(address, flags)?)
    }
    entry cuMemHostGetFlags: (flags: *mut u32, address: u64) { put(flags, memory::host_flags(address)?) }
    entry cuMemHostRegister_v2: (address: u64, bytes: usize, flags: u32) {
        context::healthy()?;
        capture::forbid_unsafe()?;
        memory::register_host(address, bytes, flags)
    }
    entry cuMemHostUnregister: (address: u64) {
        context::healthy()?;
        capture::forbid_unsafe()?;
        memory::unregister_host(address)
    }
    entry cuMemAdvise: (address: u64, bytes: usize, _advice: u32, _device: c_int) { check_managed(address, bytes) }
    entry cuMemAdvise_v2: (address: u64, bytes: usize, _advice: u32, _location: MemLocation) {
        check_managed(address, bytes)
    }
    entry cuMemPrefetchAsync / cuMemPrefetchAsync_ptsz: (address: u64, bytes: usize, _device: c_int, stream: u64) {
        stream::find(stream)?;
        check_managed(address, bytes)
    }
    entry cuMemPrefetchAsync_v2 / cuMemPrefetchAsync_v2_ptsz: (
        address: u64, bytes: usize, _location: MemLocation, _flags: u32, stream: u64
    ) {
        stream::find(stream)?;
        check_managed(address, bytes)
    }
    entry cuStreamAttachMemAsync / cuStreamAttachMemAsync_ptsz: (
        stream: u64, address: u64, _length: usize, flags: u32
    ) {
        stream::find(stream)?;
        let is_managed = SPACE.find(address).is_some_and(|range| range.kind.is_managed());
        if is_managed && matches!(flags, 1 | 2 | 4) { Ok(()) } else { Err(Error::INVALID_VALUE) }
    }
    entry cuMemRangeGetAttribute: (data: *mut c_void, bytes: usize, attribute: u32, address: u64, count: usize) {
        check_managed(address, count)?;
        if bytes != 4 {
            return Err(Error::INVALID_VALUE);
        }
        // Nothing is read-mostly, preferred or prefetched anywhere: CU_DEVICE_INVALID.
        put(data.cast::<c_int>(), match attribute { 1 | 5 | 7 => 0, 2..=4 | 6 | 8 => -2, _ => return Err(Error::INVALID_VALUE) })
    }
    entry cuPointerGetAttribute: (data: *mut c_void, attribute: u32, address: u64) {
        if data.is_null() {
            return Err(Error::INVALID_VALUE);
        }
        context::current()?;
        pointer::attribute(attribute, address)?.write(data);
        Ok(())
    }
    entry cuPointerGetAttributes: (count: u32, attributes: *const u32, data: *const *mut c_void, address: u64) {
        context::current()?;
        let attributes = array(attributes, count as usize)?;
        let data = array(data, count as usize)?;
        if count == 0 || data.iter().any(|to| to.is_null()) || attributes.iter().any(|id| !(1..=21).contains(id)) {
            return Err(Error::INVALID_VALUE);
        }
        for (attribute, to) in attributes.into_iter().zip(data) {
            pointer::attribute(attribute, address).unwrap_or_else(|_| pointer::unknown(attribute)).write(to);
        }
        Ok(())
    }
    entry cuPointerSetAttribute: (value: *const c_void, attribute: u32, address: u64) {
        context::current()?;
        pointer::set_sync_memops(attribute, address, get(value.cast::<u32>())?)
    }
}
