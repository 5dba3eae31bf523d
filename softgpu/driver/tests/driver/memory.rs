//! Allocation, copies, fills, pointer queries and virtual memory.

use std::ffi::c_void;

use cuda::api::{copy, memory, memset, pool, vmm};

use crate::support::{INVALID_VALUE, code, in_own_process, ok, primary};

/// `CUmemAllocationProp` for exportable pinned memory of device 0.
fn prop() -> [u64; 4] {
    [1 | 1 << 32, 1, 0, 0]
}

fn grant(address: u64, bytes: usize) {
    let access = [1u32, 0, 3];
    ok!(vmm::cuMemSetAccess(address, bytes, access.as_ptr().cast(), 1));
}

const GRANULE: usize = 2 << 20;

#[test]
fn allocations_are_counted_and_given_back() {
    in_own_process("memory::allocations_are_counted_and_given_back", || {
        primary();
        let (mut before, mut after, mut total, mut big, mut small) = (0, 0, 0, 0, 0);
        ok!(memory::cuMemGetInfo_v2(&mut before, &mut total));
        ok!(memory::cuMemAlloc_v2(&mut big, 64 << 20));
        ok!(memory::cuMemAlloc_v2(&mut small, 100));
        assert_eq!((big % 512, small % 512), (0, 0));
        ok!(memory::cuMemGetInfo_v2(&mut after, &mut total));
        assert_eq!(before - after, (64 << 20) + GRANULE);
        assert_eq!(code!(memory::cuMemAlloc_v2(&mut big, total)), 2);
        assert_eq!(code!(memory::cuMemAlloc_v2(&mut big, 0)), INVALID_VALUE);
        ok!(memory::cuMemFree_v2(small));
        assert_eq!(code!(memory::cuMemFree_v2(small)), INVALID_VALUE);
        ok!(memory::cuMemFree_v2(big));
        ok!(memory::cuMemFree_v2(0));
        ok!(memory::cuMemGetInfo_v2(&mut after, &mut total));
        assert_eq!(before, after);
    });
}

#[test]
fn the_device_has_as_much_memory_as_it_is_told() {
    in_own_process("memory::the_device_has_as_much_memory_as_it_is_told", || {
        // SAFETY: no other thread of this process reads the environment yet.
        unsafe { std::env::set_var("SOFTGPU_MEMORY_MIB", "64") };
        primary();
        let (mut free, mut total, mut most, mut more, mut handle) = (0, 0, 0, 0, 0);
        ok!(memory::cuMemGetInfo_v2(&mut free, &mut total));
        assert_eq!((free, total), (64 << 20, 64 << 20));
        ok!(memory::cuMemAlloc_v2(&mut most, 60 << 20));
        assert_eq!(code!(memory::cuMemAlloc_v2(&mut more, 6 << 20)), 2);
        assert_eq!(code!(vmm::cuMemCreate(&mut handle, 6 << 20, prop().as_ptr().cast(), 0)), 2);
        ok!(vmm::cuMemCreate(&mut handle, 4 << 20, prop().as_ptr().cast(), 0));
        assert_eq!(code!(memory::cuMemAlloc_v2(&mut more, 1)), 2);
        ok!(memory::cuMemFree_v2(most));
        ok!(vmm::cuMemRelease(handle));
        ok!(memory::cuMemGetInfo_v2(&mut free, &mut total));
        assert_eq!(free, total);
    });
}

#[test]
fn small_allocations_are_recycled_without_overlap() {
    primary();
    let mut live: Vec<(u64, usize)> = Vec::new();
    for round in 0..400usize {
        let bytes = 1 + (round * 7919) % 70_000;
        let mut pointer = 0;
        ok!(memory::cuMemAlloc_v2(&mut pointer, bytes));
        assert!(live.iter().all(|(p, n)| pointer + bytes as u64 <= *p || p + *n as u64 <= pointer));
        live.push((pointer, bytes));
        if round % 3 == 0 {
            let (pointer, _) = live.swap_remove((round * 31) % live.len());
            ok!(memory::cuMemFree_v2(pointer));
        }
    }
    for (pointer, _) in live {
        ok!(memory::cuMemFree_v2(pointer));
    }
}

