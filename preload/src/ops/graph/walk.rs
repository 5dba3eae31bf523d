//! From a graph in the local driver to its description, by the driver's own queries.

use super::Obstacle;
use super::node::{BatchNode, Copy3d, HostNode, KernelNode, MemsetNode, kind};
use super::pageable::Staged;
use crate::ops::hostfn;
use crate::outcome::Reason;
use crate::real;
use crate::result::CuResult;
use lightos_protocol::request::{GraphBody, GraphNode, NodeAttribute, NodePlace};
use rustc_hash::FxHashMap;

/// Attributes that a kernel node keeps: access policy window, cooperative, cluster dimension and scheduling policy, priority,
/// memory synchronization domain map and domain, preferred cluster dimension, shared memory carve-out.
const ATTRIBUTES: [u32; 9] = [1, 2, 4, 5, 8, 9, 10, 11, 14];

/// A description in the making. What is dropped without having been taken is given back.
#[derive(Debug, Default)]
pub struct Walk {
    /// The description.
    pub graphs: Vec<GraphBody>,
    /// Where each node is in it.
    pub places: FxHashMap<u64, NodePlace>,
    /// Events that a launch records.
    pub events: Vec<u64>,
    /// Numbers of host functions.
    pub callbacks: Vec<u64>,
    /// Copies with pageable memory.
    pub staged: FxHashMap<NodePlace, Staged>,
    /// Of the node that was described last.
    pub pending: Option<Staged>,
    /// The entries, the first of which are described already.
    queue: Vec<Entry>,
}

/// An entry of the description.
#[derive(Debug)]
enum Entry {
    /// A local graph.
    Local(u64),
    /// One that was made up.
    Made(GraphBody),
}

impl Drop for Walk {
    fn drop(&mut self) {
        if !self.callbacks.is_empty() {
            hostfn::forget(&self.callbacks);
        }
    }
}

impl Walk {
    /// Describes a graph and everything inside it.
    pub fn graph(graph: u64) -> Result<Self, Obstacle> {
        let mut walk = Self::default();
        walk.child(graph)?;
        Ok(walk)
    }

    /// Describes a graph as entry 0 and what hangs below it; the node that would hold it.
    pub fn child(&mut self, graph: u64) -> Result<GraphNode, Obstacle> {
        let node = self.enter(Entry::Local(graph));
        self.finish()?;
        Ok(node)
    }

    /// A node that stands for a graph which was made up.
    pub fn inside(&mut self, body: GraphBody) -> GraphNode {
        self.enter(Entry::Made(body))
    }

    fn enter(&mut self, entry: Entry) -> GraphNode {
        self.queue.push(entry);
        GraphNode::Child { graph: self.queue.len() as u32 - 1 }
    }

    /// Describes the entries that are not described yet.
    pub fn finish(&mut self) -> Result<(), Obstacle> {
        while let Some(entry) = self.queue.get_mut(self.graphs.len()) {
            let body = match entry {
                Entry::Made(body) => std::mem::take(body),
                &mut Entry::Local(graph) => self.body(graph, self.graphs.len() as u32)?,
            };
            self.graphs.push(body);
        }
        Ok(())
    }

    /// An event record node.
    pub fn event_record(&mut self, event: u64) -> GraphNode {
        self.events.push(event);
        GraphNode::EventRecord { event }
    }

    fn body(&mut self, graph: u64, entry: u32) -> Result<GraphBody, Obstacle> {
        let handles = nodes(graph)?;
        let mut nodes = Vec::with_capacity(handles.len());
        for (index, &handle) in handles.iter().enumerate() {
            let place = NodePlace { graph: entry, node: index as u32 };
            nodes.push(self.node(handle)?);
            self.places.insert(handle, place);
            if let Some(staged) = self.pending.take() {
                self.staged.insert(place, staged);
            }
        }
        self.body_of(nodes, &edges(graph)?)
    }

    fn node(&mut self, node: u64) -> Result<GraphNode, Obstacle> {
        let mut found = 0;
        // SAFETY: in this function, nodes are of a live local graph and out-parameters have the driver's layout (checked in `node`).
        unsafe { real::cuGraphNodeGetType(node, &mut found).ok()? };
        match found {
            kind::KERNEL => {
                let mut params = KernelNode::EMPTY;
                // SAFETY: as above.
                unsafe { real::cuGraphKernelNodeGetParams_v2(node, (&raw mut params).cast()).ok()? };
                // SAFETY: the parameter pointers are the driver's own copies, which live as long as the node.
                unsafe { params.describe(attributes(node)) }
            }
            kind::MEMCPY => {
                let mut params = Copy3d::default();
                // SAFETY: as above.
                unsafe { real::cuGraphMemcpyNodeGetParams(node, (&raw mut params).cast()).ok()? };
                params.describe(self)
            }
            kind::MEMSET => {
                let mut params = MemsetNode::default();
                // SAFETY: as above.
                unsafe { real::cuGraphMemsetNodeGetParams(node, (&raw mut params).cast()).ok()? };
                Ok(params.describe())
            }
            kind::HOST => {
                let mut params = HostNode::EMPTY;
                // SAFETY: as above.
                unsafe { real::cuGraphHostNodeGetParams(node, (&raw mut params).cast()).ok()? };
                // SAFETY: the program gave the function for every launch of the graph.
                unsafe { params.describe(self) }
            }
            kind::GRAPH => {
                let mut graph = 0;
                // SAFETY: as above.
                unsafe { real::cuGraphChildGraphNodeGetGraph(node, &mut graph).ok()? };
                Ok(self.enter(Entry::Local(graph)))
            }
            kind::EMPTY => Ok(GraphNode::Empty),
            kind::WAIT_EVENT => {
                let mut event = 0;
                // SAFETY: as above.
                unsafe { real::cuGraphEventWaitNodeGetEvent(node, &mut event).ok()? };
                Ok(GraphNode::EventWait { event })
            }
            kind::EVENT_RECORD => {
                let mut event = 0;
                // SAFETY: as above.
                unsafe { real::cuGraphEventRecordNodeGetEvent(node, &mut event).ok()? };
                Ok(self.event_record(event))
            }
            kind::BATCH_MEM_OP => {
                let mut params = BatchNode::EMPTY;
                // SAFETY: as above.
                unsafe { real::cuGraphBatchMemOpNodeGetParams(node, (&raw mut params).cast()).ok()? };
                // SAFETY: the list is the driver's own, which lives as long as the node.
                unsafe { params.describe() }
            }
            _ => Err(Obstacle::Refused(Reason::GraphNodeKind)),
        }
    }

