//! Virtual memory management: address reservations, physical allocations in memfds, and mappings of one onto the other.
//!
//! A physical allocation is a memfd, so it can be exported as a file descriptor and mapped by several processes, each at the
//! address of its choice. Mappings have no access until `cuMemSetAccess`
//! grants it; only then do they enter the address space.
//!
//! Lock order: `VMM` before the address space.

mod file;

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};
use std::time::Duration;

use rustc_hash::FxHashMap;

use crate::abi::{AccessDesc, AllocationProp, MemLocation};
use crate::context;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::handle;
use crate::heap::{CHUNK_BYTES, pages};
use crate::space::{Kind, Range, SPACE};

/// How long an unmap lets queued work run on: the program must have ended all use of the range, other work may go on.
const UNMAP_PATIENCE: Duration = Duration::from_millis(100);
/// `CU_MEM_LOCATION_TYPE_DEVICE`, and the types of the host: the host as a whole, one of its nodes, the calling thread's node.
pub const LOCATION_DEVICE: u32 = 1;
const LOCATION_WHOLE_HOST: u32 = 2;
const LOCATION_NODE: u32 = 3;
const LOCATION_CURRENT_NODE: u32 = 4;
const LOCATION_HOST: std::ops::RangeInclusive<u32> = LOCATION_WHOLE_HOST..=LOCATION_CURRENT_NODE;
/// `CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR`.
pub const HANDLE_POSIX_FD: u32 = 1;
/// `CU_MEM_ACCESS_FLAGS_PROT_READ` and `READWRITE`.
const ACCESS_READ: u32 = 1;
const ACCESS_READ_WRITE: u32 = 3;

/// A physical allocation.
#[derive(Debug)]
struct Physical {
    fd: OwnedFd,
    bytes: u64,
    prop: AllocationProp,
    device: Device,
    /// Bytes that this process holds in the device's accounting: none for imports and host memory.
    charged: u64,
}

impl Drop for Physical {
    fn drop(&mut self) {
        if self.charged > 0 {
            self.device.release(self.charged);
        }
    }
}

#[derive(Debug)]
struct Mapping {
    bytes: u64,
    handle: u64,
    physical: Arc<Physical>,
    access: u32,
}

#[derive(Debug, Default)]
struct Vmm {
    /// Start and size of each reservation.
    reservations: BTreeMap<u64, u64>,
    mappings: BTreeMap<u64, Mapping>,
    /// Handles with their reference counts. A released handle whose memory is still mapped is found again by address.
    handles: FxHashMap<u64, (Arc<Physical>, usize)>,
}

static VMM: LazyLock<Mutex<Vmm>> = LazyLock::new(Mutex::default);

fn vmm() -> MutexGuard<'static, Vmm> {
    VMM.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn is_whole(bytes: u64) -> bool {
    bytes > 0 && bytes.is_multiple_of(CHUNK_BYTES)
}

/// `cuMemAddressReserve`: at the hint where that is free, else elsewhere.
pub fn reserve(bytes: u64, align: u64, hint: u64, flags: u64) -> Result<u64> {
    if !is_whole(bytes) || flags != 0 || (align != 0 && !align.is_power_of_two()) {
        return Err(Error::INVALID_VALUE);
    }
    let align = align.max(CHUNK_BYTES);
    let hinted = (hint != 0 && hint.is_multiple_of(align)).then(|| reserve_at(hint, bytes)).flatten();
    let start = match hinted {
        Some(start) => start,
        None => pages::map(bytes, align, false)?,
    };
    vmm().reservations.insert(start, bytes);
    Ok(start)
}

fn reserve_at(hint: u64, bytes: u64) -> Option<u64> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED_NOREPLACE;
    // SAFETY: NOREPLACE never touches an existing mapping.
    let at = unsafe { libc::mmap(hint as *mut libc::c_void, bytes as usize, libc::PROT_NONE, flags, -1, 0) };
    (at != libc::MAP_FAILED).then_some(at as u64)
}

