//! `mbarrier` objects in shared memory, and the bulk copies that complete on them.
//!
//! The 64-bit object is opaque to programs. Here: pending arrivals in bits 0 to 19, expected arrivals in bits 20 to 39,
//! outstanding transaction bytes in bits 40 to 62 (two's complement), the phase in bit 63. A block belongs to one thread,
//! so the object needs no host atomics. Copies are done when they are issued; their bytes are subtracted at once.

use lightos_kernels::ptx::ast::{Instruction, Operand, Space, Type};

use super::access::{Access, READS, STRONG, Touch, WRITES};
use super::decode::{Decoded, Decoder, invalid, operands, unsupported};
use super::lanes::LANES;
use super::moves::{lists, take_ordering, take_space};
use super::op::{Flow, Machine, NONE, Op};
use super::transfer::Element;
use super::words::Words;

const COUNT_BITS: u32 = 20;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;
const BYTES_SHIFT: u32 = 40;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Object {
    pending: u64,
    expected: u64,
    bytes: i64,
    phase: bool,
}

impl Object {
    fn of(word: u64) -> Object {
        Object {
            pending: word & COUNT_MASK,
            expected: word >> COUNT_BITS & COUNT_MASK,
            bytes: (word as i64) << 1 >> (BYTES_SHIFT + 1),
            phase: word >> 63 != 0,
        }
    }

    fn word(self) -> u64 {
        let bytes = (self.bytes as u64) << (BYTES_SHIFT + 1) >> 1;
        self.pending & COUNT_MASK
            | (self.expected & COUNT_MASK) << COUNT_BITS
            | bytes
            | u64::from(self.phase) << 63
    }

    /// Starts the next phase if nothing is outstanding.
    fn settled(mut self) -> Object {
        if self.pending == 0 && self.bytes == 0 {
            self.phase = !self.phase;
            self.pending = self.expected;
        }
        self
    }
}

/// What an instruction does to the object, in `flags` above the address flags.
const INIT: u32 = 1;
const ARRIVE: u32 = 2;
const DROP: u32 = 3;
const EXPECT: u32 = 4;
const COMPLETE: u32 = 5;
const ARRIVE_EXPECT: u32 = 6;
const KIND_SHIFT: u32 = 16;

pub fn decode<'a>(d: &mut Decoder<'a, '_>, i: &'a Instruction, w: &Words<'a>) -> Decoded {
    let names = [
        "init",
        "inval",
        "arrive",
        "arrive_drop",
        "test_wait",
        "try_wait",
        "expect_tx",
        "complete_tx",
        "pending_count",
    ];
    let Some(name) = w.one_of(&names) else { return unsupported("") };
    let expects = name.starts_with("arrive") && w.has("expect_tx");
    let parity = w.has("parity");
    w.has("noComplete");
    take_ordering(w);
    let space = take_space(w);
    take_ordering(w);
    w.ty();
    let first = usize::from(!matches!(name, "init" | "inval" | "expect_tx" | "complete_tx"));
    if name == "pending_count" {
        operands(i, 2)?;
        let a = d.source(&i.operands[1], Type::B64)?;
        return d.emit_to(Op { a, ..Op::new(pending_count) }, &i.operands[0], Type::U32);
    }
    // `arrive` without a destination starts with its address.
    let first = if matches!(i.operands.first(), Some(Operand::Address { .. })) { 0 } else { first };
    let (Some(address), value) = (i.operands.get(first), i.operands.get(first + 1)) else {
        return operands(i, first + 1);
    };
    let address = d.address(address, space)?;
    let mut op = Op { a: address.base, extra: address.offset, flags: address.flags, ..Op::new(change) };
    let kind = match name {
        "init" => INIT,
        "inval" => return Ok(()),
        "arrive" if expects => ARRIVE_EXPECT,
        "arrive" => ARRIVE,
        "arrive_drop" if expects => return unsupported("arrive_drop that expects bytes"),
        "arrive_drop" => DROP,
        "expect_tx" => EXPECT,
        "complete_tx" => COMPLETE,
        _ => {
            let Some(value) = value else { return operands(i, first + 2) };
            op.b = d.source(value, if parity { Type::U32 } else { Type::B64 })?;
            op.c = u32::from(parity);
            op.d = u32::from(name == "try_wait");
            op.run = wait;
            op.access = Access { touch: Touch::MbarrierWait, bytes: 8, flags: READS | STRONG };
            return d.emit_to(op, &i.operands[0], Type::Pred);
        }
    };
    op.flags |= kind << KIND_SHIFT;
    let flags = if kind == INIT { WRITES } else { READS | WRITES | STRONG };
    op.access = Access { touch: Touch::Mbarrier, bytes: 8, flags };
    op.b = match value {
        Some(value) => d.source(value, Type::U32)?,
        None => d.constants().word(1),
    };
    if first == 1 {
        return d.emit_to(op, &i.operands[0], Type::B64);
    }
    d.emit(op);
    Ok(())
}

fn pending_count(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
    let counts = m.longs(op.a).map(|word| Object::of(word).pending as u32);
    m.set_words(op.dst, &counts, mask);
    Flow::Next
}

fn update(host: u64, change: impl FnOnce(Object) -> Object) -> u64 {
    // SAFETY: the caller has the address from `resolve` for 8 aligned bytes.
    let old = unsafe { u64::read(host) };
    // SAFETY: as above.
    unsafe { u64::write(host, change(Object::of(old)).settled().word()) };
    old
}

