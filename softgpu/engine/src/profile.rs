//! Which GPU the software device presents: names, identifiers, attributes and limits, as data.
//!
//! `SOFTGPU_PROFILE` picks the part (`h100`, `h200`, `a100`, `b200`; default `h100`), `SOFTGPU_DEVICES` the number of devices
//! (1 to 8, default 1), `SOFTGPU_MEMORY_MIB` replaces the part's memory size. The environment is read once per process.

mod hopper;

use std::sync::OnceLock;

/// The most devices a process can see.
pub const MAX_DEVICES: usize = 8;

/// The CUDA version that the driver face reports, as `cuDriverGetVersion` encodes it.
pub const CUDA_VERSION: i32 = 13000;

/// The kernel driver version string that NVML reports.
pub const DRIVER_VERSION: &str = "580.159.04";

/// One GPU part.
#[derive(Clone, Debug)]
pub struct Profile {
    /// The name in `SOFTGPU_PROFILE`.
    pub key: &'static str,
    /// What `cuDeviceGetName` and `nvmlDeviceGetName` answer.
    pub name: &'static str,
    /// Bytes, for `cuDeviceTotalMem` and NVML alike.
    pub memory_bytes: u64,
    pub compute_capability: (u32, u32),
    pub sm_count: u32,
    /// Highest SM clock in MHz.
    pub sm_clock_mhz: u32,
    /// Memory clock in MHz.
    pub memory_clock_mhz: u32,
    /// PCI device and vendor identifier as NVML packs it, for example 0x2330_10de.
    pub pci_device_id: u32,
    /// Board power limits in milliwatts: lowest, default and highest.
    pub power_limit_mw: (u32, u32, u32),
    /// Board power at idle in milliwatts.
    pub idle_power_mw: u32,
    /// Differences from the Hopper attribute table.
    overrides: &'static [(i32, i32)],
}

const PROFILES: &[Profile] = &[
    Profile {
        key: "h100",
        name: "NVIDIA H100 80GB HBM3",
        memory_bytes: 85_017_493_504,
        compute_capability: (9, 0),
        sm_count: 132,
        sm_clock_mhz: 1980,
        memory_clock_mhz: 2619,
        pci_device_id: 0x2330_10de,
        power_limit_mw: (200_000, 700_000, 700_000),
        idle_power_mw: 70_000,
        overrides: &[(37, 5120), (38, 52_428_800), (108, 32_768_000)],
    },
    Profile {
        key: "h200",
        name: "NVIDIA H200",
        memory_bytes: 150_109_880_320,
        compute_capability: (9, 0),
        sm_count: 132,
        sm_clock_mhz: 1980,
        memory_clock_mhz: 3201,
        pci_device_id: 0x2335_10de,
        power_limit_mw: (200_000, 700_000, 700_000),
        idle_power_mw: 75_000,
        overrides: &[],
    },
    Profile {
        key: "a100",
        name: "NVIDIA A100-SXM4-80GB",
        memory_bytes: 81153 << 20,
        compute_capability: (8, 0),
        sm_count: 108,
        sm_clock_mhz: 1410,
        memory_clock_mhz: 1593,
        pci_device_id: 0x20b2_10de,
        power_limit_mw: (100_000, 400_000, 400_000),
        idle_power_mw: 55_000,
        // Shared memory per SM and per block, no clusters, no tensor maps.
        overrides: &[
            (37, 5120),
            (38, 41_943_040),
            (81, 167_936),
            (97, 166_912),
            (108, 26_214_400),
            (120, 0),
            (127, 0),
        ],
    },
    Profile {
        key: "b200",
        name: "NVIDIA B200",
        memory_bytes: 182_642 << 20,
        compute_capability: (10, 0),
        sm_count: 148,
        sm_clock_mhz: 1965,
        memory_clock_mhz: 3996,
        pci_device_id: 0x2901_10de,
        power_limit_mw: (200_000, 1_000_000, 1_000_000),
        idle_power_mw: 140_000,
        overrides: &[(37, 7680), (38, 132_644_864), (108, 82_903_040)],
    },
];

