//! Pinned host memory: memfds mapped and registered at the same address in this process and in the executor.
//!
//! Small requests share blocks, as device allocations share slabs ([`crate::alloc::heap`] serves both). Registration with the local driver
//! makes pointer attributes true; registration in the executor lets its device copy and lets kernels read and write.

mod register;

use std::ffi::c_void;
use std::os::fd::AsFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use lightos_protocol::arena::{HOST_ARENA_BASE, HOST_ARENA_BYTES};
use lightos_protocol::mapping::{Access, sealed_memfd};
use lightos_protocol::request::{MemoryRequest, Request};

use super::memory::{LIVE, foreign, host_arena, sidecar};
use super::{context, stream};
use crate::alloc::heap::{Backing, Heap};
use crate::alloc::live::Kind;
use crate::edge::Out;
use crate::outcome::Outcome;
use crate::real;
use crate::result::CuResult;

pub use register::{is_registered, register, unregister};

/// `CU_MEMHOSTREGISTER_PORTABLE` | `CU_MEMHOSTREGISTER_DEVICEMAP`.
const REGISTER_FLAGS: u32 = 3;
/// `CU_MEMHOSTALLOC_PORTABLE` | `_DEVICEMAP` | `_WRITECOMBINED`.
const ALLOC_FLAGS: u32 = 7;

/// Pinned memory; `None` before the session starts.
static HEAP: Mutex<Option<Heap<Blocks>>> = Mutex::new(None);

fn heap() -> MutexGuard<'static, Option<Heap<Blocks>>> {
    HEAP.lock().unwrap_or_else(PoisonError::into_inner)
}

fn with_heap<T>(work: impl FnOnce(&mut Heap<Blocks>) -> Result<T, CuResult>) -> Result<T, CuResult> {
    heap().as_mut().map_or(Err(CuResult::NOT_INITIALIZED), work)
}

/// The arena is reserved: allocations may begin.
pub fn start() {
    *heap() = Some(Heap::new(Blocks, HOST_ARENA_BASE, HOST_ARENA_BYTES));
}

/// The heap's source of pinned memory.
#[derive(Debug)]
struct Blocks;

impl Backing for Blocks {
    fn create(&self, address: u64, bytes: u64) -> Result<(), CuResult> {
        let session = sidecar()?;
        let arena = host_arena()?;
        let offset = address - HOST_ARENA_BASE;
        let fd = sealed_memfd("lightos-pinned", bytes).map_err(|_| CuResult::OUT_OF_MEMORY)?;
        arena.map(offset, fd.as_fd(), 0, bytes, Access::ReadWrite).map_err(|_| CuResult::OUT_OF_MEMORY)?;
        // SAFETY: freshly mapped, and unregistered before it is unmapped.
        let registered =
            unsafe { real::cuMemHostRegister_v2(pointer(address), bytes as usize, REGISTER_FLAGS) }.ok();
        let shared = registered.and_then(|()| {
            let tag = session.next_tag();
            session.send_fd(tag, fd.as_fd())?;
            let request = MemoryRequest::HostMap { address, bytes, tag, flags: REGISTER_FLAGS };
            session.call(&Request::Memory(request)).inspect_err(|_| unpin(address))
        });
        if let Err(error) = shared {
            let _ = arena.unmap(offset, bytes);
            return Err(error);
        }
        Ok(())
    }

    fn destroy(&self, address: u64, bytes: u64) {
        if let Ok(session) = sidecar() {
            let _ = session.call(&Request::Memory(MemoryRequest::HostUnmap { address, bytes }));
        }
        unpin(address);
        if let Ok(arena) = host_arena() {
            let _ = arena.unmap(address - HOST_ARENA_BASE, bytes);
        }
    }
}

/// Ends the local registration.
fn unpin(address: u64) {
    // SAFETY: takes an address that `Blocks::create` or cuMemHostRegister has registered; the driver refuses anything else.
    let _ = unsafe { real::cuMemHostUnregister(pointer(address)) };
}

fn pointer(address: u64) -> *mut c_void {
    std::ptr::with_exposed_provenance_mut(address as usize)
}

/// Pinned memory for our own use (staging). It stays until the process ends.
pub fn obtain(bytes: u64) -> Result<u64, CuResult> {
    with_heap(|heap| heap.allocate(bytes))
}

/// Whether `address` is pinned memory that both sides share.
pub fn shared(address: u64) -> bool {
    LIVE.find(address).is_some_and(|allocation| !allocation.kind.is_device())
}

/// cuMemAllocHost and cuMemHostAlloc. Write-combined memory is ordinary here: it is a hint.
pub fn allocate(out: Out<*mut c_void>, bytes: usize, flags: u32) -> Result<(), CuResult> {
    context::check()?;
    let out = out.required()?;
    if bytes == 0 || flags & !ALLOC_FLAGS != 0 {
        return Err(CuResult::INVALID_VALUE);
    }
    sidecar()?.sticky().map_or(Ok(()), Err)?;
    let address = obtain(bytes as u64)?;
    LIVE.insert(address, bytes as u64, Kind::Host { flags });
    out.put(pointer(address));
    Ok(())
}

/// cuMemFreeHost. As natively, it waits for the context's work.
pub fn free(address: u64) -> Result<Outcome, CuResult> {
    context::check()?;
    let Some(allocation) = LIVE.remove(address, |kind| matches!(kind, Kind::Host { .. })) else {
        return foreign(address);
    };
    stream::synchronize_context()?;
    with_heap(|heap| {
        heap.free(allocation.base, allocation.bytes);
        Ok(())
    })?;
    Ok(Outcome::Done)
}

/// cuMemHostGetDevicePointer: the device sees shared memory at its host address.
pub fn device_pointer(out: Out<u64>, address: u64, flags: u32) -> Result<Outcome, CuResult> {
    context::check()?;
    if !shared(address) {
        return foreign(address);
    }
    let out = out.required()?;
    if flags != 0 {
        return Err(CuResult::INVALID_VALUE);
    }
    out.put(address);
    Ok(Outcome::Done)
}

/// cuMemHostGetFlags: as given to cuMemHostAlloc.
pub fn flags(out: Out<u32>, address: u64) -> Result<Outcome, CuResult> {
    let Some(allocation) = LIVE.find(address) else { return foreign(address) };
    let (Kind::Host { flags } | Kind::Registered { flags }) = allocation.kind else {
        return Err(CuResult::INVALID_VALUE);
    };
    out.required()?.put(flags);
    Ok(Outcome::Done)
}
