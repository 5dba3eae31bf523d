//! Allocations of device, pinned host and managed memory, in stream order from [`pool`]s or at once.
//!
//! Freeing waits for the context's queued work, as hardware does, so no running task sees memory vanish.

mod pool;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::context::{self, Context};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::graph;
use crate::heap::{self, ALIGNMENT, pages};
use crate::ipc;
use crate::space::{Kind, Place, Range, SPACE};
use crate::stream::Stream;
use crate::work::Task;

pub use pool::{
    Pool, create_pool, created_pools, current_pool, current_pool_at, default_pool, default_pool_at,
    destroy_pool, device_props, pool_of, set_current_pool_at,
};

/// Pitch granularity of `cuMemAllocPitch`.
const PITCH: u64 = 512;
const PAGE: u64 = 4096;
/// `CU_MEMHOSTALLOC_PORTABLE | DEVICEMAP | WRITECOMBINED`.
const HOST_ALLOC_FLAGS: u32 = 7;
/// `CU_MEMHOSTREGISTER_PORTABLE | DEVICEMAP | READ_ONLY`; IOMEMORY is not supported.
const REGISTER_FLAGS: u32 = 1 | 2 | 8;
const REGISTER_IO_MEMORY: u32 = 4;

/// Memory that has left the address space and is still to be returned to the device.
#[derive(Debug)]
struct Block {
    device: Device,
    start: u64,
    bytes: u64,
    is_host: bool,
    pool: Option<Arc<Pool>>,
}

