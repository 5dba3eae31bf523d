//! Memory that graphs allocate and free.
//!
//! In the local driver an allocating or freeing node is an empty node, which keeps the graph's shape; what it stands for is kept here. An
//! allocation has its address and its memory from the moment its node is made until neither a graph nor the program has a use for it, so the
//! executor sees ordinary memory at an address that kernels may carry. What a launch changes is whether it is allocated: as natively,
//! a launch of a graph whose memory the program has not freed is an error, unless the graph was instantiated to free it.
//! docs/adr/0007 has what differs.

mod queries;

use super::{NodeParams, State, locally};
use crate::alloc::live::{Allocation, Kind};
use crate::edge::Out;
use crate::ops::capture::{self, Info};
use crate::ops::memory::slabs::{DEVICE, LOCATION_DEVICE, Location};
use crate::ops::memory::{LIVE, give_back, obtain};
use crate::ops::{context, stream};
use crate::outcome::{Outcome, Reason};
use crate::real;
use crate::result::CuResult;
use rustc_hash::FxHashMap;
use std::ffi::c_void;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

pub use queries::{allocation_of, attribute, freed_by, node_type};

/// `CU_GRAPH_NODE_TYPE_MEM_ALLOC`, `CU_GRAPH_NODE_TYPE_MEM_FREE`.
pub const MEM_ALLOC: u32 = 10;
pub const MEM_FREE: u32 = 11;
/// `CU_MEM_ALLOCATION_TYPE_PINNED`.
const PINNED: u32 = 1;

/// `CUDA_MEM_ALLOC_NODE_PARAMS`, which begins with `CUmemPoolProps`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct AllocNode {
    pub allocation_type: u32,
    pub handle_types: u32,
    pub location: Location,
    pub rest_of_properties: [u64; 9],
    pub grants: *const c_void,
    pub grant_count: usize,
    pub bytes: usize,
    pub address: u64,
}

const _: () = assert!(size_of::<AllocNode>() == 120);

/// What a node stands for.
#[derive(Clone, Copy, Debug)]
enum Node {
    Allocate { graph: u64, address: u64 },
    Free { graph: u64, address: u64 },
}

impl Node {
    fn graph(self) -> u64 {
        match self {
            Self::Allocate { graph, .. } | Self::Free { graph, .. } => graph,
        }
    }
}

/// One allocation.
#[derive(Clone, Copy, Debug)]
struct Memory {
    bytes: u64,
    /// As the program asked for it; without the grants, which the memory has anyway.
    node: AllocNode,
    /// The graph is not destroyed.
    has_graph: bool,
    /// The one executable graph that allocates it.
    exec: Option<u64>,
    is_live: bool,
}

// SAFETY: the only pointer in it, `node.grants`, is null.
unsafe impl Send for Memory {}

#[derive(Debug, Default)]
struct Table {
    nodes: FxHashMap<u64, Node>,
    memory: FxHashMap<u64, Memory>,
}

static TABLE: LazyLock<Mutex<Table>> = LazyLock::new(Default::default);

fn table() -> MutexGuard<'static, Table> {
    TABLE.lock().unwrap_or_else(PoisonError::into_inner)
}

real::driver! {
    fn cuGraphAddEmptyNode(out: *mut u64, graph: u64, dependencies: *const u64, count: usize);
    fn cuStreamUpdateCaptureDependencies(stream: u64, dependencies: *const u64, count: usize, flags: u32);
}

/// Takes the memory that nobody has a use for any more out of the table.
fn settle(table: &mut Table) -> Vec<Allocation> {
    let over: Vec<u64> = table
        .memory
        .iter()
        .filter(|(_, memory)| !memory.has_graph && memory.exec.is_none() && !memory.is_live)
        .map(|(address, _)| *address)
        .collect();
    let gone = |address: &u64| {
        table.memory.remove(address);
        LIVE.remove(*address, |kind| kind == Kind::OfGraph)
    };
    over.iter().filter_map(gone).collect()
}

/// Gives memory back once the work that may use it is done.
fn return_all(over: Vec<Allocation>) {
    if !over.is_empty() {
        let _ = stream::synchronize_context();
        for allocation in over {
            let _ = give_back(allocation);
        }
    }
}

