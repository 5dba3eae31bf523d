//! Whole kernels.

use crate::harness::{Device, HEADER, shape};

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
