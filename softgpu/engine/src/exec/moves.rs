//! Data movement: `mov` (with packing), `ld`, `st`, address conversion, and `cp.async`.
//!
//! Asynchronous copies complete at once, so their groups and waits are empty.

use lightos_kernels::ptx::ast::{Instruction, Operand, Space, Type};

use super::access::{Access, READS, Touch, WRITES, strength};
use super::decode::{Bank, Decoded, Decoder, bank, invalid, operands, unsupported};
use super::lanes::{LANES, lift1};
use super::memory::{COUNT_SHIFT, FENCE, LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW, space};
use super::op::{Flow, Handler, Machine, NONE, Op};
use super::operand::Address;
use super::transfer::{Element, load, load_param, store};
use super::words::{Words, type_bytes};
use super::{bulk, cluster, mbarrier, wide};

pub fn decode<'a>(d: &mut Decoder<'a, '_>, i: &'a Instruction, w: &Words<'a>) -> Decoded {
    match i.opcode.as_str() {
        "mov" => mov(d, i, w),
        "st" if w.has("bulk") => unsupported(""),
        "st" if w.has("async") => cluster::store_async(d, i, w),
        "ld" | "ldu" | "st" => transfer(d, i, w, i.opcode == "st").map(|_| ()),
        "cvta" => cvta(d, i, w),
        "isspacep" => isspacep(d, i, w),
        "cp" if w.has("async") => copy_async(d, i, w),
        _ => unsupported(""),
    }
}

/// A move between registers.
pub fn copy(ty: Type) -> Decoded<Handler> {
    Ok(match bank(ty)? {
        Bank::Word => lift1(|a: u32| a),
        Bank::Long => lift1(|a: u64| a),
        Bank::Predicate => lift1(|a: bool| a),
        Bank::Quad => return unsupported("for 128-bit registers"),
    })
}

pub fn not_predicate() -> Handler {
    lift1(|a: bool| !a)
}

pub fn widen(signed: bool) -> Handler {
    if signed { lift1(|a: i32| a as i64) } else { lift1(|a: u32| a as u64) }
}

pub fn narrow() -> Handler {
    lift1(|a: u64| a as u32)
}

fn mov<'a>(d: &mut Decoder<'a, '_>, i: &'a Instruction, w: &Words<'a>) -> Decoded {
    operands(i, 2)?;
    let Some(ty) = w.ty() else { return invalid("mov needs a type") };
    if ty == Type::B128 {
        return wide::mov(d, i);
    }
    match (&i.operands[0], &i.operands[1]) {
        (Operand::Vector(parts), source) => {
            let part = part_type(ty, parts.len())?;
            let a = d.source(source, ty)?;
            let mut list = Vec::with_capacity(parts.len());
            for operand in parts {
                list.push(d.destination(operand, part)?);
            }
            let b = d.list(list);
            let run = if type_bytes(ty) == 8 { unpack_long } else { unpack_word };
            d.emit(Op { a, b, flags: type_bytes(part) * 8, c: parts.len() as u32, ..Op::new(run) });
            Ok(())
        }
        (destination, Operand::Vector(parts)) => {
            let part = part_type(ty, parts.len())?;
            let mut list = Vec::with_capacity(parts.len());
            for operand in parts {
                list.push(d.source(operand, part)?);
            }
            let b = d.list(list);
            let run = if type_bytes(ty) == 8 { pack_long } else { pack_word };
            let op = Op { b, flags: type_bytes(part) * 8, c: parts.len() as u32, ..Op::new(run) };
            d.emit_to(op, destination, ty)
        }
        (destination, source) => {
            let a = d.source(source, ty)?;
            d.emit_to(Op { a, ..Op::new(copy(ty)?) }, destination, ty)
        }
    }
}

fn part_type(ty: Type, parts: usize) -> Decoded<Type> {
    match type_bytes(ty) / parts.max(1) as u32 {
        1 => Ok(Type::B8),
        2 => Ok(Type::B16),
        4 => Ok(Type::B32),
        _ => invalid("a vector of this length does not fill the type"),
    }
}

/// Entries of the running function's side table.
pub fn lists<'p>(m: &Machine<'p>, start: u32, count: u32) -> &'p [u32] {
    let program: &'p super::program::Program = m.grid.program;
    &program.functions[m.warp.path.function as usize].lists[start as usize..(start + count) as usize]
}

fn unpack_word(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
    let value = *m.words(op.a);
    let keep = u32::MAX >> (32 - op.flags);
    for (k, &slot) in (0..).zip(lists(m, op.b, op.c)) {
        m.set_words(slot, &value.map(|v| v >> (k * op.flags) & keep), mask);
    }
    Flow::Next
}

