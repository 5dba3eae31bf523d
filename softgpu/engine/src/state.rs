//! What the processes of one user share about their software devices: memory in use and time spent busy.
//!
//! One small file (`$SOFTGPU_STATE`, default `/dev/shm/softgpu-<uid>`), mapped by each process: a slot per process, with its
//! pid, start time, bytes and busy nanoseconds per device. NVML and `cuMemGetInfo` of every process read the same figures.
//!
//! Invariants: slots are claimed, and memory is reserved, under `flock` (the kernel drops it when a holder dies) plus a
//! mutex for the threads of one process; a slot is written by its owner alone, so its fields are plain atomics. The slot of
//! a dead process is free again at the next look.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};

use crate::profile::MAX_DEVICES;

const SLOTS: usize = 512;
/// Layout version in the first word; a file of another layout is replaced by a fresh one beside it.
const MAGIC: u64 = 0x534f_4654_4750_5501;

#[repr(C)]
struct Slot {
    pid: AtomicU32,
    _pad: u32,
    /// Field 22 of /proc/PID/stat, which tells a process from a later one of the same pid.
    start_time: AtomicU64,
    bytes: [AtomicU64; MAX_DEVICES],
    busy_ns: [AtomicU64; MAX_DEVICES],
}

#[repr(C)]
struct Shared {
    magic: AtomicU64,
    /// Busy time of processes that are gone, so that counters never run backwards.
    past_busy_ns: [AtomicU64; MAX_DEVICES],
    slots: [Slot; SLOTS],
}

/// What one live process uses of one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessUse {
    pub pid: u32,
    pub bytes: u64,
    pub busy_ns: u64,
}

/// The mapped state file.
pub struct State {
    file: File,
    shared: &'static Shared,
    /// Index of this process's slot, claimed at the first reservation or busy note.
    own: OnceLock<Option<usize>>,
    threads: Mutex<()>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("own", &self.own).finish_non_exhaustive()
    }
}

/// Where the state lives: `$SOFTGPU_STATE`, else one file per user in shared memory, or where there is none, in the folder for
/// temporary files.
pub fn default_path() -> PathBuf {
    std::env::var_os("SOFTGPU_STATE").filter(|path| !path.is_empty()).map_or_else(
        || {
            // SAFETY: geteuid has no preconditions.
            let uid = unsafe { libc::geteuid() };
            let shared = Path::new("/dev/shm");
            let folder = if shared.is_dir() { shared.to_owned() } else { std::env::temp_dir() };
            folder.join(format!("softgpu-{uid}"))
        },
        PathBuf::from,
    )
}

impl State {
    /// This process's view of the default state file.
    pub fn get() -> io::Result<&'static State> {
        static STATE: OnceLock<Result<State, i32>> = OnceLock::new();
        STATE
            .get_or_init(|| {
                State::open(&default_path()).map_err(|error| error.raw_os_error().unwrap_or(libc::EIO))
            })
            .as_ref()
            .map_err(|code| io::Error::from_raw_os_error(*code))
    }

    /// Opens or creates a state file. The mapping lives as long as the process.
    pub fn open(path: &Path) -> io::Result<State> {
        let bytes = size_of::<Shared>();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_CLOEXEC | libc::O_NOFOLLOW)
            .open(path)?;
        let _held = FileLock::take(&file)?;
        let meta = file.metadata()?;
        if !meta.file_type().is_file() || meta.permissions().mode() & 0o022 != 0 {
            return Err(io::Error::from(io::ErrorKind::PermissionDenied));
        }
        if meta.len() != bytes as u64 {
            file.set_len(0)?;
            file.set_len(bytes as u64)?;
        }
        // SAFETY: a fresh shared mapping of a regular file that is exactly `bytes` long; no address is asked for.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the mapping is page-aligned, as long as Shared, never unmapped, and Shared is made of atomics, for which
        // every bit pattern is a value.
        let shared: &'static Shared = unsafe { &*address.cast::<Shared>() };
        if shared.magic.load(Ordering::Relaxed) != MAGIC {
            shared.slots.iter().for_each(Slot::clear);
            shared.past_busy_ns.iter().for_each(|past| past.store(0, Ordering::Relaxed));
            shared.magic.store(MAGIC, Ordering::Relaxed);
        }
        drop(_held);
        Ok(State { file, shared, own: OnceLock::new(), threads: Mutex::new(()) })
    }

    /// Adds `bytes` to this process's use of `device` unless all processes together would exceed `limit_bytes`.
    pub fn reserve(&self, device: usize, bytes: u64, limit_bytes: u64) -> bool {
        let Some(slot) = self.own_slot() else { return false };
        let _thread = self.threads.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let Ok(_held) = FileLock::take(&self.file) else { return false };
        if self.sum_bytes(device).checked_add(bytes).is_none_or(|sum| sum > limit_bytes) {
            return false;
        }
        slot.bytes[device].fetch_add(bytes, Ordering::Relaxed);
        true
    }

    /// Gives back what `reserve` added.
    pub fn release(&self, device: usize, bytes: u64) {
        if let Some(slot) = self.own_slot() {
            let _ = slot.bytes[device]
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| Some(held.saturating_sub(bytes)));
        }
    }

    /// Bytes in use on `device`, all live processes together.
    pub fn used_bytes(&self, device: usize) -> u64 {
        let _thread = self.threads.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        match FileLock::take(&self.file) {
            Ok(_held) => self.sum_bytes(device),
            Err(_) => 0,
        }
    }

    /// Notes that `device` worked for `ns` nanoseconds on behalf of this process.
    pub fn add_busy(&self, device: usize, ns: u64) {
        if let Some(slot) = self.own_slot() {
            slot.busy_ns[device].fetch_add(ns, Ordering::Relaxed);
        }
    }

    /// Busy nanoseconds of `device` since the file was created, all processes together; it never runs backwards.
    pub fn busy_ns(&self, device: usize) -> u64 {
        let live: u64 =
            self.shared.slots.iter().map(|slot| slot.busy_ns[device].load(Ordering::Relaxed)).sum();
        live + self.shared.past_busy_ns[device].load(Ordering::Relaxed)
    }

    /// The live processes that hold memory of `device` or have worked on it.
    pub fn processes(&self, device: usize) -> Vec<ProcessUse> {
        let _thread = self.threads.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let Ok(_held) = FileLock::take(&self.file) else { return Vec::new() };
        self.reclaim();
        let used = |slot: &Slot| ProcessUse {
            pid: slot.pid.load(Ordering::Relaxed),
            bytes: slot.bytes[device].load(Ordering::Relaxed),
            busy_ns: slot.busy_ns[device].load(Ordering::Relaxed),
        };
        self.shared.slots.iter().map(used).filter(|p| p.pid != 0 && (p.bytes | p.busy_ns) != 0).collect()
    }

    fn own_slot(&self) -> Option<&'static Slot> {
        let index = *self.own.get_or_init(|| {
            let _thread = self.threads.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            let _held = FileLock::take(&self.file).ok()?;
            self.reclaim();
            let free = self.shared.slots.iter().position(|slot| slot.pid.load(Ordering::Relaxed) == 0)?;
            let slot = &self.shared.slots[free];
            let pid = std::process::id();
            slot.start_time.store(start_time(pid).unwrap_or(0), Ordering::Relaxed);
            slot.pid.store(pid, Ordering::Relaxed);
            Some(free)
        });
        index.map(|index| &self.shared.slots[index])
    }

    /// Sum over live processes; the caller holds the lock.
    fn sum_bytes(&self, device: usize) -> u64 {
        self.reclaim();
        self.shared.slots.iter().map(|slot| slot.bytes[device].load(Ordering::Relaxed)).sum()
    }

    /// Frees the slots of dead processes; the caller holds the lock.
    fn reclaim(&self) {
        let me = std::process::id();
        for slot in &self.shared.slots {
            let pid = slot.pid.load(Ordering::Relaxed);
            if pid == 0 || pid == me || alive(pid, slot.start_time.load(Ordering::Relaxed)) {
                continue;
            }
            for (past, busy) in self.shared.past_busy_ns.iter().zip(&slot.busy_ns) {
                past.fetch_add(busy.load(Ordering::Relaxed), Ordering::Relaxed);
            }
            slot.clear();
        }
    }
}

