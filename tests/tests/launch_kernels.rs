//! Kernel launches: parameters of all kinds, every launch function, and what native refuses at the call.

#[path = "launch/device.rs"]
mod device;

use std::ffi::c_void;
use std::ptr::null_mut;

use device::{
    KERNELS, Notes, apply, function, get, launch, load, number, ok, put, start, stream, synchronize, sys,
    words,
};
use lightos_tests::twice::{twice, twice_with};

#[repr(C)]
struct Inner {
    a: u8,
    b: u64,
    c: u16,
}

#[test]
fn parameters_arrive_as_they_were_passed() {
    let report = twice("parameters_arrive_as_they_were_passed", || {
        start();
        let mut notes = Notes::default();
        let module = load();
        let mut out = words(16);
        let (mut a, mut b, mut c, mut d) = (0x81_u8, 0x8765_u16, 0xdead_beef_u32, -1.5e-300_f64);
        let mut e = Inner { a: 7, b: 0x1122_3344_5566_7788, c: 0xffee };
        let mut params: [*mut c_void; 6] = [
            (&raw mut out).cast(),
            (&raw mut a).cast(),
            (&raw mut b).cast(),
            (&raw mut c).cast(),
            (&raw mut d).cast(),
            (&raw mut e).cast(),
        ];
        ok(launch(function(module, c"mixed"), 1, null_mut(), &mut params));
        let found = get(out, 16);
        assert_eq!(found[2], c);
        notes.add("mixed", found);
        let mut data = [0u32; 1000];
        (data[0], data[500], data[999]) = (1, 20, 300);
        ok(launch(
            function(module, c"big"),
            1,
            null_mut(),
            &mut [(&raw mut out).cast(), data.as_mut_ptr().cast()],
        ));
        data.fill(0);
        let found = get(out, 1);
        assert_eq!(found, [321], "the parameters were read at the call");
        notes.add("big", found);
        ok(launch(function(module, c"nothing"), 32, null_mut(), &mut []));
        synchronize();
        notes.0
    });
    assert_eq!(report["launches"], 3, "{report:#}");
}

#[test]
fn a_buffer_replaces_the_pointers() {
    twice("a_buffer_replaces_the_pointers", || {
        start();
        let mut notes = Notes::default();
        let add = function(load(), c"add");
        let out = words(4);
        #[repr(C)]
        struct Buffer {
            p: u64,
            value: u32,
            n: u32,
        }
        let buffer = Buffer { p: out, value: 9, n: 4 };
        let mut size = size_of::<Buffer>();
        let mut extra: [*mut c_void; 5] =
            [number(1), (&raw const buffer).cast_mut().cast(), number(2), (&raw mut size).cast(), number(0)];
        // SAFETY: the list is as documented.
        let run = |extra: &mut [*mut c_void; 5]| unsafe {
            sys::cuLaunchKernel(add, 1, 1, 1, 4, 1, 1, 0, null_mut(), null_mut(), extra.as_mut_ptr())
        };
        ok(run(&mut extra));
        notes.add("by buffer", get(out, 4));
        let mut both = [(&raw const buffer).cast_mut().cast::<c_void>()];
        // SAFETY: refused before anything is read.
        notes.code("both", unsafe {
            sys::cuLaunchKernel(add, 1, 1, 1, 4, 1, 1, 0, null_mut(), both.as_mut_ptr(), extra.as_mut_ptr())
        });
        notes.add("unchanged", get(out, 4));
        notes.0
    });
}

