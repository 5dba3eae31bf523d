//! The program's own virtual memory management, as PyTorch's expandable segments and JAX use it; natively and under the shim.

#[path = "memory/cuda.rs"]
mod cuda;

use std::ptr;

use cuda::{
    Notes, add_one, allocate, digest, download, free, load, memory, ok, pattern, start, synchronize, sys,
    upload,
};
use lightos_tests::twice::twice;

const PAGE: usize = 2 << 20;

fn properties() -> sys::CUmemAllocationProp {
    sys::CUmemAllocationProp {
        type_: sys::CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED,
        requestedHandleTypes: sys::CUmemAllocationHandleType::CU_MEM_HANDLE_TYPE_NONE,
        location: sys::CUmemLocation { type_: sys::CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE, id: 0 },
        win32HandleMetaData: ptr::null_mut(),
        allocFlags: sys::CUmemAllocationProp_st__bindgen_ty_1 {
            compressionType: 0,
            gpuDirectRDMACapable: 0,
            usage: 0,
            reserved: [0; 4],
        },
    }
}

fn access() -> sys::CUmemAccessDesc {
    sys::CUmemAccessDesc {
        location: properties().location,
        flags: sys::CUmemAccess_flags::CU_MEM_ACCESS_FLAGS_PROT_READWRITE,
    }
}

fn create(bytes: usize) -> u64 {
    let mut handle = 0;
    // SAFETY: valid pointers.
    ok(unsafe { sys::cuMemCreate(&mut handle, bytes, &properties(), 0) });
    handle
}

#[test]
fn a_segment_grows_and_shrinks() {
    let report = twice("a_segment_grows_and_shrinks", || {
        start();
        let mut notes = Notes::default();
        let module = load();
        let warm = allocate(4);
        add_one(module, warm, 1);
        ok(synchronize());
        free(warm);
        let (before, _) = memory();
        // SAFETY: valid pointers, live handles, ranges of our own reservation.
        unsafe {
            let mut base = 0;
            ok(sys::cuMemAddressReserve(&mut base, 64 * PAGE, 0, 0, 0));
            notes.add("aligned", base.is_multiple_of(PAGE as u64));
            for page in 0..8 {
                let handle = create(PAGE);
                let address = base + (page * PAGE) as u64;
                ok(sys::cuMemMap(address, PAGE, 0, handle, 0));
                ok(sys::cuMemSetAccess(address, PAGE, &access(), 1));
                ok(sys::cuMemRelease(handle));
            }
            let data = pattern(8 * PAGE, 3);
            upload(base, &data);
            add_one(module, base, (2 * PAGE) as u32);
            ok(synchronize());
            notes.add("across mappings", digest(&download(base, 8 * PAGE)));
            notes.code("beyond", sys::cuMemsetD8_v2(base, 0, 8 * PAGE + 1));
            ok(sys::cuMemUnmap(base + (6 * PAGE) as u64, 2 * PAGE));
            notes.code("the end is gone", sys::cuMemsetD8_v2(base, 0, 6 * PAGE + 1));
            notes.code("the rest is there", sys::cuMemsetD8_v2(base, 0, 6 * PAGE));
            let (during, _) = memory();
            notes.add("held", (before - during) / PAGE);
            notes.code("still mapped", sys::cuMemAddressFree(base, 64 * PAGE));
            ok(sys::cuMemUnmap(base, 6 * PAGE));
            notes.code("freed", sys::cuMemAddressFree(base, 64 * PAGE));
            notes.add("lost bytes", before as i64 - memory().0 as i64);
        }
        notes.0
    });
    assert_eq!(report["calls"]["cuMemMap"]["forwarded"], 8, "{report:#}");
    assert_eq!(report["memory"]["current_bytes"], 0, "{report:#}");
}

#[test]
fn handles_keep_memory_alive() {
    twice("handles_keep_memory_alive", || {
        start();
        let mut notes = Notes::default();
        // SAFETY: as above.
        unsafe {
            let (mut base, mut again) = (0, 0);
            ok(sys::cuMemAddressReserve(&mut base, 4 * PAGE, 0, 0, 0));
            let handle = create(2 * PAGE);
            ok(sys::cuMemMap(base, PAGE, 0, handle, 0));
            ok(sys::cuMemMap(base + (2 * PAGE) as u64, PAGE, 0, handle, 0));
            ok(sys::cuMemSetAccess(base, PAGE, &access(), 1));
            ok(sys::cuMemSetAccess(base + (2 * PAGE) as u64, PAGE, &access(), 1));
            upload(base, &pattern(PAGE, 9));
            notes.add("two views", digest(&download(base + (2 * PAGE) as u64, PAGE)));
            ok(sys::cuMemRelease(handle));
            notes.code("retained", sys::cuMemRetainAllocationHandle(&mut again, base as *mut _));
            ok(sys::cuMemUnmap(base, PAGE));
            ok(sys::cuMemUnmap(base + (2 * PAGE) as u64, PAGE));
            ok(sys::cuMemMap(base + PAGE as u64, PAGE, 0, again, 0));
            ok(sys::cuMemSetAccess(base + PAGE as u64, PAGE, &access(), 1));
            notes.add("contents live on", digest(&download(base + PAGE as u64, PAGE)));
            let mut found: sys::CUmemAllocationProp = properties();
            ok(sys::cuMemGetAllocationPropertiesFromHandle(&mut found, again));
            notes.add("properties", found);
            let mut flags = 0;
            ok(sys::cuMemGetAccess(&mut flags, &properties().location, base + PAGE as u64));
            notes.add("access", flags);
            ok(sys::cuMemUnmap(base + PAGE as u64, PAGE));
            notes.code("released", sys::cuMemRelease(again));
            notes.code("freed", sys::cuMemAddressFree(base, 4 * PAGE));
        }
        notes.0
    });
}

