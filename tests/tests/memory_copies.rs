//! Copies and fills of every direction and shape; natively and under the shim.

#[path = "memory/cuda.rs"]
mod cuda;

use std::ffi::c_void;
use std::ptr;

use cuda::{Notes, add_one, allocate, digest, download, load, ok, pattern, start, synchronize, sys, upload};
use lightos_tests::twice::twice;

/// Sizes around the limits of the ways that bytes can take.
const SIZES: [usize; 10] =
    [1, 3, 4096, (32 << 10) - 1, 32 << 10, (32 << 10) + 1, (2 << 20) - 1, 2 << 20, (2 << 20) + 1, 37_000_001];

#[test]
fn pageable_memory_travels_both_ways() {
    let report = twice("pageable_memory_travels_both_ways", || {
        start();
        let mut notes = Notes::default();
        let block = allocate(40 << 20);
        let mut stream = ptr::null_mut();
        // SAFETY: a valid out-pointer.
        ok(unsafe { sys::cuStreamCreate(&mut stream, 1) });
        for size in SIZES {
            let data = pattern(size, size as u32);
            upload(block + 5, &data);
            assert!(download(block + 5, size) == data, "{size} bytes, synchronous");
            let mut back = vec![0_u8; size];
            // SAFETY: both vectors are valid for `size` bytes; the source of a pageable copy may change once the call returns.
            unsafe {
                let mut source = pattern(size, size as u32 + 1);
                ok(sys::cuMemcpyHtoDAsync_v2(block, source.as_ptr().cast(), size, stream));
                source.fill(0);
                ok(sys::cuMemcpyDtoHAsync_v2(back.as_mut_ptr().cast(), block, size, stream));
            }
            assert!(back == pattern(size, size as u32 + 1), "{size} bytes, asynchronous");
            notes.add("digest", digest(&back));
        }
        notes.0
    });
    let total: u64 = SIZES.iter().map(|size| 2 * *size as u64).sum();
    assert_eq!(
        report["bytes"]["host_to_device"].as_u64().or(report["host_to_device_bytes"].as_u64()),
        Some(total),
        "{report:#}"
    );
}

#[test]
fn unified_copies_find_out_where_addresses_are() {
    twice("unified_copies_find_out_where_addresses_are", || {
        start();
        let mut notes = Notes::default();
        let (first, second) = (allocate(100_000), allocate(100_000));
        let (source, mut target) = (pattern(100_000, 1), vec![0_u8; 100_000]);
        let (from, to) = (source.as_ptr() as u64, target.as_mut_ptr() as u64);
        // SAFETY: every address is valid for the size, or is meant to be refused.
        unsafe {
            notes.code("host to device", sys::cuMemcpy(first, from, 100_000));
            notes.code("device to device", sys::cuMemcpy(second, first, 100_000));
            notes.code("device to host", sys::cuMemcpy(to, second, 100_000));
            notes.add("equal", source == target);
            target.fill(0);
            notes.code("host to host", sys::cuMemcpy(to, from, 100_000));
            notes.add("equal", source == target);
            notes.code("asynchronous", sys::cuMemcpyAsync(to, first, 100, ptr::null_mut()));
            notes.code("from null", sys::cuMemcpy(first, 0, 100));
            notes.code("to null", sys::cuMemcpy(0, first, 100));
            notes.code("host address as device", sys::cuMemcpyDtoD_v2(first, from, 8));
        }
        notes.0
    });
}

#[test]
fn fills_and_overlaps() {
    twice("fills_and_overlaps", || {
        start();
        let mut notes = Notes::default();
        let block = allocate(1 << 16);
        // SAFETY: ranges inside the block.
        unsafe {
            ok(sys::cuMemsetD8_v2(block, 0xab, 1 << 16));
            ok(sys::cuMemsetD16_v2(block + 2, 0x1234, 1000));
            ok(sys::cuMemsetD32_v2(block + 4096, 0xdead_beef, 1000));
            ok(sys::cuMemsetD2D8_v2(block + 10_000, 256, 0x11, 100, 20));
            ok(sys::cuMemsetD2D16_v2(block + 20_000, 256, 0x2233, 50, 20));
            ok(sys::cuMemsetD2D32_v2(block + 30_000, 256, 0x4455_6677, 25, 20));
            ok(sys::cuMemsetD8Async(block + 60_000, 1, 100, ptr::null_mut()));
            ok(sys::cuMemcpyDtoD_v2(block + 40_000, block + 4096, 4000));
            notes.code("rows longer than the pitch", sys::cuMemsetD2D8_v2(block, 10, 0, 11, 2));
            notes.code("beyond the end", sys::cuMemsetD8_v2(block, 0, (1 << 16) + (4 << 20)));
        }
        notes.add("digest", digest(&download(block, 1 << 16)));
        notes.0
    });
}

