//! The interpreter, instruction family by family, against values computed in Rust.

mod audit;
mod bits;
mod checks;
mod compiled;
mod control;
mod fixtures;
mod floats;
mod harness;
mod hostile;
mod integers;
mod matrices;
mod narrow;
mod packing;
mod programs;
mod registers;
mod stack;
mod surfaces;
mod texture_rules;
mod textures;
mod transactions;
mod triton;
mod unmapping;
mod warps;
