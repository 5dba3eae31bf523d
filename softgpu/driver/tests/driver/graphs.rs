//! Capture, explicit construction, instantiation, updates and replay.

use std::ffi::{CString, c_void};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use cuda::api::{
    capture, copy, event, graph, graph_exec, graph_node, launch, legacy, memory, memset, stream,
};

use crate::arrays::{deep, device, host};
use crate::support::{BUMP, INVALID_VALUE, code, kernel, ok, param, params, primary, set};

const NULL: *mut *mut c_void = std::ptr::null_mut();

fn word() -> u64 {
    let mut pointer = 0;
    ok!(memory::cuMemAlloc_v2(&mut pointer, 4));
    ok!(memset::cuMemsetD32_v2(pointer, 0, 1));
    pointer
}

fn read(pointer: u64) -> u32 {
    let mut value = 0u32;
    ok!(copy::cuMemcpyDtoH_v2(&raw mut value as u64, pointer, 4));
    value
}

fn new_stream() -> u64 {
    let mut handle = 0;
    ok!(stream::cuStreamCreate(&mut handle, 1));
    handle
}

fn bump(function: u64, stream: u64, mut at: u64, mut step: u32) -> u32 {
    let mut values = [param(&mut at), param(&mut step)];
    code!(launch::cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, stream, params(&mut values), NULL))
}

fn nodes(graph_handle: u64) -> Vec<u64> {
    let mut count = 0;
    ok!(graph::cuGraphGetNodes(graph_handle, std::ptr::null_mut(), &mut count));
    let mut list = vec![0; count];
    ok!(graph::cuGraphGetNodes(graph_handle, list.as_mut_ptr(), &mut count));
    list
}

#[test]
fn a_captured_stream_replays() {
    primary();
    let (_, function) = kernel(BUMP, "bump");
    let (s, at, mut graph_handle, mut exec, mut status) = (new_stream(), word(), 0, 0, 9);
    ok!(capture::cuStreamBeginCapture_v2(s, 2));
    ok!(capture::cuStreamIsCapturing(s, &mut status));
    assert_eq!(status, 1);
    ok!(memset::cuMemsetD32Async(at, 100, 1, s));
    assert_eq!(bump(function, s, at, 5), 0);
    assert_eq!(bump(function, s, at, 6), 0);
    ok!(capture::cuStreamEndCapture(s, &mut graph_handle));
    assert_eq!(read(at), 0, "capture runs nothing");
    let (list, mut kind) = (nodes(graph_handle), 0);
    let kinds: Vec<u32> = list
        .iter()
        .map(|node| {
            ok!(graph::cuGraphNodeGetType(*node, &mut kind));
            kind
        })
        .collect();
    assert_eq!(kinds, [2, 0, 0]);
    ok!(graph_exec::cuGraphInstantiateWithFlags(&mut exec, graph_handle, 0));
    ok!(graph::cuGraphDestroy(graph_handle));
    for _ in 0..3 {
        ok!(graph_exec::cuGraphLaunch(exec, s));
    }
    ok!(stream::cuStreamSynchronize(s));
    assert_eq!(read(at), 111);
    ok!(graph_exec::cuGraphExecDestroy(exec));
    assert_eq!(code!(graph_exec::cuGraphLaunch(exec, s)), INVALID_VALUE);
}

#[test]
fn no_capture_takes_a_launch_of_old() {
    primary();
    let (_, function) = kernel(BUMP, "nothing");
    let (s, mut graph_handle) = (new_stream(), 0);
    ok!(legacy::cuFuncSetBlockShape(function, 1, 1, 1));
    ok!(legacy::cuLaunchGridAsync(function, 1, 1, s));
    ok!(capture::cuStreamBeginCapture_v2(s, 2));
    assert_eq!(code!(legacy::cuLaunchGridAsync(function, 1, 1, s)), 900, "STREAM_CAPTURE_UNSUPPORTED");
    assert_eq!(code!(capture::cuStreamEndCapture(s, &mut graph_handle)), 901, "STREAM_CAPTURE_INVALIDATED");
    ok!(legacy::cuLaunchGridAsync(function, 1, 1, s));
    ok!(stream::cuStreamSynchronize(s));
}

