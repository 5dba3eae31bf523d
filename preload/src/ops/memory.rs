//! Device memory of the program: allocation, release, size queries, and what the other areas ask about addresses.
//!
//! Owns the heap of device memory and the table of live allocations. The heap's lock is held across round trips to the executor, which
//! end with the session at the latest; the table's lock never is. [`abandon`] runs on the session's watch thread.

pub mod slabs;

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use lightos_protocol::arena::{DEVICE_ARENA_BASE, DEVICE_ARENA_SIZES, HOST_ARENA_BASE, HOST_ARENA_BYTES};
use lightos_protocol::arena::{Region, classify};
use lightos_protocol::mapping::Reservation;

use super::{capture, context, graph, host, ipc, pool, stream, vmm};
use crate::alloc::heap::Heap;
use crate::alloc::live::{Allocation, Kind, Live};
use crate::dispatch;
use crate::edge::Out;
use crate::outcome::{Outcome, Reason};
use crate::real;
use crate::result::CuResult;
use crate::session::{Session, session};
use slabs::Slabs;

/// Every allocation of the program that the device can reach through the executor.
pub static LIVE: Live = Live::new();

/// Device memory; `None` before the session starts and after it was abandoned.
static HEAP: Mutex<Option<Heap<Slabs>>> = Mutex::new(None);

/// Addresses of shared host memory.
static HOST_ARENA: OnceLock<Reservation> = OnceLock::new();

/// What cuMemAllocPitch aligns rows to: the texture alignment of every device so far, in bytes.
const PITCH_ALIGN_BYTES: usize = 512;

/// The session, for ops: they run only with one, but it may end meanwhile.
pub fn sidecar() -> Result<&'static Session, CuResult> {
    session().ok_or(CuResult::DEINITIALIZED)
}

/// Reserves both arenas, once, before the session is used: of the device arena what the executor has reserved.
///
/// # Errors
/// The driver's error, or `OUT_OF_MEMORY` when the addresses are taken in this process: the program then runs natively.
pub fn reserve(device_arena_bytes: u64) -> Result<(), CuResult> {
    if !DEVICE_ARENA_SIZES.contains(&device_arena_bytes) {
        return Err(CuResult::INVALID_VALUE);
    }
    // cuInit has just run, so no context is current yet. The driver's documentation does not say whether a reservation needs one.
    reserve_device(device_arena_bytes)
        .or_else(|_| context::with_primary(|| reserve_device(device_arena_bytes)))?;
    let host = Reservation::fixed(HOST_ARENA_BASE, HOST_ARENA_BYTES).map_err(|_| CuResult::OUT_OF_MEMORY)?;
    let _ = HOST_ARENA.set(host);
    host::start();
    *heap() = Some(Heap::new(Slabs, DEVICE_ARENA_BASE, device_arena_bytes));
    Ok(())
}

fn reserve_device(bytes: u64) -> Result<(), CuResult> {
    let (mut address, size) = (0, bytes as usize);
    // SAFETY: a valid out-pointer; the call maps nothing.
    unsafe { real::cuMemAddressReserve(&mut address, size, 0, DEVICE_ARENA_BASE, 0) }.ok()?;
    if address != DEVICE_ARENA_BASE {
        // SAFETY: reserved just above with this size.
        let _ = unsafe { real::cuMemAddressFree(address, size) };
        return Err(CuResult::OUT_OF_MEMORY);
    }
    Ok(())
}

/// The executor is gone: this process's own references to device memory end, so that the memory returns to the device.
pub fn abandon() {
    if let Some(heap) = heap().take() {
        heap.slabs().for_each(|(address, bytes)| slabs::unmap(address, bytes));
    }
    vmm::abandon();
    ipc::abandon();
}

/// Gives the device arena back, for a process that leaves the executor before anything lies there.
pub fn unreserve(device_arena_bytes: u64) {
    abandon();
    // SAFETY: reserved by `reserve` with this size; nothing is mapped in it.
    let _ = unsafe { real::cuMemAddressFree(DEVICE_ARENA_BASE, device_arena_bytes as usize) };
}

/// The reserved addresses of shared host memory.
pub fn host_arena() -> Result<&'static Reservation, CuResult> {
    HOST_ARENA.get().ok_or(CuResult::NOT_INITIALIZED)
}

fn heap() -> MutexGuard<'static, Option<Heap<Slabs>>> {
    HEAP.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `work` on the heap.
pub fn with_heap<T>(work: impl FnOnce(&mut Heap<Slabs>) -> Result<T, CuResult>) -> Result<T, CuResult> {
    match heap().as_mut() {
        Some(heap) => work(heap),
        None => Err(sidecar()?.sticky().unwrap_or(CuResult::NOT_INITIALIZED)),
    }
}

/// Whether all of `[address, address + bytes)` is live device memory.
pub fn is_device(address: u64, bytes: u64) -> bool {
    LIVE.covering(address, bytes).is_some_and(|allocation| allocation.kind.is_device())
}