/// A description of a copy of linear memory.
fn rectangle(src: u64, src_is_host: bool, dst: u64, dst_is_host: bool) -> sys::CUDA_MEMCPY2D {
    let kind = |is_host| match is_host {
        true => sys::CUmemorytype::CU_MEMORYTYPE_HOST,
        false => sys::CUmemorytype::CU_MEMORYTYPE_DEVICE,
    };
    sys::CUDA_MEMCPY2D {
        srcXInBytes: 0,
        srcY: 0,
        srcMemoryType: kind(src_is_host),
        srcHost: src as *const c_void,
        srcDevice: src,
        srcArray: ptr::null_mut(),
        srcPitch: 0,
        dstXInBytes: 0,
        dstY: 0,
        dstMemoryType: kind(dst_is_host),
        dstHost: dst as *mut c_void,
        dstDevice: dst,
        dstArray: ptr::null_mut(),
        dstPitch: 0,
        WidthInBytes: 0,
        Height: 0,
    }
}

#[test]
fn rectangles_and_boxes() {
    twice("rectangles_and_boxes", || {
        start();
        let mut notes = Notes::default();
        let block = allocate(16 << 20);
        // SAFETY: every description stays inside `block` and the vectors, or is meant to be refused.
        unsafe {
            for (width, height, pitch) in
                [(100, 50, 128), (4096, 700, 4096), (3000, 2000, 3500), (1, 1000, 7), (600, 1, 0)]
            {
                ok(sys::cuMemsetD8_v2(block, 0, 16 << 20));
                let source = pattern(pitch.max(width) * height + 64, height as u32);
                let up = sys::CUDA_MEMCPY2D {
                    srcXInBytes: 0,
                    srcPitch: pitch,
                    dstXInBytes: 3,
                    dstY: 2,
                    dstPitch: width + 13,
                    WidthInBytes: width,
                    Height: height,
                    ..rectangle(source.as_ptr() as u64, true, block, false)
                };
                ok(sys::cuMemcpy2D_v2(&up));
                notes.add("up", digest(&download(block, (width + 13) * (height + 2) + 3)));
                let across = sys::CUDA_MEMCPY2D {
                    srcXInBytes: 3,
                    srcY: 2,
                    srcPitch: width + 13,
                    dstPitch: width + 64,
                    WidthInBytes: width,
                    Height: height,
                    ..rectangle(block, false, block + (8 << 20), false)
                };
                ok(sys::cuMemcpy2DAsync_v2(&across, ptr::null_mut()));
                let mut back = vec![7_u8; (width + 5) * height];
                let down = sys::CUDA_MEMCPY2D {
                    srcPitch: width + 64,
                    dstPitch: width + 5,
                    WidthInBytes: width,
                    Height: height,
                    ..rectangle(block + (8 << 20), false, back.as_mut_ptr() as u64, true)
                };
                ok(sys::cuMemcpy2DUnaligned_v2(&down));
                notes.add("down", digest(&back));
                let short = sys::CUDA_MEMCPY2D { srcPitch: width - 1, Height: 2, ..up };
                notes.code("pitch below the width", sys::cuMemcpy2D_v2(&short));
                notes.code("no rows", sys::cuMemcpy2D_v2(&sys::CUDA_MEMCPY2D { Height: 0, ..up }));
            }
            let mut back = vec![0_u8; 20 * 10 * 4];
            let copy = sys::CUDA_MEMCPY3D {
                srcXInBytes: 5,
                srcY: 1,
                srcZ: 1,
                srcLOD: 0,
                srcMemoryType: sys::CUmemorytype::CU_MEMORYTYPE_DEVICE,
                srcHost: ptr::null(),
                srcDevice: block,
                srcArray: ptr::null_mut(),
                reserved0: ptr::null_mut(),
                srcPitch: 64,
                srcHeight: 30,
                dstXInBytes: 0,
                dstY: 0,
                dstZ: 0,
                dstLOD: 0,
                dstMemoryType: sys::CUmemorytype::CU_MEMORYTYPE_HOST,
                dstHost: back.as_mut_ptr().cast(),
                dstDevice: 0,
                dstArray: ptr::null_mut(),
                reserved1: ptr::null_mut(),
                dstPitch: 20,
                dstHeight: 10,
                WidthInBytes: 20,
                Height: 10,
                Depth: 4,
            };
            upload(block, &pattern(1 << 20, 77));
            ok(sys::cuMemcpy3D_v2(&copy));
            notes.add("box", digest(&back));
            notes.code("null description", sys::cuMemcpy2D_v2(ptr::null()));
        }
        notes.0
    });
}

