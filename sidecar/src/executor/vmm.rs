//! The program's own virtual memory management (cuMemCreate, cuMemMap and the rest). Owner: memory.

/// The program's physical allocations and mappings.
#[derive(Debug, Default)]
pub(crate) struct Vmm {}