impl Slot {
    fn clear(&self) {
        self.bytes.iter().chain(&self.busy_ns).for_each(|word| word.store(0, Ordering::Relaxed));
        self.start_time.store(0, Ordering::Relaxed);
        self.pid.store(0, Ordering::Relaxed);
    }
}

fn alive(pid: u32, recorded_start: u64) -> bool {
    match start_time(pid) {
        Some(started) => recorded_start == 0 || started == recorded_start,
        None => false,
    }
}

/// Clock ticks after boot at which the process started; `None` where it is gone or a zombie.
fn start_time(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command name may hold spaces and parentheses; the fields go on after the last one.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let status = fields.next()?;
    if matches!(status, "Z" | "X") { None } else { fields.nth(18)?.parse().ok() }
}

struct FileLock<'a>(&'a File);

impl<'a> FileLock<'a> {
    fn take(file: &'a File) -> io::Result<FileLock<'a>> {
        loop {
            // SAFETY: flock on a descriptor that `file` keeps open.
            if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX) } == 0 {
                return Ok(FileLock(file));
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }
}

impl Drop for FileLock<'_> {
    fn drop(&mut self) {
        // SAFETY: flock on a descriptor that the borrowed file keeps open.
        unsafe { libc::flock(self.0.as_raw_fd(), libc::LOCK_UN) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("softgpu-state-{name}-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        path
    }

    #[test]
    fn reservations_stop_at_the_limit_and_are_shared() {
        let path = fresh("limit");
        let (one, two) = (State::open(&path).unwrap(), State::open(&path).unwrap());
        assert!(one.reserve(0, 60, 100));
        assert!(!two.reserve(0, 60, 100));
        assert!(two.reserve(1, 60, 100), "devices are counted apart");
        assert_eq!((one.used_bytes(0), two.used_bytes(0)), (60, 60));
        one.release(0, 60);
        assert!(two.reserve(0, 100, 100));
        assert!(!two.reserve(0, u64::MAX, 100));
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_dead_process_gives_its_memory_back_but_keeps_its_busy_time() {
        let path = fresh("dead");
        let state = State::open(&path).unwrap();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let slot = &state.shared.slots[7];
        slot.pid.store(child.id(), Ordering::Relaxed);
        slot.start_time.store(start_time(child.id()).unwrap(), Ordering::Relaxed);
        slot.bytes[0].store(500, Ordering::Relaxed);
        slot.busy_ns[0].store(9, Ordering::Relaxed);
        assert_eq!(state.used_bytes(0), 500);
        assert_eq!(state.processes(0), [ProcessUse { pid: child.id(), bytes: 500, busy_ns: 9 }]);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!((state.used_bytes(0), state.busy_ns(0)), (0, 9));
        assert!(state.processes(0).is_empty());
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_file_that_others_may_write_is_refused() {
        let path = fresh("mode");
        std::fs::write(&path, b"").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
        assert_eq!(State::open(&path).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        std::fs::remove_file(path).unwrap();
    }
}
