//! Addresses of module and library globals. Owner: memory.

/// Globals handed out so far.
#[derive(Debug, Default)]
pub(crate) struct Globals {}