#[test]
fn only_copies_of_one_row_are_exchanged() {
    primary();
    let (s, mut at) = (new_stream(), 0);
    ok!(memory::cuMemAlloc_v2(&mut at, 64));
    ok!(memset::cuMemsetD32_v2(at, 7, 8));
    ok!(memset::cuMemsetD32_v2(at + 32, 8, 8));
    let back = [0u32; 8];
    let row = |start| deep(host(&back, 32, 1), device(start, 32, 1), [32, 1, 1]);
    let rows = deep(host(&back, 16, 2), device(at, 16, 2), [16, 2, 1]);
    let slices = deep(host(&back, 16, 1), device(at, 16, 1), [16, 1, 2]);
    for (first, other, code, copied) in [
        (row(at), row(at + 32), 0, 8),
        (row(at), rows, INVALID_VALUE, 7),
        (row(at), slices, INVALID_VALUE, 7),
        (rows, row(at + 32), INVALID_VALUE, 7),
        (slices, slices, 0, 7),
    ] {
        let (mut graph_handle, mut node, mut exec) = (0, 0, 0);
        ok!(graph::cuGraphCreate(&mut graph_handle, 0));
        ok!(graph::cuGraphAddMemcpyNode(
            &mut node,
            graph_handle,
            std::ptr::null(),
            0,
            first.as_ptr().cast(),
            0
        ));
        ok!(graph_exec::cuGraphInstantiateWithFlags(&mut exec, graph_handle, 0));
        let set = code!(graph_exec::cuGraphExecMemcpyNodeSetParams(exec, node, other.as_ptr().cast(), 0));
        assert_eq!(set, code);
        ok!(graph_exec::cuGraphLaunch(exec, s));
        ok!(stream::cuStreamSynchronize(s));
        assert_eq!(*std::hint::black_box(&back), [copied; 8]);
        ok!(graph_exec::cuGraphExecDestroy(exec));
        ok!(graph::cuGraphDestroy(graph_handle));
    }
    ok!(memory::cuMemFree_v2(at));
}

#[test]
fn events_fork_and_join_a_capture() {
    primary();
    let (_, function) = kernel(BUMP, "bump");
    let (main, side, at) = (new_stream(), new_stream(), word());
    let (mut fork, mut join, mut graph_handle, mut edges) = (0, 0, 0, 0);
    ok!(event::cuEventCreate(&mut fork, 2));
    ok!(event::cuEventCreate(&mut join, 2));
    ok!(capture::cuStreamBeginCapture_v2(main, 1));
    assert_eq!(bump(function, main, at, 1), 0);
    ok!(event::cuEventRecord(fork, main));
    ok!(stream::cuStreamWaitEvent(side, fork, 0));
    assert_eq!(bump(function, side, at, 2), 0);
    ok!(event::cuEventRecord(join, side));
    assert_eq!(bump(function, main, at, 3), 0);
    ok!(stream::cuStreamWaitEvent(main, join, 0));
    assert_eq!(bump(function, main, at, 4), 0);
    ok!(capture::cuStreamEndCapture(main, &mut graph_handle));
    ok!(graph::cuGraphGetEdges(graph_handle, std::ptr::null_mut(), std::ptr::null_mut(), &mut edges));
    assert_eq!((nodes(graph_handle).len(), edges), (4, 4));
    ok!(capture::cuStreamBeginCapture_v2(main, 2));
    assert_eq!(bump(function, main, at, 1), 0);
    ok!(event::cuEventRecord(fork, main));
    ok!(stream::cuStreamWaitEvent(side, fork, 0));
    assert_eq!(bump(function, side, at, 2), 0);
    assert_eq!(code!(capture::cuStreamEndCapture(side, &mut graph_handle)), 903);
    assert_eq!(code!(capture::cuStreamEndCapture(main, &mut graph_handle)), 904);
    assert_eq!(graph_handle, 0);
    assert_eq!(bump(function, side, at, 9), 0, "the side stream is free again");
    ok!(stream::cuStreamSynchronize(side));
    assert_eq!(read(at), 9);
}

