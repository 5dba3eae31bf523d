//! The CUDA driver as the executor sees it: result codes as values, start-up of the library, the primary context.
//!
//! cudarc resolves each symbol at its first call and panics when the library or the symbol is missing, so [`load`] must
//! have succeeded before anything else here is called, and the dispatch loop turns a panic into the tenant's error.

use std::ffi::CStr;
use std::fmt;
use std::path::PathBuf;

pub use cudarc::driver::sys;

/// A CUDA driver result other than success, by its number in `cuda.h` (`CUresult`).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CuError(pub u32);

impl CuError {
    pub const INVALID_VALUE: Self = Self(1);
    pub const OUT_OF_MEMORY: Self = Self(2);
    pub const NOT_INITIALIZED: Self = Self(3);
    pub const DEINITIALIZED: Self = Self(4);
    pub const STUB_LIBRARY: Self = Self(34);
    pub const NO_DEVICE: Self = Self(100);
    pub const INVALID_DEVICE: Self = Self(101);
    pub const INVALID_IMAGE: Self = Self(200);
    pub const INVALID_CONTEXT: Self = Self(201);
    pub const OPERATING_SYSTEM: Self = Self(304);
    pub const INVALID_HANDLE: Self = Self(400);
    pub const NOT_FOUND: Self = Self(500);
    pub const NOT_READY: Self = Self(600);
    pub const ILLEGAL_ADDRESS: Self = Self(700);
    pub const LAUNCH_FAILED: Self = Self(719);
    pub const NOT_SUPPORTED: Self = Self(801);
    pub const UNKNOWN: Self = Self(999);

    /// Whether the context is lost for good: every later call on it answers the same error (CUDA's "sticky" errors).
    pub fn is_sticky(self) -> bool {
        // ILLEGAL_ADDRESS, LAUNCH_TIMEOUT, ASSERT, HARDWARE_STACK_ERROR .. LAUNCH_FAILED, CONTEXT_IS_DESTROYED,
        // ECC_UNCORRECTABLE, NVLINK_UNCORRECTABLE, CONTAINED, EXTERNAL_DEVICE
        matches!(self.0, 700 | 702 | 709 | 710 | 714..=719 | 214 | 220 | 721 | 911)
    }

    /// The constant's name in `cuda.h`, from the driver; the number where the driver knows none or is not loaded.
    pub fn name(self) -> String {
        if is_loaded() {
            // SAFETY: CUresult is `repr(u32)`; only numbers that the driver itself returned reach CuError, apart from
            // the constants above, all of which are variants.
            let code = unsafe { std::mem::transmute::<u32, sys::CUresult>(self.0) };
            let mut text = std::ptr::null();
            // SAFETY: `text` is a valid out-pointer; on success it points at a static string inside the driver.
            if unsafe { sys::cuGetErrorName(code, &mut text) } == sys::CUresult::CUDA_SUCCESS
                && !text.is_null()
            {
                // SAFETY: as above, a NUL-terminated static string.
                return unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned();
            }
        }
        format!("CUDA error {}", self.0)
    }
}

impl fmt::Display for CuError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} ({})", self.name(), self.0)
    }
}

impl fmt::Debug for CuError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "CuError({})", self.0)
    }
}

impl std::error::Error for CuError {}

/// Turns a driver result into a `Result`.
pub fn check(code: sys::CUresult) -> Result<(), CuError> {
    match code as u32 {
        0 => Ok(()),
        code => Err(CuError(code)),
    }
}

/// Why the driver could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(
        "no CUDA driver: libcuda.so.1 was not found on the library path{}; install the NVIDIA driver, or use the software GPU with --softgpu",
        searched()
    )]
    NoLibrary,
    #[error("{call} failed: {error} (driver {})", library_path().unwrap_or_default().display())]
    Call { call: &'static str, error: CuError },
    #[error(
        "{} is the CUDA toolkit's stub, not a driver: take its folder off LD_LIBRARY_PATH and the loader's configuration",
        library_path().unwrap_or_default().display()
    )]
    Stub,
    #[error(
        "there is no CUDA device {ordinal}: the driver knows {count}; check `device` in the sidecar's configuration and its CUDA_VISIBLE_DEVICES"
    )]
    NoSuchDevice { ordinal: u32, count: u32 },
    #[error(
        "the device allows one process only (compute mode {mode}), and LightOS needs two: `nvidia-smi -c 0` allows them"
    )]
    Exclusive { mode: i32 },
    #[error(
        "the program's device is none of the {count} that the sidecar sees; check the sidecar's CUDA_VISIBLE_DEVICES"
    )]
    NoSuchUuid { count: u32 },
}

