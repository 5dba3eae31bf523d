//! Arrays, textures and surfaces where the Python cases cannot reach: null pointers, handles that are gone, capture rules, counters;
//! natively and under the shim.

#[path = "memory/cuda.rs"]
mod cuda;

use std::ffi::c_void;
use std::ptr::{null, null_mut};

use cuda::{Notes, allocate, free, ok, pattern, start, sys};
use lightos_tests::twice::twice;

const SURFACE_LDST: u32 = 2;
const SPARSE: u32 = 0x40;

fn descriptor(width: usize, height: usize, flags: u32) -> sys::CUDA_ARRAY3D_DESCRIPTOR {
    sys::CUDA_ARRAY3D_DESCRIPTOR {
        Width: width,
        Height: height,
        Depth: 0,
        Format: sys::CUarray_format::CU_AD_FORMAT_UNSIGNED_INT8,
        NumChannels: 1,
        Flags: flags,
    }
}

fn array(width: usize, height: usize) -> sys::CUarray {
    let mut made = null_mut();
    // SAFETY: a valid out-pointer and descriptor.
    ok(unsafe { sys::cuArray3DCreate_v2(&mut made, &descriptor(width, height, SURFACE_LDST)) });
    made
}

fn resource(array: sys::CUarray) -> sys::CUDA_RESOURCE_DESC {
    // SAFETY: zeros are a description of a null array.
    let mut resource: sys::CUDA_RESOURCE_DESC = unsafe { std::mem::zeroed() };
    resource.res.array.hArray = array;
    resource
}

/// All of an array of bytes from (`into`) or to rows on the host: address, width and height.
fn copy_of_rows(
    (rows, width, height): (*mut c_void, usize, usize),
    array: sys::CUarray,
    into: bool,
) -> sys::CUDA_MEMCPY2D {
    use sys::CUmemorytype::{CU_MEMORYTYPE_ARRAY as ARRAY, CU_MEMORYTYPE_HOST as HOST};
    sys::CUDA_MEMCPY2D {
        srcXInBytes: 0,
        srcY: 0,
        srcMemoryType: if into { HOST } else { ARRAY },
        srcHost: rows,
        srcDevice: 0,
        srcArray: array,
        srcPitch: width,
        dstXInBytes: 0,
        dstY: 0,
        dstMemoryType: if into { ARRAY } else { HOST },
        dstHost: rows,
        dstDevice: 0,
        dstArray: array,
        dstPitch: width,
        WidthInBytes: width,
        Height: height,
    }
}

fn destroy(array: sys::CUarray) {
    // SAFETY: the caller's array.
    ok(unsafe { sys::cuArrayDestroy(array) });
}

