//! The watched way to execute: what each instruction does to memory is looked at before it runs, what it does to the order
//! of threads after it has run.
//!
//! A block has a [`Watch`] if its grid is checked; otherwise this file is never reached. `clock` knows which accesses are
//! ordered, `cells` who touched each byte of shared memory last, `fresh` what has not been written yet.
//!
//! Invariant: a watched instruction executes exactly as an unwatched one; the checks only read registers and memory.

mod cells;
mod clock;
mod fresh;
mod locate;
mod order;

use super::access::{BLIND, READS, STRONG, Touch, WRITES};
use super::block::BARRIERS;
use super::lanes::LANES;
use super::memory::COUNT_SHIFT;
use super::op::{Flow, GridRun, Kind, Machine, NONE, Op};
use super::{bulk, moves, transfer, wmma};
use crate::check::{self, Checker};
use cells::{Cells, Entry, Verdict};
use clock::Clocks;
use fresh::Fresh;
use locate::Place;

/// What the checks know of one block.
#[derive(Debug, Default)]
pub struct Watch {
    races: Option<Races>,
    fresh: Option<Fresh>,
    /// `%ntid`.
    threads: [u32; 3],
    /// Generation of each barrier when it was last looked at.
    generations: [u32; BARRIERS + 1],
}

/// Shared memory, and what orders the accesses to it.
#[derive(Debug, Default)]
struct Races {
    clocks: Clocks,
    cells: Cells,
}

/// The instruction that is looked at.
struct Site<'a> {
    checker: &'a Checker,
    kernel: &'a str,
    block: [u32; 3],
    warp: u32,
    line: u32,
    flags: u8,
}

/// What one lane touches.
#[derive(Clone, Copy)]
struct Span {
    lane: usize,
    host: u64,
    bytes: u32,
    /// Bytes that belong together: a read of them is reported only where none has been written.
    element: u32,
}

fn lanes(mask: u32) -> impl Iterator<Item = usize> {
    (0..LANES).filter(move |lane| mask >> lane & 1 != 0)
}

impl Watch {
    /// Begins a block of `grid`; what was known of the one before is forgotten.
    pub fn start(&mut self, grid: &GridRun<'_>, checker: &Checker) {
        self.threads = grid.block;
        self.generations = [0; BARRIERS + 1];
        let warps = (grid.block[0] * grid.block[1] * grid.block[2]).div_ceil(32) as usize;
        if checker.checks.race && grid.shared_bytes > 0 {
            let races = self.races.get_or_insert_default();
            if races.clocks.start(warps) {
                races.cells.clear();
            }
            races.cells.reserve(grid.shared_bytes as usize);
        }
        if checker.checks.init {
            self.fresh.get_or_insert_default().start(warps, grid.shared_bytes as usize);
        }
    }

    fn step(&mut self, m: &mut Machine<'_>, op: &Op, mask: u32, checker: &Checker) -> Flow {
        if let Some(races) = &mut self.races {
            races.clocks.tick();
        }
        let grid = m.grid;
        let site = Site {
            checker,
            kernel: &grid.program.functions[grid.function as usize].name,
            block: m.block.index,
            warp: m.warp.index,
            line: op.line,
            flags: op.access.flags,
        };
        // Counted by the instruction itself.
        let global_bytes = m.warp.stats.global_bytes;
        let looked = self.look(m, op, mask, &site);
        m.warp.stats.global_bytes = global_bytes;
        match looked {
            Ok(()) => self.order(m, op, mask, &site),
            Err(flow) => flow,
        }
    }

