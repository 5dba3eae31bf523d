//! The PTX reader: text to a typed syntax tree with positions, and back.
//!
//! Owns the grammar of PTX ISA 6.0 to 9.x as NVRTC, nvcc, libNVVM, Triton and XLA emit it
//! (NVIDIA, "Parallel Thread Execution ISA"). Knows nothing about execution: the tree keeps an opcode as its
//! dotted words, and the consumer decides what it supports.
//!
//! [`parse`] reads, `Module`'s `Display` writes, and `parse(&module.to_string())` gives the module back up to
//! its spans ([`ast::Module::erase_spans`] compares). Text is untrusted: every input ends in a tree or in a
//! [`ParseError`], with memory linear in the text and recursion bounded by [`MAX_NESTING`].

pub mod ast;
mod constant;
mod error;
mod lexer;
mod parser;
mod printer;
mod spans;
mod words;

pub use error::{ParseError, ParseErrorKind};
pub use parser::{MAX_NESTING, parse};
