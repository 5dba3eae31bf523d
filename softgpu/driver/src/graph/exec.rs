//! Executable graphs: launch and update.

use std::sync::Arc;

use super::memory::Allocation;
use super::{Graph, Node};
use crate::capture;
use crate::context;
use crate::error::{Error, Result};
use crate::handle::{self, Table};
use crate::stream::Stream;
use crate::work::{Task, Work, prepare};

/// An executable graph: a private copy of the nodes, in execution order.
#[derive(Debug)]
pub struct Exec {
    pub handle: u64,
    pub flags: u64,
    graph: Arc<Graph>,
    order: Vec<Arc<Node>>,
    /// Memory that its launches allocate.
    allocations: Vec<Arc<Allocation>>,
}

/// `CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH`.
const AUTO_FREE: u64 = 1;

static EXECS: Table<Exec> = Table::new();

/// Why an update of an executable graph was refused: `CUgraphExecUpdateResult` and the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mismatch {
    pub result: u32,
    pub node: u64,
}

const TOPOLOGY_CHANGED: u32 = 2;
const NODE_TYPE_CHANGED: u32 = 3;

pub fn find(handle: u64) -> Result<Arc<Exec>> {
    EXECS.get(handle).ok_or(Error::INVALID_VALUE)
}

/// `cuGraphExecDestroy`.
pub fn destroy(handle: u64) -> Result {
    EXECS.remove(handle).map(drop).ok_or(Error::INVALID_VALUE)
}

/// `cuGraphInstantiate`.
pub fn instantiate(graph: &Graph, flags: u64) -> Result<u64> {
    context::healthy()?;
    let graph = graph.copy(false);
    let order = graph.ordered()?;
    let allocations = order.iter().filter_map(|node| match node.work() {
        Work::Allocate(allocation) => Some(allocation),
        _ => None,
    });
    let mut exec =
        Exec { handle: handle::fresh(), flags, graph, order: order.clone(), allocations: Vec::new() };
    for allocation in allocations {
        if !allocation.claim() {
            return Err(Error::NOT_SUPPORTED);
        }
        exec.allocations.push(allocation);
    }
    let exec = Arc::new(exec);
    let handle = exec.handle;
    EXECS.insert(handle, exec);
    Ok(handle)
}

impl Drop for Exec {
    fn drop(&mut self) {
        self.allocations.iter().for_each(|allocation| allocation.release());
    }
}

impl Exec {
    /// Allocates and frees what the graph's nodes say, before any of its work is queued.
    fn settle_memory(&self) -> Result {
        let frees_itself = self.flags & AUTO_FREE != 0;
        for allocation in self.allocations.iter().filter(|allocation| allocation.is_live()) {
            if !frees_itself {
                return Err(Error::INVALID_VALUE);
            }
            allocation.free()?;
        }
        for node in self.order.iter().filter(|node| node.holds_memory()) {
            match node.work() {
                Work::Allocate(allocation) => allocation.allocate(),
                Work::Free(address) => super::memory::find(address).ok_or(Error::INVALID_VALUE)?.free()?,
                _ => {}
            }
        }
        Ok(())
    }

    /// The executable node of a node of the graph that was instantiated.
    pub fn node_of(&self, original: u64) -> Result<Arc<Node>> {
        self.order.iter().find(|node| node.original == original).cloned().ok_or(Error::INVALID_VALUE)
    }

    /// `cuGraphLaunch`: one task of the stream, or a child graph of the graph that the stream captures.
    pub fn launch(&self, stream: &Arc<Stream>) -> Result {
        context::healthy()?;
        if capture::is_capturing(stream)? {
            return stream.submit(Work::Child(self.graph.clone()));
        }
        capture::forbid_implicit(stream)?;
        self.settle_memory()?;
        let mut tasks = Vec::new();
        for node in self.order.iter().filter(|node| node.is_enabled()) {
            prepare(node.work(), &mut tasks)?;
        }
        if !self.allocations.is_empty() {
            tasks.push(Task::Hold(self.allocations.clone()));
        }
        let objects = self.graph.objects();
        if !objects.is_empty() {
            tasks.push(Task::Keep(objects));
        }
        stream.enqueue(Task::Sequence(tasks)).map(drop)
    }

    /// `cuGraphExecUpdate`: takes over the parameters of a graph of the same shape.
    pub fn update(&self, graph: &Graph) -> std::result::Result<(), Mismatch> {
        let (own, new) = (self.graph.shape(), graph.shape());
        if own.len() != new.len() {
            return Err(Mismatch { result: TOPOLOGY_CHANGED, node: 0 });
        }
        for (own, new) in own.iter().zip(&new) {
            if own.1 != new.1 {
                return Err(Mismatch { result: NODE_TYPE_CHANGED, node: new.0 });
            }
            if own.2 != new.2 {
                return Err(Mismatch { result: TOPOLOGY_CHANGED, node: new.0 });
            }
        }
        let works: Vec<Work> = graph.nodes().iter().map(|node| node.work()).collect();
        for (node, work) in self.graph.nodes().iter().zip(works) {
            let work = match work {
                Work::Child(child) => Work::Child(child.copy(false)),
                work => work,
            };
            let _ = node.set_work(work);
        }
        Ok(())
    }
}
