//! Executable graphs: captured or built in the client's local driver, serialised node by node, rebuilt in the executor.
//!
//! Child graphs are entries of one flat list that refer to later entries by number, never nested values: the description has no cycle and
//! decoding it needs no recursion, whatever a hostile client sends.

use serde::{Deserialize, Serialize};

use super::ArrayPlace;
use crate::record::MemOpKind;

/// A call about executable graphs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum GraphRequest {
    /// cuGraphInstantiate.
    Instantiate {
        /// The client's `CUgraphExec`.
        exec: u64,
        /// `CUgraphInstantiate_flags`.
        flags: u64,
        /// The graph is entry 0; the others are its child graphs.
        graphs: Vec<GraphBody>,
    },
    /// cuGraphExecUpdate: the same topology with new parameters.
    Update {
        /// The client's `CUgraphExec`.
        exec: u64,
        /// As in [`GraphRequest::Instantiate`].
        graphs: Vec<GraphBody>,
    },
    /// The cuGraphExec*NodeSetParams family: new parameters for one node, of the type it has.
    SetNode {
        /// The client's `CUgraphExec`.
        exec: u64,
        /// Which node.
        place: NodePlace,
        /// Its new content; not [`GraphNode::Child`].
        node: GraphNode,
    },
    /// cuGraphExecChildGraphNodeSetParams.
    SetChild {
        /// The client's `CUgraphExec`.
        exec: u64,
        /// The child graph node.
        place: NodePlace,
        /// The new child graph, as in [`GraphRequest::Instantiate`].
        graphs: Vec<GraphBody>,
    },
    /// cuGraphNodeSetEnabled.
    SetEnabled {
        /// The client's `CUgraphExec`.
        exec: u64,
        /// Which node.
        place: NodePlace,
        /// Whether it runs.
        enabled: bool,
    },
    /// cuGraphExecDestroy, after the launches submitted so far.
    ExecDestroy {
        /// The client's `CUgraphExec`.
        exec: u64,
    },
}

/// A node of an executable graph, by its place in the description that made the graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NodePlace {
    /// Entry of the list of graphs.
    pub graph: u32,
    /// Node in the entry.
    pub node: u32,
}

/// Nodes and their dependencies.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct GraphBody {
    /// The nodes, in the client's order.
    pub nodes: Vec<GraphNode>,
    /// (from, to): node `to` starts after node `from`.
    pub edges: Vec<(u32, u32)>,
    /// `from_port`, `to_port` and `type` of `CUgraphEdgeData` for each edge; empty when all are zero.
    pub ports: Vec<[u8; 3]>,
}

/// An operation on a word in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemOp {
    /// Which one.
    pub kind: MemOpKind,
    /// As in [`StreamValue`](crate::record::StreamValue).
    pub flags: u32,
    /// Of the word; 0 where there is none.
    pub address: u64,
    /// Written or compared with.
    pub value: u64,
}

/// What one node does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum GraphNode {
    /// `CUDA_KERNEL_NODE_PARAMS`.
    Kernel {
        /// The client's `CUfunction` or `CUkernel`.
        function: u64,
        /// Blocks by axis.
        grid: [u32; 3],
        /// Threads by axis.
        block: [u32; 3],
        /// Dynamic shared memory in bytes.
        shared_bytes: u32,
        /// The parameter bytes, laid out as the kernel reads them.
        params: Vec<u8>,
        /// Attributes set on the node.
        attributes: Vec<NodeAttribute>,
    },
    /// `CUDA_MEMCPY3D` between the two arenas and arrays.
    Memcpy(CopyDescriptor),
    /// `CUDA_MEMSET_NODE_PARAMS`.
    Memset {
        /// First byte.
        dst: u64,
        /// Bytes from one row to the next.
        pitch: u64,
        /// The value, in its low bits.
        value: u32,
        /// 1, 2 or 4.
        element_bytes: u32,
        /// Elements by row.
        width: u64,
        /// Rows.
        height: u64,
    },
    /// A host function of the client.
    Host {
        /// The client's number for function and argument.
        callback: u64,
    },
    /// Operations on words in memory, in this order.
    MemOps(Vec<MemOp>),
    /// An empty node.
    Empty,
    /// An event record node.
    EventRecord {
        /// The client's `CUevent`.
        event: u64,
    },
    /// An event wait node.
    EventWait {
        /// The client's `CUevent`.
        event: u64,
    },
    /// A child graph.
    Child {
        /// Its entry in the list, higher than the entry this node is in.
        graph: u32,
    },
}