#[test]
fn impossible_launches_fail_as_natively() {
    let report = twice("impossible_launches_fail_as_natively", || {
        let mut notes = Notes::default();
        // SAFETY: refused before anything is read.
        unsafe {
            ok(sys::cuInit(0));
            let code =
                sys::cuLaunchKernel(null_mut(), 1, 1, 1, 1, 1, 1, 0, null_mut(), null_mut(), null_mut());
            notes.add("without a context", code as u32 != 0);
        }
        start();
        let module = load();
        let add = function(module, c"add");
        let (mut out, mut value, mut n) = (words(4), 1_u32, 4_u32);
        let mut params: [*mut c_void; 3] =
            [(&raw mut out).cast(), (&raw mut value).cast(), (&raw mut n).cast()];
        let mut run = |grid: [u32; 3], block: [u32; 3], shared: u32| {
            // SAFETY: the parameters are the kernel's.
            let code = unsafe {
                let ([gx, gy, gz], [bx, by, bz]) = (grid, block);
                sys::cuLaunchKernel(
                    add,
                    gx,
                    gy,
                    gz,
                    bx,
                    by,
                    bz,
                    shared,
                    null_mut(),
                    params.as_mut_ptr(),
                    null_mut(),
                )
            };
            notes.code(&format!("{grid:?} {block:?} {shared}"), code);
            code as u32
        };
        let shapes = [
            ([0, 1, 1], [4, 1, 1], 0),
            ([1, 0, 1], [4, 1, 1], 0),
            ([1, 1, 0], [4, 1, 1], 0),
            ([1, 1, 1], [0, 1, 1], 0),
            ([1, 1, 1], [4, 0, 1], 0),
            ([1, 1, 1], [4, 1, 0], 0),
            ([u32::MAX, 1, 1], [4, 1, 1], 0),
            ([1, 65_536, 1], [4, 1, 1], 0),
            ([1, 1, 65_536], [4, 1, 1], 0),
            ([1, 1, 1], [1025, 1, 1], 0),
            ([1, 1, 1], [1, 1, 65], 0),
            ([1, 1, 1], [1024, 2, 1], 0),
            ([1, 1, 1], [4, 1, 1], 1 << 20),
            ([1, 1, 1], [4, 1, 1], (48 << 10) + 4),
            ([1, 1, 1], [4, 1, 1], u32::MAX),
        ];
        for (grid, block, shared) in shapes {
            assert_ne!(run(grid, block, shared), 0, "{grid:?} {block:?} {shared}");
        }
        assert_eq!(run([1, 1, 1], [4, 1, 1], 48 << 10), 0);
        notes.code("no parameters", launch(add, 4, null_mut(), &mut []));
        notes.code("null function", launch(null_mut(), 4, null_mut(), &mut []));
        notes.add("one launch ran", get(out, 4));
        notes.0
    });
    assert_eq!(report["launches"], 1, "{report:#}");
    assert_eq!(report["sticky_error"], 0, "{report:#}");
}

#[test]
fn launches_with_attributes_and_cooperative_ones() {
    twice("launches_with_attributes_and_cooperative_ones", || {
        start();
        let mut notes = Notes::default();
        let module = load();
        let add = function(module, c"add");
        let (mut out, mut value, mut n) = (words(64), 3_u32, 64_u32);
        let mut params: [*mut c_void; 3] =
            [(&raw mut out).cast(), (&raw mut value).cast(), (&raw mut n).cast()];
        let own = stream(1);
        let mut config = sys::CUlaunchConfig {
            gridDimX: 2,
            gridDimY: 1,
            gridDimZ: 1,
            blockDimX: 32,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: 0,
            hStream: own,
            attrs: null_mut(),
            numAttrs: 0,
        };
        let mut attribute = sys::CUlaunchAttribute {
            id: sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_COOPERATIVE,
            pad: [0; 4],
            value: sys::CUlaunchAttributeValue { pad: [0; 64] },
        };
        // SAFETY: configuration and parameters live across the calls and fit the kernel.
        unsafe {
            ok(sys::cuLaunchKernelEx(&config, add, params.as_mut_ptr(), null_mut()));
            attribute.value.cooperative = 1;
            (config.attrs, config.numAttrs) = (&raw mut attribute, 1);
            notes.code(
                "cooperative by attribute",
                sys::cuLaunchKernelEx(&config, add, params.as_mut_ptr(), null_mut()),
            );
            config.gridDimX = 0;
            notes.code("empty grid", sys::cuLaunchKernelEx(&config, add, params.as_mut_ptr(), null_mut()));
            notes.code(
                "no config",
                sys::cuLaunchKernelEx(std::ptr::null(), add, params.as_mut_ptr(), null_mut()),
            );
            notes.code(
                "cooperative",
                sys::cuLaunchCooperativeKernel(add, 2, 1, 1, 32, 1, 1, 0, own, params.as_mut_ptr()),
            );
            notes.code(
                "too many at once",
                sys::cuLaunchCooperativeKernel(add, 1 << 20, 1, 1, 1024, 1, 1, 0, own, params.as_mut_ptr()),
            );
            ok(sys::cuStreamSynchronize(own));
            // Refused by the driver at the launch; the context lives on.
            attribute.id = sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
            attribute.value = sys::CUlaunchAttributeValue { pad: [0; 64] };
            for (grid, cluster) in [(2, 0), (2, 3), (64, 64)] {
                config.gridDimX = grid;
                attribute.value.clusterDim.x = cluster;
                (attribute.value.clusterDim.y, attribute.value.clusterDim.z) = (1, 1);
                config.attrs = &raw mut attribute;
                let code = sys::cuLaunchKernelEx(&config, add, params.as_mut_ptr(), null_mut());
                notes.code(&format!("clusters of {cluster} in {grid}"), code);
            }
            ok(sys::cuStreamSynchronize(own));
        }
        notes.add("sum", get(out, 64));
        notes.0
    });
}

