//! The interpreter, instruction family by family, against values computed in Rust.

mod compiled;
mod control;
mod fixtures;
mod floats;
mod harness;
mod hostile;
mod integers;
mod matrices;
mod programs;
mod surfaces;
mod texture_rules;
mod textures;
mod unmapping;
mod warps;
