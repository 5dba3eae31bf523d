//! Stream-ordered allocation. Pools are the local driver's objects; their memory comes from the session's heap.
//!
//! An allocation is usable at once on every stream. A free leaves a mark in its stream; the memory returns to the heap when the mark
//! is reached, and an allocation of the same size on the same stream may take it over before that, because the stream orders
//! the two uses. Marks are looked at when memory is next asked for.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::sync::{Mutex, MutexGuard, PoisonError};

use lightos_protocol::record::{Timeline, TimelineScope};

use super::copy::wire;
use super::memory::slabs::{DEVICE, LOCATION_DEVICE, Location};
use super::memory::{LIVE, foreign, give_back, is_of_graph, obtain, sidecar, with_heap};
use super::{capture, context, graph, ipc, stream};
use crate::alloc::heap::footprint;
use crate::alloc::live::{Allocation, Kind};
use crate::edge::{In, Out};
use crate::outcome::{Outcome, Reason};
use crate::real;
use crate::result::CuResult;

real::driver! {
    /// The pool that cuMemAllocAsync uses.
    fn cuDeviceGetMemPool(pool: *mut u64, device: i32);
}

const RESERVED_MEM_CURRENT: u32 = 5;
const RESERVED_MEM_HIGH: u32 = 6;
const USED_MEM_CURRENT: u32 = 7;
const USED_MEM_HIGH: u32 = 8;

/// The part of `CUmemPoolProps` that decides whether the session can serve the pool.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Properties {
    pub allocation_type: u32,
    pub handle_types: u32,
    pub location: Location,
}

/// In place of a stream that is gone.
const NO_STREAM: u64 = u64::MAX;

/// A mark in a stream behind which memory is free.
#[derive(Debug)]
struct Mark {
    /// `None` once the memory was taken over; the slot still waits for its value.
    allocation: Option<Allocation>,
    /// Stream as in records, or [`NO_STREAM`].
    stream: u64,
    slot: u32,
    value: u32,
}

#[derive(Debug)]
struct Pools {
    marks: Vec<Mark>,
    usage: BTreeMap<u64, Usage>,
}

/// Bytes allocated from one pool.
#[derive(Debug, Default, Clone, Copy)]
struct Usage {
    current_bytes: u64,
    high_bytes: u64,
}

static POOLS: Mutex<Pools> = Mutex::new(Pools { marks: Vec::new(), usage: BTreeMap::new() });

fn pools() -> MutexGuard<'static, Pools> {
    POOLS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// cuMemPoolCreate: the local driver's pool, unless its memory would be elsewhere than on the session's device. One whose memory other
/// processes could be given is refused here and not at its export, by when a program has no other way any more; the device says that it has no
/// handle types for pools.
pub fn create(properties: In<Properties>) -> Outcome {
    match properties.get() {
        Ok(asked) if asked.location.kind != LOCATION_DEVICE || asked.location.id != DEVICE => {
            Outcome::Refuse(Reason::PoolOperation)
        }
        Ok(asked) if asked.handle_types != 0 => Outcome::Refuse(Reason::Ipc),
        // The local driver also names the error of a null pointer.
        _ => Outcome::PassThrough(Reason::LocalQuery),
    }
}

/// cuMemAllocAsync: from the device's current pool.
pub fn allocate(out: Out<u64>, bytes: usize, stream: u64) -> Result<Outcome, CuResult> {
    context::check()?;
    let mut pool = 0;
    // SAFETY: a valid out-pointer.
    unsafe { cuDeviceGetMemPool(&mut pool, DEVICE) }.ok()?;
    allocate_from(out, bytes, pool, stream)
}

/// cuMemAllocFromPoolAsync.
pub fn allocate_from(out: Out<u64>, bytes: usize, pool: u64, stream: u64) -> Result<Outcome, CuResult> {
    context::check()?;
    if capture::captures(stream) {
        let out = out.required()?;
        out.put(graph::memory::capture_allocation(bytes, stream)?);
        return Ok(Outcome::Done);
    }
    capture::permits_unsafe()?;
    let out = out.required()?;
    if pool == 0 || bytes == 0 {
        return Err(CuResult::INVALID_VALUE);
    }
    let kind = Kind::Pooled { pool };
    let address = match take_over(bytes as u64, wire(stream)?) {
        Some(address) => {
            LIVE.insert(address, bytes as u64, kind);
            sidecar()?.pages().counters().memory_allocated(bytes as u64);
            address
        }
        None => obtain(bytes, kind)?,
    };
    let mut pools = pools();
    let usage = pools.usage.entry(pool).or_default();
    usage.current_bytes += bytes as u64;
    usage.high_bytes = usage.high_bytes.max(usage.current_bytes);
    out.put(address);
    Ok(Outcome::Done)
}

/// cuMemFreeAsync, of memory from any allocation function.
pub fn free(address: u64, stream: u64) -> Result<Outcome, CuResult> {
    context::check()?;
    if capture::captures(stream) {
        graph::memory::capture_free(address, stream)?;
        return Ok(Outcome::Done);
    }
    if is_of_graph(address) {
        graph::memory::free(address)?;
        return Ok(Outcome::Done);
    }
    let freeable = |kind| matches!(kind, Kind::Device | Kind::Pooled { .. });
    let Some(allocation) = LIVE.remove(address, freeable) else { return foreign(address) };
    ipc::withdraw(&allocation);
    forget(allocation);
    let session = sidecar()?;
    let stream = wire(stream)?;
    let Some(slot) = session.slots().allocate() else {
        stream::synchronize(stream)?;
        give_back(allocation)?;
        return Ok(Outcome::Done);
    };
    let value = session.slots().next_value(slot);
    session.send(&Timeline { stream, slot, value, scope: TimelineScope::Stream.into(), pad: 0 }, &[])?;
    session.pages().counters().memory_freed(allocation.bytes);
    pools().marks.push(Mark { allocation: Some(allocation), stream, slot, value });
    Ok(Outcome::Done)
}

