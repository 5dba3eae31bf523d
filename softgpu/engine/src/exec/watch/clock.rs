//! Which accesses of a block's threads are ordered: vector clocks over the serial numbers of executed instructions.
//!
//! Each executed warp instruction has a number. A thread's clock says up to which number it knows the accesses of each
//! other thread to be over: of the lanes of its warp in a table of the warp, which `bar.warp.sync` and the collectives keep
//! up; of all threads in a vector that exists only where named barriers, `mbarrier`s or atomics have passed something on.
//! A barrier of the whole block orders everything before it by one number.
//!
//! Numbers only grow, so nothing has to be cleared between barriers or blocks: what a clock says stays true.

use std::rc::Rc;

use super::super::block::BARRIERS;
use super::super::lanes::LANES;
use super::cells::Entry;

/// Synchronising memory words share this many clocks; words that share one order more than they should, never less.
const OBJECTS: usize = 256;
/// Numbers that a block may start with.
const HALF: u32 = 1 << 31;

/// What has been released to a memory word or a barrier: for each thread the number up to which.
#[derive(Clone, Debug, Default)]
struct Released {
    known: Vec<u32>,
    latest: u32,
}

#[derive(Debug, Default)]
struct Arrivals {
    released: Released,
    /// Lanes of each warp that have arrived, and those of them that wait.
    arrived: Vec<u32>,
    waiting: Vec<u32>,
}

#[derive(Debug, Default)]
pub struct Clocks {
    now: u32,
    /// Everything with a smaller number is ordered before everything to come.
    start: u32,
    /// `[lane][other]`: what each lane knows of the lanes of its warp.
    warps: Vec<[[u32; LANES]; LANES]>,
    /// What each thread knows of all.
    far: Vec<Option<Rc<Vec<u32>>>>,
    any_far: bool,
    objects: Vec<Released>,
    barriers: [Arrivals; BARRIERS + 1],
}

fn raise(to: &mut [u32], from: &[u32]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = (*to).max(*from);
    }
}

impl Clocks {
    /// Begins a block. True if the numbers start again, so that older entries mean nothing.
    pub fn start(&mut self, warps: usize) -> bool {
        let again = self.now >= HALF;
        if again {
            *self = Clocks::default();
        }
        self.now += 1;
        self.start = self.now;
        self.warps.resize(warps, [[0; LANES]; LANES]);
        self.far.clear();
        self.far.resize(warps * LANES, None);
        self.any_far = false;
        self.barriers = Default::default();
        again
    }

    /// The next instruction. Numbers that have run out stand still, and [`Clocks::ordered`] answers yes to everything.
    pub fn tick(&mut self) {
        self.now = self.now.saturating_add(1);
    }

    pub fn now(&self) -> u32 {
        self.now
    }

    /// True where the access of `entry` is over for `thread`.
    pub fn ordered(&self, entry: Entry, thread: u16) -> bool {
        if entry.serial < self.start || entry.thread == thread || self.now == u32::MAX {
            return true;
        }
        let (own, other) = (usize::from(thread), usize::from(entry.thread));
        let near = own / LANES == other / LANES
            && self.warps[own / LANES][own % LANES][other % LANES] >= entry.serial;
        near || self.far[own].as_ref().is_some_and(|far| far[other] >= entry.serial)
    }

    /// Orders all before of the lanes in `members` before all after of them.
    pub fn meet(&mut self, warp: u32, members: u32) {
        let warp = warp as usize;
        let lanes = || super::lanes(members);
        let mut joined = [0; LANES];
        for lane in lanes() {
            raise(&mut joined, &self.warps[warp][lane]);
        }
        for lane in lanes() {
            joined[lane] = self.now;
        }
        for lane in lanes() {
            self.warps[warp][lane] = joined;
        }
        if self.any_far {
            let mut far: Option<Vec<u32>> = None;
            for known in lanes().filter_map(|lane| self.far[warp * LANES + lane].as_ref()) {
                match &mut far {
                    Some(far) => raise(far, known),
                    None => far = Some(known.to_vec()),
                }
            }
            if let Some(far) = far.map(Rc::new) {
                lanes().for_each(|lane| self.far[warp * LANES + lane] = Some(far.clone()));
            }
        }
    }

    fn publish(&self, thread: usize, into: &mut Released) {
        into.known.resize(self.far.len(), 0);
        if let Some(far) = &self.far[thread] {
            raise(&mut into.known, far);
        }
        let warp = thread / LANES;
        raise(&mut into.known[warp * LANES..][..LANES], &self.warps[warp][thread % LANES]);
        into.known[thread] = self.now;
        into.latest = self.now;
    }

    fn learn(&mut self, thread: usize, from: &Rc<Vec<u32>>) {
        let warp = thread / LANES;
        raise(&mut self.warps[warp][thread % LANES], &from[warp * LANES..][..LANES]);
        match &mut self.far[thread] {
            Some(far) => raise(Rc::make_mut(far).as_mut_slice(), from),
            none => *none = Some(from.clone()),
        }
        self.any_far = true;
    }

    /// What `thread` has done is over for whoever acquires the word.
    pub fn release(&mut self, thread: usize, word: u64) {
        if self.objects.is_empty() {
            self.objects.resize(OBJECTS, Released::default());
        }
        let index = object(word);
        let mut released = std::mem::take(&mut self.objects[index]);
        self.publish(thread, &mut released);
        self.objects[index] = released;
    }

    pub fn acquire(&mut self, thread: usize, word: u64) {
        let Some(released) = self.objects.get(object(word)) else { return };
        if released.latest >= self.start {
            self.learn(thread, &Rc::new(released.known.clone()));
        }
    }

    /// Lanes of a warp arrive at a barrier of the block.
    pub fn arrive(&mut self, id: usize, warp: u32, mask: u32, waits: bool) {
        let mut arrivals = std::mem::take(&mut self.barriers[id]);
        for lane in super::lanes(mask) {
            self.publish(warp as usize * LANES + lane, &mut arrivals.released);
        }
        arrivals.arrived.resize(self.warps.len(), 0);
        arrivals.waiting.resize(self.warps.len(), 0);
        arrivals.arrived[warp as usize] |= mask;
        if waits {
            arrivals.waiting[warp as usize] |= mask;
        }
        self.barriers[id] = arrivals;
    }

    /// The barrier opens. Threads that have exited count as arrived.
    pub fn open(&mut self, id: usize, live: &[u32]) {
        let Arrivals { released, arrived, waiting } = std::mem::take(&mut self.barriers[id]);
        let all =
            !waiting.is_empty() && live.iter().zip(&waiting).all(|(live, waiting)| live & !waiting == 0);
        if all && arrived == waiting {
            self.start = self.now.saturating_add(1);
            if self.any_far {
                self.far.fill(None);
                self.any_far = false;
            }
            return;
        }
        let released = Rc::new(released.known);
        for (warp, waiting) in waiting.iter().enumerate() {
            super::lanes(*waiting).for_each(|lane| self.learn(warp * LANES + lane, &released));
        }
    }
}

fn object(word: u64) -> usize {
    (word >> 3).wrapping_mul(0x9e37_79b9_7f4a_7c15) as usize >> 56 & (OBJECTS - 1)
}
