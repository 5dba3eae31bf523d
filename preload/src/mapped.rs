//! Images that lie in the program's own libraries: a library's code is mapped from its file, and the executor can map the same file.
//!
//! Invariant: what [`find`] returns holds the same bytes as the memory it was asked about, for as long as the program runs. Memory that can
//! be written, or that was written before it became read-only (its pages are no longer the file's), is not found. Nor is a file
//! of which nothing is executable: a program may overwrite such a file once its image is loaded, but not one that it runs.

use rustix::fs::{self, FileType, Mode, OFlags};
use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    os::{fd::OwnedFd, unix::fs::FileExt},
};

/// An image in a file.
#[derive(Debug)]
pub struct Mapped {
    /// The file, open for reading.
    pub file: OwnedFd,
    /// Where in it the image begins, in bytes.
    pub offset: u64,
}

/// A line of /proc/self/maps that has a file.
#[derive(Debug, PartialEq, Eq)]
struct Line<'a> {
    start: u64,
    end: u64,
    /// Of the first byte in the file.
    offset: u64,
    is_writable: bool,
    is_executable: bool,
    device: (u32, u32),
    inode: u64,
    path: &'a str,
}

impl<'a> Line<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (range, rest) = line.split_once(' ')?;
        let (permissions, rest) = rest.split_once(' ')?;
        let (offset, rest) = rest.split_once(' ')?;
        let (device, rest) = rest.split_once(' ')?;
        let (inode, path) = rest.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let (major, minor) = device.split_once(':')?;
        let path = path.trim_start();
        path.starts_with('/').then_some(())?;
        let hex = |text| u64::from_str_radix(text, 16).ok();
        Some(Self {
            start: hex(start)?,
            end: hex(end)?,
            offset: hex(offset)?,
            is_writable: permissions.contains('w'),
            is_executable: permissions.contains('x'),
            device: (hex(major)? as u32, hex(minor)? as u32),
            inode: inode.parse().ok()?,
            path,
        })
    }
}

/// The file that `bytes` are mapped from; `None` when they may differ from it, or it cannot be opened any more.
pub fn find(bytes: &[u8]) -> Option<Mapped> {
    let start = bytes.as_ptr().addr() as u64;
    let end = start + bytes.len() as u64;
    let mut maps = BufReader::new(File::open("/proc/self/maps").ok()?);
    let (mut text, mut found, mut code) = (String::new(), None, None);
    while maps.read_line(&mut text).ok()? > 0 {
        if let Some(line) = Line::parse(text.trim_end_matches('\n')) {
            let file = (line.device, line.inode);
            if line.is_executable {
                code = Some(file);
            }
            if line.start <= start && start < line.end {
                if end > line.end || line.is_writable || !is_file(start, end).unwrap_or(false) {
                    return None;
                }
                found = Some((file, open(&line, start)?));
            }
        }
        // A library's parts lie next to each other.
        match found {
            Some((file, mapped)) if code == Some(file) => return Some(mapped),
            _ => text.clear(),
        }
    }
    None
}

fn open(line: &Line<'_>, address: u64) -> Option<Mapped> {
    // A path may name something else by now, and opening a FIFO would wait.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = fs::open(line.path, flags, Mode::empty()).ok()?;
    let status = fs::fstat(&file).ok()?;
    let device = (fs::major(status.st_dev), fs::minor(status.st_dev));
    let same = FileType::from_raw_mode(status.st_mode) == FileType::RegularFile
        && device == line.device
        && status.st_ino == line.inode;
    same.then_some(Mapped { file, offset: line.offset + (address - line.start) })
}