/// Device memory for the program, in the table and the counters.
pub fn obtain(bytes: usize, kind: Kind) -> Result<u64, CuResult> {
    let session = sidecar()?;
    session.sticky().map_or(Ok(()), Err)?;
    if bytes == 0 {
        return Err(CuResult::INVALID_VALUE);
    }
    let bytes = bytes as u64;
    dispatch::settle();
    pool::collect();
    let mut address = with_heap(|heap| heap.allocate(bytes));
    if address == Err(CuResult::OUT_OF_MEMORY) && pool::drain()? {
        address = with_heap(|heap| heap.allocate(bytes));
    }
    let address = address?;
    // Memory from a pool is the device's; what cuMemAlloc gives is the context's.
    let owner = if kind == Kind::Device { context::current() } else { 0 };
    LIVE.insert_in(address, bytes, kind, owner);
    session.pages().counters().memory_allocated(bytes);
    Ok(address)
}

/// Ends an allocation that has left the table and that the device no longer uses.
pub fn give_back(allocation: Allocation) -> Result<(), CuResult> {
    sidecar()?.pages().counters().memory_freed(allocation.bytes);
    with_heap(|heap| {
        heap.free(allocation.base, allocation.bytes);
        Ok(())
    })
}

/// cuMemAlloc.
pub fn allocate(out: Out<u64>, bytes: usize) -> Result<(), CuResult> {
    context::check()?;
    capture::permits_unsafe()?;
    let out = out.required()?;
    out.put(obtain(bytes, Kind::Device)?);
    Ok(())
}

/// cuMemAllocPitch: rows of `width` bytes start at multiples of 512 bytes.
pub fn allocate_pitch(
    out: Out<u64>,
    pitch_out: Out<usize>,
    width: usize,
    height: usize,
    element_bytes: u32,
) -> Result<(), CuResult> {
    context::check()?;
    capture::permits_unsafe()?;
    let (out, pitch_out) = (out.required()?, pitch_out.required()?);
    if !matches!(element_bytes, 4 | 8 | 16) || width == 0 || height == 0 {
        return Err(CuResult::INVALID_VALUE);
    }
    let pitch = width.checked_next_multiple_of(PITCH_ALIGN_BYTES).ok_or(CuResult::OUT_OF_MEMORY)?;
    let bytes = pitch.checked_mul(height).ok_or(CuResult::OUT_OF_MEMORY)?;
    out.put(obtain(bytes, Kind::Device)?);
    pitch_out.put(pitch);
    Ok(())
}

/// Whether `address` is that of memory which a graph allocates.
pub fn is_of_graph(address: u64) -> bool {
    LIVE.find(address).is_some_and(|found| (found.base, found.kind) == (address, Kind::OfGraph))
}

/// cuMemFree. As natively, it returns once all work of the context is done, since some may still use the memory.
pub fn free(address: u64) -> Result<Outcome, CuResult> {
    context::check()?;
    capture::permits_unsafe()?;
    if is_of_graph(address) {
        stream::synchronize_context()?;
        graph::memory::free(address)?;
        return Ok(Outcome::Done);
    }
    let freeable = |kind| matches!(kind, Kind::Device | Kind::Pooled { .. } | Kind::Managed);
    let Some(allocation) = LIVE.remove(address, freeable) else {
        return foreign(address);
    };
    ipc::withdraw(&allocation);
    stream::synchronize_context()?;
    if allocation.kind == Kind::Managed {
        host::give_back(allocation)?;
        return Ok(Outcome::Done);
    }
    pool::forget(allocation);
    give_back(allocation)?;
    Ok(Outcome::Done)
}

/// The memory of a context that has ended.
pub fn end_of_context(context: u64) {
    for allocation in LIVE.remove_all(|allocation| allocation.context == context) {
        let _ = match allocation.kind {
            Kind::Registered { .. } | Kind::Staged { .. } => host::register::end(allocation),
            Kind::Host { .. } | Kind::Managed => host::give_back(allocation),
            _ => give_back(allocation),
        };
    }
}

/// An address that is no allocation of ours: outside the arenas the local driver names the error, inside there is nothing
/// for it to know.
pub fn foreign(address: u64) -> Result<Outcome, CuResult> {
    match classify(address) {
        Region::ClientHost => Ok(Outcome::PassThrough(Reason::InvalidArgument)),
        Region::Device | Region::SharedHost => Err(CuResult::INVALID_VALUE),
    }
}

/// cuMemGetInfo: the device's own figures. Empty slabs kept for reuse count as free, because the program can have them.
pub fn info(free: Out<usize>, total: Out<usize>) -> Result<(), CuResult> {
    let (mut free_bytes, mut total_bytes) = (0, 0);
    // SAFETY: valid out-pointers.
    unsafe { real::cuMemGetInfo_v2(&mut free_bytes, &mut total_bytes) }.ok()?;
    sidecar()?.sticky().map_or(Ok(()), Err)?;
    let (free, total) = (free.required()?, total.required()?);
    pool::collect();
    let cached = with_heap(|heap| Ok(heap.cached_bytes()))?;
    let allowed = slabs::allowance().saturating_add(cached);
    let available = (free_bytes as u64).saturating_add(cached).min(total_bytes as u64).min(allowed);
    free.put(available as usize);
    total.put(total_bytes);
    Ok(())
}

/// cuMemGetAddressRange: either out-parameter may be null.
pub fn address_range(base: Out<u64>, bytes: Out<usize>, address: u64) -> Result<Outcome, CuResult> {
    context::check()?;
    let Some(allocation) = LIVE.find(address) else { return foreign(address) };
    base.put(allocation.base);
    bytes.put(allocation.bytes as usize);
    Ok(Outcome::Done)
}
