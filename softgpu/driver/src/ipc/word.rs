//! The state of an event that processes share (`CU_EVENT_INTERPROCESS`): how many recordings there were, and the latest that was passed.
//!
//! Two words in a memfd that each process maps. Nobody can be woken across processes by a condition variable, so a wait polls.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::error::{Error, Result};

const PAGE: usize = 4096;
/// Pause between two looks at the word.
const PAUSE: Duration = Duration::from_micros(20);
/// After so many looks it is checked whether the process that made the event still lives.
const LOOKS: u32 = 5000;
const MAGIC: u64 = u64::from_le_bytes(*b"softgpu\x02");

/// `CUipcEventHandle`: 64 bytes that another process is given; what they name is checked.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct EventHandle {
    magic: u64,
    pid: i32,
    fd: i32,
    inode: u64,
    reserved: [u64; 5],
}

const _: () = assert!(size_of::<EventHandle>() == 64);

#[derive(Debug)]
struct State {
    recorded: AtomicU64,
    passed: AtomicU64,
}

/// The words, mapped as long as the value lives.
#[derive(Debug)]
pub struct Word {
    file: File,
    state: *mut State,
    /// The process that made the event.
    owner: i32,
}

// SAFETY: the mapping is shared memory that is accessed by atomic operations alone.
unsafe impl Send for Word {}
// SAFETY: as above.
unsafe impl Sync for Word {}

impl Word {
    pub fn create() -> Result<Word> {
        // SAFETY: a C string and a flag.
        let fd = unsafe { libc::memfd_create(c"softgpu-event".as_ptr(), libc::MFD_CLOEXEC) };
        if fd < 0 {
            return Err(Error::OPERATING_SYSTEM);
        }
        // SAFETY: just created, so nobody else's.
        let file = unsafe { File::from_raw_fd(fd) };
        file.set_len(PAGE as u64).map_err(|_| Error::OUT_OF_MEMORY)?;
        Self::map(file, std::process::id() as i32)
    }

    /// The event of another process. One whose process is gone, or whose descriptor is another file by now, is invalid.
    pub fn open(handle: &EventHandle) -> Result<Word> {
        if handle.magic != MAGIC {
            return Err(Error::INVALID_VALUE);
        }
        let path = format!("/proc/{}/fd/{}", handle.pid, handle.fd);
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(|_| Error::INVALID_HANDLE)?;
        let status = file.metadata().map_err(|_| Error::INVALID_HANDLE)?;
        if status.ino() != handle.inode || status.len() != PAGE as u64 {
            return Err(Error::INVALID_HANDLE);
        }
        Self::map(file, handle.pid)
    }

    fn map(file: File, owner: i32) -> Result<Word> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let at = unsafe {
            libc::mmap(std::ptr::null_mut(), PAGE, protection, libc::MAP_SHARED, file.as_raw_fd(), 0)
        };
        if at == libc::MAP_FAILED {
            return Err(Error::MAP_FAILED);
        }
        Ok(Word { file, state: at.cast(), owner })
    }

    pub fn handle(&self) -> Result<EventHandle> {
        let inode = self.file.metadata().map_err(|_| Error::OPERATING_SYSTEM)?.ino();
        Ok(EventHandle { magic: MAGIC, pid: self.owner, fd: self.file.as_raw_fd(), inode, reserved: [0; 5] })
    }

    fn state(&self) -> &State {
        // SAFETY: mapped until `self` is dropped, aligned to a page, and atomic words accept any bits.
        unsafe { &*self.state }
    }

    /// Begins a recording; its number.
    pub fn record(&self) -> u64 {
        self.state().recorded.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// The number of the latest recording; 0 where there is none.
    pub fn recorded(&self) -> u64 {
        self.state().recorded.load(Ordering::Acquire)
    }

    pub fn pass(&self, number: u64) {
        self.state().passed.fetch_max(number, Ordering::AcqRel);
    }

    pub fn is_passed(&self, number: u64) -> bool {
        self.state().passed.load(Ordering::Acquire) >= number
    }

    /// Waits for a recording. One of a process that ended meanwhile will never be passed; the wait ends then.
    pub fn wait(&self, number: u64) {
        let mut looks = 0u32;
        while !self.is_passed(number) {
            std::thread::sleep(PAUSE);
            looks += 1;
            // SAFETY: signal 0 only asks whether the process exists.
            if looks.is_multiple_of(LOOKS) && unsafe { libc::kill(self.owner, 0) } != 0 {
                return;
            }
        }
    }
}

impl Drop for Word {
    fn drop(&mut self) {
        // SAFETY: our mapping, which nothing refers to any more.
        unsafe { libc::munmap(self.state.cast(), PAGE) };
    }
}