#[test]
fn wrong_arguments_get_the_drivers_errors() {
    twice("wrong_arguments_get_the_drivers_errors", || {
        let mut notes = Notes::default();
        let (mut made, mut mipmapped, mut object, mut byte) = (null_mut(), null_mut(), 0, 0_u8);
        let plain = descriptor(64, 32, 0);
        // SAFETY: zeros are a texture that clamps nothing and filters nothing.
        let texture: sys::CUDA_TEXTURE_DESC = unsafe { std::mem::zeroed() };
        let host = (&raw mut byte).cast();
        // SAFETY: pointers are valid or null on purpose; handles are the driver's, some of them destroyed, which the software GPU checks.
        unsafe {
            ok(sys::cuInit(0));
            notes.code("without a context", sys::cuArray3DCreate_v2(&mut made, &plain));
            notes.code("copy without a context", sys::cuMemcpyHtoA_v2(null_mut(), 0, host, 1));
            notes.code("object without a context", sys::cuTexObjectDestroy(1));
            start();
            notes.code("null out", sys::cuArray3DCreate_v2(null_mut(), &plain));
            notes.code("null descriptor", sys::cuArray3DCreate_v2(&mut made, null()));
            notes.code("plain null descriptor", sys::cuArrayCreate_v2(&mut made, null()));
            notes.code("mipmapped null out", sys::cuMipmappedArrayCreate(null_mut(), &plain, 1));
            notes.code("mipmapped null descriptor", sys::cuMipmappedArrayCreate(&mut mipmapped, null(), 1));
            notes.code("sparse", sys::cuArray3DCreate_v2(&mut made, &descriptor(64, 64, SPARSE)));
            notes.code("too much", sys::cuArray3DCreate_v2(&mut made, &descriptor(1 << 16, 1 << 16, 0)));
            let gone = array(64, 32);
            destroy(gone);
            notes.code("destroyed", sys::cuArrayDestroy(gone));
            notes.code(
                "descriptor of nothing",
                sys::cuArray3DGetDescriptor_v2(&mut descriptor(0, 0, 0), gone),
            );
            notes.code("surface of nothing", sys::cuSurfObjectCreate(&mut object, &resource(gone)));
            notes.code(
                "texture of nothing",
                sys::cuTexObjectCreate(&mut object, &resource(gone), &texture, null()),
            );
            notes.code("copy to nothing", sys::cuMemcpyHtoA_v2(gone, 0, host, 1));
            notes.code("copy from nothing", sys::cuMemcpyAtoH_v2(host, gone, 0, 1));
            notes.code("level of nothing", sys::cuMipmappedArrayGetLevel(&mut made, null_mut(), 0));
            let live = array(64, 0);
            notes.code("null resource", sys::cuSurfObjectCreate(&mut object, null()));
            notes.code("null object", sys::cuSurfObjectCreate(null_mut(), &resource(live)));
            notes.code("null texture", sys::cuTexObjectCreate(&mut object, &resource(live), null(), null()));
            notes.code("null host", sys::cuMemcpyHtoA_v2(live, 0, null(), 1));
            notes.code("null device", sys::cuMemcpyDtoA_v2(live, 0, 0, 1));
            let memory = allocate(64);
            free(memory);
            notes.code("freed memory", sys::cuMemcpyDtoA_v2(live, 0, memory, 1));
            notes.code("an offset too far", sys::cuMemcpyAtoH_v2(host, live, 65, 1));
            notes.code("an offset that wraps", sys::cuMemcpyAtoH_v2(host, live, usize::MAX, 1));
            ok(sys::cuSurfObjectCreate(&mut object, &resource(live)));
            notes.code("no out", sys::cuSurfObjectGetResourceDesc(null_mut(), object));
            notes.code("a surface is no texture", sys::cuTexObjectDestroy(object));
            ok(sys::cuSurfObjectDestroy(object));
            destroy(live);
            ok(sys::cuMipmappedArrayCreate(&mut mipmapped, &plain, 3));
            ok(sys::cuMipmappedArrayGetLevel(&mut made, mipmapped, 2));
            notes.code("a level is not destroyed", sys::cuArrayDestroy(made));
            notes.code("no level out", sys::cuMipmappedArrayGetLevel(null_mut(), mipmapped, 2));
            ok(sys::cuMipmappedArrayDestroy(mipmapped));
            notes.code("mipmapped destroyed", sys::cuMipmappedArrayDestroy(mipmapped));
            notes.code("its level", sys::cuSurfObjectCreate(&mut object, &resource(made)));
        }
        notes.0
    });
}

