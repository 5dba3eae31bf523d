//! Hooks of the virtual memory management functions.

use super::hooks;
use crate::edge::{In, Out};
use crate::ops::memory::slabs::AccessDesc;
use crate::ops::vmm::{self, Properties};
use std::ffi::c_void;

hooks! {
    area vmm;
    fn cuMemAddressReserve(out: *mut u64, bytes: usize, align: usize, hint: u64, flags: u64)
        => vmm::reserve(Out::new(out), bytes, align, hint, flags);
    fn cuMemAddressFree(address: u64, bytes: usize) => vmm::unreserve(address, bytes);
    fn cuMemCreate(out: *mut u64, bytes: usize, properties: *const Properties, flags: u64)
        => vmm::create(Out::new(out), bytes, In::new(properties), flags);
    fn cuMemRelease(handle: u64) => vmm::release(handle);
    fn cuMemRetainAllocationHandle(out: *mut u64, address: *mut c_void) => vmm::retain(Out::new(out), address);
    fn cuMemMap(address: u64, bytes: usize, offset: usize, handle: u64, flags: u64)
        => vmm::map(address, bytes, offset, handle, flags);
    fn cuMemSetAccess(address: u64, bytes: usize, descriptors: *const AccessDesc, count: usize)
        => vmm::set_access(address, bytes, In::new(descriptors), count);
    fn cuMemUnmap(address: u64, bytes: usize) => vmm::unmap(address, bytes);
    fn cuMemExportToShareableHandle(out: *mut c_void, handle: u64, kind: u32, flags: u64)
        => vmm::export(Out::new(out), handle, kind, flags);
    fn cuMemImportFromShareableHandle(out: *mut u64, os_handle: *mut c_void, kind: u32)
        => vmm::import(Out::new(out), os_handle, kind);
    fn cuMemGetAllocationPropertiesFromHandle(out: *mut Properties, handle: u64)
        => vmm::properties(Out::new(out), handle);
}
