//! Pinned host memory: copies from and to it, kernels that work on it, wrong uses; natively and under the shim.

#[path = "memory/cuda.rs"]
mod cuda;

use std::ffi::c_void;
use std::ptr;

use cuda::{Notes, add_one, allocate, digest, load, ok, pattern, start, synchronize, sys};
use lightos_tests::twice::twice;

fn pinned(bytes: usize, flags: u32) -> *mut u8 {
    let mut pointer = ptr::null_mut();
    // SAFETY: a valid out-pointer.
    ok(unsafe { sys::cuMemHostAlloc(&mut pointer, bytes, flags) });
    pointer.cast()
}

#[test]
fn kernels_and_copies_work_on_pinned_memory() {
    let report = twice("kernels_and_copies_work_on_pinned_memory", || {
        start();
        let mut notes = Notes::default();
        let module = load();
        for words in [10_usize, 1000, 1 << 20] {
            let bytes = words * 4;
            let (source, target) = (pinned(bytes, 0), pinned(bytes, 3));
            let block = allocate(bytes);
            // SAFETY: all three blocks hold `bytes` bytes; the processor looks only when the device is done.
            unsafe {
                let data = pattern(bytes, words as u32);
                ptr::copy_nonoverlapping(data.as_ptr(), source, bytes);
                ok(sys::cuMemcpyHtoDAsync_v2(block, source.cast(), bytes, ptr::null_mut()));
                add_one(module, block, words as u32);
                ok(sys::cuMemcpyDtoHAsync_v2(target.cast(), block, bytes, ptr::null_mut()));
                ok(synchronize());
                notes.add("copied", digest(std::slice::from_raw_parts(target, bytes)));
                let mut device = 0;
                ok(sys::cuMemHostGetDevicePointer_v2(&mut device, target.cast(), 0));
                add_one(module, device, words as u32);
                add_one(module, device, words as u32 / 2);
                ok(synchronize());
                notes.add("in place", digest(std::slice::from_raw_parts(target, bytes)));
                ok(sys::cuMemcpyHtoD_v2(device, source.cast(), bytes));
                notes.add("pinned to pinned", digest(std::slice::from_raw_parts(target, bytes)));
                ok(sys::cuMemsetD8_v2(device, 0x3c, bytes));
                notes.add("filled", *target.add(bytes - 1));
                let pageable = pattern(bytes, 5);
                ok(sys::cuMemcpy(device, pageable.as_ptr() as u64, bytes));
                notes.add("from pageable", std::slice::from_raw_parts(target, bytes) == pageable);
                ok(sys::cuMemFreeHost(source.cast()));
                ok(sys::cuMemFreeHost(target.cast()));
            }
        }
        notes.0
    });
    assert!(report["launches"].as_u64() >= Some(9), "{report:#}");
}

#[test]
fn wrong_arguments_get_the_drivers_errors() {
    twice("wrong_arguments_get_the_drivers_errors", || {
        start();
        let mut notes = Notes::default();
        let mut pointer: *mut c_void = ptr::null_mut();
        let mut device = 0;
        // SAFETY: pointers are valid or wrong on purpose.
        unsafe {
            notes.code("zero bytes", sys::cuMemHostAlloc(&mut pointer, 0, 0));
            notes.code("unknown flag", sys::cuMemHostAlloc(&mut pointer, 64, 0x100));
            notes.code("null out", sys::cuMemAllocHost_v2(ptr::null_mut(), 64));
            ok(sys::cuMemAllocHost_v2(&mut pointer, 4096));
            notes.code("inside", sys::cuMemFreeHost(pointer.cast::<u8>().add(64).cast()));
            notes.code("device pointer flags", sys::cuMemHostGetDevicePointer_v2(&mut device, pointer, 1));
            notes.code("stack", sys::cuMemFreeHost((&raw mut device).cast()));
            notes.code("first free", sys::cuMemFreeHost(pointer));
            notes.code("second free", sys::cuMemFreeHost(pointer));
            notes.code("never registered", sys::cuMemHostUnregister((&raw mut device).cast()));
            let mut kind = 0_u32;
            ok(sys::cuMemAllocHost_v2(&mut pointer, 4096));
            let attribute = sys::CUpointer_attribute::CU_POINTER_ATTRIBUTE_MEMORY_TYPE;
            notes.code(
                "type",
                sys::cuPointerGetAttribute((&raw mut kind).cast(), attribute, pointer as u64 + 5),
            );
            notes.add("type", kind);
            let mut host = ptr::null_mut::<c_void>();
            let attribute = sys::CUpointer_attribute::CU_POINTER_ATTRIBUTE_HOST_POINTER;
            notes.code("host", sys::cuPointerGetAttribute((&raw mut host).cast(), attribute, pointer as u64));
            notes.add("host", host == pointer);
        }
        notes.0
    });
}

