//! From a host address that the interpreter has resolved back to the state space that it lies in.

use super::super::op::Machine;

/// Where an access goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Offset in the block's shared memory.
    Shared(u64),
    /// Offset in the lane's local memory.
    Local(u64),
    /// The parameter buffer.
    Param,
    Global(u64),
}

pub fn place(m: &Machine<'_>, host: u64) -> Place {
    let shared = host.wrapping_sub(m.block.shared.as_ptr() as u64);
    if shared < m.block.shared_bytes() {
        return Place::Shared(shared);
    }
    if let Some(offset) = m.warp.local.offset_of(host) {
        return Place::Local(offset);
    }
    let params = host.wrapping_sub(m.grid.params.as_ptr() as u64);
    if params < m.grid.params.len() as u64 * 8 { Place::Param } else { Place::Global(host) }
}
