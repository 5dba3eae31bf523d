//! Pinned host memory shared with the program at the same address. Owner: memory.

/// The program's pinned host memory.
#[derive(Debug, Default)]
pub(crate) struct HostMemory {}
