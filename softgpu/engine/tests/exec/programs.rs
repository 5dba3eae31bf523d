//! Whole kernels.

use lightos_kernels::{Geometry, reduction, sgemm};

use crate::harness::{Device, HEADER, Shape, kernel, shape};

const VECTOR_ADD: &str = "
.visible .entry vector_add(.param .u64 a, .param .u64 b, .param .u64 c, .param .u32 n)
{
    .reg .pred %p<2>; .reg .f32 %f<4>; .reg .b32 %r<6>; .reg .b64 %rd<11>;
    ld.param.u64 %rd1, [a]; ld.param.u64 %rd2, [b]; ld.param.u64 %rd3, [c]; ld.param.u32 %r2, [n];
    mov.u32 %r3, %ctaid.x; mov.u32 %r4, %ntid.x; mov.u32 %r5, %tid.x;
    mad.lo.s32 %r1, %r3, %r4, %r5;
    setp.ge.s32 %p1, %r1, %r2;
    @%p1 bra $L__BB0_2;
    cvta.to.global.u64 %rd4, %rd1;
    mul.wide.s32 %rd5, %r1, 4;
    add.s64 %rd6, %rd4, %rd5;
    cvta.to.global.u64 %rd7, %rd2;
    add.s64 %rd8, %rd7, %rd5;
    ld.global.f32 %f1, [%rd8];
    ld.global.f32 %f2, [%rd6];
    add.f32 %f3, %f2, %f1;
    cvta.to.global.u64 %rd9, %rd3;
    add.s64 %rd10, %rd9, %rd5;
    st.global.f32 [%rd10], %f3;
$L__BB0_2:
    ret;
}";

#[test]
fn vector_add_over_a_ragged_end() {
    let device = Device::default();
    let program = device.load(&format!("{HEADER}{VECTOR_ADD}")).unwrap();
    let n = 10_007u32;
    let a: Vec<f32> = (0..n).map(|i| i as f32 * 0.5).collect();
    let b: Vec<f32> = (0..n).map(|i| 1e3 - i as f32).collect();
    let out = device.allocate(u64::from(n) * 4);
    let (da, db) = (device.upload(&a), device.upload(&b));
    let stats =
        device.run(&program, "vector_add", shape(n.div_ceil(256), 256), &[da, db, out, n.into()]).unwrap();
    let sum: Vec<f32> = a.iter().zip(&b).map(|(x, y)| x + y).collect();
    assert_eq!(device.download::<f32>(out, n as usize), sum);
    assert_eq!(stats.global_bytes, u64::from(n) * 12);
    let info = program.kernel("vector_add").unwrap();
    assert_eq!(
        info.params.iter().map(|p| (p.offset, p.size)).collect::<Vec<_>>(),
        [(0, 8), (8, 8), (16, 8), (24, 4)]
    );
    assert_eq!((info.param_bytes, info.target_sm, info.max_threads_per_block), (28, 90, 1024));
}

fn noise(n: usize, seed: u32) -> Vec<f32> {
    (0..n as u32).map(|i| ((i ^ seed).wrapping_mul(0x9e37_79b9) >> 8) as f32 / 8_388_608.0 - 1.0).collect()
}

fn launch(geometry: Geometry) -> Shape {
    Shape { grid: geometry.grid, block: geometry.block, shared: geometry.shared_bytes, cooperative: false }
}

#[test]
fn sgemm_equals_its_reference_bit_for_bit() {
    let device = Device::default();
    let program = device.load(sgemm::PTX).unwrap();
    let (m, n, k) = (70usize, 45, 33);
    let (a, b, mut c) = (noise(m * k, 1), noise(k * n, 2), noise(m * n, 3));
    let [da, db, dc] = [&a, &b, &c].map(|matrix| device.upload(matrix));
    let (alpha, beta) = (0.75f32, -1.5f32);
    let mut params = Vec::new();
    for word in [m as u32, n as u32, k as u32, alpha.to_bits()] {
        params.extend(word.to_le_bytes());
    }
    params.extend([da, db].into_iter().flat_map(u64::to_le_bytes));
    params.extend(u64::from(beta.to_bits()).to_le_bytes());
    params.extend(dc.to_le_bytes());
    device.run_bytes(&program, sgemm::ENTRY, launch(sgemm::geometry(m as u32, n as u32)), &params).unwrap();
    sgemm::reference(sgemm::Shape { m, n, k, alpha, beta }, &a, &b, &mut c);
    assert_eq!(device.download::<f32>(dc, m * n), c);
}

#[test]
fn reduction_equals_its_reference_bit_for_bit() {
    let device = Device::default();
    let program = device.load(reduction::PTX).unwrap();
    let values = noise(100_003, 4);
    let (n, input) = (values.len() as u32, device.upload(&values));
    let partial = device.allocate(u64::from(reduction::MAX_BLOCKS) * 4);
    let first = reduction::geometry(n);
    device.run(&program, reduction::ENTRY, launch(first), &[input, partial, n.into()]).unwrap();
    let last = launch(reduction::final_geometry());
    device.run(&program, reduction::ENTRY, last, &[partial, partial, first.grid[0].into()]).unwrap();
    assert_eq!(device.download::<f32>(partial, 1), [reduction::reference(&values)]);
}

#[test]
fn many_small_blocks_all_run() {
    let device = Device::default();
    let ptx = kernel(
        "ld.param.u64 %rd1, [in]; mov.u32 %r1, %ctaid.x; mov.u32 %r2, %ctaid.y; mov.u32 %r3, %nctaid.x;
        mad.lo.u32 %r1, %r2, %r3, %r1; mad.wide.u32 %rd1, %r1, 4, %rd1; red.global.add.u32 [%rd1], 1; ret;",
    );
    let program = device.load(&ptx).unwrap();
    let cells = device.allocate(300 * 70 * 4);
    let shape = Shape { grid: [300, 70, 1], ..shape(1, 3) };
    device.run(&program, "k", shape, &[cells, cells]).unwrap();
    assert_eq!(device.download::<u32>(cells, 300 * 70), vec![3; 300 * 70]);
}
