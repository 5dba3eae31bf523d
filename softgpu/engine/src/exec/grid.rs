//! A launch: its blocks spread over the cores.
//!
//! The calling thread works on blocks itself and starts helpers only when the grid has turned out to be long enough to
//! repay a thread's start. Blocks start in order of their index. A worker that finds its block unfinished after
//! [`PATIENCE`] takes further ones beside it, so that blocks may wait for each other (software grid barriers); blocks
//! of a cooperative grid are all resident from the start.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};
use std::thread::Builder;
use std::time::{Duration, Instant};

use super::block::{Resident, Turn};
use super::op::GridRun;
use super::{Fault, Place, RunStats, grace};

/// How long a grid runs on the calling thread alone.
const ALONE: Duration = Duration::from_micros(150);
/// How long a worker stays with its resident blocks before it takes one more.
const PATIENCE: Duration = Duration::from_millis(20);

/// Most blocks that a multiprocessor holds.
const BLOCKS_PER_SM: usize = 32;
/// Instructions a warp may execute before the next one gets its turn: alone on the worker, and among several blocks,
/// which may be spinning for each other.
const QUANTUM: [u32; 2] = [20_000, 2_000];

/// What the workers of one launch share.
struct Work<'a> {
    grid: &'a GridRun<'a>,
    cooperative: bool,
    workers: u64,
    blocks: u64,
    next: AtomicU64,
    stop: AtomicBool,
    outcome: Mutex<(RunStats, Option<Box<Fault>>)>,
}

/// Runs all blocks.
pub fn run(grid: &GridRun<'_>, cooperative: bool) -> Result<RunStats, Fault> {
    let blocks = grid.grid.iter().map(|&n| u64::from(n)).product::<u64>();
    // Asked once: the answer takes reading several files of the control group.
    static CORES: OnceLock<u64> = OnceLock::new();
    let cores = *CORES.get_or_init(|| std::thread::available_parallelism().map_or(1, |n| n.get() as u64));
    let work = Work {
        grid,
        cooperative,
        workers: cores.min(blocks),
        blocks,
        next: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        outcome: Mutex::default(),
    };
    std::thread::scope(|scope| {
        let started = Instant::now();
        let mut alone = work.workers > 1;
        work.guarded(&mut || {
            let helpers_pay =
                alone && started.elapsed() > ALONE && work.next.load(Ordering::Relaxed) < work.blocks;
            if helpers_pay || (alone && cooperative) {
                alone = false;
                for _ in 1..work.workers {
                    // Without the thread the others take its blocks.
                    let _ = Builder::new().spawn_scoped(scope, || work.guarded(&mut || {}));
                }
            }
        });
    });
    let (stats, fault) = work.outcome.into_inner().unwrap_or_else(|e| e.into_inner());
    match fault {
        Some(fault) => Err(*fault),
        None => Ok(stats),
    }
}

impl Work<'_> {
    /// [`Work::run`], with a panic of the interpreter turned into a fault of this grid: the process is the user's.
    fn guarded(&self, between: &mut dyn FnMut()) {
        if catch_unwind(AssertUnwindSafe(|| self.run(between))).is_err() {
            let what = "internal error of the software GPU".to_owned();
            self.fail(Box::new(Fault::IllegalInstruction { what, place: Place::default() }));
        }
    }

    fn run(&self, between: &mut dyn FnMut()) {
        let mut residents = Vec::new();
        let mut idle: Vec<Resident> = Vec::new();
        let mut wanted = if self.cooperative { self.blocks.div_ceil(self.workers) as usize } else { 1 };
        let mut since = Instant::now();
        let mut stats = RunStats::default();
        'work: loop {
            while residents.len() < wanted {
                let Some(index) = self.take() else { break };
                let mut resident = idle.pop().unwrap_or_default();
                resident.start(self.grid, index);
                residents.push(resident);
            }
            if residents.is_empty() {
                break;
            }
            let quantum = QUANTUM[usize::from(residents.len() > 1)];
            let mut i = 0;
            while i < residents.len() {
                between();
                if self.stop.load(Ordering::Relaxed) {
                    break 'work;
                }
                if self.grid.environment.cancel.load(Ordering::Relaxed) {
                    self.fail(Box::new(Fault::Cancelled));
                    break 'work;
                }
                match grace::during(|| residents[i].turn(self.grid, quantum)) {
                    Turn::Running => i += 1,
                    Turn::Done => {
                        let mut done = residents.swap_remove(i);
                        add(&mut stats, done.take_stats());
                        idle.push(done);
                        since = Instant::now();
                    }
                    Turn::Faulted(fault) => {
                        self.fail(fault);
                        break 'work;
                    }
                }
            }
            // Twice as many each time, and twice as late: blocks that are merely long gain nothing from company.
            let most = self.grid.environment.sm_count.max(1) as usize * BLOCKS_PER_SM;
            if residents.len() >= wanted && wanted < most && since.elapsed() > PATIENCE * wanted as u32 {
                wanted *= 2;
                since = Instant::now();
            }
        }
        for resident in &mut residents {
            add(&mut stats, resident.take_stats());
        }
        let mut outcome = self.outcome.lock().unwrap_or_else(|e| e.into_inner());
        add(&mut outcome.0, stats);
    }

    fn take(&self) -> Option<[u32; 3]> {
        let block = self.next.fetch_add(1, Ordering::Relaxed);
        if block >= self.blocks {
            return None;
        }
        let [x, y, _] = self.grid.grid.map(u64::from);
        Some([(block % x) as u32, (block / x % y) as u32, (block / x / y) as u32])
    }

    fn fail(&self, fault: Box<Fault>) {
        let mut outcome = self.outcome.lock().unwrap_or_else(|e| e.into_inner());
        outcome.1.get_or_insert(fault);
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn add(sum: &mut RunStats, part: RunStats) {
    sum.warp_instructions += part.warp_instructions;
    sum.lane_instructions += part.lane_instructions;
    sum.global_bytes += part.global_bytes;
}
