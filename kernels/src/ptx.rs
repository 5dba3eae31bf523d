//! The PTX reader: text to a typed syntax tree with positions, and back.
//!
//! Owns the grammar of PTX ISA 6.0 to 9.x as NVRTC, nvcc, libNVVM, Triton and XLA emit it
//! (NVIDIA, "Parallel Thread Execution ISA"). Knows nothing about execution: the tree keeps an opcode as its
//! dotted words, and the consumer decides what it supports.

pub mod ast;
