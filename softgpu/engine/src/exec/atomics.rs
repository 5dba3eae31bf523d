//! `atom` and `red`: host atomics at the resolved address, lane after lane, so that they hold against every other
//! thread and process that maps the memory.

use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};

use half::{bf16, f16};
use lightos_kernels::ptx::ast::{Instruction, Operand, Space, Type};

use super::access::{Access, BLIND, READS, STRONG, WRITES};
use super::decode::{Bank, Decoded, Decoder, bank, invalid, operands, unsupported};
use super::float::flush;
use super::lanes::{LANES, Lane, conjure};
use super::moves::{take_ordering, take_space};
use super::narrow::{to_bf16, to_f16};
use super::op::{Flow, Handler, Machine, NONE, Op};
use super::operand::Address;
use super::words::{Words, type_bytes};
use super::{cluster, half_float, wide};

/// An unsigned word that the host can change atomically.
trait Cell: Lane + PartialEq {
    const BYTES: u32;
    /// Replaces the word by `new(word)` and gives the old one.
    ///
    /// # Safety
    /// `address` is valid for atomic reads and writes of this size, and aligned to it.
    unsafe fn update(address: u64, new: impl Fn(Self) -> Self) -> Self;
    /// # Safety
    /// As [`Cell::update`].
    unsafe fn add(address: u64, value: Self) -> Self;
}

macro_rules! cell {
    ($ty:ty, $atomic:ty) => {
        impl Cell for $ty {
            const BYTES: u32 = <$ty>::BITS / 8;
            #[inline(always)]
            unsafe fn update(address: u64, new: impl Fn(Self) -> Self) -> Self {
                // SAFETY: the caller vouches for validity and alignment of the address.
                let cell = unsafe { <$atomic>::from_ptr(address as *mut $ty) };
                let mut old = cell.load(Ordering::Relaxed);
                loop {
                    match cell.compare_exchange_weak(old, new(old), Ordering::SeqCst, Ordering::Relaxed) {
                        Ok(old) => return old,
                        Err(now) => old = now,
                    }
                }
            }
            #[inline(always)]
            unsafe fn add(address: u64, value: Self) -> Self {
                // SAFETY: the caller vouches for validity and alignment of the address.
                unsafe { <$atomic>::from_ptr(address as *mut $ty) }.fetch_add(value, Ordering::SeqCst)
            }
        }
    };
}
cell!(u16, AtomicU16);
cell!(u32, AtomicU32);
cell!(u64, AtomicU64);

/// Runs `change(address, b, c)` for each active lane and gives the lane the old word. `b` and `c` are source slots.
#[inline(always)]
fn each<C: Cell>(m: &mut Machine<'_>, op: &Op, mask: u32, change: impl Fn(u64, C, C) -> C) -> Flow {
    let hosts = match m.resolve(op, mask, C::BYTES) {
        Ok(hosts) => hosts,
        Err(flow) => return flow,
    };
    let mut out = C::out();
    let (b, c) = (C::view(m, op.b), C::view(m, op.c));
    for lane in (0..LANES).filter(|lane| mask >> lane & 1 != 0) {
        C::set(&mut out, lane, change(hosts[lane], C::at(b, lane), C::at(c, lane)));
    }
    if op.dst != NONE {
        C::commit(m, op.dst, &out, mask);
    }
    Flow::Next
}

/// Lifts `f(old, b, c)`, the new word.
fn exchange<C: Cell, F: Fn(C, C, C) -> C + Copy + 'static>(_: F) -> Handler {
    fn run<C: Cell, F: Fn(C, C, C) -> C + Copy>(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
        let f = conjure::<F>();
        each(m, op, mask, |address, b: C, c: C| {
            // SAFETY: `resolve` has checked the range and alignment for every active lane.
            unsafe { C::update(address, |old| f(old, b, c)) }
        })
    }
    run::<C, F>
}

fn addition<C: Cell>() -> Handler {
    fn run<C: Cell>(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
        each(m, op, mask, |address, b: C, _| {
            // SAFETY: `resolve` has checked the range and alignment for every active lane.
            unsafe { C::add(address, b) }
        })
    }
    run::<C>
}

fn add_f32(a: u32, b: u32) -> u32 {
    (f32::from_bits(a) + f32::from_bits(b)).to_bits()
}

fn add_f32_flushed(a: u32, b: u32) -> u32 {
    flush(flush(f32::from_bits(a)) + flush(f32::from_bits(b))).to_bits()
}