/// A kernel node attribute: `CUlaunchAttributeID` and the 64 bytes of its value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeAttribute {
    /// `CUlaunchAttributeID`.
    pub id: u32,
    /// `CUlaunchAttributeValue`; 64 bytes, checked by [`GraphRequest::check`].
    pub value: Vec<u8>,
}

/// A copy of a box of bytes: `CUDA_MEMCPY3D`. An end that is an array counts as device memory, and has neither address nor pitch.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CopyDescriptor {
    /// First byte of the source, offsets already added.
    pub src: u64,
    /// Bytes from one source row to the next.
    pub src_pitch: u64,
    /// Rows from one source slice to the next.
    pub src_height: u64,
    /// First byte of the destination, offsets already added.
    pub dst: u64,
    /// Bytes from one destination row to the next.
    pub dst_pitch: u64,
    /// Rows from one destination slice to the next.
    pub dst_height: u64,
    /// Bytes by row.
    pub width_bytes: u64,
    /// Rows by slice.
    pub height: u64,
    /// Slices.
    pub depth: u64,
    /// A [`CopyKind`](crate::record::CopyKind) as a number.
    pub kind: u32,
    /// Where the source begins, when it is an array.
    pub src_array: Option<ArrayPlace>,
    /// Where the destination begins, when it is an array.
    pub dst_array: Option<ArrayPlace>,
    /// `srcLOD` and `dstLOD`.
    pub levels: [u64; 2],
}

/// What is wrong with a graph description.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GraphViolation {
    /// The list has no entry 0.
    #[error("no graph")]
    Empty,
    /// An edge names a node that does not exist.
    #[error("graph {graph}: edge from {from} to {to} among {nodes} nodes")]
    BadEdge {
        /// The entry.
        graph: usize,
        /// Start of the edge.
        from: u32,
        /// End of the edge.
        to: u32,
        /// Nodes in the entry.
        nodes: usize,
    },
    /// The list of edge data is neither empty nor as long as the list of edges.
    #[error("graph {graph}: {ports} edge data for {edges} edges")]
    BadPorts {
        /// The entry.
        graph: usize,
        /// Edges in the entry.
        edges: usize,
        /// Edge data in the entry.
        ports: usize,
    },
    /// A child node names an entry at or before its own, or none.
    #[error("graph {graph}: child refers to entry {child}")]
    BadChild {
        /// The entry.
        graph: usize,
        /// What the node refers to.
        child: u32,
    },
    /// A kernel node beyond the limits of a launch.
    #[error("graph {graph}: node {node} has {what} of size {found}")]
    BadKernel {
        /// The entry.
        graph: usize,
        /// The node.
        node: usize,
        /// Which part.
        what: &'static str,
        /// Its size.
        found: usize,
    },
}

impl GraphRequest {
    /// Checks what decoding cannot: edges and children refer to what exists, sizes keep the limits.
    ///
    /// # Errors
    /// The first violation found.
    pub fn check(&self) -> Result<(), GraphViolation> {
        match self {
            Self::Instantiate { graphs, .. }
            | Self::Update { graphs, .. }
            | Self::SetChild { graphs, .. } => check_graphs(graphs),
            // With a list of one graph, no child node passes.
            Self::SetNode { node, .. } => check_node(0, 0, node, 1),
            Self::SetEnabled { .. } | Self::ExecDestroy { .. } => Ok(()),
        }
    }
}

fn check_graphs(graphs: &[GraphBody]) -> Result<(), GraphViolation> {
    if graphs.is_empty() {
        return Err(GraphViolation::Empty);
    }
    for (graph, body) in graphs.iter().enumerate() {
        let nodes = body.nodes.len();
        for &(from, to) in &body.edges {
            if from as usize >= nodes || to as usize >= nodes || from == to {
                return Err(GraphViolation::BadEdge { graph, from, to, nodes });
            }
        }
        let (edges, ports) = (body.edges.len(), body.ports.len());
        if ports != 0 && ports != edges {
            return Err(GraphViolation::BadPorts { graph, edges, ports });
        }
        for (index, node) in body.nodes.iter().enumerate() {
            check_node(graph, index, node, graphs.len())?;
        }
    }
    Ok(())
}