    /// Looks at the memory that an instruction is about to touch. An error is that of the instruction.
    fn look(&mut self, m: &mut Machine<'_>, op: &Op, mask: u32, site: &Site<'_>) -> Result<(), Flow> {
        match op.access.touch {
            Touch::Elements => self.elements(m, op, mask, site),
            Touch::Mbarrier | Touch::MbarrierWait => {
                let hosts = m.resolve(op, mask, 8)?;
                for lane in lanes(mask) {
                    self.touch(m, site, Span { lane, host: hosts[lane], bytes: 8, element: 8 }, site.flags);
                    if op.access.touch == Touch::Mbarrier && site.flags & STRONG != 0 {
                        self.release(m, lane, hosts[lane]);
                    }
                }
                Ok(())
            }
            Touch::Wide => {
                let hosts = m.resolve(op, mask, 16)?;
                for lane in lanes(mask) {
                    self.acquire(m, lane, hosts[lane]);
                    self.touch(m, site, Span { lane, host: hosts[lane], bytes: 16, element: 16 }, site.flags);
                    self.release(m, lane, hosts[lane]);
                }
                Ok(())
            }
            Touch::CopyAsync => {
                let sides = moves::sides(m, op, mask)?;
                for lane in lanes(mask) {
                    let valid = sides.valid(lane, op.c);
                    self.touch(
                        m,
                        site,
                        Span { lane, host: sides.sources[lane], bytes: valid, element: 4 },
                        READS,
                    );
                    let span = Span { lane, host: sides.targets[lane], bytes: op.c, element: op.c };
                    self.touch(m, site, span, WRITES);
                }
                Ok(())
            }
            Touch::CopyBulk => self.bulk(m, op, mask, site),
            Touch::Rows => {
                // The lane that gives a row's address stands for those that get its elements.
                self.collective(m, mask);
                let rows = if op.c == 4 { mask } else { mask & ((1 << (8 * op.c)) - 1) };
                let hosts = m.resolve(op, rows, 16)?;
                for lane in lanes(rows) {
                    let span = Span { lane, host: hosts[lane], bytes: 16, element: 2 };
                    self.touch(m, site, span, site.flags);
                }
                Ok(())
            }
            Touch::Matrix => {
                self.collective(m, mask);
                for (at, lane, bytes) in wmma::elements(m, op) {
                    let host = m.resolve(&at, 1, bytes)?[0];
                    self.touch(m, site, Span { lane, host, bytes, element: bytes }, site.flags);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn elements(&mut self, m: &mut Machine<'_>, op: &Op, mask: u32, site: &Site<'_>) -> Result<(), Flow> {
        let element = u32::from(op.access.bytes);
        let count = (op.flags >> COUNT_SHIFT) + 1;
        let hosts = m.resolve(op, mask, element * count)?;
        let strong = site.flags & STRONG != 0;
        for lane in lanes(mask) {
            let host = hosts[lane];
            let words = || (host..host + u64::from(element * count)).step_by(8);
            // Who gets no value learns nothing of others (`red`).
            let is_blank = site.flags & WRITES != 0 && op.dst == NONE;
            if strong && site.flags & READS != 0 && !is_blank {
                words().for_each(|word| self.acquire(m, lane, word));
            }
            let span = Span { lane, host, bytes: element * count, element };
            let twice = self.touch(m, site, span, site.flags);
            // Two lanes of one store: a race where they store different values.
            let stored = |lane: usize, offset: u64| {
                let at = m.block.shared.as_ptr() as u64 + offset - hosts[lane];
                let (k, byte) = ((at / u64::from(element)) as u32, at % u64::from(element));
                let slot = transfer::destination(m, op, count, k);
                let value = if element == 8 { m.longs(slot)[lane] } else { u64::from(m.words(slot)[lane]) };
                (value >> (8 * byte)) as u8
            };
            let differs = |&&(offset, other): &&(u64, Entry)| {
                stored(lane, offset) != stored(usize::from(other.thread) % LANES, offset)
            };
            if let Some(&(_, other)) = twice.iter().find(differs) {
                let start = span.host - m.block.shared.as_ptr() as u64;
                self.report_race(site, span, start, other, site.flags);
            }
            if strong && site.flags & WRITES != 0 {
                words().for_each(|word| self.release(m, lane, word));
            }
        }
        Ok(())
    }

    fn bulk(&mut self, m: &mut Machine<'_>, op: &Op, mask: u32, site: &Site<'_>) -> Result<(), Flow> {
        let Some(ends) = bulk::ends(m, op) else { return Ok(()) };
        for lane in lanes(mask) {
            for at in (0..u64::from(ends.lengths[lane])).step_by(16) {
                let from = m.resolve(&ends.source_at(at), 1 << lane, 16)?[lane];
                let to = m.resolve(&ends.target_at(at), 1 << lane, 16)?[lane];
                self.touch(m, site, Span { lane, host: from, bytes: 16, element: 16 }, READS);
                self.touch(m, site, Span { lane, host: to, bytes: 16, element: 16 }, WRITES);
            }
        }
        Ok(())
    }

    /// Checks one lane's access. Gives the bytes of shared memory that another lane has stored by the same instruction.
    fn touch(&mut self, m: &Machine<'_>, site: &Site<'_>, span: Span, flags: u8) -> Vec<(u64, Entry)> {
        let mut twice = Vec::new();
        if span.bytes == 0 {
            return twice;
        }
        let place = locate::place(m, span.host);
        if self.fresh.is_some() {
            self.look_for_fresh(m, site, span, flags, place);
        }
        let (Some(races), Place::Shared(offset)) = (&mut self.races, place) else { return twice };
        let thread = (site.warp as usize * LANES + span.lane) as u16;
        let entry = Entry { serial: races.clocks.now(), line: site.line, thread, flags };
        let mut race = None;
        for byte in offset..offset + u64::from(span.bytes) {
            match races.cells.access(byte as usize, entry, &races.clocks) {
                Verdict::Ordered => {}
                Verdict::Twice(other) => twice.push((byte, other)),
                Verdict::Race(other) => race = Some(other),
            }
        }
        if let Some(other) = race {
            self.report_race(site, span, offset, other, flags);
        }
        twice
    }

    fn look_for_fresh(&mut self, m: &Machine<'_>, site: &Site<'_>, span: Span, flags: u8, place: Place) {
        let Some(fresh) = &mut self.fresh else { return };
        if flags & READS != 0 && flags & BLIND == 0 {
            for at in (0..u64::from(span.bytes)).step_by(span.element as usize) {
                let found = match place {
                    Place::Shared(offset) => {
                        fresh.shared(offset + at, span.element).then(|| ("shared", offset + at, None))
                    }
                    Place::Local(offset) => {
                        let is_fresh = fresh.local(site.warp, span.lane, offset + at, span.element);
                        is_fresh.then(|| ("local", offset + at, None))
                    }
                    Place::Global(address) => fresh
                        .global(&site.checker.memory, address + at, span.element)
                        .map(|allocation| ("global", address + at, Some(allocation))),
                    Place::Param => None,
                };
                if let Some((space, address, allocation)) = found {
                    site.checker.uninitialised(&check::Read {
                        kernel: site.kernel,
                        block: site.block,
                        thread: m.warp.thread.map(|axis| axis[span.lane]),
                        line: site.line,
                        space,
                        address,
                        bytes: span.element,
                        allocation,
                    });
                }
            }
        }
        if flags & WRITES != 0 {
            match place {
                Place::Shared(offset) => fresh.write_shared(offset, span.bytes),
                Place::Local(offset) => fresh.write_local(site.warp, 1 << span.lane, offset, span.bytes),
                Place::Global(address) => fresh.write_global(&site.checker.memory, address, span.bytes),
                Place::Param => {}
            }
        }
    }

    fn report_race(&self, site: &Site<'_>, span: Span, offset: u64, other: Entry, flags: u8) {
        let [x, y, _] = self.threads;
        let access = |thread: u32, line: u32, flags: u8| check::Access {
            thread: [thread % x, thread / x % y, thread / x / y],
            line,
            reads: flags & READS != 0,
            writes: flags & WRITES != 0,
        };
        site.checker.race(&check::Race {
            kernel: site.kernel,
            block: site.block,
            offset,
            bytes: span.bytes,
            earlier: access(u32::from(other.thread), other.line, other.flags),
            later: access(site.warp * 32 + span.lane as u32, site.line, flags),
        });
    }
}

impl Machine<'_> {
    /// Executes one instruction under the checks.
    pub fn watched(&mut self, op: &Op, mask: u32) -> Flow {
        let Some(checker) = self.grid.environment.check else { return (op.run)(self, op, mask) };
        if op.access.touch == Touch::None && op.kind != Kind::End {
            return (op.run)(self, op, mask);
        }
        let Some(mut watch) = self.block.watch.take() else { return (op.run)(self, op, mask) };
        let flow = watch.step(self, op, mask, checker);
        self.block.watch = Some(watch);
        flow
    }
}
