//! Modules, libraries and launches.

use std::ffi::{CString, c_void};
use std::ptr::without_provenance_mut;

use cuda::api::{context, copy, function, launch, link, memory, module, stream};

use crate::support::{
    BUMP, INVALID_HANDLE, INVALID_VALUE, LAUNCH_OUT_OF_RESOURCES, VECTOR_ADD, code, kernel, ok, param,
    params, primary, set,
};

const NULL: *mut *mut c_void = std::ptr::null_mut();

#[test]
fn vector_add_runs() {
    primary();
    let (_, add) = kernel(VECTOR_ADD, "vector_add");
    let n = 1000u32;
    let bytes = n as usize * 4;
    let a: Vec<f32> = (0..n).map(|i| i as f32).collect();
    let b: Vec<f32> = (0..n).map(|i| 0.5 * i as f32).collect();
    let (mut da, mut db, mut dc, mut count) = (0u64, 0u64, 0u64, n);
    for pointer in [&mut da, &mut db, &mut dc] {
        ok!(memory::cuMemAlloc_v2(pointer, bytes));
    }
    ok!(copy::cuMemcpyHtoD_v2(da, a.as_ptr() as u64, bytes));
    ok!(copy::cuMemcpyHtoD_v2(db, b.as_ptr() as u64, bytes));
    let mut values = [param(&mut da), param(&mut db), param(&mut dc), param(&mut count)];
    ok!(launch::cuLaunchKernel(add, 4, 1, 1, 256, 1, 1, 0, 0, params(&mut values), NULL));
    let mut c = vec![0f32; n as usize];
    ok!(copy::cuMemcpyDtoH_v2(c.as_mut_ptr() as u64, dc, bytes));
    assert!(c.iter().enumerate().all(|(i, value)| *value == 1.5 * i as f32), "{:?}", &c[..8]);
    for pointer in [da, db, dc] {
        ok!(memory::cuMemFree_v2(pointer));
    }
}

#[test]
fn parameters_may_come_as_a_packed_buffer() {
    primary();
    let (_, bump) = kernel(BUMP, "bump");
    let mut word = 0;
    ok!(memory::cuMemAlloc_v2(&mut word, 4));
    ok!(cuda::api::memset::cuMemsetD32_v2(word, 40, 1));
    let mut packed = [0u8; 12];
    packed[..8].copy_from_slice(&word.to_le_bytes());
    packed[8] = 2;
    let mut size = packed.len();
    let mut extra = [
        without_provenance_mut(1),
        packed.as_mut_ptr().cast(),
        without_provenance_mut(2),
        param(&mut size),
        std::ptr::null_mut(),
    ];
    ok!(launch::cuLaunchKernel(bump, 1, 1, 1, 1, 1, 1, 0, 0, NULL, extra.as_mut_ptr()));
    let mut value = 0u32;
    ok!(copy::cuMemcpyDtoH_v2(&raw mut value as u64, word, 4));
    assert_eq!(value, 42);
    // As on hardware: a short buffer is taken, a long one is not.
    for (bytes, expected) in [(8, 0), (13, LAUNCH_OUT_OF_RESOURCES), (32_765, INVALID_VALUE)] {
        set(extra[3], bytes);
        let launched = code!(launch::cuLaunchKernel(bump, 1, 1, 1, 1, 1, 1, 0, 0, NULL, extra.as_mut_ptr()));
        assert_eq!(launched, expected, "{bytes} bytes");
    }
    ok!(copy::cuMemcpyDtoH_v2(&raw mut value as u64, word, 4));
    assert_eq!(value, 42, "the second launch added nothing");
}