/// Memory for a node, and the node that `empty` makes.
fn allocate(
    node: AllocNode,
    empty: impl FnOnce() -> Result<(u64, u64), CuResult>,
) -> Result<(u64, AllocNode), CuResult> {
    context::check()?;
    let here = node.location.kind == LOCATION_DEVICE && node.location.id == DEVICE;
    if node.bytes == 0 || node.allocation_type != PINNED || node.handle_types != 0 || !here {
        return Err(CuResult::INVALID_VALUE);
    }
    let address = obtain(node.bytes, Kind::OfGraph)?;
    let made = AllocNode { grants: std::ptr::null(), grant_count: 0, address, ..node };
    match empty() {
        Ok((handle, graph)) => {
            let mut table = table();
            table.nodes.insert(handle, Node::Allocate { graph, address });
            let bytes = node.bytes as u64;
            let memory = Memory { bytes, node: made, has_graph: true, exec: None, is_live: false };
            table.memory.insert(address, memory);
            Ok((handle, made))
        }
        Err(error) => {
            if let Some(allocation) = LIVE.remove(address, |kind| kind == Kind::OfGraph) {
                give_back(allocation)?;
            }
            Err(error)
        }
    }
}

/// A node that frees `address`, which `empty` makes.
fn release(address: u64, empty: impl FnOnce() -> Result<(u64, u64), CuResult>) -> Result<u64, CuResult> {
    context::check()?;
    if !table().memory.contains_key(&address) {
        return Err(CuResult::INVALID_VALUE);
    }
    let (handle, graph) = empty()?;
    table().nodes.insert(handle, Node::Free { graph, address });
    Ok(handle)
}

/// Where a node goes in a graph.
#[derive(Clone, Copy, Debug)]
pub struct Position {
    pub graph: u64,
    pub dependencies: *const u64,
    pub count: usize,
}

impl Position {
    fn empty_node(self) -> Result<(u64, u64), CuResult> {
        let mut node = 0;
        // SAFETY: a valid out-parameter; graph and dependencies are the program's.
        unsafe { cuGraphAddEmptyNode(&mut node, self.graph, self.dependencies, self.count) }.ok()?;
        Ok((node, self.graph))
    }
}

/// cuGraphAddMemAllocNode. `params` receives the address.
pub fn add_allocation(
    out: Out<u64>,
    position: Position,
    params: Out<AllocNode>,
    asked: AllocNode,
) -> Outcome {
    let run = || {
        let out = out.required()?;
        let (node, made) = allocate(asked, || position.empty_node())?;
        out.put(node);
        params.put(made);
        Ok(())
    };
    run().into()
}

/// cuGraphAddMemFreeNode.
pub fn add_free(out: Out<u64>, position: Position, address: u64) -> Outcome {
    let run = || {
        let out = out.required()?;
        let frees = |node: &Node| matches!(*node, Node::Free { graph, address: of } if (graph, of) == (position.graph, address));
        if table().nodes.values().any(frees) {
            return Err(CuResult::INVALID_VALUE);
        }
        out.put(release(address, || position.empty_node())?);
        Ok(())
    };
    run().into()
}

/// cuGraphAddNode of one of the two kinds; every other node is the local driver's.
pub fn add(out: Out<u64>, position: Position, params: Out<NodeParams>, asked: NodeParams) -> Outcome {
    match asked.kind {
        MEM_FREE => add_free(out, position, asked.params[0]),
        MEM_ALLOC => {
            // SAFETY: the array is larger than the structure and aligned for it; both are plain numbers and a pointer that is never followed.
            let node = unsafe { asked.params.as_ptr().cast::<AllocNode>().read() };
            let run = || {
                let out = out.required()?;
                let (handle, made) = allocate(node, || position.empty_node())?;
                let mut told = asked;
                told.params[std::mem::offset_of!(AllocNode, address) / 8] = made.address;
                out.put(handle);
                params.put(told);
                Ok(())
            };
            run().into()
        }
        _ => locally(asked.addresses()),
    }
}

/// Adds an empty node to the capture that a stream is part of, behind what the stream has captured so far.
fn captured_node(stream: u64) -> Result<(u64, u64), CuResult> {
    /// `CU_STREAM_SET_CAPTURE_DEPENDENCIES`.
    const SET: u32 = 1;
    let Info { graph, dependencies, count } = capture::info(stream)?;
    // SAFETY: the stream is the program's. The dependencies are the driver's until its next call for this stream, which is the last one here.
    unsafe {
        let (node, graph) = Position { graph, dependencies, count }.empty_node()?;
        cuStreamUpdateCaptureDependencies(stream, &node, 1, SET).ok()?;
        Ok((node, graph))
    }
}

/// cuMemAllocAsync on a stream that is being captured.
pub fn capture_allocation(bytes: usize, stream: u64) -> Result<u64, CuResult> {
    let node = AllocNode {
        allocation_type: PINNED,
        handle_types: 0,
        location: Location { kind: LOCATION_DEVICE, id: DEVICE },
        rest_of_properties: [0; 9],
        grants: std::ptr::null(),
        grant_count: 0,
        bytes,
        address: 0,
    };
    allocate(node, || captured_node(stream)).map(|(_, made)| made.address)
}

/// cuMemFreeAsync on a stream that is being captured.
pub fn capture_free(address: u64, stream: u64) -> Result<(), CuResult> {
    release(address, || captured_node(stream)).map(drop)
}