#[test]
fn wrong_arguments_get_the_drivers_errors() {
    twice("wrong_arguments_get_the_drivers_errors", || {
        start();
        let mut notes = Notes::default();
        let mut base = 0;
        // SAFETY: pointers are valid or null on purpose; numbers are judged by the driver.
        unsafe {
            notes.code("nothing reserved", sys::cuMemAddressReserve(&mut base, 0, 0, 0, 0));
            notes.code("half a page", sys::cuMemAddressReserve(&mut base, PAGE / 2, 0, 0, 0));
            notes.code("null out", sys::cuMemAddressReserve(ptr::null_mut(), PAGE, 0, 0, 0));
            ok(sys::cuMemAddressReserve(&mut base, 4 * PAGE, 0, 0, 0));
            let mut handle = 0;
            notes.code("no bytes", sys::cuMemCreate(&mut handle, 0, &properties(), 0));
            notes.code("odd bytes", sys::cuMemCreate(&mut handle, PAGE + 1, &properties(), 0));
            notes.code("no properties", sys::cuMemCreate(&mut handle, PAGE, ptr::null(), 0));
            notes.code("too much", sys::cuMemCreate(&mut handle, 1 << 45, &properties(), 0));
            let handle = create(PAGE);
            notes.code("unknown handle", sys::cuMemMap(base, PAGE, 0, 0x1234_5678_9abc, 0));
            notes.code("mapped", sys::cuMemMap(base, PAGE, 0, handle, 0));
            notes.code("mapped twice", sys::cuMemMap(base, PAGE, 0, handle, 0));
            notes.code("no access yet", sys::cuMemSetAccess(base + PAGE as u64, PAGE, &access(), 1));
            notes.code("part of a mapping", sys::cuMemUnmap(base, PAGE / 2));
            notes.code("not mapped", sys::cuMemUnmap(base + PAGE as u64, PAGE));
            notes.code("other size", sys::cuMemAddressFree(base, PAGE));
            notes.code("unmapped", sys::cuMemUnmap(base, PAGE));
            notes.code("released", sys::cuMemRelease(handle));
        }
        notes.0
    });
}

#[test]
fn hints_are_honoured_where_there_is_room() {
    twice("hints_are_honoured_where_there_is_room", || {
        start();
        let (mut first, mut second, mut third) = (0, 0, 0);
        // SAFETY: valid out-pointers; our own reservations.
        unsafe {
            ok(sys::cuMemAddressReserve(&mut first, 16 * PAGE, 0, 0, 0));
            ok(sys::cuMemAddressFree(first, 16 * PAGE));
            ok(sys::cuMemAddressReserve(&mut second, 16 * PAGE, 0, first, 0));
            ok(sys::cuMemAddressReserve(&mut third, 16 * PAGE, 0, second, 0));
        }
        vec![format!("{} {}", first == second, second == third)]
    });
}

#[test]
fn the_device_promises_what_is_carried() {
    twice("the_device_promises_what_is_carried", || {
        start();
        let under_shim = std::env::var_os("LD_PRELOAD").is_some();
        let mut notes = Notes::default();
        let attribute = |number: u32| {
            let mut value = -1;
            // SAFETY: the C type is an integer, and all of these are numbers of attributes.
            let name = unsafe { std::mem::transmute::<u32, sys::CUdevice_attribute>(number) };
            // SAFETY: a valid out-pointer.
            ok(unsafe { sys::cuDeviceGetAttribute(&mut value, name, 0) });
            value
        };
        // Pageable and managed access, pool handle types, DMA buffers, fabric handles, multicast, host pools.
        let refused = [88, 89, 100, 101, 119, 124, 128, 129, 132, 142, 144];
        notes.add("nothing is promised", !under_shim || refused.iter().all(|number| attribute(*number) == 0));
        notes.add("the device can more", under_shim || refused.iter().any(|number| attribute(*number) != 0));
        // Multiprocessors, warp size, compute capability, managed memory, registration, descriptors, pools.
        for number in [16, 10, 75, 76, 83, 99, 102, 103, 115] {
            notes.add("the device's own", attribute(number));
        }
        let name = sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_FABRIC_SUPPORTED;
        let mut value = -1;
        // SAFETY: a null out-pointer and a device that does not exist, on purpose.
        unsafe {
            notes.code("null out", sys::cuDeviceGetAttribute(ptr::null_mut(), name, 0));
            notes.code("no such device", sys::cuDeviceGetAttribute(&mut value, name, 99));
        }
        notes.0
    });
}
