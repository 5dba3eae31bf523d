//! Executable graphs. Graphs are captured and built in the local driver, where nothing of them ever runs; instantiation walks the
//! graph and describes it to the executor, which builds and launches its own. The local executable graph stays as the
//! twin whose queries and updates are judged natively.
//!
//! Invariant: an executable graph in [`EXECS`] exists on both sides with the same content: an update is applied locally first, and
//! forwarded when native accepts it.

pub mod memory;
mod node;
mod pageable;
mod walk;

use super::capture::{self, captures};
use super::{context, event, global, hostfn, stream};
use crate::edge::Out;
use crate::handles::Handles;
use crate::outcome::{Outcome, Reason};
use crate::result::CuResult;
use crate::session::{Session, session};
use lightos_protocol::record::GraphLaunch;
use lightos_protocol::request::{GraphNode, GraphRequest, NodePlace, Request};
use pageable::Staged;
use rustc_hash::FxHashMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use walk::Walk;

pub use node::{BatchNode, Copy3d, HostNode, KernelNode, MemsetNode, NodeParams};

/// `CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH`.
const AUTO_FREE: u64 = 1;
/// `CUDA_GRAPH_INSTANTIATE_FLAG_DEVICE_LAUNCH`, which is not valid with it.
const DEVICE_LAUNCH: u64 = 4;

/// Why a graph or node is not carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    Refused(Reason),
    Failed(CuResult),
}

impl From<CuResult> for Obstacle {
    fn from(error: CuResult) -> Self {
        Self::Failed(error)
    }
}

impl From<Obstacle> for Outcome {
    fn from(obstacle: Obstacle) -> Self {
        match obstacle {
            Obstacle::Refused(reason) => Self::Refuse(reason),
            Obstacle::Failed(error) => Self::Fail(error),
        }
    }
}

fn outcome(result: Result<(), Obstacle>) -> Outcome {
    result.map_or_else(Outcome::from, |()| Outcome::Done)
}

/// What the shim knows about an executable graph.
#[derive(Debug, Default)]
struct Exec {
    state: Mutex<State>,
    /// Whether a launch records events.
    records: AtomicBool,
    /// Whether a launch allocates or frees memory.
    has_memory: AtomicBool,
}

#[derive(Debug, Default)]
pub struct State {
    /// Where the nodes of the graph it was made from are in the description.
    places: FxHashMap<u64, NodePlace>,
    /// Events that a launch records.
    events: Vec<u64>,
    /// Numbers of its host functions.
    callbacks: Vec<u64>,
    /// What copies with pageable memory need.
    staged: FxHashMap<NodePlace, Staged>,
    /// The same, of graphs that replaced a child graph.
    staged_inside: Vec<Staged>,
    /// Memory that a launch allocates, and memory that it frees, by address.
    allocates: Vec<u64>,
    frees: Vec<u64>,
    /// Whether a launch frees what the one before has allocated.
    frees_itself: bool,
}

impl Exec {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new node or graph has been put in.
    fn absorb(&self, walk: &mut Walk) {
        let mut state = self.state();
        state.events.append(&mut walk.events);
        state.callbacks.append(&mut walk.callbacks);
        self.records.store(!state.events.is_empty(), Relaxed);
    }
}

static EXECS: Handles<Exec> = Handles::new();

/// The local driver says what is wrong with the handle.
const UNKNOWN: Outcome = Outcome::PassThrough(Reason::InvalidArgument);

fn call(session: &Session, request: GraphRequest) -> Result<(), Obstacle> {
    session.call(&Request::Graph(request)).map(drop).map_err(Obstacle::Failed)
}

