//! Device memory: sizes, alignment, limits, wrong frees, pointer attributes; natively and under the shim.

#[path = "memory/cuda.rs"]
mod cuda;

use std::ptr;

use cuda::{Notes, allocate, download, free, memory, ok, pattern, start, sys, upload};
use lightos_tests::twice::twice;

#[test]
fn blocks_of_all_sizes_keep_their_contents_apart() {
    let report = twice("blocks_of_all_sizes_keep_their_contents_apart", || {
        start();
        let mut notes = Notes::default();
        let sizes = [1, 2, 511, 512, 513, 4096, 65_537, 1 << 20, (1 << 20) + 1, 3 << 20, 40 << 20];
        let blocks: Vec<(u64, Vec<u8>)> = (0..3)
            .flat_map(|round| sizes.map(|size| (round, size)))
            .map(|(round, size)| (allocate(size), pattern(size, size as u32 + round)))
            .collect();
        for (address, data) in &blocks {
            assert!(address.is_multiple_of(256), "{address:#x}");
            upload(*address, data);
        }
        for (index, (address, data)) in blocks.iter().enumerate() {
            assert!(download(*address, data.len()) == *data, "block {index} of {} bytes", data.len());
        }
        blocks.iter().step_by(2).for_each(|(address, _)| free(*address));
        for (address, data) in blocks.iter().skip(1).step_by(2) {
            assert!(download(*address, data.len()) == *data, "after its neighbours are gone");
            free(*address);
        }
        notes.add("blocks", blocks.len());
        notes.0
    });
    assert!(report["calls"]["cuMemAlloc_v2"]["forwarded"].as_u64() >= Some(33), "{report:#}");
    assert!(report["memory"]["peak_bytes"].as_u64().unwrap() > 3 * (40 << 20), "{report:#}");
    assert_eq!(report["memory"]["current_bytes"], 0, "everything was freed: {report:#}");
}

#[test]
fn wrong_arguments_get_the_drivers_errors() {
    twice("wrong_arguments_get_the_drivers_errors", || {
        let mut notes = Notes::default();
        let mut address = 0;
        // SAFETY: pointers are valid or null on purpose; addresses are numbers that the driver judges.
        unsafe {
            ok(sys::cuInit(0));
            notes.code("without a context", sys::cuMemAlloc_v2(&mut address, 16));
            notes.code("free without a context", sys::cuMemFree_v2(0x1000));
            start();
            notes.code("zero bytes", sys::cuMemAlloc_v2(&mut address, 0));
            notes.code("null out", sys::cuMemAlloc_v2(ptr::null_mut(), 16));
            notes.code("far too much", sys::cuMemAlloc_v2(&mut address, 1 << 50));
            notes.code("usize::MAX", sys::cuMemAlloc_v2(&mut address, usize::MAX));
            let block = allocate(4096);
            notes.code("inside a block", sys::cuMemFree_v2(block + 256));
            notes.code("first free", sys::cuMemFree_v2(block));
            notes.code("second free", sys::cuMemFree_v2(block));
            notes.code("a host address", sys::cuMemFree_v2((&raw const address) as u64));
            let mut byte = 0_u8;
            let host = (&raw mut byte).cast();
            notes.code("copy to freed memory", sys::cuMemcpyHtoD_v2(block, host, 1));
            notes.code("copy from freed memory", sys::cuMemcpyDtoH_v2(host, block, 1));
            notes.code("fill of freed memory", sys::cuMemsetD8_v2(block, 0, 1));
            let block = allocate(1000);
            notes.code(
                "copy beyond the end",
                sys::cuMemcpyHtoD_v2(block, pattern(2 << 20, 1).as_ptr().cast(), 2 << 20),
            );
            notes.code("null source", sys::cuMemcpyHtoD_v2(block, ptr::null(), 1));
            notes.code("null device", sys::cuMemcpyHtoD_v2(0, host, 1));
            notes.code("zero bytes from null", sys::cuMemcpyHtoD_v2(block, ptr::null(), 0));
            notes.code("misaligned fill", sys::cuMemsetD32_v2(block + 2, 0, 1));
            notes.code("zero elements", sys::cuMemsetD32_v2(block, 0, 0));
            let (mut base, mut bytes, mut pitch) = (0, 0, 0);
            notes.code("range", sys::cuMemGetAddressRange_v2(&mut base, &mut bytes, block + 10));
            notes.add("range", (base == block, bytes));
            notes.code("range of nothing", sys::cuMemGetAddressRange_v2(&mut base, &mut bytes, 0x1000));
            notes.code("odd element", sys::cuMemAllocPitch_v2(&mut address, &mut pitch, 100, 10, 3));
            notes.code("pitched", sys::cuMemAllocPitch_v2(&mut address, &mut pitch, 1000, 10, 4));
            notes.add("pitch", pitch);
            notes.add("pitched size", {
                ok(sys::cuMemGetAddressRange_v2(&mut base, &mut bytes, address));
                bytes >= pitch * 10
            });
        }
        notes.0
    });
}