/// An addition through a generic address, which may be one of shared memory.
fn add_f32_anywhere(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
    let start = m.block.shared.as_ptr() as u64;
    let shared = start..start + m.block.shared_bytes();
    each(m, op, mask, |address, b: u32, _| {
        let add = if shared.contains(&address) { add_f32 } else { add_f32_flushed };
        // SAFETY: `resolve` has checked the range and alignment for every active lane.
        unsafe { u32::update(address, |old| add(old, b)) }
    })
}

fn add_f16(a: u16, b: u16) -> u16 {
    to_f16(f16::from_bits(a).to_f32() + f16::from_bits(b).to_f32()).to_bits()
}

fn add_bf16(a: u16, b: u16) -> u16 {
    to_bf16(bf16::from_bits(a).to_f32() + bf16::from_bits(b).to_f32()).to_bits()
}

fn halves(a: u32, b: u32, f: impl Fn(u16, u16) -> u16) -> u32 {
    u32::from(f((a >> 16) as u16, (b >> 16) as u16)) << 16 | u32::from(f(a as u16, b as u16))
}

pub fn decode<'a>(d: &mut Decoder<'a, '_>, i: &'a Instruction, w: &Words<'a>) -> Decoded {
    if i.opcode == "red" && w.has("async") {
        return cluster::reduce_async(d, i, w);
    }
    let space = take_space(w);
    take_ordering(w);
    let names = ["and", "or", "xor", "cas", "exch", "add", "inc", "dec", "min", "max"];
    let Some(name) = w.one_of(&names) else { return invalid("an atomic operation is missing") };
    // A second ordering word may follow (`.acquire` before, scope after the operation).
    take_ordering(w);
    w.has("noftz");
    let vector = w.one_of(&["v2", "v4", "v8"]).map(|word| u32::from(word.as_bytes()[1] - b'0'));
    let Some(ty) = w.ty() else { return invalid("an atomic needs a type") };
    let reduces = i.opcode == "red";
    let first = usize::from(!reduces);
    let sources = if name == "cas" { 2 } else { 1 };
    // The optional last operand is a cache policy.
    if i.operands.len() != first + 1 + sources && i.operands.len() != first + 2 + sources {
        return operands(i, first + 1 + sources);
    }
    if ty == Type::B128 {
        return wide::atomic(d, i, name, space);
    }
    let run = handler(name, ty, space)?;
    let Address { base, offset, flags } = d.address(&i.operands[first], space)?;
    let blind = if name == "exch" { BLIND } else { 0 };
    let access = Access::elements(type_bytes(ty), READS | WRITES | STRONG | blind);
    let op = Op { a: base, extra: offset, flags, access, ..Op::new(run) };
    let raw = raw(ty)?;
    if let Some(count) = vector {
        return elements(d, i, op, raw, [first as u32, count]);
    }
    let b = d.source(&i.operands[first + 1], ty)?;
    let c = if sources == 2 { d.source(&i.operands[first + 2], ty)? } else { b };
    let op = Op { b, c, ..op };
    if reduces || i.operands[0] == Operand::Sink {
        d.emit(op);
        return Ok(());
    }
    d.emit_to(op, &i.operands[0], raw)
}

/// The untyped register of an atomic on `ty`.
pub fn raw(ty: Type) -> Decoded<Type> {
    Ok(match bank(ty)? {
        Bank::Long => Type::B64,
        _ if type_bytes(ty) == 2 => Type::B16,
        _ => Type::B32,
    })
}

/// A vector atomic is atomic element by element; the whole vector is checked first.
fn elements<'a>(
    d: &mut Decoder<'a, '_>,
    i: &'a Instruction,
    op: Op,
    raw: Type,
    [first, count]: [u32; 2],
) -> Decoded {
    let first = first as usize;
    let Operand::Vector(values) = &i.operands[first + 1] else { return invalid("expected a vector") };
    if values.len() != count as usize {
        return invalid("the vector has the wrong length");
    }
    d.emit(Op { run: check, c: count * type_bytes(raw), ..op });
    for (k, value) in values.iter().enumerate() {
        let b = d.source(value, raw)?;
        let extra = op.extra.wrapping_add(k as u64 * u64::from(type_bytes(raw)));
        let op = Op { b, c: b, extra, ..op };
        match (first, &i.operands[0]) {
            (1, Operand::Vector(targets)) if targets.len() == values.len() => {
                d.emit_to(op, &targets[k], raw)?
            }
            (0, _) | (1, Operand::Sink) => d.emit(op),
            _ => return invalid("expected a vector"),
        }
    }
    Ok(())
}

