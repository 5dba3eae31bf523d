//! The interpreter, instruction family by family, against values computed in Rust.

mod control;
mod fixtures;
mod floats;
mod harness;
mod integers;
mod programs;
mod warps;