/// The instantiating functions. `destroy` undoes `local`.
pub fn instantiate(
    out: Out<u64>,
    graph: u64,
    flags: u64,
    local: impl FnOnce(*mut u64) -> CuResult,
    destroy: impl FnOnce(u64) -> CuResult,
) -> Outcome {
    if flags & (DEVICE_LAUNCH | AUTO_FREE) == DEVICE_LAUNCH | AUTO_FREE {
        return UNKNOWN;
    }
    if flags & DEVICE_LAUNCH != 0 {
        return Outcome::Refuse(Reason::DeviceGraphLaunch);
    }
    let run = || {
        let session = session().ok_or(CuResult::DEINITIALIZED)?;
        let out = out.required()?;
        let mut exec = 0;
        // The local driver first: it judges the graph. What it accepts is described, or refused.
        local(&mut exec).ok()?;
        let mut of_memory = State::default();
        let claimed = memory::claim(graph, exec, flags & AUTO_FREE != 0, &mut of_memory);
        let described =
            claimed.map_err(Obstacle::from).and_then(|()| Walk::graph(graph)).and_then(|mut walk| {
                let graphs = std::mem::take(&mut walk.graphs);
                call(session, GraphRequest::Instantiate { exec, flags, graphs })?;
                Ok(walk)
            });
        let mut walk = match described {
            Ok(walk) => walk,
            Err(obstacle) => {
                memory::exec_gone(exec);
                destroy(exec);
                return Err(obstacle);
            }
        };
        let known = EXECS.spare();
        let has_memory = !of_memory.allocates.is_empty() || !of_memory.frees.is_empty();
        known.has_memory.store(has_memory, Relaxed);
        *known.state() = State { places: std::mem::take(&mut walk.places), ..of_memory };
        known.absorb(&mut walk);
        known.state().staged = std::mem::take(&mut walk.staged);
        EXECS.insert(exec, known);
        out.put(exec);
        Ok(())
    };
    outcome(run())
}

/// A copy or fill of a graph under construction stays with the local driver, which has to know the variables that it names.
pub fn locally(addresses: [u64; 2]) -> Outcome {
    global::introduce(addresses);
    Outcome::PassThrough(Reason::LocalQuery)
}

/// cuGraphLaunch.
pub fn launch(exec: u64, stream: u64) -> Outcome {
    let Some(known) = EXECS.get(exec) else { return UNKNOWN };
    if captures(stream) {
        return capture::PASS;
    }
    let run = || {
        let session = session().ok_or(CuResult::DEINITIALIZED)?;
        context::check()?;
        let stream = stream::find(stream)?;
        if known.has_memory.load(Relaxed) {
            memory::launch(&known.state())?;
        }
        session.send(&GraphLaunch { exec, stream: stream.wire() }, &[])?;
        stream.touch();
        if known.records.load(Relaxed) {
            known
                .state()
                .events
                .iter()
                .filter_map(|&event| event::find(event))
                .for_each(|event| event.recorded_by_executor());
        }
        Ok(())
    };
    run().into()
}

/// cuGraphUpload: the executor's driver uploads at the first launch.
pub fn upload(exec: u64, stream: u64) -> Outcome {
    match EXECS.get(exec) {
        None => UNKNOWN,
        Some(_) if captures(stream) => capture::PASS,
        Some(_) => Outcome::Done,
    }
}

/// Set once a graph of this process keeps user objects.
static KEEPS_OBJECTS: AtomicBool = AtomicBool::new(false);

/// cuGraphRetainUserObject: the local driver keeps the objects, and lets them go with the last graph that has them.
pub fn retain_objects() -> Outcome {
    KEEPS_OBJECTS.store(true, Relaxed);
    Outcome::PassThrough(Reason::LocalQuery)
}

/// cuGraphExecDestroy. Launches under way finish.
pub fn destroy(exec: u64, local: impl FnOnce() -> CuResult) -> Outcome {
    let (Some(session), Some(known)) = (session(), EXECS.remove(exec)) else { return UNKNOWN };
    // The executor first: as soon as the local handle is free, another thread may be given the same value.
    let sent = session.cast(&Request::Graph(GraphRequest::ExecDestroy { exec }));
    let state = std::mem::take(&mut *known.state());
    if known.has_memory.swap(false, Relaxed) {
        memory::exec_gone(exec);
    }
    let is_staged = !state.staged.is_empty() || !state.staged_inside.is_empty();
    if is_staged || !state.callbacks.is_empty() || KEEPS_OBJECTS.load(Relaxed) {
        // A launch under way may still call the host functions, and use what the user objects own: natively both outlive it, and graphs that have
        // either are rare. The local driver, where nothing runs, would let the objects go at once.
        let _ = stream::synchronize_context();
        hostfn::forget(&state.callbacks);
    }
    EXECS.recycle(known);
    local().ok().and(sent).into()
}

