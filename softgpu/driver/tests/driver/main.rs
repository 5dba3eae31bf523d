//! The driver's behaviour through its entry points, called as a C program calls them.

mod arrays;
mod check;
mod cooperative;
mod device;
mod exports;
mod faults;
mod graph_memory;
mod graphs;
mod ipc;
mod memory;
mod modules;
mod streams;
mod stress;
mod support;
mod texture_faults;
mod textures;
mod two_processes;
