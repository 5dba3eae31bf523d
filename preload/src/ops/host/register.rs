//! cuMemHostRegister: memory that the program got elsewhere becomes memory that both sides share.
//!
//! Its pages are replaced in place by those of a memfd with the same contents, which the executor maps at the same address, so that kernels
//! and copies reach it there. That is sound for private anonymous memory from a page's start, which is how allocators
//! for registered memory get theirs (XLA on a NUMA node does, for all of its host buffers). Everything else stays as it is: file
//! mappings and shared memory have owners that would not notice, and the start of a page may hold another object. So may the rest of the
//! last page, which is taken along only where the mapping ends with it; the heap has no such page. The calling thread's own
//! stack is left alone, too: its pages would change under the frames that replace them.
//!
//! Taking along the pages at both ends that hold other objects too would make more memory shared, but a write of another thread to such an
//! object, between the copy of its page and the replacement, would be lost, and that thread has nothing to do with the registration: a heap
//! corrupted now and then. There is no way to hold such writers up that does not reach into the program (a handler for its faults, or
//! stopping its threads).
//!
//! So memory that is not shared is *staged*: registered with the local driver, so that queries answer as natively, and copied by way
//! of other memory, asynchronously and in stream order ([`staged`]). That is all that most programs register memory for. The device itself does not
//! reach it: a registration that asks to be mapped is refused by name, and so are the device's pointer to it, fills, and words for
//! streams to wait on; graphs refuse it as they do pageable memory. A kernel that is given the address all the same meets an illegal
//! address, which is as loud as CUDA can be.
//!
//! What another thread writes to the range between the last copy and the replacement is lost; natively such a write would
//! race with the registration, too, but would not be lost. When the program unregisters the range it becomes private memory
//! again; until then a child process shares it instead of having a copy.

use std::ffi::c_void;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use lightos_protocol::arena::{Region, classify};
use lightos_protocol::mapping::{Access, Reservation};
use lightos_protocol::request::{MemoryRequest, Request};
use rustix::mm::{MapFlags, MremapFlags, ProtFlags};

use crate::alloc::live::{Allocation, Kind};
use crate::ops::copy::staged;
use crate::ops::memory::{LIVE, sidecar};
use crate::ops::{capture, context, stream};
use crate::outcome::{Outcome, Reason};
use crate::real;
use crate::result::CuResult;

/// `CU_MEMHOSTREGISTER_PORTABLE` | `_DEVICEMAP` | `_READ_ONLY`: what shared memory can have. `_IOMEMORY` is refused.
const FLAGS: u32 = 1 | DEVICE_MAP | READ_ONLY;
const DEVICE_MAP: u32 = 2;
const IO_MEMORY: u32 = 4;
/// `CU_MEMHOSTREGISTER_READ_ONLY`.
pub const READ_ONLY: u32 = 8;
const PAGE_BYTES: u64 = 4096;
/// Shows in `/proc/self/maps`.
const FILE_NAME: &str = "lightos-registered";

/// How many ranges are registered: copies look for them only if there are any.
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// How the range is registered in which all of `[address, address + bytes)` lies.
pub fn registration(address: u64, bytes: u64) -> Option<Kind> {
    if COUNT.load(Relaxed) == 0 {
        return None;
    }
    let kind = LIVE.covering(address, bytes)?.kind;
    matches!(kind, Kind::Registered { .. } | Kind::Staged { .. }).then_some(kind)
}

/// cuMemHostRegister.
pub fn register(pointer: *mut c_void, bytes: usize, flags: u32) -> Result<Outcome, CuResult> {
    context::check()?;
    capture::permits_unsafe()?;
    let address = pointer.expose_provenance() as u64;
    if address == 0 || bytes == 0 || flags & !(FLAGS | IO_MEMORY) != 0 {
        return Err(CuResult::INVALID_VALUE);
    }
    let bytes = bytes as u64;
    let end = address.checked_add(bytes).and_then(|end| end.checked_next_multiple_of(PAGE_BYTES));
    let Some(end) = end else { return Err(CuResult::INVALID_VALUE) };
    let taken = LIVE.find(address).is_some() || !LIVE.starting_in(address, bytes).is_empty();
    match classify(address) {
        _ if taken => return Err(CuResult::HOST_MEMORY_ALREADY_REGISTERED),
        Region::Device | Region::SharedHost => return Err(CuResult::INVALID_VALUE),
        Region::ClientHost => {}
    }
    if flags & IO_MEMORY != 0 {
        return Ok(Outcome::Refuse(Reason::HostRegister));
    }
    let sharable = address.is_multiple_of(PAGE_BYTES);
    let whole_pages = end - address == bytes;
    let here = (&raw const sharable).addr() as u64;
    let fits = |mapping: &Mapping| mapping.is_private_memory(end, whole_pages) && !mapping.holds(here);
    if !sharable || !consists_of(mappings()?, address, end, fits) {
        return stage(pointer, bytes, flags);
    }
    match share(address, end - address, flags) {
        Err(CuResult::NOT_SUPPORTED) => return stage(pointer, bytes, flags),
        result => result?,
    }
    // SAFETY: the program's own range and flags; the pages behind it are now the shared ones.
    let local = unsafe { real::cuMemHostRegister_v2(pointer, bytes as usize, flags) }.ok();
    if let Err(error) = local {
        let _ = sidecar()?.call(&Request::Memory(MemoryRequest::HostUnshare { address }));
        restore(address, end - address);
        return Err(error);
    }
    LIVE.insert_in(address, bytes, Kind::Registered { flags }, context::current());
    COUNT.fetch_add(1, Relaxed);
    Ok(Outcome::Done)
}

