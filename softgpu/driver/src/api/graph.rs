//! Graphs: creation, nodes of every kind, edges and walks.

use std::ffi::c_void;
use std::os::unix::ffi::OsStrExt;

use crate::abi::{
    BatchNode, EdgeData, GraphNode, HostFn, HostNode, KernelNode, KernelNodeV1, MemAllocNode, Memcpy3d,
    Memset, Text,
};
use crate::edge::{array, exports, get, put, put_list, text};
use crate::error::{Error, Result};
use crate::work::{UserData, Work};
use crate::{event, graph, params, userobject};

/// Adds a node and writes its handle.
///
/// # Safety
/// `out` is null or valid; `dependencies` holds `count` handles.
unsafe fn add(
    out: *mut u64,
    graph: u64,
    dependencies: *const u64,
    count: usize,
    work: Result<Work>,
) -> Result {
    let graph = graph::find(graph)?;
    if out.is_null() {
        return Err(Error::INVALID_VALUE);
    }
    // SAFETY: this function's contract.
    unsafe { put(out, graph.add(work?, &array(dependencies, count)?)?) }
}

/// Edges with data are programmatic launches, which are not carried.
///
/// # Safety
/// `data` is null or holds `count` entries.
pub(super) unsafe fn plain(data: *const EdgeData, count: usize) -> Result {
    // SAFETY: this function's contract.
    let data = unsafe { array(data, if data.is_null() { 0 } else { count }) }?;
    if data.iter().all(|edge| *edge == EdgeData::default()) { Ok(()) } else { Err(Error::NOT_SUPPORTED) }
}

/// # Safety
/// Both arrays hold `count` handles.
unsafe fn pairs(from: *const u64, to: *const u64, count: usize) -> Result<Vec<(u64, u64)>> {
    // SAFETY: this function's contract.
    unsafe { Ok(array(from, count)?.into_iter().zip(array(to, count)?).collect()) }
}

/// # Safety
/// The lists are null or hold `*count` entries.
unsafe fn put_edges(
    graph: u64,
    from: *mut u64,
    to: *mut u64,
    data: *mut EdgeData,
    count: *mut usize,
) -> Result {
    let edges = graph::find(graph)?.edges();
    let (sources, targets): (Vec<u64>, Vec<u64>) = edges.into_iter().unzip();
    // SAFETY: this function's contract; each list is written with the room that the caller stated.
    unsafe {
        let mut room = get(count)?;
        if from.is_null() != to.is_null() {
            return Err(Error::INVALID_VALUE);
        }
        if !data.is_null() {
            put_list(data, &mut room, &vec![EdgeData::default(); sources.len()], EdgeData::default())?;
            room = get(count)?;
        }
        if !from.is_null() {
            put_list(from, &mut room, &sources, 0)?;
        }
        put_list(to, count, &targets, 0)
    }
}

/// # Safety
/// The lists are null or hold `*count` entries.
unsafe fn put_nodes(nodes: &[u64], list: *mut u64, data: *mut EdgeData, count: *mut usize) -> Result {
    // SAFETY: this function's contract.
    unsafe {
        if !data.is_null() && !list.is_null() {
            let mut room = get(count)?;
            put_list(data, &mut room, &vec![EdgeData::default(); nodes.len()], EdgeData::default())?;
        }
        put_list(list, count, nodes, 0)
    }
}

/// A node of any kind; an allocation's address goes into the parameters.
///
/// # Safety
/// As [`add`], and `node` is null or valid.
unsafe fn add_generic(
    out: *mut u64,
    graph: u64,
    deps: *const u64,
    count: usize,
    node: *mut GraphNode,
) -> Result {
    // SAFETY: this function's contract.
    unsafe {
        let mut params = get(node)?;
        let work = params::generic(&params)?;
        let address = match &work {
            Work::Allocate(allocation) => Some(allocation.address),
            _ => None,
        };
        add(out, graph, deps, count, Ok(work))?;
        if let Some(address) = address {
            params.body[std::mem::offset_of!(MemAllocNode, address) / 8] = address;
            put(node, params)?;
        }
        Ok(())
    }
}

pub(super) fn widen(node: KernelNodeV1) -> KernelNode {
    let KernelNodeV1 { func, grid, block, shared_bytes, params, extra } = node;
    KernelNode { func, grid, block, shared_bytes, params, extra, kern: 0, ctx: 0 }
}

