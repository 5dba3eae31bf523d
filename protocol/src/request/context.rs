//! Cold calls about the context as a whole. However many contexts the program has, the executor has one.

use serde::{Deserialize, Serialize};

/// A call that changes how the context runs kernels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ContextRequest {
    /// cuCtxSetLimit.
    SetLimit {
        /// `CUlimit`.
        limit: u32,
        /// In the limit's own unit: bytes or a count.
        value: u64,
    },
    /// cuCtxSetCacheConfig.
    SetCacheConfig {
        /// `CUfunc_cache`.
        config: u32,
    },
    /// cuCtxResetPersistingL2Cache.
    ResetPersistingL2Cache,
}