/// Registers memory whose pages stay this process's own, with the local driver alone: it says what cannot be registered at all, and
/// pins the pages. A program that says that its kernels will use the memory is refused.
fn stage(pointer: *mut c_void, bytes: u64, flags: u32) -> Result<Outcome, CuResult> {
    if flags & DEVICE_MAP != 0 {
        return Ok(Outcome::Refuse(Reason::HostRegister));
    }
    // SAFETY: the program's own range and flags, which the driver judges.
    unsafe { real::cuMemHostRegister_v2(pointer, bytes as usize, flags) }.ok()?;
    LIVE.insert_in(pointer.addr() as u64, bytes, Kind::Staged { flags }, context::current());
    COUNT.fetch_add(1, Relaxed);
    Ok(Outcome::Done)
}

/// Has the executor map and register a memfd at `address` and puts it in the place of this process's pages.
fn share(address: u64, bytes: u64, flags: u32) -> Result<(), CuResult> {
    let session = sidecar()?;
    let fd = super::pinned_file(FILE_NAME, bytes)?;
    let tag = session.next_tag();
    session.send_fd(tag, fd.as_fd())?;
    session.call(&Request::Memory(MemoryRequest::HostShare { address, bytes, tag, flags }))?;
    replace(address, bytes, &fd).inspect_err(|_| {
        let _ = session.call(&Request::Memory(MemoryRequest::HostUnshare { address }));
    })
}

/// Maps the file over the range, with the same contents.
fn replace(address: u64, bytes: u64, fd: &OwnedFd) -> Result<(), CuResult> {
    let out_of_memory = |_| CuResult::OUT_OF_MEMORY;
    let window = Reservation::anywhere(bytes).map_err(out_of_memory)?;
    let copy = window.map(0, fd.as_fd(), 0, bytes, Access::ReadWrite).map_err(out_of_memory)?;
    let (source, target) = (pointer(address), pointer(copy));
    // SAFETY: `window` was mapped just now with this size; the source is readable and writable memory of the program over the whole
    // range (checked in its mappings), which the program vouches for until this call returns. The replacement has the same
    // contents, size and protection, so nobody who holds a pointer into the range can tell.
    unsafe {
        std::ptr::copy_nonoverlapping(source.cast::<u8>(), target.cast::<u8>(), bytes as usize);
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        rustix::mm::mmap(source, bytes as usize, protection, MapFlags::SHARED | MapFlags::FIXED, fd, 0)
    }
    .map(drop)
    .map_err(|_| CuResult::OUT_OF_MEMORY)
}

/// Makes the range private memory with the same contents again, if its pages are still the shared ones. Left as it is when memory
/// is short: it goes on working.
fn restore(address: u64, bytes: u64) {
    let Ok(maps) = mappings() else { return };
    let end = address + bytes;
    if !consists_of(maps, address, end, |mapping| mapping.name.contains(FILE_NAME)) {
        return;
    }
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    let source = pointer(address);
    // SAFETY: the new mapping is ours until it moves over the range, whose contents it has by then; as in `replace`, nobody can tell.
    unsafe {
        let none = std::ptr::null_mut();
        let Ok(copy) = rustix::mm::mmap_anonymous(none, bytes as usize, protection, MapFlags::PRIVATE) else {
            return;
        };
        std::ptr::copy_nonoverlapping(source.cast::<u8>(), copy.cast::<u8>(), bytes as usize);
        let flags = MremapFlags::MAYMOVE;
        if rustix::mm::mremap_fixed(copy, bytes as usize, bytes as usize, flags, source).is_err() {
            let _ = rustix::mm::munmap(copy, bytes as usize);
        }
    }
}

fn pointer(address: u64) -> *mut c_void {
    std::ptr::with_exposed_provenance_mut(address as usize)
}

/// cuMemHostUnregister. As natively, it waits for the context's work.
pub fn unregister(pointer: *mut c_void) -> Result<(), CuResult> {
    context::check()?;
    let address = pointer.addr() as u64;
    if address == 0 {
        return Err(CuResult::INVALID_VALUE);
    }
    let registered = |kind| matches!(kind, Kind::Registered { .. } | Kind::Staged { .. });
    let found = LIVE.remove(address, registered).ok_or(CuResult::HOST_MEMORY_NOT_REGISTERED)?;
    stream::synchronize_context()?;
    end(found)
}

