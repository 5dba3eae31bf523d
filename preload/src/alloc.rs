//! Where memory lies: pure bookkeeping of address ranges, without driver calls.
//!
//! [`ranges`] hands out pieces of one range of addresses. [`heap`] serves the program's device allocations from slabs that a
//! [`heap::Backing`] creates. [`live`] answers which allocation an address belongs to. Callers provide the locks.

pub mod heap;
pub mod live;
pub mod ranges;