fn searched() -> String {
    match std::env::var("LD_LIBRARY_PATH") {
        Ok(path) if !path.is_empty() => format!(" (LD_LIBRARY_PATH={path})"),
        _ => String::new(),
    }
}

fn step(call: &'static str, code: sys::CUresult) -> Result<(), StartError> {
    check(code).map_err(|error| StartError::Call { call, error })
}

static LOADED: std::sync::OnceLock<bool> = std::sync::OnceLock::new();

/// Whether a driver library can be loaded in this process. cudarc tries `libcuda.so` before `libcuda.so.1`.
fn is_loaded() -> bool {
    // SAFETY: loading the driver runs its initialisers, which is what the executor is for.
    *LOADED.get_or_init(|| unsafe { sys::is_culib_present() })
}

/// Loads and initialises the driver.
pub fn load() -> Result<(), StartError> {
    if !is_loaded() {
        return Err(StartError::NoLibrary);
    }
    // SAFETY: cuInit takes no pointers.
    started(check(unsafe { sys::cuInit(0) }))
}

/// What `cuInit` said.
fn started(outcome: Result<(), CuError>) -> Result<(), StartError> {
    outcome.map_err(|error| match error {
        CuError::STUB_LIBRARY => StartError::Stub,
        error => StartError::Call { call: "cuInit", error },
    })
}

/// The file that the driver was loaded from, for messages.
pub fn library_path() -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let line = maps.lines().find(|line| line.contains("/libcuda.so"))?;
    line.split_whitespace().nth(5).map(PathBuf::from)
}

/// What the executor needs to know of its device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    pub ordinal: u32,
    pub name: String,
    pub uuid: [u8; 16],
    pub total_bytes: u64,
    /// As `cuDriverGetVersion` gives it: 1000 * major + 10 * minor.
    pub driver_version: u32,
}

impl Device {
    fn query(ordinal: u32) -> Result<Self, StartError> {
        let device = device_handle(ordinal)?;
        let mut driver_version = 0;
        let mut total_bytes = 0;
        let mut name = [0; 256];
        let mut uuid = sys::CUuuid { bytes: [0; 16] };
        // SAFETY: every out-pointer is valid for its call; `name`'s length is passed with it.
        unsafe {
            step("cuDriverGetVersion", sys::cuDriverGetVersion(&mut driver_version))?;
            step("cuDeviceTotalMem_v2", sys::cuDeviceTotalMem_v2(&mut total_bytes, device))?;
            step("cuDeviceGetName", sys::cuDeviceGetName(name.as_mut_ptr(), name.len() as i32 - 1, device))?;
            step("cuDeviceGetUuid_v2", sys::cuDeviceGetUuid_v2(&mut uuid, device))?;
        }
        // SAFETY: the last byte of `name` was never handed out, so it ends in NUL.
        let name = unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned();
        Ok(Self {
            ordinal,
            name,
            uuid: uuid.bytes.map(|byte| byte as u8),
            total_bytes: total_bytes as u64,
            driver_version: driver_version.max(0) as u32,
        })
    }
}

fn device_handle(ordinal: u32) -> Result<sys::CUdevice, StartError> {
    let mut device = 0;
    // SAFETY: a valid out-pointer.
    step("cuDeviceGet", unsafe { sys::cuDeviceGet(&mut device, ordinal as i32) })?;
    Ok(device)
}

fn compute_mode(device: sys::CUdevice) -> Result<i32, StartError> {
    let mut mode = 0;
    let attribute = sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_MODE;
    // SAFETY: a valid out-pointer.
    step("cuDeviceGetAttribute", unsafe { sys::cuDeviceGetAttribute(&mut mode, attribute, device) })?;
    Ok(mode)
}

