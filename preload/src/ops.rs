//! The logic behind the hooks, one module per area: validates what native validates at the call, marshals, forwards.

pub mod array;
pub mod batch;
pub mod capture;
pub mod context;
pub mod copy;
pub mod device;
pub mod event;
pub mod function;
pub mod global;
pub mod graph;
pub mod host;
pub mod hostfn;
pub mod init;
pub mod ipc;
pub mod launch;
pub mod managed;
pub mod memory;
pub mod memset;
pub mod module;
pub mod peer;
pub mod pointer;
pub mod pool;
pub mod procaddr;
pub mod stream;
pub mod texture;
pub mod vmm;
