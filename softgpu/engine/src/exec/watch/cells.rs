//! Shared memory byte by byte: the last write, and two of the reads since.
//!
//! Reads that are over for a later one are dropped for it. Of more than two that are not, two of different warps are kept
//! where there are such, so that a write by any thread meets one that is not its own.

use super::super::access::{STRONG, WRITES};
use super::super::lanes::LANES;
use super::clock::Clocks;

/// One access. A `serial` of 0 stands for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    pub serial: u32,
    pub line: u32,
    /// Number of the thread in its block.
    pub thread: u16,
    /// As in `access`.
    pub flags: u8,
}

impl Entry {
    fn warp(self) -> usize {
        usize::from(self.thread) / LANES
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    write: Entry,
    reads: [Entry; 2],
}

/// What an access to one byte meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Ordered,
    /// Another lane has written the byte by the same instruction.
    Twice(Entry),
    /// An access that nothing orders before this one.
    Race(Entry),
}

#[derive(Debug, Default)]
pub struct Cells(Vec<Cell>);

impl Cells {
    pub fn clear(&mut self) {
        self.0.clear();
    }

    pub fn reserve(&mut self, bytes: usize) {
        // Shared memory is allocated in units of 16 bytes.
        let bytes = bytes.next_multiple_of(16);
        if self.0.len() < bytes {
            self.0.resize(bytes, Cell::default());
        }
    }

    /// Enters an access to the byte at `offset`.
    pub fn access(&mut self, offset: usize, entry: Entry, clocks: &Clocks) -> Verdict {
        let Some(cell) = self.0.get_mut(offset) else { return Verdict::Ordered };
        let races =
            |other: Entry| entry.flags & other.flags & STRONG == 0 && !clocks.ordered(other, entry.thread);
        let mut verdict = Verdict::Ordered;
        if entry.flags & WRITES == 0 {
            if races(cell.write) {
                verdict = Verdict::Race(cell.write);
            }
            cell.read(entry, clocks);
            return verdict;
        }
        if cell.write.serial == entry.serial && cell.write.thread != entry.thread {
            if entry.flags & STRONG == 0 {
                verdict = Verdict::Twice(cell.write);
            }
        } else if let Some(other) = [cell.write, cell.reads[0], cell.reads[1]].into_iter().find(|e| races(*e))
        {
            verdict = Verdict::Race(other);
        }
        // Reads before this write are over for whoever it is over for.
        *cell = Cell { write: entry, ..Cell::default() };
        verdict
    }
}

impl Cell {
    fn read(&mut self, entry: Entry, clocks: &Clocks) {
        let reads = &mut self.reads;
        if let Some(own) = reads.iter_mut().find(|read| read.thread == entry.thread && read.serial != 0) {
            *own = entry;
        } else if let Some(over) = reads.iter_mut().find(|read| clocks.ordered(**read, entry.thread)) {
            *over = entry;
        } else if reads[0].warp() == reads[1].warp() {
            reads[1] = entry;
        }
    }
}
