//! Executable graphs, rebuilt from their description.
//!
//! Owned by the ring thread. The graph that an executable graph was made from is kept beside it, because updates name its nodes.

mod build;

use lightos_protocol::record::GraphLaunch;
use lightos_protocol::request::{GraphBody, GraphRequest, NodePlace, Reply};
use rustc_hash::FxHashMap;
use std::sync::atomic::Ordering::Relaxed;

use super::Executor;
use super::driver::{CuError, check, sys};
use build::{Built, Content};

/// `CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH` and `_USE_NODE_PRIORITY`. Uploading happens at the first launch; launches from
/// the device are refused by the shim.
const INSTANTIATE_FLAGS: u64 = 1 | 8;

/// The program's executable graphs.
#[derive(Debug, Default)]
pub(crate) struct Graphs {
    table: FxHashMap<u64, Exec>,
}

#[derive(Debug)]
struct Exec {
    raw: sys::CUgraphExec,
    built: Built,
}

impl Graphs {
    fn exec(&mut self, handle: u64) -> Result<&mut Exec, CuError> {
        self.table.get_mut(&handle).ok_or(CuError::INVALID_HANDLE)
    }
}

impl Executor {
    /// Executes a cold call about executable graphs.
    pub(crate) fn graph_request(&mut self, request: GraphRequest) -> Result<Reply, CuError> {
        if let Err(violation) = request.check() {
            tracing::warn!(%violation, "graph refused");
            return Err(CuError::INVALID_VALUE);
        }
        match request {
            GraphRequest::Instantiate { exec, flags, graphs } => self.instantiate(exec, flags, &graphs)?,
            GraphRequest::Update { exec, graphs } => self.update(exec, &graphs)?,
            GraphRequest::SetNode { exec, place, node } => {
                let content = self.content(&node)?;
                let exec = self.graphs.exec(exec)?;
                content.set(exec.raw, exec.built.node(place)?, self.context.raw())?;
                exec.built.keep(content);
            }
            GraphRequest::SetChild { exec, place, graphs } => self.set_child(exec, place, &graphs)?,
            GraphRequest::SetEnabled { exec, place, enabled } => {
                let exec = self.graphs.exec(exec)?;
                let node = exec.built.node(place)?;
                // SAFETY: both handles are live, and the node is of the graph that the exec was made from.
                check(unsafe { sys::cuGraphNodeSetEnabled(exec.raw, node, enabled.into()) })?;
            }
            GraphRequest::ExecDestroy { exec } => {
                let exec = self.graphs.table.remove(&exec).ok_or(CuError::INVALID_HANDLE)?;
                self.hostfns.retire(exec.built.close());
                // SAFETY: the handle was ours and has left the table; the driver frees a graph under way when it is done.
                check(unsafe { sys::cuGraphExecDestroy(exec.raw) })?;
            }
        }
        Ok(Reply::Done)
    }

    /// Launches an executable graph.
    pub(crate) fn graph_launch(&mut self, launch: &GraphLaunch) -> Result<(), CuError> {
        let stream = self.streams.raw(launch.stream)?;
        let exec = self.graphs.exec(launch.exec)?.raw;
        self.pages.counters().traffic().graph_launches.fetch_add(1, Relaxed);
        // SAFETY: both handles are live.
        check(unsafe { sys::cuGraphLaunch(exec, stream) })
    }

    fn instantiate(&mut self, handle: u64, flags: u64, graphs: &[GraphBody]) -> Result<(), CuError> {
        let built = self.build(graphs)?;
        let mut raw = std::ptr::null_mut();
        // SAFETY: the out-pointer is valid and the graph is live.
        let result = check(unsafe {
            sys::cuGraphInstantiateWithFlags(&mut raw, built.graph(), flags & INSTANTIATE_FLAGS)
        });
        if let Err(error) = result {
            built.close();
            return Err(error);
        }
        self.graphs.table.insert(handle, Exec { raw, built });
        Ok(())
    }

    fn update(&mut self, handle: u64, graphs: &[GraphBody]) -> Result<(), CuError> {
        let built = self.build(graphs)?;
        let exec = self.graphs.exec(handle);
        let mut info = std::mem::MaybeUninit::<sys::CUgraphExecUpdateResultInfo>::zeroed();
        let result = match &exec {
            Ok(exec) => {
                // SAFETY: exec and graph are live; `info` is valid memory for the answer.
                check(unsafe { sys::cuGraphExecUpdate_v2(exec.raw, built.graph(), info.as_mut_ptr()) })
            }
            Err(error) => Err(*error),
        };
        let calls = built.close();
        if let Ok(exec) = exec {
            exec.built.adopt(calls);
        }
        result
    }

    fn set_child(&mut self, handle: u64, place: NodePlace, graphs: &[GraphBody]) -> Result<(), CuError> {
        let built = self.build(graphs)?;
        let set = |exec: &mut Exec, graph| {
            let node = exec.built.node(place)?;
            // SAFETY: all three handles are live; the driver copies the parameters out of the graph.
            check(unsafe { sys::cuGraphExecChildGraphNodeSetParams(exec.raw, node, graph) })
        };
        let exec = self.graphs.exec(handle);
        let (result, exec) = match exec {
            Ok(exec) => (set(exec, built.graph()), Some(exec)),
            Err(error) => (Err(error), None),
        };
        let calls = built.close();
        if let Some(exec) = exec {
            exec.built.adopt(calls);
        }
        result
    }

    fn build(&mut self, graphs: &[GraphBody]) -> Result<Built, CuError> {
        let mut contents = Vec::with_capacity(graphs.len());
        for body in graphs {
            let nodes = body.nodes.iter().map(|node| self.content(node));
            contents.push(nodes.collect::<Result<Vec<Content>, CuError>>()?);
        }
        Built::new(graphs, contents, self.context.raw())
    }
}
