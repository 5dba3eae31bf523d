//! Graphs rebuilt from their serialised nodes. Owner: launch.

use lightos_protocol::record::GraphLaunch;
use lightos_protocol::request::{GraphRequest, Reply};

use super::Executor;
use super::driver::CuError;

/// The program's executable graphs.
#[derive(Debug, Default)]
pub(crate) struct Graphs {}

impl Executor {
    pub(super) fn graph_request(&mut self, _request: GraphRequest) -> Result<Reply, CuError> {
        Err(CuError::NOT_SUPPORTED)
    }

    pub(super) fn graph_launch(&mut self, _launch: &GraphLaunch) -> Result<(), CuError> {
        Err(CuError::NOT_SUPPORTED)
    }
}