/// `cuMemAddressFree`: a whole reservation without mappings.
pub fn free_reservation(start: u64, bytes: u64) -> Result {
    let mut vmm = vmm();
    if vmm.reservations.get(&start) != Some(&bytes)
        || vmm.mappings.range(start..start + bytes).next().is_some()
    {
        return Err(Error::INVALID_VALUE);
    }
    vmm.reservations.remove(&start);
    pages::unmap(start, bytes);
    Ok(())
}

fn check_prop(prop: &AllocationProp) -> Result<Device> {
    // CU_MEM_ALLOCATION_TYPE_PINNED is the only one that can be mapped.
    if prop.kind != 1 {
        return Err(Error::INVALID_VALUE);
    }
    match (prop.location.kind, prop.handle_types) {
        (_, types) if types & !HANDLE_POSIX_FD != 0 => Err(Error::NOT_SUPPORTED),
        (LOCATION_DEVICE, _) => Device::new(prop.location.id),
        (kind, _) if LOCATION_HOST.contains(&kind) => Device::new(0),
        _ => Err(Error::INVALID_VALUE),
    }
}

/// What memory that is to be made will say of itself: memory of the host is that of its first node, and only memory of a node that was
/// named can be exported.
fn located(prop: &AllocationProp) -> Result<AllocationProp> {
    match (prop.location.kind, prop.handle_types) {
        (LOCATION_WHOLE_HOST, 0) => {
            Ok(AllocationProp { location: MemLocation { kind: LOCATION_NODE, id: 0 }, ..*prop })
        }
        (LOCATION_WHOLE_HOST | LOCATION_CURRENT_NODE, _) => Err(Error::INVALID_VALUE),
        _ => Ok(*prop),
    }
}

/// `cuMemGetAllocationGranularity`.
pub fn granularity(prop: &AllocationProp, option: u32) -> Result<usize> {
    check_prop(prop)?;
    if option > 1 { Err(Error::INVALID_VALUE) } else { Ok(CHUNK_BYTES as usize) }
}

/// `cuMemCreate`.
pub fn create(bytes: u64, prop: &AllocationProp, flags: u64) -> Result<u64> {
    context::poisoned()?;
    let prop = located(prop)?;
    let device = check_prop(&prop)?;
    if !is_whole(bytes) || flags != 0 {
        return Err(Error::INVALID_VALUE);
    }
    let on_device = prop.location.kind == LOCATION_DEVICE;
    if on_device && !device.reserve(bytes) {
        return Err(Error::OUT_OF_MEMORY);
    }
    let undo = |_: &Error| {
        if on_device {
            device.release(bytes);
        }
    };
    let fd = file::create(device, on_device, bytes).inspect_err(undo)?;
    let charged = if on_device { bytes } else { 0 };
    Ok(vmm().enter(Physical { fd, bytes, prop, device, charged }))
}

/// `cuMemExportToShareableHandle`: a descriptor that the caller owns.
pub fn export(handle: u64, handle_type: u32, flags: u64) -> Result<RawFd> {
    let vmm = vmm();
    let (physical, _) = vmm.handles.get(&handle).ok_or(Error::INVALID_VALUE)?;
    if flags != 0 || handle_type != HANDLE_POSIX_FD || physical.prop.handle_types & HANDLE_POSIX_FD == 0 {
        return Err(Error::INVALID_VALUE);
    }
    let copy = physical.fd.try_clone().map_err(|_| Error::OPERATING_SYSTEM)?;
    Ok(std::os::fd::IntoRawFd::into_raw_fd(copy))
}

/// `cuMemImportFromShareableHandle`: the descriptor stays the caller's.
pub fn import(fd: RawFd, handle_type: u32) -> Result<u64> {
    if handle_type != HANDLE_POSIX_FD {
        return Err(Error::NOT_SUPPORTED);
    }
    let (fd, bytes, device, on_device) = file::adopt(fd)?;
    if !is_whole(bytes) {
        return Err(Error::INVALID_VALUE);
    }
    let (kind, id) = if on_device { (LOCATION_DEVICE, device.ordinal()) } else { (LOCATION_NODE, 0) };
    let prop = AllocationProp {
        kind: 1,
        handle_types: HANDLE_POSIX_FD,
        location: MemLocation { kind, id },
        win32: 0,
        compression: 0,
        rdma: 0,
        usage: 0,
        reserved: [0; 4],
    };
    Ok(vmm().enter(Physical { fd, bytes, prop, device, charged: 0 }))
}