#[test]
fn copies_check_addresses_and_ranges() {
    in_own_process("memory::copies_check_addresses_and_ranges", || {
        primary();
        let mut pointer = 0;
        ok!(memory::cuMemAlloc_v2(&mut pointer, 4096));
        let (out, mut back) = ([7u8; 4096], [0u8; 4096]);
        let (from, to) = (out.as_ptr() as u64, back.as_mut_ptr() as u64);
        ok!(copy::cuMemcpyHtoD_v2(pointer, from, 4096));
        ok!(memset::cuMemsetD16_v2(pointer + 10, 0x0102, 2));
        ok!(copy::cuMemcpy(to, pointer, 4096));
        assert_eq!(back[8..16], [7, 7, 2, 1, 2, 1, 7, 7]);
        ok!(copy::cuMemcpyHtoD_v2(pointer, from, 0));
        assert_eq!(code!(copy::cuMemcpyHtoD_v2(pointer, from, 4097)), INVALID_VALUE);
        assert_eq!(code!(copy::cuMemcpyDtoH_v2(to, 0x1234, 4)), INVALID_VALUE);
        assert_eq!(code!(copy::cuMemcpyHtoD_v2(0, from, 4)), INVALID_VALUE);
        assert_eq!(code!(memset::cuMemsetD32_v2(pointer + 2, 0, 1)), INVALID_VALUE);
        assert_eq!(code!(memset::cuMemsetD8_v2(pointer, 0, 5000)), INVALID_VALUE);
        ok!(memory::cuMemFree_v2(pointer));
        assert_eq!(code!(copy::cuMemcpyDtoH_v2(to, pointer, 4)), INVALID_VALUE);
    });
}

#[test]
fn pinned_and_registered_memory_are_known() {
    in_own_process("memory::pinned_and_registered_memory_are_known", || {
        primary();
        let (mut pinned, mut device, mut flags, mut kind) = (std::ptr::null_mut::<c_void>(), 0, 0, 0u32);
        ok!(memory::cuMemHostAlloc(&mut pinned, 5000, 4));
        ok!(memory::cuMemHostGetDevicePointer_v2(&mut device, pinned as u64, 0));
        assert_eq!(device, pinned as u64);
        ok!(memory::cuMemHostGetFlags(&mut flags, pinned as u64));
        assert_eq!(flags & 4, 4);
        ok!(memory::cuPointerGetAttribute((&raw mut kind).cast(), 2, device));
        assert_eq!(kind, 1);
        assert_eq!(code!(memory::cuMemFree_v2(device)), INVALID_VALUE);
        ok!(memory::cuMemFreeHost(device));
        let own = vec![0u8; 8192];
        let at = own.as_ptr() as u64;
        assert_eq!(code!(memory::cuPointerGetAttribute((&raw mut kind).cast(), 2, at)), INVALID_VALUE);
        ok!(memory::cuMemHostRegister_v2(at, 8192, 0));
        assert_eq!(code!(memory::cuMemHostRegister_v2(at + 4096, 8192, 0)), 712);
        ok!(memory::cuPointerGetAttribute((&raw mut kind).cast(), 2, at + 100));
        ok!(memory::cuMemHostUnregister(at));
        assert_eq!(code!(memory::cuMemHostUnregister(at)), 713);
    });
}