#[test]
fn bad_launches_are_refused_at_the_call() {
    primary();
    let (_, nothing) = kernel(BUMP, "nothing");
    let (_, bump) = kernel(BUMP, "bump");
    let go = |f: u64, grid: [u32; 3], block: [u32; 3], shared: u32, stream: u64| {
        let ([gx, gy, gz], [bx, by, bz]) = (grid, block);
        code!(launch::cuLaunchKernel(f, gx, gy, gz, bx, by, bz, shared, stream, NULL, NULL))
    };
    assert_eq!(go(nothing, [1, 1, 1], [32, 1, 1], 0, 0), 0);
    assert_eq!(go(0, [1, 1, 1], [1, 1, 1], 0, 0), INVALID_HANDLE);
    assert_eq!(go(0xbad, [1, 1, 1], [1, 1, 1], 0, 0), INVALID_HANDLE);
    assert_eq!(go(nothing, [1, 1, 1], [1, 1, 1], 0, 0xbad), INVALID_HANDLE);
    for (grid, block) in [
        ([0, 1, 1], [1, 1, 1]),
        ([1, 65536, 1], [1, 1, 1]),
        ([1, 1, 1], [0, 1, 1]),
        ([1, 1, 1], [1025, 1, 1]),
        ([1, 1, 1], [1, 1, 65]),
        ([1, 1, 1], [64, 64, 1]),
    ] {
        assert_eq!(go(nothing, grid, block, 0, 0), INVALID_VALUE, "{grid:?} {block:?}");
    }
    assert_eq!(go(nothing, [1, 1, 1], [1, 1, 1], 49153, 0), INVALID_VALUE);
    ok!(function::cuFuncSetAttribute(nothing, 8, 100_000));
    assert_eq!(go(nothing, [1, 1, 1], [1, 1, 1], 100_000, 0), 0);
    assert_eq!(code!(function::cuFuncSetAttribute(nothing, 8, 300_000)), INVALID_VALUE);
    assert_eq!(go(bump, [1, 1, 1], [1, 1, 1], 0, 0), INVALID_VALUE, "parameters are missing");
    let cooperative =
        code!(launch::cuLaunchCooperativeKernel(nothing, 1_000_000, 1, 1, 1024, 1, 1, 0, 0, NULL));
    assert_eq!(cooperative, 720);
    ok!(context::cuCtxSynchronize());
}

#[test]
fn functions_and_globals_are_found_by_name() {
    primary();
    let (module_handle, bump) = kernel(BUMP, "bump");
    let (mut again, mut count, mut offset, mut size, mut regs) = (0, 0, 0, 0, 0);
    ok!(module::cuModuleGetFunction(&mut again, module_handle, c"bump".as_ptr()));
    assert_eq!(bump, again);
    assert_eq!(code!(module::cuModuleGetFunction(&mut again, module_handle, c"absent".as_ptr())), 500);
    ok!(module::cuModuleGetFunctionCount(&mut count, module_handle));
    assert_eq!(count, 2);
    ok!(function::cuFuncGetParamInfo(bump, 1, &mut offset, &mut size));
    assert_eq!((offset, size), (8, 4));
    assert_eq!(code!(function::cuFuncGetParamInfo(bump, 2, &mut offset, &mut size)), INVALID_VALUE);
    ok!(function::cuFuncGetAttribute(&mut regs, 4, bump));
    assert!(regs > 0);
    let (mut at, mut word, mut total, mut step) = (0, 0u64, 0u32, 1u32);
    ok!(module::cuModuleGetGlobal_v2(&mut at, &mut size, module_handle, c"total".as_ptr()));
    assert_eq!(size, 4);
    ok!(memory::cuMemAlloc_v2(&mut word, 4));
    let mut values = [param(&mut word), param(&mut step)];
    ok!(launch::cuLaunchKernel(bump, 1, 1, 1, 1, 1, 1, 0, 0, params(&mut values), NULL));
    ok!(copy::cuMemcpyDtoH_v2(&raw mut total as u64, at, 4));
    assert_eq!(total, 8);
    ok!(module::cuModuleGetGlobal_v2(&mut at, &mut size, module_handle, c"scale".as_ptr()));
    let scale = 10u32;
    ok!(copy::cuMemcpyHtoD_v2(at, &raw const scale as u64, 4));
    ok!(launch::cuLaunchKernel(bump, 1, 1, 1, 1, 1, 1, 0, 0, params(&mut values), NULL));
    ok!(module::cuModuleGetGlobal_v2(&mut at, &mut size, module_handle, c"total".as_ptr()));
    ok!(copy::cuMemcpyDtoH_v2(&raw mut total as u64, at, 4));
    assert_eq!(total, 18, "constants are read from memory that the program can write");
    ok!(module::cuModuleUnload(module_handle));
    assert_eq!(code!(module::cuModuleUnload(module_handle)), INVALID_HANDLE);
    assert_eq!(code!(function::cuFuncGetAttribute(&mut regs, 4, bump)), INVALID_HANDLE);
}

