//! Device code and everything that reads it: the PTX reader ([`ptx`]) and, for each kernel, its PTX, its launch
//! geometry and a CPU reference.
//!
//! The CUDA C sources stand in `cuda/`, the PTX built from them by `cuda/build.py` in `ptx/`.
#![forbid(unsafe_code)]

pub mod ptx;
pub mod reduction;
pub mod sgemm;
pub mod softmax;
pub mod vector_add;

mod compare;
mod geometry;

pub use compare::max_relative_error;
pub use geometry::Geometry;
