//! Device code and everything that reads it: the PTX reader ([`ptx`]) and a CPU reference for every kernel.
#![forbid(unsafe_code)]

pub mod ptx;
