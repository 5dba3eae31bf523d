//! Executable graphs: instantiation, launch, updates.

use std::ffi::{c_char, c_int};

use crate::abi::{
    BatchNode, GraphNode, HostNode, InstantiateParams, KernelNode, KernelNodeV1, Memcpy3d, Memset,
    UpdateResult,
};
use crate::api::graph::widen;
use crate::edge::{exports, get, put, put_some};
use crate::error::{Error, Result};
use crate::graph::exec as executable;
use crate::work::Work;
use crate::{capture, event, graph, params, stream};

/// AUTO_FREE_ON_LAUNCH, UPLOAD, DEVICE_LAUNCH, USE_NODE_PRIORITY.
const VALID_FLAGS: u64 = 15;
const AUTO_FREE: u64 = 1;
const DEVICE_LAUNCH: u64 = 4;

/// # Safety
/// `out` is null or valid for writing.
unsafe fn instantiate(out: *mut u64, graph: u64, flags: u64) -> Result {
    let graph = graph::find(graph)?;
    if out.is_null() || flags & !VALID_FLAGS != 0 {
        return Err(Error::INVALID_VALUE);
    }
    if flags & DEVICE_LAUNCH != 0 {
        // Graphs that are launched from the device are not carried; with this flag they are not valid either.
        return Err(if flags & AUTO_FREE != 0 { Error::INVALID_VALUE } else { Error::NOT_SUPPORTED });
    }
    capture::forbid_unsafe()?;
    // SAFETY: this function's contract.
    unsafe { put(out, executable::instantiate(&graph, flags)?) }
}

fn set(exec: u64, node: u64, work: Result<Work>) -> Result {
    let node = executable::find(exec)?.node_of(node)?;
    let work = work?;
    if let (Work::Copy(before), Work::Copy(copy)) = (node.work(), &work)
        && before != *copy
        && !(is_flat(&before) && is_flat(copy))
    {
        // As documented, only copies of one dimension are exchanged, and only for such. Hardware takes one that changes nothing.
        return Err(Error::INVALID_VALUE);
    }
    node.set_work(work)
}

fn is_flat(copy: &Memcpy3d) -> bool {
    copy.height <= 1 && copy.depth <= 1
}

/// # Safety
/// As [`params::kernel`].
unsafe fn set_kernel(exec: u64, node: u64, new: &KernelNode) -> Result {
    let node = executable::find(exec)?.node_of(node)?;
    let Work::Kernel(before) = node.work() else { return Err(Error::INVALID_VALUE) };
    // SAFETY: this function's contract.
    node.set_work(unsafe { params::kernel_like(new, &before) }?)
}

fn update(exec: u64, with: u64) -> Result<std::result::Result<(), executable::Mismatch>> {
    Ok(executable::find(exec)?.update(&*graph::find(with)?))
}