#[test]
fn raising_the_shared_memory_limit_counts() {
    twice("raising_the_shared_memory_limit_counts", || {
        start();
        let mut notes = Notes::default();
        let kernel = function(load(), c"shared_size");
        let mut out = words(1);
        let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        let mut run = |notes: &mut Notes, what: &str| {
            let mut params: [*mut c_void; 1] = [(&raw mut out).cast()];
            // SAFETY: the parameters are the kernel's.
            notes.code(what, unsafe {
                sys::cuLaunchKernel(
                    kernel,
                    1,
                    1,
                    1,
                    1,
                    1,
                    1,
                    64 << 10,
                    null_mut(),
                    params.as_mut_ptr(),
                    null_mut(),
                )
            });
            notes.add("size", get(out, 1));
        };
        run(&mut notes, "before");
        // SAFETY: takes numbers.
        unsafe {
            ok(sys::cuFuncSetAttribute(kernel, attribute, 64 << 10));
            notes.code("beyond the device", sys::cuFuncSetAttribute(kernel, attribute, 1 << 30));
        }
        run(&mut notes, "after");
        notes.0
    });
}

#[test]
fn kernels_of_libraries_launch_by_either_handle() {
    let report = twice("kernels_of_libraries_launch_by_either_handle", || {
        start();
        let mut notes = Notes::default();
        let out = words(4);
        let (mut library, mut kernel, mut of_kernel, mut module) =
            (null_mut(), null_mut(), null_mut(), null_mut());
        let none = null_mut();
        // SAFETY: valid out-pointers, names and handles.
        unsafe {
            let image = KERNELS.as_ptr().cast();
            ok(sys::cuLibraryLoadData(
                &mut library,
                image,
                null_mut(),
                null_mut(),
                0,
                null_mut(),
                null_mut(),
                0,
            ));
            ok(sys::cuLibraryGetKernel(&mut kernel, library, c"add".as_ptr()));
            ok(sys::cuKernelGetFunction(&mut of_kernel, kernel));
            ok(sys::cuLibraryGetModule(&mut module, library));
            notes.code(
                "no such kernel",
                sys::cuLibraryGetKernel(&mut kernel.clone(), library, c"none".as_ptr()),
            );
        }
        apply(kernel.cast(), out, 1, 4, none);
        apply(of_kernel, out, 10, 4, none);
        apply(function(module, c"add"), out, 100, 4, none);
        notes.add("sum", get(out, 4));
        let mut count = 0;
        // SAFETY: valid out-pointers; the list has room.
        unsafe {
            ok(sys::cuLibraryGetKernelCount(&mut count, library));
            let mut all = vec![null_mut(); count as usize];
            ok(sys::cuLibraryEnumerateKernels(all.as_mut_ptr(), count, library));
            notes.add("kernels", (count, all.iter().filter(|kernel| !kernel.is_null()).count()));
            ok(sys::cuLibraryUnload(library));
        }
        notes.0
    });
    assert_eq!(report["launches"], 3, "{report:#}");
}

#[test]
fn modules_come_and_go() {
    twice("modules_come_and_go", || {
        start();
        let mut notes = Notes::default();
        let out = words(1);
        for _ in 0..3 {
            let module = load();
            apply(function(module, c"add"), out, 5, 1, null_mut());
            // SAFETY: nothing of the module is used afterwards.
            ok(unsafe { sys::cuModuleUnload(module) });
        }
        notes.add("sum", get(out, 1));
        let mut module = null_mut();
        // SAFETY: the images are complete texts; pointers are valid or null on purpose.
        unsafe {
            notes.code("not PTX", sys::cuModuleLoadData(&mut module, c"this is no program".as_ptr().cast()));
            notes.code("no image", sys::cuModuleLoadData(&mut module, std::ptr::null()));
            notes.code("no file", sys::cuModuleLoad(&mut module, c"/nonexistent/module.ptx".as_ptr()));
            notes.code("no function", sys::cuModuleGetFunction(&mut null_mut(), load(), c"none".as_ptr()));
        }
        notes.0
    });
}

