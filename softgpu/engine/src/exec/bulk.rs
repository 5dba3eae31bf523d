//! `cp.async.bulk` between global memory and the block's shared memory. Copies are done when they are issued, so their
//! groups and waits are empty. Tensor copies, reductions and multicasts are not carried.

use lightos_kernels::ptx::ast::{Instruction, Operand, Space, Type};

use super::Fault;
use super::access::{Access, Touch};
use super::decode::{Decoded, Decoder, invalid, operands, unsupported};
use super::lanes::LANES;
use super::mbarrier;
use super::moves::{lists, take_space};
use super::op::{Flow, Machine, Op};
use super::transfer::Element;
use super::words::Words;

/// Bulk copies move multiples of this between addresses that are multiples of it. Bytes.
const UNIT: u32 = 16;

pub fn decode<'a>(d: &mut Decoder<'a, '_>, i: &'a Instruction, w: &Words<'a>) -> Decoded {
    if w.one_of(&["commit_group", "wait_group"]).is_some() {
        w.has("read");
        return Ok(());
    }
    if w.has("tensor") {
        return unsupported("");
    }
    if let Some(word) = w.one_of(&["multicast::cluster", "cp_mask", "ignore_oob"]) {
        return unsupported(format!("modifier '.{word}'"));
    }
    let prefetches = w.has("prefetch");
    let (to, from) = (take_space(w), take_space(w));
    let hinted = w.has("L2::cache_hint");
    if prefetches {
        w.has("L2");
        operands(i, if hinted { 3 } else { 2 })?;
        d.address(&i.operands[0], to)?;
        return d.source(&i.operands[1], Type::U32).map(|_| ());
    }
    let signals = w.has("mbarrier::complete_tx::bytes");
    let known = match (to, from) {
        (Space::Shared, Space::Global | Space::Shared) => signals,
        (Space::Global, Space::Shared) => w.has("bulk_group"),
        _ => false,
    };
    if !known {
        return unsupported("");
    }
    operands(i, 3 + usize::from(signals) + usize::from(hinted))?;
    let target = d.address(&i.operands[0], to)?;
    let source = d.address(&i.operands[1], from)?;
    let bytes = d.source(&i.operands[2], Type::U32)?;
    let b = d.list([target.base, target.flags, target.offset as u32, (target.offset >> 32) as u32, bytes]);
    let access = Access::of(Touch::CopyBulk);
    d.emit(Op { a: source.base, extra: source.offset, flags: source.flags, b, access, ..Op::new(copy) });
    if signals {
        let Operand::Address { .. } = &i.operands[3] else {
            return invalid("expected the address of an mbarrier");
        };
        let signal = d.address(&i.operands[3], Space::Shared)?;
        d.emit(mbarrier::complete(signal, bytes));
    }
    Ok(())
}

/// What a bulk copy names.
pub struct Ends {
    source: Op,
    target: Op,
    /// Bytes to copy.
    pub lengths: [u32; LANES],
}

impl Ends {
    /// The access to the source, `at` bytes in.
    pub fn source_at(&self, at: u64) -> Op {
        Op { extra: self.source.extra.wrapping_add(at), ..self.source }
    }

    pub fn target_at(&self, at: u64) -> Op {
        Op { extra: self.target.extra.wrapping_add(at), ..self.target }
    }
}

pub fn ends(m: &Machine<'_>, op: &Op) -> Option<Ends> {
    let [base, flags, low, high, bytes] = *lists(m, op.b, 5) else { return None };
    let target = Op { a: base, flags, extra: u64::from(low) | u64::from(high) << 32, ..*op };
    Some(Ends { source: *op, target, lengths: *m.words(bytes) })
}

fn copy(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
    let Some(ends) = ends(m, op) else { return Flow::Next };
    let lengths = ends.lengths;
    for lane in (0..LANES).filter(|lane| mask >> lane & 1 != 0) {
        if !lengths[lane].is_multiple_of(UNIT) {
            let what = format!("a bulk copy of {} bytes", lengths[lane]);
            let place = m.place(op, lane as u32);
            return m.fail(Fault::IllegalInstruction { what, place });
        }
        for at in (0..u64::from(lengths[lane])).step_by(UNIT as usize) {
            let hosts = m.resolve(&ends.source_at(at), 1 << lane, UNIT).and_then(|from| {
                m.resolve(&ends.target_at(at), 1 << lane, UNIT).map(|to| (from[lane], to[lane]))
            });
            let (from, to) = match hosts {
                Ok(hosts) => hosts,
                Err(flow) => return flow,
            };
            for half in [0, 8] {
                // SAFETY: `resolve` has checked 16 aligned bytes at both ends.
                unsafe { u64::write(to + half, u64::read(from + half)) };
            }
        }
    }
    Flow::Next
}