exports! { TABLE:
    entry cuGraphInstantiate: (out: *mut u64, graph: u64, error_node: *mut u64, log: *mut c_char, log_bytes: usize) {
        put_some(error_node, 0);
        if log_bytes > 0 {
            put_some(log, 0);
        }
        instantiate(out, graph, 0)
    }
    entry cuGraphInstantiate_v2: (out: *mut u64, graph: u64, error_node: *mut u64, log: *mut c_char, log_bytes: usize) {
        put_some(error_node, 0);
        if log_bytes > 0 {
            put_some(log, 0);
        }
        instantiate(out, graph, 0)
    }
    entry cuGraphInstantiateWithFlags: (out: *mut u64, graph: u64, flags: u64) { instantiate(out, graph, flags) }
    entry cuGraphInstantiateWithParams / cuGraphInstantiateWithParams_ptsz: (
        out: *mut u64, graph: u64, params: *mut InstantiateParams
    ) {
        let mut held = get(params)?;
        let outcome = instantiate(out, graph, held.flags);
        (held.error_node, held.result) = (0, u32::from(outcome.is_err()));
        put(params, held)?;
        outcome
    }
    entry cuGraphExecDestroy: (exec: u64) { executable::destroy(exec) }
    entry cuGraphExecGetFlags: (exec: u64, flags: *mut u64) { put(flags, executable::find(exec)?.flags) }
    entry cuGraphLaunch / cuGraphLaunch_ptsz: (exec: u64, stream: u64) {
        executable::find(exec)?.launch(&stream::find(stream)?)
    }
    entry cuGraphUpload / cuGraphUpload_ptsz: (exec: u64, stream: u64) {
        executable::find(exec)?;
        capture::forbid_sync(&*stream::find(stream)?)
    }
    entry cuGraphExecUpdate: (exec: u64, graph: u64, error_node: *mut u64, result: *mut u32) {
        let outcome = update(exec, graph)?;
        put_some(error_node, outcome.err().map_or(0, |mismatch| mismatch.node));
        put_some(result, outcome.err().map_or(0, |mismatch| mismatch.result));
        outcome.map_err(|_| Error::GRAPH_EXEC_UPDATE_FAILURE)
    }
    entry cuGraphExecUpdate_v2: (exec: u64, graph: u64, info: *mut UpdateResult) {
        let outcome = update(exec, graph)?;
        let (result, error_node) = outcome.err().map_or((0, 0), |mismatch| (mismatch.result, mismatch.node));
        put(info, UpdateResult { result, error_node, error_from_node: 0 })?;
        outcome.map_err(|_| Error::GRAPH_EXEC_UPDATE_FAILURE)
    }
    entry cuGraphExecKernelNodeSetParams: (exec: u64, node: u64, new: *const KernelNodeV1) {
        set_kernel(exec, node, &widen(get(new)?))
    }
    entry cuGraphExecKernelNodeSetParams_v2: (exec: u64, node: u64, new: *const KernelNode) {
        set_kernel(exec, node, &get(new)?)
    }
    entry cuGraphExecMemcpyNodeSetParams: (exec: u64, node: u64, new: *const Memcpy3d, context: u64) {
        set(exec, node, params::memcpy(&get(new)?, context))
    }
    entry cuGraphExecMemsetNodeSetParams: (exec: u64, node: u64, new: *const Memset, context: u64) {
        set(exec, node, params::memset(&get(new)?, context))
    }
    entry cuGraphExecHostNodeSetParams: (exec: u64, node: u64, new: *const HostNode) {
        set(exec, node, params::host(&get(new)?))
    }
    entry cuGraphExecChildGraphNodeSetParams: (exec: u64, node: u64, child: u64) {
        set(exec, node, Ok(Work::Child(graph::find(child)?.copy(false))))
    }
    entry cuGraphExecEventRecordNodeSetEvent: (exec: u64, node: u64, event: u64) {
        set(exec, node, event::find(event).map(Work::RecordEvent))
    }
    entry cuGraphExecEventWaitNodeSetEvent: (exec: u64, node: u64, event: u64) {
        set(exec, node, event::find(event).map(Work::WaitEvent))
    }
    entry cuGraphExecBatchMemOpNodeSetParams: (exec: u64, node: u64, new: *const BatchNode) {
        set(exec, node, params::batch(&get(new)?))
    }
    entry cuGraphExecNodeSetParams: (exec: u64, node: u64, new: *const GraphNode) {
        set(exec, node, params::generic(&get(new)?))
    }
    entry cuGraphNodeGetEnabled: (exec: u64, node: u64, enabled: *mut c_int) {
        put(enabled, c_int::from(executable::find(exec)?.node_of(node)?.is_enabled()))
    }
    entry cuGraphNodeSetEnabled: (exec: u64, node: u64, enabled: c_int) {
        let node = executable::find(exec)?.node_of(node)?;
        // Only kernels, copies and fills can be disabled.
        if node.work().node_type() > 2 {
            return Err(Error::INVALID_VALUE);
        }
        node.set_enabled(enabled != 0);
        Ok(())
    }
}