#[test]
fn pointers_are_described() {
    let context = primary();
    let mut pointer = 0;
    ok!(memory::cuMemAlloc_v2(&mut pointer, 1000));
    let (mut owner, mut kind, mut start, mut size, mut ordinal) = (0u64, 0u32, 0u64, 0usize, 9i32);
    let (attributes, mut data) = (
        [1u32, 2, 11, 12, 9],
        [
            (&raw mut owner).cast::<c_void>(),
            (&raw mut kind).cast(),
            (&raw mut start).cast(),
            (&raw mut size).cast(),
            (&raw mut ordinal).cast(),
        ],
    );
    ok!(memory::cuPointerGetAttributes(5, attributes.as_ptr(), data.as_mut_ptr(), pointer + 5));
    assert_eq!((owner, kind, start, size, ordinal), (context, 2, pointer, 1000, 0));
    ok!(memory::cuPointerGetAttributes(5, attributes.as_ptr(), data.as_mut_ptr(), &raw const size as u64));
    assert_eq!((owner, kind, start, ordinal), (0, 0, 0, -2));
    let (mut base, mut bytes) = (0, 0);
    ok!(memory::cuMemGetAddressRange_v2(&mut base, &mut bytes, pointer + 999));
    assert_eq!((base, bytes), (pointer, 1000));
    ok!(memory::cuMemFree_v2(pointer));
}

#[test]
fn physical_memory_is_mapped_where_it_is_asked_for() {
    primary();
    let hint = 0x3100_0000_0000u64;
    let (mut start, mut handle, mut again) = (0, 0, 0);
    assert_eq!(code!(vmm::cuMemAddressReserve(&mut start, 4096, 0, 0, 0)), INVALID_VALUE);
    ok!(vmm::cuMemAddressReserve(&mut start, 1 << 40, 0, hint, 0));
    assert_eq!(start, hint);
    ok!(vmm::cuMemCreate(&mut handle, 2 * GRANULE, prop().as_ptr().cast(), 0));
    assert_eq!(code!(vmm::cuMemCreate(&mut again, GRANULE + 1, prop().as_ptr().cast(), 0)), INVALID_VALUE);
    let at = start + 16 * GRANULE as u64;
    ok!(vmm::cuMemMap(at, 2 * GRANULE, 0, handle, 0));
    assert_eq!(code!(vmm::cuMemMap(at + GRANULE as u64, GRANULE, 0, handle, 0)), INVALID_VALUE);
    assert_eq!(code!(memset::cuMemsetD8_v2(at, 1, 8)), INVALID_VALUE, "no access yet");
    grant(at, 2 * GRANULE);
    ok!(memset::cuMemsetD8_v2(at, 0x5a, 2 * GRANULE));
    let mut byte = 0u8;
    ok!(copy::cuMemcpyDtoH_v2(&raw mut byte as u64, at + 3_000_000, 1));
    assert_eq!(byte, 0x5a);
    ok!(vmm::cuMemRetainAllocationHandle(&mut again, at + 100));
    assert_eq!(handle, again);
    ok!(vmm::cuMemRelease(handle));
    ok!(vmm::cuMemRelease(handle));
    assert_eq!(code!(vmm::cuMemRelease(handle)), INVALID_VALUE);
    ok!(copy::cuMemcpyDtoH_v2(&raw mut byte as u64, at, 1));
    assert_eq!(code!(vmm::cuMemAddressFree(start, 1 << 40)), INVALID_VALUE, "still mapped");
    assert_eq!(code!(vmm::cuMemUnmap(at, GRANULE)), INVALID_VALUE, "half a mapping");
    ok!(vmm::cuMemUnmap(at, 2 * GRANULE));
    assert_eq!(code!(copy::cuMemcpyDtoH_v2(&raw mut byte as u64, at, 1)), INVALID_VALUE);
    ok!(vmm::cuMemAddressFree(start, 1 << 40));
}

#[test]
fn memory_of_the_host_is_that_of_a_node() {
    primary();
    // The host, a node, the calling thread's node; without handles, and with descriptors.
    for (location, handle_types, code) in
        [(2, 0, 0), (2, 1, INVALID_VALUE), (3, 0, 0), (3, 1, 0), (4, 0, INVALID_VALUE), (4, 1, INVALID_VALUE)]
    {
        let (asked, mut found, mut handle) = ([1 | handle_types << 32, location, 0, 0], [0u64; 4], 0);
        let made = code!(vmm::cuMemCreate(&mut handle, GRANULE, asked.as_ptr().cast(), 0));
        assert_eq!(made, code, "{location} {handle_types}");
        if made == 0 {
            ok!(vmm::cuMemGetAllocationPropertiesFromHandle(found.as_mut_ptr().cast(), handle));
            assert_eq!(found[..2], [asked[0], 3]);
            ok!(vmm::cuMemRelease(handle));
        }
    }
}

