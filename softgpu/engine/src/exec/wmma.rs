//! `wmma.load`, `wmma.mma`, `wmma.store`: matrices in fragments whose layout only the machine knows.
//!
//! Here element number `e` of a matrix (row-major) is in lane `e / n` at place `e % n`, `n` being the matrix' elements per
//! lane, packed from the first register on. Registers that the ISA has beyond that (it stores some matrices twice) are
//! zero. Sums are those of `mma` (see `matrix`).

use lightos_kernels::ptx::ast::{Instruction, Operand, Type};

use super::access::{Access, READS, Touch, WRITES};
use super::decode::{Decoded, Decoder, invalid, operands, unsupported};
use super::fragment::{Element, Product, accumulate};
use super::lanes::{FULL, LANES};
use super::moves::{lists, take_space};
use super::op::{Flow, Handler, Machine, NONE, Op};
use super::transfer::Element as Cell;
use super::words::Words;

/// Name, rows, columns, depth, and the widths in bits of the elements of A and B that the shape takes.
const SHAPES: [(&str, u32, u32, u32, &[u32]); 7] = [
    ("m16n16k16", 16, 16, 16, &[8, 16]),
    ("m32n8k16", 32, 8, 16, &[8, 16]),
    ("m8n32k16", 8, 32, 16, &[8, 16]),
    ("m16n16k8", 16, 16, 8, &[32]),
    ("m8n8k4", 8, 8, 4, &[64]),
    ("m8n8k32", 8, 8, 32, &[4]),
    ("m8n8k128", 8, 8, 128, &[1]),
];

/// Geometry of a fragment, packed into one word of the side table: rows, columns, type, and column-major storage.
fn fragment(rows: u32, columns: u32, ty: Element, column_major: bool) -> u32 {
    rows | columns << 8 | ty.code() << 16 | u32::from(column_major) << 24
}

#[derive(Clone, Copy)]
struct Fragment {
    rows: usize,
    columns: usize,
    ty: Element,
    column_major: bool,
}

impl Fragment {
    fn of(word: u32) -> Fragment {
        Fragment {
            rows: (word & 0xff) as usize,
            columns: (word >> 8 & 0xff) as usize,
            ty: Element::of_code(word >> 16 & 0xff),
            column_major: word >> 24 != 0,
        }
    }

    fn bits(self) -> u32 {
        self.ty.bits()
    }

    /// Bytes of one memory access.
    fn access(self) -> u32 {
        self.bits().div_ceil(8)
    }

    /// Lane, register and bit position of element `e`.
    fn place(self, e: usize) -> (usize, usize, u32) {
        let each = self.rows * self.columns / LANES;
        let per = (32 / self.bits()).max(1) as usize;
        (e / each, e % each / per, (e % each % per) as u32 * self.bits())
    }

    /// Byte offset of element `e` in memory whose lines are `stride` elements apart, and its place in that byte in bits.
    fn offset(self, e: usize, stride: u64) -> (u64, u32) {
        let (row, column) = ((e / self.columns) as u64, (e % self.columns) as u64);
        let index = if self.column_major { column * stride + row } else { row * stride + column };
        let bit = index.wrapping_mul(u64::from(self.bits()));
        (bit / 8, (bit % 8) as u32)
    }

    fn keep(self) -> u64 {
        u64::MAX >> (64 - self.bits())
    }

    /// Registers that the fragment takes.
    fn registers(self) -> usize {
        let each = self.rows * self.columns / LANES;
        (each * self.bits() as usize).div_ceil(self.bits().max(32) as usize)
    }
}

fn registers_of<'a>(
    d: &mut Decoder<'a, '_>,
    operand: &'a Operand,
    shape: Fragment,
    target: bool,
) -> Decoded<Vec<u32>> {
    let Operand::Vector(parts) = operand else { return invalid("expected the registers of a matrix") };
    let ty = shape.ty.register();
    let slots: Decoded<Vec<u32>> =
        parts.iter().map(|p| if target { d.destination(p, ty) } else { d.source(p, ty) }).collect();
    match slots? {
        slots if slots.len() < shape.registers() => {
            invalid("a matrix operand has the wrong number of registers")
        }
        slots => Ok(slots),
    }
}

/// The bits of register `slot` in `lane`.
fn register(m: &Machine<'_>, shape: Fragment, slot: u32, lane: usize) -> u64 {
    if shape.ty == Element::F64 { m.longs(slot)[lane] } else { u64::from(m.words(slot)[lane]) }
}

