//! Functions and kernels: handles of code, their attributes, and how many blocks fit on an SM.
//!
//! A function belongs to a loaded module; a kernel belongs to a library and has one function per device. Both kinds of
//! handle are accepted wherever a function is asked for.

use std::ffi::CString;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use lightos_softgpu_engine::exec::KernelInfo;
use lightos_softgpu_engine::profile::MAX_DEVICES;

use crate::context;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::handle::Table;
use crate::library::Library;
use crate::module::Module;

/// Shared memory that every block may use without asking, in bytes.
const DEFAULT_SHARED_BYTES: i32 = 49152;
const MAX_DYNAMIC_SHARED: u32 = 8;
const CARVEOUT: u32 = 9;
const REQUIRED_CLUSTER: std::ops::RangeInclusive<u32> = 11..=13;
const NON_PORTABLE_CLUSTER: u32 = 14;
const CLUSTER_SCHEDULING: u32 = 15;

/// A kernel of a loaded module.
#[derive(Debug)]
pub struct Function {
    pub handle: u64,
    pub module: Arc<Module>,
    pub device: Device,
    pub info: KernelInfo,
    pub name: CString,
    /// The kernel whose function this is, 0 for functions of plain modules.
    pub kernel: u64,
    max_dynamic_shared: AtomicI32,
    carveout: AtomicI32,
    non_portable_cluster: AtomicI32,
    cluster_scheduling: AtomicI32,
}

/// A kernel of a library.
#[derive(Debug)]
pub struct Kernel {
    pub handle: u64,
    pub library: Arc<Library>,
    pub name: CString,
    pub info: KernelInfo,
    /// Handle by device; 0 where it was not used yet.
    pub functions: [AtomicU64; MAX_DEVICES],
}

pub static FUNCTIONS: Table<Function> = Table::new();
pub static KERNELS: Table<Kernel> = Table::new();

/// The function that a `CUfunction` or `CUkernel` names, for the current context's device.
pub fn find(handle: u64) -> Result<Arc<Function>> {
    if let Some(function) = FUNCTIONS.get(handle) {
        return Ok(function);
    }
    let kernel = KERNELS.get(handle).ok_or(Error::INVALID_HANDLE)?;
    kernel.function(context::current()?.device)
}

pub fn kernel(handle: u64) -> Result<Arc<Kernel>> {
    KERNELS.get(handle).ok_or(Error::INVALID_HANDLE)
}

impl Kernel {
    /// The kernel's function on a device; loads the library there if need be.
    pub fn function(&self, device: Device) -> Result<Arc<Function>> {
        let slot = &self.functions[device.index()];
        // The end of a primary context takes its device's functions along.
        if let Some(function) = FUNCTIONS.get(slot.load(Ordering::Acquire)) {
            return Ok(function);
        }
        let module = self.library.module(device)?;
        let handle = module.function_for(&self.info.name, self.handle)?;
        slot.store(handle, Ordering::Release);
        FUNCTIONS.get(handle).ok_or(Error::INVALID_HANDLE)
    }
}

impl Function {
    pub fn new(
        handle: u64,
        module: Arc<Module>,
        device: Device,
        info: KernelInfo,
        kernel: u64,
    ) -> Result<Function> {
        let name = CString::new(info.name.as_str()).map_err(|_| Error::INVALID_IMAGE)?;
        let max_dynamic = (DEFAULT_SHARED_BYTES - info.static_shared_bytes as i32).max(0);
        Ok(Function {
            handle,
            module,
            device,
            info,
            name,
            kernel,
            max_dynamic_shared: AtomicI32::new(max_dynamic),
            carveout: AtomicI32::new(-1),
            non_portable_cluster: AtomicI32::new(0),
            cluster_scheduling: AtomicI32::new(0),
        })
    }

