//! Memory that processes share by IPC handles; events are in [`word`].
//!
//! An allocation is private until it is exported: then the pages of its block (its own mapping, or the 2 MiB chunk that small allocations
//! share, as on hardware) are replaced in place by those of a memfd with the same contents. A handle names the exporting process
//! and its descriptor of that file, which another process of the same user reaches through /proc. Each side keeps the pages as long as it
//! uses them.
//!
//! Lock order: `EXPORTS` before `IMPORTS`; no lock of another module is taken under either but that of the address space.

pub mod word;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::check;
use crate::context;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::heap::{self, pages};
use crate::space::{Kind, Range, SPACE};

/// `CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS`, without which no handle is opened.
const LAZY_PEER_ACCESS: u32 = 1;

/// `CUipcMemHandle`: 64 bytes that another process is given. It may hold anything, so what it names is checked.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct MemHandle {
    magic: u64,
    pid: i32,
    fd: i32,
    inode: u64,
    block_bytes: u64,
    /// Of the allocation in its block.
    offset: u64,
    bytes: u64,
    device: i32,
    reserved: [u32; 3],
}

const _: () = assert!(size_of::<MemHandle>() == 64);
const MAGIC: u64 = u64::from_le_bytes(*b"softgpu\x01");

/// Files of exported blocks, by the block's first address.
static EXPORTS: Mutex<BTreeMap<u64, File>> = Mutex::new(BTreeMap::new());
/// Blocks of other processes, by (process, inode).
static IMPORTS: Mutex<BTreeMap<(i32, u64), Import>> = Mutex::new(BTreeMap::new());

/// A block mapped here, and how often each of its allocations was opened, by address.
#[derive(Debug)]
struct Import {
    start: u64,
    bytes: u64,
    opened: BTreeMap<u64, usize>,
}

fn exports() -> MutexGuard<'static, BTreeMap<u64, File>> {
    EXPORTS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn imports() -> MutexGuard<'static, BTreeMap<(i32, u64), Import>> {
    IMPORTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `cuIpcGetMemHandle`, of the allocation that holds `address`.
pub fn handle_of(address: u64) -> Result<MemHandle> {
    let context = context::healthy()?;
    let range = SPACE.find(address).filter(|range| range.kind == Kind::Device).ok_or(Error::INVALID_VALUE)?;
    // What is written between the copy and the replacement would be lost.
    context.synchronize()?;
    let (start, block_bytes) = heap::block_of(range.start, range.bytes);
    let mut exports = exports();
    let file = match exports.entry(start) {
        Entry::Occupied(known) => known.into_mut(),
        Entry::Vacant(fresh) => fresh.insert(share(start, block_bytes)?),
    };
    // From now on other processes write them, unseen by the checks.
    check::wrote(range.start, range.bytes);
    let inode = file.metadata().map_err(|_| Error::OPERATING_SYSTEM)?.ino();
    Ok(MemHandle {
        magic: MAGIC,
        pid: std::process::id() as i32,
        fd: file.as_raw_fd(),
        inode,
        block_bytes,
        offset: range.start - start,
        bytes: range.bytes,
        device: range.device.ordinal(),
        reserved: [0; 3],
    })
}

/// Replaces the block's private pages by those of a file with the same contents.
fn share(start: u64, bytes: u64) -> Result<File> {
    // SAFETY: a C string and a flag.
    let fd = unsafe { libc::memfd_create(c"softgpu-ipc".as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(Error::OPERATING_SYSTEM);
    }
    // SAFETY: just created, so nobody else's.
    let file = unsafe { File::from_raw_fd(fd) };
    // SAFETY: the block is mapped readable; device code may write it meanwhile, which natively is a race as well.
    let contents = unsafe { std::slice::from_raw_parts(start as *const u8, bytes as usize) };
    file.write_all_at(contents, 0).map_err(|_| Error::OUT_OF_MEMORY)?;
    map(&file, Some(start), bytes)?;
    Ok(file)
}

/// Maps a file, in place of what is at `at` if that is given.
fn map(file: &File, at: Option<u64>, bytes: u64) -> Result<u64> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_SHARED | if at.is_some() { libc::MAP_FIXED } else { 0 };
    let address = at.unwrap_or(0) as *mut libc::c_void;
    // SAFETY: a fixed address is a block of this driver, whose pages are replaced as a whole; any other is the kernel's choice.
    let at = unsafe { libc::mmap(address, bytes as usize, protection, flags, file.as_raw_fd(), 0) };
    if at == libc::MAP_FAILED { Err(Error::MAP_FAILED) } else { Ok(at as u64) }
}