#[test]
fn many_blocks_leave_nothing_behind() {
    let report = twice("many_blocks_leave_nothing_behind", || {
        start();
        let mut seen = 0_u64;
        for round in 0..30 {
            let blocks: Vec<_> = (0..20).map(|index| pinned(1 + index * 40_000 + round, 0)).collect();
            for (index, block) in blocks.iter().enumerate() {
                // SAFETY: the last byte of the block.
                unsafe { block.add(index * 40_000 + round).write(index as u8) };
            }
            for (index, block) in blocks.into_iter().enumerate() {
                // SAFETY: as above; freed once.
                unsafe {
                    seen += u64::from(block.add(index * 40_000 + round).read());
                    ok(sys::cuMemFreeHost(block.cast()));
                }
            }
        }
        vec![seen.to_string()]
    });
    assert_eq!(report["calls"]["cuMemFreeHost"]["forwarded"], 600, "{report:#}");
}

#[test]
fn the_programs_own_memory_can_be_registered() {
    let report = twice("the_programs_own_memory_can_be_registered", || {
        start();
        let mut notes = Notes::default();
        let module = load();
        // Not a whole number of pages.
        let bytes = (8 << 20) + 400;
        let block = allocate(bytes);
        // SAFETY: an anonymous mapping of `bytes` bytes, used until it is unmapped; the processor looks only when the device is done.
        unsafe {
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let memory = libc::mmap(ptr::null_mut(), bytes + 4096, protection, kind, -1, 0).cast::<u8>();
            // The mapping ends with the block: what follows in its last page is nobody else's.
            let guard = memory.add(bytes.next_multiple_of(4096)).cast();
            assert_eq!(libc::mprotect(guard, 4096, libc::PROT_NONE), 0);
            let contents = || digest(std::slice::from_raw_parts(memory, bytes));
            memory.copy_from_nonoverlapping(pattern(bytes, 11).as_ptr(), bytes);
            notes.code("registered", sys::cuMemHostRegister_v2(memory.cast(), bytes, 0));
            notes.add("contents stay", contents());
            notes.code("twice", sys::cuMemHostRegister_v2(memory.cast(), bytes, 0));
            let mut device = 0;
            ok(sys::cuMemHostGetDevicePointer_v2(&mut device, memory.cast(), 0));
            notes.add("same address", device == memory as u64);
            add_one(module, device, (bytes / 4) as u32);
            ok(synchronize());
            notes.add("the kernel wrote", contents());
            memory.write_bytes(0x11, 4096);
            ok(sys::cuMemcpyHtoDAsync_v2(block, memory.cast(), bytes, ptr::null_mut()));
            add_one(module, block, (bytes / 4) as u32);
            ok(sys::cuMemcpyDtoHAsync_v2(memory.cast(), block, bytes, ptr::null_mut()));
            ok(synchronize());
            notes.add("there and back", contents());
            let mut kind = 0_u32;
            let attribute = sys::CUpointer_attribute::CU_POINTER_ATTRIBUTE_MEMORY_TYPE;
            notes.code("type", sys::cuPointerGetAttribute((&raw mut kind).cast(), attribute, memory as u64));
            notes.add("type", kind);
            notes.code("unregistered", sys::cuMemHostUnregister(memory.cast()));
            notes.code("again", sys::cuMemHostUnregister(memory.cast()));
            notes.add("contents stay", contents());
            memory.add(bytes - 1).write(1);
            ok(sys::cuMemcpyDtoH_v2(memory.cast(), block, 8192));
            notes.add("pageable again", contents());
            notes.code("registered again", sys::cuMemHostRegister_v2(memory.cast(), 8192, 3));
            notes.code("unregistered again", sys::cuMemHostUnregister(memory.cast()));
            assert_eq!(libc::munmap(memory.cast(), bytes + 4096), 0);
        }
        notes.0
    });
    assert_eq!(report["calls"]["cuMemHostRegister_v2"]["forwarded"], 2, "{report:#}");
}

