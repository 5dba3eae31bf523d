//! One block: its warps, shared memory, and barriers.
//!
//! A block belongs to one worker thread at a time. Its warps take turns: each runs until it waits, ends, or has used its
//! quantum.

use super::op::{GridRun, Machine};
use super::warp::{Pause, Warp};
use super::watch::Watch;
use super::{Fault, Place, RunStats};
use crate::check::Checker;

/// Turns after which a block that still runs stops holding lanes back to meet others.
const PATIENCE_TURNS: u32 = 256;

pub const BARRIERS: usize = 16;
/// The barrier of the cluster, which is the block; programs have no number for it.
pub const CLUSTER_BARRIER: usize = BARRIERS;

/// A hardware barrier. Arrivals are counted per thread, so that lanes of one warp may arrive on different paths.
#[derive(Debug, Default)]
pub struct Barrier {
    /// Arrived lanes of each warp.
    pub arrived: Vec<u32>,
    /// Threads to wait for; 0 for all of the block.
    pub expected: u32,
    pub generation: u32,
    /// Lanes that arrived with a true predicate (`bar.red`), counted.
    pub votes: u32,
    /// (threads that voted true, threads that arrived) of the last two generations, by parity.
    pub results: [(u32, u32); 2],
}

#[derive(Debug, Default)]
pub struct Block {
    /// `%ctaid`.
    pub index: [u32; 3],
    /// Shared memory, in units that keep 16-byte alignment.
    pub shared: Vec<u128>,
    pub barriers: [Barrier; BARRIERS + 1],
    /// Live lanes of each warp.
    pub live: Vec<u32>,
    /// What the checks know, where the grid is checked.
    pub watch: Option<Box<Watch>>,
}

impl Block {
    pub fn shared_bytes(&self) -> u64 {
        self.shared.len() as u64 * 16
    }

    /// Counts the lanes in `mask` of `warp` as arrived, and opens the barrier if they were the last.
    pub fn arrive(&mut self, id: usize, warp: u32, mask: u32, expected: u32, votes: u32) {
        let barrier = &mut self.barriers[id];
        barrier.arrived.resize(self.live.len(), 0);
        barrier.arrived[warp as usize] |= mask;
        barrier.expected = expected;
        barrier.votes += votes;
        self.settle(id);
    }

    /// Opens barrier `id` if all it waits for have arrived.
    fn settle(&mut self, id: usize) {
        let barrier = &mut self.barriers[id];
        let threads: u32 = barrier.arrived.iter().map(|lanes| lanes.count_ones()).sum();
        if threads == 0 {
            return;
        }
        let total = self.live.len() as u32 * 32;
        let complete = if barrier.expected == 0 || barrier.expected >= total {
            self.live.iter().zip(&barrier.arrived).all(|(live, arrived)| live & !arrived == 0)
        } else {
            // Explicit counts are in whole warps: the lanes that a last, partial warp lacks count as arrived.
            let counted = |(live, arrived): (&u32, &u32)| match arrived {
                0 => 0,
                _ if live & !arrived == 0 => 32,
                _ => arrived.count_ones(),
            };
            self.live.iter().zip(&barrier.arrived).map(counted).sum::<u32>() >= barrier.expected
        };
        if complete {
            barrier.results[(barrier.generation & 1) as usize] = (barrier.votes, threads);
            barrier.generation = barrier.generation.wrapping_add(1);
            barrier.votes = 0;
            barrier.arrived.fill(0);
        }
    }

    /// Takes exited lanes out of the count, which may open barriers.
    pub fn exited(&mut self, warp: u32, live: u32) {
        self.live[warp as usize] = live;
        for id in 0..=BARRIERS {
            self.settle(id);
        }
    }
}

/// How a block's turn ended.
#[derive(Debug)]
pub enum Turn {
    Done,
    Running,
    Faulted(Box<Fault>),
}

/// A block in execution, with its warps. Reused for one block after the other of the same grid.
#[derive(Debug, Default)]
pub struct Resident {
    pub block: Block,
    warps: Vec<Warp>,
    running: Vec<bool>,
    /// `%ntid` that the warps are laid out for.
    shape: [u32; 3],
    /// Turns taken so far, wrapping.
    turns: u32,
}

