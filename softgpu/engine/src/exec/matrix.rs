//! Warp-level matrices: `mma.sync` on f16, bf16, tf32, f64 and 8-bit integers, `ldmatrix`, `stmatrix`, `movmatrix`.
//!
//! The hardware's order of accumulation is not documented. Here the products of an element are summed in f64 and added
//! to the accumulator with one rounding.

use half::{bf16, f16};
use lightos_kernels::ptx::ast::{Instruction, Operand, Type};

use super::access::{Access, READS, Touch, WRITES};
use super::decode::{Bank, Decoded, Decoder, bank, invalid, operands, unsupported};
use super::lanes::{FULL, LANES};
use super::moves::{lists, take_space};
use super::narrow::{from_fp8, to_f16};
use super::op::{Flow, Machine, Op};
use super::operand::Address;
use super::transfer::Element;
use super::words::{Words, type_bytes};

pub fn decode<'a>(d: &mut Decoder<'a, '_>, i: &'a Instruction, w: &Words<'a>) -> Decoded {
    w.has("sync");
    w.has("aligned");
    match i.opcode.as_str() {
        "mma" => multiply(d, i, w),
        "ldmatrix" | "stmatrix" => rows(d, i, w),
        _ => {
            if w.one_of(&["m8n8"]).is_none() || !w.has("trans") || w.ty() != Some(Type::B16) {
                return unsupported("");
            }
            operands(i, 2)?;
            let a = d.source(&i.operands[1], Type::B32)?;
            d.emit_to(
                Op { a, access: Access::of(Touch::Collective), ..Op::new(transpose) },
                &i.operands[0],
                Type::B32,
            )
        }
    }
}

/// One of the element types of A and B, in `flags`.
const ELEMENTS: [Type; 9] =
    [Type::F16, Type::BF16, Type::TF32, Type::F64, Type::S8, Type::U8, Type::E4M3, Type::E5M2, Type::F32];

fn element_code(ty: Type) -> Decoded<u32> {
    match ELEMENTS.iter().position(|&known| known == ty) {
        Some(code) => Ok(code as u32),
        None => unsupported("matrices of this type"),
    }
}

/// Slots of a vector operand, or of a single register.
fn slots<'a>(d: &mut Decoder<'a, '_>, operand: &'a Operand, ty: Type, target: bool) -> Decoded<Vec<u32>> {
    let parts = match operand {
        Operand::Vector(parts) => parts.as_slice(),
        single => std::slice::from_ref(single),
    };
    let mut slots = Vec::with_capacity(parts.len());
    for part in parts {
        slots.push(if target { d.destination(part, ty)? } else { d.source(part, ty)? });
    }
    Ok(slots)
}

/// `mma.sync.aligned.shape.row.col.dtype.atype.btype.ctype d, a, b, c`.
fn multiply<'a>(d: &mut Decoder<'a, '_>, i: &'a Instruction, w: &Words<'a>) -> Decoded {
    let shapes = [
        ("m16n8k4", 16, 4),
        ("m16n8k8", 16, 8),
        ("m16n8k16", 16, 16),
        ("m16n8k32", 16, 32),
        ("m8n8k4", 8, 4),
        ("m8n8k16", 8, 16),
    ];
    let Some((_, rows, depth)) = shapes.iter().find(|(name, ..)| w.has(name)) else { return unsupported("") };
    if !w.has("row") || !w.has("col") {
        return unsupported("");
    }
    let saturates = w.has("satfinite");
    let (Some(dt), Some(at), Some(bt), Some(ct)) = (w.ty(), w.ty(), w.ty(), w.ty()) else {
        return invalid("mma needs four types");
    };
    operands(i, 4)?;
    let wide = at == Type::F64;
    let bits = match at {
        Type::TF32 => 32,
        _ => type_bytes(at) * 8,
    };
    if *rows == 8 && *depth == 4 && !wide || dt != ct && !(dt == Type::F16 || ct == Type::F16) {
        return unsupported("");
    }
    let raw = if wide { Type::F64 } else { Type::B32 };
    let dst = slots(d, &i.operands[0], raw, true)?;
    let a = slots(d, &i.operands[1], raw, false)?;
    let b = slots(d, &i.operands[2], raw, false)?;
    let c = slots(d, &i.operands[3], raw, false)?;
    // Elements per register, and registers of each operand, follow from the shape.
    let per = if wide { 1 } else { 32 / bits };
    let count = |elements: u32, per: u32| (elements / 32 / per) as usize;
    let outputs = |ty: Type| count(rows * 8, if ty == Type::F16 { 2 } else { 1 });
    let fits = a.len() == count(rows * depth, per) && b.len() == count(8 * depth, per);
    if !fits || dst.len() != outputs(dt) || c.len() != outputs(ct) {
        return invalid("a matrix operand has the wrong number of registers");
    }
    let flags = element_code(at)?
        | element_code(bt)? << 4
        | u32::from(dt == Type::F16) << 8
        | u32::from(ct == Type::F16) << 9
        | u32::from(saturates) << 10
        | (rows / 8) << 12
        | depth << 16;
    let lengths = [dst.len(), a.len(), b.len(), c.len()].map(|n| n as u32);
    let table = lengths.into_iter().chain(dst).chain(a).chain(b).chain(c);
    let table: Vec<u32> = table.collect();
    let access = Access::of(Touch::Collective);
    let op = Op { c: table.len() as u32, flags, access, ..Op::new(multiplied) };
    let b = d.list(table);
    d.emit(Op { b, ..op });
    Ok(())
}