    /// Numbers instead of handles; no edge data where it is all zero.
    fn body_of(&self, nodes: Vec<GraphNode>, edges: &[Edge]) -> Result<GraphBody, Obstacle> {
        let place = |node: u64| self.places.get(&node).map(|place| place.node).ok_or(CuResult::INVALID_VALUE);
        let mut body = GraphBody { nodes, ..GraphBody::default() };
        for edge in edges {
            body.edges.push((place(edge.from)?, place(edge.to)?));
            let [from_port, to_port, kind, ..] = edge.data;
            body.ports.push([from_port, to_port, kind]);
        }
        if body.ports.iter().all(|ports| *ports == [0; 3]) {
            body.ports.clear();
        }
        Ok(body)
    }
}

fn nodes(graph: u64) -> Result<Vec<u64>, CuResult> {
    let mut count = 0;
    // SAFETY: a null list asks for the count.
    unsafe { real::cuGraphGetNodes(graph, std::ptr::null_mut(), &mut count).ok()? };
    let mut nodes = vec![0; count];
    if count != 0 {
        // SAFETY: room for `count` handles.
        unsafe { real::cuGraphGetNodes(graph, nodes.as_mut_ptr(), &mut count).ok()? };
    }
    Ok(nodes)
}

/// A dependency.
#[derive(Clone, Copy, Debug)]
struct Edge {
    from: u64,
    to: u64,
    /// `CUgraphEdgeData` as bytes.
    data: [u8; 8],
}

fn edges(graph: u64) -> Result<Vec<Edge>, CuResult> {
    use std::ptr::null_mut;
    let mut count = 0;
    // SAFETY: null lists ask for the count. The older function is for drivers that have no edge data.
    let with_data = unsafe {
        match real::cuGraphGetEdges_v2(graph, null_mut(), null_mut(), null_mut(), &mut count) {
            CuResult::NOT_SUPPORTED => {
                real::cuGraphGetEdges(graph, null_mut(), null_mut(), &mut count).ok()?;
                false
            }
            result => {
                result.ok()?;
                true
            }
        }
    };
    let (mut from, mut to, mut data) = (vec![0; count], vec![0; count], vec![[0; 8]; count]);
    if count != 0 {
        // SAFETY: room for `count` entries in each list.
        unsafe {
            if with_data {
                real::cuGraphGetEdges_v2(
                    graph,
                    from.as_mut_ptr(),
                    to.as_mut_ptr(),
                    data.as_mut_ptr(),
                    &mut count,
                )
            } else {
                real::cuGraphGetEdges(graph, from.as_mut_ptr(), to.as_mut_ptr(), &mut count)
            }
            .ok()?;
        }
    }
    let lists = from.into_iter().zip(to).zip(data);
    Ok(lists.map(|((from, to), data)| Edge { from, to, data }).collect())
}

/// The attributes that were set on a kernel node. All zeros is what an attribute is before it is set.
fn attributes(node: u64) -> Vec<NodeAttribute> {
    let set = |id| {
        let mut value = [0; 64];
        // SAFETY: room for a `CUlaunchAttributeValue`. A driver that does not know an attribute has not set it.
        let result = unsafe { real::cuGraphKernelNodeGetAttribute(node, id, &mut value) };
        let is_set = result == CuResult::SUCCESS && value != [0; 64];
        is_set.then(|| NodeAttribute { id, value: value.to_vec() })
    };
    ATTRIBUTES.into_iter().filter_map(set).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk() -> Walk {
        let mut walk = Walk::default();
        for (index, node) in [0x10_u64, 0x20, 0x30].into_iter().enumerate() {
            walk.places.insert(node, NodePlace { graph: 0, node: index as u32 });
        }
        walk
    }

    fn edge(from: u64, to: u64, data: [u8; 8]) -> Edge {
        Edge { from, to, data }
    }

    #[test]
    fn edges_are_numbered_and_plain_data_left_out() {
        let nodes = || vec![GraphNode::Empty; 3];
        let edges = [edge(0x30, 0x10, [0; 8]), edge(0x10, 0x20, [0; 8])];
        let plain = walk().body_of(nodes(), &edges).unwrap();
        assert_eq!((plain.edges, plain.ports), (vec![(2, 0), (0, 1)], vec![]));
        let programmatic = [edge(0x30, 0x10, [0; 8]), edge(0x10, 0x20, [1, 2, 1, 0, 0, 0, 0, 0])];
        let body = walk().body_of(nodes(), &programmatic).unwrap();
        assert_eq!(body.ports, [[0, 0, 0], [1, 2, 1]]);
    }

    #[test]
    fn an_edge_to_a_foreign_node_is_an_error() {
        let found = walk().body_of(vec![GraphNode::Empty; 3], &[edge(0x10, 0x99, [0; 8])]);
        assert_eq!(found, Err(Obstacle::Failed(CuResult::INVALID_VALUE)));
    }
}