/// Faults where `c` bytes at the address may not be accessed.
fn check(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
    m.resolve(op, mask, op.c).map_or_else(|flow| flow, |_| Flow::Next)
}

/// The handler of operation `name`; `b` and `c` of its instruction are the operands.
pub fn handler(name: &str, ty: Type, space: Space) -> Decoded<Handler> {
    use Type::{B16, B32, B64, BF16, BF16x2, F16, F16x2, F32, F64, S32, S64, U32, U64};
    Ok(match (name, ty) {
        ("and", B32) => exchange(|old: u32, b, _| old & b),
        ("or", B32) => exchange(|old: u32, b, _| old | b),
        ("xor", B32) => exchange(|old: u32, b, _| old ^ b),
        ("and", B64) => exchange(|old: u64, b, _| old & b),
        ("or", B64) => exchange(|old: u64, b, _| old | b),
        ("xor", B64) => exchange(|old: u64, b, _| old ^ b),
        ("cas", B16) => exchange(|old: u16, b, c| if old == b { c } else { old }),
        ("cas", B32 | U32 | S32) => exchange(|old: u32, b, c| if old == b { c } else { old }),
        ("cas", B64 | U64 | S64) => exchange(|old: u64, b, c| if old == b { c } else { old }),
        ("exch", B16) => exchange(|_: u16, b, _| b),
        ("exch", B32 | U32 | S32 | F32) => exchange(|_: u32, b, _| b),
        ("exch", B64 | U64 | S64 | F64) => exchange(|_: u64, b, _| b),
        ("add", U32 | S32) => addition::<u32>(),
        ("add", U64 | S64) => addition::<u64>(),
        // The hardware flushes subnormals in global memory, not in shared memory.
        ("add", F32) if space == Space::Shared => exchange(|old: u32, b, _| add_f32(old, b)),
        ("add", F32) if space == Space::Generic => add_f32_anywhere,
        ("add", F32) => exchange(|old: u32, b, _| add_f32_flushed(old, b)),
        ("add", F64) => exchange(|old: u64, b, _| (f64::from_bits(old) + f64::from_bits(b)).to_bits()),
        ("add", F16) => exchange(|old: u16, b, _| add_f16(old, b)),
        ("add", BF16) => exchange(|old: u16, b, _| add_bf16(old, b)),
        ("add", F16x2) => exchange(|old: u32, b, _| halves(old, b, add_f16)),
        ("add", BF16x2) => exchange(|old: u32, b, _| halves(old, b, add_bf16)),
        ("min", F16) => exchange(|old: u16, b, _| half_float::least(old, b, false)),
        ("max", F16) => exchange(|old: u16, b, _| half_float::greatest(old, b, false)),
        ("min", BF16) => exchange(|old: u16, b, _| half_float::least(old, b, true)),
        ("max", BF16) => exchange(|old: u16, b, _| half_float::greatest(old, b, true)),
        ("min", F16x2) => exchange(|old: u32, b, _| halves(old, b, |a, b| half_float::least(a, b, false))),
        ("max", F16x2) => exchange(|old: u32, b, _| halves(old, b, |a, b| half_float::greatest(a, b, false))),
        ("min", BF16x2) => exchange(|old: u32, b, _| halves(old, b, |a, b| half_float::least(a, b, true))),
        ("max", BF16x2) => exchange(|old: u32, b, _| halves(old, b, |a, b| half_float::greatest(a, b, true))),
        ("inc", U32) => exchange(|old: u32, b, _| if old >= b { 0 } else { old + 1 }),
        ("dec", U32) => exchange(|old: u32, b, _| if old == 0 || old > b { b } else { old - 1 }),
        ("min", U32) => exchange(|old: u32, b, _| old.min(b)),
        ("max", U32) => exchange(|old: u32, b, _| old.max(b)),
        ("min", S32) => exchange(|old: u32, b, _| (old as i32).min(b as i32) as u32),
        ("max", S32) => exchange(|old: u32, b, _| (old as i32).max(b as i32) as u32),
        ("min", U64) => exchange(|old: u64, b, _| old.min(b)),
        ("max", U64) => exchange(|old: u64, b, _| old.max(b)),
        ("min", S64) => exchange(|old: u64, b, _| (old as i64).min(b as i64) as u64),
        ("max", S64) => exchange(|old: u64, b, _| (old as i64).max(b as i64) as u64),
        _ => return unsupported("this operation on this type"),
    })
}