#[test]
fn a_kernel_of_a_library_launches_like_a_function() {
    primary();
    let text = CString::new(BUMP).unwrap();
    let (mut library, mut handle, mut function_handle, mut name) = (0, 0, 0, std::ptr::null());
    let none = (std::ptr::null(), NULL);
    ok!(module::cuLibraryLoadData(&mut library, text.as_ptr().cast(), none.0, none.1, 0, none.0, none.1, 0));
    ok!(module::cuLibraryGetKernel(&mut handle, library, c"bump".as_ptr()));
    ok!(function::cuKernelGetName(&mut name, handle));
    // SAFETY: the driver returned a string that lives as long as the kernel.
    assert_eq!(unsafe { std::ffi::CStr::from_ptr(name) }, c"bump");
    ok!(function::cuKernelGetFunction(&mut function_handle, handle));
    let (mut word, mut step) = (0u64, 7u32);
    ok!(memory::cuMemAlloc_v2(&mut word, 4));
    ok!(cuda::api::memset::cuMemsetD32_v2(word, 0, 1));
    let mut values = [param(&mut word), param(&mut step)];
    for launched in [handle, function_handle] {
        ok!(launch::cuLaunchKernel(launched, 1, 1, 1, 1, 1, 1, 0, 0, params(&mut values), NULL));
    }
    let mut value = 0u32;
    ok!(copy::cuMemcpyDtoH_v2(&raw mut value as u64, word, 4));
    assert_eq!(value, 14);
    ok!(module::cuLibraryUnload(library));
    assert_eq!(code!(function::cuKernelGetFunction(&mut function_handle, handle)), INVALID_HANDLE);
}

#[test]
fn broken_images_fail_with_a_log() {
    primary();
    let mut handle = 0;
    assert_eq!(code!(module::cuModuleLoadData(&mut handle, c"\x7fELF\x02\x01".as_ptr().cast())), 209);
    let bad = BUMP.replace("add.u32 %r3, %r2, %r1;", "frobnicate.u32 %r3, %r2;");
    let text = CString::new(bad).unwrap();
    let mut log = [0u8; 512];
    let names = [5u32, 6];
    let mut values = [log.as_mut_ptr().cast(), without_provenance_mut(512)];
    let code = code!(module::cuModuleLoadDataEx(
        &mut handle,
        text.as_ptr().cast(),
        2,
        names.as_ptr(),
        values.as_mut_ptr()
    ));
    assert_eq!(code, 218);
    let log = String::from_utf8_lossy(&log);
    assert!(log.contains("frobnicate") && log.contains("14"), "{log}");
}

#[test]
fn refused_ptx_has_the_code_of_its_reason() {
    primary();
    let load = |text: String| {
        let (text, mut handle) = (CString::new(text).unwrap(), 0);
        code!(module::cuModuleLoadData(&mut handle, text.as_ptr().cast()))
    };
    let known_but_not_carried =
        BUMP.replace("add.u32 %r3, %r2, %r1;", "vmad.u32.u32.u32 %r3, %r2, %r1, %r1;");
    assert_eq!(load(known_but_not_carried), 218);
    assert_eq!(load(BUMP.replace("8.0", "9.0")), 0);
    assert_eq!(load(BUMP.replace("8.0", "9.1")), 222);
}

#[test]
fn ptx_for_a_newer_device_is_refused() {
    primary();
    let (text, mut handle) =
        (CString::new(BUMP.replace("sm_80", "sm_100").replace("8.0", "8.6")).unwrap(), 0);
    assert_eq!(code!(module::cuModuleLoadData(&mut handle, text.as_ptr().cast())), 218);
}

#[test]
fn linked_ptx_loads_as_one_image() {
    primary();
    let (none, mut state, mut image, mut bytes, mut handle, mut count) =
        (std::ptr::null(), 0, std::ptr::null_mut(), 0, 0, 0);
    ok!(link::cuLinkCreate_v2(0, none, NULL, &mut state));
    for text in [BUMP, VECTOR_ADD] {
        let (data, name) = (text.as_ptr().cast(), std::ptr::null());
        ok!(link::cuLinkAddData_v2(state, 1, data, text.len(), name, 0, none, NULL));
    }
    assert_eq!(code!(link::cuLinkAddData_v2(state, 0, none.cast(), 0, std::ptr::null(), 0, none, NULL)), 209);
    ok!(link::cuLinkComplete(state, &mut image, &mut bytes));
    ok!(module::cuModuleLoadData(&mut handle, image));
    ok!(link::cuLinkDestroy(state));
    ok!(module::cuModuleGetFunctionCount(&mut count, handle));
    assert_eq!(count, 3);
}

