//! Modules, libraries, kernels and functions of the program, under the program's own handle values. Owner: launch.

use lightos_protocol::request::{ModuleRequest, Reply};

use super::Executor;
use super::driver::CuError;

/// The program's loaded images.
#[derive(Debug, Default)]
pub(crate) struct Modules {}

impl Executor {
    pub(super) fn module_request(&mut self, _request: ModuleRequest) -> Result<Reply, CuError> {
        Err(CuError::NOT_SUPPORTED)
    }
}