/// `cuMemRelease`: memory that is still mapped lives on until it is unmapped.
pub fn release(handle: u64) -> Result {
    let mut vmm = vmm();
    let (_, references) = vmm.handles.get_mut(&handle).ok_or(Error::INVALID_VALUE)?;
    *references -= 1;
    if *references == 0 {
        vmm.handles.remove(&handle);
    }
    Ok(())
}

/// `cuMemRetainAllocationHandle`: the handle mapped at an address, with one more reference.
pub fn retain(address: u64) -> Result<u64> {
    let mut vmm = vmm();
    let (_, mapping) = vmm.mapping_at(address).ok_or(Error::INVALID_VALUE)?;
    let (handle, physical) = (mapping.handle, mapping.physical.clone());
    vmm.handles.entry(handle).or_insert((physical, 0)).1 += 1;
    Ok(handle)
}

/// `cuMemGetAllocationPropertiesFromHandle`.
pub fn properties(handle: u64) -> Result<AllocationProp> {
    vmm().handles.get(&handle).map(|(physical, _)| physical.prop).ok_or(Error::INVALID_VALUE)
}

/// `cuMemMap`: a whole number of granules into a reservation, where nothing is mapped yet.
pub fn map(start: u64, bytes: u64, offset: u64, handle: u64, flags: u64) -> Result {
    let mut vmm = vmm();
    let physical = vmm.handles.get(&handle).ok_or(Error::INVALID_VALUE)?.0.clone();
    // Hardware maps an allocation as a whole only: offset 0.
    if !is_whole(bytes)
        || !start.is_multiple_of(CHUNK_BYTES)
        || offset != 0
        || flags != 0
        || bytes > physical.bytes
    {
        return Err(Error::INVALID_VALUE);
    }
    if !vmm.is_reserved(start, bytes) || vmm.overlapping(start, bytes) {
        return Err(Error::INVALID_VALUE);
    }
    // SAFETY: MAP_FIXED replaces pages of our own reservation only, and nothing is mapped there.
    let at = unsafe {
        libc::mmap(
            start as *mut libc::c_void,
            bytes as usize,
            libc::PROT_NONE,
            libc::MAP_SHARED | libc::MAP_FIXED,
            physical.fd.as_raw_fd(),
            0,
        )
    };
    if at == libc::MAP_FAILED {
        return Err(Error::OUT_OF_MEMORY);
    }
    vmm.mappings.insert(start, Mapping { bytes, handle, physical, access: 0 });
    Ok(())
}

/// `cuMemSetAccess`: a range of whole mappings.
pub fn set_access(start: u64, bytes: u64, grants: &[AccessDesc]) -> Result {
    let mut vmm = vmm();
    let starts = vmm.whole_mappings(start, bytes)?;
    if grants.is_empty() {
        return Err(Error::INVALID_VALUE);
    }
    for grant in grants {
        match grant.location.kind {
            LOCATION_DEVICE => Device::new(grant.location.id).map(drop)?,
            kind if LOCATION_HOST.contains(&kind) => {}
            _ => return Err(Error::INVALID_VALUE),
        }
        if !matches!(grant.flags, 0 | ACCESS_READ | ACCESS_READ_WRITE) {
            return Err(Error::INVALID_VALUE);
        }
    }
    let access = grants.iter().map(|grant| grant.flags).max().unwrap_or(0);
    let protection = match access {
        0 => libc::PROT_NONE,
        ACCESS_READ => libc::PROT_READ,
        _ => libc::PROT_READ | libc::PROT_WRITE,
    };
    for at in starts {
        let Some(mapping) = vmm.mappings.get_mut(&at) else { continue };
        // SAFETY: the pages are a mapping that `map` made and `unmap` has not removed.
        if unsafe { libc::mprotect(at as *mut libc::c_void, mapping.bytes as usize, protection) } != 0 {
            return Err(Error::OPERATING_SYSTEM);
        }
        mapping.access = access;
        let kind = Kind::Mapped { host: mapping.physical.prop.location.kind != LOCATION_DEVICE };
        let (bytes, device) = (mapping.bytes, mapping.physical.device);
        match (SPACE.find(at).is_some(), access != 0) {
            (false, true) => drop(SPACE.insert(Range::new(at, bytes, CHUNK_BYTES, kind, device, 0))),
            (true, false) => drop(SPACE.remove(at, |range| range.kind == kind)),
            _ => {}
        }
    }
    Ok(())
}

