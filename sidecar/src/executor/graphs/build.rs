//! From the description of a graph to the driver's graph.
//!
//! A [`Content`] is a node with every handle translated; it can be added to a graph or set on an executable one. [`Built`] is a graph with
//! its nodes in the order of the description.

use std::ffi::c_void;
use std::ptr::{null, null_mut};

use lightos_protocol::request::{GraphBody, GraphNode, NodeAttribute, NodePlace};

use super::super::Executor;
use super::super::driver::{CuError, check, sys};
use super::super::hostfn::GraphCall;
use super::super::launch::ParamBuffer;
use super::super::streams::RawMemOp;

/// `CUlaunchAttributeID` numbers that a kernel node can have and that hold no handle.
const NODE_ATTRIBUTES: [u32; 10] = [1, 2, 4, 5, 6, 8, 9, 10, 11, 14];

/// `CU_LAUNCH_ATTRIBUTE_COOPERATIVE`.
const COOPERATIVE: u32 = 2;

/// A node ready for the driver.
#[derive(Debug)]
pub(super) enum Content {
    Kernel { node: sys::CUDA_KERNEL_NODE_PARAMS, params: Vec<u8>, attributes: Vec<NodeAttribute> },
    Memcpy(Box<sys::CUDA_MEMCPY3D>),
    Memset(sys::CUDA_MEMSET_NODE_PARAMS),
    Host(GraphCall),
    MemOps(Vec<RawMemOp>),
    Empty,
    EventRecord(sys::CUevent),
    EventWait(sys::CUevent),
    Child(u32),
}

impl Executor {
    /// Translates the handles of a node.
    pub(super) fn content(&mut self, node: &GraphNode) -> Result<Content, CuError> {
        Ok(match node {
            GraphNode::Kernel { function, grid, block, shared_bytes, params, attributes } => {
                let node = sys::CUDA_KERNEL_NODE_PARAMS {
                    func: self.modules.function(*function)?,
                    gridDimX: grid[0],
                    gridDimY: grid[1],
                    gridDimZ: grid[2],
                    blockDimX: block[0],
                    blockDimY: block[1],
                    blockDimZ: block[2],
                    sharedMemBytes: *shared_bytes,
                    kernelParams: null_mut(),
                    extra: null_mut(),
                    kern: null_mut(),
                    ctx: null_mut(),
                };
                Content::Kernel { node, params: params.clone(), attributes: attributes.clone() }
            }
            GraphNode::Memcpy(copy) => Content::Memcpy(Box::new(self.box_copy(copy)?)),
            &GraphNode::Memset { dst, pitch, value, element_bytes, width, height } => {
                let row_bytes = width.checked_mul(element_bytes.into()).ok_or(CuError::INVALID_VALUE)?;
                self.check_program_memory(dst, pitch, row_bytes, height)?;
                Content::Memset(sys::CUDA_MEMSET_NODE_PARAMS {
                    dst,
                    pitch: pitch as usize,
                    value,
                    elementSize: element_bytes,
                    width: width as usize,
                    height: height as usize,
                })
            }
            GraphNode::Host { callback } => Content::Host(GraphCall::new(self.pages.clone(), *callback)),
            GraphNode::MemOps(operations) => {
                for operation in operations {
                    let bytes = operation.kind.word_bytes();
                    if bytes != 0 {
                        self.check_program_memory(operation.address, 0, bytes, 1)?;
                    }
                }
                Content::MemOps(operations.iter().copied().map(RawMemOp::new).collect())
            }
            GraphNode::Empty => Content::Empty,
            GraphNode::EventRecord { event } => Content::EventRecord(self.events.of_graph(*event)?),
            GraphNode::EventWait { event } => Content::EventWait(self.events.of_graph(*event)?),
            GraphNode::Child { graph } => Content::Child(*graph),
        })
    }
}

impl Content {
    /// Adds the node, without dependencies.
    fn add(&self, graph: sys::CUgraph, context: sys::CUcontext) -> Result<sys::CUgraphNode, CuError> {
        let mut added = null_mut();
        let (out, none) = (&raw mut added, null());
        // SAFETY: graph, context and every handle inside the content are live; the driver copies parameter structs during the call; a
        // `GraphCall` stays in place until its graph is destroyed.
        check(unsafe {
            match self {
                Self::Kernel { node, params, attributes } => {
                    let (mut buffer, mut pointers, mut node) = (ParamBuffer::new(), Vec::new(), *node);
                    if attributes.iter().any(|attribute| attribute.id == COOPERATIVE) {
                        pointers.append(&mut parameters(node.func, params)?);
                        node.kernelParams = pointers.as_mut_ptr();
                    } else {
                        node.extra = buffer.fill(params);
                    }
                    sys::cuGraphAddKernelNode_v2(out, graph, none, 0, &node)
                }
                Self::Memcpy(copy) => sys::cuGraphAddMemcpyNode(out, graph, none, 0, &**copy, context),
                Self::Memset(fill) => sys::cuGraphAddMemsetNode(out, graph, none, 0, fill, context),
                Self::Host(call) => sys::cuGraphAddHostNode(out, graph, none, 0, &call.node()),
                Self::MemOps(operations) => {
                    sys::cuGraphAddBatchMemOpNode(out, graph, none, 0, &batch(operations, context))
                }
                Self::Empty => sys::cuGraphAddEmptyNode(out, graph, none, 0),
                Self::EventRecord(event) => sys::cuGraphAddEventRecordNode(out, graph, none, 0, *event),
                Self::EventWait(event) => sys::cuGraphAddEventWaitNode(out, graph, none, 0, *event),
                Self::Child(_) => {
                    // An empty graph: the driver embeds a copy, which is filled in place.
                    let mut empty = null_mut();
                    check(sys::cuGraphCreate(&mut empty, 0))?;
                    let code = sys::cuGraphAddChildGraphNode(out, graph, none, 0, empty);
                    check(sys::cuGraphDestroy(empty))?;
                    code
                }
            }
        })?;
        if let Self::Kernel { attributes, .. } = self {
            attributes.iter().try_for_each(|attribute| set_attribute(added, attribute))?;
        }
        Ok(added)
    }

