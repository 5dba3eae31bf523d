//! 128-bit registers: `mov`, `ld`, `st` and `atom` of `.b128`.
//!
//! Such a register is two consecutive slots of the 64-bit file, so that loads and stores are those of a vector of two.

use lightos_kernels::ptx::ast::{Instruction, Operand, Space, Type};

use super::access::{Access, READS, STRONG, Touch, WRITES};
use super::decode::{Bank, Decoded, Decoder, invalid, operands, unsupported};
use super::lanes::{LANES, lift1};
use super::memory::COUNT_SHIFT;
use super::moves::lists;
use super::op::{Flow, Handler, Machine, NONE, Op};
use super::transfer::{load, store};

/// First slot of the 128-bit register that `operand` names; a sink gets a scratch register.
fn slot(d: &mut Decoder<'_, '_>, operand: &Operand) -> Decoded<u32> {
    d.destination(operand, Type::B128)
}

/// `mov.b128` between registers, from `{low, high}`, and into it.
pub fn mov<'a>(d: &mut Decoder<'a, '_>, i: &'a Instruction) -> Decoded {
    operands(i, 2)?;
    let halves = |parts: &[Operand]| match parts.len() {
        2 => Ok(()),
        _ => invalid("a 128-bit register has two halves"),
    };
    let (to, from) = match (&i.operands[0], &i.operands[1]) {
        (Operand::Vector(parts), source) => {
            halves(parts)?;
            let from = register(d, source)?;
            ([d.destination(&parts[0], Type::B64)?, d.destination(&parts[1], Type::B64)?], [from, from + 1])
        }
        (target, Operand::Vector(parts)) => {
            halves(parts)?;
            let from = [d.source(&parts[0], Type::B64)?, d.source(&parts[1], Type::B64)?];
            let to = slot(d, target)?;
            ([to, to + 1], from)
        }
        (target, source) => {
            let (to, from) = (slot(d, target)?, register(d, source)?);
            ([to, to + 1], [from, from + 1])
        }
    };
    for (dst, a) in to.into_iter().zip(from) {
        d.emit(Op { dst, a, ..Op::new(lift1(|a: u64| a)) });
    }
    Ok(())
}

/// First slot of a 128-bit source.
fn register(d: &Decoder<'_, '_>, operand: &Operand) -> Decoded<u32> {
    let Operand::Ident(name) = operand else { return invalid("expected a 128-bit register") };
    match d.named_register(name)? {
        register if register.bank == Bank::Quad => Ok(register.slot),
        _ => invalid(format!("'{name}' has the wrong size")),
    }
}

pub fn element(stores: bool) -> Handler {
    if stores { store::<u64>() } else { load::<u64>() }
}

/// Completes a load or store whose registers `operand` names, one or a vector.
pub fn transfer(d: &mut Decoder<'_, '_>, operand: &Operand, op: Op) -> Decoded {
    let parts = match operand {
        Operand::Vector(parts) => parts.as_slice(),
        single => std::slice::from_ref(single),
    };
    if parts.len() * 2 != (op.flags >> COUNT_SHIFT) as usize + 1 {
        return invalid("the vector has the wrong length");
    }
    let mut slots = Vec::with_capacity(parts.len() * 2);
    for part in parts {
        let low = slot(d, part)?;
        slots.extend([low, low + 1]);
    }
    let b = d.list(slots);
    d.emit(Op { b, ..op });
    Ok(())
}

/// `atom.cas.b128` and `atom.exch.b128`, where the host can change 16 bytes at once.
pub fn atomic<'a>(d: &mut Decoder<'a, '_>, i: &'a Instruction, name: &str, space: Space) -> Decoded {
    let sources = match name {
        "cas" => 2,
        "exch" => 1,
        _ => return unsupported("this operation on 128 bits"),
    };
    if i.opcode != "atom" {
        return invalid("red does not take .b128");
    }
    if !host::available() {
        return unsupported("128-bit atomics on this host");
    }
    operands(i, 2 + sources)?;
    let address = d.address(&i.operands[1], space)?;
    let first = register(d, &i.operands[2])?;
    let second = if sources == 2 { register(d, &i.operands[3])? } else { NONE };
    let target = slot(d, &i.operands[0])?;
    let b = d.list([first, second]);
    d.emit(Op {
        dst: target,
        a: address.base,
        extra: address.offset,
        flags: address.flags,
        b,
        access: Access { touch: Touch::Wide, bytes: 16, flags: READS | WRITES | STRONG },
        ..Op::new(exchange)
    });
    Ok(())
}

fn exchange(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
    let hosts = match m.resolve(op, mask, 16) {
        Ok(hosts) => hosts,
        Err(flow) => return flow,
    };
    let [first, second] = *lists(m, op.b, 2) else { return Flow::Next };
    let pair = |m: &Machine<'_>, slot: u32, lane: usize| {
        u128::from(m.longs(slot + 1)[lane]) << 64 | u128::from(m.longs(slot)[lane])
    };
    let (mut low, mut high) = ([0u64; LANES], [0u64; LANES]);
    for lane in (0..LANES).filter(|lane| mask >> lane & 1 != 0) {
        let one = pair(m, first, lane);
        let swap = (second != NONE).then(|| pair(m, second, lane));
        // SAFETY: `resolve` has checked 16 aligned bytes for every active lane, and `atomic` the host's ability.
        let old = unsafe {
            match swap {
                Some(new) => host::compare_exchange(hosts[lane], one, new),
                None => {
                    let mut seen = host::compare_exchange(hosts[lane], 0, 0);
                    loop {
                        let now = host::compare_exchange(hosts[lane], seen, one);
                        if now == seen {
                            break seen;
                        }
                        seen = now;
                    }
                }
            }
        };
        (low[lane], high[lane]) = (old as u64, (old >> 64) as u64);
    }
    m.set_longs(op.dst, &low, mask);
    m.set_longs(op.dst + 1, &high, mask);
    Flow::Next
}

#[cfg(target_arch = "x86_64")]
mod host {
    use std::arch::asm;

    pub fn available() -> bool {
        is_x86_feature_detected!("cmpxchg16b")
    }

    /// Replaces `old` by `new` and gives what was there.
    ///
    /// # Safety
    /// `address` is valid for atomic reads and writes of 16 bytes and aligned to 16; [`available`] holds.
    pub unsafe fn compare_exchange(address: u64, old: u128, new: u128) -> u128 {
        let (mut low, mut high) = (old as u64, (old >> 64) as u64);
        // SAFETY: this function's contract. The instruction takes the low half from rbx, which the compiler keeps for
        // itself: it is exchanged before and put back after.
        unsafe {
            asm!(
                "xchg rbx, rsi",
                "lock cmpxchg16b [rdi]",
                "mov rbx, rsi",
                inout("rsi") new as u64 => _,
                in("rdi") address,
                in("rcx") (new >> 64) as u64,
                inout("rax") low,
                inout("rdx") high,
                options(nostack),
            );
        }
        u128::from(high) << 64 | u128::from(low)
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod host {
    pub fn available() -> bool {
        false
    }

    /// # Safety
    /// Never called: [`available`] is false.
    pub unsafe fn compare_exchange(_: u64, old: u128, _: u128) -> u128 {
        old
    }
}
