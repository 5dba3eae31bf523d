//! The C structures of NVML that the served functions fill.

use std::ffi::c_char;

/// `nvmlMemory_t`, bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    pub total: u64,
    pub free: u64,
    pub used: u64,
}

/// `nvmlMemory_v2_t`, bytes; the caller sets `version`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct MemoryV2 {
    pub version: u32,
    pub total: u64,
    pub reserved: u64,
    pub free: u64,
    pub used: u64,
}

/// `nvmlBAR1Memory_t`, bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Bar1Memory {
    pub total: u64,
    pub free: u64,
    pub used: u64,
}

/// `nvmlUtilization_t`, percent.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Utilization {
    pub gpu: u32,
    pub memory: u32,
}

/// `nvmlPciInfo_t`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct PciInfo {
    pub bus_id_legacy: [c_char; 16],
    pub domain: u32,
    pub bus: u32,
    pub device: u32,
    pub pci_device_id: u32,
    pub pci_subsystem_id: u32,
    pub bus_id: [c_char; 32],
}

/// `nvmlProcessInfo_t`, second layout.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ProcessInfo {
    pub pid: u32,
    pub used_bytes: u64,
    pub gpu_instance: u32,
    pub compute_instance: u32,
}

/// `nvmlTemperature_v1_t`; the caller sets `version` and `sensor`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Temperature {
    pub version: u32,
    pub sensor: u32,
    /// Degrees Celsius.
    pub degrees: i32,
}

/// `nvmlFieldValue_t`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct FieldValue {
    pub field: u32,
    pub scope: u32,
    pub timestamp_us: i64,
    pub latency_us: i64,
    pub value_type: u32,
    pub result: u32,
    pub value: u64,
}
