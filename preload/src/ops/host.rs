//! Pinned host memory: memfds mapped and registered at the same address in this process and in the executor.
//!
//! Small requests share blocks, as device allocations share slabs ([`crate::alloc::heap`] serves both). Registration with the local driver
//! makes pointer attributes true; registration in the executor lets its device copy and lets kernels read and write.

pub mod register;

use std::ffi::c_void;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use lightos_protocol::arena::{HOST_ARENA_BASE, HOST_ARENA_BYTES};
use lightos_protocol::mapping::{Access, sealed_memfd};
use lightos_protocol::request::{MemoryRequest, Request};
use rustix::fs::FallocateFlags;

use super::memory::{LIVE, foreign, host_arena, sidecar};
use super::{capture, context, stream};
use crate::alloc::heap::{Backing, Heap};
use crate::alloc::live::{Allocation, Kind};
use crate::edge::Out;
use crate::outcome::{Outcome, Reason};
use crate::real;
use crate::result::CuResult;

pub use register::{READ_ONLY as REGISTER_READ_ONLY, register, registration, unregister};

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
        let fd = pinned_file("lightos-pinned", bytes)?;
        arena.map(offset, fd.as_fd(), 0, bytes, Access::ReadWrite).map_err(|_| CuResult::OUT_OF_MEMORY)?;
        let register = || {
            // SAFETY: freshly mapped, and unregistered before it is unmapped.
            unsafe { real::cuMemHostRegister_v2(pointer(address), bytes as usize, REGISTER_FLAGS) }.ok()
        };
        let registered = capture::relaxed(register);
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

/// A file whose pages exist. Shared memory comes into being at its first use otherwise, and where there is none left then, the
/// user is killed (SIGBUS) instead of told; a request beyond what the machine has is refused before it takes other programs' share.
fn pinned_file(name: &str, bytes: u64) -> Result<OwnedFd, CuResult> {
    if available_bytes().is_some_and(|available| bytes > available) {
        return Err(CuResult::OUT_OF_MEMORY);
    }
    let fd = sealed_memfd(name, bytes).map_err(|_| CuResult::OUT_OF_MEMORY)?;
    rustix::io::retry_on_intr(|| rustix::fs::fallocate(&fd, FallocateFlags::empty(), 0, bytes))
        .map_err(|_| CuResult::OUT_OF_MEMORY)?;
    Ok(fd)
}

/// Memory of the machine that can be had without swapping, in bytes.
pub fn available_bytes() -> Option<u64> {
    parse_available(&fs::read_to_string("/proc/meminfo").ok()?)
}

fn parse_available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Ends a local registration.
pub fn unpin(address: u64) {
    // SAFETY: takes an address that was registered; the driver refuses anything else.
    let _ = capture::relaxed(|| unsafe { real::cuMemHostUnregister(pointer(address)) });
}

pub fn pointer(address: u64) -> *mut c_void {
    std::ptr::with_exposed_provenance_mut(address as usize)
}

/// Pinned memory for our own use, until [`release`] or the end of the process.
pub fn obtain(bytes: u64) -> Result<u64, CuResult> {
    with_heap(|heap| heap.allocate(bytes))
}

/// Gives back what [`obtain`] gave.
pub fn relinquish(address: u64, bytes: u64) {
    // Without a heap there is no session and nothing to give back to.
    let _ = with_heap(|heap| {
        heap.free(address, bytes);
        Ok(())
    });
}

/// Whether `address` is pinned memory that both sides share.
pub fn shared(address: u64) -> bool {
    let shared = |kind: Kind| !kind.is_device() && !matches!(kind, Kind::Staged { .. });
    LIVE.find(address).is_some_and(|allocation| shared(allocation.kind))
}

/// Whether `address` is registered memory that only this process has.
pub fn staged(address: u64) -> bool {
    LIVE.find(address).is_some_and(|allocation| matches!(allocation.kind, Kind::Staged { .. }))
}

/// cuMemAllocHost and cuMemHostAlloc. Write-combined memory is ordinary here: it is a hint.
pub fn allocate(out: Out<*mut c_void>, bytes: usize, flags: u32) -> Result<(), CuResult> {
    context::check()?;
    capture::permits_unsafe()?;
    let out = out.required()?;
    if flags & !ALLOC_FLAGS != 0 {
        return Err(CuResult::INVALID_VALUE);
    }
    if bytes == 0 {
        out.put(std::ptr::null_mut());
        return Ok(());
    }
    sidecar()?.sticky().map_or(Ok(()), Err)?;
    let address = obtain(bytes as u64)?;
    LIVE.insert_in(address, bytes as u64, Kind::Host { flags }, context::current());
    out.put(pointer(address));
    Ok(())
}

/// cuMemFreeHost. As natively, it waits for the context's work.
pub fn free(address: u64) -> Result<Outcome, CuResult> {
    context::check()?;
    capture::permits_unsafe()?;
    let Some(allocation) = LIVE.remove(address, |kind| matches!(kind, Kind::Host { .. })) else {
        return foreign(address);
    };
    stream::synchronize_context()?;
    give_back(allocation)?;
    Ok(Outcome::Done)
}

/// Ends an allocation of pinned memory that has left the table and that the device no longer uses.
pub fn give_back(allocation: Allocation) -> Result<(), CuResult> {
    release(allocation.base, allocation.bytes);
    Ok(())
}

/// Ends what [`obtain`] began. Without a heap (the session is over) there is nothing to give back to.
pub fn release(address: u64, bytes: u64) {
    let _ = with_heap(|heap| {
        heap.free(address, bytes);
        Ok(())
    });
}

/// cuMemHostGetDevicePointer: the device sees shared memory at its host address.
pub fn device_pointer(out: Out<u64>, address: u64, flags: u32) -> Result<Outcome, CuResult> {
    context::check()?;
    if staged(address) {
        return Ok(Outcome::Refuse(Reason::HostRegister));
    }
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
    /// `CU_MEMHOSTREGISTER_DEVICEMAP`, which registered memory has anyway where addresses are unified.
    const DEVICE_MAP: u32 = 2;
    let flags = match allocation.kind {
        Kind::Host { flags } => flags,
        Kind::Registered { flags } | Kind::Staged { flags } => flags | DEVICE_MAP,
        _ => return Err(CuResult::INVALID_VALUE),
    };
    out.required()?.put(flags);
    Ok(Outcome::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pages_of_pinned_memory_exist() {
        let bytes = 1 << 20;
        let fd = pinned_file("test", bytes).unwrap();
        let blocks = rustix::fs::fstat(&fd).unwrap().st_blocks;
        assert_eq!(blocks as u64 * 512, bytes);
    }

    #[test]
    fn more_than_the_machine_has_is_refused() {
        let available = available_bytes().expect("the kernel says what is available");
        assert!(available > 1 << 20);
        assert_eq!(pinned_file("test", 1 << 50).unwrap_err(), CuResult::OUT_OF_MEMORY);
        assert_eq!(parse_available("MemTotal: 10 kB\nMemAvailable:  7 kB\n"), Some(7 << 10));
        assert_eq!(parse_available("MemTotal: 10 kB\n"), None);
    }
}