#[test]
fn a_module_from_a_file_runs() {
    let report = twice("a_module_from_a_file_runs", || {
        start();
        let folder = std::env::temp_dir().join(format!("lightos-module-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("kernels.ptx");
        std::fs::write(&path, KERNELS.to_bytes()).unwrap();
        let name = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
        let mut module = null_mut();
        // SAFETY: a valid out-pointer and a C string.
        ok(unsafe { sys::cuModuleLoad(&mut module, name.as_ptr()) });
        std::fs::remove_dir_all(&folder).unwrap();
        let out = words(2);
        put(out, &[7, 8]);
        apply(function(module, c"times"), out, 6, 2, null_mut());
        vec![format!("{:?}", get(out, 2))]
    });
    assert_eq!(report["launches"], 1, "{report:#}");
}

#[test]
fn an_image_that_found_no_room_is_loaded_when_there_is_some() {
    const LARGE: &std::ffi::CStr = c".version 7.0
.target sm_70
.address_size 64
.visible .global .align 4 .b8 large[67108864];
.visible .entry first(.param .u64 p)
{
    .reg .b32 %r<2>;
    .reg .b64 %rd<3>;
    ld.param.u64 %rd1, [p];
    mov.u64 %rd2, large;
    ld.global.u32 %r1, [%rd2];
    add.s32 %r1, %r1, 7;
    st.global.u32 [%rd1], %r1;
    ret;
}
";
    twice("an_image_that_found_no_room_is_loaded_when_there_is_some", || {
        start();
        let mut notes = Notes::default();
        let mut out = words(1);
        let mut module = null_mut();
        // SAFETY: a valid out-pointer and a complete text.
        ok(unsafe { sys::cuModuleLoadData(&mut module, LARGE.as_ptr().cast()) });
        let first = function(module, c"first");
        let mut filling = Vec::new();
        let mut bytes = 64 << 30;
        while bytes >= 1 << 20 {
            let mut address = 0;
            // SAFETY: a valid out-pointer.
            match unsafe { sys::cuMemAlloc_v2(&mut address, bytes) } {
                sys::CUresult::CUDA_SUCCESS => filling.push(address),
                _ => bytes /= 2,
            }
        }
        // A driver that loads late has no room for the image now.
        let refused = launch(first, 1, null_mut(), &mut [(&raw mut out).cast()]) as u32;
        assert!(refused == 0 || refused == 2, "{refused}");
        for address in filling {
            // SAFETY: allocated above, used by nothing.
            ok(unsafe { sys::cuMemFree_v2(address) });
        }
        notes.code("launch", launch(first, 1, null_mut(), &mut [(&raw mut out).cast()]));
        notes.add("out", get(out, 1));
        notes.0
    });
}

/// A program's code as a compiler embeds it: far inside a large image in the read-only part of the file that runs.
static EMBEDDED: [u8; 200_000] = {
    const HEAD: &[u8] = b".version 7.0\n.target sm_70\n.address_size 64\n";
    const KERNEL: &[u8] = b"
.visible .entry embedded(.param .u64 p)
{
    .reg .b32 %r<2>;
    .reg .b64 %rd<2>;
    ld.param.u64 %rd1, [p];
    mov.u32 %r1, 4711;
    st.global.u32 [%rd1], %r1;
    ret;
}
";
    const fn put<const N: usize>(mut image: [u8; N], mut at: usize, bytes: &[u8]) -> [u8; N] {
        let mut index = 0;
        while index < bytes.len() {
            image[at] = bytes[index];
            (at, index) = (at + 1, index + 1);
        }
        image
    }
    let image = put([b' '; 200_000], 0, HEAD);
    let image = put(image, 200_000 - KERNEL.len() - 1, KERNEL);
    put(image, 200_000 - 1, b"\0")
};

/// Whether an executor has this test's own file mapped.
fn is_mapped_by_an_executor() -> bool {
    let own = std::env::current_exe().unwrap();
    let own = own.to_str().unwrap();
    std::fs::read_dir("/proc").unwrap().flatten().any(|process| {
        let read = |name| std::fs::read(process.path().join(name)).unwrap_or_default();
        let command = read("cmdline");
        let arguments: Vec<_> = command.split(|byte| *byte == 0).collect();
        arguments.first().is_some_and(|program| program.ends_with(b"lightos"))
            && arguments.contains(&&b"executor"[..])
            && String::from_utf8_lossy(&read("maps")).lines().any(|line| line.ends_with(own))
    })
}

#[test]
fn a_large_embedded_image_travels_as_the_file_it_is_in() {
    twice("a_large_embedded_image_travels_as_the_file_it_is_in", || {
        start();
        let mut notes = Notes::default();
        let (mut library, mut kernel, mut out) = (null_mut(), null_mut(), words(1));
        // SAFETY: valid out-pointers; the image is a text with its NUL.
        unsafe {
            let none: *mut c_void = null_mut();
            ok(sys::cuLibraryLoadData(
                &mut library,
                EMBEDDED.as_ptr().cast(),
                none.cast(),
                none.cast(),
                0,
                none.cast(),
                none.cast(),
                0,
            ));
            ok(sys::cuLibraryGetKernel(&mut kernel, library, c"embedded".as_ptr()));
        }
        notes.code("launch", launch(kernel.cast(), 1, null_mut(), &mut [(&raw mut out).cast()]));
        notes.add("out", get(out, 1));
        let is_forwarded = std::env::var_os("LIGHTOS_SOCKET").is_some();
        assert_eq!(is_mapped_by_an_executor(), is_forwarded, "the image stays mapped with its library");
        // SAFETY: nothing of the library is used afterwards.
        ok(unsafe { sys::cuLibraryUnload(library) });
        synchronize();
        // A reply comes behind everything before it.
        let _ = get(out, 1);
        assert!(!is_mapped_by_an_executor(), "the mapping ends with the library");
        notes.0
    });
}

#[test]
fn an_exit_handler_finds_what_was_issued_before() {
    static OUT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    /// Counts for a while, then writes.
    const SLOW: &std::ffi::CStr = c".version 7.0
.target sm_70
.address_size 64
.visible .entry slow(.param .u64 p)
{
    .reg .pred %q;
    .reg .b32 %r<2>;
    .reg .b64 %rd<2>;
    ld.param.u64 %rd1, [p];
    mov.u32 %r1, 0;
AGAIN:
    add.u32 %r1, %r1, 1;
    setp.lt.u32 %q, %r1, 8000000;
    @%q bra AGAIN;
    st.global.u32 [%rd1], %r1;
    ret;
}
";
    extern "C" fn at_exit() {
        let mut word = 0u32;
        let out = OUT.load(std::sync::atomic::Ordering::SeqCst);
        // SAFETY: the word is valid, and the allocation lives as long as the process.
        let code = unsafe { sys::cuMemcpyDtoH_v2((&raw mut word).cast(), out, 4) };
        println!("copied with {}: {word}\nnotes>>>", code as u32);
    }
    twice("an_exit_handler_finds_what_was_issued_before", || {
        // SAFETY: the handler takes nothing and outlives the process's code.
        unsafe { libc::atexit(at_exit) };
        start();
        let mut out = words(1);
        OUT.store(out, std::sync::atomic::Ordering::SeqCst);
        let mut module = null_mut();
        // SAFETY: a valid out-pointer and a complete text.
        ok(unsafe { sys::cuModuleLoadData(&mut module, SLOW.as_ptr().cast()) });
        ok(launch(function(module, c"slow"), 1, null_mut(), &mut [(&raw mut out).cast()]));
        println!("\n<<<notes");
        std::process::exit(0);
    });
}

#[test]
fn a_launch_that_blocks_tells_what_the_kernel_did() {
    const FAULTY: &std::ffi::CStr = c".version 7.0
.target sm_70
.address_size 64
.visible .entry faulty(.param .u64 p)
{
    .reg .b64 %rd<2>;
    ld.param.u64 %rd1, [p];
    st.global.u64 [%rd1], %rd1;
    ret;
}
";
    let test = "a_launch_that_blocks_tells_what_the_kernel_did";
    twice_with(test, &[("CUDA_LAUNCH_BLOCKING", "1")], || {
        start();
        let mut notes = Notes::default();
        let (mut module, mut good, mut bad) = (null_mut(), words(2), 16u64);
        // SAFETY: a valid out-pointer and a complete text.
        ok(unsafe { sys::cuModuleLoadData(&mut module, FAULTY.as_ptr().cast()) });
        let faulty = function(module, c"faulty");
        let go = |at: *mut u64| launch(faulty, 1, null_mut(), &mut [at.cast()]);
        notes.code("good", go(&raw mut good));
        notes.code("bad", go(&raw mut bad));
        notes.code("after it", go(&raw mut good));
        assert_eq!(notes.0.iter().filter(|note| note.contains("700")).count(), 2, "{:?}", notes.0);
        notes.0
    });
}