impl Profile {
    /// The profile of that name, case-insensitive.
    pub fn named(key: &str) -> Option<&'static Profile> {
        PROFILES.iter().find(|profile| profile.key.eq_ignore_ascii_case(key))
    }

    /// `cuDeviceGetAttribute`: `None` where CUDA 13.0 has no such attribute.
    pub fn attribute(&self, attribute: i32, ordinal: usize) -> Option<i32> {
        let base = hopper::HOPPER.iter().find(|(id, _)| *id == attribute)?.1;
        let (major, minor) = self.compute_capability;
        Some(match attribute {
            13 => self.sm_clock_mhz as i32 * 1000,
            16 => self.sm_count as i32,
            33 => pci_bus(ordinal) as i32,
            34 => 0,
            36 => self.memory_clock_mhz as i32 * 1000,
            75 => major as i32,
            76 => minor as i32,
            // The device's kernels share host memory, but fabric handles and device memory over PCIe peers do not exist.
            110 | 116 | 124 | 128 => 0,
            119 => 1,
            139 => self.pci_device_id as i32,
            _ => self.overrides.iter().find(|(id, _)| *id == attribute).map_or(base, |(_, value)| *value),
        })
    }
}

/// The PCI bus number of a device; domain and device number are 0.
pub fn pci_bus(ordinal: usize) -> u32 {
    0x1b + ordinal as u32 * 0x10
}

/// The device's UUID: fixed per part and ordinal, so that both faces and every process agree.
pub fn uuid(profile: &Profile, ordinal: usize) -> [u8; 16] {
    let mut bytes = *b"\x50\xf7\x69\x70\x75\x00\x40\x00\x80\x00\x00\x00\x00\x00\x00\x00";
    bytes[8..12].copy_from_slice(&profile.pci_device_id.to_be_bytes());
    bytes[8] |= 0x80;
    bytes[15] = ordinal as u8;
    bytes
}

/// The machine as the environment describes it.
#[derive(Clone, Debug)]
pub struct Machine {
    pub profile: &'static Profile,
    pub device_count: usize,
    /// Bytes of memory of each device.
    pub memory_bytes: u64,
}

impl Machine {
    /// This process's machine. An unknown profile name or a count out of range falls back to the default.
    pub fn get() -> &'static Machine {
        static MACHINE: OnceLock<Machine> = OnceLock::new();
        MACHINE.get_or_init(|| {
            let var = |name| std::env::var(name).ok();
            Machine::from_settings(
                var("SOFTGPU_PROFILE").as_deref(),
                var("SOFTGPU_DEVICES").as_deref(),
                var("SOFTGPU_MEMORY_MIB").as_deref(),
            )
        })
    }

    fn from_settings(profile: Option<&str>, devices: Option<&str>, memory_mib: Option<&str>) -> Machine {
        let profile = profile.and_then(Profile::named).unwrap_or(&PROFILES[0]);
        let device_count =
            devices.and_then(|text| text.parse().ok()).filter(|n| *n <= MAX_DEVICES).unwrap_or(1);
        let memory_bytes = memory_mib
            .and_then(|text| text.parse::<u64>().ok())
            .filter(|mib| (1..1 << 24).contains(mib))
            .map_or(profile.memory_bytes, |mib| mib << 20);
        Machine { profile, device_count, memory_bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_pick_part_count_and_memory() {
        let machine = Machine::from_settings(Some("A100"), Some("2"), Some("64"));
        assert_eq!(machine.profile.name, "NVIDIA A100-SXM4-80GB");
        assert_eq!((machine.device_count, machine.memory_bytes), (2, 64 << 20));
        let fallback = Machine::from_settings(Some("riva128"), Some("99"), Some("-1"));
        assert_eq!((fallback.profile.key, fallback.device_count), ("h100", 1));
        assert_eq!(fallback.memory_bytes, fallback.profile.memory_bytes);
    }

    #[test]
    fn attributes_follow_the_part() {
        let (h100, a100) = (Profile::named("h100").unwrap(), Profile::named("a100").unwrap());
        assert_eq!((h100.attribute(75, 0), a100.attribute(75, 0)), (Some(9), Some(8)));
        assert_eq!((h100.attribute(16, 0), a100.attribute(16, 0)), (Some(132), Some(108)));
        assert_eq!((h100.attribute(1, 0), h100.attribute(102, 0)), (Some(1024), Some(1)));
        assert_eq!((h100.attribute(0, 0), h100.attribute(9999, 0)), (None, None));
    }

    #[test]
    fn uuids_differ_by_ordinal_and_part() {
        let (h100, h200) = (Profile::named("h100").unwrap(), Profile::named("h200").unwrap());
        assert_ne!(uuid(h100, 0), uuid(h100, 1));
        assert_ne!(uuid(h100, 0), uuid(h200, 0));
    }
}
