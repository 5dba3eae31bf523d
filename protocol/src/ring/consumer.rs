//! The consuming end: one thread of the executor.
//!
//! Everything in the ring is hostile. The consumer keeps its own head, copies header and payload into
//! private memory before it judges them, and answers a violation with an error that names it; the caller
//! then drops the tenant. No value in the ring can make it read outside the mapping or wait beyond its
//! timeout.

use std::time::{Duration, Instant};

use super::layout::{LINE_BYTES, MAX_WAITING_PRODUCERS, lap, padded_bytes};
use super::memory::RingMemory;
use super::sync::{Ordering, fence};
use crate::record::{HEADER_BYTES, RecordHeader};

/// How a client broke the ring's rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RingViolation {
    /// The shared head, which only the consumer writes, holds something else.
    #[error("ring head is {found}, the consumer is at {expected}")]
    BadHead {
        /// Value in shared memory.
        found: u64,
        /// The consumer's position.
        expected: u64,
    },
    /// A record's length is shorter than its header or longer than a record may be.
    #[error("record at {position} claims {len} bytes")]
    BadLength {
        /// The record's position.
        position: u64,
        /// Length in its header.
        len: u32,
    },
    /// A stamp from a lap that has not begun.
    #[error("stamp at {position} is {found} in lap {lap}")]
    BadStamp {
        /// The record's position.
        position: u64,
        /// The stamp.
        found: u32,
        /// The current lap.
        lap: u32,
    },
    /// A reserved field of the header is not zero.
    #[error("record at {position} has a reserved field of {found}")]
    BadReserved {
        /// The record's position.
        position: u64,
        /// What the field holds.
        found: u32,
    },
    /// A complete record reaches beyond the tail, so nobody holds a ticket for it, or the tail has run
    /// further ahead than waiting producers explain, or is not at a line.
    #[error("ring tail is {tail}, but a record ends at {end}")]
    TailOverrun {
        /// The tail.
        tail: u64,
        /// Where the record ends.
        end: u64,
    },
}

/// A wait polls for this long before it offers the processor to others between polls.
const ALONE: Duration = Duration::from_micros(20);

/// A record, in the consumer's private memory.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// Its header; `len` and `reserved` are checked, the rest is the caller's to judge.
    pub header: RecordHeader,
    /// What follows the header.
    pub payload: &'a [u8],
}

/// Takes records out of a ring. There is one per ring.
#[derive(Debug)]
pub struct Consumer {
    memory: RingMemory,
    head: u64,
    /// A tail seen earlier, so that most records leave the producers' busiest cache line alone.
    tail_seen: u64,
    spin: Duration,
    /// Since when the ring is empty, as far as a wait has seen it.
    idle_since: Option<Instant>,
}

impl Consumer {
    /// How long [`Consumer::next`] polls before it sleeps, unless told otherwise: about the gap between two
    /// launches of a busy program.
    pub const DEFAULT_SPIN: Duration = Duration::from_micros(50);

    /// The consumer of a fresh ring.
    pub const fn new(memory: RingMemory) -> Self {
        Self { memory, head: 0, tail_seen: 0, spin: Self::DEFAULT_SPIN, idle_since: None }
    }

    /// Polls for `spin` after the last record, over all waits together, before sleeping. Longer costs
    /// processor time, shorter costs a wake-up (5 us or more) per idle gap.
    pub const fn with_spin(mut self, spin: Duration) -> Self {
        self.spin = spin;
        self
    }

    /// Whether a complete record waits.
    ///
    /// # Errors
    /// [`RingViolation::BadStamp`].
    pub fn is_ready(&self) -> Result<bool, RingViolation> {
        let lap = lap(self.head, self.memory.capacity_bytes());
        // SYNC: ring-commit, consumer side.
        let found = self.memory.stamp(self.head).load(Ordering::Acquire);
        if found == lap {
            return Ok(true);
        }
        // Any earlier lap may have left its number here; a later one cannot have begun.
        if lap.wrapping_sub(found) > i32::MAX as u32 {
            return Err(RingViolation::BadStamp { position: self.head, found, lap });
        }
        Ok(false)
    }

