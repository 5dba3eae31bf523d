//! Device memory that processes share by IPC handles (cuIpcGetMemHandle and kin). Events are with the other events.
//!
//! A handle made here is LightOS's own (see [`lightos_protocol::request::ipc`]): any program of the same sidecar can open it, which the daemon
//! arranges. The opener maps the whole slab, in its executor and here, at an address of its own arena; the address that it gets is the
//! allocation's. So what the kernels of the opener can reach is the slab, as natively it is the block that the driver took the
//! allocation from. A handle that the driver made belongs to a native process; its memory can be mapped here, but not at an address that the
//! executor would have as well, so it is refused by name.
//!
//! A slab is mapped once for each allocation that is open. Opening again counts, and the last close unmaps.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use lightos_protocol::arena::DEVICE_PAGE_BYTES;
use lightos_protocol::request::ipc::{IPC_HANDLE_BYTES, IpcToken};
use lightos_protocol::request::{IpcMemory, IpcRequest, Reply, Request};

use super::memory::slabs;
use super::memory::{LIVE, foreign, sidecar, with_heap};
use super::{capture, context, stream};
use crate::alloc::live::{Allocation, Kind};
use crate::edge::Out;
use crate::outcome::{Outcome, Reason};
use crate::real;
use crate::result::CuResult;

/// `CUipcMemHandle`, and `CUipcEventHandle`, which looks the same.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Handle(pub [u8; IPC_HANDLE_BYTES]);

impl Handle {
    /// What an executor answered.
    pub fn of(reply: Reply) -> Result<Self, CuResult> {
        let Reply::Bytes(bytes) = reply else { return Err(CuResult::UNKNOWN) };
        bytes.try_into().map(Self).map_err(|_| CuResult::UNKNOWN)
    }
}

/// `CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS`, the only flags that the driver takes.
const LAZY_PEER_ACCESS: u32 = 1;

/// An allocation of ours that others may open.
#[derive(Debug)]
struct Exported {
    /// Of the allocation: another one may come to lie at its address.
    id: u64,
    handle: Handle,
    token: IpcToken,
}

/// Another process's allocation.
#[derive(Debug)]
struct Opened {
    memory: IpcMemory,
    /// Where its slab is mapped.
    slab: u64,
    count: usize,
}

/// By the allocation's address.
static EXPORTED: Mutex<BTreeMap<u64, Exported>> = Mutex::new(BTreeMap::new());
/// How many there are: frees look only if there are any.
static EXPORTS: AtomicUsize = AtomicUsize::new(0);
/// By the address that the program got.
static OPENED: Mutex<BTreeMap<u64, Opened>> = Mutex::new(BTreeMap::new());

fn exported() -> MutexGuard<'static, BTreeMap<u64, Exported>> {
    EXPORTED.lock().unwrap_or_else(PoisonError::into_inner)
}

fn opened() -> MutexGuard<'static, BTreeMap<u64, Opened>> {
    OPENED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// cuIpcGetMemHandle, of the allocation that holds `address`: always the same handle as long as the allocation lives.
pub fn export(out: Out<Handle>, address: u64) -> Result<Outcome, CuResult> {
    context::check()?;
    let out = out.required()?;
    let Some(allocation) = LIVE.find(address) else { return foreign(address) };
    if allocation.kind != Kind::Device {
        return Err(CuResult::INVALID_VALUE);
    }
    let mut exported = exported();
    if let Some(known) = exported.get(&allocation.base).filter(|known| known.id == allocation.id) {
        out.put(known.handle);
        return Ok(Outcome::Done);
    }
    let request = IpcRequest::Export { address: allocation.base, bytes: allocation.bytes };
    let handle = Handle::of(sidecar()?.call(&Request::Ipc(request))?)?;
    let memory = IpcMemory::from_handle(&handle.0).ok_or(CuResult::UNKNOWN)?;
    exported.insert(allocation.base, Exported { id: allocation.id, handle, token: memory.token });
    EXPORTS.store(exported.len(), Relaxed);
    out.put(handle);
    Ok(Outcome::Done)
}

/// An allocation has left the table: nobody opens it any more. Who has it open keeps the memory.
pub fn withdraw(allocation: &Allocation) {
    if EXPORTS.load(Relaxed) == 0 {
        return;
    }
    let mut exported = exported();
    let Some(known) = exported.remove(&allocation.base) else { return };
    EXPORTS.store(exported.len(), Relaxed);
    if let Ok(session) = sidecar() {
        // The answer is waited for: after the program's free the handle is invalid everywhere.
        let _ = session.call(&Request::Ipc(IpcRequest::Withdraw { token: known.token }));
    }
}

