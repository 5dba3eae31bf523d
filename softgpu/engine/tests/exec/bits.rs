//! Matrices of numbers below a byte, and the `wmma` shapes for them and for f64, against plain loops with the fragment
//! layouts of the ISA manual.

use crate::harness::{Device, kernel, shape};

/// Numbers that look random.
fn noise(seed: usize) -> u32 {
    (seed as u32).wrapping_mul(2_654_435_761).rotate_left(13).wrapping_mul(0x9e37_79b9) >> 7
}

fn list(prefix: &str, from: usize, count: usize) -> String {
    (from..from + count).map(|k| format!("%{prefix}{k}")).collect::<Vec<_>>().join(", ")
}

/// Element widths: 4 signed, 4 unsigned, 1.
#[derive(Clone, Copy)]
struct Format {
    bits: u32,
    signed: bool,
}

impl Format {
    fn value(self, raw: u32) -> i64 {
        let raw = raw & ((1 << self.bits) - 1);
        if self.signed && raw >> (self.bits - 1) != 0 {
            i64::from(raw) - (1 << self.bits)
        } else {
            i64::from(raw)
        }
    }
}

/// Runs one `mma` with `rows` rows and depth `depth`; `name` is the opcode from the shape on.
fn multiply(
    name: &str,
    rows: usize,
    depth: usize,
    formats: [Format; 2],
    product: impl Fn(i64, i64) -> i64,
    saturates: bool,
) {
    let per = (32 / formats[0].bits) as usize;
    let (na, nb, nd) = (rows * depth / 32 / per, 8 * depth / 32 / per, rows * 8 / 32);
    let ptx = kernel(&format!(
        "ld.param.u64 %rd1, [in]; mad.wide.u32 %rd1, %r0, {}, %rd1; {} 
        mma.sync.aligned.{name} {{{}}}, {{{}}}, {{{}}}, {{{}}}; {} ret;",
        (na + nb + nd) * 4,
        (0..na + nb + nd)
            .map(|k| format!("ld.global.u32 %r{}, [%rd1+{}];", 10 + k, 4 * k))
            .collect::<String>(),
        list("r", 30, nd),
        list("r", 10, na),
        list("r", 10 + na, nb),
        list("r", 10 + na + nb, nd),
        (0..nd).map(|k| format!("st.global.u32 [%rd1+{}], %r{};", 4 * k, 30 + k)).collect::<String>(),
    ));
    let device = Device::default();
    let program = device.load(&ptx).unwrap_or_else(|e| panic!("{e}"));
    let left = |row: usize, k: usize| noise(row * depth + k + 1);
    let right = |k: usize, column: usize| noise(9000 + k * 8 + column);
    let start = |row: usize, column: usize| {
        if saturates { i32::MAX - 3 } else { noise(77 + row * 8 + column) as i32 }
    };
    let mut words = Vec::new();
    for lane in 0..32 {
        let (group, thread) = (lane / 4, lane % 4);
        let mut pack = |elements: &dyn Fn(usize) -> u32, format: Format, registers: usize| {
            for register in 0..registers {
                words.push((0..per).fold(0u32, |word, i| {
                    let raw = elements(register * per + i) & ((1u64 << format.bits) - 1) as u32;
                    word | raw << (i as u32 * format.bits)
                }));
            }
        };
        // ISA: registers alternate between row g and row g + 8, then go on in the second half of the columns.
        let a = |i: usize| {
            let register = i / per;
            let row = if rows == 16 && register % 2 == 1 { group + 8 } else { group };
            let half = if rows == 16 { register / 2 } else { register };
            left(row, half * 4 * per + thread * per + i % per)
        };
        pack(&a, formats[0], na);
        pack(&|i| right(i / per * 4 * per + thread * per + i % per, group), formats[1], nb);
        for i in 0..nd {
            words.push(start(group + 8 * (i / 2), thread * 2 + i % 2) as u32);
        }
    }
    let cell = device.upload(&words);
    device.run(&program, "k", shape(1, 32), &[cell, cell]).unwrap_or_else(|e| panic!("{e}"));
    let got = device.download::<u32>(cell, words.len());
    for lane in 0..32 {
        for i in 0..nd {
            let (row, column) = (lane / 4 + 8 * (i / 2), lane % 4 * 2 + i % 2);
            let sum: i64 = (0..depth)
                .map(|k| product(formats[0].value(left(row, k)), formats[1].value(right(k, column))))
                .sum();
            let exact = i64::from(start(row, column)) + sum;
            let expected =
                if saturates { exact.clamp(i32::MIN.into(), i32::MAX.into()) as u32 } else { exact as u32 };
            assert_eq!(got[lane * (na + nb + nd) + i], expected, "{name} ({row}, {column})");
        }
    }
}

const S4: Format = Format { bits: 4, signed: true };
const U4: Format = Format { bits: 4, signed: false };
const B1: Format = Format { bits: 1, signed: false };

#[test]
fn four_bit_integers() {
    let times = |a, b| a * b;
    multiply("m8n8k32.row.col.s32.s4.u4.s32", 8, 32, [S4, U4], times, false);
    multiply("m16n8k32.row.col.s32.u4.s4.s32", 16, 32, [U4, S4], times, false);
    multiply("m16n8k64.row.col.s32.s4.s4.s32", 16, 64, [S4, S4], times, false);
    multiply("m16n8k64.row.col.satfinite.s32.u4.u4.s32", 16, 64, [U4, U4], times, true);
}

