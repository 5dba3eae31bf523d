//! Warp-level matrices: `mma.sync`, `ldmatrix`, `stmatrix`, `movmatrix`.
//!
//! The hardware's order of accumulation is not documented. Here the products of an element are summed in f64 and added
//! to the accumulator with one rounding.

use lightos_kernels::ptx::ast::{Instruction, Operand, Type};

use super::access::{Access, READS, Touch, WRITES};
use super::decode::{Decoded, Decoder, invalid, operands, unsupported};
use super::fragment::{Element, Product, accumulate};
use super::lanes::{FULL, LANES};
use super::moves::{lists, take_space};
use super::op::{Flow, Machine, Op};
use super::operand::Address;
use super::transfer::Element as Cell;
use super::words::Words;

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
    let Some(&(_, rows, depth, widths)) = SHAPES.iter().find(|(name, ..)| w.has(name)) else {
        return unsupported("");
    };
    if !w.has("row") || !w.has("col") {
        return unsupported("");
    }
    let saturates = w.has("satfinite");
    let take = || Element::take(w);
    let (Some(dt), Some(at), Some(bt), Some(ct)) = (take(), take(), take(), take()) else {
        return unsupported("matrices of these types");
    };
    let Some(product) = Product::take(w, at == Element::B1) else {
        return unsupported("this combination of bits");
    };
    let sums = match at {
        _ if at.integer() => dt == Element::S32 && ct == dt,
        Element::F64 => dt == at && ct == dt,
        Element::F16 | Element::E4M3 | Element::E5M2 => {
            let float = |e| matches!(e, Element::F16 | Element::F32);
            float(dt) && float(ct) && (dt == ct || at == Element::F16)
        }
        _ => dt == Element::F32 && ct == dt,
    };
    if !widths.contains(&at.bits()) || !at.pairs_with(bt) || !sums || saturates && !at.integer() {
        return unsupported("matrices of these types in this shape");
    }
    operands(i, 4)?;
    let dst = slots(d, &i.operands[0], dt.register(), true)?;
    let a = slots(d, &i.operands[1], at.register(), false)?;
    let b = slots(d, &i.operands[2], bt.register(), false)?;
    let c = slots(d, &i.operands[3], ct.register(), false)?;
    let count = |elements: u32, per: u32| (elements / 32 / per) as usize;
    let outputs = |ty: Element| count(rows * 8, if ty == Element::F16 { 2 } else { 1 });
    let per = per_register(at);
    let fits = a.len() == count(rows * depth, per) && b.len() == count(8 * depth, per);
    if !fits || dst.len() != outputs(dt) || c.len() != outputs(ct) {
        return invalid("a matrix operand has the wrong number of registers");
    }
    let shape = [dt, at, bt, ct].map(Element::code).into_iter().chain([
        u32::from(saturates),
        u32::from(product == Product::Xor),
        rows / 8,
        depth,
    ]);
    let lengths = [dst.len(), a.len(), b.len(), c.len()].map(|n| n as u32);
    let table: Vec<u32> = shape.chain(lengths).chain(dst).chain(a).chain(b).chain(c).collect();
    let access = Access::of(Touch::Collective);
    let op = Op { c: table.len() as u32, access, ..Op::new(multiplied) };
    let b = d.list(table);
    d.emit(Op { b, ..op });
    Ok(())
}

/// Name, rows, depth, and the widths in bits of the elements of A and B that the shape takes.
const SHAPES: [(&str, u32, u32, &[u32]); 11] = [
    ("m16n8k4", 16, 4, &[32, 64]),
    ("m16n8k8", 16, 8, &[16, 32, 64]),
    ("m16n8k16", 16, 16, &[8, 16, 64]),
    ("m16n8k32", 16, 32, &[4, 8]),
    ("m16n8k64", 16, 64, &[4]),
    ("m16n8k128", 16, 128, &[1]),
    ("m16n8k256", 16, 256, &[1]),
    ("m8n8k4", 8, 4, &[64]),
    ("m8n8k16", 8, 16, &[8]),
    ("m8n8k32", 8, 32, &[4]),
    ("m8n8k128", 8, 128, &[1]),
];

fn per_register(ty: Element) -> u32 {
    (32 / ty.bits()).max(1)
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
    let [dt, at, bt, ct] = [table[0], table[1], table[2], table[3]].map(Element::of_code);
    let [saturates, xor, row_blocks, depth] = [table[4], table[5], table[6], table[7]];
    let product = if xor != 0 { Product::Xor } else { Product::Times };
    let [nd, na, nb, nc] = [table[8], table[9], table[10], table[11]].map(|n| n as usize);
    let (dst, rest) = table[12..].split_at(nd);
    let (a, rest) = rest.split_at(na);
    let (b, c) = rest.split_at(nb);
    debug_assert_eq!(c.len(), nc);
    let per = per_register(at);
    let bits = |m: &Machine<'_>, slots: &[u32], ty: Element, (lane, register, part): (usize, usize, u32)| {
        if ty == Element::F64 {
            m.longs(slots[register])[lane]
        } else {
            u64::from(m.words(slots[register])[lane] >> (part * ty.bits() % 32))
        }
    };
    let rows = row_blocks * 8;
    let mut left = vec![0f64; (rows * depth) as usize];
    let mut right = vec![0f64; (8 * depth) as usize];
    for k in 0..depth {
        for row in 0..rows {
            left[(row * depth + k) as usize] = at.value(bits(m, a, at, position(row, k, per, row_blocks)));
        }
        for column in 0..8 {
            right[(column * depth + k) as usize] = bt.value(bits(m, b, bt, position(column, k, per, 1)));
        }
    }
    let mut out = vec![[0u64; LANES]; nd];
    // A row's pair of elements of C and D is in one lane: two registers, or the halves of one.
    let place = |ty: Element, row: u32, column: u32| {
        let lane = ((row & 7) * 4 + column / 2) as usize;
        let (pair, part) = ((row / 8) as usize, column & 1);
        if ty == Element::F16 { (lane, pair, part) } else { (lane, pair * 2 + part as usize, 0) }
    };
    for row in 0..rows {
        for column in 0..8u32 {
            let (row_at, column_at) = ((row * depth) as usize, (column * depth) as usize);
            let sum: f64 =
                (0..depth as usize).map(|k| product.of(left[row_at + k], right[column_at + k])).sum();
            let start = bits(m, c, ct, place(ct, row, column));
            let result = accumulate(start, ct, sum, dt, saturates != 0);
            let (lane, register, part) = place(dt, row, column);
            out[register][lane] |= result << (part * 16);
        }
    }
    for (&slot, values) in dst.iter().zip(&out) {
        if dt == Element::F64 {
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
                word | unsafe { <u16 as Cell>::read(address) } << (16 * part)
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
                unsafe { <u16 as Cell>::write(address, values[lane] >> (16 * part)) };
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
