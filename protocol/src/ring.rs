//! The ring: how calls of one client process reach its executor in program order.
//!
//! Multi-producer, single-consumer, variable records. A producer takes its place with one `fetch_add` on
//! the tail (the ticket), so the order of records is the order in which threads took tickets; there is no
//! lock. Records start at 64-byte lines; the data area is mapped twice back to back, so a record never
//! wraps. A record is complete when its first line's entry in the stamp array holds the number of the
//! current lap: payload bytes left from an earlier lap can never be taken for a record, and nothing needs
//! zeroing.
//!
//! Synchronisation, named at both ends in the code:
//! - `SYNC: ring-commit`: producer stores the stamp (Release) after the bytes; consumer loads it (Acquire)
//!   before them.
//! - `SYNC: ring-space`: consumer stores the head (Release) after it has copied a record; producers load it
//!   (Acquire) before they overwrite that space.
//! - `SYNC: ring-park`: consumer stores PARKED, SeqCst fence, looks at the stamp again, sleeps; producer
//!   stores the stamp, SeqCst fence, looks at PARKED, wakes. One of the two always sees the other.
//!
//! The consumer trusts nothing: see [`RingViolation`]. The model test explores the protocol exhaustively:
//! `RUSTFLAGS="--cfg loom" cargo test -p lightos-protocol --release --test loom_ring`.

mod consumer;
pub mod layout;
#[cfg(not(loom))]
mod memory;
#[cfg(loom)]
#[path = "ring/memory_loom.rs"]
mod memory;
mod producer;
pub(crate) mod sync;

pub use consumer::{Consumer, Record, RingViolation};
pub use layout::{MAX_CAPACITY_BYTES, MAX_RECORD_BYTES, MIN_CAPACITY_BYTES};
pub use memory::RingMemory;
pub use producer::{Producer, PushError};