fn change(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
    let hosts = match m.resolve(op, mask, 8) {
        Ok(hosts) => hosts,
        Err(flow) => return flow,
    };
    let values = *m.words(op.b);
    let mut states = [0; LANES];
    for lane in (0..LANES).filter(|lane| mask >> lane & 1 != 0) {
        let value = values[lane];
        let count = u64::from(value);
        if op.flags >> KIND_SHIFT == INIT {
            let fresh = Object { pending: count, expected: count, bytes: 0, phase: false };
            // SAFETY: `resolve` has checked 8 aligned bytes for every active lane.
            unsafe { u64::write(hosts[lane], fresh.word()) };
            continue;
        }
        states[lane] = update(hosts[lane], |mut object| {
            match op.flags >> KIND_SHIFT {
                ARRIVE => object.pending = object.pending.saturating_sub(count),
                DROP => {
                    object.pending = object.pending.saturating_sub(count);
                    object.expected = object.expected.saturating_sub(count);
                }
                ARRIVE_EXPECT => {
                    object.bytes += i64::from(value);
                    object.pending = object.pending.saturating_sub(1);
                }
                EXPECT => object.bytes += i64::from(value),
                _ => object.bytes -= i64::from(value),
            }
            object
        });
    }
    if op.dst != NONE {
        m.set_longs(op.dst, &states, mask);
    }
    Flow::Next
}

/// True for lanes whose phase (that of a state in `b`, or a parity where `c` is set) is over. `try_wait` (`d`) gives the
/// core away when it is not.
fn wait(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
    let hosts = match m.resolve(op, mask, 8) {
        Ok(hosts) => hosts,
        Err(flow) => return flow,
    };
    let mut over = 0;
    for lane in (0..LANES).filter(|lane| mask >> lane & 1 != 0) {
        // SAFETY: `resolve` has checked 8 aligned bytes for every active lane.
        let now = Object::of(unsafe { u64::read(hosts[lane]) }).phase;
        let waited =
            if op.c != 0 { m.words(op.b)[lane] & 1 != 0 } else { Object::of(m.longs(op.b)[lane]).phase };
        over |= u32::from(now != waited) << lane;
    }
    m.set_predicate(op.dst, over, mask);
    if op.d != 0 && over & mask != mask {
        m.warp.path.pc += 1;
        m.warp.save();
        m.warp.switch();
        return Flow::Stop;
    }
    Flow::Next
}

/// `cp.async.bulk` between global and shared memory; tensor copies are not carried.
pub fn bulk_copy<'a>(d: &mut Decoder<'a, '_>, i: &'a Instruction, w: &Words<'a>) -> Decoded {
    if w.one_of(&["commit_group", "wait_group"]).is_some() {
        w.has("read");
        return Ok(());
    }
    let (to, from) = (take_space(w), take_space(w));
    let signals = w.has("mbarrier::complete_tx::bytes");
    w.ignore(&["bulk_group"]);
    while w.starting("L2::").is_some() {}
    let known = matches!((to, from), (Space::Shared, Space::Global) | (Space::Global, Space::Shared));
    if !known || w.has("tensor") {
        return unsupported("");
    }
    operands(i, if signals { 4 } else { 3 })?;
    let target = d.address(&i.operands[0], to)?;
    let source = d.address(&i.operands[1], from)?;
    let bytes = d.source(&i.operands[2], Type::U32)?;
    let mut list = vec![target.base, target.flags, target.offset as u32, (target.offset >> 32) as u32, bytes];
    if signals {
        let Operand::Address { .. } = &i.operands[3] else {
            return invalid("expected the address of an mbarrier");
        };
        let signal = d.address(&i.operands[3], Space::Shared)?;
        list.extend([signal.base, signal.flags, signal.offset as u32]);
    }
    let c = list.len() as u32;
    let b = d.list(list);
    d.emit(Op {
        a: source.base,
        extra: source.offset,
        flags: source.flags,
        b,
        c,
        access: Access::of(Touch::CopyBulk),
        ..Op::new(copy)
    });
    Ok(())
}

/// What a bulk copy names.
pub struct Ends {
    source: Op,
    target: Op,
    /// Bytes to copy.
    pub lengths: [u32; LANES],
    /// The access to the `mbarrier` that the copy completes on.
    pub signal: Option<Op>,
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
    let [base, flags, low, high, bytes, signal @ ..] = lists(m, op.b, op.c) else { return None };
    let target = Op { a: *base, flags: *flags, extra: u64::from(*low) | u64::from(*high) << 32, ..*op };
    let signal = match *signal {
        [base, flags, offset] => Some(Op { a: base, flags, extra: u64::from(offset), ..*op }),
        _ => None,
    };
    Some(Ends { source: *op, target, lengths: *m.words(*bytes), signal })
}

fn copy(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
    let Some(ends) = ends(m, op) else { return Flow::Next };
    for lane in (0..LANES).filter(|lane| mask >> lane & 1 != 0) {
        // Bulk copies move multiples of 16 bytes between addresses that are multiples of 16.
        for at in (0..u64::from(ends.lengths[lane])).step_by(16) {
            let hosts = m.resolve(&ends.source_at(at), 1 << lane, 16).and_then(|from| {
                m.resolve(&ends.target_at(at), 1 << lane, 16).map(|to| (from[lane], to[lane]))
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
    let Some(object) = ends.signal else { return Flow::Next };
    let hosts = match m.resolve(&object, mask, 8) {
        Ok(hosts) => hosts,
        Err(flow) => return flow,
    };
    for lane in (0..LANES).filter(|lane| mask >> lane & 1 != 0) {
        update(hosts[lane], |mut object| {
            object.bytes -= i64::from(ends.lengths[lane]);
            object
        });
    }
    Flow::Next
}
