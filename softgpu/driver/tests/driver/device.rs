//! Initialisation, devices and contexts.

use std::ffi::CStr;

use cuda::api::{context, device, init, memory};

use crate::support::{INVALID_CONTEXT, INVALID_VALUE, SUCCESS, code, in_own_process, ok, primary};

#[test]
fn nothing_works_before_init_but_versions_and_errors() {
    in_own_process("device::nothing_works_before_init_but_versions_and_errors", || {
        let (mut count, mut version) = (0, 0);
        assert_eq!(code!(device::cuDeviceGetCount(&mut count)), 3);
        assert_eq!(code!(context::cuCtxSynchronize()), 3);
        ok!(init::cuDriverGetVersion(&mut version));
        assert_eq!(version, 13000);
        let mut name = std::ptr::null();
        ok!(init::cuGetErrorName(3, &mut name));
        // SAFETY: the driver returned a static string.
        assert_eq!(unsafe { CStr::from_ptr(name) }, c"CUDA_ERROR_NOT_INITIALIZED");
        assert_eq!(code!(init::cuInit(1)), INVALID_VALUE);
        ok!(init::cuInit(0));
        ok!(device::cuDeviceGetCount(&mut count));
        assert_eq!(count, 1);
    });
}

#[test]
fn a_forked_child_is_not_initialised() {
    in_own_process("device::a_forked_child_is_not_initialised", || {
        primary();
        // SAFETY: the child calls only the driver's entry points and _exit.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let (mut count, mut pointer) = (0, 0);
            let codes = [
                code!(device::cuDeviceGetCount(&mut count)),
                code!(memory::cuMemAlloc_v2(&mut pointer, 16)),
                code!(init::cuInit(0)),
            ];
            // SAFETY: ends the child without running the parent's exit handlers.
            unsafe { libc::_exit(i32::from(codes != [3, 3, 3])) };
        }
        let mut status = -1;
        // SAFETY: waits for the child forked above.
        assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
        assert_eq!(status, 0);
    });
}

#[test]
fn the_device_is_described() {
    primary();
    let (mut handle, mut value, mut bytes) = (0, 0, 0);
    ok!(device::cuDeviceGet(&mut handle, 0));
    assert_eq!(code!(device::cuDeviceGet(&mut handle, 99)), 101);
    ok!(device::cuDeviceGetAttribute(&mut value, 75, 0));
    assert_eq!(value, 9);
    assert_eq!(code!(device::cuDeviceGetAttribute(&mut value, 9999, 0)), INVALID_VALUE);
    ok!(device::cuDeviceTotalMem_v2(&mut bytes, 0));
    assert!(bytes > 79 << 30);
    let mut name = [0; 64];
    ok!(device::cuDeviceGetName(name.as_mut_ptr(), 64, 0));
    // SAFETY: the driver wrote a terminated string.
    assert_eq!(unsafe { CStr::from_ptr(name.as_ptr()) }, c"NVIDIA H100 80GB HBM3");
    let (mut id, mut found) = ([0; 16], 9);
    ok!(device::cuDeviceGetPCIBusId(id.as_mut_ptr(), 16, 0));
    ok!(device::cuDeviceGetByPCIBusId(&mut found, id.as_ptr()));
    assert_eq!(found, 0);
}

#[test]
fn two_devices_share_the_address_space_but_not_the_memory() {
    in_own_process("device::two_devices_share_the_address_space_but_not_the_memory", || {
        // SAFETY: no other thread of this process reads the environment yet.
        unsafe { std::env::set_var("SOFTGPU_DEVICES", "2") };
        let mut contexts = [0; 2];
        let mut pointers = [0; 2];
        let (mut can, mut ordinal, mut word) = (0, 9i32, 0u32);
        ok!(init::cuInit(0));
        for (device, (context, pointer)) in contexts.iter_mut().zip(&mut pointers).enumerate() {
            ok!(context::cuCtxCreate_v2(context, 0, device as i32));
            ok!(memory::cuMemAlloc_v2(pointer, 4));
            ok!(cuda::api::memset::cuMemsetD32_v2(*pointer, 7 + device as u32, 1));
        }
        ok!(device::cuDeviceCanAccessPeer(&mut can, 0, 1));
        assert_eq!(can, 1);
        ok!(memory::cuPointerGetAttribute((&raw mut ordinal).cast(), 9, pointers[1]));
        assert_eq!(ordinal, 1);
        ok!(context::cuCtxEnablePeerAccess(contexts[0], 0));
        assert_eq!(code!(context::cuCtxEnablePeerAccess(contexts[0], 0)), 704);
        ok!(cuda::api::copy::cuMemcpyPeer(pointers[0], contexts[0], pointers[1], contexts[1], 4));
        ok!(cuda::api::copy::cuMemcpyDtoH_v2(&raw mut word as u64, pointers[0], 4));
        assert_eq!(word, 8);
    });
}

