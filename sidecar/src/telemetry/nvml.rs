//! One reading of every device through NVML. Opened once per process; a machine without NVML has no readings.

use std::ffi::OsStr;
use std::path::Path;

use lightos_protocol::control::DeviceReading;
use nvml_wrapper::Nvml;
use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use nvml_wrapper::error::NvmlError;

/// An open NVML library.
pub struct Telemetry {
    nvml: Nvml,
}

impl std::fmt::Debug for Telemetry {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Telemetry").finish_non_exhaustive()
    }
}

impl Telemetry {
    /// Opens `libnvidia-ml.so.1`, from `folder` where one is given.
    pub fn open(folder: Option<&Path>) -> Result<Self, NvmlError> {
        let path = folder.map(|folder| folder.join("libnvidia-ml.so.1"));
        let mut builder = Nvml::builder();
        if let Some(path) = &path {
            builder.lib_path(path.as_os_str());
        } else {
            builder.lib_path(OsStr::new("libnvidia-ml.so.1"));
        }
        Ok(Self { nvml: builder.init()? })
    }

    /// A reading of each device. A device that cannot be opened is left out.
    pub fn read(&self) -> Vec<DeviceReading> {
        let count = self.nvml.device_count().unwrap_or(0);
        (0..count).filter_map(|index| self.read_one(index).ok()).collect()
    }

    fn read_one(&self, index: u32) -> Result<DeviceReading, NvmlError> {
        let device = self.nvml.device_by_index(index)?;
        let memory = device.memory_info().ok();
        Ok(DeviceReading {
            index,
            name: device.name()?,
            temperature_c: device.temperature(TemperatureSensor::Gpu).ok(),
            power_mw: device.power_usage().ok(),
            power_limit_mw: device.enforced_power_limit().ok(),
            utilization_percent: device.utilization_rates().ok().map(|rates| rates.gpu),
            memory_used_bytes: memory.as_ref().map(|memory| memory.used),
            memory_total_bytes: memory.map(|memory| memory.total),
        })
    }
}