    /// Gives an executable graph's node this content.
    pub(super) fn set(
        &self,
        exec: sys::CUgraphExec,
        node: sys::CUgraphNode,
        context: sys::CUcontext,
    ) -> Result<(), CuError> {
        // SAFETY: as in `add`; the node is of the graph that `exec` was made from, and the driver checks that its type fits.
        check(unsafe {
            match self {
                Self::Kernel { node: kernel, params, .. } => {
                    let mut buffer = ParamBuffer::new();
                    let in_buffer = sys::CUDA_KERNEL_NODE_PARAMS { extra: buffer.fill(params), ..*kernel };
                    match sys::cuGraphExecKernelNodeSetParams_v2(exec, node, &in_buffer) {
                        // The node may be cooperative.
                        sys::CUresult::CUDA_ERROR_INVALID_VALUE => {
                            let mut pointers = parameters(kernel.func, params)?;
                            let by_pointer = sys::CUDA_KERNEL_NODE_PARAMS {
                                kernelParams: pointers.as_mut_ptr(),
                                ..*kernel
                            };
                            sys::cuGraphExecKernelNodeSetParams_v2(exec, node, &by_pointer)
                        }
                        code => code,
                    }
                }
                Self::Memcpy(copy) => sys::cuGraphExecMemcpyNodeSetParams(exec, node, &**copy, context),
                Self::Memset(fill) => sys::cuGraphExecMemsetNodeSetParams(exec, node, fill, context),
                Self::Host(call) => sys::cuGraphExecHostNodeSetParams(exec, node, &call.node()),
                Self::EventRecord(event) => sys::cuGraphExecEventRecordNodeSetEvent(exec, node, *event),
                Self::EventWait(event) => sys::cuGraphExecEventWaitNodeSetEvent(exec, node, *event),
                Self::MemOps(operations) => {
                    sys::cuGraphExecBatchMemOpNodeSetParams(exec, node, &batch(operations, context))
                }
                Self::Empty => sys::CUresult::CUDA_SUCCESS,
                Self::Child(_) => return Err(CuError::INVALID_VALUE),
            }
        })
    }
}

/// Pointers to the single parameters in a buffer: the driver takes no buffer for a cooperative node.
fn parameters(function: sys::CUfunction, buffer: &[u8]) -> Result<Vec<*mut c_void>, CuError> {
    let mut pointers = Vec::new();
    loop {
        let (mut offset, mut bytes) = (0, 0);
        // SAFETY: the function is live and both out-pointers are valid.
        match check(unsafe { sys::cuFuncGetParamInfo(function, pointers.len(), &mut offset, &mut bytes) }) {
            Err(CuError::INVALID_VALUE) => return Ok(pointers),
            result => result?,
        }
        // The driver reads only.
        let param = buffer.get(offset..offset + bytes).ok_or(CuError::INVALID_VALUE)?;
        pointers.push(param.as_ptr().cast_mut().cast());
    }
}

/// The parameters of a node, valid as long as the operations; the driver copies and does not change them.
fn batch(operations: &[RawMemOp], context: sys::CUcontext) -> sys::CUDA_BATCH_MEM_OP_NODE_PARAMS {
    sys::CUDA_BATCH_MEM_OP_NODE_PARAMS {
        ctx: context,
        count: operations.len() as u32,
        paramArray: operations.as_ptr().cast_mut().cast(),
        flags: 0,
    }
}