fn unpack_long(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
    let value = *m.longs(op.a);
    let keep = u32::MAX >> (32 - op.flags);
    for (k, &slot) in (0..).zip(lists(m, op.b, op.c)) {
        m.set_words(slot, &value.map(|v| (v >> (k * op.flags)) as u32 & keep), mask);
    }
    Flow::Next
}

fn pack_word(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
    let mut out = [0u32; LANES];
    let keep = u32::MAX >> (32 - op.flags);
    for (k, &slot) in (0..).zip(lists(m, op.b, op.c)) {
        let part = m.words(slot);
        for lane in 0..LANES {
            out[lane] |= (part[lane] & keep) << (k * op.flags);
        }
    }
    m.set_words(op.dst, &out, mask);
    Flow::Next
}

fn pack_long(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
    let mut out = [0u64; LANES];
    let keep = u32::MAX >> (32 - op.flags);
    for (k, &slot) in (0..).zip(lists(m, op.b, op.c)) {
        let part = m.words(slot);
        for lane in 0..LANES {
            out[lane] |= u64::from(part[lane] & keep) << (k * op.flags);
        }
    }
    m.set_longs(op.dst, &out, mask);
    Flow::Next
}

/// The address of a variable in the frame: `extra` is its offset; with `flags`, as a generic address.
pub fn frame_address(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
    let window = if op.flags != 0 { LOCAL_WINDOW } else { 0 };
    let value = window.wrapping_add(op.extra).wrapping_add(u64::from(m.warp.path.local));
    m.set_longs(op.dst, &[value; LANES], mask);
    Flow::Next
}

/// The address `extra` bytes into dynamic shared memory.
pub fn dynamic_shared(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
    let start = u64::from(m.grid.shared_bytes - m.grid.dynamic_shared_bytes);
    m.set_longs(op.dst, &[start.wrapping_add(op.extra); LANES], mask);
    Flow::Next
}

/// Chooses a generic handler by the element of a type.
macro_rules! by_element {
    ($ty:expr, $handler:ident) => {
        match $ty {
            Type::S8 => $handler::<i8>(),
            Type::S16 => $handler::<i16>(),
            Type::B128 => return unsupported("128-bit accesses of one register are not supported"),
            _ => match type_bytes($ty) {
                1 => $handler::<u8>(),
                2 => $handler::<u16>(),
                4 => $handler::<u32>(),
                _ => $handler::<u64>(),
            },
        }
    };
}

fn element(ty: Type, store_it: bool) -> Decoded<Handler> {
    Ok(if store_it { by_element!(ty, store) } else { by_element!(ty, load) })
}

fn param_element(ty: Type) -> Decoded<Handler> {
    Ok(by_element!(ty, load_param))
}

/// Loads a parameter from the frame into a register.
pub fn load_frame(ty: Type, slot: u32, offset: u32) -> Decoded<Op> {
    Ok(Op { dst: slot, extra: u64::from(offset), flags: space::FRAME, ..Op::new(element(ty, false)?) })
}

/// Stores a register to a parameter in the frame.
pub fn store_frame(ty: Type, slot: u32, offset: u32) -> Decoded<Op> {
    Ok(Op { dst: slot, extra: u64::from(offset), flags: space::FRAME, ..Op::new(element(ty, true)?) })
}

pub fn take_space(w: &Words<'_>) -> Space {
    let words = [
        "global",
        "shared",
        "shared::cta",
        "shared::cluster",
        "local",
        "param",
        "param::entry",
        "param::func",
        "const",
    ];
    match w.one_of(&words) {
        Some("global") => Space::Global,
        Some("local") => Space::Local,
        Some("const") => Space::Const,
        Some(word) if word.starts_with("shared") => Space::Shared,
        Some(_) => Space::Param,
        None => Space::Generic,
    }
}

/// Takes ordering, scope and cache words; true if the access needs a fence.
pub fn take_ordering(w: &Words<'_>) -> bool {
    let fence = w.one_of(&["acquire", "release", "acq_rel"]).is_some();
    w.ignore(&["weak", "relaxed", "volatile", "mmio", "cta", "cluster", "gpu", "sys"]);
    w.ignore(&["ca", "cg", "cs", "lu", "cv", "wb", "wt", "nc", "unified"]);
    while w.starting("L1::").is_some() || w.starting("L2::").is_some() {}
    fence
}