fn set_register(m: &mut Machine<'_>, shape: Fragment, slot: u32, values: &[u64; LANES], mask: u32) {
    if shape.ty == Element::F64 {
        m.set_longs(slot, values, mask);
    } else {
        m.set_words(slot, &values.map(|v| v as u32), mask);
    }
}

pub fn decode<'a>(d: &mut Decoder<'a, '_>, i: &'a Instruction, w: &Words<'a>) -> Decoded {
    let Some(name) = w.one_of(&["load", "store", "mma"]) else { return unsupported("") };
    let part = w.one_of(&["a", "b", "c", "d"]);
    w.has("sync");
    w.has("aligned");
    let layout = w.one_of(&["row", "col"]) == Some("col");
    let second = w.one_of(&["row", "col"]) == Some("col");
    let Some(&(_, m, n, k, widths)) = SHAPES.iter().find(|(shape, ..)| w.has(shape)) else {
        return unsupported("");
    };
    if name == "mma" {
        return multiply(d, i, w, [m, n, k], widths, [layout, second]);
    }
    let space = take_space(w);
    let Some(ty) = Element::take(w) else { return unsupported("matrices of this type") };
    let (rows, columns) = match part {
        Some("a") => (m, k),
        Some("b") => (k, n),
        _ => (m, n),
    };
    let sums = matches!(ty, Element::F16 | Element::F32 | Element::S32 | Element::F64);
    if !(if matches!(part, Some("a" | "b")) { widths.contains(&ty.bits()) } else { sums }) {
        return unsupported("matrices of this type in this shape");
    }
    let stores = name == "store";
    let (address, registers) = if stores { (0, 1) } else { (1, 0) };
    if i.operands.len() != 3 {
        operands(i, 2)?;
    }
    let address = d.address(&i.operands[address], space)?;
    let shape = fragment(rows, columns, ty, layout);
    let slots = registers_of(d, &i.operands[registers], Fragment::of(shape), !stores)?;
    let stride = match i.operands.get(2) {
        Some(operand) => d.source(operand, Type::U32)?,
        None => d.constants().word(if layout { rows } else { columns }),
    };
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

