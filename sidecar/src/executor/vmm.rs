//! Physical device memory and its mappings: the driver's virtual memory management, for slabs and for the program's own use of it.
//!
//! The program names its physical allocations by numbers of its own; addresses are those of the device arena, which is
//! reserved as one range here and in the program.

use std::collections::HashMap;
use std::ffi::c_void;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use lightos_protocol::arena;

use super::Executor;
use super::driver::{CuError, check, sys};

/// `CU_MEM_ACCESS_FLAGS_PROT_READWRITE`.
pub(super) const READ_WRITE: u32 = sys::CUmemAccess_flags::CU_MEM_ACCESS_FLAGS_PROT_READWRITE as u32;

/// The program's physical allocations, by its numbers for them.
#[derive(Debug, Default)]
pub(crate) struct Vmm {
    allocations: HashMap<u64, Physical>,
}

/// Physical memory of the device, or of the host where the device maps it. Dropping it releases the handle; mappings keep the memory itself.
#[derive(Debug)]
pub(super) struct Physical {
    handle: sys::CUmemGenericAllocationHandle,
}

impl Physical {
    /// Creates `bytes` bytes (a multiple of the allocation granularity) that can be exported. `flags` holds
    /// `CUmemAllocationProp::allocFlags`: compression type in byte 0, GPUDirect RDMA in byte 1, usage in bytes 2 and 3.
    /// `handle_types` are further ways to export it that the program asked for.
    pub(super) fn create(
        location: sys::CUmemLocation,
        bytes: u64,
        flags: u64,
        handle_types: u32,
    ) -> Result<Self, CuError> {
        let [compression, rdma, usage_low, usage_high, ..] = flags.to_le_bytes();
        let mut properties = sys::CUmemAllocationProp {
            type_: sys::CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED,
            requestedHandleTypes: sys::CUmemAllocationHandleType::CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR,
            location,
            win32HandleMetaData: std::ptr::null_mut(),
            allocFlags: sys::CUmemAllocationProp_st__bindgen_ty_1 {
                compressionType: compression,
                gpuDirectRDMACapable: rdma,
                usage: u16::from_le_bytes([usage_low, usage_high]),
                reserved: [0; 4],
            },
        };
        // SAFETY: the C type is a mask; it is written as the integer it is and read by the driver alone.
        unsafe { *(&raw mut properties.requestedHandleTypes).cast::<u32>() |= handle_types };
        let mut handle = 0;
        // SAFETY: both pointers are valid for the call.
        check(unsafe { sys::cuMemCreate(&mut handle, bytes as usize, &properties, 0) })?;
        Ok(Self { handle })
    }

    /// The memory behind another process's descriptor, which stays the caller's.
    pub(super) fn import(fd: BorrowedFd<'_>) -> Result<Self, CuError> {
        let mut handle = 0;
        let os_handle = std::ptr::without_provenance_mut::<c_void>(fd.as_raw_fd() as usize);
        let kind = sys::CUmemAllocationHandleType::CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
        // SAFETY: for this handle type the driver takes the descriptor's number in place of the pointer; `handle` is a valid out-pointer.
        check(unsafe { sys::cuMemImportFromShareableHandle(&mut handle, os_handle, kind) })?;
        Ok(Self { handle })
    }

    /// The memory that is mapped at an address.
    pub(super) fn mapped_at(address: u64) -> Result<Self, CuError> {
        let mut handle = 0;
        let address = std::ptr::with_exposed_provenance_mut::<c_void>(address as usize);
        // SAFETY: a valid out-pointer; the driver refuses an address at which nothing is mapped. The reference is released on drop.
        check(unsafe { sys::cuMemRetainAllocationHandle(&mut handle, address) })?;
        Ok(Self { handle })
    }

    /// A descriptor with which another process can import the memory.
    pub(super) fn export(&self) -> Result<OwnedFd, CuError> {
        let mut fd: i32 = -1;
        // SAFETY: for this handle type the driver writes one int; `fd` is one.
        check(unsafe {
            sys::cuMemExportToShareableHandle(
                (&raw mut fd).cast::<c_void>(),
                self.handle,
                sys::CUmemAllocationHandleType::CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR,
                0,
            )
        })?;
        if fd < 0 {
            return Err(CuError::OPERATING_SYSTEM);
        }
        // SAFETY: the driver made this descriptor for the caller, who owns it alone.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // The driver may hand out descriptors that survive exec.
        let _ = rustix::io::fcntl_setfd(fd.as_fd(), rustix::io::FdFlags::CLOEXEC);
        Ok(fd)
    }

    /// Maps `bytes` bytes from `offset` at `address` of the reserved arena. Access is granted separately.
    pub(super) fn map(&self, address: u64, bytes: u64, offset: u64) -> Result<(), CuError> {
        // SAFETY: changes mappings of the device arena only (callers have checked the range), which holds no Rust object.
        check(unsafe { sys::cuMemMap(address, bytes as usize, offset as usize, self.handle, 0) })
    }
}