exports! { TABLE:
    entry cuGraphCreate: (out: *mut u64, flags: u32) {
        if out.is_null() || flags != 0 { Err(Error::INVALID_VALUE) } else { put(out, graph::create().handle) }
    }
    entry cuGraphDestroy: (graph: u64) { graph::destroy(graph) }
    entry cuGraphClone: (out: *mut u64, original: u64) {
        let original = graph::find(original)?;
        if original.has_memory() {
            return Err(Error::NOT_SUPPORTED);
        }
        if out.is_null() { Err(Error::INVALID_VALUE) } else { put(out, original.copy(true).handle) }
    }
    entry cuGraphAddKernelNode: (out: *mut u64, graph: u64, deps: *const u64, count: usize, node: *const KernelNodeV1) {
        add(out, graph, deps, count, params::kernel(&widen(get(node)?)))
    }
    entry cuGraphAddKernelNode_v2: (out: *mut u64, graph: u64, deps: *const u64, count: usize, node: *const KernelNode) {
        add(out, graph, deps, count, params::kernel(&get(node)?))
    }
    entry cuGraphAddMemcpyNode: (
        out: *mut u64, graph: u64, deps: *const u64, count: usize, copy: *const Memcpy3d, context: u64
    ) {
        add(out, graph, deps, count, params::memcpy(&get(copy)?, context))
    }
    entry cuGraphAddMemsetNode: (
        out: *mut u64, graph: u64, deps: *const u64, count: usize, fill: *const Memset, context: u64
    ) {
        add(out, graph, deps, count, params::memset(&get(fill)?, context))
    }
    entry cuGraphAddHostNode: (out: *mut u64, graph: u64, deps: *const u64, count: usize, node: *const HostNode) {
        add(out, graph, deps, count, params::host(&get(node)?))
    }
    entry cuGraphAddChildGraphNode: (out: *mut u64, graph: u64, deps: *const u64, count: usize, child: u64) {
        add(out, graph, deps, count, graph::find(child).map(Work::Child))
    }
    entry cuGraphAddEmptyNode: (out: *mut u64, graph: u64, deps: *const u64, count: usize) {
        add(out, graph, deps, count, Ok(Work::Empty))
    }
    entry cuGraphAddEventRecordNode: (out: *mut u64, graph: u64, deps: *const u64, count: usize, event: u64) {
        add(out, graph, deps, count, event::find(event).map(Work::RecordEvent))
    }
    entry cuGraphAddEventWaitNode: (out: *mut u64, graph: u64, deps: *const u64, count: usize, event: u64) {
        add(out, graph, deps, count, event::find(event).map(Work::WaitEvent))
    }
    entry cuGraphAddBatchMemOpNode: (out: *mut u64, graph: u64, deps: *const u64, count: usize, node: *const BatchNode) {
        add(out, graph, deps, count, params::batch(&get(node)?))
    }
    entry cuGraphAddNode: (out: *mut u64, graph: u64, deps: *const u64, count: usize, node: *mut GraphNode) {
        add_generic(out, graph, deps, count, node)
    }
    entry cuGraphAddNode_v2: (
        out: *mut u64, graph: u64, deps: *const u64, data: *const EdgeData, count: usize, node: *mut GraphNode
    ) {
        plain(data, count)?;
        add_generic(out, graph, deps, count, node)
    }
    entry cuGraphAddMemAllocNode: (
        out: *mut u64, graph: u64, deps: *const u64, count: usize, node: *mut MemAllocNode
    ) {
        let allocation = params::allocation(&get(node)?)?;
        add(out, graph, deps, count, Ok(Work::Allocate(allocation.clone())))?;
        put(node, params::of_allocation(&allocation))
    }
    entry cuGraphAddMemFreeNode: (out: *mut u64, graph: u64, deps: *const u64, count: usize, address: u64) {
        add(out, graph, deps, count, params::free(address))
    }
    entry cuGraphDestroyNode: (node: u64) {
        let node = graph::node(node)?;
        if node.holds_memory() {
            return Err(Error::NOT_SUPPORTED);
        }
        graph::find(node.graph)?.remove(node.handle);
        Ok(())
    }
    entry cuGraphAddDependencies: (graph: u64, from: *const u64, to: *const u64, count: usize) {
        graph::find(graph)?.add_edges(&pairs(from, to, count)?)
    }
    entry cuGraphAddDependencies_v2: (
        graph: u64, from: *const u64, to: *const u64, data: *const EdgeData, count: usize
    ) {
        plain(data, count)?;
        graph::find(graph)?.add_edges(&pairs(from, to, count)?)
    }
    entry cuGraphRemoveDependencies: (graph: u64, from: *const u64, to: *const u64, count: usize) {
        graph::find(graph)?.remove_edges(&pairs(from, to, count)?)
    }
    entry cuGraphRemoveDependencies_v2: (
        graph: u64, from: *const u64, to: *const u64, data: *const EdgeData, count: usize
    ) {
        plain(data, count)?;
        graph::find(graph)?.remove_edges(&pairs(from, to, count)?)
    }
    entry cuGraphGetNodes: (graph: u64, list: *mut u64, count: *mut usize) {
        put_list(list, count, &graph::find(graph)?.node_handles(), 0)
    }
    entry cuGraphGetRootNodes: (graph: u64, list: *mut u64, count: *mut usize) {
        put_list(list, count, &graph::find(graph)?.roots(), 0)
    }
    entry cuGraphGetEdges: (graph: u64, from: *mut u64, to: *mut u64, count: *mut usize) {
        put_edges(graph, from, to, std::ptr::null_mut(), count)
    }
    entry cuGraphGetEdges_v2: (graph: u64, from: *mut u64, to: *mut u64, data: *mut EdgeData, count: *mut usize) {
        put_edges(graph, from, to, data, count)
    }
    entry cuGraphNodeGetDependencies: (node: u64, list: *mut u64, count: *mut usize) {
        put_nodes(&graph::node(node)?.dependencies(), list, std::ptr::null_mut(), count)
    }
    entry cuGraphNodeGetDependencies_v2: (node: u64, list: *mut u64, data: *mut EdgeData, count: *mut usize) {
        put_nodes(&graph::node(node)?.dependencies(), list, data, count)
    }
    entry cuGraphNodeGetDependentNodes: (node: u64, list: *mut u64, count: *mut usize) {
        let node = graph::node(node)?;
        put_nodes(&graph::find(node.graph)?.dependents(node.handle), list, std::ptr::null_mut(), count)
    }
    entry cuGraphNodeGetDependentNodes_v2: (node: u64, list: *mut u64, data: *mut EdgeData, count: *mut usize) {
        let node = graph::node(node)?;
        put_nodes(&graph::find(node.graph)?.dependents(node.handle), list, data, count)
    }
    entry cuGraphDebugDotPrint: (graph: u64, path: Text, _flags: u32) {
        let (graph, path) = (graph::find(graph)?, text(path)?);
        let path = std::path::Path::new(std::ffi::OsStr::from_bytes(path.to_bytes()));
        std::fs::write(path, graph.dot()).map_err(|_| Error::OPERATING_SYSTEM)
    }
    entry cuUserObjectCreate: (
        object: *mut u64, data: *mut c_void, destroy: HostFn, count: u32, flags: u32
    ) {
        if object.is_null() { Err(Error::INVALID_VALUE) } else {
            put(object, userobject::create(destroy, UserData(data), count, flags)?)
        }
    }
    entry cuUserObjectRetain: (object: u64, count: u32) { userobject::retain(object, count) }
    entry cuUserObjectRelease: (object: u64, count: u32) { userobject::take(object, count).map(drop) }
    entry cuGraphRetainUserObject: (graph: u64, object: u64, count: u32, flags: u32) {
        let graph = graph::find(graph)?;
        // CU_GRAPH_USER_OBJECT_MOVE hands over the program's own references.
        let object = match flags {
            0 => userobject::share(object)?,
            1 => userobject::take(object, count)?,
            _ => return Err(Error::INVALID_VALUE),
        };
        graph.retain(object, count as usize);
        Ok(())
    }
    entry cuGraphReleaseUserObject: (graph: u64, object: u64, count: u32) {
        graph::find(graph)?.release(object, count as usize)
    }
    entry cuGraphNodeFindInClone: (out: *mut u64, original: u64, clone: u64) {
        put(out, graph::find(clone)?.clone_of(original)?)
    }
    entry cuGraphNodeGetType: (node: u64, kind: *mut u32) { put(kind, graph::node(node)?.work().node_type()) }
}
