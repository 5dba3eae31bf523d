//! Streams under the program's handle values, timeline writes, stream memory operations. Owner: launch.

use lightos_protocol::record::{StreamValue, StreamWaitEvent, Timeline};
use lightos_protocol::request::{Reply, StreamRequest};

use super::Executor;
use super::driver::CuError;

/// The program's streams.
#[derive(Debug, Default)]
pub(crate) struct Streams {}

impl Executor {
    pub(super) fn stream_request(&mut self, _request: StreamRequest) -> Result<Reply, CuError> {
        Err(CuError::NOT_SUPPORTED)
    }

    pub(super) fn stream_wait_event(&mut self, _wait: &StreamWaitEvent) -> Result<(), CuError> {
        Err(CuError::NOT_SUPPORTED)
    }

    pub(super) fn timeline(&mut self, _mark: &Timeline) -> Result<(), CuError> {
        Err(CuError::NOT_SUPPORTED)
    }

    pub(super) fn stream_value(&mut self, _value: &StreamValue) -> Result<(), CuError> {
        Err(CuError::NOT_SUPPORTED)
    }

    pub(super) fn stream_destroy(&mut self, _stream: u64) -> Result<(), CuError> {
        Err(CuError::NOT_SUPPORTED)
    }
}
