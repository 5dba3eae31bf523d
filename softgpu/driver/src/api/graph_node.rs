//! Parameters of graph nodes: reading and replacing them.

use std::sync::Arc;

use crate::abi::{
    AttributeValue, BatchNode, GraphNode, HostNode, KernelNode, KernelNodeV1, LaunchAttribute, MemAllocNode,
    MemOp, Memcpy3d, Memset,
};
use crate::api::graph::widen;
use crate::edge::{exports, get, put};
use crate::error::{Error, Result};
use crate::launch::KernelCall;
use crate::work::Work;
use crate::{event, graph, params};

fn kernel_of(node: u64) -> Result<Arc<KernelCall>> {
    match graph::node(node)?.work() {
        Work::Kernel(call) => Ok(call),
        _ => Err(Error::INVALID_VALUE),
    }
}

fn event_of(node: u64, record: bool) -> Result<u64> {
    match graph::node(node)?.work() {
        Work::RecordEvent(event) if record => Ok(event.handle),
        Work::WaitEvent(event) if !record => Ok(event.handle),
        _ => Err(Error::INVALID_VALUE),
    }
}

/// # Safety
/// As [`params::kernel`].
unsafe fn set_kernel(node: u64, new: &KernelNode) -> Result {
    // SAFETY: this function's contract.
    graph::node(node)?.set_work(unsafe { params::kernel_like(new, &*kernel_of(node)?) }?)
}

exports! { TABLE:
    entry cuGraphKernelNodeGetParams: (node: u64, out: *mut KernelNodeV1) {
        let KernelNode { func, grid, block, shared_bytes, params, extra, kern, .. } = params::of_kernel(&*kernel_of(node)?);
        let func = if func != 0 { func } else { kern };
        put(out, KernelNodeV1 { func, grid, block, shared_bytes, params, extra })
    }
    entry cuGraphKernelNodeGetParams_v2: (node: u64, out: *mut KernelNode) {
        put(out, params::of_kernel(&*kernel_of(node)?))
    }
    entry cuGraphKernelNodeSetParams: (node: u64, new: *const KernelNodeV1) { set_kernel(node, &widen(get(new)?)) }
    entry cuGraphKernelNodeSetParams_v2: (node: u64, new: *const KernelNode) { set_kernel(node, &get(new)?) }
    entry cuGraphKernelNodeGetAttribute: (node: u64, attribute: u32, value: *mut AttributeValue) {
        let call = kernel_of(node)?;
        if attribute == 0 || attribute > 16 {
            return Err(Error::INVALID_VALUE);
        }
        put(value, call.attribute(attribute).unwrap_or(AttributeValue([0; 8])))
    }
    entry cuGraphKernelNodeSetAttribute: (node: u64, attribute: u32, value: *const AttributeValue) {
        let attribute = LaunchAttribute { id: attribute, pad: [0; 4], value: get(value)? };
        let call = kernel_of(node)?.with_attribute(attribute)?;
        graph::node(node)?.set_work(Work::Kernel(Arc::new(call)))
    }
    entry cuGraphKernelNodeCopyAttributes: (to: u64, from: u64) {
        for attribute in &kernel_of(from)?.attributes {
            let call = kernel_of(to)?.with_attribute(*attribute)?;
            graph::node(to)?.set_work(Work::Kernel(Arc::new(call)))?;
        }
        Ok(())
    }
    entry cuGraphMemAllocNodeGetParams: (node: u64, out: *mut MemAllocNode) {
        match graph::node(node)?.work() {
            Work::Allocate(allocation) => put(out, params::of_allocation(&allocation)),
            _ => Err(Error::INVALID_VALUE),
        }
    }
    entry cuGraphMemFreeNodeGetParams: (node: u64, out: *mut u64) {
        match graph::node(node)?.work() {
            Work::Free(address) => put(out, address),
            _ => Err(Error::INVALID_VALUE),
        }
    }
    entry cuGraphMemcpyNodeGetParams: (node: u64, out: *mut Memcpy3d) {
        match graph::node(node)?.work() {
            Work::Copy(parameters) => put(out, parameters),
            _ => Err(Error::INVALID_VALUE),
        }
    }
    entry cuGraphMemcpyNodeSetParams: (node: u64, new: *const Memcpy3d) {
        graph::node(node)?.set_work(params::memcpy(&get(new)?, 0)?)
    }
    entry cuGraphMemsetNodeGetParams: (node: u64, out: *mut Memset) {
        match graph::node(node)?.work() {
            Work::Fill(fill) => put(out, fill),
            _ => Err(Error::INVALID_VALUE),
        }
    }
    entry cuGraphMemsetNodeSetParams: (node: u64, new: *const Memset) {
        graph::node(node)?.set_work(params::memset(&get(new)?, 0)?)
    }
    entry cuGraphHostNodeGetParams: (node: u64, out: *mut HostNode) {
        match graph::node(node)?.work() {
            Work::Host(call) => put(out, HostNode { function: call.function, data: call.data.0 }),
            _ => Err(Error::INVALID_VALUE),
        }
    }
    entry cuGraphHostNodeSetParams: (node: u64, new: *const HostNode) {
        graph::node(node)?.set_work(params::host(&get(new)?)?)
    }
    entry cuGraphChildGraphNodeGetGraph: (node: u64, out: *mut u64) {
        match graph::node(node)?.work() {
            Work::Child(child) => put(out, graph::list(&child)),
            _ => Err(Error::INVALID_VALUE),
        }
    }
    entry cuGraphEventRecordNodeGetEvent: (node: u64, out: *mut u64) { put(out, event_of(node, true)?) }
    entry cuGraphEventWaitNodeGetEvent: (node: u64, out: *mut u64) { put(out, event_of(node, false)?) }
    entry cuGraphEventRecordNodeSetEvent: (node: u64, event: u64) {
        graph::node(node)?.set_work(Work::RecordEvent(event::find(event)?))
    }
    entry cuGraphEventWaitNodeSetEvent: (node: u64, event: u64) {
        graph::node(node)?.set_work(Work::WaitEvent(event::find(event)?))
    }
    entry cuGraphBatchMemOpNodeGetParams: (node: u64, out: *mut BatchNode) {
        let node = graph::node(node)?;
        let (ops, count) = node.mem_ops().ok_or(Error::INVALID_VALUE)?;
        let ctx = crate::context::current_handle();
        put(out, BatchNode { ctx, count: count as u32, ops: ops as *mut MemOp, flags: 0 })
    }
    entry cuGraphBatchMemOpNodeSetParams: (node: u64, new: *const BatchNode) {
        graph::node(node)?.set_work(params::batch(&get(new)?)?)
    }
    entry cuGraphNodeSetParams: (node: u64, new: *const GraphNode) {
        graph::node(node)?.set_work(params::generic(&get(new)?)?)
    }
}
