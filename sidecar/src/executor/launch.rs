//! Kernel launches. Owner: launch.

use lightos_protocol::record::LaunchView;

use super::Executor;
use super::driver::CuError;

impl Executor {
    pub(super) fn launch(&mut self, _view: &LaunchView<'_>) -> Result<(), CuError> {
        Err(CuError::NOT_SUPPORTED)
    }
}
