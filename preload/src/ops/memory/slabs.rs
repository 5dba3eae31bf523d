//! Slabs of device memory: created by the executor, imported here and mapped at the same address.

use std::ffi::c_void;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use lightos_protocol::request::{MemoryRequest, Request};

use super::sidecar;
use crate::alloc::heap::Backing;
use crate::ops::capture;
use crate::real;
use crate::result::CuResult;

/// `CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR`.
pub const POSIX_FD: u32 = 1;
/// `CU_MEM_LOCATION_TYPE_DEVICE`.
pub const LOCATION_DEVICE: u32 = 1;
/// `CU_MEM_LOCATION_TYPE_HOST` and `_HOST_NUMA`.
const LOCATION_HOST: u32 = 2;
const LOCATION_HOST_NUMA: u32 = 3;
/// `CU_MEM_ACCESS_FLAGS_PROT_READWRITE`.
pub const READ_WRITE: u32 = 3;
/// The device that the session governs.
pub const DEVICE: i32 = 0;

/// `CUmemLocation`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location {
    pub kind: u32,
    pub id: i32,
}

impl Location {
    /// The session's device.
    pub const DEVICE: Self = Self { kind: LOCATION_DEVICE, id: DEVICE };

    /// What the driver says where memory lies that was made there: of the host, its first node.
    pub fn as_reported(self) -> Self {
        if self.kind == LOCATION_HOST { Self { kind: LOCATION_HOST_NUMA, id: 0 } } else { self }
    }

    /// Whether it is the host or one of its NUMA nodes. The calling thread's node (`CU_MEM_LOCATION_TYPE_HOST_NUMA_CURRENT`) is none of
    /// them: the executor's threads run elsewhere.
    pub fn is_host(self) -> bool {
        matches!(self.kind, LOCATION_HOST | LOCATION_HOST_NUMA)
    }
}

/// `CUmemAccessDesc`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct AccessDesc {
    pub location: Location,
    pub flags: u32,
}

/// Physical device memory that the executor holds for this process, in bytes.
static HELD_BYTES: AtomicU64 = AtomicU64::new(0);

/// Counts physical memory about to be created against the tenant's limit.
pub fn charge(bytes: u64) -> Result<(), CuResult> {
    let held = HELD_BYTES.fetch_add(bytes, Relaxed).saturating_add(bytes);
    if sidecar()?.tenant_limits().memory_bytes.is_some_and(|limit| held > limit) {
        refund(bytes);
        return Err(CuResult::OUT_OF_MEMORY);
    }
    Ok(())
}

/// Physical memory was given back, or not created after all.
pub fn refund(bytes: u64) {
    HELD_BYTES.fetch_sub(bytes, Relaxed);
}

/// What the tenant's limit leaves, in bytes.
pub fn allowance() -> u64 {
    let limit = sidecar().ok().and_then(|session| session.tenant_limits().memory_bytes);
    limit.map_or(u64::MAX, |limit| limit.saturating_sub(HELD_BYTES.load(Relaxed)))
}

/// The heap's source of device memory.
#[derive(Debug)]
pub struct Slabs;

impl Backing for Slabs {
    fn create(&self, address: u64, bytes: u64) -> Result<(), CuResult> {
        charge(bytes)?;
        capture::relaxed(|| create(address, bytes)).inspect_err(|_| refund(bytes))
    }

    fn destroy(&self, address: u64, bytes: u64) {
        capture::relaxed(|| unmap(address, bytes));
        if let Ok(session) = sidecar() {
            // The answer is waited for: the memory is back when the program's call returns.
            let _ = session.call(&Request::Memory(MemoryRequest::SlabDestroy { address, bytes }));
        }
        refund(bytes);
    }
}

fn create(address: u64, bytes: u64) -> Result<(), CuResult> {
    let session = sidecar()?;
    let tag = session.next_tag();
    let request = MemoryRequest::SlabCreate { address, bytes, device: DEVICE, handle_tag: tag };
    let (_, fd) = session.call_for_fd(&Request::Memory(request), tag)?;
    map_import(fd, address, bytes).inspect_err(|_| {
        let _ = session.cast(&Request::Memory(MemoryRequest::SlabDestroy { address, bytes }));
    })
}

/// Takes over device memory that the executor exported. The local handle refers to the same memory.
pub fn import(fd: OwnedFd) -> Result<u64, CuResult> {
    let mut handle = 0;
    let os_handle = ptr::without_provenance_mut::<c_void>(fd.as_raw_fd() as usize);
    // SAFETY: for this handle type the driver takes the descriptor's number in place of the pointer and keeps no descriptor.
    unsafe { real::cuMemImportFromShareableHandle(&mut handle, os_handle, POSIX_FD) }.ok()?;
    Ok(handle)
}

/// Maps memory that the executor exported at `address`, readable and writable by the device.
pub fn map_import(fd: OwnedFd, address: u64, bytes: u64) -> Result<(), CuResult> {
    let handle = import(fd)?;
    let access = AccessDesc { location: Location::DEVICE, flags: READ_WRITE };
    // SAFETY: the range lies in the arena that this process reserved and nothing is mapped there; the descriptor is valid. The mapping
    // keeps the memory, so the handle is released either way.
    unsafe {
        let mapped = real::cuMemMap(address, bytes as usize, 0, handle, 0).ok();
        let _ = real::cuMemRelease(handle);
        mapped?;
        real::cuMemSetAccess(address, bytes as usize, (&raw const access).cast(), 1).ok()
    }
    .inspect_err(|_| unmap(address, bytes))
}

/// Ends this process's mapping, if there is one.
pub fn unmap(address: u64, bytes: u64) {
    // SAFETY: a range of our arena; the driver refuses what is not mapped.
    let _ = unsafe { real::cuMemUnmap(address, bytes as usize) };
}
