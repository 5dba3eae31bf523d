//! Calls that change the context as a whole: limits and cache preferences. They act on the primary context, which is current on
//! the ring thread and serves every context of the program.

use lightos_protocol::request::{ContextRequest, Reply};

use super::driver::{CuError, check, sys};

/// `CU_LIMIT_PERSISTING_L2_CACHE_SIZE`, the last limit that programs set; the two after it belong to green contexts.
const LAST_LIMIT: u32 = 6;
/// `CU_FUNC_CACHE_PREFER_EQUAL`.
const LAST_CACHE_CONFIG: u32 = 3;

/// Executes a cold call about the context.
pub(crate) fn request(request: ContextRequest) -> Result<Reply, CuError> {
    match request {
        ContextRequest::SetLimit { limit, value } => {
            if limit > LAST_LIMIT {
                return Err(CuError::INVALID_VALUE);
            }
            // SAFETY: every number up to the last limit is a variant of the `repr(u32)` enum.
            let limit = unsafe { std::mem::transmute::<u32, sys::CUlimit>(limit) };
            // SAFETY: plain values; the context is current on this thread.
            check(unsafe { sys::cuCtxSetLimit(limit, value as usize) })?;
        }
        ContextRequest::SetCacheConfig { config } => {
            if config > LAST_CACHE_CONFIG {
                return Err(CuError::INVALID_VALUE);
            }
            // SAFETY: every number up to the last preference is a variant of the `repr(u32)` enum.
            let config = unsafe { std::mem::transmute::<u32, sys::CUfunc_cache>(config) };
            // SAFETY: a plain value; the context is current on this thread.
            check(unsafe { sys::cuCtxSetCacheConfig(config) })?;
        }
        // SAFETY: no arguments; the context is current on this thread.
        ContextRequest::ResetPersistingL2Cache => check(unsafe { sys::cuCtxResetPersistingL2Cache() })?,
    }
    Ok(Reply::Done)
}
