//! Triton's output, run. Sources: `kernels/cuda/fixtures/triton_kernels.py`.

use half::{bf16, f16};
use lightos_softgpu_engine::exec::Program;

use crate::compiled::params;
use crate::harness::{Device, Shape, shape};

fn load(device: &Device, name: &str) -> Program {
    let path = format!("{}/../../kernels/tests/fixtures/triton-{name}.ptx", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    device.load(&text).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Numbers between -2 and 2 that look random, multiples of 1/64.
fn number(seed: usize) -> f32 {
    let bits = (seed as u32).wrapping_mul(2_654_435_761).rotate_left(11).wrapping_mul(0x85eb_ca6b);
    (bits >> 24) as f32 / 64.0 - 2.0
}

#[test]
fn rows_are_normalised_to_one() {
    let (rows, stride, n) = (3usize, 200usize, 190usize);
    let device = Device::default();
    let program = load(&device, "softmax.sm_80");
    let input: Vec<f32> = (0..rows * stride).map(|i| number(i) * 4.0).collect();
    let (x, out) = (device.upload(&input), device.allocate((rows * stride * 4) as u64));
    let list = params(&[&out, &x, &(stride as i32), &(n as i32), &0u64]);
    device.run_bytes(&program, "softmax", Shape { shared: 8, ..shape(rows as u32, 64) }, &list).unwrap();
    let got = device.download::<f32>(out, rows * stride);
    for (row, got) in got.chunks(stride).enumerate() {
        let powers: Vec<f64> = input[row * stride..][..n].iter().map(|&v| f64::from(v).exp()).collect();
        let sum: f64 = powers.iter().sum();
        for (i, power) in powers.iter().enumerate() {
            assert!((f64::from(got[i]) - power / sum).abs() < 1e-6 * power / sum + 1e-9, "({row}, {i})");
        }
        assert_eq!(got[n..], vec![0.0; stride - n], "beyond the mask");
    }
}

#[test]
fn rows_get_mean_0_and_variance_1() {
    let (rows, stride, n) = (2usize, 256usize, 250usize);
    let device = Device::default();
    let program = load(&device, "layernorm.sm_90");
    let input: Vec<bf16> = (0..rows * stride).map(|i| bf16::from_f32(number(i))).collect();
    let weight: Vec<f32> = (0..n).map(|i| number(i + 5000)).collect();
    let bias: Vec<f32> = (0..n).map(|i| number(i + 7000)).collect();
    let (x, y) = (device.upload(&input), device.allocate((rows * stride * 2) as u64));
    let (w, b) = (device.upload(&weight), device.upload(&bias));
    let list = params(&[&x, &y, &w, &b, &(stride as i32), &(n as i32), &1e-5f32, &0u64]);
    device.run_bytes(&program, "layernorm", Shape { shared: 8, ..shape(rows as u32, 64) }, &list).unwrap();
    for (row, got) in device.download::<bf16>(y, rows * stride).chunks(stride).enumerate() {
        let values: Vec<f64> = input[row * stride..][..n].iter().map(|v| v.to_f64()).collect();
        let mean = values.iter().sum::<f64>() / n as f64;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n as f64;
        for i in 0..n {
            let exact =
                (values[i] - mean) / (variance + 1e-5).sqrt() * f64::from(weight[i]) + f64::from(bias[i]);
            let error = (got[i].to_f64() - exact).abs();
            // Half a unit of bf16's last place, and what f32 sums may lose.
            assert!(error <= exact.abs() / 256.0 + 1e-5, "({row}, {i}): {} instead of {exact}", got[i]);
        }
    }
}

/// Runs a product whose tile is `tile`, and compares with plain sums: the inputs are exact and small, so the sums are too.
fn product<T: Copy>(name: &str, threads: u32, tile: u32, shared: u32, round: impl Fn(f32) -> (T, f32)) {
    let (rows, columns, depth) = (40usize, 37usize, 70usize);
    let device = Device::default();
    let program = load(&device, name);
    let (a, left): (Vec<T>, Vec<f32>) = (0..rows * depth).map(|i| round(number(i))).unzip();
    let (b, right): (Vec<T>, Vec<f32>) = (0..depth * columns).map(|i| round(number(i + 40_000))).unzip();
    // Rows beyond M are read without a mask: leave room behind A.
    let room = vec![a[0]; 32 * depth];
    let pa = device.upload(&[a, room].concat());
    let pb = device.upload(&[b, vec![round(0.0).0; 64]].concat());
    let c = device.allocate((rows * columns * 4) as u64);
    let [m, n, k] = [rows, columns, depth].map(|v| v as i32);
    let list = params(&[&pa, &pb, &c, &m, &n, &k, &k, &1, &n, &1, &n, &1, &0u64]);
    let grid = [(rows as u32).div_ceil(tile), (columns as u32).div_ceil(tile), 1];
    let run = Shape { grid, shared, ..shape(1, threads) };
    device.run_bytes(&program, "matmul", run, &list).unwrap_or_else(|e| panic!("{name}: {e}"));
    for (e, got) in device.download::<f32>(c, rows * columns).into_iter().enumerate() {
        let (row, column) = (e / columns, e % columns);
        let exact: f64 = (0..depth)
            .map(|k| f64::from(left[row * depth + k]) * f64::from(right[k * columns + column]))
            .sum();
        assert!((f64::from(got) - exact).abs() < 1e-4, "{name} ({row}, {column}): {got} instead of {exact}");
    }
}

#[test]
fn tiles_of_f16_multiply() {
    product("matmul.sm_80", 64, 32, 8192, |v| (f16::from_f32(v), v));
}

#[test]
fn tiles_of_8_bits_multiply() {
    // e5m2 is the upper byte of an f16; numbers with two bits of mantissa are exact in it.
    product("matmul-fp8.sm_80", 32, 16, 4096, |v| {
        let byte = (f16::from_f32(v).to_bits() >> 8) as u8;
        (byte, f16::from_bits(u16::from(byte) << 8).to_f32())
    });
}