fn set_attribute(node: sys::CUgraphNode, attribute: &NodeAttribute) -> Result<(), CuError> {
    let value: [u8; 64] = attribute.value.as_slice().try_into().map_err(|_| CuError::INVALID_VALUE)?;
    if !NODE_ATTRIBUTES.contains(&attribute.id) {
        return Err(CuError::INVALID_VALUE);
    }
    // SAFETY: every number in the list is a variant of the `repr(u32)` enum.
    let id = unsafe { std::mem::transmute::<u32, sys::CUlaunchAttributeID>(attribute.id) };
    // SAFETY: the union is 64 bytes of plain data, and any bytes are valid in its first member.
    let value = unsafe { std::mem::transmute::<[u8; 64], sys::CUlaunchAttributeValue>(value) };
    let mut current = sys::CUlaunchAttributeValue { pad: [0; 64] };
    // SAFETY: the node is live and both values are valid for the calls; the driver fills the union's bytes, all of which were initialised.
    unsafe {
        // What the node has already is not set: a device without the feature refuses even its default.
        let known = check(sys::cuGraphKernelNodeGetAttribute(node, id, &mut current)).is_ok();
        if known && current.pad == value.pad {
            return Ok(());
        }
        check(sys::cuGraphKernelNodeSetAttribute(node, id, &value))
    }
}

/// A graph and its nodes, in the order of the description.
#[derive(Debug)]
pub(super) struct Built {
    graph: sys::CUgraph,
    nodes: Vec<Vec<sys::CUgraphNode>>,
    /// What the graph's host nodes point at.
    calls: Vec<GraphCall>,
}

impl Built {
    /// Builds entry 0 of a checked description and, inside it, its children.
    pub(super) fn new(
        graphs: &[GraphBody],
        contents: Vec<Vec<Content>>,
        context: sys::CUcontext,
    ) -> Result<Self, CuError> {
        let mut graph = null_mut();
        // SAFETY: the out-pointer is valid.
        check(unsafe { sys::cuGraphCreate(&mut graph, 0) })?;
        let mut built = Self { graph, nodes: Vec::new(), calls: Vec::new() };
        match built.fill(graphs, contents, context) {
            Ok(()) => Ok(built),
            Err(error) => {
                built.close();
                Err(error)
            }
        }
    }

    fn fill(
        &mut self,
        graphs: &[GraphBody],
        contents: Vec<Vec<Content>>,
        context: sys::CUcontext,
    ) -> Result<(), CuError> {
        // Children come after their parents, so their graphs exist by the time they are reached.
        let mut places: Vec<Option<sys::CUgraph>> = vec![None; graphs.len()];
        places[0] = Some(self.graph);
        for (index, (body, contents)) in graphs.iter().zip(contents).enumerate() {
            let Some(graph) = places[index] else {
                self.nodes.push(Vec::new());
                continue;
            };
            let mut nodes = Vec::with_capacity(contents.len());
            for content in contents {
                let node = content.add(graph, context)?;
                nodes.push(node);
                if let Content::Child(child) = content {
                    let mut embedded = null_mut();
                    // SAFETY: the node is a child graph node, the out-pointer is valid.
                    check(unsafe { sys::cuGraphChildGraphNodeGetGraph(node, &mut embedded) })?;
                    places[child as usize] = Some(embedded);
                }
                self.keep(content);
            }
            connect(graph, body, &nodes)?;
            self.nodes.push(nodes);
        }
        Ok(())
    }

    pub(super) fn graph(&self) -> sys::CUgraph {
        self.graph
    }

    pub(super) fn node(&self, place: NodePlace) -> Result<sys::CUgraphNode, CuError> {
        let nodes = self.nodes.get(place.graph as usize);
        nodes.and_then(|nodes| nodes.get(place.node as usize)).copied().ok_or(CuError::INVALID_HANDLE)
    }

    /// Keeps what a node points at for as long as the graph lives.
    pub(super) fn keep(&mut self, content: Content) {
        if let Content::Host(call) = content {
            self.calls.push(call);
        }
    }

    /// As [`keep`](Self::keep), for the host functions of another graph.
    pub(super) fn adopt(&mut self, calls: Vec<GraphCall>) {
        self.calls.extend(calls);
    }

    /// Destroys the graph and hands out its host functions, which an executable graph may still need.
    pub(super) fn close(self) -> Vec<GraphCall> {
        // SAFETY: the graph was made in `new`, and `self` is its only owner. Executable graphs do not depend on it.
        let _ = unsafe { sys::cuGraphDestroy(self.graph) };
        self.calls
    }
}

fn connect(graph: sys::CUgraph, body: &GraphBody, nodes: &[sys::CUgraphNode]) -> Result<(), CuError> {
    if body.edges.is_empty() {
        return Ok(());
    }
    let from: Vec<_> = body.edges.iter().map(|&(from, _)| nodes[from as usize]).collect();
    let to: Vec<_> = body.edges.iter().map(|&(_, to)| nodes[to as usize]).collect();
    let ports = body.ports.iter().map(|&[from_port, to_port, type_]| sys::CUgraphEdgeData {
        from_port,
        to_port,
        type_,
        reserved: [0; 5],
    });
    let ports: Vec<_> = ports.collect();
    let data = if ports.is_empty() { null() } else { ports.as_ptr() };
    // SAFETY: the lists are equally long (`GraphRequest::check`) and hold nodes of this graph.
    check(unsafe { sys::cuGraphAddDependencies_v2(graph, from.as_ptr(), to.as_ptr(), data, from.len()) })
}
