//! Managed memory.
//!
//! Natively its pages migrate between processor and device. Here the device is another process's, so managed memory is pinned memory of the
//! host that both map at the same address: every access sees what native would show, those of the device at the speed of the bus. Each
//! allocation counts as [`Reason::ManagedMemory`], so that a report tells where that speed is the matter. Advice and
//! prefetching have nothing to move.

use super::memory::{LIVE, sidecar};
use super::{capture, context, host, stream};
use crate::alloc::live::Kind;
use crate::edge::Out;
use crate::outcome::{Outcome, Reason};
use crate::result::CuResult;

/// `CU_MEM_ATTACH_GLOBAL`, `CU_MEM_ATTACH_HOST`.
const ATTACH: [u32; 2] = [1, 2];

/// cuMemAllocManaged.
pub fn allocate(out: Out<u64>, bytes: usize, flags: u32) -> Result<(), CuResult> {
    context::check()?;
    capture::permits_unsafe()?;
    let out = out.required()?;
    if bytes == 0 || !ATTACH.contains(&flags) {
        return Err(CuResult::INVALID_VALUE);
    }
    let session = sidecar()?;
    session.sticky().map_or(Ok(()), Err)?;
    let address = host::obtain(bytes as u64)?;
    LIVE.insert_in(address, bytes as u64, Kind::Managed, context::current());
    session.pages().counters().count_reason(Reason::ManagedMemory as usize);
    out.put(address);
    Ok(())
}

/// Whether the range is managed memory; for anything else the local driver names the error.
pub fn is_managed(address: u64, bytes: usize) -> bool {
    LIVE.covering(address, bytes as u64).is_some_and(|allocation| allocation.kind == Kind::Managed)
}

/// cuMemAdvise.
pub fn advise(address: u64, bytes: usize) -> Outcome {
    if is_managed(address, bytes) { Outcome::Done } else { Outcome::PassThrough(Reason::InvalidArgument) }
}

/// cuMemPrefetchAsync.
pub fn prefetch(address: u64, bytes: usize, stream: u64) -> Result<Outcome, CuResult> {
    if capture::captures(stream) || !is_managed(address, bytes) {
        return Ok(Outcome::PassThrough(Reason::InvalidArgument));
    }
    stream::find(stream)?;
    Ok(Outcome::Done)
}

/// cuStreamAttachMemAsync: of a whole allocation, whose bytes may be given as 0. Managed variables of modules are not carried.
pub fn attach(stream: u64, address: u64, bytes: usize, flags: u32) -> Result<Outcome, CuResult> {
    /// `CU_MEM_ATTACH_SINGLE` beside the two that an allocation may have.
    const SINGLE: u32 = 4;
    let Some(found) = LIVE.find(address).filter(|found| found.kind == Kind::Managed) else {
        return Ok(Outcome::Refuse(Reason::ManagedMemory));
    };
    let whole = found.base == address && (bytes == 0 || bytes as u64 == found.bytes);
    if !whole || !(ATTACH.contains(&flags) || flags == SINGLE) {
        return Err(CuResult::INVALID_VALUE);
    }
    stream::find(stream)?;
    Ok(Outcome::Done)
}
