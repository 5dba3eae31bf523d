//! The interpreter, instruction family by family, against values computed in Rust.

mod harness;
mod programs;
