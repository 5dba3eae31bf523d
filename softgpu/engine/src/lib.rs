//! The machine behind the software GPU: loads PTX, executes grids on CPU threads, and describes the device.
//!
//! `softgpu/driver` (libcuda.so.1) and `softgpu/nvml` (libnvidia-ml.so.1) are faces of this crate.

pub mod check;
pub mod exec;
pub mod profile;
pub mod state;