#[test]
fn occupancy_follows_the_limits() {
    primary();
    let (_, nothing) = kernel(BUMP, "nothing");
    let (mut blocks, mut grid, mut block, mut bytes) = (0, 0, 0, 0);
    ok!(function::cuOccupancyMaxActiveBlocksPerMultiprocessor(&mut blocks, nothing, 1024, 0));
    assert_eq!(blocks, 2);
    ok!(function::cuOccupancyMaxActiveBlocksPerMultiprocessor(&mut blocks, nothing, 32, 0));
    assert_eq!(blocks, 32);
    ok!(function::cuOccupancyMaxActiveBlocksPerMultiprocessor(&mut blocks, nothing, 128, 100_000));
    assert_eq!(blocks, 2);
    ok!(function::cuOccupancyMaxPotentialBlockSize(&mut grid, &mut block, nothing, None, 0, 0));
    assert_eq!((grid, block), (264, 1024));
    ok!(function::cuOccupancyAvailableDynamicSMemPerBlock(&mut bytes, nothing, 2, 128));
    assert_eq!(bytes, 233_472 / 2 - 1024);
    let mut id = 0;
    ok!(stream::cuStreamGetId(0, &mut id));
}

/// A kernel of 256 threads that holds `live` words at once.
fn holding(live: u32) -> CString {
    let define: String = (0..live).map(|n| format!("ld.global.u32 %r{n}, [%rd1+{}];", n * 4)).collect();
    let sum: String = (1..live).map(|n| format!("add.u32 %r0, %r0, %r{n};")).collect();
    let text = format!(
        ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry holding(.param .u64 p) .maxntid 256 {{
        .reg .b32 %r<200>; .reg .b64 %rd<3>; ld.param.u64 %rd1, [p]; {define} {sum} st.global.u32 [%rd1], %r0; ret; }}"
    );
    CString::new(text).unwrap()
}

/// Registers of the kernel of a module, and blocks of 256 threads that fit on an SM.
fn figures(module_handle: u64) -> (i32, i32) {
    let (mut handle, mut registers, mut blocks) = (0, 0, 0);
    ok!(module::cuModuleGetFunction(&mut handle, module_handle, c"holding".as_ptr()));
    ok!(function::cuFuncGetAttribute(&mut registers, 4, handle));
    ok!(function::cuOccupancyMaxActiveBlocksPerMultiprocessor(&mut blocks, handle, 256, 0));
    (registers, blocks)
}

#[test]
fn register_counts_follow_the_kernel_and_the_limit_of_the_jit() {
    primary();
    let load = |live: u32, limit: Option<usize>| {
        let text = holding(live);
        let mut handle = 0;
        let names = [0u32];
        let mut values = [without_provenance_mut(limit.unwrap_or(0))];
        let count = u32::from(limit.is_some());
        ok!(module::cuModuleLoadDataEx(
            &mut handle,
            text.as_ptr().cast(),
            count,
            names.as_ptr(),
            values.as_mut_ptr()
        ));
        figures(handle)
    };
    let (few, many) = (load(8, None), load(150, None));
    assert_eq!((few.0, many.0), (16, 160));
    // An SM has 65536 registers, handed out in steps of 8 a thread, and room for 2048 threads.
    assert_eq!((few.1, many.1), (8, 65536 / 256 / 160));
    assert_eq!(load(150, Some(57)), (57, 4));
    assert_eq!(load(150, Some(38)), (38, 6));
    assert_eq!(load(8, Some(57)), few, "a limit takes nothing from a kernel that stays below it");
    // Through the linker the limit travels in the image.
    let text = holding(150);
    let (mut state, mut image, mut bytes, mut handle) = (0, std::ptr::null_mut(), 0, 0);
    let mut values = [without_provenance_mut(40)];
    ok!(link::cuLinkCreate_v2(1, [0u32].as_ptr(), values.as_mut_ptr(), &mut state));
    let (data, none) = (text.as_ptr().cast(), std::ptr::null());
    ok!(link::cuLinkAddData_v2(state, 1, data, text.as_bytes_with_nul().len(), none, 0, none.cast(), NULL));
    ok!(link::cuLinkComplete(state, &mut image, &mut bytes));
    ok!(module::cuModuleLoadData(&mut handle, image));
    assert_eq!(figures(handle), (40, 6));
    ok!(link::cuLinkDestroy(state));
}
