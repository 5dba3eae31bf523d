//! The driver's behaviour through its entry points, called as a C program calls them.

mod check;
mod device;
mod exports;
mod faults;
mod graphs;
mod memory;
mod modules;
mod streams;
mod stress;
mod support;
mod two_processes;
