//! NVRTC's output for real CUDA C, run: what the compiler makes of recursion, virtual functions, printf, atomics.
//! Sources: `kernels/cuda/fixtures`.

use lightos_softgpu_engine::exec::{Fault, Program};

use crate::harness::{Device, Shape, shape};

/// Runs `test` on both compilations of a fixture: CUDA 12.4 for compute_75 and 13.x for compute_90.
fn both(name: &str, test: impl Fn(&Device, &Program)) {
    for version in ["12_4.compute_75", "13_5.compute_90"] {
        let path =
            format!("{}/../../kernels/tests/fixtures/{name}.{version}.ptx", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
        let device = Device::default();
        let program = device.load(&text).unwrap_or_else(|e| panic!("{path}: {e}"));
        test(&device, &program);
    }
}

/// Little-endian parameters with natural alignment.
pub fn params(list: &[&dyn Bytes]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for value in list {
        let value = value.bytes();
        bytes.resize(bytes.len().next_multiple_of(value.len()), 0);
        bytes.extend(value);
    }
    bytes
}

pub trait Bytes {
    fn bytes(&self) -> Vec<u8>;
}

macro_rules! bytes {
    ($($ty:ty)*) => {$(
        impl Bytes for $ty {
            fn bytes(&self) -> Vec<u8> {
                self.to_le_bytes().to_vec()
            }
        }
    )*};
}
bytes!(i32 u32 u64 f32 f64);

#[test]
fn calls_recursive_indirect_virtual() {
    both("calls", |device, program| {
        for which in 0..3 {
            let deep = device.allocate(8 * 40);
            let out = device.upload(&[0f32, 3.0, 2.0, 5.0, 2.0, 0.0]);
            device.run_bytes(program, "call", shape(1, 40), &params(&[&deep, &out, &which])).unwrap();
            let expected: Vec<u64> = (0..40).map(|n| 2 * n + 3).collect();
            assert_eq!(device.download::<u64>(deep, 40), expected);
            let got = device.download::<f32>(out, 6);
            assert!((got[0] - [5.0, 6.0, 9.0][which as usize]).abs() < 1e-5, "{}", got[0]);
            assert_eq!(got[5], if which != 0 { 25.0 } else { std::f32::consts::PI * 4.0 });
        }
    });
}

#[test]
fn switches_by_table() {
    both("control", |device, program| {
        let expected = |operation: i32, v: i32| match operation {
            0 => v + 11,
            1 => v * 3,
            2 => v / 7,
            3 => v % 5,
            4 => v << 3,
            5 => v.count_ones() as i32,
            6 => v ^ 0x55,
            7 => -v,
            8 => 99,
            9 => v.leading_zeros() as i32,
            _ => -1,
        };
        for operation in 0..11 {
            let out = device.upload(&[-1, 0, 0, 0, 0, 0, 0, 0, 0, 99]);
            device
                .run_bytes(program, "dispatch", shape(1, 1), &params(&[&out, &operation, &-12345]))
                .unwrap();
            assert_eq!(device.download::<i32>(out, 1), [expected(operation, -12345)], "{operation}");
        }
    });
}

#[test]
fn print_heap_assert_trap() {
    both("output", |device, program| {
        device.run_bytes(program, "report", shape(1, 1), &params(&[&6, &0.25f64])).unwrap();
        assert_eq!(*device.printed.lock().unwrap(), "thread 0 of 6: \"quoted\ttext\" 0.250000\n9\n");
        match device.run_bytes(program, "report", shape(1, 1), &params(&[&-1, &0.0f64])) {
            Err(Fault::Assert { message, .. }) => assert_eq!(message, "output.cu:11: report: `n >= 0`"),
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn variables_with_initialisers() {
    both("globals", |device, program| {
        let out = device.allocate(32);
        device.run_bytes(program, "read_all", shape(1, 1), &params(&[&out, &1])).unwrap();
        let got = device.download::<f64>(out, 4);
        // -5 + 2 + matrix[1][1] + rows[1].value + 2
        assert_eq!(got[0], -5.0 + 2.0 + -0.0 + -1.5 + 2.0);
        assert_eq!(got[1], -5.0 + -0.0 + f64::from(b'e'));
        assert_eq!(got[2], 0.2 + 0.0 + 3.0);
        assert_eq!(got[3], 0.0);
        device.run_bytes(program, "read_all", shape(1, 1), &params(&[&out, &1])).unwrap();
        let got = device.download::<f64>(out, 4);
        assert_eq!((got[1], got[3]), (-5.0 + f64::from(b'e') + 1.0, 1.0));
    });
}

#[test]
fn structs_by_value() {
    both("structs", |device, program| {
        let name = program.kernels().find(|k| k.name.contains("sort_pairs") && k.name.contains('i')).unwrap();
        let data = device.upload(&[2, 1, 3, 4, 9, -9, 0, 0]);
        device.run_bytes(program, &name.name, shape(1, 1), &params(&[&data])).unwrap();
        assert_eq!(device.download::<i32>(data, 8), [1, 2, 3, 4, -9, 9, 0, 0]);
        let info = program.kernel("by_value").unwrap();
        assert_eq!(
            info.params.iter().map(|p| (p.offset, p.size)).collect::<Vec<_>>(),
            [(0, 56), (56, 8), (64, 4)]
        );
        // struct Outer: scale, two of (weight, code[3]), table, tag.
        let table = device.upload(&[100, 200, 300]);
        let mut outer = vec![0u8; 56];
        outer[..4].copy_from_slice(&2.0f32.to_le_bytes());
        outer[24..32].copy_from_slice(&1.25f64.to_le_bytes());
        outer[34..36].copy_from_slice(&7i16.to_le_bytes());
        outer[40..48].copy_from_slice(&table.to_le_bytes());
        outer[48] = 3;
        let out = device.allocate(24);
        outer.extend(params(&[&out, &1]));
        device.run_bytes(program, "by_value", shape(1, 3), &outer).unwrap();
        assert_eq!(device.download::<f64>(out, 3), [112.5, 212.5, 312.5]);
    });
}

#[test]
fn shared_memory_histogram_sort_votes() {
    both("shared_memory", |device, program| {
        let data: Vec<u8> = (0..10_000u32).map(|i| (i * i % 251) as u8).collect();
        let (input, bins) = (device.upload(&data), device.allocate(1024));
        let list = params(&[&input, &(data.len() as u32), &bins]);
        device.run_bytes(program, "histogram", shape(7, 192), &list).unwrap();
        let mut expected = vec![0u32; 256];
        data.iter().for_each(|&byte| expected[usize::from(byte)] += 1);
        assert_eq!(device.download::<u32>(bins, 256), expected);

        let mut values: Vec<i32> = (0..1024).map(|i| (i * 7919) % 1009 - 500).collect();
        let list = device.upload(&values);
        let run = Shape { shared: 512 * 4, ..shape(2, 512) };
        device.run_bytes(program, "bitonic", run, &params(&[&list])).unwrap();
        values[..512].sort();
        values[512..].sort();
        assert_eq!(device.download::<i32>(list, 1024), values);

        let input = device.upload(&(1..=100).collect::<Vec<i32>>());
        let out = device.allocate(400);
        device.run_bytes(program, "votes", shape(1, 100), &params(&[&input, &out])).unwrap();
        assert!(device.download::<i32>(out, 100).iter().all(|&v| v & 1 == 1 && v & 2 == 2 && v >> 2 == 50));
    });
}

fn close(got: f64, wanted: f64, tolerance: f64) {
    assert!((got - wanted).abs() <= tolerance * wanted.abs().max(1.0), "{got} instead of {wanted}");
}

#[test]
fn library_functions() {
    both("maths", |device, program| {
        for x in [0.1f64, 0.75, 1.0, 2.5, 7.25, 40.5] {
            let (input, out) = (device.upload(&[x]), device.allocate(64));
            device.run_bytes(program, "doubles", shape(1, 1), &params(&[&input, &out])).unwrap();
            let got = device.download::<f64>(out, 3);
            close(got[0], x.sin() + x.cos() * x.exp() - x.ln(), 1e-14);
            close(got[1], x.powf(0.3) + x.sqrt() + 1.0 / x, 1e-14);
            assert_eq!(got[2], x.mul_add(x, x) + x.floor() + x.trunc() + f64::from(x as f32));

            let f = x as f32;
            let input = device.upload(&[f]);
            device.run_bytes(program, "singles", shape(1, 1), &params(&[&input, &out])).unwrap();
            let got = device.download::<f32>(out, 7).into_iter().map(f64::from).collect::<Vec<_>>();
            let x = f64::from(f);
            close(got[0], x.sin() + x.cos() + x.tan(), 1e-5);
            close(got[1], x.exp() + x.ln() + x.powf(1.7) + x.exp2(), 1e-5);
            close(got[2], x.sqrt() + 1.0 / x.sqrt() + x.cbrt() + x / 3.1, 1e-6);
            close(got[3], x % 2.5 + x.floor() + x.round_ties_even() + x.trunc() - x, 1e-6);
            close(got[6], x.round_ties_even() + x.trunc() * 2.0, 1e-7);
        }
    });
}