impl Block {
    /// Returns the memory to the device.
    fn free(self) {
        if self.is_host {
            pages::retire(self.start, self.bytes.next_multiple_of(PAGE));
        } else {
            heap::free(self.device, self.start, self.bytes);
        }
        if let Some(pool) = self.pool {
            pool.used.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

fn enter(context: &Context, start: u64, bytes: u64, granularity: u64, kind: Kind) -> Result {
    let range = Range::new(start, bytes, granularity, kind, context.device, context.handle);
    if SPACE.insert(range) { Ok(()) } else { Err(Error::UNKNOWN) }
}

fn allocate_as(context: &Context, bytes: u64, kind: Kind) -> Result<u64> {
    if bytes == 0 {
        return Err(Error::INVALID_VALUE);
    }
    let start = heap::allocate(context.device, bytes)?;
    enter(context, start, bytes, ALIGNMENT, kind)?;
    Ok(start)
}

/// `cuMemAlloc`.
pub fn allocate(bytes: usize) -> Result<u64> {
    allocate_as(&*context::healthy()?, bytes as u64, Kind::Device)
}

/// `cuMemAllocManaged`; the flags are `CU_MEM_ATTACH_GLOBAL` or `CU_MEM_ATTACH_HOST`.
pub fn allocate_managed(bytes: usize, flags: u32) -> Result<u64> {
    let context = context::healthy()?;
    if !matches!(flags, 1 | 2) {
        return Err(Error::INVALID_VALUE);
    }
    allocate_as(&context, bytes as u64, Kind::Managed)
}

/// `cuMemAllocPitch`: address and pitch.
pub fn allocate_pitch(width: usize, height: usize, element_bytes: u32) -> Result<(u64, usize)> {
    let context = context::healthy()?;
    if width == 0 || height == 0 || !matches!(element_bytes, 4 | 8 | 16) {
        return Err(Error::INVALID_VALUE);
    }
    let pitch = (width as u64).checked_next_multiple_of(PITCH).ok_or(Error::OUT_OF_MEMORY)?;
    let bytes = pitch.checked_mul(height as u64).ok_or(Error::OUT_OF_MEMORY)?;
    Ok((allocate_as(&context, bytes, Kind::Device)?, pitch as usize))
}

/// Memory for an array, in steps that keep every texel aligned.
pub fn allocate_array(context: &Context, bytes: u64) -> Result<u64> {
    allocate_as(context, bytes, Kind::Array)
}

/// Frees an array's memory.
pub fn free_array(start: u64) {
    if let Some(block) = release_block(start, |range| range.kind == Kind::Array) {
        block.free();
    }
}

/// Zeroed memory for a module's globals; the heap's alignment is more than any `.align` that compilers emit.
pub fn allocate_global(device: Device, context: u64, bytes: u64, align: u64) -> Option<u64> {
    let bytes = bytes.max(1);
    let start = if align <= ALIGNMENT { heap::allocate(device, bytes).ok()? } else { return None };
    // SAFETY: the heap has just given out these bytes, readable and writable.
    unsafe { std::ptr::write_bytes(start as *mut u8, 0, bytes as usize) };
    SPACE.insert(Range::new(start, bytes, ALIGNMENT, Kind::Global, device, context)).then_some(start)
}

/// Frees a module's globals.
pub fn free_global(start: u64) {
    if let Some(range) = SPACE.remove(start, |range| range.kind == Kind::Global) {
        heap::free(range.device, range.start, range.bytes);
    }
}

/// `cuMemFree`: device, managed and pool memory.
pub fn free(start: u64) -> Result {
    let context = context::healthy()?;
    if start == 0 {
        return Ok(());
    }
    if let Some(allocation) = graph::memory::find(start) {
        context.synchronize()?;
        return allocation.free();
    }
    claim(start, |kind| matches!(kind, Kind::Device | Kind::Managed | Kind::Pool(..)))?;
    context.synchronize()?;
    finish_free(start);
    Ok(())
}

/// Marks an allocation of an accepted kind as freed; an error where none starts there or it has been freed before.
fn claim(start: u64, accept: impl FnOnce(Kind) -> bool) -> Result {
    let range = SPACE.find(start).filter(|range| range.start == start && accept(range.kind));
    let first = range.is_some_and(|range| !range.is_freed.swap(true, Ordering::AcqRel));
    if first { Ok(()) } else { Err(Error::INVALID_VALUE) }
}

fn release_block(start: u64, accept: impl FnOnce(&Range) -> bool) -> Option<Block> {
    let range = SPACE.remove(start, accept)?;
    let pool = if let Kind::Pool(handle, _) = range.kind { pool_of(handle).ok() } else { None };
    let is_host = range.kind.is_host();
    Some(Block { device: range.device, start: range.start, bytes: range.bytes, is_host, pool })
}

/// `cuMemHostAlloc`; `cuMemAllocHost` passes no flags. No bytes are no allocation: address 0, as hardware has it.
pub fn allocate_host(bytes: usize, flags: u32) -> Result<u64> {
    let context = context::healthy()?;
    if flags & !HOST_ALLOC_FLAGS != 0 {
        return Err(Error::INVALID_VALUE);
    }
    if bytes == 0 {
        return Ok(0);
    }
    // Under unified addressing every pinned allocation is portable and mapped.
    map_host(&context, bytes as u64, Kind::Host(flags | 3))
}

fn map_host(context: &Context, bytes: u64, kind: Kind) -> Result<u64> {
    if bytes == 0 {
        return Err(Error::INVALID_VALUE);
    }
    let start = pages::map(bytes, PAGE, true)?;
    enter(context, start, bytes, PAGE, kind)?;
    Ok(start)
}

/// `cuMemFreeHost`.
pub fn free_host(start: u64) -> Result {
    let context = context::healthy()?;
    if start == 0 {
        return Ok(());
    }
    let is_host = |range: &Range| matches!(range.kind, Kind::Host(_));
    if !SPACE.find(start).is_some_and(|range| range.start == start && is_host(&range)) {
        return Err(Error::INVALID_VALUE);
    }
    context.synchronize()?;
    let range = SPACE.remove(start, is_host).ok_or(Error::INVALID_VALUE)?;
    pages::retire(range.start, range.bytes.next_multiple_of(PAGE));
    Ok(())
}

/// `cuMemHostRegister`.
pub fn register_host(start: u64, bytes: usize, flags: u32) -> Result {
    let context = context::healthy()?;
    if flags & REGISTER_IO_MEMORY != 0 {
        return Err(Error::NOT_SUPPORTED);
    }
    let end = start.checked_add(bytes as u64).ok_or(Error::INVALID_VALUE)?;
    if start == 0 || bytes == 0 || flags & !REGISTER_FLAGS != 0 {
        return Err(Error::INVALID_VALUE);
    }
    if SPACE.overlaps(start, end) {
        return Err(Error::HOST_MEMORY_ALREADY_REGISTERED);
    }
    enter(&context, start, bytes as u64, 1, Kind::Registered(flags))
}

/// `cuMemHostUnregister`.
pub fn unregister_host(start: u64) -> Result {
    let context = context::healthy()?;
    if start == 0 {
        return Err(Error::INVALID_VALUE);
    }
    let is_registered = |range: &Range| matches!(range.kind, Kind::Registered(_));
    if !SPACE.find(start).is_some_and(|range| range.start == start && is_registered(&range)) {
        return Err(Error::HOST_MEMORY_NOT_REGISTERED);
    }
    context.synchronize()?;
    SPACE.remove(start, is_registered).map(drop).ok_or(Error::HOST_MEMORY_NOT_REGISTERED)
}

/// `cuMemHostGetFlags`.
pub fn host_flags(address: u64) -> Result<u32> {
    context::healthy()?;
    match SPACE.find(address).map(|range| range.kind) {
        Some(Kind::Host(flags)) => Ok(flags),
        // CU_MEMHOSTREGISTER_DEVICEMAP, which registered memory has anyway where addresses are unified.
        Some(Kind::Registered(flags)) => Ok(flags | 2),
        _ => Err(Error::INVALID_VALUE),
    }
}

/// `cuMemHostGetDevicePointer`: the same address.
pub fn host_device_pointer(address: u64, flags: u32) -> Result<u64> {
    context::healthy()?;
    if flags != 0 {
        return Err(Error::INVALID_VALUE);
    }
    match SPACE.find(address).map(|range| range.kind) {
        Some(Kind::Host(_) | Kind::Registered(_)) => Ok(address),
        _ => Err(Error::INVALID_VALUE),
    }
}

/// `cuMemGetAddressRange`: start and size of the allocation around an address.
pub fn address_range(address: u64) -> Result<(u64, usize)> {
    context::healthy()?;
    let range = SPACE.find(address).filter(|range| address < range.start + range.bytes);
    range.map(|range| (range.start, range.bytes as usize)).ok_or(Error::NOT_FOUND)
}

/// Frees what a destroyed context leaves behind. Mappings belong to no context and stay.
pub(crate) fn forget_context(context: u64) {
    for range in SPACE.drain(|range| range.context == context) {
        match range.kind {
            Kind::Host(_) | Kind::Pool(_, Place::Host) => {
                pages::retire(range.start, range.bytes.next_multiple_of(PAGE));
            }
            Kind::Registered(_) | Kind::Mapped { .. } => {}
            Kind::Imported => ipc::abandon(range.start),
            _ => heap::free(range.device, range.start, range.bytes),
        }
    }
}

/// `cuMemAllocFromPoolAsync`: the memory is there at once, which is earlier than stream order asks for.
pub fn allocate_async(pool: u64, bytes: usize, stream: &Stream) -> Result<u64> {
    context::healthy()?;
    let pool = pool_of(pool)?;
    let kind = Kind::Pool(pool.handle, pool.place);
    let start = match pool.place {
        Place::Device | Place::Managed => allocate_as(&stream.context, bytes as u64, kind)?,
        Place::Host => map_host(&stream.context, bytes as u64, kind)?,
    };
    let used = pool.used.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
    pool.high.fetch_max(used, Ordering::Relaxed);
    Ok(start)
}

/// `cuMemFreeAsync`: address and memory live until the stream gets there.
pub fn free_async(start: u64, stream: &Arc<Stream>) -> Result {
    context::healthy()?;
    if let Some(allocation) = graph::memory::find(start) {
        // Its pages stay; what a later launch of its graph asks is whether it was freed.
        return allocation.free();
    }
    claim(start, |kind| matches!(kind, Kind::Device | Kind::Pool(..)))?;
    stream.enqueue(Task::FreeAt(start)).map(drop)
}

/// The last step of a free, for an allocation that was claimed.
pub fn finish_free(start: u64) {
    if let Some(block) = release_block(start, |range| range.is_freed.load(Ordering::Acquire)) {
        block.free();
    }
}
