//! Device faults: sticky, process-wide, and reported with hardware's codes.

use std::ffi::c_void;

use cuda::api::{context, device, event, launch, memory, stream};

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
