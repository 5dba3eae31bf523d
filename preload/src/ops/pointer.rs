//! Pointer attributes: what the local driver says about the shared memory, corrected to what the program allocated.
//!
//! Device memory is mapped here by cuMemMap and host memory by cuMemHostRegister, in slabs; natively the program would have its own
//! allocation. So range, context, identity and kind are answered from the table of live allocations, and the rest by the local
//! driver. Globals are unknown to the local driver.

use std::ffi::c_void;

use lightos_protocol::arena::{Region, classify};

use super::memory::LIVE;
use super::memory::slabs::{DEVICE, READ_WRITE};
use crate::alloc::live::{Allocation, Kind};
use crate::edge::{In, Out};
use crate::outcome::{Outcome, Reason};
use crate::real;
use crate::result::CuResult;

/// `CUpointer_attribute`, those answered here.
mod attribute {
    pub const CONTEXT: u32 = 1;
    pub const MEMORY_TYPE: u32 = 2;
    pub const DEVICE_POINTER: u32 = 3;
    pub const HOST_POINTER: u32 = 4;
    pub const SYNC_MEMOPS: u32 = 6;
    pub const BUFFER_ID: u32 = 7;
    pub const IS_MANAGED: u32 = 8;
    pub const DEVICE_ORDINAL: u32 = 9;
    pub const IS_LEGACY_CUDA_IPC_CAPABLE: u32 = 10;
    pub const RANGE_START_ADDR: u32 = 11;
    pub const RANGE_SIZE: u32 = 12;
    pub const MAPPED: u32 = 13;
    pub const ALLOWED_HANDLE_TYPES: u32 = 14;
    pub const ACCESS_FLAGS: u32 = 16;
    pub const MEMPOOL_HANDLE: u32 = 17;
}

const MEMORY_TYPE_HOST: u32 = 1;
const MEMORY_TYPE_DEVICE: u32 = 2;

/// The value of an attribute, by the size that the driver documents for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value {
    Bool(bool),
    U32(u32),
    U64(u64),
}

impl Value {
    fn put(self, out: &Out<c_void>) {
        match self {
            Self::Bool(value) => out.cast::<u8>().put(value.into()),
            Self::U32(value) => out.cast::<u32>().put(value),
            Self::U64(value) => out.cast::<u64>().put(value),
        }
    }
}

/// What we know better than the local driver: `Ok(None)` leaves the attribute to it.
fn known(allocation: &Allocation, attribute: u32, address: u64) -> Result<Option<Value>, CuResult> {
    let is_device = allocation.kind.is_device();
    let is_managed = allocation.kind == Kind::Managed;
    let is_host = !is_device || matches!(allocation.kind, Kind::Mapping { host: true, .. });
    let is_mapping = matches!(allocation.kind, Kind::Mapping { .. });
    Ok(Some(match attribute {
        attribute::CONTEXT if is_mapping => return Ok(None),
        // Memory of a pool belongs to the device.
        attribute::CONTEXT if matches!(allocation.kind, Kind::Pooled { .. }) => Value::U64(0),
        attribute::CONTEXT => Value::U64(current_context()?),
        attribute::MEMORY_TYPE if !is_host || is_managed => Value::U32(MEMORY_TYPE_DEVICE),
        attribute::MEMORY_TYPE => Value::U32(MEMORY_TYPE_HOST),
        // The device does not reach it, however the local driver sees it.
        attribute::DEVICE_POINTER if matches!(allocation.kind, Kind::Staged { .. }) => {
            return Err(CuResult::INVALID_VALUE);
        }
        attribute::DEVICE_POINTER => Value::U64(address),
        attribute::HOST_POINTER if !is_host => return Err(CuResult::INVALID_VALUE),
        attribute::HOST_POINTER => Value::U64(address),
        attribute::BUFFER_ID => Value::U64(allocation.id),
        attribute::IS_MANAGED => Value::Bool(is_managed),
        attribute::IS_LEGACY_CUDA_IPC_CAPABLE => Value::Bool(allocation.kind == Kind::Device),
        attribute::DEVICE_ORDINAL => Value::U32(DEVICE as u32),
        attribute::RANGE_START_ADDR => Value::U64(allocation.base),
        attribute::RANGE_SIZE => Value::U64(allocation.bytes),
        attribute::MAPPED => Value::Bool(true),
        attribute::ALLOWED_HANDLE_TYPES if !is_mapping => Value::U64(0),
        attribute::ACCESS_FLAGS if !is_mapping => Value::U32(READ_WRITE),
        attribute::MEMPOOL_HANDLE => match allocation.kind {
            Kind::Pooled { pool } => Value::U64(pool),
            _ => Value::U64(0),
        },
        attribute::SYNC_MEMOPS if matches!(allocation.kind, Kind::Global { .. }) => Value::Bool(false),
        _ if matches!(allocation.kind, Kind::Global { .. }) => return Err(CuResult::INVALID_VALUE),
        _ => return Ok(None),
    }))
}

