//! Device memory: host pages, carved into allocations.
//!
//! Large allocations own a mapping of their own, in steps of 2 MiB; small ones share 2 MiB chunks, as on hardware. Chunks, not
//! allocations, are what the device's accounting sees. Addresses are multiples of 512.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};

use lightos_softgpu_engine::profile::MAX_DEVICES;

use crate::device::Device;
use crate::error::{Error, Result};
use crate::ipc;

/// Size and alignment of a chunk, and the granularity of physical memory.
pub const CHUNK_BYTES: u64 = 2 << 20;
/// Alignment of every allocation.
pub const ALIGNMENT: u64 = 512;

/// Page-granular memory of the host, not yet touched.
pub mod pages {
    use super::{Error, Result};

    /// Maps `bytes` of zeroed memory at an address that is a multiple of `align` (a power of two, at least a page).
    pub fn map(bytes: u64, align: u64, accessible: bool) -> Result<u64> {
        let protection = if accessible { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_NONE };
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let room = bytes.checked_add(align).ok_or(Error::OUT_OF_MEMORY)?;
        // SAFETY: an anonymous mapping at an address of the kernel's choice touches no existing memory.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), room as usize, protection, flags, -1, 0) };
        if at == libc::MAP_FAILED {
            return Err(Error::OUT_OF_MEMORY);
        }
        let start = (at as u64).next_multiple_of(align);
        let end = start + bytes.next_multiple_of(4096);
        unmap(at as u64, start - at as u64);
        unmap(end, at as u64 + room.next_multiple_of(4096) - end);
        Ok(start)
    }

    /// How long running kernels may take to notice that a range is gone. They do within some thousand instructions.
    pub const GRACE: std::time::Duration = std::time::Duration::from_secs(10);

    /// Unmaps pages whose range has left the address space, once no kernel can still be using them. Pages that a kernel
    /// does not let go of stay mapped: nothing gets their address again.
    pub fn retire(start: u64, bytes: u64) {
        if lightos_softgpu_engine::exec::quiesce(GRACE) {
            unmap(start, bytes);
        }
    }

    /// Unmaps pages that this driver mapped.
    pub fn unmap(start: u64, bytes: u64) {
        if bytes > 0 {
            // SAFETY: only called with pages that `map` or the VMM mapped and whose range has left the address space.
            unsafe { libc::munmap(start as *mut libc::c_void, bytes as usize) };
        }
    }
}

#[derive(Debug, Default)]
struct Heap {
    /// Shared chunks: start and free bytes left.
    chunks: BTreeMap<u64, u64>,
    /// Free pieces of shared chunks by start, and by size for best fit.
    free: BTreeMap<u64, u64>,
    by_size: BTreeSet<(u64, u64)>,
}

static HEAPS: [Mutex<Heap>; MAX_DEVICES] =
    [const { Mutex::new(Heap { chunks: BTreeMap::new(), free: BTreeMap::new(), by_size: BTreeSet::new() }) };
        MAX_DEVICES];

fn heap(device: Device) -> MutexGuard<'static, Heap> {
    HEAPS[device.index()].lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn is_small(bytes: u64) -> bool {
    bytes <= CHUNK_BYTES / 2
}

/// Takes `bytes` (more than 0) of the device's memory.
pub fn allocate(device: Device, bytes: u64) -> Result<u64> {
    if bytes > device.total_bytes() {
        return Err(Error::OUT_OF_MEMORY);
    }
    if is_small(bytes) {
        return heap(device).carve(device, bytes.next_multiple_of(ALIGNMENT));
    }
    chunk(device, bytes.next_multiple_of(CHUNK_BYTES))
}

/// Start and size of the pages that hold an allocation: its own, or the chunk that it shares.
pub fn block_of(start: u64, bytes: u64) -> (u64, u64) {
    if is_small(bytes) {
        (start & !(CHUNK_BYTES - 1), CHUNK_BYTES)
    } else {
        (start, bytes.next_multiple_of(CHUNK_BYTES))
    }
}

/// Returns what [`allocate`] gave for the same size.
pub fn free(device: Device, start: u64, bytes: u64) {
    if is_small(bytes) {
        heap(device).give_back(device, start, bytes.next_multiple_of(ALIGNMENT));
    } else {
        let bytes = bytes.next_multiple_of(CHUNK_BYTES);
        ipc::forget(start);
        pages::retire(start, bytes);
        device.release(bytes);
    }
}

fn chunk(device: Device, bytes: u64) -> Result<u64> {
    if !device.reserve(bytes) {
        return Err(Error::OUT_OF_MEMORY);
    }
    pages::map(bytes, CHUNK_BYTES, true).inspect_err(|_| device.release(bytes))
}

impl Heap {
    fn carve(&mut self, device: Device, bytes: u64) -> Result<u64> {
        let best = self.by_size.range((bytes, 0)..).next().copied();
        let (size, start) = match best {
            Some(piece) => piece,
            None => {
                let start = chunk(device, CHUNK_BYTES)?;
                self.chunks.insert(start, CHUNK_BYTES);
                self.put(start, CHUNK_BYTES);
                (CHUNK_BYTES, start)
            }
        };
        self.take(start, size);
        if size > bytes {
            self.put(start + bytes, size - bytes);
        }
        *self.chunk_of(start).1 -= bytes;
        Ok(start)
    }

    fn give_back(&mut self, device: Device, mut start: u64, mut bytes: u64) {
        let (chunk, left) = self.chunk_of(start);
        *left += bytes;
        let chunk_is_free = *left == CHUNK_BYTES;
        if let Some((&before, &size)) = self.free.range(chunk..start).next_back()
            && before + size == start
        {
            self.take(before, size);
            (start, bytes) = (before, bytes + size);
        }
        if start + bytes < chunk + CHUNK_BYTES
            && let Some(&size) = self.free.get(&(start + bytes))
        {
            self.take(start + bytes, size);
            bytes += size;
        }
        if chunk_is_free {
            self.chunks.remove(&chunk);
            ipc::forget(chunk);
            pages::retire(chunk, CHUNK_BYTES);
            device.release(CHUNK_BYTES);
        } else {
            self.put(start, bytes);
        }
    }

    /// The chunk that holds an address of an allocation.
    fn chunk_of(&mut self, address: u64) -> (u64, &mut u64) {
        let (start, left) =
            self.chunks.range_mut(..=address).next_back().expect("small allocations lie in a chunk");
        (*start, left)
    }

    fn put(&mut self, start: u64, bytes: u64) {
        self.free.insert(start, bytes);
        self.by_size.insert((bytes, start));
    }

    fn take(&mut self, start: u64, bytes: u64) {
        self.free.remove(&start);
        self.by_size.remove(&(bytes, start));
    }
}
