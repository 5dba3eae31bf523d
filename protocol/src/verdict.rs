//! The verdict: what policy says of a tenant's launches at this moment, in one cache line of shared memory.
//!
//! The daemon makes one page for each tenant and is the only one who can write it (the file is sealed against further writable
//! mappings). Whoever dispatches reads it before each launch: the executor in `sidecar` mode, the program's own process in `local` mode.
//! The usual answer, "go", costs one load.
//!
//! A verdict is a [`Duty`]: the share of each [`PERIOD`] in which launches may go. The held part comes last in the period, and
//! periods follow CLOCK_MONOTONIC, so that all of a machine's dispatchers are held at the same time.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, SealFlags};

use crate::futex;
use crate::mapping::{MAP_ALIGN_BYTES, Piece, Shared, SharedMapping};

/// Length of one cycle of going and holding. Long against a launch, short against what people and thermometers notice.
pub const PERIOD: Duration = Duration::from_millis(10);

/// How long a held dispatcher sleeps at most before it looks whether the wait has become pointless.
const LOOK: Duration = Duration::from_millis(10);

/// The share of time in which launches may go, in thousandths: 1000 is "go", 0 is "hold".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Duty(u32);

impl Duty {
    /// Launches go at once.
    pub const FULL: Self = Self(1000);

    /// From thousandths; more than 1000 is 1000.
    pub const fn permille(value: u32) -> Self {
        Self(if value > 1000 { 1000 } else { value })
    }

    /// In thousandths.
    pub const fn as_permille(self) -> u32 {
        self.0
    }
}

/// The page. Zero is "go", so that a fresh page holds nothing up.
#[derive(Debug)]
#[repr(C, align(64))]
struct Page {
    /// Thousandths of each period in which launches are held. Dispatchers that wait for a change sleep on it.
    held_permille: AtomicU32,
    /// Zero.
    reserved: AtomicU32,
    /// Zero.
    filler: [AtomicU64; (MAP_ALIGN_BYTES - 8) / 8],
}

// SAFETY: atomics alone, in repr(C) without padding.
unsafe impl Shared for Page {}

const _: () = assert!(size_of::<Page>() == MAP_ALIGN_BYTES);

const WHOLE: Piece = Piece { file_offset: 0, bytes: MAP_ALIGN_BYTES as u64 };

