//! The program's own virtual memory management (cuMemCreate, cuMemMap and kin).
//!
//! Addresses come from the device arena. Physical memory is created by the executor and imported here; the program holds the local handle,
//! the executor knows the allocation by a number that is never used twice. Both sides map the same memory at the same
//! address, local driver first, because it names the errors.
//!
//! Invariant: the executor keeps an allocation as long as the program holds a reference or a mapping of it, so that
//! cuMemRetainAllocationHandle can give a handle back.

mod share;

use std::collections::{BTreeMap, HashMap};
use std::ffi::c_void;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use lightos_protocol::arena::{DEVICE_PAGE_BYTES, Region, classify};
use lightos_protocol::request::{MemoryRequest, Request};

use super::memory::slabs::{self, AccessDesc, DEVICE, LOCATION_DEVICE, Location, POSIX_FD};
use super::memory::{LIVE, foreign, sidecar, with_heap};
use crate::alloc::live::Kind;
use crate::dispatch;
use crate::edge::{In, Out};
use crate::outcome::{Outcome, Reason};
use crate::real;
use crate::result::CuResult;

pub use share::{export, import};

/// `CU_MEM_ALLOCATION_TYPE_PINNED`.
const PINNED: u32 = 1;
/// `CU_MEM_HANDLE_TYPE_FABRIC`.
const FABRIC: u32 = 8;

/// `CUmemAllocationProp`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Properties {
    pub kind: u32,
    pub handle_types: u32,
    pub location: Location,
    pub win32_metadata: *mut c_void,
    pub compression: u8,
    pub gpu_direct_rdma: u8,
    pub usage: u16,
    pub reserved: [u8; 4],
}

/// One physical allocation.
#[derive(Debug)]
struct Physical {
    /// What it counts for in this program's account of device memory; 0 for imported memory and the host's.
    bytes: u64,
    /// The local handle while `references` is not 0.
    handle: u64,
    references: u32,
    mappings: u32,
    /// What the program asked for: its memory is always exportable, but it need not know.
    handle_types: u32,
    location: Location,
}

#[derive(Debug)]
struct State {
    /// Size by address.
    reservations: BTreeMap<u64, u64>,
    allocations: BTreeMap<u64, Physical>,
    /// Number by local handle.
    handles: Option<HashMap<u64, u64>>,
}

static STATE: Mutex<State> =
    Mutex::new(State { reservations: BTreeMap::new(), allocations: BTreeMap::new(), handles: None });

/// A number that no allocation has had.
fn next_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Relaxed)
}

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn number(&self, handle: u64) -> Option<u64> {
        self.handles.as_ref()?.get(&handle).copied()
    }

    fn add(&mut self, number: u64, physical: Physical) {
        self.handles.get_or_insert_default().insert(physical.handle, number);
        self.allocations.insert(number, physical);
    }

    /// Whether `[address, address + bytes)` lies in one reservation of the program.
    fn is_reserved(&self, address: u64, bytes: u64) -> bool {
        let reservation = self.reservations.range(..=address).next_back();
        reservation.is_some_and(|(base, length)| {
            let offset = address - base;
            offset < *length && bytes <= length - offset
        })
    }

    /// Ends an allocation that has neither references nor mappings left.
    fn settle(&mut self, number: u64) -> Result<(), CuResult> {
        let over = |physical: &Physical| physical.references == 0 && physical.mappings == 0;
        let Some(bytes) = self.allocations.get(&number).filter(|it| over(it)).map(|it| it.bytes) else {
            return Ok(());
        };
        self.allocations.remove(&number);
        let session = sidecar()?;
        if bytes > 0 {
            slabs::refund(bytes);
            session.pages().counters().memory_freed(bytes);
        }
        // The answer is waited for: the memory is back when the program's call returns.
        session.call(&Request::Memory(MemoryRequest::VmmRelease { handle: number })).map(drop)
    }
}

/// cuMemAddressReserve, served from the arena.
pub fn reserve(out: Out<u64>, bytes: usize, align: usize, hint: u64, flags: u64) -> Result<(), CuResult> {
    let out = out.required()?;
    let (bytes, align) = (bytes as u64, (align as u64).max(DEVICE_PAGE_BYTES));
    if bytes == 0 || !bytes.is_multiple_of(DEVICE_PAGE_BYTES) || !align.is_power_of_two() || flags != 0 {
        return Err(CuResult::INVALID_VALUE);
    }
    dispatch::settle();
    let address = with_heap(|heap| heap.reserve(bytes, align, hint).ok_or(CuResult::OUT_OF_MEMORY))?;
    state().reservations.insert(address, bytes);
    out.put(address);
    Ok(())
}

/// cuMemAddressFree, of a whole reservation without mappings.
pub fn unreserve(address: u64, bytes: usize) -> Result<Outcome, CuResult> {
    let mut state = state();
    if state.reservations.get(&address) != Some(&(bytes as u64)) {
        return foreign(address);
    }
    if !LIVE.starting_in(address, bytes as u64).is_empty() {
        return Err(CuResult::INVALID_VALUE);
    }
    state.reservations.remove(&address);
    drop(state);
    with_heap(|heap| {
        heap.unreserve(address, bytes as u64);
        Ok(())
    })?;
    Ok(Outcome::Done)
}

