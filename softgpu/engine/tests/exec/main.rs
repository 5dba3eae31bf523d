//! The interpreter, instruction family by family, against values computed in Rust.

mod checks;
mod compiled;
mod control;
mod fixtures;
mod floats;
mod harness;
mod hostile;
mod integers;
mod matrices;
mod programs;
mod unmapping;
mod warps;