/// The program frees memory that a graph has allocated.
pub fn free(address: u64) -> Result<(), CuResult> {
    let mut table = table();
    let memory = table.memory.get_mut(&address).ok_or(CuResult::INVALID_VALUE)?;
    if !std::mem::replace(&mut memory.is_live, false) {
        return Err(CuResult::INVALID_VALUE);
    }
    let over = settle(&mut table);
    drop(table);
    return_all(over);
    Ok(())
}

/// An executable graph is made of `graph`: it takes the graph's allocations.
pub fn claim(graph: u64, exec: u64, frees_itself: bool, state: &mut State) -> Result<(), CuResult> {
    let mut table = table();
    let Table { nodes, memory } = &mut *table;
    for node in nodes.values().filter(|node| node.graph() == graph) {
        match *node {
            Node::Allocate { address, .. } => state.allocates.push(address),
            Node::Free { address, .. } => state.frees.push(address),
        }
    }
    let is_taken = |address: &u64| memory.get(address).is_some_and(|memory| memory.exec.is_some());
    if state.allocates.iter().any(is_taken) {
        return Err(CuResult::NOT_SUPPORTED);
    }
    state.frees_itself = frees_itself;
    for address in &state.allocates {
        if let Some(memory) = memory.get_mut(address) {
            memory.exec = Some(exec);
        }
    }
    Ok(())
}

/// A launch allocates and frees.
pub fn launch(state: &State) -> Result<(), CuResult> {
    let mut table = table();
    let is_live = |address: &u64| table.memory.get(address).is_some_and(|memory| memory.is_live);
    if !state.frees_itself && state.allocates.iter().any(is_live) {
        return Err(CuResult::INVALID_VALUE);
    }
    let freeable = |address: &u64| state.allocates.contains(address) || is_live(address);
    if !state.frees.iter().all(freeable) {
        return Err(CuResult::INVALID_VALUE);
    }
    for (list, is_live) in [(&state.allocates, true), (&state.frees, false)] {
        for address in list {
            if let Some(memory) = table.memory.get_mut(address) {
                memory.is_live = is_live;
            }
        }
    }
    Ok(())
}

/// An executable graph is gone.
pub fn exec_gone(exec: u64) {
    let mut table = table();
    table
        .memory
        .values_mut()
        .filter(|memory| memory.exec == Some(exec))
        .for_each(|memory| memory.exec = None);
    let over = settle(&mut table);
    drop(table);
    return_all(over);
}

/// cuGraphDestroy.
pub fn graph_destroyed(graph: u64, local: impl FnOnce() -> CuResult) -> Outcome {
    // Before the call: as soon as the local graph is gone, another thread may be given the same handle.
    let nodes = detach(graph);
    let result = local();
    if result == CuResult::SUCCESS {
        return_all(nodes.give_up())
    } else {
        nodes.attach()
    }
    result.into()
}

/// Nodes of a graph that is about to go, out of the table.
#[must_use]
#[derive(Debug)]
pub struct Detached(Vec<(u64, Node)>);

/// Takes the nodes of `graph` out of the table.
pub fn detach(graph: u64) -> Detached {
    let mut table = table();
    Detached(table.nodes.extract_if(|_, node| node.graph() == graph).collect())
}

impl Detached {
    /// The graph stays after all.
    pub fn attach(self) {
        table().nodes.extend(self.0);
    }

    /// The graph is gone, and no executable graph was made of it: no work uses its memory, so nothing is waited for.
    pub fn abandon(self) {
        for allocation in self.give_up() {
            let _ = give_back(allocation);
        }
    }

    fn give_up(self) -> Vec<Allocation> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let mut table = table();
        for (_, node) in self.0 {
            if let Node::Allocate { address, .. } = node
                && let Some(memory) = table.memory.get_mut(&address)
            {
                memory.has_graph = false;
            }
        }
        settle(&mut table)
    }
}

/// Whether a graph allocates or frees. Such a graph is not cloned, is no part of another, and keeps its nodes.
fn has_memory(graph: u64) -> bool {
    table().nodes.values().any(|node| node.graph() == graph)
}

/// cuGraphClone and cuGraphAddChildGraphNode.
pub fn copy_of(graph: u64) -> Outcome {
    if has_memory(graph) {
        Outcome::Fail(CuResult::NOT_SUPPORTED)
    } else {
        Outcome::PassThrough(Reason::LocalQuery)
    }
}

/// cuGraphDestroyNode.
pub fn destroy_node(node: u64) -> Outcome {
    if table().nodes.contains_key(&node) {
        Outcome::Fail(CuResult::NOT_SUPPORTED)
    } else {
        Outcome::PassThrough(Reason::LocalQuery)
    }
}