/// `ld` and `st`; gives the bytes that a lane moves.
pub fn transfer<'a>(
    d: &mut Decoder<'a, '_>,
    i: &'a Instruction,
    w: &Words<'a>,
    stores: bool,
) -> Decoded<u32> {
    let space = take_space(w);
    let fence = take_ordering(w);
    let count = match w.one_of(&["v2", "v4", "v8"]) {
        Some("v2") => 2,
        Some("v4") => 4,
        Some(_) => 8,
        None => 1,
    };
    let Some(ty) = w.ty() else { return invalid("a memory access needs a type") };
    // The optional last operand is a cache policy.
    if i.operands.len() != 3 {
        operands(i, 2)?;
    }
    let bytes = type_bytes(ty) * count;
    let (address, value) = if stores { (0, 1) } else { (1, 0) };
    let Address { base, offset, flags } = d.address(&i.operands[address], space)?;
    let longs = if ty == Type::B128 { 2 } else { 1 };
    let flags = flags | if fence { FENCE } else { 0 } | (count * longs - 1) << COUNT_SHIFT;
    let uniform = !stores && base == NONE && flags & space::MASK == space::PARAM;
    if ty == Type::B128 {
        let access = Access::elements(8, if stores { WRITES } else { READS } | strength(&i.modifiers));
        let op = Op { a: base, extra: offset, flags, access, ..Op::new(wide::element(stores)) };
        return wide::transfer(d, &i.operands[value], op).map(|()| bytes);
    }
    let run = if uniform { param_element(ty)? } else { element(ty, stores)? };
    let access = match (stores, space) {
        (true, _) => Access::elements(type_bytes(ty), WRITES | strength(&i.modifiers)),
        // Parameters may be read with their padding.
        (false, Space::Param) => Access::NONE,
        (false, _) => Access::elements(type_bytes(ty), READS | strength(&i.modifiers)),
    };
    let op = Op { a: base, extra: offset, flags, access, ..Op::new(run) };
    let Operand::Vector(parts) = &i.operands[value] else {
        if count != 1 {
            return invalid("a vector access needs a vector operand");
        }
        if stores {
            let dst = d.source(&i.operands[value], ty)?;
            d.emit(Op { dst, ..op });
            return Ok(bytes);
        }
        return d.emit_to(op, &i.operands[value], ty).map(|()| bytes);
    };
    if parts.len() != count as usize {
        return invalid("the vector has the wrong length");
    }
    let mut slots = Vec::with_capacity(parts.len());
    let mut widened = Vec::new();
    for part in parts {
        slots.push(if stores {
            d.source(part, ty)?
        } else if let Ok(slot) = d.destination(part, ty) {
            slot
        } else {
            let narrow = d.register(bank(ty)?).slot;
            widened.push((narrow, d.destination(part, Type::B64)?));
            narrow
        });
    }
    let single = slots[0];
    let b = d.list(slots);
    d.emit(Op { b, dst: if count == 1 { single } else { NONE }, ..op });
    for (narrow, wide) in widened {
        d.emit(Op { a: narrow, dst: wide, ..Op::new(widen(super::words::is_signed(ty))) });
    }
    Ok(bytes)
}

fn cvta<'a>(d: &mut Decoder<'a, '_>, i: &'a Instruction, w: &Words<'a>) -> Decoded {
    let to = w.has("to");
    let space = take_space(w);
    let Some(ty) = w.ty() else { return invalid("cvta needs a type") };
    if type_bytes(ty) != 8 {
        return unsupported("32-bit generic addresses");
    }
    let run = match (space, to) {
        (Space::Shared, false) => lift1(|a: u64| a | SHARED_WINDOW),
        (Space::Shared, true) => lift1(|a: u64| a & !SHARED_WINDOW),
        (Space::Local, false) => lift1(|a: u64| a | LOCAL_WINDOW),
        (Space::Local, true) => lift1(|a: u64| a & !LOCAL_WINDOW),
        _ => lift1(|a: u64| a),
    };
    d.alu(i, run, Type::U64, &[Type::U64])
}

fn isspacep<'a>(d: &mut Decoder<'a, '_>, i: &'a Instruction, w: &Words<'a>) -> Decoded {
    let run = match take_space(w) {
        Space::Shared => lift1(|a: u64| a >> 56 == SHARED_WINDOW >> 56),
        Space::Local => lift1(|a: u64| a >> 56 == LOCAL_WINDOW >> 56),
        Space::Param => lift1(|a: u64| a >> 56 == PARAM_WINDOW >> 56),
        space => {
            let flags = u32::from(space == Space::Const);
            return d.alu_flags(i, is_constant, Type::Pred, &[Type::U64], flags);
        }
    };
    d.alu(i, run, Type::Pred, &[Type::U64])
}

