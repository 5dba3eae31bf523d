//! Events under the program's handle values. Owner: launch.

use lightos_protocol::record::EventRecord;

use super::Executor;
use super::driver::CuError;

/// The program's events.
#[derive(Debug, Default)]
pub(crate) struct Events {}

impl Executor {
    pub(super) fn event_record(&mut self, _record: &EventRecord) -> Result<(), CuError> {
        Err(CuError::NOT_SUPPORTED)
    }

    pub(super) fn event_destroy(&mut self, _event: u64) -> Result<(), CuError> {
        Err(CuError::NOT_SUPPORTED)
    }
}