/// cuIpcOpenMemHandle.
pub fn open(
    out: Out<u64>,
    handle: Handle,
    flags: u32,
    local: impl FnOnce(*mut u64) -> CuResult,
) -> Result<Outcome, CuResult> {
    context::check()?;
    let out = out.required()?;
    if flags != LAZY_PEER_ACCESS {
        return Err(CuResult::INVALID_VALUE);
    }
    let Some(memory) = IpcMemory::from_handle(&handle.0) else { return open_foreign(local) };
    if !memory.place.is_sound() {
        return Err(CuResult::INVALID_VALUE);
    }
    let mut opened = opened();
    let known = opened.iter_mut().find(|(_, known)| known.memory.token == memory.token);
    if let Some((&address, known)) = known {
        if known.memory != memory {
            return Err(CuResult::INVALID_VALUE);
        }
        known.count += 1;
        out.put(address);
        return Ok(Outcome::Done);
    }
    let slab_bytes = memory.place.slab_bytes;
    let slab =
        with_heap(|heap| heap.reserve(slab_bytes, DEVICE_PAGE_BYTES, 0).ok_or(CuResult::OUT_OF_MEMORY))?;
    match capture::relaxed(|| map(memory, slab)) {
        Ok(()) => {}
        Err(error) => {
            unreserve(slab, slab_bytes);
            // The memory of another device: it would take peer access.
            let elsewhere = error == CuResult::NOT_SUPPORTED;
            return if elsewhere { Ok(Outcome::Refuse(Reason::Peer)) } else { Err(error) };
        }
    }
    let address = slab + memory.place.offset;
    LIVE.insert(address, memory.place.bytes, Kind::Imported);
    opened.insert(address, Opened { memory, slab, count: 1 });
    out.put(address);
    Ok(Outcome::Done)
}

/// A handle that LightOS has not made. The local driver says what is wrong with it; if nothing is, it is a native process's.
fn open_foreign(local: impl FnOnce(*mut u64) -> CuResult) -> Result<Outcome, CuResult> {
    let mut address = 0;
    local(&mut address).ok()?;
    // SAFETY: opened just now.
    let _ = unsafe { real::cuIpcCloseMemHandle(address) };
    Ok(Outcome::Refuse(Reason::Ipc))
}

/// Has the executor map the slab, and maps it here.
fn map(memory: IpcMemory, slab: u64) -> Result<(), CuResult> {
    let session = sidecar()?;
    let tag = session.next_tag();
    let request = IpcRequest::Open { memory, address: slab, tag };
    let (_, fd) = session.call_for_fd(&Request::Ipc(request), tag)?;
    slabs::map_import(fd, slab, memory.place.slab_bytes).inspect_err(|_| {
        let _ = session.cast(&Request::Ipc(IpcRequest::Close { address: slab }));
    })
}

fn unreserve(slab: u64, bytes: u64) {
    // Without a heap the session is over, and addresses do not matter.
    let _ = with_heap(|heap| {
        heap.unreserve(slab, bytes);
        Ok(())
    });
}

/// cuIpcCloseMemHandle. As natively, the last close waits for the context's work.
pub fn close(address: u64) -> Result<Outcome, CuResult> {
    context::check()?;
    let closed = {
        let mut opened = opened();
        let Some(known) = opened.get_mut(&address) else { return foreign(address) };
        known.count -= 1;
        if known.count > 0 {
            return Ok(Outcome::Done);
        }
        opened.remove(&address)
    };
    let Some(Opened { memory, slab, .. }) = closed else { return foreign(address) };
    LIVE.remove(address, |kind| kind == Kind::Imported);
    stream::synchronize_context()?;
    let bytes = memory.place.slab_bytes;
    capture::relaxed(|| slabs::unmap(slab, bytes));
    sidecar()?.call(&Request::Ipc(IpcRequest::Close { address: slab }))?;
    unreserve(slab, bytes);
    Ok(Outcome::Done)
}

/// The executor is gone: this process's mappings of others' memory end.
pub fn abandon() {
    for Opened { memory, slab, .. } in std::mem::take(&mut *opened()).into_values() {
        slabs::unmap(slab, memory.place.slab_bytes);
    }
}
