//! The ring's memory for the loom model: the same operations on the heap, with loom's atomics, cells that
//! report data races, and a lock and condition in place of the futex. A wait without a wake-up is a dead
//! lock, which loom reports.

use std::sync::Arc;
use std::time::Duration;

use loom::cell::UnsafeCell;
use loom::sync::{Condvar, Mutex};
use zerocopy::{FromBytes, IntoBytes};

use super::layout::{ConsumerState, Control, LINE_BYTES, MAGIC, Padded};
use super::sync::{AtomicU32, AtomicU64, Ordering};
use crate::record::{HEADER_BYTES, RecordHeader};

#[derive(Debug)]
struct Shared {
    control: Control,
    stamps: Vec<AtomicU32>,
    lines: Vec<UnsafeCell<[u8; LINE_BYTES]>>,
    futex: Mutex<()>,
    woken: Condvar,
}

/// A ring of a few lines within one process. Clones share it.
#[derive(Debug, Clone)]
pub struct RingMemory(Arc<Shared>);

impl RingMemory {
    /// A ring of `lines` lines.
    pub fn in_memory(lines: usize) -> Self {
        let control = Control {
            magic: AtomicU64::new(MAGIC),
            capacity_bytes: AtomicU64::new((lines * LINE_BYTES) as u64),
            tail: Padded(AtomicU64::new(0)),
            head: Padded(AtomicU64::new(0)),
            consumer: Padded(ConsumerState { parked: AtomicU32::new(0), gone: AtomicU32::new(0) }),
        };
        Self(Arc::new(Shared {
            control,
            stamps: (0..lines).map(|_| AtomicU32::new(0)).collect(),
            lines: (0..lines).map(|_| UnsafeCell::new([0; LINE_BYTES])).collect(),
            futex: Mutex::new(()),
            woken: Condvar::new(),
        }))
    }

    pub(super) fn capacity_bytes(&self) -> u64 {
        (self.0.lines.len() * LINE_BYTES) as u64
    }

    pub(super) fn max_record_bytes(&self) -> usize {
        self.0.lines.len() * LINE_BYTES
    }

    pub(super) fn control(&self) -> &Control {
        &self.0.control
    }

    pub(super) fn stamp(&self, position: u64) -> &AtomicU32 {
        &self.0.stamps[self.line(position)]
    }

    /// # Safety
    /// None needed here: loom checks every access. Unsafe to match the real memory.
    pub(super) unsafe fn write(&self, position: u64, header: &RecordHeader, first: &[u8], rest: &[&[u8]]) {
        let bytes = [header.as_bytes(), first, &rest.concat()].concat();
        for (index, chunk) in bytes.chunks(LINE_BYTES).enumerate() {
            let line = self.line(position + (index * LINE_BYTES) as u64);
            // SAFETY: loom verifies that no other access to this cell is concurrent.
            self.0.lines[line].with_mut(|cell| unsafe { (&mut *cell)[..chunk.len()].copy_from_slice(chunk) });
        }
    }

    pub(super) fn read_header(&self, position: u64) -> RecordHeader {
        let mut bytes = [0; HEADER_BYTES];
        self.read(position, &mut bytes);
        RecordHeader::read_from_bytes(&bytes).unwrap_or_default()
    }

    pub(super) fn read(&self, position: u64, into: &mut [u8]) {
        for (index, byte) in into.iter_mut().enumerate() {
            let at = position + index as u64;
            // SAFETY: loom verifies that no write to this cell is concurrent.
            *byte = self.0.lines[self.line(at)].with(|cell| unsafe { (*cell)[at as usize % LINE_BYTES] });
        }
    }

    pub(super) fn park(&self, _timeout: Duration) {
        let guard = self.0.futex.lock().unwrap();
        if self.0.control.consumer.0.parked.load(Ordering::Relaxed) == 1 {
            drop(self.0.woken.wait(guard).unwrap());
        }
    }

    pub(super) fn unpark(&self) {
        drop(self.0.futex.lock().unwrap());
        self.0.woken.notify_all();
    }

    fn line(&self, position: u64) -> usize {
        position as usize / LINE_BYTES % self.0.lines.len()
    }
}
