//! Device attributes: what the hardware can do, except where LightOS does not carry it.
//!
//! Programs choose their way by these attributes. A promise that the calls behind it would refuse sends them into an error where they
//! have another way; worse, a promise that the device reads any memory of the process would have kernels read the executor's.

use super::memory::slabs::DEVICE;
use crate::edge::Out;
use crate::outcome::{Outcome, Reason};
use crate::result::CuResult;

/// Attributes that read 0 (`CU_DEVICE_ATTRIBUTE_*`).
///
/// `MANAGED_MEMORY` stays the device's own: programs may take it for a mark of the architecture and refuse a device without it, and
/// `CONCURRENT_MANAGED_ACCESS` tells those that would use it. Registration of host memory stays too, since most of it is carried.
mod absent {
    /// `PAGEABLE_MEMORY_ACCESS`: kernels run in another process, where the program's pageable memory is not.
    pub const PAGEABLE_MEMORY: u32 = 88;
    pub const CONCURRENT_MANAGED_ACCESS: u32 = 89;
    pub const PAGEABLE_MEMORY_BY_HOST_PAGE_TABLES: u32 = 100;
    pub const DIRECT_MANAGED_ACCESS_FROM_HOST: u32 = 101;
    /// `TIMELINE_SEMAPHORE_INTEROP_SUPPORTED`: no external semaphores.
    pub const TIMELINE_SEMAPHORE_INTEROP: u32 = 114;
    /// `MEMPOOL_SUPPORTED_HANDLE_TYPES`: pools cannot be exported.
    pub const POOL_HANDLE_TYPES: u32 = 119;
    /// `DMA_BUF_SUPPORTED`: cuMemGetHandleForAddressRange is refused.
    pub const DMA_BUF: u32 = 124;
    /// `HANDLE_TYPE_FABRIC_SUPPORTED`: memory reaches this process by a file descriptor, and is exported as one.
    pub const FABRIC: u32 = 128;
    /// `UNIFIED_FUNCTION_POINTERS`: those of the executor mean nothing here.
    pub const UNIFIED_FUNCTION_POINTERS: u32 = 129;
    pub const MULTICAST: u32 = 132;
    /// `MEM_DECOMPRESS_ALGORITHM_MASK` and `_MAXIMUM_LENGTH`.
    pub const DECOMPRESS_ALGORITHMS: u32 = 136;
    pub const DECOMPRESS_LENGTH: u32 = 137;
    /// `HOST_NUMA_MEMORY_POOLS_SUPPORTED` and kin: memory of the host that the driver alone would hand out.
    pub const HOST_NUMA_POOLS: u32 = 142;
    pub const HOST_NUMA_IPC: u32 = 143;
    pub const HOST_POOLS: u32 = 144;
}

/// Whether LightOS does not carry what the attribute promises.
fn is_absent(attribute: u32) -> bool {
    use absent::*;
    matches!(
        attribute,
        PAGEABLE_MEMORY
            | CONCURRENT_MANAGED_ACCESS
            | PAGEABLE_MEMORY_BY_HOST_PAGE_TABLES
            | DIRECT_MANAGED_ACCESS_FROM_HOST
            | TIMELINE_SEMAPHORE_INTEROP
            | POOL_HANDLE_TYPES
            | DMA_BUF
            | FABRIC
            | UNIFIED_FUNCTION_POINTERS
            | MULTICAST
            | DECOMPRESS_ALGORITHMS
            | DECOMPRESS_LENGTH
            | HOST_NUMA_POOLS
            | HOST_NUMA_IPC
            | HOST_POOLS
    )
}

/// cuDeviceGetAttribute. Frameworks call it thousands of times: no lock, no other call before the driver's own.
pub fn attribute(out: Out<i32>, attribute: u32, device: i32) -> Result<Outcome, CuResult> {
    if device != DEVICE || !is_absent(attribute) {
        return Ok(Outcome::PassThrough(Reason::LocalQuery));
    }
    out.required()?.put(0);
    Ok(Outcome::Done)
}