/// Memory that was freed on the same stream and has the right size.
fn take_over(bytes: u64, stream: u64) -> Option<u64> {
    let wanted = footprint(bytes)?;
    let fits = |mark: &Mark| {
        let size = mark.allocation.and_then(|allocation| footprint(allocation.bytes));
        mark.stream == stream && size == Some(wanted)
    };
    let mut pools = pools();
    let mark = pools.marks.iter_mut().find(|mark| fits(mark))?;
    mark.allocation.take().map(|allocation| allocation.base)
}

/// A stream is gone: its memory waits for its marks, since the next stream of that name is not ordered behind it.
pub fn stream_gone(stream: u64) {
    pools().marks.iter_mut().filter(|mark| mark.stream == stream).for_each(|mark| mark.stream = NO_STREAM);
}

/// The allocation has left the table: its pool's usage ends.
pub fn forget(allocation: Allocation) {
    if let Kind::Pooled { pool } = allocation.kind
        && let Some(usage) = pools().usage.get_mut(&pool)
    {
        usage.current_bytes = usage.current_bytes.saturating_sub(allocation.bytes);
    }
}

/// Returns memory whose mark was reached. Cheap when nothing was freed in stream order.
pub fn collect() {
    let Ok(session) = sidecar() else { return };
    pools().marks.retain(|mark| {
        let reached = session.reached(mark.slot, mark.value);
        if reached {
            finish(mark);
        }
        !reached
    });
}

/// Waits for every mark; whether memory came back.
pub fn drain() -> Result<bool, CuResult> {
    let session = sidecar()?;
    let marks = std::mem::take(&mut pools().marks);
    for mark in &marks {
        session.wait(mark.slot, mark.value)?;
        finish(mark);
    }
    Ok(marks.iter().any(|mark| mark.allocation.is_some()))
}

fn finish(mark: &Mark) {
    if let Ok(session) = sidecar() {
        session.slots().release(mark.slot);
    }
    if let Some(allocation) = mark.allocation {
        // Without a heap (the session is over) there is nothing to give back to.
        let _ = with_heap(|heap| {
            heap.free(allocation.base, allocation.bytes);
            Ok(())
        });
    }
}

/// cuMemPoolTrimTo: the cached memory is the session's, shared by all pools.
pub fn trim(pool: u64, keep_bytes: usize) -> Result<Outcome, CuResult> {
    collect();
    with_heap(|heap| {
        heap.trim(keep_bytes as u64);
        Ok(())
    })?;
    // SAFETY: the driver validates the handle; the local pool holds no memory.
    unsafe { real::cuMemPoolTrimTo(pool, keep_bytes) }.ok()?;
    Ok(Outcome::Done)
}

/// cuMemPoolGetAttribute: usage is the session's, everything else the local pool's.
pub fn attribute(pool: u64, attribute: u32, value: Out<c_void>) -> Result<Outcome, CuResult> {
    if value.as_ptr().is_null() {
        return Err(CuResult::INVALID_VALUE);
    }
    // SAFETY: the driver validates handle and attribute and writes what the program made room for.
    unsafe { real::cuMemPoolGetAttribute(pool, attribute, value.as_ptr()) }.ok()?;
    let usage = pools().usage.get(&pool).copied().unwrap_or_default();
    let bytes = match attribute {
        RESERVED_MEM_CURRENT | USED_MEM_CURRENT => usage.current_bytes,
        RESERVED_MEM_HIGH | USED_MEM_HIGH => usage.high_bytes,
        _ => return Ok(Outcome::Done),
    };
    // These four attributes are `cuuint64_t`, which the program has made room for.
    value.cast::<u64>().put(bytes);
    Ok(Outcome::Done)
}

/// cuMemPoolSetAttribute: setting a high-water mark (to zero) starts it afresh.
pub fn set_attribute(pool: u64, attribute: u32, value: Out<c_void>) -> Result<Outcome, CuResult> {
    if value.as_ptr().is_null() {
        return Err(CuResult::INVALID_VALUE);
    }
    // SAFETY: the driver validates handle and attribute and reads what the attribute defines.
    unsafe { real::cuMemPoolSetAttribute(pool, attribute, value.as_ptr()) }.ok()?;
    if matches!(attribute, RESERVED_MEM_HIGH | USED_MEM_HIGH)
        && let Some(usage) = pools().usage.get_mut(&pool)
    {
        usage.high_bytes = usage.current_bytes;
    }
    Ok(Outcome::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_stream_that_freed_memory_takes_it_over() {
        let stream = 0x5eed;
        let free = |base| {
            let allocation = Allocation { base, bytes: 4096, kind: Kind::Device, context: 0, id: 1 };
            pools().marks.push(Mark { allocation: Some(allocation), stream, slot: 0, value: 0 });
        };
        free(0x1000);
        assert_eq!(take_over(4096, stream + 1), None);
        assert_eq!(take_over(4096, stream), Some(0x1000));
        assert_eq!(take_over(4096, stream), None, "taken once");
        free(0x2000);
        stream_gone(stream);
        assert_eq!(take_over(4096, stream), None, "a new stream under the handle of the old one");
    }
}