    /// The next record, in ticket order; `None` when none was complete within `timeout`. The payload lands
    /// in `scratch`, which grows to the largest record seen and is best reused.
    ///
    /// # Errors
    /// See [`RingViolation`]; the ring is unusable afterwards.
    pub fn next<'s>(
        &mut self,
        timeout: Duration,
        scratch: &'s mut Vec<u8>,
    ) -> Result<Option<Record<'s>>, RingViolation> {
        if !self.is_ready()? && !self.wait(timeout)? {
            return Ok(None);
        }
        let header = self.memory.read_header(self.head);
        let end = self.check(&header)?;
        let bytes = header.len as usize - HEADER_BYTES;
        if scratch.len() < bytes {
            scratch.resize(bytes, 0);
        }
        let payload = &mut scratch[..bytes];
        self.memory.read(self.head.wrapping_add(HEADER_BYTES as u64), payload);
        self.head = end;
        self.idle_since = None;
        // SYNC: ring-space, consumer side: the copies above are done before producers may overwrite.
        self.memory.control().head.0.store(end, Ordering::Release);
        Ok(Some(Record { header, payload }))
    }

    /// Judges a header copied from the head; returns where its record ends.
    fn check(&mut self, header: &RecordHeader) -> Result<u64, RingViolation> {
        let position = self.head;
        let control = self.memory.control();
        let found = control.head.0.load(Ordering::Relaxed);
        if found != position {
            return Err(RingViolation::BadHead { found, expected: position });
        }
        let len = header.len as usize;
        if !(HEADER_BYTES..=self.memory.max_record_bytes()).contains(&len) {
            return Err(RingViolation::BadLength { position, len: header.len });
        }
        if header.reserved != 0 {
            return Err(RingViolation::BadReserved { position, found: header.reserved });
        }
        // Positions count bytes since the start of the session, so a sum cannot overflow: the checks below
        // keep them honest.
        let end = position + padded_bytes(len);
        if end > self.tail_seen {
            let tail = control.tail.0.load(Ordering::Relaxed);
            let waiting = MAX_WAITING_PRODUCERS * self.memory.max_record_bytes() as u64;
            if tail < end
                || tail - position > self.memory.capacity_bytes() + waiting
                || !tail.is_multiple_of(LINE_BYTES as u64)
            {
                return Err(RingViolation::TailOverrun { tail, end });
            }
            self.tail_seen = tail;
        }
        Ok(end)
    }

    /// Spins, then sleeps, until a record is ready or the time is up.
    fn wait(&mut self, timeout: Duration) -> Result<bool, RingViolation> {
        let start = Instant::now();
        let idle_since = *self.idle_since.get_or_insert(start);
        let left = self.spin.saturating_sub(start.duration_since(idle_since));
        let spin = if cfg!(loom) { Duration::ZERO } else { left.min(timeout) };
        loop {
            let waited = start.elapsed();
            if waited >= spin {
                break;
            }
            for _ in 0..32 {
                if self.is_ready()? {
                    return Ok(true);
                }
                std::hint::spin_loop();
            }
            // The program's own threads come first: one that shares this processor would hold up all that wait for it.
            if waited >= ALONE {
                std::thread::yield_now();
            }
        }
        let parked = &self.memory.control().consumer.0.parked;
        loop {
            // PARKED changes by read-modify-write on both sides: a producer's late reset for an earlier
            // record then lies before this store in its history, never after it.
            parked.swap(1, Ordering::AcqRel);
            // SYNC: ring-park, consumer side: PARKED is visible before the stamp is read again.
            fence(Ordering::SeqCst);
            let left = if cfg!(loom) { timeout } else { timeout.saturating_sub(start.elapsed()) };
            let ready = self.is_ready();
            if ready != Ok(false) || left.is_zero() {
                parked.swap(0, Ordering::AcqRel);
                return ready;
            }
            self.memory.park(left);
        }
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.memory.control().consumer.0.gone.store(1, Ordering::Release);
    }
}
