//! Device queries.

use std::ffi::{c_char, c_int, c_void};

use lightos_softgpu_engine::profile::Machine;

use crate::abi::{DevProp, Text};
use crate::device::Device;
use crate::edge::{exports, put, put_some, text};
use crate::error::{Error, Result};
use crate::graph;

/// Writes text and a NUL into a caller's buffer, cut to its length.
///
/// # Safety
/// `to` is null or valid for `room` bytes.
unsafe fn put_text(to: *mut c_char, room: c_int, text: &str) -> Result {
    let room =
        usize::try_from(room).ok().filter(|room| *room > 0 && !to.is_null()).ok_or(Error::INVALID_VALUE)?;
    let length = text.len().min(room - 1);
    // SAFETY: `length + 1` bytes fit the caller's buffer.
    unsafe {
        std::ptr::copy_nonoverlapping(text.as_ptr(), to.cast(), length);
        to.add(length).write(0);
    }
    Ok(())
}

/// "domain:bus:device.function", the domain and the function optional, in hexadecimal.
fn by_pci_bus_id(id: &str) -> Option<Device> {
    let id = id.split_once('.').map_or(id, |(front, _)| front);
    let mut parts = id.rsplit(':').map(|part| u32::from_str_radix(part, 16));
    let (_device, bus) = (parts.next()?.ok()?, parts.next()?.ok()?);
    let domain = parts.next().transpose().ok()?.unwrap_or(0);
    Device::all().find(|device| {
        domain == 0 && lightos_softgpu_engine::profile::pci_bus(device.index()) == bus && _device == 0
    })
}

exports! { TABLE:
    entry cuDeviceGet: (device: *mut c_int, ordinal: c_int) { put(device, Device::new(ordinal)?.ordinal()) }
    entry cuDeviceGetCount: (count: *mut c_int) { put(count, Machine::get().device_count as c_int) }
    entry cuDeviceGetName: (name: *mut c_char, room: c_int, device: c_int) {
        put_text(name, room, Device::new(device)?.profile().name)
    }
    entry cuDeviceGetUuid: (uuid: *mut [u8; 16], device: c_int) { put(uuid, Device::new(device)?.uuid()) }
    entry cuDeviceGetUuid_v2: (uuid: *mut [u8; 16], device: c_int) { put(uuid, Device::new(device)?.uuid()) }
    entry cuDeviceTotalMem_v2: (bytes: *mut usize, device: c_int) {
        put(bytes, Device::new(device)?.total_bytes() as usize)
    }
    entry cuDeviceGetAttribute: (value: *mut c_int, attribute: c_int, device: c_int) {
        put(value, Device::new(device)?.attribute(attribute)?)
    }
    entry cuDeviceComputeCapability: (major: *mut c_int, minor: *mut c_int, device: c_int) {
        let (ma, mi) = Device::new(device)?.profile().compute_capability;
        put(major, ma as c_int)?;
        put(minor, mi as c_int)
    }
    entry cuDeviceGetProperties: (properties: *mut DevProp, device: c_int) {
        let device = Device::new(device)?;
        let get = |attribute| device.attribute(attribute);
        put(properties, DevProp {
            max_threads_per_block: get(1)?,
            max_threads_dim: [get(2)?, get(3)?, get(4)?],
            max_grid_size: [get(5)?, get(6)?, get(7)?],
            shared_mem_per_block: get(8)?,
            total_constant_memory: get(9)?,
            simd_width: get(10)?,
            mem_pitch: get(11)?,
            regs_per_block: get(12)?,
            clock_rate: get(13)?,
            texture_align: get(14)?,
        })
    }
    entry cuDeviceGetPCIBusId: (id: *mut c_char, room: c_int, device: c_int) {
        put_text(id, room, &Device::new(device)?.pci_bus_id())
    }
    entry cuDeviceGetByPCIBusId: (device: *mut c_int, id: Text) {
        let id = text(id)?.to_str().map_err(|_| Error::INVALID_VALUE)?;
        put(device, by_pci_bus_id(id).ok_or(Error::INVALID_DEVICE)?.ordinal())
    }
    entry cuDeviceGetLuid: (_luid: *mut c_char, _mask: *mut u32, device: c_int) {
        Device::new(device)?;
        // Locally unique identifiers exist on Windows only.
        Err(Error::NOT_SUPPORTED)
    }
    entry cuDeviceCanAccessPeer: (can: *mut c_int, device: c_int, peer: c_int) {
        let (device, peer) = (Device::new(device)?, Device::new(peer)?);
        put(can, c_int::from(device != peer))
    }
    entry cuDeviceGetP2PAttribute: (value: *mut c_int, attribute: c_int, from: c_int, to: c_int) {
        let (from, to) = (Device::new(from)?, Device::new(to)?);
        if from == to {
            return Err(Error::INVALID_DEVICE);
        }
        // Performance rank, access, native atomics, array access.
        put(value, match attribute { 1 => 0, 2 | 3 => 1, 4 => 0, _ => return Err(Error::INVALID_VALUE) })
    }
    entry cuDeviceGetExecAffinitySupport: (supported: *mut c_int, kind: u32, device: c_int) {
        Device::new(device)?;
        if kind != 0 { Err(Error::INVALID_VALUE) } else { put(supported, 0) }
    }
    entry cuDeviceGetTexture1DLinearMaxWidth: (width: *mut usize, _format: u32, channels: u32, device: c_int) {
        let most = Device::new(device)?.attribute(69)?;
        if !matches!(channels, 1 | 2 | 4) { Err(Error::INVALID_VALUE) } else { put(width, most as usize) }
    }
    entry cuDeviceGetGraphMemAttribute: (device: c_int, attribute: u32, value: *mut c_void) {
        // USED_MEM_CURRENT and _HIGH, RESERVED_MEM_CURRENT and _HIGH; the marks are not kept apart.
        let (used, reserved) = graph::memory::usage(Device::new(device)?);
        match attribute {
            0 | 1 => put(value.cast::<u64>(), used),
            2 | 3 => put(value.cast::<u64>(), reserved),
            _ => Err(Error::INVALID_VALUE),
        }
    }
    entry cuDeviceSetGraphMemAttribute: (device: c_int, attribute: u32, value: *mut c_void) {
        Device::new(device)?;
        // Only the two high-water marks can be set, and only to zero.
        let zero = !value.is_null() && value.cast::<u64>().read_unaligned() == 0;
        if matches!(attribute, 1 | 3) && zero { Ok(()) } else { Err(Error::INVALID_VALUE) }
    }
    entry cuDeviceGraphMemTrim: (device: c_int) { Device::new(device).map(drop) }
    entry cuFlushGPUDirectRDMAWrites: (_target: u32, _scope: u32) {
        put_some(std::ptr::null_mut::<u8>(), 0);
        Err(Error::NOT_SUPPORTED)
    }
}