fn check_node(graph: usize, node: usize, content: &GraphNode, graphs: usize) -> Result<(), GraphViolation> {
    use crate::record::{MAX_LAUNCH_ATTRIBUTES, MAX_PARAM_BYTES};
    let bad = |what, found| Err(GraphViolation::BadKernel { graph, node, what, found });
    match content {
        GraphNode::Child { graph: child } if *child as usize <= graph || *child as usize >= graphs => {
            Err(GraphViolation::BadChild { graph, child: *child })
        }
        GraphNode::Kernel { params, .. } if params.len() > MAX_PARAM_BYTES => bad("parameters", params.len()),
        GraphNode::Kernel { attributes, .. } if attributes.len() > MAX_LAUNCH_ATTRIBUTES => {
            bad("attributes", attributes.len())
        }
        GraphNode::Kernel { attributes, .. } => match attributes.iter().find(|a| a.value.len() != 64) {
            Some(attribute) => bad("attribute value", attribute.value.len()),
            None => Ok(()),
        },
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instantiate(graphs: Vec<GraphBody>) -> GraphRequest {
        GraphRequest::Instantiate { exec: 1, flags: 0, graphs }
    }

    fn body(nodes: Vec<GraphNode>, edges: Vec<(u32, u32)>) -> GraphBody {
        GraphBody { nodes, edges, ports: vec![] }
    }

    #[test]
    fn well_formed_graphs_pass() {
        let root = body(vec![GraphNode::Empty, GraphNode::Child { graph: 1 }], vec![(0, 1)]);
        assert_eq!(instantiate(vec![root, body(vec![], vec![])]).check(), Ok(()));
        assert_eq!(GraphRequest::ExecDestroy { exec: 9 }.check(), Ok(()));
    }

    #[test]
    fn edges_stay_inside() {
        let graph = instantiate(vec![body(vec![GraphNode::Empty], vec![(0, 1)])]);
        assert_eq!(graph.check(), Err(GraphViolation::BadEdge { graph: 0, from: 0, to: 1, nodes: 1 }));
        let own = instantiate(vec![body(vec![GraphNode::Empty], vec![(0, 0)])]);
        assert!(matches!(own.check(), Err(GraphViolation::BadEdge { .. })));
        assert_eq!(instantiate(vec![]).check(), Err(GraphViolation::Empty));
    }

    #[test]
    fn edge_data_matches_the_edges() {
        let nodes = vec![GraphNode::Empty, GraphNode::Empty];
        let mut graph = GraphBody { nodes, edges: vec![(0, 1)], ports: vec![[1, 0, 1]] };
        assert_eq!(instantiate(vec![graph.clone()]).check(), Ok(()));
        graph.ports.push([0; 3]);
        assert_eq!(
            instantiate(vec![graph]).check(),
            Err(GraphViolation::BadPorts { graph: 0, edges: 1, ports: 2 })
        );
    }

    #[test]
    fn a_node_is_not_replaced_by_a_child_graph() {
        let place = NodePlace { graph: 0, node: 0 };
        let set = |node| GraphRequest::SetNode { exec: 1, place, node }.check();
        assert_eq!(set(GraphNode::Empty), Ok(()));
        assert!(matches!(set(GraphNode::Child { graph: 1 }), Err(GraphViolation::BadChild { .. })));
    }

    #[test]
    fn children_cannot_form_a_cycle() {
        for child in [0, 1, 9] {
            let second = body(vec![GraphNode::Child { graph: child }], vec![]);
            let graph = instantiate(vec![body(vec![], vec![]), second]);
            assert_eq!(graph.check(), Err(GraphViolation::BadChild { graph: 1, child }));
        }
    }

    #[test]
    fn kernel_limits_hold() {
        let kernel = |params: usize, value: usize| GraphNode::Kernel {
            function: 1,
            grid: [1; 3],
            block: [1; 3],
            shared_bytes: 0,
            params: vec![0; params],
            attributes: vec![NodeAttribute { id: 1, value: vec![0; value] }],
        };
        assert_eq!(instantiate(vec![body(vec![kernel(32_764, 64)], vec![])]).check(), Ok(()));
        for bad in [kernel(32_765, 64), kernel(8, 63)] {
            assert!(matches!(
                instantiate(vec![body(vec![bad], vec![])]).check(),
                Err(GraphViolation::BadKernel { .. })
            ));
        }
    }
}
