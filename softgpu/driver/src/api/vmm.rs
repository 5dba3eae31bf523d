//! Virtual memory management.

use std::ffi::{c_int, c_void};

use crate::abi::{AccessDesc, AllocationProp, MemLocation};
use crate::edge::{array, exports, get, put};
use crate::error::Error;
use crate::{capture, vmm};

exports! { TABLE:
    entry cuMemAddressReserve: (out: *mut u64, bytes: usize, align: usize, hint: u64, flags: u64) {
        if out.is_null() { Err(Error::INVALID_VALUE) } else {
            put(out, vmm::reserve(bytes as u64, align as u64, hint, flags)?)
        }
    }
    entry cuMemAddressFree: (start: u64, bytes: usize) { vmm::free_reservation(start, bytes as u64) }
    entry cuMemCreate: (handle: *mut u64, bytes: usize, prop: *const AllocationProp, flags: u64) {
        let prop = get(prop)?;
        if handle.is_null() {
            return Err(Error::INVALID_VALUE);
        }
        capture::forbid_unsafe()?;
        put(handle, vmm::create(bytes as u64, &prop, flags)?)
    }
    entry cuMemRelease: (handle: u64) { vmm::release(handle) }
    entry cuMemMap: (start: u64, bytes: usize, offset: usize, handle: u64, flags: u64) {
        vmm::map(start, bytes as u64, offset as u64, handle, flags)
    }
    entry cuMemUnmap: (start: u64, bytes: usize) { vmm::unmap(start, bytes as u64) }
    entry cuMemSetAccess: (start: u64, bytes: usize, grants: *const AccessDesc, count: usize) {
        vmm::set_access(start, bytes as u64, &array(grants, count)?)
    }
    entry cuMemGetAccess: (flags: *mut u64, location: *const MemLocation, address: u64) {
        put(flags, vmm::access(address, &get(location)?)?)
    }
    entry cuMemGetAllocationGranularity: (bytes: *mut usize, prop: *const AllocationProp, option: u32) {
        put(bytes, vmm::granularity(&get(prop)?, option)?)
    }
    entry cuMemGetAllocationPropertiesFromHandle: (prop: *mut AllocationProp, handle: u64) {
        put(prop, vmm::properties(handle)?)
    }
    entry cuMemRetainAllocationHandle: (handle: *mut u64, address: u64) {
        if handle.is_null() { Err(Error::INVALID_VALUE) } else { put(handle, vmm::retain(address)?) }
    }
    entry cuMemExportToShareableHandle: (out: *mut c_void, handle: u64, handle_type: u32, flags: u64) {
        if out.is_null() { Err(Error::INVALID_VALUE) } else {
            put(out.cast::<c_int>(), vmm::export(handle, handle_type, flags)?)
        }
    }
    entry cuMemImportFromShareableHandle: (handle: *mut u64, os_handle: *mut c_void, handle_type: u32) {
        if handle.is_null() { Err(Error::INVALID_VALUE) } else {
            put(handle, vmm::import(os_handle as usize as c_int, handle_type)?)
        }
    }
}
