//! Device queries.

use std::ffi::{c_char, c_int};

use lightos_softgpu_engine::profile::{Machine, Profile, pci_bus};
use lightos_softgpu_engine::state::{ProcessUse, State};

use super::abi::{Bar1Memory, FieldValue, Memory, MemoryV2, PciInfo, ProcessInfo, Temperature, Utilization};
use super::system::uuid;
use crate::edge::{self, Error, entries, ordinal_of, put, put_text};
use crate::plant;

/// `nvmlClockType_t`.
const CLOCK_GRAPHICS: u32 = 0;
const CLOCK_SM: u32 = 1;
const CLOCK_MEM: u32 = 2;
const CLOCK_VIDEO: u32 = 3;
/// Clock event reasons: idle, application clocks, software power cap.
const REASON_IDLE: u64 = 1;
const SUPPORTED_REASONS: u64 = 0x1ff;
/// `NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION` and the two power fields, and the types of their values.
const FIELD_ENERGY: u32 = 83;
const FIELD_POWER_AVERAGE: u32 = 185;
const FIELD_POWER_INSTANT: u32 = 186;
const TYPE_UNSIGNED_INT: u32 = 1;
const TYPE_UNSIGNED_LONG_LONG: u32 = 3;
/// An instance identifier that means "no MIG instance".
const NO_INSTANCE: u32 = u32::MAX;

fn profile() -> &'static Profile {
    Machine::get().profile
}

fn used(ordinal: usize) -> Memory {
    let total = Machine::get().memory_bytes;
    let used = State::get().map_or(0, |state| state.used_bytes(ordinal)).min(total);
    Memory { total, free: total - used, used }
}

/// Highest clock of a domain, MHz.
fn max_clock(kind: u32) -> edge::Result<u32> {
    match kind {
        CLOCK_GRAPHICS | CLOCK_SM => Ok(profile().sm_clock_mhz),
        CLOCK_MEM => Ok(profile().memory_clock_mhz),
        CLOCK_VIDEO => Ok(profile().sm_clock_mhz * 9 / 10),
        _ => Err(Error::InvalidArgument),
    }
}

/// Clock of a domain now, MHz. The memory clock is fixed, as on data centre parts.
fn clock(ordinal: usize, kind: u32) -> edge::Result<u32> {
    let sm = plant::read(ordinal).sm_clock_mhz;
    match kind {
        CLOCK_GRAPHICS | CLOCK_SM => Ok(sm),
        CLOCK_VIDEO => Ok(sm * 9 / 10),
        _ => max_clock(kind),
    }
}

fn text_array<const N: usize>(text: &str) -> [c_char; N] {
    let mut out = [0; N];
    for (to, byte) in out[..N - 1].iter_mut().zip(text.bytes()) {
        *to = byte as c_char;
    }
    out
}

fn pci_info(ordinal: usize) -> PciInfo {
    let bus = pci_bus(ordinal);
    PciInfo {
        bus_id_legacy: text_array(&format!("0000:{bus:02X}:00.0")),
        domain: 0,
        bus,
        device: 0,
        pci_device_id: profile().pci_device_id,
        pci_subsystem_id: 0x16c1_10de,
        bus_id: text_array(&format!("00000000:{bus:02X}:00.0")),
    }
}

/// # Safety
/// `count` is null or valid; `list` is null or holds `*count` entries.
unsafe fn processes(ordinal: usize, count: *mut u32, list: *mut ProcessInfo) -> edge::Result {
    if count.is_null() {
        return Err(Error::InvalidArgument);
    }
    let found: Vec<ProcessUse> = State::get().map_or(Vec::new(), |state| state.processes(ordinal));
    // SAFETY: not null, and the list has the room that the caller stated.
    unsafe {
        let room = count.read_unaligned() as usize;
        count.write_unaligned(found.len() as u32);
        if room < found.len() {
            return Err(Error::InsufficientSize);
        }
        if list.is_null() && !found.is_empty() {
            return Err(Error::InvalidArgument);
        }
        for (i, process) in found.iter().enumerate() {
            list.add(i).write_unaligned(ProcessInfo {
                pid: process.pid,
                used_bytes: process.bytes,
                gpu_instance: NO_INSTANCE,
                compute_instance: NO_INSTANCE,
            });
        }
    }
    Ok(())
}

fn reasons(ordinal: usize) -> u64 {
    if plant::read(ordinal).utilisation > 0.0 { 0 } else { REASON_IDLE }
}

/// Temperature thresholds in Celsius: shutdown, slowdown, memory, GPU maximum.
fn threshold(kind: u32) -> edge::Result<u32> {
    match kind {
        0 => Ok(92),
        1 => Ok(89),
        2 => Ok(95),
        3 => Ok(87),
        _ => Err(Error::NotSupported),
    }
}

fn field(ordinal: usize, value: &mut FieldValue) {
    let (kind, word) = match value.field {
        FIELD_ENERGY => (TYPE_UNSIGNED_LONG_LONG, plant::energy_mj(ordinal)),
        FIELD_POWER_AVERAGE | FIELD_POWER_INSTANT => {
            (TYPE_UNSIGNED_INT, plant::read(ordinal).power_mw.into())
        }
        _ => return value.result = Error::NotSupported as u32,
    };
    (value.value_type, value.value, value.result) = (kind, word, 0);
}

