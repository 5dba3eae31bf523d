//! Device faults: sticky, process-wide, and reported with hardware's codes.

use std::ffi::c_void;

use cuda::api::{context, device, event, launch, memory, stream, vmm};

use crate::support::{BUMP, code, in_own_process, kernel, ok, param, params, primary};

#[test]
fn an_illegal_address_breaks_the_process() {
    in_own_process("faults::an_illegal_address_breaks_the_process", || {
        primary();
        let (_, bump) = kernel(BUMP, "bump");
        let (mut at, mut step, mut done, mut pointer) = (0x10u64, 1u32, 0, 0);
        ok!(event::cuEventCreate(&mut done, 0));
        let mut values = [param(&mut at), param(&mut step)];
        let null: *mut *mut c_void = std::ptr::null_mut();
        ok!(launch::cuLaunchKernel(bump, 1, 1, 1, 1, 1, 1, 0, 0, params(&mut values), null));
        let _ = code!(event::cuEventRecord(done, 0));
        assert_eq!(code!(context::cuCtxSynchronize()), 700);
        assert_eq!(code!(stream::cuStreamSynchronize(0)), 700);
        assert_eq!(code!(memory::cuMemAlloc_v2(&mut pointer, 16)), 700);
        assert_eq!(
            code!(launch::cuLaunchKernel(bump, 1, 1, 1, 1, 1, 1, 0, 0, params(&mut values), null)),
            700
        );
        let (mut other, mut count) = (0, 0);
        assert_eq!(code!(context::cuCtxCreate_v2(&mut other, 0, 0)), 700);
        ok!(device::cuDeviceGetCount(&mut count));
    });
}

/// Runs one thread of a kernel body that gets an address, and returns what the context says afterwards.
fn outcome(body: &str, mut at: u64) -> u32 {
    primary();
    let ptx = format!(
        ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 at)\n{{\n.reg .b64 %rd<2>;\n\
         .reg .b32 %r<2>;\nld.param.u64 %rd1, [at];\n{body}\nret;\n}}\n"
    );
    let (_, function) = kernel(&ptx, "k");
    let mut values = [param(&mut at)];
    ok!(launch::cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, 0, params(&mut values), std::ptr::null_mut()));
    code!(context::cuCtxSynchronize())
}

#[test]
fn a_misaligned_address_has_its_own_code() {
    in_own_process("faults::a_misaligned_address_has_its_own_code", || {
        let mut pointer = 0;
        primary();
        ok!(memory::cuMemAlloc_v2(&mut pointer, 64));
        assert_eq!(outcome("ld.global.u32 %r1, [%rd1];", pointer + 4), 0);
        assert_eq!(outcome("ld.global.u32 %r1, [%rd1];", pointer + 2), 716);
    });
}

#[test]
fn a_trap_is_a_launch_failure() {
    in_own_process("faults::a_trap_is_a_launch_failure", || assert_eq!(outcome("trap;", 0), 719));
}

#[test]
fn freed_memory_is_an_illegal_address() {
    in_own_process("faults::freed_memory_is_an_illegal_address", || {
        let mut pointer = 0;
        primary();
        ok!(memory::cuMemAlloc_v2(&mut pointer, 4 << 20));
        assert_eq!(outcome("ld.global.u32 %r1, [%rd1];", pointer), 0);
        ok!(memory::cuMemFree_v2(pointer));
        assert_eq!(outcome("ld.global.u32 %r1, [%rd1];", pointer), 700);
    });
}

#[test]
fn unmapping_under_a_running_kernel_is_an_illegal_address() {
    in_own_process("faults::unmapping_under_a_running_kernel_is_an_illegal_address", || {
        primary();
        let (granule, mut at, mut handle) = (2usize << 20, 0, 0);
        // CUmemAllocationProp of exportable pinned memory of device 0, and CUmemAccessDesc for reading and writing there.
        let (prop, access) = ([1u64 | 1 << 32, 1, 0, 0], [1u32, 0, 3]);
        ok!(vmm::cuMemAddressReserve(&mut at, granule, 0, 0, 0));
        ok!(vmm::cuMemCreate(&mut handle, granule, prop.as_ptr().cast(), 0));
        ok!(vmm::cuMemMap(at, granule, 0, handle, 0));
        ok!(vmm::cuMemSetAccess(at, granule, access.as_ptr().cast(), 1));
        let ptx = ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 at)\n{\n.reg .b64 %rd<2>;\n\
                   ld.param.u64 %rd1, [at];\nL: st.global.u64 [%rd1], %rd1;\nbra L;\n}\n";
        let (_, function) = kernel(ptx, "k");
        let (mut values, null) = ([param(&mut at)], std::ptr::null_mut());
        ok!(launch::cuLaunchKernel(function, 4, 1, 1, 64, 1, 1, 0, 0, params(&mut values), null));
        ok!(vmm::cuMemUnmap(at, granule));
        assert_eq!(code!(context::cuCtxSynchronize()), 700);
    });
}

#[test]
fn events_pass_and_waiters_wake_after_a_fault() {
    in_own_process("faults::events_pass_and_waiters_wake_after_a_fault", || {
        primary();
        let (mut first, mut second, mut done) = (0, 0, 0);
        ok!(stream::cuStreamCreate(&mut first, 1));
        ok!(stream::cuStreamCreate(&mut second, 1));
        ok!(event::cuEventCreate(&mut done, 2));
        let (_, bump) = kernel(BUMP, "bump");
        let (mut at, mut step) = (0x10u64, 1u32);
        let mut values = [param(&mut at), param(&mut step)];
        ok!(launch::cuLaunchKernel(
            bump,
            1,
            1,
            1,
            1,
            1,
            1,
            0,
            first,
            params(&mut values),
            std::ptr::null_mut()
        ));
        // The fault may already be known here; either way nothing below may hang.
        let _ = code!(event::cuEventRecord(done, first));
        let _ = code!(stream::cuStreamWaitEvent(second, done, 0));
        assert_eq!(code!(stream::cuStreamSynchronize(second)), 700);
        assert_eq!(code!(event::cuEventSynchronize(done)), 700);
    });
}
