//! Cold memory calls, and the slabs that the program cuts its device allocations from.
//!
//! A slab is created here, mapped here and, through its exported descriptor, mapped by the program at the same address. The physical handle is
//! released once it is mapped: the mappings keep the memory, and it returns to the device when both are gone.

use std::collections::BTreeMap;
use std::os::fd::AsFd;

use lightos_protocol::arena;
use lightos_protocol::request::{MemoryRequest, Reply};

use super::Executor;
use super::driver::CuError;
use super::vmm::{self, Physical};

/// The program's slabs: size in bytes by address.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    slabs: BTreeMap<u64, u64>,
}

impl Memory {
    /// Address and size of the slab that holds all of `[address, address + bytes)`.
    pub(super) fn slab_around(&self, address: u64, bytes: u64) -> Option<(u64, u64)> {
        let (&slab, &slab_bytes) = self.slabs.range(..=address).next_back()?;
        let offset = address - slab;
        (offset < slab_bytes && bytes <= slab_bytes - offset).then_some((slab, slab_bytes))
    }
}

impl Executor {
    /// Carries out one cold memory call.
    pub(crate) fn memory_request(&mut self, request: MemoryRequest) -> Result<Reply, CuError> {
        let done = match request {
            MemoryRequest::SlabCreate { address, bytes, device: _, handle_tag } => {
                self.slab_create(address, bytes, handle_tag)
            }
            MemoryRequest::SlabDestroy { address, bytes } => self.slab_destroy(address, bytes),
            MemoryRequest::HostMap { address, bytes, tag, flags } => {
                self.host_map(address, bytes, tag, flags)
            }
            MemoryRequest::HostUnmap { address, bytes } => self.host_unmap(address, bytes),
            MemoryRequest::HostShare { address, bytes, tag, flags } => {
                self.host_share(address, bytes, tag, flags)
            }
            MemoryRequest::HostUnshare { address } => self.host_unshare(address),
            MemoryRequest::VmmCreate {
                handle,
                bytes,
                location_type,
                location_id,
                flags,
                handle_types,
                tag,
            } => self.vmm_create(handle, bytes, (location_type, location_id), (flags, handle_types), tag),
            MemoryRequest::VmmExport { handle, tag } => self.vmm_export(handle, tag),
            MemoryRequest::VmmImport { handle, tag } => self.vmm_import(handle, tag),
            MemoryRequest::VmmMap { address, bytes, offset, handle } => {
                self.vmm_map(address, bytes, offset, handle)
            }
            MemoryRequest::VmmSetAccess { address, bytes, device: _, flags } => {
                self.vmm_set_access(address, bytes, flags)
            }
            MemoryRequest::VmmUnmap { address, bytes } => self.vmm_unmap(address, bytes),
            MemoryRequest::VmmRelease { handle } => self.vmm_release(handle),
            MemoryRequest::GlobalAddress { module, name, library } => {
                return self.global_address(module, name, library);
            }
        };
        done.map(|()| Reply::Done)
    }

    fn slab_create(&mut self, address: u64, bytes: u64, tag: u64) -> Result<(), CuError> {
        if bytes == 0 || !arena::is_device_range(address, bytes) {
            return Err(CuError::INVALID_VALUE);
        }
        let physical = Physical::create(vmm::location(self.context.device()), bytes, 0, 0)?;
        physical.map(address, bytes, 0)?;
        let shared = vmm::set_access(self.context.device(), address, bytes, vmm::READ_WRITE)
            .and_then(|()| physical.export())
            .and_then(|fd| self.fds.send(tag, fd.as_fd()));
        if let Err(error) = shared {
            let _ = vmm::unmap(address, bytes);
            return Err(error);
        }
        self.memory.slabs.insert(address, bytes);
        Ok(())
    }

    fn slab_destroy(&mut self, address: u64, bytes: u64) -> Result<(), CuError> {
        if self.memory.slabs.get(&address) != Some(&bytes) {
            return Err(CuError::INVALID_VALUE);
        }
        vmm::unmap(address, bytes)?;
        self.memory.slabs.remove(&address);
        Ok(())
    }
}
