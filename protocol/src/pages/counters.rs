//! What the tenant did: counted where it happens, read by the daemon at any time.

use std::sync::atomic::{AtomicU64, Ordering};

use super::bytes;
use super::layout::{CounterArea, TrafficCounters, UNKNOWN_NAME_BYTES};
use crate::control::{CallCount, MemoryUse, Traffic};

/// How a hooked call ended; a column of the matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Carried out by the executor, or answered from its state.
    Forwarded = 0,
    /// Handed to the client's own driver.
    Passed = 1,
    /// Failed with the error that native execution gives.
    Failed = 2,
    /// Refused because it cannot be carried.
    Refused = 3,
}

/// All counters at one moment, those that are zero left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CounterSnapshot {
    /// Calls by function.
    pub calls: Vec<CallCount>,
    /// Reasons with their counts.
    pub reasons: Vec<(String, u64)>,
    /// Work that crossed the boundary.
    pub traffic: Traffic,
    /// Device memory.
    pub memory: MemoryUse,
}

/// Typed access to the counters. Adding is one relaxed atomic operation; rows that do not exist are ignored.
#[derive(Debug, Clone, Copy)]
pub struct Counters<'a> {
    area: &'a CounterArea,
}

impl<'a> Counters<'a> {
    pub(super) const fn new(area: &'a CounterArea) -> Self {
        Self { area }
    }

    /// Counts a call of the hook with this index.
    pub fn count(&self, hook: usize, outcome: Outcome) {
        if let Some(row) = self.area.calls.get(hook) {
            row[outcome as usize].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts a reason for a pass-through or refusal.
    pub fn count_reason(&self, reason: usize) {
        if let Some(counter) = self.area.reasons.get(reason) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts a refusal of a function that has no row of its own; `index` is the shim's number for it, below
    /// [`UNKNOWN_FUNCTIONS`](super::UNKNOWN_FUNCTIONS).
    pub fn refuse_unknown(&self, index: usize, name: &[u8]) {
        if let Some(function) = self.area.unknown.get(index) {
            if function.refused.load(Ordering::Relaxed) == 0 {
                bytes::store(&function.name, name);
            }
            // The name goes first, for the daemon that sees the count.
            function.refused.fetch_add(1, Ordering::Release);
        }
    }

    /// The refused functions that have no row, by name. A name is the program's word: what is not printable is left out.
    fn unknown(&self) -> impl Iterator<Item = CallCount> + use<'a> {
        self.area.unknown.iter().filter_map(|function| {
            let refused = function.refused.load(Ordering::Acquire);
            let name = bytes::load(&function.name, UNKNOWN_NAME_BYTES);
            let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
            let clean = !name.is_empty() && name.iter().all(u8::is_ascii_graphic);
            (refused != 0 && clean).then(|| CallCount {
                function: String::from_utf8_lossy(name).into_owned(),
                refused,
                ..CallCount::default()
            })
        })
    }

    /// Launches, bytes, records: add to them with `Relaxed`.
    pub const fn traffic(&self) -> &'a TrafficCounters {
        &self.area.traffic
    }

    /// Counts device memory gained.
    pub fn memory_allocated(&self, bytes: u64) {
        let traffic = &self.area.traffic;
        let current = traffic.memory_current_bytes.fetch_add(bytes, Ordering::Relaxed).wrapping_add(bytes);
        traffic.memory_peak_bytes.fetch_max(current, Ordering::Relaxed);
    }

    /// Counts device memory returned.
    pub fn memory_freed(&self, bytes: u64) {
        self.area.traffic.memory_current_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Reads everything, naming rows by the lists from the [`Hello`](crate::control::Hello). Rows without a
    /// name are left out.
    pub fn snapshot(&self, hooks: &[String], reasons: &[String]) -> CounterSnapshot {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let traffic = &self.area.traffic;
        let rows = hooks.iter().zip(&self.area.calls).map(|(function, row)| {
            let [forwarded, passed, failed, refused] = row.each_ref().map(load);
            CallCount { function: function.clone(), forwarded, passed, failed, refused }
        });
        let named =
            reasons.iter().zip(&self.area.reasons).map(|(name, counter)| (name.clone(), load(counter)));
        CounterSnapshot {
            calls: rows
                .filter(|row| row.forwarded | row.passed | row.failed | row.refused != 0)
                .chain(self.unknown())
                .collect(),
            reasons: named.filter(|(_, count)| *count != 0).collect(),
            traffic: Traffic {
                launches: load(&traffic.launches),
                graph_launches: load(&traffic.graph_launches),
                host_to_device_bytes: load(&traffic.host_to_device_bytes),
                device_to_host_bytes: load(&traffic.device_to_host_bytes),
                device_to_device_bytes: load(&traffic.device_to_device_bytes),
                dispatched: load(&traffic.dispatched),
                held_ns: load(&traffic.held_ns),
            },
            memory: MemoryUse {
                current_bytes: load(&traffic.memory_current_bytes),
                peak_bytes: load(&traffic.memory_peak_bytes),
            },
        }
    }
}