fn page(mapping: &SharedMapping) -> io::Result<&Page> {
    mapping.view(0).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The daemon's side.
#[derive(Debug)]
pub struct VerdictWriter {
    mapping: SharedMapping,
}

impl VerdictWriter {
    /// Makes a page that says "go", and the descriptor for those who read it.
    ///
    /// # Errors
    /// What memfd_create, mmap or fcntl report; before Linux 5.1 the seal that keeps readers from writing does not exist.
    pub fn create() -> io::Result<(Self, OwnedFd)> {
        let fd =
            rustix::fs::memfd_create("lightos-verdict", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        rustix::fs::ftruncate(&fd, WHOLE.bytes)?;
        rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW)?;
        let mapping = SharedMapping::map(&fd, &[WHOLE])?;
        page(&mapping)?;
        rustix::fs::fcntl_add_seals(&fd, SealFlags::FUTURE_WRITE | SealFlags::SEAL)?;
        Ok((Self { mapping }, fd))
    }

    /// Announces a new verdict and wakes the dispatchers that wait for one.
    pub fn set(&self, duty: Duty) {
        if let Ok(page) = page(&self.mapping) {
            page.held_permille.store(1000 - duty.0, Ordering::Release);
            futex::wake_all(&page.held_permille);
        }
    }

    /// The verdict in force.
    pub fn duty(&self) -> Duty {
        page(&self.mapping).map_or(Duty::FULL, |page| duty_of(page.held_permille.load(Ordering::Relaxed)))
    }
}

/// A dispatcher's side.
#[derive(Debug)]
pub struct Verdict {
    mapping: SharedMapping,
}

impl Verdict {
    /// Maps a page, for reading alone.
    ///
    /// # Errors
    /// `InvalidData` when it is no such page; whatever mmap reports.
    pub fn open(fd: &OwnedFd) -> io::Result<Self> {
        if crate::mapping::sealed_bytes(fd.as_fd())? != WHOLE.bytes {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mapping = SharedMapping::read_only(fd, &[WHOLE])?;
        page(&mapping)?;
        Ok(Self { mapping })
    }

    /// Whether launches go without further ado. One relaxed load.
    #[inline]
    pub fn is_go(&self) -> bool {
        page(&self.mapping).is_ok_and(|page| page.held_permille.load(Ordering::Relaxed) == 0)
    }

    /// Waits until a launch may go, or until `is_over` says that nobody will say so any more. Returns the time spent.
    #[cold]
    pub fn wait(&self, is_over: impl Fn() -> bool) -> Duration {
        let start = Instant::now();
        let Ok(page) = page(&self.mapping) else { return Duration::ZERO };
        loop {
            let held = page.held_permille.load(Ordering::Acquire);
            let sleep = held_for(duty_of(held), monotonic());
            if sleep.is_zero() || is_over() {
                return start.elapsed();
            }
            futex::wait(&page.held_permille, held, sleep);
        }
    }
}

/// A word out of shared memory as a duty; one that no daemon writes holds nothing up.
fn duty_of(held_permille: u32) -> Duty {
    Duty(1000u32.checked_sub(held_permille).unwrap_or(1000))
}

/// How long a launch at `now` is held under `duty`; zero when it may go.
fn held_for(duty: Duty, now: Duration) -> Duration {
    if duty.0 == 0 {
        return LOOK;
    }
    let period = PERIOD.as_nanos();
    let at = now.as_nanos() % period;
    if at * 1000 < period * u128::from(duty.0) {
        return Duration::ZERO;
    }
    Duration::from_nanos((period - at) as u64)
}

fn monotonic() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at_us(duty: u32, us: u64) -> u128 {
        held_for(Duty::permille(duty), Duration::from_micros(us)).as_micros()
    }

    #[test]
    fn the_end_of_each_period_is_held() {
        assert_eq!((at_us(1000, 9_999), at_us(1000, 0)), (0, 0));
        assert_eq!((at_us(300, 2_999), at_us(300, 3_000), at_us(300, 9_999)), (0, 7_000, 1));
        assert_eq!((at_us(300, 70_000), at_us(300, 75_000)), (0, 5_000));
        assert_eq!(at_us(1, 10_009), 0);
        assert_eq!(at_us(0, 5), LOOK.as_micros());
    }

    #[test]
    fn a_reader_sees_what_the_daemon_says_and_cannot_say_it() {
        let (writer, fd) = VerdictWriter::create().unwrap();
        let reader = Verdict::open(&fd).unwrap();
        assert!(reader.is_go() && writer.duty() == Duty::FULL);
        writer.set(Duty::permille(250));
        assert!(!reader.is_go() && writer.duty() == Duty::permille(250));
        writer.set(Duty::permille(5000));
        assert!(reader.is_go());
        assert!(SharedMapping::map(&fd, &[WHOLE]).is_err(), "a writable mapping of the page");
    }

    #[test]
    fn a_held_launch_goes_when_the_verdict_changes_or_nobody_is_left_to_change_it() {
        let (writer, fd) = VerdictWriter::create().unwrap();
        let reader = Verdict::open(&fd).unwrap();
        writer.set(Duty::permille(0));
        assert!(reader.wait(|| true) < Duration::from_secs(1));
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| reader.wait(|| false));
            std::thread::sleep(Duration::from_millis(50));
            assert!(!waits.is_finished());
            writer.set(Duty::FULL);
            assert!(waits.join().unwrap() >= Duration::from_millis(40));
        });
    }

    #[test]
    fn a_foreign_file_is_no_verdict() {
        let fd = crate::mapping::sealed_memfd("other", 4096).unwrap();
        assert!(Verdict::open(&fd).is_err());
        assert_eq!(duty_of(7000), Duty::FULL);
    }
}