/// Calls `access(host, bit, place)` for each element of the matrix that `op` addresses.
fn each(
    m: &mut Machine<'_>,
    op: &Op,
    mask: u32,
    mut access: impl FnMut(&mut Machine<'_>, Fragment, (u64, u32), (usize, usize, u32)),
) -> Flow {
    let shape = Fragment::of(lists(m, op.b + op.c, 1)[0]);
    if mask != FULL {
        return incomplete(m, op, mask);
    }
    let stride = u64::from(m.words(op.d)[0]);
    for e in 0..shape.rows * shape.columns {
        let (offset, bit) = shape.offset(e, stride);
        let at = Op { extra: op.extra.wrapping_add(offset), ..*op };
        let host = match m.resolve(&at, 1, shape.access()) {
            Ok(hosts) => hosts[0],
            Err(flow) => return flow,
        };
        access(m, shape, (host, bit), shape.place(e));
    }
    Flow::Next
}

/// For each element that a load or store touches: the access of one lane that reaches it, the lane whose element it is, and
/// its size in bytes.
pub fn elements(m: &Machine<'_>, op: &Op) -> impl Iterator<Item = (Op, usize, u32)> + use<> {
    let shape = Fragment::of(lists(m, op.b + op.c, 1)[0]);
    let (op, stride) = (*op, u64::from(m.words(op.d)[0]));
    (0..shape.rows * shape.columns).map(move |e| {
        let extra = op.extra.wrapping_add(shape.offset(e, stride).0);
        (Op { extra, ..op }, shape.place(e).0, shape.access())
    })
}

#[cold]
fn incomplete(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
    let place = m.place(op, mask.trailing_zeros());
    m.fail(super::Fault::IllegalInstruction { what: "wmma with lanes missing".to_owned(), place })
}

fn load(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
    let slots = lists(m, op.b, op.c);
    let shape = Fragment::of(lists(m, op.b + op.c, 1)[0]);
    let mut values = vec![[0u64; LANES]; slots.len()];
    let flow = each(m, op, mask, |_, shape, (host, bit), (lane, register, shift)| {
        // SAFETY: `each` hands out addresses that `resolve` has checked for an element of this size.
        let bits = unsafe {
            match shape.access() {
                1 => u64::from(<u8 as Cell>::read(host)) >> bit & shape.keep(),
                2 => u64::from(<u16 as Cell>::read(host)),
                4 => u64::from(<u32 as Cell>::read(host)),
                _ => <u64 as Cell>::read(host),
            }
        };
        values[register][lane] |= bits << shift;
    });
    if flow == Flow::Next {
        for (&slot, values) in slots.iter().zip(&values) {
            set_register(m, shape, slot, values, mask);
        }
    }
    flow
}

/// Only results are stored, whose elements are 16 bits wide or more.
fn store(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
    let slots = lists(m, op.b, op.c);
    each(m, op, mask, |m, shape, (host, _), (lane, place, shift)| {
        let bits = register(m, shape, slots[place], lane) >> shift;
        // SAFETY: `each` hands out addresses that `resolve` has checked for an element of this size.
        unsafe {
            match shape.access() {
                2 => <u16 as Cell>::write(host, bits as u32),
                4 => <u32 as Cell>::write(host, bits as u32),
                _ => <u64 as Cell>::write(host, bits),
            }
        }
    })
}

fn multiply<'a>(
    d: &mut Decoder<'a, '_>,
    i: &'a Instruction,
    w: &Words<'a>,
    [m, n, k]: [u32; 3],
    widths: &[u32],
    [a_columns, b_columns]: [bool; 2],
) -> Decoded {
    let saturates = w.has("satfinite");
    w.has("rn");
    let take = || Element::take(w);
    let (dt, at, bt, ct) = match (take(), take(), take(), take()) {
        (Some(dt), Some(ct), None, None) => (dt, Element::F16, Element::F16, ct),
        (Some(dt), Some(at), Some(bt), Some(ct)) => (dt, at, bt, ct),
        _ => return unsupported("matrices of these types"),
    };
    let Some(product) = Product::take(w, at == Element::B1) else {
        return unsupported("this combination of bits");
    };
    let sums = match at {
        _ if at.integer() => dt == Element::S32 && ct == dt,
        Element::F64 => dt == at && ct == dt,
        Element::F16 => [dt, ct].iter().all(|e| matches!(e, Element::F16 | Element::F32)),
        _ => dt == Element::F32 && ct == dt,
    };
    if at != bt || !widths.contains(&at.bits()) || !sums {
        return unsupported("matrices of these types in this shape");
    }
    operands(i, 4)?;
    let shapes = [
        fragment(m, n, dt, false),
        fragment(m, k, at, a_columns),
        fragment(k, n, bt, b_columns),
        fragment(m, n, ct, false),
    ];
    let mut table = shapes.to_vec();
    let mut slots = Vec::new();
    for (index, (operand, shape)) in i.operands.iter().zip(shapes).enumerate() {
        let registers = registers_of(d, operand, Fragment::of(shape), index == 0)?;
        table.push(registers.len() as u32);
        slots.extend(registers);
    }
    table.extend(slots);
    let c = table.len() as u32;
    let b = d.list(table);
    let flags = u32::from(saturates) | u32::from(product == Product::Xor) << 1;
    let access = Access::of(Touch::Collective);
    d.emit(Op { a: NONE, b, c, flags, access, ..Op::new(multiplied) });
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
        let (lane, place, shift) = shapes[which].place(e);
        register(m, shapes[which], slots[which][place], lane) >> shift & shapes[which].keep()
    };
    let product = if op.flags & 2 != 0 { Product::Xor } else { Product::Times };
    let [out, a, b, start] = shapes;
    let left: Vec<f64> = (0..a.rows * a.columns).map(|e| a.ty.value(element(m, 1, e))).collect();
    let right: Vec<f64> = (0..b.rows * b.columns).map(|e| b.ty.value(element(m, 2, e))).collect();
    let mut results = vec![[0u64; LANES]; slots[0].len()];
    for e in 0..out.rows * out.columns {
        let (row, column) = (e / out.columns, e % out.columns);
        let terms =
            (0..a.columns).map(|k| product.of(left[row * a.columns + k], right[k * b.columns + column]));
        let bits = accumulate(element(m, 3, e), start.ty, terms.sum(), out.ty, op.flags & 1 != 0);
        let (lane, place, shift) = out.place(e);
        results[place][lane] |= bits << shift;
    }
    for (&slot, values) in slots[0].iter().zip(&results) {
        set_register(m, out, slot, values, mask);
    }
    Flow::Next
}