/// Whether no page of the range has been replaced by a private copy.
fn is_file(start: u64, end: u64) -> io::Result<bool> {
    const IN_MEMORY: u64 = 1 << 63;
    const SWAPPED: u64 = 1 << 62;
    const FILE_OR_SHARED: u64 = 1 << 61;
    // SAFETY: no arguments but a number.
    let page_bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) }.max(4096) as u64;
    let pagemap = File::open("/proc/self/pagemap")?;
    let (mut page, end) = (start / page_bytes, end.div_ceil(page_bytes));
    let mut entries = [0u8; 32 << 10];
    while page < end {
        let count = (end - page).min(entries.len() as u64 / 8);
        let entries = &mut entries[..count as usize * 8];
        pagemap.read_exact_at(entries, page * 8)?;
        let is_copy = |entry: &[u8]| {
            let entry = entry.try_into().map_or(u64::MAX, u64::from_ne_bytes);
            entry & (IN_MEMORY | SWAPPED) != 0 && entry & FILE_OR_SHARED == 0
        };
        if entries.chunks_exact(8).any(is_copy) {
            return Ok(false);
        }
        page += count;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{io::Write, os::fd::AsFd};

    const BYTES: usize = 256 << 10;

    /// A mapping of a file whose first page is mapped for execution before it. Both end with the test's process.
    fn map(file: &File, protection: rustix::mm::ProtFlags) -> *mut u8 {
        map_from(file, 0, rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::EXEC);
        map_from(file, 4096 * 16, protection)
    }

    fn map_from(file: &File, offset: u64, protection: rustix::mm::ProtFlags) -> *mut u8 {
        // SAFETY: a new private mapping.
        let address = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                BYTES,
                protection,
                rustix::mm::MapFlags::PRIVATE,
                file.as_fd(),
                offset,
            )
        };
        address.unwrap().cast()
    }

    fn file() -> (tempfile::NamedTempFile, Vec<u8>) {
        let content: Vec<u8> = (0..BYTES * 2).map(|index| (index / 7 % 251) as u8).collect();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&content).unwrap();
        (file, content)
    }

    /// # Safety
    /// The range is mapped.
    unsafe fn part<'a>(address: *const u8, offset: usize, bytes: usize) -> &'a [u8] {
        // SAFETY: as the caller vouches; mappings of tests are never removed.
        unsafe { std::slice::from_raw_parts(address.add(offset), bytes) }
    }

    #[test]
    fn mapped_bytes_are_found_in_their_file() {
        let (file, content) = file();
        let address = map(file.as_file(), rustix::mm::ProtFlags::READ);
        // SAFETY: inside the mapping.
        let bytes = unsafe { part(address, 5000, 100_000) };
        let found = find(bytes).unwrap();
        assert_eq!(found.offset, 4096 * 16 + 5000);
        let mut read = vec![0; bytes.len()];
        File::from(found.file).read_exact_at(&mut read, found.offset).unwrap();
        assert!(read == bytes && read == content[found.offset as usize..][..bytes.len()]);
    }

    #[test]
    fn bytes_that_may_differ_from_the_file_are_not_found() {
        use rustix::mm::{MprotectFlags, ProtFlags, mprotect};
        let (file, _) = file();
        let address = map(file.as_file(), ProtFlags::READ | ProtFlags::WRITE);
        // SAFETY: inside the mapping, which the test owns.
        unsafe {
            assert!(find(part(address, 0, 65536)).is_none(), "writable");
            address.add(4096 * 3 + 1).write(0xee);
            mprotect(address.cast(), BYTES, MprotectFlags::READ).unwrap();
            assert!(find(part(address, 0, 65536)).is_none(), "written before");
            assert!(find(part(address, 4096 * 4, 65536)).is_some(), "behind the written page");
        }
        assert!(find(&vec![1; 1 << 20]).is_none(), "no file");
    }

    #[test]
    fn files_that_are_not_run_may_change() {
        let (file, _) = file();
        let address = map_from(file.as_file(), 4096 * 16, rustix::mm::ProtFlags::READ);
        // SAFETY: inside the mapping.
        assert!(find(unsafe { part(address, 0, 65536) }).is_none());
    }

    #[test]
    fn a_file_that_is_gone_or_another_is_not_found() {
        let (file, content) = file();
        let address = map(file.as_file(), rustix::mm::ProtFlags::READ);
        // SAFETY: inside the mapping.
        let bytes = unsafe { part(address, 0, 65536) };
        let path = file.path().to_owned();
        drop(file);
        assert!(find(bytes).is_none(), "removed");
        std::fs::write(&path, content).unwrap();
        assert!(find(bytes).is_none(), "another file of that name");
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn lines_are_read_with_spaces_in_paths() {
        let line = "7f00-7f10 r--p 00001000 fd:01 42                         /a b/libx.so";
        let parsed = Line::parse(line).unwrap();
        assert_eq!((parsed.start, parsed.end, parsed.offset), (0x7f00, 0x7f10, 0x1000));
        assert_eq!((parsed.device, parsed.inode, parsed.path), ((0xfd, 1), 42, "/a b/libx.so"));
        assert!(!parsed.is_writable);
        assert_eq!(Line::parse("7f00-7f10 rw-p 00000000 00:00 0 "), None);
        assert_eq!(Line::parse("7f00-7f10 rw-p 00000000 00:00 0          [heap]"), None);
    }
}
