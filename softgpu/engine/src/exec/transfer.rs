//! Loads and stores.
//!
//! Device memory is shared with other threads and processes that may access it at the same time, so every element
//! moves by a relaxed atomic access of its size; on all hosts of interest that is a plain move.

use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering, fence};

use super::lanes::{FULL, LANES, Longs, Words};
use super::memory::{COUNT_SHIFT, FENCE};
use super::op::{Flow, Handler, Machine, Op};

/// A memory element: its size, and how it sits in a register.
pub trait Element: Copy + Default + 'static {
    const BYTES: u32;
    type Register: Copy + Default;
    /// # Safety
    /// `address` is valid for an atomic read of this size and aligned to it.
    unsafe fn read(address: u64) -> Self::Register;
    /// # Safety
    /// `address` is valid for an atomic write of this size and aligned to it.
    unsafe fn write(address: u64, value: Self::Register);
    fn source<'v>(machine: &'v Machine<'_>, slot: u32) -> &'v [Self::Register; LANES];
    fn commit(machine: &mut Machine<'_>, slot: u32, values: &[Self::Register; LANES], mask: u32);
}

macro_rules! element {
    ($ty:ty, $atomic:ident, $bytes:expr, $register:ty, $file:ty, $read:ident, $write:ident, $raw:ty) => {
        impl Element for $ty {
            const BYTES: u32 = $bytes;
            type Register = $register;
            #[inline(always)]
            unsafe fn read(address: u64) -> $register {
                // SAFETY: the caller vouches for validity and alignment of the address.
                let value = unsafe { $atomic::from_ptr(address as *mut $raw) }.load(Ordering::Relaxed);
                value as $ty as $register
            }
            #[inline(always)]
            unsafe fn write(address: u64, value: $register) {
                // SAFETY: the caller vouches for validity and alignment of the address.
                unsafe { $atomic::from_ptr(address as *mut $raw) }.store(value as $raw, Ordering::Relaxed);
            }
            #[inline(always)]
            fn source<'v>(machine: &'v Machine<'_>, slot: u32) -> &'v $file {
                machine.$read(slot)
            }
            #[inline(always)]
            fn commit(machine: &mut Machine<'_>, slot: u32, values: &$file, mask: u32) {
                machine.$write(slot, values, mask);
            }
        }
    };
}

element!(u8, AtomicU8, 1, u32, Words, words, set_words, u8);
element!(i8, AtomicU8, 1, u32, Words, words, set_words, u8);
element!(u16, AtomicU16, 2, u32, Words, words, set_words, u16);
element!(i16, AtomicU16, 2, u32, Words, words, set_words, u16);
element!(u32, AtomicU32, 4, u32, Words, words, set_words, u32);
element!(u64, AtomicU64, 8, u64, Longs, longs, set_longs, u64);

/// `op.dst` is the destination of a scalar load; of a vector load, `op.b` is the start of the destinations in the
/// function's side table.
pub fn load<E: Element>() -> Handler {
    fn run<E: Element>(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
        let count = (op.flags >> COUNT_SHIFT) + 1;
        let hosts = match m.resolve(op, mask, E::BYTES * count) {
            Ok(hosts) => hosts,
            Err(flow) => return flow,
        };
        for k in 0..count {
            let mut values = [E::Register::default(); LANES];
            let offset = u64::from(k * E::BYTES);
            if mask == FULL {
                for i in 0..LANES {
                    // SAFETY: `resolve` has checked the range and alignment of all elements for all lanes.
                    values[i] = unsafe { E::read(hosts[i] + offset) };
                }
            } else {
                for i in 0..LANES {
                    if mask >> i & 1 != 0 {
                        // SAFETY: as above, for the active lanes.
                        values[i] = unsafe { E::read(hosts[i] + offset) };
                    }
                }
            }
            E::commit(m, destination(m, op, count, k), &values, mask);
        }
        if op.flags & FENCE != 0 {
            fence(Ordering::SeqCst);
        }
        Flow::Next
    }
    run::<E>
}

/// A kernel parameter at a fixed offset (`extra`): one read for all lanes. Operands as for [`load`].
pub fn load_param<E: Element>() -> Handler {
    fn run<E: Element>(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
        let count = (op.flags >> COUNT_SHIFT) + 1;
        let first = match m.resolve_param(op, mask, E::BYTES * count) {
            Ok(first) => first,
            Err(flow) => return flow,
        };
        for k in 0..count {
            // SAFETY: `resolve_param` has checked the range and alignment of all elements.
            let value = unsafe { E::read(first + u64::from(k * E::BYTES)) };
            E::commit(m, destination(m, op, count, k), &[value; LANES], mask);
        }
        Flow::Next
    }
    run::<E>
}

#[inline(always)]
pub fn destination(m: &Machine<'_>, op: &Op, count: u32, k: u32) -> u32 {
    if count == 1 {
        op.dst
    } else {
        m.grid.program.functions[m.warp.path.function as usize].lists[(op.b + k) as usize]
    }
}

/// `op.dst` is the source slot of a scalar store; of a vector store, `op.b` is the start of the sources in the side
/// table.
pub fn store<E: Element>() -> Handler {
    fn run<E: Element>(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
        let count = (op.flags >> COUNT_SHIFT) + 1;
        let hosts = match m.resolve(op, mask, E::BYTES * count) {
            Ok(hosts) => hosts,
            Err(flow) => return flow,
        };
        if op.flags & FENCE != 0 {
            fence(Ordering::SeqCst);
        }
        for k in 0..count {
            let values = E::source(m, destination(m, op, count, k));
            let offset = u64::from(k * E::BYTES);
            for i in 0..LANES {
                if mask >> i & 1 != 0 {
                    // SAFETY: `resolve` has checked the range and alignment of all elements for the active lanes.
                    unsafe { E::write(hosts[i] + offset, values[i]) };
                }
            }
        }
        Flow::Next
    }
    run::<E>
}