impl Drop for Physical {
    fn drop(&mut self) {
        // SAFETY: one reference to the handle is this value's, and it is released once.
        let _ = unsafe { sys::cuMemRelease(self.handle) };
    }
}

pub(super) fn location(device: sys::CUdevice) -> sys::CUmemLocation {
    sys::CUmemLocation { type_: sys::CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE, id: device }
}

/// Grants or takes access to a mapped range. `flags` is a `CUmemAccess_flags`.
pub(super) fn set_access(device: sys::CUdevice, address: u64, bytes: u64, flags: u32) -> Result<(), CuError> {
    let flags = match flags {
        0 => sys::CUmemAccess_flags::CU_MEM_ACCESS_FLAGS_PROT_NONE,
        1 => sys::CUmemAccess_flags::CU_MEM_ACCESS_FLAGS_PROT_READ,
        READ_WRITE => sys::CUmemAccess_flags::CU_MEM_ACCESS_FLAGS_PROT_READWRITE,
        _ => return Err(CuError::INVALID_VALUE),
    };
    let access = sys::CUmemAccessDesc { location: location(device), flags };
    // SAFETY: one valid descriptor; the driver checks the range.
    check(unsafe { sys::cuMemSetAccess(address, bytes as usize, &access, 1) })
}

/// Unmaps whole mappings.
pub(super) fn unmap(address: u64, bytes: u64) -> Result<(), CuError> {
    // SAFETY: the driver refuses ranges that are not mappings of its own, and those hold no Rust object.
    check(unsafe { sys::cuMemUnmap(address, bytes as usize) })
}

impl Executor {
    pub(super) fn vmm_create(
        &mut self,
        number: u64,
        bytes: u64,
        (location_type, location_id): (u32, i32),
        (flags, handle_types): (u64, u32),
        tag: u64,
    ) -> Result<(), CuError> {
        use sys::CUmemLocationType as Kind;
        const DEVICE: u32 = Kind::CU_MEM_LOCATION_TYPE_DEVICE as u32;
        const HOST: u32 = Kind::CU_MEM_LOCATION_TYPE_HOST as u32;
        const HOST_NUMA: u32 = Kind::CU_MEM_LOCATION_TYPE_HOST_NUMA as u32;
        let node = |id| sys::CUmemLocation { type_: Kind::CU_MEM_LOCATION_TYPE_HOST_NUMA, id };
        let location = match location_type {
            // The program's ordinal of the device is not this process's.
            DEVICE => location(self.context.device()),
            // The driver takes the first node's, and exports memory only if it was asked of a node.
            HOST if handle_types == 0 => node(0),
            HOST => return Err(CuError::INVALID_VALUE),
            HOST_NUMA => node(location_id),
            _ => return Err(CuError::NOT_SUPPORTED),
        };
        if self.vmm.allocations.contains_key(&number) {
            return Err(CuError::INVALID_VALUE);
        }
        let physical = Physical::create(location, bytes, flags, handle_types)?;
        self.fds.send(tag, physical.export()?.as_fd())?;
        self.vmm.allocations.insert(number, physical);
        Ok(())
    }

    pub(super) fn vmm_export(&mut self, number: u64, tag: u64) -> Result<(), CuError> {
        let fd = self.vmm.allocations.get(&number).ok_or(CuError::INVALID_VALUE)?.export()?;
        self.fds.send(tag, fd.as_fd())
    }

    pub(super) fn vmm_import(&mut self, number: u64, tag: u64) -> Result<(), CuError> {
        let fd = self.fds.take(tag)?;
        if self.vmm.allocations.contains_key(&number) {
            return Err(CuError::INVALID_VALUE);
        }
        self.vmm.allocations.insert(number, Physical::import(fd.as_fd())?);
        Ok(())
    }

    pub(super) fn vmm_map(
        &mut self,
        address: u64,
        bytes: u64,
        offset: u64,
        number: u64,
    ) -> Result<(), CuError> {
        if !arena::is_device_range(address, bytes) {
            return Err(CuError::INVALID_VALUE);
        }
        self.vmm.allocations.get(&number).ok_or(CuError::INVALID_VALUE)?.map(address, bytes, offset)
    }

    pub(super) fn vmm_set_access(&mut self, address: u64, bytes: u64, flags: u32) -> Result<(), CuError> {
        if !arena::is_device_range(address, bytes) {
            return Err(CuError::INVALID_VALUE);
        }
        set_access(self.context.device(), address, bytes, flags)
    }

    pub(super) fn vmm_unmap(&mut self, address: u64, bytes: u64) -> Result<(), CuError> {
        if !arena::is_device_range(address, bytes) {
            return Err(CuError::INVALID_VALUE);
        }
        unmap(address, bytes)
    }

    pub(super) fn vmm_release(&mut self, number: u64) -> Result<(), CuError> {
        self.vmm.allocations.remove(&number).map(drop).ok_or(CuError::INVALID_VALUE)
    }
}
