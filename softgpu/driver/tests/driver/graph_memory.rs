//! Graphs that allocate and free memory.

use cuda::api::{capture, context, copy, graph, graph_exec, graph_node, memory, memset, pool, stream};

use crate::support::{INVALID_VALUE, code, ok, primary};

const NOT_SUPPORTED: u32 = 801;
const AUTO_FREE: u64 = 1;
const WORDS: usize = 4096;

fn word(address: u64) -> u32 {
    let mut value = 0u32;
    ok!(copy::cuMemcpyDtoH_v2(&raw mut value as u64, address, 4));
    value
}

fn new_stream() -> u64 {
    let mut handle = 0;
    ok!(stream::cuStreamCreate(&mut handle, 1));
    handle
}

/// A graph that allocates, fills with `value`, copies the last word to `out`, and frees if it is told to; the graph and the memory.
fn captured(stream: u64, value: u32, out: u64, frees: bool) -> (u64, u64) {
    let (mut at, mut handle) = (0, 0);
    ok!(capture::cuStreamBeginCapture_v2(stream, 2));
    ok!(pool::cuMemAllocAsync(&mut at, 4 * WORDS, stream));
    ok!(memset::cuMemsetD32Async(at, value, WORDS, stream));
    ok!(copy::cuMemcpyDtoDAsync_v2(out, at + 4 * (WORDS as u64 - 1), 4, stream));
    if frees {
        ok!(pool::cuMemFreeAsync(at, stream));
    }
    ok!(capture::cuStreamEndCapture(stream, &mut handle));
    (handle, at)
}

fn instantiate(graph: u64, flags: u64) -> u64 {
    let mut exec = 0;
    ok!(graph_exec::cuGraphInstantiateWithFlags(&mut exec, graph, flags));
    exec
}

fn out() -> u64 {
    let mut at = 0;
    ok!(memory::cuMemAlloc_v2(&mut at, 4));
    at
}

#[test]
fn a_graph_that_frees_what_it_allocates_is_launched_again_and_again() {
    primary();
    let (s, out) = (new_stream(), out());
    let (graph, at) = captured(s, 7, out, true);
    let mut nodes = [0; 4];
    let mut count = 4;
    ok!(graph::cuGraphGetNodes(graph, nodes.as_mut_ptr(), &mut count));
    let kinds = nodes.map(|node| {
        let mut kind = 99;
        ok!(graph::cuGraphNodeGetType(node, &mut kind));
        kind
    });
    assert_eq!((count, kinds), (4, [10, 2, 1, 11]));
    let mut freed = 0;
    ok!(graph_node::cuGraphMemFreeNodeGetParams(nodes[3], &mut freed));
    assert_eq!(freed, at);
    let exec = instantiate(graph, 0);
    for _ in 0..3 {
        ok!(memset::cuMemsetD32_v2(out, 0, 1));
        ok!(graph_exec::cuGraphLaunch(exec, s));
        ok!(stream::cuStreamSynchronize(s));
        assert_eq!(word(out), 7);
    }
    assert_eq!(code!(memory::cuMemFree_v2(at)), INVALID_VALUE, "the graph has freed it");
    let mut other = 0;
    assert_eq!(code!(graph::cuGraphClone(&mut other, graph)), NOT_SUPPORTED);
    assert_eq!(
        code!(graph_exec::cuGraphInstantiateWithFlags(&mut other, graph, 0)),
        NOT_SUPPORTED,
        "one at a time"
    );
    assert_eq!(code!(graph::cuGraphDestroyNode(nodes[0])), NOT_SUPPORTED);
    ok!(graph_exec::cuGraphExecDestroy(exec));
    ok!(graph_exec::cuGraphExecDestroy(instantiate(graph, 0)));
    ok!(graph::cuGraphDestroy(graph));
}

