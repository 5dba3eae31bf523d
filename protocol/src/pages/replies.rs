//! Reply slots: where the outcome of a cold call comes back.
//!
//! The client claims a slot, names it in the record's header, and sleeps on its state word; the executor
//! fills it in and wakes. A slot goes back to the pool only when its answer has been read: one that was
//! given up on (a dead executor) stays claimed, so a late answer cannot land in another call's slot.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::bytes;
use super::layout::{REPLY_PAYLOAD_BYTES, REPLY_SLOTS, ReplyArea};
use crate::backoff::Backoff;

/// Nobody waits.
const IDLE: u32 = 0;
/// A client polls the slot.
const WAITING: u32 = 1;
/// A client sleeps on the slot.
const SLEEPING: u32 = 2;
/// The answer is there.
const ANSWERED: u32 = 3;

/// How long a waiter polls before it sleeps.
const SPIN: Duration = Duration::from_micros(20);
/// How often a sleeper asks whether the executor still lives.
const NAP: Duration = Duration::from_millis(10);

/// What the executor answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// `CUresult`.
    pub result: u32,
    /// An encoded [`Reply`](crate::request::Reply); may be empty.
    pub payload: Vec<u8>,
}

/// Why an answer cannot be given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// The record names a slot that does not exist.
    #[error("record names reply slot {reply}")]
    UnknownSlot {
        /// Slot + 1, as in the record's header.
        reply: u32,
    },
    /// Nobody waits for an answer in that slot.
    #[error("reply slot {reply} awaits nothing (state {state})")]
    NotWaiting {
        /// Slot + 1, as in the record's header.
        reply: u32,
        /// Its state word.
        state: u32,
    },
    /// The answer does not fit.
    #[error("reply of {bytes} bytes exceeds {REPLY_PAYLOAD_BYTES}")]
    TooLong {
        /// Its size.
        bytes: usize,
    },
}

/// Typed access to the reply slots.
#[derive(Debug, Clone, Copy)]
pub struct Replies<'a> {
    slots: &'a [ReplyArea; REPLY_SLOTS],
    claimed: &'a AtomicU64,
}

impl<'a> Replies<'a> {
    pub(super) const fn new(slots: &'a [ReplyArea; REPLY_SLOTS], claimed: &'a AtomicU64) -> Self {
        Self { slots, claimed }
    }

    /// Client: takes a free slot, waiting for one if need be; `None` when `should_abort` said to give up.
    pub fn claim(&self, should_abort: impl Fn() -> bool) -> Option<ReplyTicket<'a>> {
        let mut backoff = Backoff::new();
        loop {
            let claimed = self.claimed.load(Ordering::Relaxed);
            let index = claimed.trailing_ones();
            if let Some(slot) = self.slots.get(index as usize) {
                let taken = claimed | 1 << index;
                // Acquire: the previous holder's reads of the slot are done (it released the bit after them).
                if self.claimed.compare_exchange(claimed, taken, Ordering::Acquire, Ordering::Relaxed).is_ok()
                {
                    slot.state.store(WAITING, Ordering::Release);
                    return Some(ReplyTicket { slot, claimed: self.claimed, index });
                }
            } else if backoff.snooze() && should_abort() {
                return None;
            }
        }
    }

    /// Executor: answers the call whose record's header holds `reply` (slot + 1).
    ///
    /// # Errors
    /// [`ReplyError::UnknownSlot`] and [`ReplyError::NotWaiting`] are violations by the client;
    /// [`ReplyError::TooLong`] leaves the client waiting for a shorter answer.
    pub fn answer(&self, reply: u32, result: u32, payload: &[u8]) -> Result<(), ReplyError> {
        let slot = (reply as usize).checked_sub(1).and_then(|index| self.slots.get(index));
        let slot = slot.ok_or(ReplyError::UnknownSlot { reply })?;
        if payload.len() > REPLY_PAYLOAD_BYTES {
            return Err(ReplyError::TooLong { bytes: payload.len() });
        }
        let state = slot.state.load(Ordering::Acquire);
        if state != WAITING && state != SLEEPING {
            return Err(ReplyError::NotWaiting { reply, state });
        }
        let stored = bytes::store(&slot.payload, payload);
        slot.payload_bytes.store(stored as u32, Ordering::Relaxed);
        slot.result.store(result, Ordering::Relaxed);
        // SYNC: reply. The answer is complete before the state says so.
        if slot.state.swap(ANSWERED, Ordering::AcqRel) == SLEEPING {
            crate::futex::wake_all(&slot.state);
        }
        Ok(())
    }
}

/// A claimed slot.
#[derive(Debug)]
#[must_use = "a ticket that is dropped keeps its slot for ever"]
pub struct ReplyTicket<'a> {
    slot: &'a ReplyArea,
    claimed: &'a AtomicU64,
    index: u32,
}

impl ReplyTicket<'_> {
    /// What the record's header holds: slot + 1.
    pub const fn reply(&self) -> u32 {
        self.index + 1
    }

    /// Gives the slot back when no record naming it was pushed.
    pub fn cancel(self) {
        self.release();
    }

    /// Waits for the answer; `None` when `should_abort` said to give up, which it is asked every 10 ms. The
    /// slot is then lost to the pool.
    pub fn wait(self, should_abort: impl Fn() -> bool) -> Option<Answer> {
        let state = &self.slot.state;
        let start = Instant::now();
        // SYNC: reply. Acquire, so that the answer is read after the state that announces it.
        while state.load(Ordering::Acquire) != ANSWERED {
            if start.elapsed() < SPIN {
                std::hint::spin_loop();
                continue;
            }
            if should_abort() && state.load(Ordering::Acquire) != ANSWERED {
                return None;
            }
            sleep(state);
        }
        let payload =
            bytes::load(&self.slot.payload, self.slot.payload_bytes.load(Ordering::Relaxed) as usize);
        let answer = Answer { result: self.slot.result.load(Ordering::Relaxed), payload };
        self.release();
        Some(answer)
    }

    fn release(self) {
        self.slot.state.store(IDLE, Ordering::Relaxed);
        self.claimed.fetch_and(!(1 << self.index), Ordering::Release);
    }
}

fn sleep(state: &AtomicU32) {
    let _ = state.compare_exchange(WAITING, SLEEPING, Ordering::Relaxed, Ordering::Relaxed);
    crate::futex::wait(state, SLEEPING, NAP);
}
