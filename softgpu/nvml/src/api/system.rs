//! The library's life, versions and error texts.

use std::ffi::{c_char, c_int};

use lightos_softgpu_engine::profile::{CUDA_VERSION, DRIVER_VERSION, Machine, pci_bus};

use crate::edge::{self, Error, entries, handle_of, put, put_text, text};
use crate::plant;

fn start() -> edge::Result {
    edge::init()?;
    // The first reading starts the utilisation window.
    for ordinal in 0..Machine::get().device_count {
        let _ = plant::read(ordinal);
    }
    Ok(())
}

fn by_bus_id(id: &str) -> Option<usize> {
    let front = id.split_once('.').map_or(id, |(front, _)| front);
    let mut parts = front.rsplit(':').map(|part| u32::from_str_radix(part, 16).ok());
    let (device, bus) = (parts.next()??, parts.next()??);
    let found = (0..Machine::get().device_count).find(|ordinal| pci_bus(*ordinal) == bus);
    found.filter(|_| device == 0)
}

/// The text form of a device's UUID.
pub(super) fn uuid(ordinal: usize) -> String {
    let bytes = lightos_softgpu_engine::profile::uuid(Machine::get().profile, ordinal);
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("GPU-{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// A static NUL-terminated text for a return code.
#[unsafe(no_mangle)]
#[allow(non_snake_case)]
pub extern "C" fn nvmlErrorString(code: u32) -> *const c_char {
    let text = match code {
        0 => c"Success",
        1 => c"Uninitialized",
        2 => c"Invalid Argument",
        3 => c"Not Supported",
        4 => c"Insufficient Permissions",
        6 => c"Not Found",
        7 => c"Insufficient Size",
        25 => c"Argument version mismatch",
        _ => c"Unknown Error",
    };
    text.as_ptr()
}

entries! {
    call_early nvmlInit() { start() }
    call_early nvmlInit_v2() { start() }
    call_early nvmlInitWithFlags(_flags: u32) { start() }
    call_early nvmlShutdown() { edge::shutdown() }
    call nvmlSystemGetDriverVersion(to: *mut c_char, room: u32) { put_text(to, room, DRIVER_VERSION) }
    call nvmlSystemGetNVMLVersion(to: *mut c_char, room: u32) {
        put_text(to, room, &format!("13.{DRIVER_VERSION}"))
    }
    call_early nvmlSystemGetCudaDriverVersion(version: *mut c_int) { put(version, CUDA_VERSION) }
    call_early nvmlSystemGetCudaDriverVersion_v2(version: *mut c_int) { put(version, CUDA_VERSION) }
    call nvmlSystemGetProcessName(pid: u32, to: *mut c_char, room: u32) {
        let name = std::fs::read_link(format!("/proc/{pid}/exe")).map_err(|_| Error::NotFound)?;
        put_text(to, room, &name.to_string_lossy())
    }
    call nvmlDeviceGetCount(count: *mut u32) { put(count, Machine::get().device_count as u32) }
    call nvmlDeviceGetCount_v2(count: *mut u32) { put(count, Machine::get().device_count as u32) }
    call nvmlDeviceGetHandleByIndex(index: u32, handle: *mut usize) { by_index(index, handle) }
    call nvmlDeviceGetHandleByIndex_v2(index: u32, handle: *mut usize) { by_index(index, handle) }
    call nvmlDeviceGetHandleByUUID(id: *const c_char, handle: *mut usize) {
        let id = text(id)?;
        let found = (0..Machine::get().device_count).find(|ordinal| uuid(*ordinal) == id);
        put(handle, handle_of(found.ok_or(Error::NotFound)?))
    }
    call nvmlDeviceGetHandleByPciBusId(id: *const c_char, handle: *mut usize) {
        put(handle, handle_of(by_bus_id(text(id)?).ok_or(Error::NotFound)?))
    }
    call nvmlDeviceGetHandleByPciBusId_v2(id: *const c_char, handle: *mut usize) {
        put(handle, handle_of(by_bus_id(text(id)?).ok_or(Error::NotFound)?))
    }
}

/// # Safety
/// `handle` is null or valid for writing.
unsafe fn by_index(index: u32, handle: *mut usize) -> edge::Result {
    if index as usize >= Machine::get().device_count {
        return Err(Error::InvalidArgument);
    }
    // SAFETY: this function's contract.
    unsafe { put(handle, handle_of(index as usize)) }
}