#[test]
fn pools_allocate_in_stream_order() {
    in_own_process("memory::pools_allocate_in_stream_order", || {
        primary();
        let (mut pool_handle, mut pointer, mut used) = (0, 0, 1u64);
        ok!(pool::cuDeviceGetDefaultMemPool(&mut pool_handle, 0));
        ok!(pool::cuMemAllocAsync(&mut pointer, 10_000, 0));
        ok!(memset::cuMemsetD8Async(pointer, 3, 10_000, 0));
        let mut owner = 0u64;
        ok!(memory::cuPointerGetAttribute((&raw mut owner).cast(), 17, pointer));
        assert_eq!(owner, pool_handle);
        ok!(pool::cuMemFreeAsync(pointer, 0));
        assert_eq!(
            code!(pool::cuMemFreeAsync(pointer, 0)),
            INVALID_VALUE,
            "freed already, if not yet returned"
        );
        ok!(cuda::api::context::cuCtxSynchronize());
        assert_eq!(code!(pool::cuMemFreeAsync(pointer, 0)), INVALID_VALUE);
        ok!(pool::cuMemPoolGetAttribute(pool_handle, 7, (&raw mut used).cast()));
        assert_eq!(used, 0);
    });
}

#[test]
fn pools_hand_out_memory_of_the_host_and_managed_memory() {
    primary();
    // CUmemPoolProps: allocation type and handle types, location.
    let props = |kind: u64, location: u64, id: u64| {
        let mut props = [0u64; 11];
        (props[0], props[1]) = (kind, location | id << 32);
        props
    };
    let attribute = |attribute: u32, address: u64| {
        let mut value = 0u32;
        ok!(memory::cuPointerGetAttribute((&raw mut value).cast(), attribute, address));
        value
    };
    // Type and location, then memory type (1 host, 2 device) and whether it is managed.
    for (kind, location, memory_type, managed) in
        [(1, 3, 1, 0), (1, 2, 1, 0), (2, 1, 2, 1), (2, 0, 2, 1), (1, 1, 2, 0)]
    {
        let (mut pool, mut at, mut used) = (0, 0, 0u64);
        ok!(pool::cuMemPoolCreate(&mut pool, props(kind, location, 0).as_ptr().cast()));
        ok!(pool::cuMemAllocFromPoolAsync(&mut at, 10_000, pool, 0));
        ok!(memset::cuMemsetD32_v2(at, 77, 2500));
        // SAFETY: ten thousand bytes that the software GPU keeps in this process.
        assert_eq!(unsafe { (at as *const u32).add(2499).read() }, 77);
        assert_eq!((attribute(2, at), attribute(8, at) & 0xff), (memory_type, managed), "{kind} {location}");
        ok!(pool::cuMemPoolGetAttribute(pool, 7, (&raw mut used).cast()));
        assert_eq!(used, 10_000);
        ok!(pool::cuMemFreeAsync(at, 0));
        ok!(cuda::api::context::cuCtxSynchronize());
        ok!(pool::cuMemPoolGetAttribute(pool, 7, (&raw mut used).cast()));
        assert_eq!(used, 0);
        assert_eq!(code!(memset::cuMemsetD8_v2(at, 0, 1)), INVALID_VALUE, "freed");
        ok!(pool::cuMemPoolDestroy(pool));
    }
    let mut pool = 0;
    for wrong in [props(1, 3, 5), props(1, 0, 0), props(3, 1, 0), props(1, 9, 0)] {
        assert_eq!(code!(pool::cuMemPoolCreate(&mut pool, wrong.as_ptr().cast())), INVALID_VALUE);
    }
}
