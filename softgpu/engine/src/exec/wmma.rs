//! `wmma.load`, `wmma.mma`, `wmma.store`: matrices in fragments whose layout only the machine knows.
//!
//! Here element number `e` of a matrix (row-major) is in lane `e / n` at place `e % n`, `n` being the matrix' elements per
//! lane, packed from the first register on. Registers that the ISA has beyond that (it stores some matrices twice) are
//! zero. Sums are those of `mma` (see `matrix`).

use half::f16;
use lightos_kernels::ptx::ast::{Instruction, Operand, Type};

use super::access::{Access, READS, Touch, WRITES};
use super::decode::{Decoded, Decoder, invalid, operands, unsupported};
use super::lanes::{FULL, LANES};
use super::matrix::value;
use super::moves::{lists, take_space};
use super::narrow::to_f16;
use super::op::{Flow, Handler, Machine, NONE, Op};
use super::transfer::Element;
use super::words::{Words, type_bytes};

/// Name, rows, columns, depth.
const SHAPES: [(&str, u32, u32, u32); 4] =
    [("m16n16k16", 16, 16, 16), ("m32n8k16", 32, 8, 16), ("m8n32k16", 8, 32, 16), ("m16n16k8", 16, 16, 8)];
const TYPES: [Type; 7] = [Type::F16, Type::BF16, Type::TF32, Type::S8, Type::U8, Type::F32, Type::S32];

/// Geometry of a fragment, packed into one word of the side table: rows, columns, type, and column-major storage.
fn fragment(rows: u32, columns: u32, ty: Type, column_major: bool) -> Decoded<u32> {
    match TYPES.iter().position(|&known| known == ty) {
        Some(code) => Ok(rows | columns << 8 | (code as u32) << 16 | u32::from(column_major) << 24),
        None => unsupported("matrices of this type"),
    }
}

#[derive(Clone, Copy)]
struct Fragment {
    rows: usize,
    columns: usize,
    ty: Type,
    column_major: bool,
}

impl Fragment {
    fn of(word: u32) -> Fragment {
        Fragment {
            rows: (word & 0xff) as usize,
            columns: (word >> 8 & 0xff) as usize,
            ty: TYPES[(word >> 16 & 0xff) as usize % TYPES.len()],
            column_major: word >> 24 != 0,
        }
    }

    fn bits(self) -> u32 {
        if self.ty == Type::TF32 { 32 } else { type_bytes(self.ty) * 8 }
    }

    /// Lane, register and bit position of element `e`.
    fn place(self, e: usize) -> (usize, usize, u32) {
        let each = self.rows * self.columns / LANES;
        let per = (32 / self.bits()) as usize;
        (e / each, e % each / per, (e % each % per) as u32 * self.bits())
    }

    /// Byte offset of element `e` in memory whose lines are `stride` elements apart.
    fn offset(self, e: usize, stride: u64) -> u64 {
        let (row, column) = ((e / self.columns) as u64, (e % self.columns) as u64);
        let index = if self.column_major { column * stride + row } else { row * stride + column };
        index * u64::from(self.bits() / 8)
    }

    fn keep(self) -> u32 {
        u32::MAX >> (32 - self.bits())
    }
}

fn words_of<'a>(d: &mut Decoder<'a, '_>, operand: &'a Operand, target: bool) -> Decoded<Vec<u32>> {
    let Operand::Vector(parts) = operand else { return invalid("expected the registers of a matrix") };
    parts.iter().map(|p| if target { d.destination(p, Type::B32) } else { d.source(p, Type::B32) }).collect()
}