/// cuMemCreate, of memory of the device or of the host.
pub fn create(
    out: Out<u64>,
    bytes: usize,
    properties: In<Properties>,
    flags: u64,
) -> Result<Outcome, CuResult> {
    let out = out.required()?;
    let asked = properties.get()?;
    if asked.kind != PINNED || flags != 0 || bytes == 0 {
        return Ok(Outcome::PassThrough(Reason::InvalidArgument));
    }
    let (location, handle_types) = (asked.location.as_reported(), asked.handle_types);
    if handle_types & !(POSIX_FD | FABRIC) != 0 {
        return Ok(Outcome::Refuse(Reason::VmmKind));
    }
    if let Some(reason) = refusal(asked.location) {
        return Ok(Outcome::Refuse(reason));
    }
    let bytes = bytes as u64;
    if !bytes.is_multiple_of(DEVICE_PAGE_BYTES) {
        return Err(CuResult::INVALID_VALUE);
    }
    let charged = if location.is_host() { 0 } else { bytes };
    slabs::charge(charged)?;
    let (number, handle) = create_physical(bytes, &asked).inspect_err(|_| slabs::refund(charged))?;
    if charged > 0 {
        sidecar()?.pages().counters().memory_allocated(charged);
    }
    let physical = Physical { bytes: charged, handle, references: 1, mappings: 0, handle_types, location };
    state().add(number, physical);
    out.put(handle);
    Ok(Outcome::Done)
}

/// Why the executor could not map memory of this location; none if it can.
fn refusal(location: Location) -> Option<Reason> {
    match location {
        Location::DEVICE => None,
        _ if location.is_host() => None,
        Location { kind: LOCATION_DEVICE, .. } => Some(Reason::OtherDevice),
        _ => Some(Reason::VmmKind),
    }
}

/// Creates in the executor and imports; number and local handle.
fn create_physical(bytes: u64, asked: &Properties) -> Result<(u64, u64), CuResult> {
    let number = next_number();
    let [usage_low, usage_high] = asked.usage.to_le_bytes();
    let flags = [asked.compression, asked.gpu_direct_rdma, usage_low, usage_high, 0, 0, 0, 0];
    let session = sidecar()?;
    let tag = session.next_tag();
    let request = MemoryRequest::VmmCreate {
        handle: number,
        bytes,
        location_type: asked.location.kind,
        location_id: asked.location.id,
        flags: u64::from_le_bytes(flags),
        handle_types: asked.handle_types,
        tag,
    };
    let (_, fd) = session.call_for_fd(&Request::Memory(request), tag)?;
    let handle = slabs::import(fd).inspect_err(|_| {
        let _ = session.cast(&Request::Memory(MemoryRequest::VmmRelease { handle: number }));
    })?;
    Ok((number, handle))
}

/// cuMemRelease: one reference of a handle.
pub fn release(handle: u64) -> Result<Outcome, CuResult> {
    let mut state = state();
    let Some(number) = state.number(handle) else { return Ok(Outcome::PassThrough(Reason::InvalidArgument)) };
    // SAFETY: a handle of ours with at least one reference.
    unsafe { real::cuMemRelease(handle) }.ok()?;
    if let Some(physical) = state.allocations.get_mut(&number) {
        physical.references -= 1;
        if physical.references == 0
            && let Some(handles) = &mut state.handles
        {
            handles.remove(&handle);
        }
    }
    state.settle(number)?;
    Ok(Outcome::Done)
}

/// cuMemRetainAllocationHandle: another reference to what is mapped at `address`.
pub fn retain(out: Out<u64>, address: *mut c_void) -> Result<Outcome, CuResult> {
    let out = out.required()?;
    let Some(found) = LIVE.find(address.addr() as u64) else { return foreign(address.addr() as u64) };
    let Kind::Mapping { allocation: number, .. } = found.kind else { return Err(CuResult::INVALID_VALUE) };
    let mut state = state();
    let mut handle = 0;
    // SAFETY: a valid out-pointer; the address is mapped.
    unsafe { real::cuMemRetainAllocationHandle(&mut handle, address) }.ok()?;
    if let Some(physical) = state.allocations.get_mut(&number) {
        physical.references += 1;
        physical.handle = handle;
        state.handles.get_or_insert_default().insert(handle, number);
    }
    out.put(handle);
    Ok(Outcome::Done)
}

