//! The sidecar: the daemon that admits programs, the executor process that owns the GPU for one of them, and the
//! command line in front of both. See docs/ARCHITECTURE.md for the way of a call.

pub mod cli;
pub mod config;
pub mod daemon;
pub mod executor;
pub mod layout;
pub mod logs;
pub mod telemetry;
