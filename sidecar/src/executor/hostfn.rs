//! Host functions: the driver reaches one in stream order, the program runs it. Owner: launch.

use lightos_protocol::record::HostFunc;

use super::Executor;
use super::driver::CuError;

/// Host functions that the device has still to reach.
#[derive(Debug, Default)]
pub(crate) struct HostFunctions {}

impl Executor {
    pub(super) fn host_func(&mut self, _function: &HostFunc) -> Result<(), CuError> {
        Err(CuError::NOT_SUPPORTED)
    }
}