    /// `cuFuncGetAttribute`.
    pub fn attribute(&self, attribute: u32) -> Result<i32> {
        let info = &self.info;
        let (major, minor) = self.device.profile().compute_capability;
        Ok(match attribute {
            0 => info.max_threads_per_block as i32,
            1 => info.static_shared_bytes as i32,
            2 => info.const_bytes as i32,
            3 => info.local_bytes as i32,
            4 => info.registers as i32,
            5 => info.target_sm as i32,
            6 => (major * 10 + minor) as i32,
            7 | 10 | 16 => 0,
            MAX_DYNAMIC_SHARED => self.max_dynamic_shared.load(Ordering::Relaxed),
            CARVEOUT => self.carveout.load(Ordering::Relaxed),
            NON_PORTABLE_CLUSTER => self.non_portable_cluster.load(Ordering::Relaxed),
            CLUSTER_SCHEDULING => self.cluster_scheduling.load(Ordering::Relaxed),
            attribute if REQUIRED_CLUSTER.contains(&attribute) => 0,
            _ => return Err(Error::INVALID_VALUE),
        })
    }

    /// `cuFuncSetAttribute`.
    pub fn set_attribute(&self, attribute: u32, value: i32) -> Result {
        let (slot, valid) = match attribute {
            MAX_DYNAMIC_SHARED => {
                let most = self.device.attribute(97)? - self.info.static_shared_bytes as i32;
                (&self.max_dynamic_shared, (0..=most).contains(&value))
            }
            CARVEOUT => (&self.carveout, (-1..=100).contains(&value)),
            NON_PORTABLE_CLUSTER => (&self.non_portable_cluster, matches!(value, 0 | 1)),
            CLUSTER_SCHEDULING => (&self.cluster_scheduling, (0..=2).contains(&value)),
            attribute if REQUIRED_CLUSTER.contains(&attribute) => return Err(Error::NOT_SUPPORTED),
            _ => return Err(Error::INVALID_VALUE),
        };
        if !valid {
            return Err(Error::INVALID_VALUE);
        }
        slot.store(value, Ordering::Relaxed);
        Ok(())
    }

    /// Dynamic shared memory that a launch may ask for, in bytes.
    pub fn dynamic_shared_limit(&self) -> u32 {
        self.max_dynamic_shared.load(Ordering::Relaxed) as u32
    }

    /// Offset and size of a parameter, in bytes.
    pub fn param(&self, index: usize) -> Result<(usize, usize)> {
        param(&self.info, index)
    }

    /// Blocks of `threads` threads and `dynamic_bytes` of dynamic shared memory that one SM holds.
    pub fn blocks_per_sm(&self, threads: u32, dynamic_bytes: u64) -> Result<u32> {
        if threads == 0 || threads > self.info.max_threads_per_block {
            return if threads == 0 { Err(Error::INVALID_VALUE) } else { Ok(0) };
        }
        let attribute = |id| self.device.attribute(id).map(|value| value as u64);
        let warps = u64::from(threads.div_ceil(32));
        let by_threads = attribute(39)? / 32 / warps;
        // Registers are handed out to warps in steps of 256.
        let registers = (u64::from(self.info.registers.max(1)) * 32).next_multiple_of(256) * warps;
        let by_registers = attribute(82)? / registers;
        let shared = u64::from(self.info.static_shared_bytes) + dynamic_bytes;
        if shared > attribute(97)? {
            return Ok(0);
        }
        let by_shared = attribute(81)? / (shared + attribute(111)?).next_multiple_of(128);
        Ok(by_threads.min(by_registers).min(by_shared).min(attribute(106)?) as u32)
    }

    /// Dynamic shared memory in bytes that leaves room for `blocks` blocks per SM.
    pub fn dynamic_shared_for(&self, blocks: u32, threads: u32) -> Result<usize> {
        let attribute = |id| self.device.attribute(id).map(|value| value as u64);
        if blocks == 0 || self.blocks_per_sm(threads, 0)? < blocks {
            return Err(Error::INVALID_VALUE);
        }
        let each = attribute(81)? / u64::from(blocks) / 128 * 128;
        let used = u64::from(self.info.static_shared_bytes) + attribute(111)?;
        let most = attribute(97)? - u64::from(self.info.static_shared_bytes);
        Ok(each.saturating_sub(used).min(most) as usize)
    }
}

/// Offset and size of a parameter of a kernel, in bytes.
pub fn param(info: &KernelInfo, index: usize) -> Result<(usize, usize)> {
    let param = info.params.get(index).ok_or(Error::INVALID_VALUE)?;
    Ok((param.offset, param.size))
}