#[test]
fn memory_runs_out_and_comes_back() {
    twice("memory_runs_out_and_comes_back", || {
        start();
        let mut notes = Notes::default();
        free(allocate(1));
        let (before, total) = memory();
        let step = total / 8;
        let mut blocks = Vec::new();
        let last = loop {
            let mut address = 0;
            // SAFETY: a valid out-pointer.
            match unsafe { sys::cuMemAlloc_v2(&mut address, step) } {
                sys::CUresult::CUDA_SUCCESS => blocks.push(address),
                error => break error,
            }
            assert!(blocks.len() < 9, "more than there is");
        };
        notes.code("the last one", last);
        notes.add("how many", blocks.len());
        let (full, _) = memory();
        notes.add("less than a step is left", full < step);
        blocks.into_iter().for_each(free);
        let (after, _) = memory();
        notes.add("lost bytes", before as i64 - after as i64);
        let again = allocate(step * 6);
        notes.add("memory is back", again != 0);
        notes.0
    });
}

#[test]
fn attributes_describe_the_programs_own_block() {
    use sys::CUpointer_attribute as Attribute;
    twice("attributes_describe_the_programs_own_block", || {
        start();
        let mut notes = Notes::default();
        let _other = allocate(100);
        let block = allocate(1000);
        let read = |attribute, address| {
            let mut value = 0_u64;
            // SAFETY: room for the largest attribute asked for here.
            let code = unsafe { sys::cuPointerGetAttribute((&raw mut value).cast(), attribute, address) };
            (code as u32, value)
        };
        let mut context = ptr::null_mut();
        // SAFETY: a valid out-pointer.
        ok(unsafe { sys::cuCtxGetCurrent(&mut context) });
        let inside = block + 100;
        notes.add("type", read(Attribute::CU_POINTER_ATTRIBUTE_MEMORY_TYPE, inside));
        let (code, found) = read(Attribute::CU_POINTER_ATTRIBUTE_CONTEXT, inside);
        notes.add("context", (code, found == context as u64));
        let (code, found) = read(Attribute::CU_POINTER_ATTRIBUTE_RANGE_START_ADDR, inside);
        notes.add("start", (code, found == block));
        notes.add("size", read(Attribute::CU_POINTER_ATTRIBUTE_RANGE_SIZE, inside));
        let (code, found) = read(Attribute::CU_POINTER_ATTRIBUTE_DEVICE_POINTER, inside);
        notes.add("pointer", (code, found == inside));
        notes.add("host pointer", read(Attribute::CU_POINTER_ATTRIBUTE_HOST_POINTER, inside).0);
        notes.add("ordinal", read(Attribute::CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, inside));
        notes.add("managed", read(Attribute::CU_POINTER_ATTRIBUTE_IS_MANAGED, inside));
        notes.add("mapped", read(Attribute::CU_POINTER_ATTRIBUTE_MAPPED, inside));
        notes.add("pool", read(Attribute::CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE, inside));
        let (_, first) = read(Attribute::CU_POINTER_ATTRIBUTE_BUFFER_ID, block);
        let (_, same) = read(Attribute::CU_POINTER_ATTRIBUTE_BUFFER_ID, inside);
        let (_, other) = read(Attribute::CU_POINTER_ATTRIBUTE_BUFFER_ID, allocate(10));
        notes.add("buffer ids", (first == same, first == other));
        notes.add("stack", read(Attribute::CU_POINTER_ATTRIBUTE_MEMORY_TYPE, (&raw const inside) as u64).0);
        free(block);
        notes.add("freed", read(Attribute::CU_POINTER_ATTRIBUTE_MEMORY_TYPE, inside).0);
        notes.0
    });
}

