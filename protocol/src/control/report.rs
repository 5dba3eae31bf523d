//! What the daemon tells about a tenant: read from its session pages, written by `lightos run --report` as
//! JSON.

use serde::{Deserialize, Serialize};

use super::Mode;

/// One tenant's counters.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TenantReport {
    /// The tenant's number.
    pub tenant_id: u64,
    /// Process id of the client by SO_PEERCRED.
    pub pid: u32,
    /// Name of the client process.
    pub process_name: String,
    /// The class it was given.
    pub tenant_class: String,
    /// Where its calls are dispatched.
    pub mode: Mode,
    /// The share of time in which it may launch, in thousandths.
    pub duty_permille: u32,
    /// Where it stands.
    pub state: TenantState,
    /// Seconds since its handshake.
    pub age_seconds: f64,
    /// Calls by function; functions never called are left out.
    pub calls: Vec<CallCount>,
    /// Work that crossed the boundary.
    pub traffic: Traffic,
    /// Device memory.
    pub memory: MemoryUse,
    /// Every reason for a pass-through or refusal with its count; zeros are left out.
    pub reasons: Vec<(String, u64)>,
    /// `CUresult` that the session is stuck in, 0 for none.
    pub sticky_error: u32,
    /// How the executor ended, once it has.
    pub executor_exit: Option<ExecutorExit>,
}

/// Where a tenant stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TenantState {
    /// The executor starts.
    #[default]
    Starting,
    /// Calls are served.
    Running,
    /// The client has gone.
    Finished,
    /// The executor has gone, or the client broke the protocol.
    Failed,
}

/// Calls of one function by outcome.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallCount {
    /// Name of the driver function.
    pub function: String,
    /// Carried out by the executor, or answered from its state.
    pub forwarded: u64,
    /// Handed to the client's own driver.
    pub passed: u64,
    /// Failed with the error that native execution gives.
    pub failed: u64,
    /// Refused because it cannot be carried.
    pub refused: u64,
}

/// Work that crossed the boundary.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Kernel launches, graph nodes not counted.
    pub launches: u64,
    /// Graph launches.
    pub graph_launches: u64,
    /// Bytes copied from host to device.
    pub host_to_device_bytes: u64,
    /// Bytes copied from device to host.
    pub device_to_host_bytes: u64,
    /// Bytes copied from device to device.
    pub device_to_device_bytes: u64,
    /// Records that the executor has dispatched.
    pub dispatched: u64,
    /// Nanoseconds for which launches were held by policy, summed over the threads that waited.
    pub held_ns: u64,
}

/// Device memory of a tenant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryUse {
    /// Bytes allocated now.
    pub current_bytes: u64,
    /// Most bytes allocated at once.
    pub peak_bytes: u64,
}

/// How an executor ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExecutorExit {
    /// By itself, after its client.
    Clean,
    /// With an exit status other than 0.
    Status(i32),
    /// By a signal.
    Signal(i32),
    /// The client broke the protocol: the violation's text.
    Violation(String),
}

/// A device at one moment, as NVML gives it. A field that the device does not support is absent, never zero.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceReading {
    /// Index in NVML, which need not be the CUDA ordinal.
    pub index: u32,
    /// Product name.
    pub name: String,
    /// Temperature of the die in degrees Celsius.
    pub temperature_c: Option<u32>,
    /// Board power in milliwatts.
    pub power_mw: Option<u32>,
    /// The power limit in force, in milliwatts.
    pub power_limit_mw: Option<u32>,
    /// Share of the last sampling period in which a kernel ran, 0 to 100.
    pub utilization_percent: Option<u32>,
    /// Device memory in use, in bytes.
    pub memory_used_bytes: Option<u64>,
    /// Device memory, in bytes.
    pub memory_total_bytes: Option<u64>,
}
