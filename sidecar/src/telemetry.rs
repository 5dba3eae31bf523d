//! What the devices say of themselves.

mod nvml;

pub use nvml::Telemetry;