#[test]
fn single_bits() {
    for (shape, rows, depth) in [("m8n8k128", 8, 128), ("m16n8k128", 16, 128), ("m16n8k256", 16, 256)] {
        multiply(
            &format!("{shape}.row.col.s32.b1.b1.s32.xor.popc"),
            rows,
            depth,
            [B1, B1],
            |a, b| a ^ b,
            false,
        );
        multiply(
            &format!("{shape}.row.col.s32.b1.b1.s32.and.popc"),
            rows,
            depth,
            [B1, B1],
            |a, b| a & b,
            false,
        );
    }
}

/// `wmma` through memory alone: A row-major, B column-major, C and D row-major, lines without gaps.
fn through_memory(shape_name: &str, ty: &str, sums: &str, a: Vec<u8>, b: Vec<u8>, c: Vec<u8>) -> Vec<u8> {
    let (prefix, wide) = if ty == "f64" { ("d", 2) } else { ("r", 1) };
    let depth: usize = shape_name.rsplit('k').next().unwrap().parse().unwrap();
    let operation = if ty == "b1" { ".xor.popc" } else { "" };
    let (fa, fb, fc) = (list(prefix, 10, 1), list(prefix, 11, 1), list(prefix, 12, 2));
    let (at_b, at_c) = (a.len(), a.len() + b.len());
    let ptx = kernel(&format!(
        "ld.param.u64 %rd1, [in];
        wmma.load.a.sync.aligned.row.{shape_name}.global.{ty} {{{fa}}}, [%rd1], {depth};
        wmma.load.b.sync.aligned.col.{shape_name}.global.{ty} {{{fb}}}, [%rd1+{at_b}], {depth};
        wmma.load.c.sync.aligned.row.{shape_name}.global.{sums} {{{fc}}}, [%rd1+{at_c}], 8;
        wmma.mma{operation}.sync.aligned.row.col.{shape_name}.{sums}.{ty}.{ty}.{sums} {{{fc}}}, {{{fa}}}, {{{fb}}}, {{{fc}}};
        wmma.store.d.sync.aligned.row.{shape_name}.global.{sums} [%rd1+{at_c}], {{{fc}}}, 8; ret;"
    ));
    let device = Device::default();
    let program = device.load(&ptx).unwrap_or_else(|e| panic!("{e}"));
    let cell = device.upload(&[a, b, c].concat());
    device.run(&program, "k", shape(1, 32), &[cell, cell]).unwrap_or_else(|e| panic!("{e}"));
    device.download::<u8>(cell + at_c as u64, 64 * 4 * wide)
}

#[test]
fn fragments_of_four_bits_and_of_one() {
    let start: Vec<i32> = (0..64).map(|i| noise(i) as i32 >> 8).collect();
    let c: Vec<u8> = start.iter().flat_map(|v| v.to_le_bytes()).collect();
    let sums = |bytes: Vec<u8>| {
        bytes.chunks(4).map(|b| i32::from_le_bytes(b.try_into().unwrap())).collect::<Vec<_>>()
    };
    let bytes = |seed: usize, count: usize| (0..count).map(|i| noise(seed + i) as u8).collect::<Vec<u8>>();
    for (shape_name, ty, format, depth) in
        [("m8n8k32", "s4", S4, 32), ("m8n8k32", "u4", U4, 32), ("m8n8k128", "b1", B1, 128)]
    {
        let length = 8 * depth * format.bits as usize / 8;
        let (a, b) = (bytes(5, length), bytes(500, length));
        let element = |data: &[u8], line: usize, k: usize| {
            let bit = (line * depth + k) * format.bits as usize;
            format.value(u32::from(data[bit / 8]) >> (bit % 8))
        };
        let got = sums(through_memory(shape_name, ty, "s32", a.clone(), b.clone(), c.clone()));
        for (e, got) in got.into_iter().enumerate() {
            let term = |k| {
                let (x, y) = (element(&a, e / 8, k), element(&b, e % 8, k));
                if ty == "b1" { x ^ y } else { x * y }
            };
            let expected = i64::from(start[e]) + (0..depth).map(term).sum::<i64>();
            assert_eq!(i64::from(got), expected, "{ty} element {e}");
        }
    }
}

#[test]
fn fragments_of_doubles() {
    let numbers = |seed: usize, count: usize| {
        (0..count).map(|i| f64::from(noise(seed + i) % 1000) - 500.0).collect::<Vec<_>>()
    };
    let bytes = |list: &[f64]| list.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let (a, b, c) = (numbers(1, 32), numbers(100, 32), numbers(200, 64));
    let got = through_memory("m8n8k4", "f64", "f64", bytes(&a), bytes(&b), bytes(&c));
    for (e, got) in got.chunks(8).enumerate() {
        let sum: f64 = (0..4).map(|k| a[e / 8 * 4 + k] * b[e % 8 * 4 + k]).sum();
        assert_eq!(f64::from_le_bytes(got.try_into().unwrap()), c[e] + sum, "element {e}");
    }
}
