//! Reports: each defect is shown when it is first met and counted from then on.
//!
//! A defect is a pair of PTX lines of a kernel (for a read of unwritten memory, one line) and what went wrong there.

use std::fmt::Write as _;
use std::sync::Mutex;

use rustc_hash::FxHashMap;

use super::Output;

/// One side of a race.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// `%tid`.
    pub thread: [u32; 3],
    /// Line of the PTX.
    pub line: u32,
    pub reads: bool,
    pub writes: bool,
}

impl Access {
    fn verb(&self) -> &'static str {
        match (self.reads, self.writes) {
            (true, true) => "atomic",
            (_, true) => "write",
            _ => "read",
        }
    }
}

/// Two accesses to the same byte of shared memory that nothing orders.
#[derive(Clone, Copy, Debug)]
pub struct Race<'a> {
    pub kernel: &'a str,
    /// `%ctaid`.
    pub block: [u32; 3],
    /// Start of the later access in the block's shared memory, and its size in bytes.
    pub offset: u64,
    pub bytes: u32,
    pub earlier: Access,
    pub later: Access,
}

/// A read of memory that nothing has written.
#[derive(Clone, Copy, Debug)]
pub struct Read<'a> {
    pub kernel: &'a str,
    pub block: [u32; 3],
    pub thread: [u32; 3],
    pub line: u32,
    /// `shared`, `local` or `global`.
    pub space: &'static str,
    /// Offset in shared or local memory, or global address.
    pub address: u64,
    pub bytes: u32,
    /// Start and size of the allocation around a global address.
    pub allocation: Option<(u64, u64)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    kernel: String,
    lines: [u32; 2],
    /// `write-write` and the like for a race, else the space that was read.
    what: &'static str,
}

#[derive(Debug, Default)]
struct Found {
    /// Each defect in the order of its first report, with the number of times it was met.
    races: Defects,
    reads: Defects,
    leaks: u64,
}

#[derive(Debug, Default)]
struct Defects {
    index: FxHashMap<Key, usize>,
    met: Vec<(Key, u64)>,
}

impl Defects {
    /// True at the first time.
    fn meet(&mut self, key: Key) -> bool {
        let next = self.met.len();
        let index = *self.index.entry(key.clone()).or_insert(next);
        if index == next {
            self.met.push((key, 0));
        }
        self.met[index].1 += 1;
        index == next
    }
}

pub struct Reports {
    output: Output,
    found: Mutex<Found>,
}

const PREFIX: &str = "softgpu: check:";

impl Reports {
    pub fn new(output: Output) -> Reports {
        Reports { output, found: Mutex::default() }
    }

    fn found(&self) -> std::sync::MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub fn race(&self, race: &Race<'_>) {
        let Race { kernel, block, offset, bytes, earlier, later } = *race;
        let what = if earlier.writes && later.writes { "write-write" } else { "read-write" };
        let lines = [earlier.line.min(later.line), earlier.line.max(later.line)];
        let mut found = self.found();
        if !found.races.meet(Key { kernel: kernel.to_owned(), lines, what }) {
            return;
        }
        let mut text = format!(
            "{PREFIX} {what} race on {bytes} bytes of shared memory at offset {offset:#x}, kernel {kernel} block {block:?}\n"
        );
        for access in [earlier, later] {
            let _ = writeln!(
                text,
                "{PREFIX}     {} by thread {:?} at line {}",
                access.verb(),
                access.thread,
                access.line
            );
        }
        (self.output)(&text);
    }

    pub fn read(&self, read: &Read<'_>) {
        let Read { kernel, block, thread, line, space, address, bytes, allocation } = *read;
        let mut found = self.found();
        if !found.reads.meet(Key { kernel: kernel.to_owned(), lines: [line; 2], what: space }) {
            return;
        }
        let at = if space == "global" { "address" } else { "offset" };
        let mut text =
            format!("{PREFIX} uninitialised read of {bytes} bytes of {space} memory at {at} {address:#x}");
        if let Some((start, size)) = allocation {
            let _ = write!(text, " (byte {} of {size} allocated at {start:#x})", address - start);
        }
        let _ = writeln!(text, ", kernel {kernel} line {line} block {block:?} thread {thread:?}");
        (self.output)(&text);
    }

    pub fn leak(&self, count: u64, what: &str) {
        self.found().leaks += count;
        self.say(&format!("{PREFIX} leak: {what}"));
    }

    pub fn say(&self, line: &str) {
        (self.output)(&format!("{line}\n"));
    }

    pub fn finish(&self) {
        let found = self.found();
        let mut text = String::new();
        for (Key { kernel, lines: [first, second], what }, times) in
            found.races.met.iter().filter(|m| m.1 > 1)
        {
            let _ = writeln!(
                text,
                "{PREFIX} {times} times: {what} race, kernel {kernel} lines {first} and {second}"
            );
        }
        for (Key { kernel, lines, what }, times) in found.reads.met.iter().filter(|m| m.1 > 1) {
            let line = lines[0];
            let _ = writeln!(
                text,
                "{PREFIX} {times} times: uninitialised read of {what} memory, kernel {kernel} line {line}"
            );
        }
        let _ = writeln!(
            text,
            "{PREFIX} {} races, {} uninitialised reads, {} leaks",
            found.races.met.len(),
            found.reads.met.len(),
            found.leaks
        );
        (self.output)(&text);
    }
}