fn current_context() -> Result<u64, CuResult> {
    let mut context = 0;
    // SAFETY: a valid out-pointer.
    unsafe { real::cuCtxGetCurrent(&mut context) }.ok()?;
    Ok(context)
}

/// cuPointerGetAttribute.
pub fn get(out: Out<c_void>, attribute: u32, address: u64) -> Result<Outcome, CuResult> {
    let Some(allocation) = LIVE.find(address) else {
        return match classify(address) {
            Region::ClientHost => Ok(Outcome::PassThrough(Reason::LocalQuery)),
            // A slab is mapped there, but the program has freed its part of it.
            Region::Device | Region::SharedHost => Err(CuResult::INVALID_VALUE),
        };
    };
    if out.as_ptr().is_null() {
        return Err(CuResult::INVALID_VALUE);
    }
    match known(&allocation, attribute, address)? {
        Some(value) => {
            value.put(&out);
            Ok(Outcome::Done)
        }
        None => Ok(Outcome::PassThrough(Reason::LocalQuery)),
    }
}

/// cuPointerGetAttributes: an attribute that does not apply reads as zero instead of failing.
pub fn get_many(
    count: u32,
    attributes: In<u32>,
    data: In<*mut c_void>,
    address: u64,
) -> Result<Outcome, CuResult> {
    let found = LIVE.find(address);
    if found.is_none() && classify(address) == Region::ClientHost {
        return Ok(Outcome::PassThrough(Reason::LocalQuery));
    }
    // The local driver validates the list and fills in what only it knows.
    // SAFETY: the program's own arrays, valid for `count` elements by the function's contract.
    unsafe { real::cuPointerGetAttributes(count, attributes.as_ptr(), data.as_ptr(), address) }.ok()?;
    for index in 0..count as usize {
        let attribute = attributes.at(index)?;
        // SAFETY: the program made each element point to room for its attribute.
        let out = unsafe { Out::new(data.at(index)?) };
        let value = match &found {
            Some(allocation) => known(allocation, attribute, address).unwrap_or(Some(zero(attribute))),
            None => Some(zero(attribute)),
        };
        if let Some(value) = value {
            value.put(&out);
        }
    }
    Ok(Outcome::Done)
}

/// What cuPointerGetAttributes answers for memory that CUDA does not know.
fn zero(attribute: u32) -> Value {
    match attribute {
        attribute::SYNC_MEMOPS
        | attribute::IS_MANAGED
        | attribute::IS_LEGACY_CUDA_IPC_CAPABLE
        | attribute::MAPPED => Value::Bool(false),
        attribute::DEVICE_ORDINAL => Value::U32(-2_i32 as u32),
        attribute::MEMORY_TYPE | attribute::ACCESS_FLAGS => Value::U32(0),
        attribute::CONTEXT
        | attribute::DEVICE_POINTER
        | attribute::HOST_POINTER
        | attribute::BUFFER_ID
        | attribute::RANGE_START_ADDR
        | attribute::RANGE_SIZE
        | attribute::ALLOWED_HANDLE_TYPES
        | attribute::MEMPOOL_HANDLE => Value::U64(0),
        _ => Value::Bool(false),
    }
}