#[test]
fn memory_that_a_graph_leaves_is_the_programs() {
    primary();
    let (s, out) = (new_stream(), out());
    let (graph, at) = captured(s, 8, out, false);
    let exec = instantiate(graph, 0);
    ok!(graph_exec::cuGraphLaunch(exec, s));
    assert_eq!(code!(graph_exec::cuGraphLaunch(exec, s)), INVALID_VALUE, "still allocated");
    ok!(stream::cuStreamSynchronize(s));
    assert_eq!(word(at), 8);
    ok!(pool::cuMemFreeAsync(at, s));
    ok!(graph_exec::cuGraphLaunch(exec, s));
    ok!(memory::cuMemFree_v2(at));
    ok!(graph_exec::cuGraphLaunch(exec, s));
    ok!(context::cuCtxSynchronize());
    ok!(graph_exec::cuGraphExecDestroy(exec));
    ok!(graph::cuGraphDestroy(graph));
    assert_eq!(word(at + 4 * 100), 8, "it outlives its graph");
    ok!(memory::cuMemFree_v2(at));
    assert_eq!(code!(memset::cuMemsetD8_v2(at, 0, 1)), INVALID_VALUE, "gone with its last user");
}

#[test]
fn a_graph_may_free_what_its_last_launch_left() {
    primary();
    let (s, out) = (new_stream(), out());
    let (graph, at) = captured(s, 9, out, false);
    let exec = instantiate(graph, AUTO_FREE);
    for _ in 0..3 {
        ok!(graph_exec::cuGraphLaunch(exec, s));
    }
    ok!(stream::cuStreamSynchronize(s));
    assert_eq!((word(out), word(at)), (9, 9));
    ok!(memory::cuMemFree_v2(at));
    assert_eq!(code!(memory::cuMemFree_v2(at)), INVALID_VALUE, "twice");
}

#[test]
fn nodes_are_made_by_hand_and_mistakes_are_named() {
    primary();
    let (mut graph_handle, mut first, mut second) = (0, 0, 0);
    ok!(graph::cuGraphCreate(&mut graph_handle, 0));
    // CUDA_MEM_ALLOC_NODE_PARAMS: pool properties (pinned, device 0), access descriptors, size, address.
    let mut params = [0u64; 15];
    (params[0], params[1], params[13]) = (1, 1, 10_000);
    let none = std::ptr::null();
    ok!(graph::cuGraphAddMemAllocNode(&mut first, graph_handle, none, 0, params.as_mut_ptr().cast()));
    let mut told = [0u64; 15];
    ok!(graph_node::cuGraphMemAllocNodeGetParams(first, told.as_mut_ptr().cast()));
    assert_eq!((told[13], told[14]), (10_000, params[14]));
    assert_ne!(params[14], 0);
    ok!(graph::cuGraphAddMemFreeNode(&mut second, graph_handle, &first, 1, params[14]));
    assert_eq!(
        code!(graph::cuGraphAddMemFreeNode(&mut second, graph_handle, &first, 1, params[14])),
        INVALID_VALUE,
        "twice"
    );
    assert_eq!(
        code!(graph::cuGraphAddMemFreeNode(&mut second, graph_handle, &first, 1, out())),
        INVALID_VALUE,
        "no graph's"
    );
    params[13] = 0;
    assert_eq!(
        code!(graph::cuGraphAddMemAllocNode(&mut first, graph_handle, none, 0, params.as_mut_ptr().cast())),
        INVALID_VALUE
    );
    let (mut parent, mut child) = (0, 0);
    ok!(graph::cuGraphCreate(&mut parent, 0));
    assert_eq!(
        code!(graph::cuGraphAddChildGraphNode(&mut child, parent, none, 0, graph_handle)),
        NOT_SUPPORTED
    );
    let exec = instantiate(graph_handle, 0);
    ok!(graph_exec::cuGraphLaunch(exec, 0));
    ok!(context::cuCtxSynchronize());
    ok!(graph_exec::cuGraphExecDestroy(exec));
    ok!(graph::cuGraphDestroy(graph_handle));
}
