//! What an instruction does to the order of threads, found out by what it has changed.

use super::super::access::{CLUSTER, Touch};
use super::super::block::{BARRIERS, CLUSTER_BARRIER};
use super::super::lanes::LANES;
use super::super::op::{Argument, Flow, Kind, Machine, NONE, Op, Slot};
use super::super::path::State;
use super::locate::{self, Place};
use super::{Site, Watch, lanes};

impl Watch {
    /// Executes the instruction and follows what it has ordered.
    pub(super) fn order(&mut self, m: &mut Machine<'_>, op: &Op, mask: u32, site: &Site<'_>) -> Flow {
        match op.access.touch {
            Touch::Collective | Touch::WarpBarrier => {
                let slot = if op.access.touch == Touch::WarpBarrier { op.a } else { op.d };
                let members = if slot == NONE { [mask; LANES] } else { *m.words(slot) };
                let flow = (op.run)(m, op, mask);
                // Otherwise lanes are held, and the one that comes last executes for all.
                if flow == Flow::Next {
                    self.meet_groups(m, mask, members);
                }
                flow
            }
            Touch::Barrier | Touch::BarrierArrive => {
                let id = if op.access.flags & CLUSTER != 0 {
                    CLUSTER_BARRIER
                } else {
                    m.words(op.a)[mask.trailing_zeros() as usize] as usize % BARRIERS
                };
                let state = |m: &Machine<'_>| {
                    let barrier = &m.block.barriers[id];
                    (barrier.generation, barrier.arrived.get(site.warp as usize).copied().unwrap_or(0))
                };
                let before = state(m);
                let flow = (op.run)(m, op, mask);
                // Not where lanes only part before it, or pass it after they were woken.
                if state(m) != before {
                    if let Some(races) = &mut self.races {
                        races.clocks.arrive(id, site.warp, mask, op.access.touch == Touch::Barrier);
                    }
                    self.open_barriers(m);
                }
                flow
            }
            Touch::MbarrierWait => {
                let hosts = m.resolve(op, mask, 8);
                let predicate = m.warp.registers.base.predicates + op.dst;
                let flow = (op.run)(m, op, mask);
                if let Ok(hosts) = hosts {
                    let over = m.warp.registers.predicates[predicate as usize] & mask;
                    lanes(over).for_each(|lane| self.acquire(m, lane, hosts[lane]));
                }
                flow
            }
            Touch::Rows | Touch::Matrix => {
                let flow = (op.run)(m, op, mask);
                self.collective(m, mask);
                flow
            }
            Touch::Call => self.call(m, op, mask, site),
            _ => {
                let flow = (op.run)(m, op, mask);
                if op.kind == Kind::End {
                    self.open_barriers(m);
                }
                flow
            }
        }
    }

    /// The lanes of each group meet: `members` is what each lane names.
    fn meet_groups(&mut self, m: &Machine<'_>, mask: u32, members: [u32; LANES]) {
        let Some(races) = &mut self.races else { return };
        let mut left = mask;
        while left != 0 {
            let named = members[left.trailing_zeros() as usize];
            let group = lanes(left).filter(|&lane| members[lane] == named).fold(0, |g, lane| g | 1 << lane);
            left &= !group;
            races.clocks.meet(m.warp.index, group | named & m.warp.live);
        }
    }

    /// All lanes of a warp-wide instruction meet.
    pub(super) fn collective(&mut self, m: &Machine<'_>, mask: u32) {
        if let Some(races) = &mut self.races {
            races.clocks.meet(m.warp.index, mask);
        }
    }

    pub(super) fn release(&mut self, m: &Machine<'_>, lane: usize, host: u64) {
        if let Some(races) = &mut self.races {
            races.clocks.release(m.warp.index as usize * LANES + lane, word(m, host));
        }
    }

    pub(super) fn acquire(&mut self, m: &Machine<'_>, lane: usize, host: u64) {
        if let Some(races) = &mut self.races {
            races.clocks.acquire(m.warp.index as usize * LANES + lane, word(m, host));
        }
    }

    /// Follows the barriers that the last instruction has opened.
    fn open_barriers(&mut self, m: &Machine<'_>) {
        for (id, barrier) in m.block.barriers.iter().enumerate() {
            if std::mem::replace(&mut self.generations[id], barrier.generation) != barrier.generation
                && let Some(races) = &mut self.races
            {
                races.clocks.open(id, &m.block.live);
            }
        }
    }

    /// A call enters frames; their parameters, and the results in the caller's, count as written.
    fn call(&mut self, m: &mut Machine<'_>, op: &Op, mask: u32, site: &Site<'_>) -> Flow {
        let (caller, index) = (m.warp.path, m.warp.current);
        let flow = (op.run)(m, op, mask);
        let Some(fresh) = &mut self.fresh else { return flow };
        let functions = &m.grid.program.functions;
        let mut returned: &[Slot] = &[Slot { offset: 0, bytes: 8 }];
        let children = m.warp.paths.iter().filter(|path| path.state != State::Free && path.parent == index);
        for path in children.filter(|path| path.depth == caller.depth + 1) {
            let callee = &functions[path.function as usize];
            returned = &callee.returns;
            fresh.enter_frame(site.warp, path.mask, u64::from(path.local), callee.local_bytes);
            for slot in callee.params.iter().chain(&callee.returns) {
                fresh.write_local(site.warp, path.mask, u64::from(path.local + slot.offset), slot.bytes);
            }
        }
        let call = &functions[caller.function as usize].calls[op.b as usize];
        for (result, slot) in call.results.iter().zip(returned) {
            if let Argument::Memory(offset) = *result {
                fresh.write_local(site.warp, mask, u64::from(caller.local + offset), slot.bytes);
            }
        }
        flow
    }
}

/// What identifies a synchronising word: its offset in shared memory, or its address.
fn word(m: &Machine<'_>, host: u64) -> u64 {
    match locate::place(m, host) {
        Place::Shared(offset) => offset,
        _ => host,
    }
}