#[test]
fn a_synchronising_call_invalidates_the_capture() {
    crate::support::in_own_process("graphs::a_synchronising_call_invalidates_the_capture", || {
        primary();
        let (s, mut graph_handle, mut pointer) = (new_stream(), 1, 0);
        assert_eq!(code!(capture::cuStreamBeginCapture_v2(0, 0)), 900);
        assert_eq!(code!(capture::cuStreamEndCapture(s, &mut graph_handle)), 401);
        ok!(capture::cuStreamBeginCapture_v2(s, 0));
        assert_eq!(code!(memory::cuMemAlloc_v2(&mut pointer, 16)), 900);
        assert_eq!(code!(stream::cuStreamSynchronize(s)), 901);
        assert_eq!(code!(capture::cuStreamEndCapture(s, &mut graph_handle)), 901);
        ok!(memory::cuMemAlloc_v2(&mut pointer, 16));
        ok!(capture::cuStreamBeginCapture_v2(s, 2));
        ok!(memory::cuMemAlloc_v2(&mut pointer, 16));
        assert_eq!(code!(stream::cuStreamSynchronize(s)), 900);
        assert_eq!(code!(capture::cuStreamEndCapture(s, &mut graph_handle)), 901);
        let mut blocking = 0;
        ok!(stream::cuStreamCreate(&mut blocking, 0));
        ok!(capture::cuStreamBeginCapture_v2(blocking, 2));
        assert_eq!(code!(memset::cuMemsetD8Async(pointer, 0, 1, 0)), 906);
        assert_eq!(code!(capture::cuStreamEndCapture(blocking, &mut graph_handle)), 901);
    });
}

/// `CUDA_KERNEL_NODE_PARAMS_v2` as the tests fill it.
#[repr(C)]
#[derive(Clone, Copy)]
struct KernelNode {
    func: u64,
    sizes: [u32; 7],
    params: *mut *mut c_void,
    extra: *mut *mut c_void,
    kern: u64,
    ctx: u64,
}

#[test]
fn nodes_keep_their_own_copy_of_parameters() {
    primary();
    let (_, function) = kernel(BUMP, "bump");
    let (at, s, mut graph_handle, mut first, mut second, mut exec) = (word(), new_stream(), 0, 0, 0, 0);
    ok!(graph::cuGraphCreate(&mut graph_handle, 0));
    let (mut target, mut step) = (at, 20u32);
    let mut values = [param(&mut target), param(&mut step)];
    let node = KernelNode {
        func: function,
        sizes: [1, 1, 1, 1, 1, 1, 0],
        params: params(&mut values),
        extra: NULL,
        kern: 0,
        ctx: 0,
    };
    ok!(graph::cuGraphAddKernelNode_v2(
        &mut first,
        graph_handle,
        std::ptr::null(),
        0,
        (&raw const node).cast()
    ));
    set(values[1], 1u32);
    ok!(graph::cuGraphAddKernelNode_v2(&mut second, graph_handle, &first, 1, (&raw const node).cast()));
    let mut held = node;
    ok!(graph_node::cuGraphKernelNodeGetParams_v2(first, (&raw mut held).cast()));
    // SAFETY: the driver's array holds one pointer per parameter; the second is a 32-bit word.
    let kept = unsafe { held.params.add(1).read().cast::<u32>().read() };
    assert_eq!((kept, held.func, held.sizes), (20, function, node.sizes));
    ok!(graph_exec::cuGraphInstantiateWithFlags(&mut exec, graph_handle, 0));
    ok!(graph_exec::cuGraphLaunch(exec, s));
    ok!(stream::cuStreamSynchronize(s));
    assert_eq!(read(at), 21);
    set(values[1], 300u32);
    ok!(graph_exec::cuGraphExecKernelNodeSetParams_v2(exec, second, (&raw const node).cast()));
    ok!(graph_exec::cuGraphLaunch(exec, s));
    ok!(stream::cuStreamSynchronize(s));
    assert_eq!(read(at), 341);
    let mut info = [9u64; 3];
    ok!(graph_exec::cuGraphExecUpdate_v2(exec, graph_handle, info.as_mut_ptr().cast()));
    assert_eq!(info[0] as u32, 0);
    ok!(graph_exec::cuGraphLaunch(exec, s));
    ok!(stream::cuStreamSynchronize(s));
    assert_eq!(read(at), 362);
    ok!(graph::cuGraphDestroyNode(second));
    assert_eq!(code!(graph_exec::cuGraphExecUpdate_v2(exec, graph_handle, info.as_mut_ptr().cast())), 910);
    assert_eq!(info[0] as u32, 2);
}