entries! {
    call nvmlDeviceGetName(device: usize, to: *mut c_char, room: u32) {
        ordinal_of(device)?;
        put_text(to, room, profile().name)
    }
    call nvmlDeviceGetUUID(device: usize, to: *mut c_char, room: u32) { put_text(to, room, &uuid(ordinal_of(device)?)) }
    call nvmlDeviceGetSerial(device: usize, to: *mut c_char, room: u32) {
        put_text(to, room, &format!("{:013}", 1_650_000_000_000u64 + ordinal_of(device)? as u64))
    }
    call nvmlDeviceGetIndex(device: usize, index: *mut u32) { put(index, ordinal_of(device)? as u32) }
    call nvmlDeviceGetMinorNumber(device: usize, minor: *mut u32) { put(minor, ordinal_of(device)? as u32) }
    call nvmlDeviceGetBrand(device: usize, brand: *mut u32) {
        ordinal_of(device)?;
        // NVML_BRAND_NVIDIA.
        put(brand, 14)
    }
    call nvmlDeviceGetArchitecture(device: usize, architecture: *mut u32) {
        ordinal_of(device)?;
        put(architecture, match profile().compute_capability.0 { 8 => 7, 9 => 9, _ => 10 })
    }
    call nvmlDeviceGetCudaComputeCapability(device: usize, major: *mut c_int, minor: *mut c_int) {
        ordinal_of(device)?;
        let (ma, mi) = profile().compute_capability;
        put(major, ma as c_int)?;
        put(minor, mi as c_int)
    }
    call nvmlDeviceGetPciInfo(device: usize, info: *mut PciInfo) { put(info, pci_info(ordinal_of(device)?)) }
    call nvmlDeviceGetPciInfo_v2(device: usize, info: *mut PciInfo) { put(info, pci_info(ordinal_of(device)?)) }
    call nvmlDeviceGetPciInfo_v3(device: usize, info: *mut PciInfo) { put(info, pci_info(ordinal_of(device)?)) }
    call nvmlDeviceGetNumGpuCores(device: usize, cores: *mut u32) {
        ordinal_of(device)?;
        let per_sm = if profile().compute_capability == (8, 0) { 64 } else { 128 };
        put(cores, profile().sm_count * per_sm)
    }
    call nvmlDeviceGetMemoryBusWidth(device: usize, bits: *mut u32) {
        let ordinal = ordinal_of(device)?;
        put(bits, profile().attribute(37, ordinal).unwrap_or(0) as u32)
    }
    call nvmlDeviceGetMemoryInfo(device: usize, memory: *mut Memory) { put(memory, used(ordinal_of(device)?)) }
    call nvmlDeviceGetMemoryInfo_v2(device: usize, memory: *mut MemoryV2) {
        let Memory { total, free, used } = used(ordinal_of(device)?);
        if memory.is_null() {
            return Err(Error::InvalidArgument);
        }
        let version = (&raw const (*memory).version).read_unaligned();
        if version != size_of::<MemoryV2>() as u32 | 2 << 24 {
            return Err(Error::VersionMismatch);
        }
        put(memory, MemoryV2 { version, total, reserved: 0, free, used })
    }
    call nvmlDeviceGetBAR1MemoryInfo(device: usize, memory: *mut Bar1Memory) {
        ordinal_of(device)?;
        put(memory, Bar1Memory { total: 128 << 30, free: 128 << 30, used: 0 })
    }
    call nvmlDeviceGetComputeRunningProcesses_v2(device: usize, count: *mut u32, list: *mut ProcessInfo) {
        processes(ordinal_of(device)?, count, list)
    }
    call nvmlDeviceGetComputeRunningProcesses_v3(device: usize, count: *mut u32, list: *mut ProcessInfo) {
        processes(ordinal_of(device)?, count, list)
    }
    call nvmlDeviceGetGraphicsRunningProcesses_v3(device: usize, count: *mut u32, _list: *mut ProcessInfo) {
        ordinal_of(device)?;
        put(count, 0)
    }
    call nvmlDeviceGetMPSComputeRunningProcesses_v3(device: usize, count: *mut u32, _list: *mut ProcessInfo) {
        ordinal_of(device)?;
        put(count, 0)
    }
    call nvmlDeviceGetUtilizationRates(device: usize, rates: *mut Utilization) {
        let gpu = (plant::read(ordinal_of(device)?).utilisation * 100.0).round() as u32;
        // The machine has no memory bus; the share of time with memory traffic is taken as half the busy time.
        put(rates, Utilization { gpu, memory: gpu / 2 })
    }
    call nvmlDeviceGetTemperature(device: usize, sensor: u32, degrees: *mut u32) {
        let ordinal = ordinal_of(device)?;
        if sensor != 0 { Err(Error::InvalidArgument) } else { put(degrees, plant::read(ordinal).temperature_c as u32) }
    }
    call nvmlDeviceGetTemperatureV(device: usize, reading: *mut Temperature) {
        let ordinal = ordinal_of(device)?;
        if reading.is_null() {
            return Err(Error::InvalidArgument);
        }
        let mut held = reading.read_unaligned();
        if held.version != size_of::<Temperature>() as u32 | 1 << 24 {
            return Err(Error::VersionMismatch);
        }
        if held.sensor != 0 {
            return Err(Error::InvalidArgument);
        }
        held.degrees = plant::read(ordinal).temperature_c as i32;
        put(reading, held)
    }
    call nvmlDeviceGetTemperatureThreshold(device: usize, kind: u32, degrees: *mut u32) {
        ordinal_of(device)?;
        put(degrees, threshold(kind)?)
    }
    call nvmlDeviceGetPowerUsage(device: usize, mw: *mut u32) { put(mw, plant::read(ordinal_of(device)?).power_mw) }
    call nvmlDeviceGetTotalEnergyConsumption(device: usize, mj: *mut u64) {
        put(mj, plant::energy_mj(ordinal_of(device)?))
    }
    call nvmlDeviceGetPowerManagementMode(device: usize, mode: *mut u32) {
        ordinal_of(device)?;
        put(mode, 1)
    }
    call nvmlDeviceGetPowerManagementLimit(device: usize, mw: *mut u32) {
        ordinal_of(device)?;
        put(mw, profile().power_limit_mw.1)
    }
    call nvmlDeviceGetPowerManagementDefaultLimit(device: usize, mw: *mut u32) {
        ordinal_of(device)?;
        put(mw, profile().power_limit_mw.1)
    }
    call nvmlDeviceGetEnforcedPowerLimit(device: usize, mw: *mut u32) {
        ordinal_of(device)?;
        put(mw, profile().power_limit_mw.1)
    }
    call nvmlDeviceGetPowerManagementLimitConstraints(device: usize, least: *mut u32, most: *mut u32) {
        ordinal_of(device)?;
        put(least, profile().power_limit_mw.0)?;
        put(most, profile().power_limit_mw.2)
    }
    call nvmlDeviceGetClockInfo(device: usize, kind: u32, mhz: *mut u32) { put(mhz, clock(ordinal_of(device)?, kind)?) }
    call nvmlDeviceGetMaxClockInfo(device: usize, kind: u32, mhz: *mut u32) {
        ordinal_of(device)?;
        put(mhz, max_clock(kind)?)
    }
    call nvmlDeviceGetClock(device: usize, kind: u32, which: u32, mhz: *mut u32) {
        let ordinal = ordinal_of(device)?;
        // Current, application target, application default, highest boost.
        put(mhz, match which { 0 => clock(ordinal, kind)?, 1..=3 => max_clock(kind)?, _ => return Err(Error::InvalidArgument) })
    }
    call nvmlDeviceGetCurrentClocksThrottleReasons(device: usize, mask: *mut u64) {
        put(mask, reasons(ordinal_of(device)?))
    }
    call nvmlDeviceGetCurrentClocksEventReasons(device: usize, mask: *mut u64) { put(mask, reasons(ordinal_of(device)?)) }
    call nvmlDeviceGetSupportedClocksThrottleReasons(device: usize, mask: *mut u64) {
        ordinal_of(device)?;
        put(mask, SUPPORTED_REASONS)
    }
    call nvmlDeviceGetSupportedClocksEventReasons(device: usize, mask: *mut u64) {
        ordinal_of(device)?;
        put(mask, SUPPORTED_REASONS)
    }
    call nvmlDeviceGetPerformanceState(device: usize, state: *mut u32) {
        ordinal_of(device)?;
        put(state, 0)
    }
    call nvmlDeviceGetComputeMode(device: usize, mode: *mut u32) {
        ordinal_of(device)?;
        put(mode, 0)
    }
    call nvmlDeviceGetPersistenceMode(device: usize, mode: *mut u32) {
        ordinal_of(device)?;
        put(mode, 1)
    }
    call nvmlDeviceGetEccMode(device: usize, current: *mut u32, pending: *mut u32) {
        ordinal_of(device)?;
        put(current, 1)?;
        put(pending, 1)
    }
    call nvmlDeviceGetMigMode(device: usize, current: *mut u32, pending: *mut u32) {
        ordinal_of(device)?;
        put(current, 0)?;
        put(pending, 0)
    }
    call nvmlDeviceIsMigDeviceHandle(device: usize, is_mig: *mut u32) {
        ordinal_of(device)?;
        put(is_mig, 0)
    }
    call nvmlDeviceGetFieldValues(device: usize, count: c_int, values: *mut FieldValue) {
        let ordinal = ordinal_of(device)?;
        if values.is_null() || count <= 0 {
            return Err(Error::InvalidArgument);
        }
        for i in 0..count as usize {
            let mut held = values.add(i).read_unaligned();
            field(ordinal, &mut held);
            values.add(i).write_unaligned(held);
        }
        Ok(())
    }
}
