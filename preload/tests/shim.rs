//! The shim in foreign processes: each test preloads the real shared library into a real program.

#[path = "shim/bench.rs"]
mod bench;
#[path = "shim/bystanders.rs"]
mod bystanders;
#[path = "shim/cupti.rs"]
mod cupti;
#[path = "shim/exports.rs"]
mod exports;
#[path = "shim/lookup.rs"]
mod lookup;
#[path = "shim/sidecar.rs"]
mod sidecar;