/// Ends a registration that has left the table and that the device no longer uses.
pub fn end(allocation: Allocation) -> Result<(), CuResult> {
    let Allocation { base, bytes, kind, .. } = allocation;
    COUNT.fetch_sub(1, Relaxed);
    super::unpin(base);
    if matches!(kind, Kind::Staged { .. }) {
        staged::forget(&allocation);
        return Ok(());
    }
    sidecar()?.call(&Request::Memory(MemoryRequest::HostUnshare { address: base }))?;
    restore(base, bytes.next_multiple_of(PAGE_BYTES));
    Ok(())
}

/// What a line of `/proc/self/maps` says about a mapping.
#[derive(Debug)]
struct Mapping {
    start: u64,
    end: u64,
    permissions: String,
    inode: String,
    name: String,
}

impl Mapping {
    /// Private anonymous memory, readable and writable, apart from stacks. Unless the range that ends with the page before `end` takes
    /// `whole_pages`, the rest of its last page may be another object if the mapping goes on; in the heap it always may.
    fn is_private_memory(&self, end: u64, whole_pages: bool) -> bool {
        let heap = self.name == "[heap]";
        let known = heap || self.name.is_empty() || self.name.starts_with("[anon");
        let alone = whole_pages || (!heap && self.end <= end);
        let anonymous = self.inode == "0" && known && alone;
        self.permissions.starts_with("rw") && self.permissions.ends_with('p') && anonymous
    }

    fn holds(&self, address: u64) -> bool {
        (self.start..self.end).contains(&address)
    }
}

fn mappings() -> Result<impl Iterator<Item = String>, CuResult> {
    let file = File::open("/proc/self/maps").map_err(|_| CuResult::OPERATING_SYSTEM)?;
    Ok(BufReader::new(file).lines().map_while(Result::ok))
}

/// Whether `[start, end)` is mapped without holes, and everywhere so that `fits` agrees. `maps` are lines of `/proc/self/maps`.
fn consists_of(
    maps: impl Iterator<Item = String>,
    start: u64,
    end: u64,
    fits: impl Fn(&Mapping) -> bool,
) -> bool {
    let mut covered = start;
    for line in maps {
        let mut fields = line.split_ascii_whitespace();
        let Some((from, to)) = fields.next().and_then(|range| range.split_once('-')) else { return false };
        let (Ok(from), Ok(to)) = (u64::from_str_radix(from, 16), u64::from_str_radix(to, 16)) else {
            return false;
        };
        if to <= covered {
            continue;
        }
        let permissions = fields.next().unwrap_or_default().to_owned();
        let inode = fields.nth(2).unwrap_or_default().to_owned();
        let name = fields.next().unwrap_or_default().to_owned();
        if from > covered || !fits(&Mapping { start: from, end: to, permissions, inode, name }) {
            return false;
        }
        covered = to;
        if covered >= end {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
55d000000000-55d000021000 rw-p 00000000 00:00 0                          [heap]
7f0000000000-7f0000010000 rw-p 00000000 00:00 0
7f0000010000-7f0000020000 rw-p 00000000 00:00 0                          [anon:buffer]
7f0000020000-7f0000030000 r--p 00000000 00:00 0
7f0000030000-7f0000040000 rw-s 00000000 00:01 1234                       /memfd:shared (deleted)
7f0000040000-7f0000050000 rw-p 00001000 fe:00 99                         /lib/libc.so.6
7f0000060000-7f0000070000 rw-p 00000000 00:00 0
7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0                          [stack]";

    #[test]
    fn only_private_anonymous_memory_qualifies() {
        let lines = || MAPS.lines().map(str::to_owned);
        let covered = |start, end, whole: bool| {
            consists_of(lines(), start, end, |mapping| mapping.is_private_memory(end, whole))
        };
        let check = |start, end| covered(start, end, true);
        assert!(check(0x7f00_0000_0000, 0x7f00_0001_0000));
        assert!(check(0x7f00_0000_8000, 0x7f00_0001_8000), "two neighbours");
        assert!(!check(0x7f00_0001_8000, 0x7f00_0002_8000), "runs into read-only memory");
        assert!(!check(0x7f00_0003_0000, 0x7f00_0003_1000), "shared");
        assert!(!check(0x7f00_0004_0000, 0x7f00_0004_1000), "of a file");
        assert!(!check(0x7f00_0005_f000, 0x7f00_0006_1000), "starts in a hole");
        assert!(!check(0x7f00_0006_0000, 0x7f00_0007_1000), "ends in a hole");
        assert!(check(0x55d0_0000_0000, 0x55d0_0000_1000), "whole pages of the heap");
        assert!(!covered(0x55d0_0000_0000, 0x55d0_0002_1000, false), "the end of the heap");
        assert!(covered(0x7f00_0000_8000, 0x7f00_0002_0000, false), "the last page is the mapping's last");
        assert!(
            !covered(0x7f00_0000_8000, 0x7f00_0001_f000, false),
            "another object may follow in the last page"
        );
        assert!(!check(0x7ffc_0000_0000, 0x7ffc_0000_1000), "a stack");
    }
}