/// cuMemMap, inside a reservation of the program.
pub fn map(address: u64, bytes: usize, offset: usize, handle: u64, flags: u64) -> Result<Outcome, CuResult> {
    let mut state = state();
    let Some(number) = state.number(handle) else { return Ok(Outcome::PassThrough(Reason::InvalidArgument)) };
    if !state.is_reserved(address, bytes as u64) {
        return Err(CuResult::INVALID_VALUE);
    }
    // SAFETY: a range that the program reserved and an allocation of its own; the driver validates the rest.
    unsafe { real::cuMemMap(address, bytes, offset, handle, flags) }.ok()?;
    let request =
        MemoryRequest::VmmMap { address, bytes: bytes as u64, offset: offset as u64, handle: number };
    sidecar()?.call(&Request::Memory(request)).inspect_err(|_| slabs::unmap(address, bytes as u64))?;
    let mut host = false;
    if let Some(physical) = state.allocations.get_mut(&number) {
        physical.mappings += 1;
        host = physical.location.is_host();
    }
    LIVE.insert(address, bytes as u64, Kind::Mapping { allocation: number, host });
    Ok(Outcome::Done)
}

/// cuMemSetAccess, for the session's device and, here alone, for the processor.
pub fn set_access(
    address: u64,
    bytes: usize,
    descriptors: In<AccessDesc>,
    count: usize,
) -> Result<Outcome, CuResult> {
    let asked: Vec<AccessDesc> = (0..count).map(|index| descriptors.at(index)).collect::<Result<_, _>>()?;
    if asked.iter().any(|asked| refusal(asked.location).is_some()) {
        return Ok(Outcome::Refuse(Reason::VmmKind));
    }
    // SAFETY: the program's own descriptors, read above; the driver validates range and flags.
    unsafe { real::cuMemSetAccess(address, bytes, descriptors.as_ptr().cast(), count) }.ok()?;
    if classify(address) == Region::ClientHost {
        return Ok(Outcome::Done);
    }
    let session = sidecar()?;
    for access in asked.into_iter().filter(|access| access.location == Location::DEVICE) {
        session.call(&Request::Memory(MemoryRequest::VmmSetAccess {
            address,
            bytes: bytes as u64,
            device: DEVICE,
            flags: access.flags,
        }))?;
    }
    Ok(Outcome::Done)
}

/// cuMemUnmap, of whole mappings.
pub fn unmap(address: u64, bytes: usize) -> Result<Outcome, CuResult> {
    if classify(address) == Region::ClientHost {
        return Ok(Outcome::PassThrough(Reason::InvalidArgument));
    }
    let mut state = state();
    let mappings = LIVE.starting_in(address, bytes as u64);
    let covered: u64 = mappings.iter().map(|mapping| mapping.bytes).sum();
    let all_mappings = mappings.iter().all(|mapping| matches!(mapping.kind, Kind::Mapping { .. }));
    if covered != bytes as u64 || !all_mappings {
        return Err(CuResult::INVALID_VALUE);
    }
    // SAFETY: exactly the mappings that the program made there.
    unsafe { real::cuMemUnmap(address, bytes) }.ok()?;
    sidecar()?.call(&Request::Memory(MemoryRequest::VmmUnmap { address, bytes: bytes as u64 }))?;
    for mapping in mappings {
        LIVE.remove(mapping.base, |kind| matches!(kind, Kind::Mapping { .. }));
        if let Kind::Mapping { allocation: number, .. } = mapping.kind {
            if let Some(physical) = state.allocations.get_mut(&number) {
                physical.mappings -= 1;
            }
            state.settle(number)?;
        }
    }
    Ok(Outcome::Done)
}

/// cuMemGetAllocationPropertiesFromHandle: with the handle types that the program asked for.
pub fn properties(out: Out<Properties>, handle: u64) -> Result<Outcome, CuResult> {
    let out = out.required()?;
    let mut properties = driver_properties(handle)?;
    let state = state();
    if let Some(physical) = state.number(handle).and_then(|number| state.allocations.get(&number)) {
        properties.handle_types = physical.handle_types;
        properties.location = physical.location;
    }
    out.put(properties);
    Ok(Outcome::Done)
}

/// What the local driver says of an allocation.
fn driver_properties(handle: u64) -> Result<Properties, CuResult> {
    let mut properties = Properties {
        kind: 0,
        handle_types: 0,
        location: Location { kind: 0, id: 0 },
        win32_metadata: std::ptr::null_mut(),
        compression: 0,
        gpu_direct_rdma: 0,
        usage: 0,
        reserved: [0; 4],
    };
    // SAFETY: a valid out-pointer of the C layout.
    unsafe { real::cuMemGetAllocationPropertiesFromHandle(&mut properties, handle) }.ok()?;
    Ok(properties)
}

/// The executor is gone: this process's mappings and references end.
pub fn abandon() {
    let mut state = state();
    let ranges: Vec<(u64, u64)> = state.reservations.iter().map(|(&base, &bytes)| (base, bytes)).collect();
    for (base, bytes) in ranges {
        for mapping in LIVE.starting_in(base, bytes) {
            slabs::unmap(mapping.base, mapping.bytes);
        }
    }
    for physical in std::mem::take(&mut state.allocations).into_values() {
        for _ in 0..physical.references {
            // SAFETY: each reference is released once; the program's own release will find the handle unknown.
            let _ = unsafe { real::cuMemRelease(physical.handle) };
        }
    }
    state.handles = None;
}