/// cuPointerSetAttribute. `SYNC_MEMOPS`, the only one that can be set, asks that copies wait; ordering in one ring already
/// gives it all that the program can observe.
pub fn set(value: In<u8>, attribute: u32, address: u64) -> Result<Outcome, CuResult> {
    if LIVE.find(address).is_none() {
        return match classify(address) {
            Region::ClientHost => Ok(Outcome::PassThrough(Reason::LocalQuery)),
            Region::Device | Region::SharedHost => Err(CuResult::INVALID_VALUE),
        };
    }
    value.get()?;
    if attribute != attribute::SYNC_MEMOPS {
        return Err(CuResult::INVALID_VALUE);
    }
    Ok(Outcome::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allocation(kind: Kind) -> Allocation {
        Allocation { base: 0x3000_0000_0200, bytes: 1000, kind, context: 0, id: 9 }
    }

    #[test]
    fn the_program_sees_its_own_allocation_and_not_the_slab() {
        let device = allocation(Kind::Device);
        let inside = device.base + 100;
        assert_eq!(known(&device, attribute::RANGE_START_ADDR, inside), Ok(Some(Value::U64(device.base))));
        assert_eq!(known(&device, attribute::RANGE_SIZE, inside), Ok(Some(Value::U64(1000))));
        assert_eq!(known(&device, attribute::DEVICE_POINTER, inside), Ok(Some(Value::U64(inside))));
        assert_eq!(known(&device, attribute::MEMORY_TYPE, inside), Ok(Some(Value::U32(MEMORY_TYPE_DEVICE))));
        assert_eq!(known(&device, attribute::HOST_POINTER, inside), Err(CuResult::INVALID_VALUE));
        let pooled = allocation(Kind::Pooled { pool: 77 });
        assert_eq!(known(&pooled, attribute::MEMPOOL_HANDLE, inside), Ok(Some(Value::U64(77))));
    }

    #[test]
    fn managed_memory_is_both_sides() {
        let managed = allocation(Kind::Managed);
        let at = managed.base;
        assert_eq!(known(&managed, attribute::IS_MANAGED, at), Ok(Some(Value::Bool(true))));
        assert_eq!(known(&managed, attribute::MEMORY_TYPE, at), Ok(Some(Value::U32(MEMORY_TYPE_DEVICE))));
        assert_eq!(known(&managed, attribute::HOST_POINTER, at), Ok(Some(Value::U64(at))));
    }

    #[test]
    fn host_memory_and_globals() {
        let host = allocation(Kind::Host { flags: 0 });
        assert_eq!(known(&host, attribute::HOST_POINTER, host.base), Ok(Some(Value::U64(host.base))));
        assert_eq!(known(&host, attribute::MEMORY_TYPE, host.base), Ok(Some(Value::U32(MEMORY_TYPE_HOST))));
        let staged = allocation(Kind::Staged { flags: 0 });
        assert_eq!(known(&staged, attribute::HOST_POINTER, staged.base), Ok(Some(Value::U64(staged.base))));
        assert_eq!(known(&staged, attribute::DEVICE_POINTER, staged.base), Err(CuResult::INVALID_VALUE));
        let global = allocation(Kind::Global { module: 1 });
        assert_eq!(known(&global, 1000, global.base), Err(CuResult::INVALID_VALUE), "never asked locally");
        assert_eq!(known(&global, attribute::SYNC_MEMOPS, global.base), Ok(Some(Value::Bool(false))));
    }
}
