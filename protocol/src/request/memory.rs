//! Cold memory calls: slabs, shared host memory, virtual memory management, globals.

use serde::{Deserialize, Serialize};

use super::Tag;

/// A call about memory. Addresses are the same on both sides.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum MemoryRequest {
    /// Create device memory and map it at `address` (cuMemCreate with a POSIX fd handle, cuMemMap, cuMemSetAccess). The executor
    /// sends the exported fd under `tag` before it answers [`Reply::Done`](super::Reply::Done).
    SlabCreate {
        /// Address in the device arena.
        address: u64,
        /// Size, a multiple of the allocation granularity.
        bytes: u64,
        /// Device ordinal.
        device: i32,
        /// Tag of the fd.
        handle_tag: Tag,
    },
    /// Unmap and release a slab after the work submitted so far.
    SlabDestroy {
        /// Its address.
        address: u64,
        /// Its size.
        bytes: u64,
    },
    /// Map a client's memfd at `address` and register it with the driver (cuMemHostRegister).
    HostMap {
        /// Address in the host arena.
        address: u64,
        /// Size in bytes, a multiple of [`HOST_PAGE_BYTES`](crate::arena::HOST_PAGE_BYTES).
        bytes: u64,
        /// Tag of the memfd.
        tag: Tag,
        /// `CU_MEMHOSTREGISTER_*`.
        flags: u32,
    },
    /// Undo [`MemoryRequest::HostMap`].
    HostUnmap {
        /// Its address.
        address: u64,
        /// Its size.
        bytes: u64,
    },
    /// Map a memfd with the contents of the program's own memory at the address that it has there, and register it
    /// (cuMemHostRegister).
    HostShare {
        /// Address, a multiple of the page size, outside both arenas.
        address: u64,
        /// Size in bytes, a multiple of the page size.
        bytes: u64,
        /// Tag of the memfd.
        tag: Tag,
        /// `CU_MEMHOSTREGISTER_*`.
        flags: u32,
    },
    /// Undo [`MemoryRequest::HostShare`].
    HostUnshare {
        /// Its address.
        address: u64,
    },
    /// The program's own cuMemCreate. The executor sends the exported fd under `tag`.
    VmmCreate {
        /// The client's `CUmemGenericAllocationHandle`.
        handle: u64,
        /// Size in bytes.
        bytes: u64,
        /// `CUmemLocationType`.
        location_type: u32,
        /// Ordinal or node, by location type.
        location_id: i32,
        /// `CUmemAllocationProp::allocFlags`, its defined bits as the driver numbers them.
        flags: u64,
        /// `CUmemAllocationProp::requestedHandleTypes`, a mask; the executor adds the one it exports by.
        handle_types: u32,
        /// Tag of the fd.
        tag: Tag,
    },
    /// cuMemExportToShareableHandle. The executor sends the descriptor under `tag`.
    VmmExport {
        /// The client's handle.
        handle: u64,
        /// Tag of the descriptor.
        tag: Tag,
    },
    /// cuMemImportFromShareableHandle, of a descriptor that the client imported as well.
    VmmImport {
        /// What the client calls the allocation from now on.
        handle: u64,
        /// Tag of the descriptor.
        tag: Tag,
    },
    /// cuMemMap.
    VmmMap {
        /// Address in the device arena.
        address: u64,
        /// Size in bytes.
        bytes: u64,
        /// Offset into the allocation.
        offset: u64,
        /// The client's handle.
        handle: u64,
    },
    /// cuMemSetAccess, one descriptor.
    VmmSetAccess {
        /// Address in the device arena.
        address: u64,
        /// Size in bytes.
        bytes: u64,
        /// Device ordinal that gains or loses access.
        device: i32,
        /// `CUmemAccess_flags`.
        flags: u32,
    },
    /// cuMemUnmap.
    VmmUnmap {
        /// Address in the device arena.
        address: u64,
        /// Size in bytes.
        bytes: u64,
    },
    /// cuMemRelease.
    VmmRelease {
        /// The client's handle.
        handle: u64,
    },
    /// cuModuleGetGlobal or cuLibraryGetGlobal; answers [`Reply::Address`](super::Reply::Address).
    GlobalAddress {
        /// `CUmodule` or `CUlibrary`.
        module: u64,
        /// The variable's name.
        name: String,
        /// True for a `CUlibrary`.
        library: bool,
    },
}
