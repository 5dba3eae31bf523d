//! The producing end, shared by every thread of the client.
//!
//! Cost of a push without contention: one `fetch_add`, the copy, one store, one fence; no system call
//! unless the consumer sleeps.
//!
//! Signals: pushing from a signal handler is sound, and the handler's record gets its own ticket. But if
//! the handler interrupted a push and the ring is full, the handler waits for a record that cannot be
//! completed until it returns: such a wait ends only through `should_abort`. After fork the child must not
//! push: it shares the parent's tickets.

use std::fmt;
use std::sync::atomic::{AtomicBool as StdBool, AtomicU64 as StdU64, Ordering as StdOrdering};

use super::layout::{lap, padded_bytes};
use super::memory::RingMemory;
use super::sync::{Ordering, fence};
use crate::backoff::Backoff;
use crate::record::{HEADER_BYTES, Payload, RecordHeader};

/// Why a record was not pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// The consumer has left, or `should_abort` said so during a wait for space. Nothing can be pushed ever
    /// after.
    #[error("the executor is gone")]
    Disconnected,
    /// More than [`MAX_RECORD_BYTES`](super::MAX_RECORD_BYTES); nothing was pushed.
    #[error("record of {bytes} bytes is too long")]
    TooLong {
        /// Size of the record, header included.
        bytes: usize,
    },
}

type Abort = Box<dyn Fn() -> bool + Send + Sync>;

/// Pushes records. Share it by reference or `Arc`; no method locks.
pub struct Producer {
    memory: RingMemory,
    /// A head seen earlier, so that most pushes leave the consumer's cache line alone. May lag, never leads.
    head_seen: StdU64,
    /// Set once a ticket was abandoned: the consumer will wait at it for ever.
    broken: StdBool,
    should_abort: Abort,
}

impl Producer {
    /// A producer that waits for space as long as the consumer has not said goodbye.
    pub fn new(memory: RingMemory) -> Self {
        Self::with_abort(memory, || false)
    }

    /// A producer whose waits for space also end when `should_abort` returns true. It is asked from any
    /// pushing thread, at most a few thousand times a second, and never while there is space.
    pub fn with_abort(memory: RingMemory, should_abort: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self {
            memory,
            head_seen: StdU64::new(0),
            broken: StdBool::new(false),
            should_abort: Box::new(should_abort),
        }
    }

    /// Pushes a record whose payload is `parts`, one after another. Blocks while the ring is full.
    ///
    /// # Errors
    /// See [`PushError`].
    pub fn push(&self, op: u16, flags: u16, parts: &[&[u8]]) -> Result<(), PushError> {
        self.push_record(RecordHeader { op, flags, ..RecordHeader::default() }, &[], parts)
    }

    /// Pushes a fixed payload followed by `rest`, asking for an answer in reply slot `reply` - 1 unless it
    /// is 0. Blocks while the ring is full.
    ///
    /// # Errors
    /// See [`PushError`].
    pub fn send<T: Payload>(&self, payload: &T, reply: u32, rest: &[&[u8]]) -> Result<(), PushError> {
        let header = RecordHeader { op: T::OP as u16, reply, ..RecordHeader::default() };
        self.push_record(header, payload.as_bytes(), rest)
    }

    /// Pushes any record: `header.len` is filled in, the rest of the header is taken as given. Blocks while
    /// the ring is full.
    ///
    /// # Errors
    /// See [`PushError`].
    pub fn push_record(
        &self,
        mut header: RecordHeader,
        first: &[u8],
        rest: &[&[u8]],
    ) -> Result<(), PushError> {
        let bytes = rest
            .iter()
            .fold(HEADER_BYTES.saturating_add(first.len()), |sum, part| sum.saturating_add(part.len()));
        if bytes > self.memory.max_record_bytes() {
            return Err(PushError::TooLong { bytes });
        }
        if self.is_disconnected() {
            return Err(PushError::Disconnected);
        }
        header.len = bytes as u32;
        let control = self.memory.control();
        let ticket = control.tail.0.fetch_add(padded_bytes(bytes), Ordering::Relaxed);
        let end = ticket.wrapping_add(padded_bytes(bytes));
        // A head stored here was loaded with Acquire by `wait_for_space`, maybe on another thread: Release
        // and Acquire pass that on.
        let seen = self.head_seen.load(StdOrdering::Acquire);
        if end.wrapping_sub(seen) > self.memory.capacity_bytes() {
            self.wait_for_space(ticket, end)?;
        }
        // SAFETY: the ticket is ours alone, the lines were free (checked above), and the length is within
        // the limit.
        unsafe { self.memory.write(ticket, &header, first, rest) };
        // SYNC: ring-commit, producer side.
        self.memory.stamp(ticket).store(lap(ticket, self.memory.capacity_bytes()), Ordering::Release);
        // SYNC: ring-park, producer side: the stamp is visible before PARKED is read.
        fence(Ordering::SeqCst);
        if control.consumer.0.parked.load(Ordering::Relaxed) != 0 {
            self.wake();
        }
        Ok(())
    }

    /// Whether pushes fail from now on.
    pub fn is_disconnected(&self) -> bool {
        self.broken.load(StdOrdering::Relaxed)
            || self.memory.control().consumer.0.gone.load(Ordering::Relaxed) != 0
    }

    #[cold]
    fn wake(&self) {
        // One of several producers pays for the system call.
        if self.memory.control().consumer.0.parked.swap(0, Ordering::AcqRel) != 0 {
            self.memory.unpark();
        }
    }

    #[cold]
    fn wait_for_space(&self, ticket: u64, end: u64) -> Result<(), PushError> {
        let mut backoff = Backoff::new();
        loop {
            // SYNC: ring-space, producer side.
            let head = self.memory.control().head.0.load(Ordering::Acquire);
            // The consumer cannot pass a record that is not complete: a head beyond our ticket is corrupt.
            let corrupt = ticket.wrapping_sub(head) > i64::MAX as u64;
            if !corrupt && end.wrapping_sub(head) <= self.memory.capacity_bytes() {
                self.head_seen.store(head, StdOrdering::Release);
                return Ok(());
            }
            let ask = backoff.snooze();
            if corrupt || self.is_disconnected() || (ask && (self.should_abort)()) {
                self.broken.store(true, StdOrdering::Relaxed);
                return Err(PushError::Disconnected);
            }
        }
    }
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer")
            .field("memory", &self.memory)
            .field("broken", &self.broken)
            .finish_non_exhaustive()
    }
}
