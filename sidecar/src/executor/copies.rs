//! Copies and fills. Owner: memory.

use lightos_protocol::record::{Memcpy, Memcpy2D, MemcpyInline, Memset};

use super::Executor;
use super::driver::CuError;

impl Executor {
    pub(super) fn memcpy(&mut self, _copy: &Memcpy) -> Result<(), CuError> {
        Err(CuError::NOT_SUPPORTED)
    }

    pub(super) fn memcpy_inline(&mut self, _copy: &MemcpyInline, _data: &[u8]) -> Result<(), CuError> {
        Err(CuError::NOT_SUPPORTED)
    }

    pub(super) fn memcpy_2d(&mut self, _copy: &Memcpy2D) -> Result<(), CuError> {
        Err(CuError::NOT_SUPPORTED)
    }

    pub(super) fn memset(&mut self, _fill: &Memset) -> Result<(), CuError> {
        Err(CuError::NOT_SUPPORTED)
    }
}