#[test]
fn what_another_object_may_share_is_registered_for_copies_alone() {
    let report = twice("what_another_object_may_share_is_registered_for_copies_alone", || {
        start();
        let under_shim = std::env::var_os("LD_PRELOAD").is_some();
        let refused = |code: sys::CUresult| (code as u32 == 801) == under_shim;
        let mut notes = Notes::default();
        // SAFETY: an anonymous mapping that outlives its use, and a part of this thread's stack, which no copy is made of.
        unsafe {
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let memory = libc::mmap(ptr::null_mut(), 1 << 20, protection, kind, -1, 0);
            notes.add("mapped", refused(sys::cuMemHostRegister_v2(memory, 5000, 2)));
            sys::cuMemHostUnregister(memory);
            notes.code("tail of a page", sys::cuMemHostRegister_v2(memory, 5000, 0));
            ok(sys::cuMemHostRegister_v2(memory.cast::<u8>().add(8192).cast(), 8192, 0));
            let mut frame = [0_u8; 16384];
            let page = (frame.as_mut_ptr() as usize).next_multiple_of(4096) as *mut c_void;
            notes.code("own stack", sys::cuMemHostRegister_v2(page, 4096, 0));
            notes.code("unregistered", sys::cuMemHostUnregister(page));
            std::hint::black_box(&mut frame);
            let (mut device, mut pointer) = (0, 0_u64);
            notes.add("device pointer", refused(sys::cuMemHostGetDevicePointer_v2(&mut device, memory, 0)));
            notes.add("fill", refused(sys::cuMemsetD8_v2(memory as u64, 1, 100)));
            let wait = sys::cuStreamWriteValue32_v2(ptr::null_mut(), memory as u64, 1, 0);
            notes.add("word", refused(wait));
            let attribute = sys::CUpointer_attribute::CU_POINTER_ATTRIBUTE_DEVICE_POINTER;
            let asked = sys::cuPointerGetAttribute((&raw mut pointer).cast(), attribute, memory as u64);
            notes.add("the device's address", (asked as u32 == 1) == under_shim);
            notes
                .code("read only", sys::cuMemHostRegister_v2(memory.cast::<u8>().add(20_001).cast(), 300, 8));
            let block = allocate(300);
            let read_only = memory.cast::<u8>().add(20_001);
            read_only.copy_from_nonoverlapping(pattern(300, 3).as_ptr(), 300);
            ok(sys::cuMemcpyHtoDAsync_v2(block, read_only.cast(), 300, ptr::null_mut()));
            ok(synchronize());
            notes.add("read", digest(&cuda::download(block, 300)));
            notes.code("overlap", sys::cuMemHostRegister_v2(memory.cast::<u8>().add(4000).cast(), 300, 0));
            notes.code("gone", sys::cuMemHostUnregister(memory));
            notes.code("gone twice", sys::cuMemHostUnregister(memory));
        }
        notes.0
    });
    assert_eq!(report["calls"]["cuMemHostRegister_v2"]["refused"], 1, "{report:#}");
    assert_eq!(report["calls"]["cuMemHostRegister_v2"]["forwarded"], 4, "{report:#}");
}
