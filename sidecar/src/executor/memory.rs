//! Device memory: slabs created here and mapped by both processes at the same address. Owner: memory.

use lightos_protocol::request::{MemoryRequest, Reply};

use super::Executor;
use super::driver::CuError;

/// The program's slabs.
#[derive(Debug, Default)]
pub(crate) struct Memory {}

impl Executor {
    pub(super) fn memory_request(&mut self, _request: MemoryRequest) -> Result<Reply, CuError> {
        Err(CuError::NOT_SUPPORTED)
    }
}
