//! Control flow within a function, barriers, fences, and the ends of threads.

use std::sync::atomic::{Ordering, fence};

use lightos_kernels::ptx::ast::{Instruction, Operand, Type};

use super::Fault;
use super::access::{Access, Touch};
use super::block::BARRIERS;
use super::decode::{Decoded, Decoder, Local, invalid, operands, unsupported};
use super::lanes::LANES;
use super::op::{Flow, Kind, Machine, NONE, Op};
use super::path::State;
use super::words::Words;
use super::{cluster, hints};

pub fn decode<'a>(d: &mut Decoder<'a, '_>, i: &'a Instruction, w: &Words<'a>) -> Decoded {
    w.ignore(&["uni"]);
    match i.opcode.as_str() {
        "bra" => {
            operands(i, 1)?;
            let Operand::Ident(name) = &i.operands[0] else { return invalid("expected a label") };
            let label = label(d, name)?;
            d.emit(Op { extra: u64::from(label), ..Op::of(Kind::Branch, branch) });
            Ok(())
        }
        "brx" if w.has("idx") => {
            operands(i, 2)?;
            let a = d.source(&i.operands[0], Type::U32)?;
            let Operand::Ident(name) = &i.operands[1] else { return invalid("expected a target list") };
            let Some(Local::Targets(targets)) = d.local(name) else {
                return invalid(format!("'{name}' is not a target list"));
            };
            let mut labels = Vec::with_capacity(targets.len());
            for target in targets {
                labels.push(label(d, target)?);
            }
            let b = d.list(labels);
            d.emit(Op { a, b, c: targets.len() as u32, ..Op::of(Kind::BranchIndexed, branch_indexed) });
            Ok(())
        }
        "exit" => {
            d.emit(Op::of(Kind::End, exit));
            Ok(())
        }
        "trap" => {
            d.emit(Op::of(Kind::End, trap));
            Ok(())
        }
        "bar" | "barrier" => barrier_instruction(d, i, w),
        "membar" | "fence" => {
            hints::fence_words(d, i, w)?;
            d.emit(Op::new(full_fence));
            Ok(())
        }
        "nanosleep" => {
            w.has("u32");
            operands(i, 1)?;
            d.source(&i.operands[0], Type::U32)?;
            d.emit(Op::new(nanosleep));
            Ok(())
        }
        _ => unsupported(""),
    }
}

fn label(d: &Decoder<'_, '_>, name: &str) -> Decoded<u32> {
    match d.local(name) {
        Some(Local::Label(id)) => Ok(id),
        _ => invalid(format!("'{name}' is not a label")),
    }
}

pub fn reconverge(m: &mut Machine<'_>, _: &Op, _: u32) -> Flow {
    match m.warp.path {
        path if path.rpc == path.pc => m.warp.finish(),
        path if path.parent != NONE => m.warp.rejoin(),
        _ => Flow::Next,
    }
}

/// To program counter `extra`; lanes that part meet again at `d`.
pub fn branch(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
    let warp = &mut *m.warp;
    let active = warp.path.mask;
    let next = warp.path.pc + 1;
    if mask == active || op.extra as u32 == next {
        warp.path.pc = op.extra as u32;
        return Flow::Jump;
    }
    warp.diverge(op.d, [(op.extra as u32, mask), (next, active & !mask)].into_iter())
}

/// `brx.idx`: lanes take the target that `a` indexes; an index beyond the list is a fault.
pub fn branch_indexed(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
    let index = *m.words(op.a);
    let targets = super::moves::lists(m, op.b, op.c);
    let beyond = |lane: &usize| mask >> lane & 1 != 0 && index[*lane] as usize >= targets.len();
    if let Some(lane) = (0..32).find(beyond) {
        let what = format!("branch to target {} of {}", index[lane], targets.len());
        let place = m.place(op, lane as u32);
        return m.fail(Fault::IllegalInstruction { what, place });
    }
    let next = m.warp.path.pc + 1;
    let mut arms: Vec<(u32, u32)> = vec![(next, m.warp.path.mask & !mask)];
    for lane in (0..32).filter(|lane| mask >> lane & 1 != 0) {
        let pc = targets[index[lane] as usize];
        match arms.iter_mut().find(|arm| arm.0 == pc) {
            Some(arm) => arm.1 |= 1 << lane,
            None => arms.push((pc, 1 << lane)),
        }
    }
    arms.retain(|arm| arm.1 != 0);
    if let [(pc, _)] = arms[..] {
        m.warp.path.pc = pc;
        return Flow::Jump;
    }
    m.warp.diverge(op.d, arms.into_iter())
}

pub fn exit(m: &mut Machine<'_>, _: &Op, mask: u32) -> Flow {
    let flow = m.warp.exit(mask);
    m.block.exited(m.warp.index, m.warp.live);
    flow
}

pub fn trap(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
    let place = m.place(op, mask.trailing_zeros());
    m.fail(Fault::Trap { place })
}

fn full_fence(_: &mut Machine<'_>, _: &Op, _: u32) -> Flow {
    fence(Ordering::SeqCst);
    Flow::Next
}

