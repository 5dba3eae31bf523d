//! Instructions for clusters. A cluster is one block here (kernels that ask for more are refused): the only shared window
//! is the block's own, its rank is 0, and a cluster's barrier is one of the block.

use lightos_kernels::ptx::ast::{Instruction, Type};

use super::Fault;
use super::access::{Access, CLUSTER, READS, STRONG, Touch, WRITES};
use super::atomics;
use super::block::CLUSTER_BARRIER;
use super::decode::{Decoded, Decoder, invalid, operands, unsupported};
use super::lanes::LANES;
use super::mbarrier;
use super::moves::{take_ordering, take_space, transfer};
use super::op::{Flow, Handler, Machine, Op};
use super::path::State;
use super::words::{Words, type_bytes};

const SIGNAL: &str = "mbarrier::complete_tx::bytes";

/// `mapa d, a, rank` and `getctarank d, a`.
pub fn address<'a>(d: &mut Decoder<'a, '_>, i: &'a Instruction, w: &Words<'a>) -> Decoded {
    w.has("shared::cluster");
    let Some(ty @ (Type::U32 | Type::U64)) = w.ty() else { return invalid("an address is .u32 or .u64") };
    if i.opcode == "getctarank" {
        operands(i, 2)?;
        d.source(&i.operands[1], ty)?;
        let a = d.constants().word(0);
        return d.emit_to(Op { a, ..Op::new(super::moves::copy(Type::U32)?) }, &i.operands[0], Type::U32);
    }
    operands(i, 3)?;
    let b = d.source(&i.operands[2], Type::U32)?;
    d.emit(Op { b, ..Op::new(own_rank) });
    let a = d.source(&i.operands[1], ty)?;
    d.emit_to(Op { a, ..Op::new(super::moves::copy(ty)?) }, &i.operands[0], ty)
}

/// Faults where a lane asks for another block than its own.
fn own_rank(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
    let ranks = m.words(op.b);
    match (0..LANES).find(|&lane| mask >> lane & 1 != 0 && ranks[lane] != 0) {
        None => Flow::Next,
        Some(lane) => {
            let what = format!("block {} of a cluster of one", ranks[lane]);
            let place = m.place(op, lane as u32);
            m.fail(Fault::IllegalInstruction { what, place })
        }
    }
}

/// `barrier.cluster.arrive` and `.wait`.
pub fn barrier<'a>(d: &mut Decoder<'a, '_>, i: &'a Instruction, w: &Words<'a>) -> Decoded {
    operands(i, 0)?;
    let (run, access): (Handler, _) = match w.one_of(&["arrive", "wait"]) {
        Some("arrive") => (arrive, Access { touch: Touch::Barrier, bytes: 0, flags: CLUSTER }),
        Some(_) => (wait, Access::NONE),
        None => return invalid("a cluster's barrier arrives or waits"),
    };
    w.ignore(&["acquire", "release", "relaxed", "aligned"]);
    d.emit(Op { access, ..Op::new(run) });
    Ok(())
}

fn arrive(m: &mut Machine<'_>, _: &Op, mask: u32) -> Flow {
    m.block.arrive(CLUSTER_BARRIER, m.warp.index, mask, 0, 0);
    Flow::Next
}

/// A thread that has arrived in the running phase waits for its end; of one whose phase is over, nothing is awaited.
fn wait(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
    if let Some(flow) = super::control::part(m, op, mask) {
        return flow;
    }
    m.warp.path.pc += 1;
    let barrier = &m.block.barriers[CLUSTER_BARRIER];
    let arrived = barrier.arrived.get(m.warp.index as usize).is_some_and(|lanes| lanes & mask != 0);
    if !arrived {
        return Flow::Jump;
    }
    m.warp.path.state = State::Barrier { id: CLUSTER_BARRIER as u32, generation: barrier.generation };
    m.warp.save();
    m.warp.switch()
}

/// `st.async [a], b, [mbar]`: a store that counts its bytes on an mbarrier.
pub fn store_async<'a>(d: &mut Decoder<'a, '_>, i: &'a Instruction, w: &Words<'a>) -> Decoded {
    if !w.has(SIGNAL) {
        return unsupported("without an mbarrier");
    }
    operands(i, 3)?;
    let bytes = transfer(d, i, w, true)?;
    signal(d, i, bytes)
}

/// `red.async [a], b, [mbar]`: a reduction that does.
pub fn reduce_async<'a>(d: &mut Decoder<'a, '_>, i: &'a Instruction, w: &Words<'a>) -> Decoded {
    if !w.has(SIGNAL) {
        return unsupported("without an mbarrier");
    }
    take_ordering(w);
    let space = take_space(w);
    let Some(name) = w.one_of(&["inc", "dec", "min", "max", "add", "and", "or", "xor"]) else {
        return invalid("an atomic operation is missing");
    };
    let Some(ty) = w.ty() else { return invalid("an atomic needs a type") };
    operands(i, 3)?;
    let run = atomics::handler(name, ty, space)?;
    let address = d.address(&i.operands[0], space)?;
    let b = d.source(&i.operands[1], ty)?;
    let access = Access::elements(type_bytes(ty), READS | WRITES | STRONG);
    d.emit(Op {
        a: address.base,
        extra: address.offset,
        flags: address.flags,
        b,
        c: b,
        access,
        ..Op::new(run)
    });
    signal(d, i, type_bytes(ty))
}

fn signal<'a>(d: &mut Decoder<'a, '_>, i: &'a Instruction, bytes: u32) -> Decoded {
    let words: Vec<String> = Vec::new();
    let space = i.modifiers.iter().find(|word| word.starts_with("shared"));
    let words = space.map_or(words, |word| vec![word.clone()]);
    let address = d.address(&i.operands[2], take_space(&Words::new(&words)))?;
    let b = d.constants().word(bytes);
    d.emit(mbarrier::complete(address, b));
    Ok(())
}
