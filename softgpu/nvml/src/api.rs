//! The exported functions.

pub mod abi;
pub mod device;
pub mod system;