/// A matrix element of 16 bits or less, or f32, as f64 (exact).
pub fn value(bits: u32, ty: Type) -> f64 {
    match ty {
        Type::F16 => f16::from_bits(bits as u16).to_f64(),
        Type::BF16 => bf16::from_bits(bits as u16).to_f64(),
        Type::S8 => f64::from(bits as i8),
        Type::U8 => f64::from(bits as u8),
        Type::E4M3 | Type::E5M2 => f64::from(from_fp8(bits as u8, ty)),
        Type::TF32 => f64::from(f32::from_bits(bits & !0x1fff)),
        _ => f64::from(f32::from_bits(bits)),
    }
}

/// Which lane, register and element of a register hold element (row, column) of an operand with `per` elements per
/// register. B is addressed by (column, row): its layout is that of a transposed A with 8 rows.
fn position(row: u32, column: u32, per: u32, row_blocks: u32) -> (usize, usize, u32) {
    let lane = (row & 7) * 4 + column / per % 4;
    let register = row / 8 + row_blocks * (column / (4 * per));
    (lane as usize, register as usize, column % per)
}

fn multiplied(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
    if mask != FULL {
        let place = m.place(op, mask.trailing_zeros());
        return m.fail(super::Fault::IllegalInstruction { what: "mma with lanes missing".to_owned(), place });
    }
    let table = lists(m, op.b, op.c);
    let [nd, na, nb, nc] = [table[0], table[1], table[2], table[3]].map(|n| n as usize);
    let (dst, rest) = table[4..].split_at(nd);
    let (a, rest) = rest.split_at(na);
    let (b, c) = rest.split_at(nb);
    debug_assert_eq!(c.len(), nc);
    let (at, bt) = (ELEMENTS[(op.flags & 15) as usize], ELEMENTS[(op.flags >> 4 & 15) as usize]);
    let (half_out, half_in) = (op.flags >> 8 & 1 != 0, op.flags >> 9 & 1 != 0);
    let (row_blocks, depth) = (op.flags >> 12 & 15, op.flags >> 16);
    let wide = at == Type::F64;
    let per = match at {
        Type::F64 | Type::TF32 => 1,
        _ => 4 / type_bytes(at),
    };
    let read = |m: &Machine<'_>, slots: &[u32], (lane, register, part): (usize, usize, u32), ty: Type| {
        if wide {
            f64::from_bits(m.longs(slots[register])[lane])
        } else {
            value(m.words(slots[register])[lane] >> (part * 32 / per), ty)
        }
    };
    let rows = row_blocks * 8;
    let mut left = vec![0f64; (rows * depth) as usize];
    let mut right = vec![0f64; (8 * depth) as usize];
    for k in 0..depth {
        for row in 0..rows {
            left[(row * depth + k) as usize] = read(m, a, position(row, k, per, row_blocks), at);
        }
        for column in 0..8 {
            right[(column * depth + k) as usize] = read(m, b, position(column, k, per, 1), bt);
        }
    }
    let integer = matches!(at, Type::S8 | Type::U8);
    let mut out = vec![[0u64; LANES]; nd];
    for row in 0..rows {
        for column in 0..8u32 {
            let lane = ((row & 7) * 4 + column / 2) as usize;
            let (pair, part) = ((row / 8) as usize, column & 1);
            let single = pair * 2 + part as usize;
            let products = (0..depth as usize).map(|k| {
                left[row as usize * depth as usize + k] * right[column as usize * depth as usize + k]
            });
            let sum: f64 = products.sum();
            let bits = if integer {
                let start = m.words(c[single])[lane] as i32;
                let exact = i64::from(start) + sum as i64;
                let clamped = exact.clamp(i32::MIN.into(), i32::MAX.into());
                u64::from(if op.flags >> 10 & 1 != 0 { clamped as u32 } else { exact as u32 })
            } else if wide {
                (f64::from_bits(m.longs(c[single])[lane]) + sum).to_bits()
            } else {
                let start = if half_in {
                    f16::from_bits((m.words(c[pair])[lane] >> (16 * part)) as u16).to_f64()
                } else {
                    f64::from(f32::from_bits(m.words(c[single])[lane]))
                };
                let result = (start + sum) as f32;
                u64::from(if half_out { u32::from(to_f16(result).to_bits()) } else { result.to_bits() })
            };
            if half_out {
                out[pair][lane] |= bits << (16 * part);
            } else {
                out[single][lane] = bits;
            }
        }
    }
    for (&slot, values) in dst.iter().zip(&out) {
        if wide {
            m.set_longs(slot, values, mask);
        } else {
            m.set_words(slot, &values.map(|v| v as u32), mask);
        }
    }
    Flow::Next
}