/// A sleeping thread lets others run; how long is up to the machine.
fn nanosleep(m: &mut Machine<'_>, _: &Op, _: u32) -> Flow {
    m.warp.path.pc += 1;
    m.warp.save();
    std::thread::yield_now();
    m.warp.switch();
    Flow::Stop
}

fn barrier_instruction<'a>(d: &mut Decoder<'a, '_>, i: &'a Instruction, w: &Words<'a>) -> Decoded {
    if w.has("warp") {
        w.has("sync");
        operands(i, 1)?;
        let a = d.source(&i.operands[0], Type::B32)?;
        d.emit(Op { a, access: Access::of(Touch::WarpBarrier), ..Op::new(warp_sync) });
        return Ok(());
    }
    if w.has("cluster") {
        return cluster::barrier(d, i, w);
    }
    w.ignore(&["cta", "aligned"]);
    let mut values = i.operands.as_slice();
    let mut op = match w.one_of(&["sync", "arrive", "red"]) {
        Some("sync") => Op { access: Access::of(Touch::Barrier), ..Op::new(barrier_sync) },
        Some("arrive") => Op { access: Access::of(Touch::BarrierArrive), ..Op::new(barrier_arrive) },
        Some(_) => Op { access: Access::of(Touch::Barrier), ..Op::new(barrier_reduce) },
        None => return invalid("a barrier syncs, arrives or reduces"),
    };
    if let Some(how) = w.one_of(&["popc", "and", "or"]) {
        let ty = w.ty().unwrap_or(Type::Pred);
        let (Some((target, rest)), Some(source)) = (values.split_first(), values.last()) else {
            return operands(i, 3);
        };
        op.flags = ["popc", "and", "or"].iter().position(|&h| h == how).unwrap_or(0) as u32;
        op.dst = d.destination(target, ty)?;
        op.c = d.source(source, Type::Pred)?;
        values = &rest[..rest.len() - 1];
    }
    let [id, count @ ..] = values else { return operands(i, 1) };
    op.a = d.source(id, Type::U32)?;
    if let [count] = count {
        op.b = d.source(count, Type::U32)?;
    }
    d.emit(op);
    Ok(())
}

fn warp_sync(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
    let members = m.words(op.a);
    let named = (0..LANES).filter(|lane| mask >> lane & 1 != 0).fold(0, |all, lane| all | members[lane]);
    match m.gather(mask, named, true) {
        Ok(_) => Flow::Next,
        Err(flow) => flow,
    }
}

/// Barrier number and expected thread count of a barrier instruction.
fn barrier_figures(m: &Machine<'_>, op: &Op, mask: u32) -> (usize, u32) {
    let lane = mask.trailing_zeros() as usize;
    let expected = if op.b == NONE { 0 } else { m.words(op.b)[lane] };
    (m.words(op.a)[lane] as usize % BARRIERS, expected)
}

/// Arrives, and waits unless the barrier opens by that. The path resumes at its program counter.
fn arrive_and_wait(m: &mut Machine<'_>, id: usize, expected: u32, mask: u32, votes: u32) -> bool {
    let generation = m.block.barriers[id].generation;
    m.block.arrive(id, m.warp.index, mask, expected, votes);
    if m.block.barriers[id].generation != generation {
        return true;
    }
    m.warp.path.state = State::Barrier { id: id as u32, generation };
    m.warp.save();
    false
}

/// Lanes of the path that the guard leaves out do not wait: they go on as a path of their own.
pub fn part(m: &mut Machine<'_>, op: &Op, mask: u32) -> Option<Flow> {
    let active = m.warp.path.mask;
    if mask == active || op.guard == NONE {
        return None;
    }
    let pc = m.warp.path.pc;
    Some(m.warp.diverge(super::op::END, [(pc, mask), (pc + 1, active & !mask)].into_iter()))
}

fn barrier_sync(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
    if let Some(flow) = part(m, op, mask) {
        return flow;
    }
    let (id, expected) = barrier_figures(m, op, mask);
    m.warp.path.pc += 1;
    if arrive_and_wait(m, id, expected, mask, 0) {
        return Flow::Jump;
    }
    m.warp.switch()
}

fn barrier_arrive(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
    let (id, expected) = barrier_figures(m, op, mask);
    m.block.arrive(id, m.warp.index, mask, expected, 0);
    Flow::Next
}

fn barrier_reduce(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
    if let Some(flow) = part(m, op, mask) {
        return flow;
    }
    let (id, expected) = barrier_figures(m, op, mask);
    if !m.warp.path.resumed {
        let votes = (m.predicate(op.c) & mask).count_ones();
        m.warp.path.resumed = true;
        m.warp.path.held = m.block.barriers[id].generation;
        if !arrive_and_wait(m, id, expected, mask, votes) {
            return m.warp.switch();
        }
    }
    m.warp.path.resumed = false;
    let (votes, threads) = m.block.barriers[id].results[(m.warp.path.held & 1) as usize];
    match op.flags {
        0 => m.set_words(op.dst, &[votes; 32], mask),
        1 => m.set_predicate(op.dst, if votes == threads { u32::MAX } else { 0 }, mask),
        _ => m.set_predicate(op.dst, if votes > 0 { u32::MAX } else { 0 }, mask),
    }
    Flow::Next
}
