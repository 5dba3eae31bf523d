//! Hooks of the functions on executable graphs. Construction of graphs stays with the local driver.

use super::hooks;
use crate::edge::{In, Out};
use crate::ops::graph::memory::{self, AllocNode, Position};
use crate::ops::graph::{self as ops, BatchNode, Copy3d, HostNode, KernelNode, MemsetNode, NodeParams};
use lightos_protocol::request::GraphNode;
use std::ffi::{c_char, c_void};

/// `CUDA_GRAPH_INSTANTIATE_PARAMS`, of which the flags come first.
type InstantiateParams = u64;

hooks! {
    area graph;
    fn cuGraphInstantiate(out: *mut u64, graph: u64, error_node: *mut u64, log: *mut c_char, log_bytes: usize)
        => ops::instantiate(
            Out::new(out), graph, 0,
            |out| real::cuGraphInstantiate(out, graph, error_node, log, log_bytes), |exec| real::cuGraphExecDestroy(exec),
        );
    fn cuGraphInstantiate_v2(out: *mut u64, graph: u64, error_node: *mut u64, log: *mut c_char, log_bytes: usize)
        => ops::instantiate(
            Out::new(out), graph, 0,
            |out| real::cuGraphInstantiate_v2(out, graph, error_node, log, log_bytes), |exec| real::cuGraphExecDestroy(exec),
        );
    fn cuGraphInstantiateWithFlags(out: *mut u64, graph: u64, flags: u64) => ops::instantiate(
        Out::new(out), graph, flags,
        |out| real::cuGraphInstantiateWithFlags(out, graph, flags), |exec| real::cuGraphExecDestroy(exec),
    );
    fn cuGraphInstantiateWithParams(out: *mut u64, graph: u64, params: *mut InstantiateParams)
        => ops::instantiate(
            Out::new(out), graph, In::new(params.cast_const()).get().unwrap_or(0),
            |out| real::cuGraphInstantiateWithParams(out, graph, params), |exec| real::cuGraphExecDestroy(exec),
        );
    fn cuGraphInstantiateWithParams_ptsz(out: *mut u64, graph: u64, params: *mut InstantiateParams)
        => ops::instantiate(
            Out::new(out), graph, In::new(params.cast_const()).get().unwrap_or(0),
            |out| real::cuGraphInstantiateWithParams_ptsz(out, graph, params), |exec| real::cuGraphExecDestroy(exec),
        );
    [graph_launch] fn cuGraphLaunch(exec: u64, stream: u64) ptsz cuGraphLaunch_ptsz[stream] => ops::launch(exec, stream);
    fn cuGraphExecBatchMemOpNodeSetParams(exec: u64, node: u64, params: *const BatchNode) => ops::set_node(
        exec, node, |_| In::new(params).get()?.describe(),
        || real::cuGraphExecBatchMemOpNodeSetParams(exec, node, params),
    );
    fn cuGraphAddMemAllocNode(
        out: *mut u64, graph: u64, dependencies: *const u64, count: usize, params: *mut AllocNode,
    ) => In::new(params.cast_const()).get().map(|asked| memory::add_allocation(
        Out::new(out), Position { graph, dependencies, count }, Out::new(params), asked,
    ));
    fn cuGraphAddMemFreeNode(out: *mut u64, graph: u64, dependencies: *const u64, count: usize, address: u64)
        => memory::add_free(Out::new(out), Position { graph, dependencies, count }, address);
    fn cuGraphAddMemcpyNode(
        out: *mut u64, graph: u64, dependencies: *const u64, count: usize, copy: *const Copy3d, context: u64,
    ) => In::new(copy).get().map(|copy| ops::locally(copy.addresses()));
    fn cuGraphAddMemsetNode(
        out: *mut u64, graph: u64, dependencies: *const u64, count: usize, params: *const MemsetNode, context: u64,
    ) => In::new(params).get().map(|params| ops::locally(params.addresses()));
    fn cuGraphMemcpyNodeSetParams(node: u64, copy: *const Copy3d) => In::new(copy).get().map(|copy| ops::locally(copy.addresses()));
    fn cuGraphMemsetNodeSetParams(node: u64, params: *const MemsetNode)
        => In::new(params).get().map(|params| ops::locally(params.addresses()));
    fn cuGraphNodeSetParams(node: u64, params: *mut NodeParams)
        => In::new(params.cast_const()).get().map(|params| ops::locally(params.addresses()));
    fn cuGraphNodeSetParams_v2(node: u64, params: *mut NodeParams)
        => In::new(params.cast_const()).get().map(|params| ops::locally(params.addresses()));
    fn cuGraphAddNode(out: *mut u64, graph: u64, dependencies: *const u64, count: usize, params: *mut NodeParams)
        => In::new(params.cast_const()).get().map(|asked| memory::add(
            Out::new(out), Position { graph, dependencies, count }, Out::new(params), asked,
        ));
    fn cuGraphAddNode_v2(
        out: *mut u64, graph: u64, dependencies: *const u64, edges: *const c_void, count: usize, params: *mut NodeParams,
    ) => In::new(params.cast_const()).get().map(|asked| memory::add(
        Out::new(out), Position { graph, dependencies, count }, Out::new(params), asked,
    ));
    fn cuGraphRetainUserObject(graph: u64, object: u64, count: u32, flags: u32) => ops::retain_objects();
    fn cuGraphAddNode_v3(
        out: *mut u64, graph: u64, dependencies: *const u64, edges: *const c_void, count: usize, params: *mut NodeParams,
    ) => In::new(params.cast_const()).get().map(|asked| memory::add(
        Out::new(out), Position { graph, dependencies, count }, Out::new(params), asked,
    ));
    fn cuGraphDestroy(graph: u64) => memory::graph_destroyed(graph, || real::cuGraphDestroy(graph));
    fn cuGraphDestroyNode(node: u64) => memory::destroy_node(node);
    fn cuGraphClone(out: *mut u64, graph: u64) => memory::copy_of(graph);
    fn cuGraphAddChildGraphNode(out: *mut u64, graph: u64, dependencies: *const u64, count: usize, child: u64)
        => memory::copy_of(child);
    fn cuGraphNodeGetType(node: u64, kind: *mut u32) => memory::node_type(Out::new(kind), node);
    fn cuGraphMemAllocNodeGetParams(node: u64, params: *mut AllocNode) => memory::allocation_of(Out::new(params), node);
    fn cuGraphMemFreeNodeGetParams(node: u64, address: *mut u64) => memory::freed_by(Out::new(address), node);
    fn cuDeviceGetGraphMemAttribute(device: i32, attribute: u32, value: *mut u64)
        => memory::attribute(device, attribute, Out::new(value));
    fn cuGraphUpload(exec: u64, stream: u64) ptsz cuGraphUpload_ptsz[stream] => ops::upload(exec, stream);
    fn cuGraphExecDestroy(exec: u64) => ops::destroy(exec, || real::cuGraphExecDestroy(exec));
    fn cuGraphExecUpdate(exec: u64, graph: u64, error_node: *mut u64, result: *mut u32)
        => ops::update(exec, graph, || real::cuGraphExecUpdate(exec, graph, error_node, result));
    fn cuGraphExecUpdate_v2(exec: u64, graph: u64, info: *mut c_void)
        => ops::update(exec, graph, || real::cuGraphExecUpdate_v2(exec, graph, info));
    fn cuGraphExecKernelNodeSetParams(exec: u64, node: u64, params: *const KernelNode) => ops::set_node(
        exec, node, |_| KernelNode::read(params, true)?.describe(Vec::new()),
        || real::cuGraphExecKernelNodeSetParams(exec, node, params),
    );
    fn cuGraphExecKernelNodeSetParams_v2(exec: u64, node: u64, params: *const KernelNode) => ops::set_node(
        exec, node, |_| KernelNode::read(params, false)?.describe(Vec::new()),
        || real::cuGraphExecKernelNodeSetParams_v2(exec, node, params),
    );
    fn cuGraphExecMemcpyNodeSetParams(exec: u64, node: u64, copy: *const Copy3d, context: u64) => ops::set_node(
        exec, node, |walk| In::new(copy).get()?.describe(walk),
        || real::cuGraphExecMemcpyNodeSetParams(exec, node, copy, context),
    );
    fn cuGraphExecMemsetNodeSetParams(exec: u64, node: u64, params: *const MemsetNode, context: u64) => ops::set_node(
        exec, node, |_| Ok(In::new(params).get()?.describe()),
        || real::cuGraphExecMemsetNodeSetParams(exec, node, params, context),
    );
    fn cuGraphExecHostNodeSetParams(exec: u64, node: u64, params: *const HostNode) => ops::set_node(
        exec, node, |walk| In::new(params).get()?.describe(walk),
        || real::cuGraphExecHostNodeSetParams(exec, node, params),
    );
    fn cuGraphExecEventRecordNodeSetEvent(exec: u64, node: u64, event: u64) => ops::set_node(
        exec, node, |walk| Ok(walk.event_record(event)),
        || real::cuGraphExecEventRecordNodeSetEvent(exec, node, event),
    );
    fn cuGraphExecEventWaitNodeSetEvent(exec: u64, node: u64, event: u64) => ops::set_node(
        exec, node, |_| Ok(GraphNode::EventWait { event }),
        || real::cuGraphExecEventWaitNodeSetEvent(exec, node, event),
    );
    fn cuGraphExecChildGraphNodeSetParams(exec: u64, node: u64, graph: u64)
        => ops::set_child(exec, node, graph, || real::cuGraphExecChildGraphNodeSetParams(exec, node, graph));
    fn cuGraphExecNodeSetParams(exec: u64, node: u64, params: *mut NodeParams) => ops::set_node(
        exec, node, |walk| In::new(params.cast_const()).get()?.describe(walk),
        || real::cuGraphExecNodeSetParams(exec, node, params),
    );
    fn cuGraphNodeSetEnabled(exec: u64, node: u64, enabled: u32)
        => ops::set_enabled(exec, node, enabled != 0, || real::cuGraphNodeSetEnabled(exec, node, enabled));
}
