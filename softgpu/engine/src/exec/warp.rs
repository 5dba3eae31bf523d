//! One warp: registers, paths, local memory, and the loop that executes instructions.

use super::image::lookup::ObjectCache;
use super::lanes::{Registers, Words};
use super::memory::{LocalMemory, RangeCache};
use super::op::{Flow, Machine, NEGATED, NONE};
use super::path::{Path, State};
use super::{Fault, RunStats};

/// Why a warp gave the core back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause {
    /// All lanes have exited.
    Done,
    /// Every path waits for another warp.
    Blocked,
    /// The quantum is used up.
    Preempted,
    /// `Warp::fault` holds the reason.
    Faulted,
}

#[derive(Debug)]
pub struct Warp {
    pub registers: Registers,
    pub paths: Vec<Path>,
    pub current: u32,
    pub path: Path,
    /// Lanes that exist.
    pub present: u32,
    /// Lanes that exist and have not exited.
    pub live: u32,
    /// Index of the warp in its block.
    pub index: u32,
    /// `%tid` per axis.
    pub thread: [Words; 3],
    pub local: LocalMemory,
    pub ranges: RangeCache,
    pub objects: ObjectCache,
    pub stats: RunStats,
    pub fault: Option<Box<Fault>>,
}

impl Warp {
    pub fn new() -> Warp {
        Warp {
            registers: Registers::default(),
            paths: Vec::new(),
            current: 0,
            path: Path::root(0, 0),
            present: 0,
            live: 0,
            index: 0,
            thread: [[0; 32]; 3],
            local: LocalMemory::default(),
            ranges: RangeCache::default(),
            objects: ObjectCache::default(),
            stats: RunStats::default(),
            fault: None,
        }
    }

    /// Makes the warp the `index`th of blocks of `shape`.
    pub fn shape(&mut self, index: u32, shape: [u32; 3]) {
        let threads = shape[0] * shape[1] * shape[2];
        self.index = index;
        self.present = 0;
        for lane in 0..32u32 {
            let thread = index * 32 + lane;
            if thread < threads {
                self.present |= 1 << lane;
            }
            let plane = thread / shape[0];
            let at = [thread % shape[0], plane % shape[1], plane / shape[1]];
            for (axis, value) in self.thread.iter_mut().zip(at) {
                axis[lane as usize] = value;
            }
        }
    }

    /// Sets the warp to the start of `function` for a fresh block.
    pub fn reset(&mut self, function: u32) {
        self.live = self.present;
        self.fault = None;
        self.start(Path::root(function, self.live));
    }
}

impl Machine<'_> {
    /// Runs the warp for at most `quantum` instructions.
    pub fn run(&mut self, quantum: u32) -> Pause {
        if self.block.watch.is_some() { self.run_watched(quantum) } else { self.turn::<false>(quantum) }
    }

    #[cold]
    fn run_watched(&mut self, quantum: u32) -> Pause {
        self.turn::<true>(quantum)
    }

    #[inline(always)]
    fn turn<const WATCHED: bool>(&mut self, quantum: u32) -> Pause {
        if !self.wake() {
            return if self.warp.done() { Pause::Done } else { Pause::Blocked };
        }
        let grid = self.grid;
        let mut fuel = quantum;
        loop {
            let function = &grid.program.functions[self.warp.path.function as usize];
            let active = self.warp.path.mask;
            let before = fuel;
            let mut flow = Flow::Next;
            while fuel > 0 {
                fuel -= 1;
                let op = &function.ops[self.warp.path.pc as usize];
                let mut mask = self.warp.path.mask;
                if op.guard != NONE {
                    let negate = if op.guard & NEGATED != 0 { u32::MAX } else { 0 };
                    mask &= self.predicate(op.guard & !NEGATED) ^ negate;
                    if mask == 0 {
                        self.warp.path.pc += 1;
                        continue;
                    }
                }
                flow = if WATCHED { self.watched(op, mask) } else { (op.run)(self, op, mask) };
                if flow != Flow::Next {
                    break;
                }
                self.warp.path.pc += 1;
            }
            let executed = u64::from(before - fuel);
            self.warp.stats.warp_instructions += executed;
            self.warp.stats.lane_instructions += executed * u64::from(active.count_ones());
            match flow {
                Flow::Jump if fuel > 0 => {}
                Flow::Stop => {
                    return match (&self.warp.fault, self.warp.done()) {
                        (Some(_), _) => Pause::Faulted,
                        (None, true) => Pause::Done,
                        (None, false) => Pause::Blocked,
                    };
                }
                Flow::Next | Flow::Jump => {
                    // Another path may hold what this one spins for.
                    self.warp.save();
                    self.warp.switch();
                    return Pause::Preempted;
                }
            }
        }
    }

    /// Readies paths whose barrier has opened, and makes sure a ready one is current.
    fn wake(&mut self) -> bool {
        let warp = &mut *self.warp;
        for path in &mut warp.paths {
            if let State::Barrier { id, generation } = path.state
                && self.block.barriers[id as usize].generation != generation
            {
                path.state = State::Ready;
            }
        }
        if warp.paths.get(warp.current as usize).is_some_and(|p| p.state == State::Ready) {
            let current = warp.current;
            warp.enter(current);
            return true;
        }
        warp.switch() == Flow::Jump
    }

    /// Releases a path that waits at a `.sync` instruction for lanes that will not come. True if there was one.
    pub fn force(&mut self) -> bool {
        let held = self.warp.paths.iter_mut().find(|p| matches!(p.state, State::Gather { .. }));
        held.map(|path| {
            path.state = State::Ready;
            path.resumed = true;
        })
        .is_some()
    }
}