pub fn decode<'a>(d: &mut Decoder<'a, '_>, i: &'a Instruction, w: &Words<'a>) -> Decoded {
    let Some(name) = w.one_of(&["load", "store", "mma"]) else { return unsupported("") };
    let part = w.one_of(&["a", "b", "c", "d"]);
    w.has("sync");
    w.has("aligned");
    let layout = w.one_of(&["row", "col"]) == Some("col");
    let second = w.one_of(&["row", "col"]) == Some("col");
    let Some(&(_, m, n, k)) = SHAPES.iter().find(|(shape, ..)| w.has(shape)) else { return unsupported("") };
    if name == "mma" {
        return multiply(d, i, w, [m, n, k], [layout, second]);
    }
    let space = take_space(w);
    let Some(ty) = w.ty() else { return invalid("a matrix needs a type") };
    let (rows, columns) = match part {
        Some("a") => (m, k),
        Some("b") => (k, n),
        _ => (m, n),
    };
    let stores = name == "store";
    let (address, registers) = if stores { (0, 1) } else { (1, 0) };
    if i.operands.len() < 2 {
        return operands(i, 2);
    }
    let address = d.address(&i.operands[address], space)?;
    let slots = words_of(d, &i.operands[registers], !stores)?;
    let stride = match i.operands.get(2) {
        Some(operand) => d.source(operand, Type::U32)?,
        None => d.constants().word(if layout { rows } else { columns }),
    };
    let shape = fragment(rows, columns, ty, layout)?;
    let needed = (rows * columns * Fragment::of(shape).bits()).div_ceil(32 * 32);
    if slots.len() < needed as usize {
        return invalid("a matrix operand has the wrong number of registers");
    }
    let c = slots.len() as u32;
    let b = d.list(slots);
    let run: Handler = if stores { store } else { load };
    d.emit(Op {
        a: address.base,
        b,
        c,
        d: stride,
        extra: address.offset,
        flags: address.flags,
        access: Access { touch: Touch::Matrix, bytes: 0, flags: if stores { WRITES } else { READS } },
        ..Op::new(run)
    });
    // The fragment's word follows the registers.
    d.list([shape]);
    Ok(())
}

/// Calls `access(host, lane, register, shift)` for each element of the matrix that `op` addresses.
fn each(
    m: &mut Machine<'_>,
    op: &Op,
    mask: u32,
    mut access: impl FnMut(&mut Machine<'_>, Fragment, u64, (usize, usize, u32)),
) -> Flow {
    let shape = Fragment::of(lists(m, op.b + op.c, 1)[0]);
    if mask != FULL {
        return incomplete(m, op, mask);
    }
    let stride = u64::from(m.words(op.d)[0]);
    for e in 0..shape.rows * shape.columns {
        let at = Op { extra: op.extra.wrapping_add(shape.offset(e, stride)), ..*op };
        let host = match m.resolve(&at, 1, shape.bits() / 8) {
            Ok(hosts) => hosts[0],
            Err(flow) => return flow,
        };
        access(m, shape, host, shape.place(e));
    }
    Flow::Next
}

/// For each element that a load or store touches: the access of one lane that reaches it, the lane whose element it is, and
/// its size in bytes.
pub fn elements(m: &Machine<'_>, op: &Op) -> impl Iterator<Item = (Op, usize, u32)> + use<> {
    let shape = Fragment::of(lists(m, op.b + op.c, 1)[0]);
    let (op, stride) = (*op, u64::from(m.words(op.d)[0]));
    (0..shape.rows * shape.columns).map(move |e| {
        let extra = op.extra.wrapping_add(shape.offset(e, stride));
        (Op { extra, ..op }, shape.place(e).0, shape.bits() / 8)
    })
}

#[cold]
fn incomplete(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
    let place = m.place(op, mask.trailing_zeros());
    m.fail(super::Fault::IllegalInstruction { what: "wmma with lanes missing".to_owned(), place })
}

fn load(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
    let slots = lists(m, op.b, op.c);
    let mut values = vec![[0u32; LANES]; slots.len()];
    let flow = each(m, op, mask, |_, shape, host, (lane, register, shift)| {
        // SAFETY: `each` hands out addresses that `resolve` has checked for an element of this size.
        let bits = unsafe {
            match shape.bits() {
                8 => u8::read(host),
                16 => u16::read(host),
                _ => u32::read(host),
            }
        };
        values[register][lane] |= bits << shift;
    });
    if flow == Flow::Next {
        for (&slot, values) in slots.iter().zip(&values) {
            m.set_words(slot, values, mask);
        }
    }
    flow
}

fn store(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
    let slots = lists(m, op.b, op.c);
    each(m, op, mask, |m, shape, host, (lane, register, shift)| {
        let bits = m.words(slots[register])[lane] >> shift;
        // SAFETY: `each` hands out addresses that `resolve` has checked for an element of this size.
        unsafe {
            match shape.bits() {
                8 => u8::write(host, bits),
                16 => u16::write(host, bits),
                _ => u32::write(host, bits),
            }
        }
    })
}

fn multiply<'a>(
    d: &mut Decoder<'a, '_>,
    i: &'a Instruction,
    w: &Words<'a>,
    [m, n, k]: [u32; 3],
    [a_columns, b_columns]: [bool; 2],
) -> Decoded {
    let saturates = w.has("satfinite");
    let (dt, at, bt, ct) = match (w.ty(), w.ty(), w.ty(), w.ty()) {
        (Some(dt), Some(ct), None, None) => (dt, Type::F16, Type::F16, ct),
        (Some(dt), Some(at), Some(bt), Some(ct)) => (dt, at, bt, ct),
        _ => return invalid("wmma.mma needs two or four types"),
    };
    operands(i, 4)?;
    let shapes = [
        fragment(m, n, dt, false)?,
        fragment(m, k, at, a_columns)?,
        fragment(k, n, bt, b_columns)?,
        fragment(m, n, ct, false)?,
    ];
    let mut table = shapes.to_vec();
    let mut slots = Vec::new();
    for (index, (operand, shape)) in i.operands.iter().zip(shapes).enumerate() {
        let registers = words_of(d, operand, index == 0)?;
        let shape = Fragment::of(shape);
        let needed = (shape.rows * shape.columns).div_ceil(LANES) * shape.bits() as usize / 32;
        if registers.len() < needed {
            return invalid("a matrix operand has the wrong number of registers");
        }
        table.push(registers.len() as u32);
        slots.extend(registers);
    }
    table.extend(slots);
    let c = table.len() as u32;
    let b = d.list(table);
    let access = Access::of(Touch::Collective);
    d.emit(Op { a: NONE, b, c, flags: u32::from(saturates), access, ..Op::new(multiplied) });
    Ok(())
}

