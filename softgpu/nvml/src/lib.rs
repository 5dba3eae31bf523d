//! libnvidia-ml.so.1 on the software GPU: the figures of the device that libcuda.so.1 presents.
//!
//! Memory and processes come from the state that all driver processes share; temperature, power, clocks and utilisation come
//! from [`plant`]. Every other name that a real library exports answers NVML_ERROR_NOT_SUPPORTED.

mod api;
mod edge;
mod plant;
mod unserved;

pub use api::abi;
pub use api::{device, system};