/// A block goes back to the system: nobody can open it any more.
pub fn forget(start: u64) {
    exports().remove(&start);
}

/// `cuIpcOpenMemHandle`: the address of the allocation in this process.
pub fn open(handle: &MemHandle, flags: u32) -> Result<u64> {
    let context = context::healthy()?;
    if flags != LAZY_PEER_ACCESS || handle.magic != MAGIC {
        return Err(Error::INVALID_VALUE);
    }
    if handle.pid == std::process::id() as i32 {
        return Err(Error::INVALID_CONTEXT);
    }
    let device = Device::new(handle.device)?;
    let inside = handle.offset.checked_add(handle.bytes).is_some_and(|end| end <= handle.block_bytes);
    if handle.bytes == 0 || !inside {
        return Err(Error::INVALID_VALUE);
    }
    let mut imports = imports();
    let key = (handle.pid, handle.inode);
    let import = match imports.entry(key) {
        Entry::Occupied(known) => known.into_mut(),
        Entry::Vacant(fresh) => {
            let start = map(&file_of(handle)?, None, handle.block_bytes)?;
            fresh.insert(Import { start, bytes: handle.block_bytes, opened: BTreeMap::new() })
        }
    };
    if handle.block_bytes != import.bytes {
        return Err(Error::INVALID_VALUE);
    }
    let address = import.start + handle.offset;
    if let Some(count) = import.opened.get_mut(&address) {
        *count += 1;
        return Ok(address);
    }
    let range = Range::new(address, handle.bytes, heap::ALIGNMENT, Kind::Imported, device, context.handle);
    if !SPACE.insert(range) {
        return Err(Error::INVALID_VALUE);
    }
    import.opened.insert(address, 1);
    Ok(address)
}

/// The exporting process's file; a handle of a process that is gone, or whose descriptor is another file by now, is
/// an invalid value.
fn file_of(handle: &MemHandle) -> Result<File> {
    let path = format!("/proc/{}/fd/{}", handle.pid, handle.fd);
    let file = OpenOptions::new().read(true).write(true).open(path).map_err(|_| Error::INVALID_VALUE)?;
    let status = file.metadata().map_err(|_| Error::INVALID_VALUE)?;
    let same = status.ino() == handle.inode && status.len() == handle.block_bytes;
    if same { Ok(file) } else { Err(Error::INVALID_VALUE) }
}

/// `cuIpcCloseMemHandle`: the last close unmaps.
pub fn close(address: u64) -> Result {
    let context = context::healthy()?;
    let mut imports = imports();
    let found = imports.iter_mut().find(|(_, import)| import.opened.contains_key(&address));
    let (&key, import) = found.ok_or(Error::INVALID_VALUE)?;
    let count = import.opened.get_mut(&address).ok_or(Error::INVALID_VALUE)?;
    *count -= 1;
    if *count > 0 {
        return Ok(());
    }
    context.synchronize()?;
    SPACE.remove(address, |range| range.kind == Kind::Imported);
    unmap(&mut imports, key, address);
    Ok(())
}

/// The range of an imported allocation has left the address space with its context.
pub fn abandon(address: u64) {
    let mut imports = imports();
    let key = imports.iter().find(|(_, import)| import.opened.contains_key(&address)).map(|(&key, _)| key);
    if let Some(key) = key {
        unmap(&mut imports, key, address);
    }
}

/// One allocation of a block is not used any more; the last one takes the mapping along.
fn unmap(imports: &mut BTreeMap<(i32, u64), Import>, key: (i32, u64), address: u64) {
    let Some(import) = imports.get_mut(&key) else { return };
    import.opened.remove(&address);
    if import.opened.is_empty() {
        pages::retire(import.start, import.bytes);
        imports.remove(&key);
    }
}