/// Whether an address is one of a `.const` variable (with `flags`), or of other device memory.
fn is_constant(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
    let ranges = &m.grid.program.const_ranges;
    let held = |a: u64| ranges.iter().any(|&(start, end)| (start..end).contains(&a));
    let addresses = m.longs(op.a).iter().enumerate();
    let truth = addresses
        .filter(|&(_, &a)| if op.flags != 0 { held(a) } else { a >> 56 == 0 && !held(a) })
        .fold(0, |bits, (lane, _)| bits | 1 << lane);
    m.set_predicate(op.dst, truth, mask);
    Flow::Next
}

/// `cp.async.{ca,cg}.shared.global [dst], [src], size {, source size}` and the groups around it.
fn copy_async<'a>(d: &mut Decoder<'a, '_>, i: &'a Instruction, w: &Words<'a>) -> Decoded {
    if w.has("bulk") {
        return bulk::decode(d, i, w);
    }
    if w.has("mbarrier") {
        return mbarrier::arrive_copied(d, i, w);
    }
    if let Some(group) = w.one_of(&["commit_group", "wait_group", "wait_all"]) {
        return operands(i, usize::from(group == "wait_group"));
    }
    if w.one_of(&["ca", "cg"]).is_none() {
        return unsupported("");
    }
    let narrow = matches!(take_space(w), Space::Shared);
    take_space(w);
    // With this word the last operand is a cache policy.
    let hinted = w.has("L2::cache_hint");
    while w.starting("L2::").is_some() {}
    let given = i.operands.len() - usize::from(hinted && i.operands.len() > 3);
    if !narrow || !(3..=4).contains(&given) {
        return invalid("cp.async copies from global to shared memory");
    }
    let to = d.address(&i.operands[0], Space::Shared)?;
    let from = d.address(&i.operands[1], Space::Global)?;
    let bytes = d.immediate(&i.operands[2])?;
    if ![4, 8, 16].contains(&bytes) {
        return invalid("cp.async copies 4, 8 or 16 bytes");
    }
    let (mut count, mut ignore) = (NONE, NONE);
    if let Some(operand) = i.operands.get(3).filter(|_| given == 4) {
        match operand {
            Operand::Ident(name) if d.named_register(name).is_ok_and(|r| r.bank == Bank::Predicate) => {
                ignore = d.source(operand, Type::Pred)?;
            }
            _ => count = d.source(operand, Type::U32)?,
        }
    }
    let list = d.list([to.base, to.flags, to.offset as u32, count, ignore]);
    d.emit(Op {
        a: from.base,
        extra: from.offset,
        flags: from.flags,
        b: list,
        c: bytes as u32,
        access: Access::of(Touch::CopyAsync),
        ..Op::new(run_copy)
    });
    Ok(())
}

/// The host addresses of a `cp.async`.
pub struct Sides {
    pub targets: [u64; LANES],
    /// Of the lanes in `reading`.
    pub sources: [u64; LANES],
    reading: u32,
    counts: [u32; LANES],
}

impl Sides {
    /// Bytes that a lane reads, of `most`; the rest of what it writes is zeros.
    #[inline(always)]
    pub fn valid(&self, lane: usize, most: u32) -> u32 {
        if self.reading >> lane & 1 != 0 { self.counts[lane].min(most) } else { 0 }
    }
}

#[inline(always)]
pub fn sides(m: &mut Machine<'_>, op: &Op, mask: u32) -> Result<Sides, Flow> {
    let [base, flags, offset, count, ignore] = *lists(m, op.b, 5) else { return Err(Flow::Next) };
    let to = Op { a: base, flags, extra: u64::from(offset), ..*op };
    let targets = m.resolve(&to, mask, op.c)?;
    let ignored = if ignore == NONE { 0 } else { m.predicate(ignore) };
    let counts = if count == NONE { [op.c; LANES] } else { *m.words(count) };
    let reading = (0..LANES).filter(|&i| counts[i] > 0).fold(0, |bits, i| bits | 1 << i) & mask & !ignored;
    let sources = if reading == 0 { [0; LANES] } else { m.resolve(op, reading, op.c)? };
    Ok(Sides { targets, sources, reading, counts })
}

fn run_copy(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
    let sides = match sides(m, op, mask) {
        Ok(sides) => sides,
        Err(flow) => return flow,
    };
    for lane in 0..LANES {
        if mask >> lane & 1 == 0 {
            continue;
        }
        let valid = sides.valid(lane, op.c);
        for byte in 0..op.c {
            let (from, to) = (sides.sources[lane] + u64::from(byte), sides.targets[lane] + u64::from(byte));
            // SAFETY: `resolve` has checked `op.c` bytes at both ends for this lane; bytes are always aligned.
            unsafe { u8::write(to, if byte < valid { u8::read(from) } else { 0 }) };
        }
    }
    Flow::Next
}
