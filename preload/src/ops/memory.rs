//! Logic of the memory functions.

use crate::result::CuResult;

/// Reserves the arenas at the addresses that both processes use.
pub fn reserve() -> Result<(), CuResult> {
    Ok(())
}

/// Releases the local imports when the executor is gone.
pub fn abandon() {}