unsafe extern "C" fn count_up(counter: *mut c_void) {
    // SAFETY: the test passes a live atomic.
    unsafe { &*counter.cast::<AtomicU32>() }.fetch_add(1, Ordering::AcqRel);
}

#[test]
fn a_user_object_lives_as_long_as_the_last_graph() {
    primary();
    static DESTROYED: AtomicU32 = AtomicU32::new(0);
    let (mut graph_handle, mut exec, mut object) = (0, 0, 0);
    let data = std::ptr::from_ref(&DESTROYED).cast_mut().cast();
    ok!(graph::cuGraphCreate(&mut graph_handle, 0));
    ok!(graph::cuUserObjectCreate(&mut object, data, Some(count_up), 1, 1));
    ok!(graph::cuGraphRetainUserObject(graph_handle, object, 1, 1));
    assert_eq!(code!(graph::cuUserObjectRelease(object, 1)), INVALID_VALUE, "the reference was moved");
    ok!(graph_exec::cuGraphInstantiateWithFlags(&mut exec, graph_handle, 0));
    ok!(graph::cuGraphDestroy(graph_handle));
    std::thread::sleep(Duration::from_millis(10));
    assert_eq!(DESTROYED.load(Ordering::Acquire), 0);
    ok!(graph_exec::cuGraphExecDestroy(exec));
    let deadline = Instant::now() + Duration::from_secs(10);
    while DESTROYED.load(Ordering::Acquire) == 0 {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(DESTROYED.load(Ordering::Acquire), 1);
}

#[test]
fn a_graph_is_printed() {
    primary();
    let (mut graph_handle, mut a, mut b) = (0, 0, 0);
    ok!(graph::cuGraphCreate(&mut graph_handle, 0));
    ok!(graph::cuGraphAddEmptyNode(&mut a, graph_handle, std::ptr::null(), 0));
    ok!(graph::cuGraphAddEmptyNode(&mut b, graph_handle, &a, 1));
    let path = std::env::temp_dir().join(format!("softgpu-graph-{}.dot", std::process::id()));
    let name = CString::new(path.to_str().unwrap()).unwrap();
    ok!(graph::cuGraphDebugDotPrint(graph_handle, name.as_ptr(), 0));
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(&format!("\"{a:#x}\" -> \"{b:#x}\"")), "{text}");
    std::fs::remove_file(path).unwrap();
}

#[test]
fn cycles_are_found_and_clones_are_deep() {
    primary();
    let (mut original, mut clone, mut a, mut b, mut in_clone, mut exec) = (0, 0, 0, 0, 0, 0);
    ok!(graph::cuGraphCreate(&mut original, 0));
    ok!(graph::cuGraphAddEmptyNode(&mut a, original, std::ptr::null(), 0));
    ok!(graph::cuGraphAddEmptyNode(&mut b, original, &a, 1));
    ok!(graph::cuGraphClone(&mut clone, original));
    ok!(graph::cuGraphAddDependencies(original, &b, &a, 1));
    assert_eq!(code!(graph_exec::cuGraphInstantiateWithFlags(&mut exec, original, 0)), INVALID_VALUE);
    ok!(graph_exec::cuGraphInstantiateWithFlags(&mut exec, clone, 0));
    ok!(graph::cuGraphNodeFindInClone(&mut in_clone, b, clone));
    assert!(nodes(clone).contains(&in_clone) && in_clone != b);
    ok!(graph::cuGraphDestroy(original));
    assert_eq!(code!(graph::cuGraphNodeGetType(a, &mut 0)), INVALID_VALUE);
}
