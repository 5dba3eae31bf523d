//! Graphs: nodes of work with dependencies; `exec` holds the executable copies of them.
//!
//! An executable graph runs its nodes one after the other in an order that keeps every dependency, as one task of the stream.
//!
//! Lock order: a graph's nodes before a node's work and dependencies.

pub mod exec;
pub mod memory;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use rustc_hash::{FxHashMap, FxHashSet};

use crate::abi::MemOp;
use crate::error::{Error, Result};
use crate::handle::{self, Table};
use crate::userobject::UserObject;
use crate::work::Work;

/// One node.
#[derive(Debug)]
pub struct Node {
    pub handle: u64,
    pub graph: u64,
    /// The node that this one was cloned from, 0 for none.
    pub original: u64,
    enabled: AtomicBool,
    work: Mutex<Work>,
    dependencies: Mutex<Vec<u64>>,
}

/// One graph.
#[derive(Debug)]
pub struct Graph {
    pub handle: u64,
    nodes: Mutex<Vec<Arc<Node>>>,
    /// One entry per reference that the graph owns.
    objects: Mutex<Vec<Arc<UserObject>>>,
}

static GRAPHS: Table<Graph> = Table::new();
static NODES: Table<Node> = Table::new();

pub fn find(handle: u64) -> Result<Arc<Graph>> {
    GRAPHS.get(handle).ok_or(Error::INVALID_VALUE)
}

pub fn node(handle: u64) -> Result<Arc<Node>> {
    NODES.get(handle).ok_or(Error::INVALID_VALUE)
}

/// `cuGraphCreate`.
pub fn create() -> Arc<Graph> {
    let graph = Graph::empty();
    GRAPHS.insert(graph.handle, graph.clone());
    graph
}

/// Makes a child graph's handle known, so that the program can walk its nodes.
pub fn list(graph: &Arc<Graph>) -> u64 {
    GRAPHS.insert(graph.handle, graph.clone());
    graph.handle
}

