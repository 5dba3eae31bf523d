//! libcuda.so.1 on the software GPU: the CUDA 13.0 driver API over host memory, threads and a PTX machine.
//!
//! `api/` holds the exported functions, thin edges; the modules beside it hold the logic by CUDA object. Device memory is host
//! memory of the process, so addresses need no translation; physical allocations are memfds, so that two processes can map the
//! same one at the same address. Every stream is a queue with a thread. What is not served answers
//! CUDA_ERROR_NOT_SUPPORTED, under every name that a real driver exports.
//!
//! Environment: `SOFTGPU_PROFILE`, `SOFTGPU_DEVICES`, `SOFTGPU_MEMORY_MIB` and `SOFTGPU_STATE` describe the device (see the engine's
//! `profile` and `state`); `SOFTGPU_VERBOSE` prints what a kernel did wrong on standard error;
//! `SOFTGPU_CHECK` looks for defects (see the engine's `check`).

mod abi;
pub mod api;
mod array;
mod capture;
mod check;
mod context;
mod copy;
mod device;
mod edge;
mod error;
mod event;
mod function;
mod graph;
mod handle;
mod heap;
mod image;
mod ipc;
mod jit;
mod launch;
mod library;
mod memory;
mod module;
mod params;
mod pointer;
mod procaddr;
mod space;
mod stream;
mod texture;
mod thread;
mod userobject;
mod vmm;
mod work;

pub use edge::Export;
