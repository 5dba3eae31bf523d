//! `alloca`, `stacksave`, `stackrestore`: local memory that a function takes while it runs.
//!
//! It lies behind the function's own frame (`Path::taken`), at one place for all lanes: the lanes of a warp take as much
//! as the one of them that asks for most. It goes with the frame.

use lightos_kernels::ptx::ast::{Instruction, Type};

use super::Fault;
use super::decode::{Decoded, Decoder, invalid, operands};
use super::lanes::{LANES, lift1};
use super::memory::LOCAL_LIMIT_BYTES;
use super::op::{Flow, Machine, Op};
use super::words::Words;

const DEFAULT_ALIGN: u64 = 8;

pub fn decode<'a>(d: &mut Decoder<'a, '_>, i: &'a Instruction, w: &Words<'a>) -> Decoded {
    let Some(ty @ (Type::U32 | Type::U64)) = w.ty() else { return invalid("an address is .u32 or .u64") };
    match i.opcode.as_str() {
        "alloca" => {
            if i.operands.len() != 3 {
                operands(i, 2)?;
            }
            let align = match i.operands.get(2) {
                Some(align) => d.immediate(align)?,
                None => DEFAULT_ALIGN,
            };
            if !align.is_power_of_two() || align > 1 << 16 {
                return invalid("the alignment is no power of two");
            }
            let size = d.source(&i.operands[1], ty)?;
            let a = widened(d, size, ty);
            d.emit_to(Op { a, extra: align, flags: narrow(ty), ..Op::new(allocate) }, &i.operands[0], ty)
        }
        "stacksave" => {
            operands(i, 1)?;
            d.emit_to(Op { flags: narrow(ty), ..Op::new(save) }, &i.operands[0], ty)
        }
        _ => {
            operands(i, 1)?;
            let top = d.source(&i.operands[0], ty)?;
            let a = widened(d, top, ty);
            d.emit(Op { a, ..Op::new(restore) });
            Ok(())
        }
    }
}

fn narrow(ty: Type) -> u32 {
    u32::from(ty == Type::U32)
}

/// A source slot as one of the 64-bit file.
fn widened(d: &mut Decoder<'_, '_>, slot: u32, ty: Type) -> u32 {
    if ty == Type::U64 {
        return slot;
    }
    let dst = d.register(super::decode::Bank::Long).slot;
    d.emit(Op { dst, a: slot, ..Op::new(lift1(|a: u32| a as u64)) });
    dst
}

/// Where the running function's frame ends, as a local address.
fn frame_end(m: &Machine<'_>) -> u64 {
    let function = &m.grid.program.functions[m.warp.path.function as usize];
    u64::from(m.warp.path.local) + u64::from(function.local_bytes)
}

/// The largest of the active lanes' values.
fn most(m: &Machine<'_>, slot: u32, mask: u32) -> u64 {
    let values = m.longs(slot);
    (0..LANES).filter(|lane| mask >> lane & 1 != 0).map(|lane| values[lane]).max().unwrap_or(0)
}

fn give(m: &mut Machine<'_>, op: &Op, address: u64, mask: u32) -> Flow {
    if op.flags != 0 {
        m.set_words(op.dst, &[address as u32; LANES], mask);
    } else {
        m.set_longs(op.dst, &[address; LANES], mask);
    }
    Flow::Next
}

fn allocate(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
    let frame = frame_end(m);
    let start = (frame + u64::from(m.warp.path.taken)).next_multiple_of(op.extra);
    let end = start.saturating_add(most(m, op.a, mask));
    if end > u64::from(LOCAL_LIMIT_BYTES) {
        let place = m.place(op, mask.trailing_zeros());
        return m.fail(Fault::StackOverflow { place });
    }
    m.warp.local.reserve(end as u32);
    m.warp.path.taken = (end - frame) as u32;
    give(m, op, start, mask)
}

fn save(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
    let top = frame_end(m) + u64::from(m.warp.path.taken);
    give(m, op, top, mask)
}

fn restore(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
    let top = most(m, op.a, mask);
    match top.checked_sub(frame_end(m)) {
        Some(taken) if taken <= u64::from(m.warp.path.taken) => {
            m.warp.path.taken = taken as u32;
            Flow::Next
        }
        _ => {
            let what = format!("a stack restored to {top:#x}, which was not saved");
            let place = m.place(op, mask.trailing_zeros());
            m.fail(Fault::IllegalInstruction { what, place })
        }
    }
}