/// `cuGraphDestroy`.
pub fn destroy(handle: u64) -> Result {
    let graph = GRAPHS.remove(handle).ok_or(Error::INVALID_VALUE)?;
    for node in graph.nodes().iter() {
        NODES.remove(node.handle);
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Node {
    pub fn work(&self) -> Work {
        lock(&self.work).clone()
    }

    pub fn dependencies(&self) -> Vec<u64> {
        lock(&self.dependencies).clone()
    }

    /// Whether it allocates or frees memory.
    pub fn holds_memory(&self) -> bool {
        matches!(*lock(&self.work), Work::Allocate(_) | Work::Free(_))
    }

    /// Replaces the work by other work of the same type.
    pub fn set_work(&self, work: Work) -> Result {
        let mut held = lock(&self.work);
        if held.node_type() != work.node_type() {
            return Err(Error::INVALID_VALUE);
        }
        *held = work;
        Ok(())
    }

    /// The address and number of a memory operation node's operations; they live as long as the node's work.
    pub fn mem_ops(&self) -> Option<(*const MemOp, usize)> {
        match &*lock(&self.work) {
            Work::MemOps(ops) => Some((ops.as_ptr(), ops.len())),
            _ => None,
        }
    }

    pub fn is_enabled(&self) -> bool {
        self.enabled.load(Ordering::Relaxed)
    }

    pub fn set_enabled(&self, enabled: bool) {
        self.enabled.store(enabled, Ordering::Relaxed);
    }
}

impl Work {
    fn type_name(&self) -> &'static str {
        match self {
            Work::Kernel(_) => "KERNEL",
            Work::Copy(_) => "MEMCPY",
            Work::Fill(_) => "MEMSET",
            Work::Host(_) => "HOST",
            Work::Child(_) => "GRAPH",
            Work::Empty => "EMPTY",
            Work::WaitEvent(_) => "WAIT_EVENT",
            Work::RecordEvent(_) => "EVENT_RECORD",
            Work::MemOps(_) => "BATCH_MEM_OP",
            Work::Allocate(_) => "MEM_ALLOC",
            Work::Free(_) => "MEM_FREE",
        }
    }

    /// `CUgraphNodeType`.
    pub fn node_type(&self) -> u32 {
        match self {
            Work::Kernel(_) => 0,
            Work::Copy(_) => 1,
            Work::Fill(_) => 2,
            Work::Host(_) => 3,
            Work::Child(_) => 4,
            Work::Empty => 5,
            Work::WaitEvent(_) => 6,
            Work::RecordEvent(_) => 7,
            Work::Allocate(_) => 10,
            Work::Free(_) => 11,
            Work::MemOps(_) => 12,
        }
    }
}

impl Graph {
    fn empty() -> Arc<Graph> {
        Arc::new(Graph { handle: handle::fresh(), nodes: Mutex::default(), objects: Mutex::default() })
    }

    fn nodes(&self) -> MutexGuard<'_, Vec<Arc<Node>>> {
        lock(&self.nodes)
    }

    /// Adds a node after nodes of the same graph.
    pub fn add(&self, work: Work, dependencies: &[u64]) -> Result<u64> {
        let work = match work {
            Work::Child(child) if child.has_memory() => return Err(Error::NOT_SUPPORTED),
            Work::Free(address) if self.frees(address) => return Err(Error::INVALID_VALUE),
            // A child graph is copied, so that later changes of the original do not reach this graph.
            Work::Child(child) => Work::Child(child.copy(false)),
            work => work,
        };
        let mut nodes = self.nodes();
        self.check_own(dependencies)?;
        Ok(self.push(&mut nodes, work, dependencies.to_vec(), 0))
    }

    fn push(&self, nodes: &mut Vec<Arc<Node>>, work: Work, dependencies: Vec<u64>, original: u64) -> u64 {
        let handle = handle::fresh();
        let node = Arc::new(Node {
            handle,
            graph: self.handle,
            original,
            enabled: AtomicBool::new(true),
            work: Mutex::new(work),
            dependencies: Mutex::new(dependencies),
        });
        NODES.insert(handle, node.clone());
        nodes.push(node);
        handle
    }

    fn check_own(&self, handles: &[u64]) -> Result {
        let mut seen = FxHashSet::default();
        for handle in handles {
            if node(*handle)?.graph != self.handle || !seen.insert(*handle) {
                return Err(Error::INVALID_VALUE);
            }
        }
        Ok(())
    }

    /// Whether it has nodes that allocate or free memory: such a graph is not cloned, and no part of another.
    pub fn has_memory(&self) -> bool {
        self.nodes().iter().any(|node| node.holds_memory())
    }

    fn frees(&self, address: u64) -> bool {
        self.nodes().iter().any(|node| matches!(*lock(&node.work), Work::Free(at) if at == address))
    }

    /// All nodes, in the order in which they were added.
    pub fn node_handles(&self) -> Vec<u64> {
        self.nodes().iter().map(|node| node.handle).collect()
    }

    /// The nodes without dependencies.
    pub fn roots(&self) -> Vec<u64> {
        let nodes = self.nodes();
        nodes.iter().filter(|node| lock(&node.dependencies).is_empty()).map(|node| node.handle).collect()
    }

    /// Every dependency as (from, to).
    pub fn edges(&self) -> Vec<(u64, u64)> {
        let nodes = self.nodes();
        let edges_of = |node: &Arc<Node>| {
            let to = node.handle;
            lock(&node.dependencies).iter().map(|from| (*from, to)).collect::<Vec<_>>()
        };
        nodes.iter().flat_map(edges_of).collect()
    }

    /// The nodes that depend directly on a node.
    pub fn dependents(&self, handle: u64) -> Vec<u64> {
        let nodes = self.nodes();
        let depends = |node: &&Arc<Node>| lock(&node.dependencies).contains(&handle);
        nodes.iter().filter(depends).map(|node| node.handle).collect()
    }

    /// `cuGraphAddDependencies`.
    pub fn add_edges(&self, edges: &[(u64, u64)]) -> Result {
        let _nodes = self.nodes();
        for (from, to) in edges {
            self.check_own(&[*from])?;
            self.check_own(&[*to])?;
            let to = node(*to)?;
            let mut dependencies = lock(&to.dependencies);
            if dependencies.contains(from) || to.handle == *from {
                return Err(Error::INVALID_VALUE);
            }
            dependencies.push(*from);
        }
        Ok(())
    }

    /// `cuGraphRemoveDependencies`.
    pub fn remove_edges(&self, edges: &[(u64, u64)]) -> Result {
        let _nodes = self.nodes();
        for (from, to) in edges {
            let to = node(*to)?;
            let mut dependencies = lock(&to.dependencies);
            let at = dependencies.iter().position(|known| known == from).ok_or(Error::INVALID_VALUE)?;
            dependencies.remove(at);
        }
        Ok(())
    }

    /// `cuGraphDestroyNode`.
    pub fn remove(&self, handle: u64) {
        let mut nodes = self.nodes();
        nodes.retain(|node| node.handle != handle);
        for node in nodes.iter() {
            lock(&node.dependencies).retain(|known| *known != handle);
        }
        NODES.remove(handle);
    }

    /// The nodes in an order that keeps every dependency; an error where there is a cycle.
    pub fn ordered(&self) -> Result<Vec<Arc<Node>>> {
        let nodes = self.nodes().clone();
        let mut waiting: FxHashMap<u64, usize> = FxHashMap::default();
        let mut dependents: FxHashMap<u64, Vec<Arc<Node>>> = FxHashMap::default();
        let mut ready = std::collections::VecDeque::new();
        for node in &nodes {
            let dependencies = node.dependencies();
            if dependencies.is_empty() {
                ready.push_back(node.clone());
            }
            waiting.insert(node.handle, dependencies.len());
            for from in dependencies {
                dependents.entry(from).or_default().push(node.clone());
            }
        }
        let mut order = Vec::with_capacity(nodes.len());
        while let Some(node) = ready.pop_front() {
            for next in dependents.get(&node.handle).into_iter().flatten() {
                if let Some(count) = waiting.get_mut(&next.handle) {
                    *count -= 1;
                    if *count == 0 {
                        ready.push_back(next.clone());
                    }
                }
            }
            order.push(node);
        }
        if order.len() == nodes.len() { Ok(order) } else { Err(Error::INVALID_VALUE) }
    }

    /// A deep copy; `listed` makes it a graph of its own that the program can destroy.
    pub fn copy(&self, listed: bool) -> Arc<Graph> {
        let copy = if listed { create() } else { Graph::empty() };
        lock(&copy.objects).extend(lock(&self.objects).iter().cloned());
        let nodes = self.nodes().clone();
        let mut renamed: FxHashMap<u64, u64> = FxHashMap::default();
        let mut copied = copy.nodes();
        for node in &nodes {
            let work = match node.work() {
                Work::Child(child) => Work::Child(child.copy(false)),
                work => work,
            };
            renamed.insert(node.handle, copy.push(&mut copied, work, Vec::new(), node.handle));
        }
        for (old, new) in nodes.iter().zip(copied.iter()) {
            *lock(&new.dependencies) =
                old.dependencies().iter().filter_map(|from| renamed.get(from).copied()).collect();
        }
        drop(copied);
        copy
    }

    /// The copy of a node of the graph that this one was cloned from.
    pub fn clone_of(&self, original: u64) -> Result<u64> {
        let nodes = self.nodes();
        nodes
            .iter()
            .find(|node| node.original == original)
            .map(|node| node.handle)
            .ok_or(Error::INVALID_VALUE)
    }

    /// The graph in the DOT language, nodes by type and handle.
    pub fn dot(&self) -> String {
        let mut text = String::from("digraph dot {\n");
        for node in self.nodes().iter() {
            text += &format!("\"{:#x}\" [label=\"{}\"];\n", node.handle, node.work().type_name());
        }
        for (from, to) in self.edges() {
            text += &format!("\"{from:#x}\" -> \"{to:#x}\";\n");
        }
        text + "}\n"
    }

    /// References to the user objects that the graph keeps.
    pub fn objects(&self) -> Vec<Arc<UserObject>> {
        lock(&self.objects).clone()
    }

    /// Keeps a reference to a user object until the graph is gone.
    pub fn retain(&self, object: Arc<UserObject>, count: usize) {
        lock(&self.objects).extend(std::iter::repeat_n(object, count));
    }

    /// Gives up references that `retain` took.
    pub fn release(&self, object: u64, count: usize) -> Result {
        let mut objects = lock(&self.objects);
        if objects.iter().filter(|held| held.handle == object).count() < count {
            return Err(Error::INVALID_VALUE);
        }
        for _ in 0..count {
            if let Some(at) = objects.iter().position(|held| held.handle == object) {
                objects.swap_remove(at);
            }
        }
        Ok(())
    }

    /// Types and dependencies by position, which is what an update must leave as they are.
    fn shape(&self) -> Vec<(u64, u32, Vec<usize>)> {
        let nodes = self.nodes();
        let index: FxHashMap<u64, usize> =
            nodes.iter().enumerate().map(|(i, node)| (node.handle, i)).collect();
        let shape = |node: &Arc<Node>| {
            let mut from: Vec<usize> =
                node.dependencies().iter().filter_map(|handle| index.get(handle).copied()).collect();
            from.sort_unstable();
            (node.handle, node.work().node_type(), from)
        };
        nodes.iter().map(shape).collect()
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        for node in self.nodes().iter() {
            NODES.remove(node.handle);
        }
    }
}