fn multiplied(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
    if mask != FULL {
        return incomplete(m, op, mask);
    }
    let table = lists(m, op.b, op.c);
    let shapes = [0, 1, 2, 3].map(|index| Fragment::of(table[index]));
    let mut rest = &table[8..];
    let slots = [0, 1, 2, 3].map(|index| {
        let (own, after) = rest.split_at(table[4 + index] as usize);
        rest = after;
        own
    });
    let element = |m: &Machine<'_>, which: usize, e: usize| {
        let (lane, register, shift) = shapes[which].place(e);
        m.words(slots[which][register])[lane] >> shift & shapes[which].keep()
    };
    let [out, a, b, _] = shapes;
    let left: Vec<f64> = (0..a.rows * a.columns).map(|e| value(element(m, 1, e), a.ty)).collect();
    let right: Vec<f64> = (0..b.rows * b.columns).map(|e| value(element(m, 2, e), b.ty)).collect();
    let mut results = vec![[0u32; LANES]; slots[0].len()];
    for e in 0..out.rows * out.columns {
        let (row, column) = (e / out.columns, e % out.columns);
        let sum: f64 =
            (0..a.columns).map(|k| left[row * a.columns + k] * right[k * b.columns + column]).sum();
        let start = element(m, 3, e);
        let bits = match (out.ty, shapes[3].ty) {
            (Type::S32, _) => {
                let exact = i64::from(start as i32) + sum as i64;
                let clamped = exact.clamp(i32::MIN.into(), i32::MAX.into());
                if op.flags != 0 { clamped as u32 } else { exact as u32 }
            }
            (Type::F16, ty) => u32::from(to_f16((value(start, ty) + sum) as f32).to_bits()),
            (_, Type::F16) => ((f16::from_bits(start as u16).to_f64() + sum) as f32).to_bits(),
            _ => ((f64::from(f32::from_bits(start)) + sum) as f32).to_bits(),
        };
        let (lane, register, shift) = out.place(e);
        results[register][lane] |= bits << shift;
    }
    for (&slot, values) in slots[0].iter().zip(&results) {
        m.set_words(slot, values, mask);
    }
    Flow::Next
}