#[test]
fn a_capture_forbids_what_it_forbids_natively() {
    twice("a_capture_forbids_what_it_forbids_natively", || {
        start();
        let mut notes = Notes::default();
        let line = array(64, 0);
        let bytes = pattern(64, 1);
        for mode in [
            sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_GLOBAL,
            sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED,
        ] {
            let mut what = |name: &str, call: &dyn Fn() -> sys::CUresult| {
                let (mut stream, mut graph, mut executable) = (null_mut(), null_mut(), null_mut());
                // SAFETY: valid out-pointers and live handles.
                unsafe {
                    ok(sys::cuStreamCreate(&mut stream, 1));
                    ok(sys::cuStreamBeginCapture_v2(stream, mode));
                    notes.code(name, call());
                    let ended = sys::cuStreamEndCapture(stream, &mut graph);
                    notes.code("ended", ended);
                    if ended == sys::CUresult::CUDA_SUCCESS {
                        ok(sys::cuGraphInstantiateWithFlags(&mut executable, graph, 0));
                        ok(sys::cuGraphExecDestroy(executable));
                        ok(sys::cuGraphDestroy(graph));
                    }
                    ok(sys::cuStreamDestroy_v2(stream));
                }
            };
            // SAFETY: as above; the array is destroyed once.
            unsafe {
                what("create", &|| {
                    let mut made = null_mut();
                    let result = sys::cuArray3DCreate_v2(&mut made, &descriptor(8, 8, 0));
                    if result == sys::CUresult::CUDA_SUCCESS {
                        destroy(made);
                    }
                    result
                });
                let other = array(8, 8);
                what("destroy", &|| sys::cuArrayDestroy(other));
                what("copy", &|| sys::cuMemcpyHtoA_v2(line, 0, bytes.as_ptr().cast(), 64));
            }
        }
        notes.0
    });
}

#[test]
fn arrays_count_as_memory_of_the_program() {
    let report = twice("arrays_count_as_memory_of_the_program", || {
        start();
        let (mut mipmapped, mut level) = (null_mut(), null_mut());
        let arrays: Vec<_> = (0..4).map(|_| array(1024, 1024)).collect();
        // SAFETY: valid out-pointers and live handles.
        unsafe {
            ok(sys::cuMipmappedArrayCreate(&mut mipmapped, &descriptor(1024, 1024, 0), 11));
            ok(sys::cuMipmappedArrayGetLevel(&mut level, mipmapped, 1));
            arrays.into_iter().for_each(destroy);
            ok(sys::cuMipmappedArrayDestroy(mipmapped));
        }
        // Many more than fit at once: what is destroyed comes back.
        let (_, total) = cuda::memory();
        let (width, height) = (1 << 14, 1 << 14);
        let rounds = (2 * total).div_ceil(width * height).min(200);
        (0..rounds).for_each(|_| destroy(array(width, height)));
        vec!["done".into()]
    });
    let peak = report["memory"]["peak_bytes"].as_u64().unwrap();
    assert!(peak >= (4 << 20) + (4 << 20) / 3, "{report:#}");
    assert_eq!(report["memory"]["current_bytes"], 0, "everything was destroyed: {report:#}");
    assert_eq!(report["sticky_error"], 0, "{report:#}");
}

#[test]
fn threads_make_use_and_destroy_arrays_at_the_same_time() {
    let report = twice("threads_make_use_and_destroy_arrays_at_the_same_time", || {
        start();
        let work = |seed: u32| {
            start();
            for round in 0..40_u32 {
                let (width, height) = (1 + ((seed * 977 + round * 131) % 3000) as usize, 300);
                let bytes = pattern(width * height, seed * 100 + round);
                let mut back = vec![0_u8; bytes.len()];
                let image = array(width, height);
                let rows = (back.as_mut_ptr().cast(), width, height);
                // SAFETY: the vectors are as large as the array.
                unsafe {
                    ok(sys::cuMemcpy2D_v2(&copy_of_rows(
                        (bytes.as_ptr().cast_mut().cast(), width, height),
                        image,
                        true,
                    )));
                    ok(sys::cuMemcpy2D_v2(&copy_of_rows(rows, image, false)));
                }
                assert!(back == bytes, "thread {seed}, round {round}");
                destroy(image);
            }
        };
        let threads: Vec<_> = (1..=4).map(|seed| std::thread::spawn(move || work(seed))).collect();
        let finished: Vec<bool> = threads.into_iter().map(|thread| thread.join().is_ok()).collect();
        vec![format!("{finished:?}")]
    });
    assert_eq!(report["memory"]["current_bytes"], 0, "{report:#}");
    assert_eq!(report["sticky_error"], 0, "{report:#}");
}