/// The primary context has ended: no executable graph can run any more. The local handles stay until the program destroys them.
pub fn end_of_context(session: &Session) {
    for (exec, known) in EXECS.remove_where(|_| true) {
        let _ = session.cast(&Request::Graph(GraphRequest::ExecDestroy { exec }));
        hostfn::forget(&std::mem::take(&mut *known.state()).callbacks);
        EXECS.recycle(known);
    }
}

/// cuGraphExecUpdate: the parameters of another graph of the same topology.
pub fn update(exec: u64, graph: u64, local: impl FnOnce() -> CuResult) -> Outcome {
    let Some(known) = EXECS.get(exec) else { return UNKNOWN };
    let run = || {
        let session = session().ok_or(CuResult::DEINITIALIZED)?;
        let mut walk = Walk::graph(graph)?;
        local().ok()?;
        let graphs = std::mem::take(&mut walk.graphs);
        call(session, GraphRequest::Update { exec, graphs })?;
        let before = {
            let mut state = known.state();
            state.events.clear();
            std::mem::replace(&mut state.staged, std::mem::take(&mut walk.staged))
        };
        known.absorb(&mut walk);
        retire(before.into_values());
        Ok(())
    };
    outcome(run())
}

/// The cuGraphExec*NodeSetParams family: `describe` makes the node's new content out of the program's argument.
pub fn set_node(
    exec: u64,
    node: u64,
    describe: impl FnOnce(&mut Walk) -> Result<GraphNode, Obstacle>,
    local: impl FnOnce() -> CuResult,
) -> Outcome {
    let Some(known) = EXECS.get(exec) else { return UNKNOWN };
    let Some(place) = known.state().places.get(&node).copied() else { return UNKNOWN };
    let run = || {
        let session = session().ok_or(CuResult::DEINITIALIZED)?;
        let mut walk = Walk::default();
        let node = describe(&mut walk)?;
        let staged = walk.pending.take();
        if matches!(node, GraphNode::Memcpy(_)) || staged.is_some() {
            // The executor's node is what the first parameters made of it.
            let was_staged = known.state().staged.contains_key(&place);
            if was_staged != staged.is_some() {
                return Err(Obstacle::Refused(Reason::PageableInGraph));
            }
        }
        walk.finish()?;
        let names_variable = match &node {
            GraphNode::Memcpy(copy) => global::introduce([copy.src, copy.dst]),
            GraphNode::Memset { dst, .. } => global::introduce([*dst, 0]),
            _ => false,
        };
        local().ok()?;
        let graphs = std::mem::take(&mut walk.graphs);
        let request = match node {
            GraphNode::Child { .. } => GraphRequest::SetChild { exec, place, graphs },
            node => GraphRequest::SetNode { exec, place, node },
        };
        // Not waited for: the local driver has judged the same change of the same graph, and XLA makes some before every launch. A
        // variable is memory of the host to it, so the executor's has another judgement then.
        if names_variable {
            call(session, request)?;
        } else {
            session.cast(&Request::Graph(request))?;
        }
        known.absorb(&mut walk);
        known.state().staged_inside.extend(walk.staged.drain().map(|(_, staged)| staged));
        if let Some(staged) = staged {
            let before = known.state().staged.insert(place, staged);
            retire(before);
        }
        Ok(())
    };
    outcome(run())
}

/// Ends what launches under way may still use.
fn retire(staged: impl IntoIterator<Item = Staged>) {
    let staged: Vec<Staged> = staged.into_iter().collect();
    if !staged.is_empty() {
        let _ = stream::synchronize_context();
    }
}

/// cuGraphExecChildGraphNodeSetParams.
pub fn set_child(exec: u64, node: u64, graph: u64, local: impl FnOnce() -> CuResult) -> Outcome {
    set_node(exec, node, |walk| walk.child(graph), local)
}

/// cuGraphNodeSetEnabled.
pub fn set_enabled(exec: u64, node: u64, enabled: bool, local: impl FnOnce() -> CuResult) -> Outcome {
    let Some(known) = EXECS.get(exec) else { return UNKNOWN };
    let Some(place) = known.state().places.get(&node).copied() else { return UNKNOWN };
    let run = || {
        let session = session().ok_or(CuResult::DEINITIALIZED)?;
        local().ok()?;
        session.cast(&Request::Graph(GraphRequest::SetEnabled { exec, place, enabled }))?;
        Ok(())
    };
    outcome(run())
}