/// `cuMemGetAccess`: the access of a location to the mapping at an address.
pub fn access(address: u64, location: &MemLocation) -> Result<u64> {
    let vmm = vmm();
    let (_, mapping) = vmm.mapping_at(address).ok_or(Error::INVALID_VALUE)?;
    match location.kind {
        LOCATION_DEVICE => Device::new(location.id).map(|_| u64::from(mapping.access)),
        kind if LOCATION_HOST.contains(&kind) => Ok(u64::from(mapping.access)),
        _ => Err(Error::INVALID_VALUE),
    }
}

/// `cuMemUnmap`: a range of whole mappings.
pub fn unmap(start: u64, bytes: u64) -> Result {
    let starts = vmm().whole_mappings(start, bytes)?;
    if let Ok(context) = context::current() {
        context.settle(UNMAP_PATIENCE);
    }
    let mut vmm = vmm();
    for at in &starts {
        SPACE.remove(*at, |range| matches!(range.kind, Kind::Mapped { .. }));
    }
    // A kernel that does not let go keeps the pages: they go with the reservation, or under the next mapping.
    let are_unused = lightos_softgpu_engine::exec::quiesce(pages::GRACE);
    for at in starts {
        let Some(mapping) = vmm.mappings.remove(&at) else { continue };
        if !are_unused {
            continue;
        }
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;
        // SAFETY: the pages belong to our own reservation; they become inaccessible again, and no task uses them now.
        unsafe { libc::mmap(at as *mut libc::c_void, mapping.bytes as usize, libc::PROT_NONE, flags, -1, 0) };
    }
    Ok(())
}

/// What pointer queries need of a mapping: start, size, and whether its memory can be exported.
pub fn mapping(address: u64) -> Option<(u64, u64, bool)> {
    let vmm = vmm();
    let (start, mapping) = vmm.mapping_at(address)?;
    Some((start, mapping.bytes, mapping.physical.prop.handle_types & HANDLE_POSIX_FD != 0))
}

/// The reservation around an address: start and size.
pub fn reservation(address: u64) -> Option<(u64, u64)> {
    let vmm = vmm();
    let (start, bytes) = vmm.reservations.range(..=address).next_back()?;
    (address - start < *bytes).then_some((*start, *bytes))
}

impl Vmm {
    fn enter(&mut self, physical: Physical) -> u64 {
        let handle = handle::fresh();
        self.handles.insert(handle, (Arc::new(physical), 1));
        handle
    }

    fn mapping_at(&self, address: u64) -> Option<(u64, &Mapping)> {
        let (start, mapping) = self.mappings.range(..=address).next_back()?;
        (address - start < mapping.bytes).then_some((*start, mapping))
    }

    fn is_reserved(&self, start: u64, bytes: u64) -> bool {
        let around = self.reservations.range(..=start).next_back();
        around.is_some_and(|(at, size)| start - at <= *size && bytes <= size - (start - at))
    }

    fn overlapping(&self, start: u64, bytes: u64) -> bool {
        let before = self.mappings.range(..start + bytes).next_back();
        before.is_some_and(|(at, mapping)| at + mapping.bytes > start)
    }

    /// The starts of the mappings that make up `[start, start + bytes)` exactly.
    fn whole_mappings(&self, start: u64, bytes: u64) -> Result<Vec<u64>> {
        let end = start.checked_add(bytes).filter(|_| bytes > 0).ok_or(Error::INVALID_VALUE)?;
        let mut at = start;
        let mut starts = Vec::new();
        while at < end {
            let mapping = self.mappings.get(&at).ok_or(Error::INVALID_VALUE)?;
            starts.push(at);
            at += mapping.bytes;
        }
        if at == end { Ok(starts) } else { Err(Error::INVALID_VALUE) }
    }
}
