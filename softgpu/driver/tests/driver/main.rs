//! The driver's behaviour through its entry points, called as a C program calls them.

mod arrays;
mod device;
mod exports;
mod faults;
mod graphs;
mod memory;
mod modules;
mod streams;
mod stress;
mod support;
mod textures;
mod two_processes;