/// `ldmatrix` and `stmatrix`: 8x8 matrices of 16-bit elements whose rows lanes 8i to 8i+7 point to.
fn rows<'a>(d: &mut Decoder<'a, '_>, i: &'a Instruction, w: &Words<'a>) -> Decoded {
    let stores = i.opcode == "stmatrix";
    if !w.has("m8n8") {
        return unsupported("");
    }
    let count = match w.one_of(&["x1", "x2", "x4"]) {
        Some("x1") => 1,
        Some("x2") => 2,
        Some(_) => 4,
        None => return invalid("the number of matrices is missing"),
    };
    let transposed = w.has("trans");
    let space = take_space(w);
    if w.ty() != Some(Type::B16) {
        return unsupported("");
    }
    operands(i, 2)?;
    let (address, value) = if stores { (0, 1) } else { (1, 0) };
    let Address { base, offset, flags } = d.address(&i.operands[address], space)?;
    let registers = slots(d, &i.operands[value], Type::B32, !stores)?;
    if registers.len() != count {
        return invalid("the vector has the wrong length");
    }
    debug_assert_eq!(bank(Type::B32), Ok(Bank::Word));
    let b = d.list(registers);
    let run = if stores { store_rows } else { load_rows };
    let op = Op {
        a: base,
        b,
        c: count as u32,
        d: u32::from(transposed),
        extra: offset,
        flags,
        ..Op::new(load_rows)
    };
    let access = Access { touch: Touch::Rows, bytes: 2, flags: if stores { WRITES } else { READS } };
    d.emit(Op { run, access, ..op });
    Ok(())
}

/// Host addresses of element `part` (0 or 1) of `lane` in matrix `k`.
fn element_address(hosts: &[u64; LANES], k: usize, lane: usize, part: usize, transposed: bool) -> u64 {
    let (row, column) =
        if transposed { (lane % 4 * 2 + part, lane / 4) } else { (lane / 4, lane % 4 * 2 + part) };
    hosts[k * 8 + row] + column as u64 * 2
}

fn row_hosts(m: &mut Machine<'_>, op: &Op) -> Result<[u64; LANES], Flow> {
    let lanes = if op.c == 4 { FULL } else { (1 << (8 * op.c)) - 1 };
    m.resolve(op, lanes, 16)
}

fn load_rows(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
    let hosts = match row_hosts(m, op) {
        Ok(hosts) => hosts,
        Err(flow) => return flow,
    };
    for (k, &slot) in lists(m, op.b, op.c).iter().enumerate() {
        let values = std::array::from_fn(|lane| {
            (0..2).fold(0, |word, part| {
                let address = element_address(&hosts, k, lane, part, op.d != 0);
                // SAFETY: `resolve` has checked 16 aligned bytes per row, and the element lies in one of the rows.
                word | unsafe { u16::read(address) } << (16 * part)
            })
        });
        m.set_words(slot, &values, mask);
    }
    Flow::Next
}

fn store_rows(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
    let hosts = match row_hosts(m, op) {
        Ok(hosts) => hosts,
        Err(flow) => return flow,
    };
    for (k, &slot) in lists(m, op.b, op.c).iter().enumerate() {
        let values = m.words(slot);
        for lane in (0..LANES).filter(|lane| mask >> lane & 1 != 0) {
            for part in 0..2 {
                let address = element_address(&hosts, k, lane, part, op.d != 0);
                // SAFETY: `resolve` has checked 16 aligned bytes per row, and the element lies in one of the rows.
                unsafe { u16::write(address, values[lane] >> (16 * part)) };
            }
        }
    }
    Flow::Next
}

fn transpose(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
    let source = m.words(op.a);
    let values = std::array::from_fn(|lane| {
        (0..2).fold(0, |word, part| {
            let (row, column) = (lane % 4 * 2 + part, lane / 4);
            let half = source[row * 4 + column / 2] >> (16 * (column & 1)) & 0xffff;
            word | half << (16 * part)
        })
    });
    m.set_words(op.dst, &values, mask);
    Flow::Next
}