#[test]
fn stream_ordered_memory_is_reused_in_order() {
    let report = twice("stream_ordered_memory_is_reused_in_order", || {
        start();
        let mut notes = Notes::default();
        let mut stream = ptr::null_mut();
        // SAFETY: valid out-pointers and live handles throughout; addresses are the driver's.
        unsafe {
            ok(sys::cuStreamCreate(&mut stream, 1));
            let (before, _) = memory();
            for round in 0..50_u32 {
                let (mut first, mut second) = (0, 0);
                ok(sys::cuMemAllocAsync(&mut first, 100_000, stream));
                ok(sys::cuMemAllocAsync(&mut second, 3 << 20, stream));
                assert_ne!(first, second);
                ok(sys::cuMemsetD32Async(first, round, 25_000, stream));
                ok(sys::cuMemcpyDtoDAsync_v2(second, first, 100_000, stream));
                let mut word = 0_u32;
                ok(sys::cuMemFreeAsync(first, stream));
                ok(sys::cuMemcpyDtoHAsync_v2((&raw mut word).cast(), second + 99_996, 4, stream));
                ok(sys::cuStreamSynchronize(stream));
                assert_eq!(word, round);
                ok(sys::cuMemFreeAsync(second, stream));
            }
            ok(sys::cuStreamSynchronize(stream));
            let mut pool = ptr::null_mut();
            ok(sys::cuDeviceGetDefaultMemPool(&mut pool, 0));
            ok(sys::cuMemPoolTrimTo(pool, 0));
            let (after, _) = memory();
            notes.add("fifty rounds leak nothing", before.saturating_sub(after) < 50 << 20);
            let used = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT;
            let mut bytes = 1_u64;
            ok(sys::cuMemPoolGetAttribute(pool, used, (&raw mut bytes).cast()));
            notes.add("used", bytes);
            notes.code("free of nothing", sys::cuMemFreeAsync(0x1000, stream));
            let mut block = 0;
            notes.code("zero bytes", sys::cuMemAllocAsync(&mut block, 0, stream));
            ok(sys::cuMemAllocAsync(&mut block, 64, stream));
            notes.code("freed synchronously", sys::cuMemFree_v2(block));
            notes.code("freed again", sys::cuMemFreeAsync(block, stream));
        }
        notes.0
    });
    assert!(report["calls"]["cuMemAllocAsync"]["forwarded"].as_u64() >= Some(100), "{report:#}");
}

#[test]
fn threads_allocate_and_free_at_once() {
    let report = twice("threads_allocate_and_free_at_once", || {
        start();
        let mut context = ptr::null_mut();
        // SAFETY: a valid out-pointer.
        ok(unsafe { sys::cuCtxGetCurrent(&mut context) });
        let context = context as usize;
        let work = move |seed: u32| {
            // SAFETY: the primary context, retained by the main thread; blocks are used by their own thread, until freed.
            unsafe {
                ok(sys::cuCtxSetCurrent(context as sys::CUcontext));
                let mut stream = ptr::null_mut();
                ok(sys::cuStreamCreate(&mut stream, 1));
                for round in 0..60_u32 {
                    let value = seed * 1000 + round;
                    let words = 1 + (value as usize * 7919) % 50_000;
                    let block = allocate(words * 4);
                    let (mut pooled, mut pinned) = (0, ptr::null_mut());
                    ok(sys::cuMemAllocAsync(&mut pooled, words * 4, stream));
                    ok(sys::cuMemAllocHost_v2(&mut pinned, words * 4));
                    ok(sys::cuMemsetD32Async(pooled, value, words, stream));
                    ok(sys::cuMemcpyDtoDAsync_v2(block, pooled, words * 4, stream));
                    ok(sys::cuMemFreeAsync(pooled, stream));
                    ok(sys::cuMemcpyDtoHAsync_v2(pinned, block, words * 4, stream));
                    ok(sys::cuStreamSynchronize(stream));
                    let found = std::slice::from_raw_parts(pinned.cast::<u32>(), words);
                    assert!(found.iter().all(|word| *word == value), "thread {seed}, round {round}");
                    ok(sys::cuMemFreeHost(pinned));
                    free(block);
                }
                ok(sys::cuStreamDestroy_v2(stream));
            }
        };
        let threads: Vec<_> = (1..=6).map(|seed| std::thread::spawn(move || work(seed))).collect();
        let finished: Vec<bool> = threads.into_iter().map(|thread| thread.join().is_ok()).collect();
        vec![format!("{finished:?}")]
    });
    assert_eq!(report["memory"]["current_bytes"], 0, "everything was freed: {report:#}");
    assert_eq!(report["sticky_error"], 0, "{report:#}");
}
