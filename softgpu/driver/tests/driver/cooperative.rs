//! The barrier of a cooperative grid, as programs get it from the static device runtime.

use std::ffi::c_void;
use std::ptr::{null, null_mut};

use cuda::api::{context, copy, launch, link, memory, memset, module};

use crate::support::{code, ok, param, params, primary};

const NO_BINARY_FOR_GPU: u32 = 209;
const BLOCKS: u32 = 8;
const THREADS: u32 = 64;

/// Each block counts its threads into `a[block]`; behind the barrier each sums over all blocks into `out[block]`.
const KERNEL: &str = "
.version 7.0
.target sm_70
.address_size 64
.extern .func (.param .b64 group) cudaCGGetIntrinsicHandle (.param .b32 scope);
.extern .func (.param .b32 error) cudaCGSynchronize (.param .b64 group, .param .b32 flags);
.visible .entry k(.param .u64 a, .param .u64 out)
{
    .reg .pred %p;
    .reg .b32 %r<10>;
    .reg .b64 %rd<10>;
    .param .b32 scope;
    .param .b64 group;
    .param .b32 flags;
    .param .b32 error;
    ld.param.u64 %rd1, [a];
    ld.param.u64 %rd2, [out];
    mov.u32 %r1, %ctaid.x;
    mad.wide.u32 %rd3, %r1, 4, %rd1;
    red.global.add.u32 [%rd3], 1;
    st.param.b32 [scope], 1;
    call.uni (group), cudaCGGetIntrinsicHandle, (scope);
    st.param.b32 [flags], 0;
    call.uni (error), cudaCGSynchronize, (group, flags);
    ld.param.b32 %r9, [error];
    mov.u32 %r2, 0;
    mov.u32 %r3, 0;
SUM:
    mad.wide.u32 %rd4, %r3, 4, %rd1;
    ld.global.u32 %r4, [%rd4];
    add.u32 %r2, %r2, %r4;
    add.u32 %r3, %r3, 1;
    mov.u32 %r5, %nctaid.x;
    setp.lt.u32 %p, %r3, %r5;
    @%p bra SUM;
    mad.lo.u32 %r2, %r9, 1000000, %r2;
    mad.wide.u32 %rd5, %r1, 4, %rd2;
    st.global.u32 [%rd5], %r2;
    ret;
}
";

fn archive(member: &str) -> Vec<u8> {
    format!("!<arch>\n//                                              44        `\n{member}/\n").into_bytes()
}

fn add(state: u64, kind: u32, data: &[u8]) -> u32 {
    code!(link::cuLinkAddData_v2(
        state,
        kind,
        data.as_ptr().cast::<c_void>(),
        data.len(),
        null(),
        0,
        null(),
        null_mut()
    ))
}

#[test]
fn all_blocks_meet_at_the_barrier_of_the_device_runtime() {
    primary();
    let (mut state, mut image, mut bytes) = (0, null_mut(), 0);
    ok!(link::cuLinkCreate_v2(0, null(), null_mut(), &mut state));
    assert_eq!(add(state, 4, &archive("other.o")), NO_BINARY_FOR_GPU);
    assert_eq!(add(state, 1, KERNEL.as_bytes()), 0);
    assert_eq!(add(state, 4, &archive("cuda_device_runtime.o")), 0);
    ok!(link::cuLinkComplete(state, &mut image, &mut bytes));
    let (mut loaded, mut function, mut a, mut out) = (0, 0, 0, 0);
    ok!(module::cuModuleLoadData(&mut loaded, image));
    ok!(link::cuLinkDestroy(state));
    ok!(module::cuModuleGetFunction(&mut function, loaded, c"k".as_ptr()));
    ok!(memory::cuMemAlloc_v2(&mut a, 4 * BLOCKS as usize));
    ok!(memory::cuMemAlloc_v2(&mut out, 4 * BLOCKS as usize));
    let sums_at = out;
    let sums = || {
        let mut found = [0u32; BLOCKS as usize];
        ok!(copy::cuMemcpyDtoH_v2(found.as_mut_ptr() as u64, sums_at, 4 * BLOCKS as usize));
        found
    };
    // The word of the barrier needs no resetting between launches.
    for _ in 0..20 {
        ok!(memset::cuMemsetD32_v2(a, 0, BLOCKS as usize));
        let mut values = [param(&mut a), param(&mut out)];
        ok!(launch::cuLaunchCooperativeKernel(
            function,
            BLOCKS,
            1,
            1,
            THREADS,
            1,
            1,
            0,
            0,
            params(&mut values)
        ));
        ok!(context::cuCtxSynchronize());
        assert_eq!(sums(), [BLOCKS * THREADS; BLOCKS as usize]);
    }
    // An ordinary launch has no barrier to wait at, and says so instead of waiting for ever.
    let mut values = [param(&mut a), param(&mut out)];
    ok!(launch::cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, 0, params(&mut values), null_mut()));
    ok!(context::cuCtxSynchronize());
    assert!(sums()[0] > 1_000_000);
}
