//! `mbarrier` objects in shared memory. The copies that complete on them are in `bulk` and `cluster`.
//!
//! The 64-bit object is opaque to programs. Here: pending arrivals in bits 0 to 19, expected arrivals in bits 20 to 39,
//! outstanding transaction bytes in bits 40 to 62 (two's complement), the phase in bit 63. A block belongs to one thread,
//! so the object needs no host atomics. Copies are done when they are issued; their bytes are subtracted at once.

use lightos_kernels::ptx::ast::{Instruction, Operand, Type};

use super::access::{Access, READS, STRONG, Touch, WRITES};
use super::decode::{Decoded, Decoder, operands, unsupported};
use super::lanes::LANES;
use super::moves::{take_ordering, take_space};
use super::op::{Flow, Machine, NONE, Op};
use super::operand::Address;
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
const DROP_EXPECT: u32 = 7;
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
        "arrive_drop" if expects => DROP_EXPECT,
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
                DROP_EXPECT => {
                    object.bytes += i64::from(value);
                    object.pending = object.pending.saturating_sub(1);
                    object.expected = object.expected.saturating_sub(1);
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

/// What every operation but the first does to the object.
const CHANGES: Access = Access { touch: Touch::Mbarrier, bytes: 8, flags: READS | WRITES | STRONG };

/// Subtracts the bytes in word slot `bytes` from the object at `address`: the end of an asynchronous transfer.
pub fn complete(address: Address, bytes: u32) -> Op {
    let flags = address.flags | COMPLETE << KIND_SHIFT;
    Op { a: address.base, extra: address.offset, flags, b: bytes, access: CHANGES, ..Op::new(change) }
}

/// `cp.async.mbarrier.arrive`: arrives when the thread's copies are done, which they are. Without `.noinc` the arrival is
/// added to the pending count first.
pub fn arrive_copied<'a>(d: &mut Decoder<'a, '_>, i: &'a Instruction, w: &Words<'a>) -> Decoded {
    let counted = w.has("noinc");
    let space = take_space(w);
    if !w.has("arrive") || w.ty() != Some(Type::B64) {
        return unsupported("");
    }
    operands(i, 1)?;
    let address = d.address(&i.operands[0], space)?;
    let b = d.constants().word(u32::from(counted));
    let flags = address.flags | ARRIVE << KIND_SHIFT;
    d.emit(Op { a: address.base, extra: address.offset, flags, b, access: CHANGES, ..Op::new(change) });
    Ok(())
}