#[test]
fn contexts_stack_per_thread() {
    std::thread::spawn(|| {
        ok!(init::cuInit(0));
        let (mut current, mut free, mut total) = (7, 0, 0);
        ok!(context::cuCtxGetCurrent(&mut current));
        assert_eq!(current, 0);
        assert_eq!(code!(context::cuCtxSynchronize()), INVALID_CONTEXT);
        assert_eq!(code!(memory::cuMemGetInfo_v2(&mut free, &mut total)), INVALID_CONTEXT);
        assert_eq!(code!(context::cuCtxPopCurrent_v2(&mut current)), INVALID_CONTEXT);
        assert_eq!(code!(context::cuCtxSetCurrent(0xdead)), INVALID_CONTEXT);
        let (mut first, mut second, mut version) = (0, 0, 0);
        ok!(context::cuCtxCreate_v2(&mut first, 0, 0));
        ok!(context::cuCtxCreate_v4(&mut second, std::ptr::null(), 0, 0));
        ok!(context::cuCtxGetApiVersion(0, &mut version));
        assert_eq!(version, 12050);
        ok!(context::cuCtxPopCurrent_v2(&mut current));
        assert_eq!(current, second);
        ok!(context::cuCtxGetCurrent(&mut current));
        assert_eq!(current, first);
        ok!(context::cuCtxDestroy_v2(first));
        ok!(context::cuCtxGetCurrent(&mut current));
        assert_eq!(current, 0);
        ok!(context::cuCtxPushCurrent_v2(second));
        ok!(context::cuCtxDestroy_v2(second));
        assert_eq!(code!(context::cuCtxDestroy_v2(second)), INVALID_CONTEXT);
    })
    .join()
    .unwrap();
}

#[test]
fn the_primary_context_is_counted_and_keeps_its_handle() {
    in_own_process("device::the_primary_context_is_counted_and_keeps_its_handle", || {
        ok!(init::cuInit(0));
        let (mut first, mut again, mut flags, mut active) = (0, 0, 9, 9);
        ok!(context::cuDevicePrimaryCtxGetState(0, &mut flags, &mut active));
        assert_eq!((flags, active), (0, 0));
        ok!(context::cuDevicePrimaryCtxSetFlags_v2(0, 4));
        ok!(context::cuDevicePrimaryCtxRetain(&mut first, 0));
        ok!(context::cuDevicePrimaryCtxRetain(&mut again, 0));
        assert_eq!(first, again);
        ok!(context::cuCtxSetCurrent(first));
        ok!(context::cuDevicePrimaryCtxRelease_v2(0));
        assert_eq!(code!(context::cuCtxSynchronize()), SUCCESS);
        ok!(context::cuDevicePrimaryCtxRelease_v2(0));
        assert_eq!(code!(context::cuDevicePrimaryCtxRelease_v2(0)), INVALID_CONTEXT);
        assert_eq!(code!(context::cuCtxSynchronize()), 709);
        ok!(context::cuDevicePrimaryCtxRetain(&mut again, 0));
        assert_eq!(first, again);
        assert_eq!(code!(context::cuCtxSynchronize()), SUCCESS);
        ok!(context::cuDevicePrimaryCtxGetState(0, &mut flags, &mut active));
        assert_eq!((flags, active), (4, 1));
    });
}