#[test]
fn copies_keep_the_order_of_the_null_stream() {
    twice("copies_keep_the_order_of_the_null_stream", || {
        start();
        let module = load();
        let block = allocate(1 << 20);
        for round in 0..20_u32 {
            let words: Vec<u8> = (0..1 << 18).flat_map(|index: u32| (index ^ round).to_ne_bytes()).collect();
            upload(block, &words);
            add_one(module, block, 1 << 18);
            add_one(module, block, 1 << 18);
            let back = download(block, 1 << 20);
            let wrong = back.chunks_exact(4).enumerate().find(|(index, word)| {
                u32::from_ne_bytes((*word).try_into().unwrap()) != (*index as u32 ^ round) + 2
            });
            assert_eq!(wrong, None, "round {round}");
        }
        ok(synchronize());
        vec!["in order".to_owned()]
    });
}

#[test]
fn threads_share_the_staging_memory() {
    twice("threads_share_the_staging_memory", || {
        start();
        let mut context = ptr::null_mut();
        // SAFETY: a valid out-pointer.
        ok(unsafe { sys::cuCtxGetCurrent(&mut context) });
        let context = context as usize;
        let threads: Vec<_> = (0..6_u32)
            .map(|seed| {
                std::thread::spawn(move || {
                    // SAFETY: the primary context, retained by the main thread.
                    ok(unsafe { sys::cuCtxSetCurrent(context as sys::CUcontext) });
                    let data = pattern(9_000_001, seed);
                    let block = allocate(data.len());
                    for _ in 0..4 {
                        upload(block, &data);
                        assert!(download(block, data.len()) == data, "thread {seed}");
                    }
                })
            })
            .collect();
        let finished = threads.into_iter().map(|thread| thread.join().is_ok()).collect::<Vec<_>>();
        vec![format!("{finished:?}")]
    });
}

#[test]
fn globals_are_device_memory() {
    twice("globals_are_device_memory", || {
        start();
        let mut notes = Notes::default();
        let module = load();
        let (mut address, mut bytes) = (0, 0);
        // SAFETY: valid out-pointers, names and handles, or null on purpose.
        unsafe {
            notes.code(
                "found",
                sys::cuModuleGetGlobal_v2(&mut address, &mut bytes, module, c"table".as_ptr()),
            );
            notes.add("bytes", bytes);
            notes.add("contents", download(address, 16));
            upload(address + 16, &9_u32.to_ne_bytes());
            add_one(module, address, 5);
            notes.add("after the kernel", download(address, 24));
            let mut kind = 0_u32;
            let attribute = sys::CUpointer_attribute::CU_POINTER_ATTRIBUTE_MEMORY_TYPE;
            notes.code("type", sys::cuPointerGetAttribute((&raw mut kind).cast(), attribute, address + 4));
            notes.add("type", kind);
            notes.code(
                "no such name",
                sys::cuModuleGetGlobal_v2(&mut address, &mut bytes, module, c"none".as_ptr()),
            );
            notes.code("null name", sys::cuModuleGetGlobal_v2(&mut address, &mut bytes, module, ptr::null()));
            notes.code(
                "only the size",
                sys::cuModuleGetGlobal_v2(ptr::null_mut(), &mut bytes, module, c"table".as_ptr()),
            );
            notes.add("size", bytes);
            // Nothing of the program's own may come to lie there: a copy could not tell the two apart.
            ok(sys::cuModuleGetGlobal_v2(&mut address, &mut bytes, module, c"table".as_ptr()));
            let page = ptr::with_exposed_provenance_mut((address & !4095) as usize);
            let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
            notes.add("taken", libc::mmap(page, 4096, libc::PROT_READ, kind, -1, 0) == libc::MAP_FAILED);
        }
        notes.0
    });
}

#[test]
fn copies_and_allocations_beside_a_capture_leave_it_alone() {
    let report = twice("copies_and_allocations_beside_a_capture_leave_it_alone", || {
        start();
        let mut notes = Notes::default();
        let bytes = 3 << 20;
        let block = allocate(bytes);
        let data = pattern(bytes, 21);
        let (mut captured, mut other, mut graph, mut pooled) =
            (ptr::null_mut(), ptr::null_mut(), ptr::null_mut(), 0);
        // SAFETY: valid out-pointers, live handles, blocks of `bytes` bytes.
        unsafe {
            ok(sys::cuStreamCreate(&mut captured, 1));
            ok(sys::cuStreamCreate(&mut other, 1));
            let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_GLOBAL;
            ok(sys::cuStreamBeginCapture_v2(captured, mode));
            ok(sys::cuMemsetD32Async(block, 1, 4, captured));
            // The first pageable copy of the process, and memory that no slab has yet.
            notes.code("copy", sys::cuMemcpyHtoDAsync_v2(block, data.as_ptr().cast(), bytes, other));
            notes.code("allocation", sys::cuMemAllocAsync(&mut pooled, 100 << 20, other));
            notes.code("its end", sys::cuMemFreeAsync(pooled, other));
            notes.code("capture", sys::cuStreamEndCapture(captured, &mut graph));
            ok(sys::cuStreamSynchronize(other));
        }
        notes.add("copied", download(block, bytes) == data);
        notes.0
    });
    assert_eq!(report["sticky_error"], 0, "{report:#}");
}