/// The program keeps a context for its queries beside the executor's, so both must be allowed on the device.
fn check_compute_mode(mode: i32) -> Result<(), StartError> {
    const DEFAULT: i32 = sys::CUcomputemode::CU_COMPUTEMODE_DEFAULT as i32;
    if mode == DEFAULT { Ok(()) } else { Err(StartError::Exclusive { mode }) }
}

/// The retained primary context of one device. It stays for the life of the process.
#[derive(Debug, Clone, Copy)]
pub struct Context {
    raw: sys::CUcontext,
    device: sys::CUdevice,
}

// SAFETY: a CUcontext may be made current on any thread of its process; it is an opaque handle here.
unsafe impl Send for Context {}
// SAFETY: as above, no call through this type changes the context itself.
unsafe impl Sync for Context {}

impl Context {
    /// Retains the primary context of the device with `wanted` as its UUID (of device `ordinal` where that is all zeros) and makes
    /// it current on the calling thread.
    pub fn open(ordinal: u32, wanted: [u8; 16]) -> Result<(Self, Device), StartError> {
        let mut count = 0;
        // SAFETY: a valid out-pointer.
        step("cuDeviceGetCount", unsafe { sys::cuDeviceGetCount(&mut count) })?;
        let count = count.max(0) as u32;
        let device = if wanted == [0; 16] {
            if ordinal >= count {
                return Err(StartError::NoSuchDevice { ordinal, count });
            }
            Device::query(ordinal)?
        } else {
            let mut devices = (0..count).filter_map(|ordinal| Device::query(ordinal).ok());
            devices.find(|device| device.uuid == wanted).ok_or(StartError::NoSuchUuid { count })?
        };
        let raw_device = device_handle(device.ordinal)?;
        check_compute_mode(compute_mode(raw_device)?)?;
        let mut raw = std::ptr::null_mut();
        // SAFETY: a valid out-pointer.
        step("cuDevicePrimaryCtxRetain", unsafe { sys::cuDevicePrimaryCtxRetain(&mut raw, raw_device) })?;
        let context = Self { raw, device: raw_device };
        context.bind().map_err(|error| StartError::Call { call: "cuCtxSetCurrent", error })?;
        Ok((context, device))
    }

    /// Makes the context current on the calling thread. Each thread that calls the driver does it once.
    pub fn bind(&self) -> Result<(), CuError> {
        // SAFETY: `raw` was retained and is never released.
        check(unsafe { sys::cuCtxSetCurrent(self.raw) })
    }

    pub fn raw(&self) -> sys::CUcontext {
        self.raw
    }

    pub fn device(&self) -> sys::CUdevice {
        self.device
    }
}

/// Reserves exactly `[base, base + bytes)` of device address space.
///
/// The driver takes the address as a hint only, so a range elsewhere is given back and reported as an error.
pub fn reserve_exactly(base: u64, bytes: u64) -> Result<(), CuError> {
    let mut got = 0;
    // SAFETY: `got` is a valid out-pointer; the call maps nothing.
    check(unsafe { sys::cuMemAddressReserve(&mut got, bytes as usize, 0, base, 0) })?;
    if got != base {
        // SAFETY: `got` was reserved with this size just above and nothing is mapped in it.
        let _ = unsafe { sys::cuMemAddressFree(got, bytes as usize) };
        return Err(CuError::INVALID_VALUE);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stub_is_called_one() {
        assert!(started(Ok(())).is_ok());
        let message = started(Err(CuError(34))).unwrap_err().to_string();
        assert!(message.contains("stub") && message.contains("LD_LIBRARY_PATH"), "{message}");
    }

    #[test]
    fn a_device_for_one_process_is_refused_with_advice() {
        assert!(check_compute_mode(0).is_ok());
        let message = check_compute_mode(3).unwrap_err().to_string();
        assert!(message.contains("compute mode 3") && message.contains("nvidia-smi -c 0"), "{message}");
    }
}