impl Resident {
    pub fn start(&mut self, grid: &GridRun<'_>, index: [u32; 3]) {
        let function = &grid.program.functions[grid.function as usize];
        let threads = grid.block[0] * grid.block[1] * grid.block[2];
        let warps = threads.div_ceil(32) as usize;
        self.turns = 0;
        self.block.index = index;
        self.block.shared.clear();
        self.block.shared.resize((grid.shared_bytes as usize).div_ceil(16), 0);
        self.block.barriers = Default::default();
        self.running.clear();
        self.running.resize(warps, true);
        if self.shape != grid.block {
            self.shape = grid.block;
            self.warps.resize_with(warps, Warp::new);
            for (i, warp) in self.warps.iter_mut().enumerate() {
                warp.registers.reserve(Default::default(), function.frame);
                warp.local.reserve(function.local_bytes);
                warp.shape(i as u32, grid.block);
            }
        }
        if let Some(checker) = grid.environment.check {
            self.watch(grid, checker);
        }
        self.block.live.clear();
        for warp in &mut self.warps {
            warp.reset(grid.function);
            self.block.live.push(warp.live);
        }
    }

    #[cold]
    fn watch(&mut self, grid: &GridRun<'_>, checker: &Checker) {
        if checker.watches() {
            self.block.watch.get_or_insert_default().start(grid, checker);
        }
    }

    /// Lets each warp execute up to `quantum` instructions.
    pub fn turn(&mut self, grid: &GridRun<'_>, quantum: u32) -> Turn {
        self.turns = self.turns.wrapping_add(1);
        if self.turns.is_multiple_of(PATIENCE_TURNS) {
            for warp in &mut self.warps {
                warp.release();
            }
        }
        let mut progress = false;
        let mut left = false;
        for (warp, running) in self.warps.iter_mut().zip(&mut self.running) {
            if !*running {
                continue;
            }
            let before = warp.stats.warp_instructions;
            let mut machine = Machine { warp, block: &mut self.block, grid };
            match machine.run(quantum) {
                Pause::Done => {
                    *running = false;
                    progress = true;
                }
                Pause::Blocked => {
                    left = true;
                    progress |= warp.stats.warp_instructions != before;
                }
                Pause::Preempted => {
                    left = true;
                    progress = true;
                }
                Pause::Faulted => {
                    let fault = warp.fault.take();
                    return Turn::Faulted(fault.unwrap_or_else(|| Box::new(Fault::Cancelled)));
                }
            }
        }
        if !left {
            return Turn::Done;
        }
        if progress || self.force(grid) {
            return Turn::Running;
        }
        Turn::Faulted(Box::new(self.deadlock(grid)))
    }

    /// Lets lanes go on that wait for others of their warp.
    fn force(&mut self, grid: &GridRun<'_>) -> bool {
        if self.warps.iter_mut().fold(false, |released, warp| warp.release() | released) {
            return true;
        }
        let block = &mut self.block;
        self.warps.iter_mut().any(|warp| Machine { warp, block, grid }.force())
    }

    fn deadlock(&self, grid: &GridRun<'_>) -> Fault {
        use super::path::State;
        let stuck = self.warps.iter().zip(&self.running).filter(|(_, running)| **running);
        let mut place = Place { block: self.block.index, ..Place::default() };
        for (warp, _) in stuck {
            let Some(path) = warp.paths.iter().find(|p| !matches!(p.state, State::Free | State::Waiting))
            else {
                continue;
            };
            let function = &grid.program.functions[path.function as usize];
            let lane = path.mask.trailing_zeros().min(31) as usize;
            place.kernel = grid.program.functions[grid.function as usize].name.clone();
            place.line = function.ops[path.pc as usize].line;
            place.thread = warp.thread.map(|axis| axis[lane]);
            break;
        }
        Fault::Deadlock { block: self.block.index, place }
    }

    /// Takes what the warps have counted.
    pub fn take_stats(&mut self) -> RunStats {
        let mut sum = RunStats::default();
        for warp in &mut self.warps {
            let stats = std::mem::take(&mut warp.stats);
            sum.warp_instructions += stats.warp_instructions;
            sum.lane_instructions += stats.lane_instructions;
            sum.global_bytes += stats.global_bytes;
        }
        sum
    }
}
