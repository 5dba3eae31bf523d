//! Stream-ordered allocation and memory pools.

use std::ffi::{c_int, c_void};
use std::sync::atomic::Ordering;

use crate::abi::{AccessDesc, MemLocation, PoolProps};
use crate::device::Device;
use crate::edge::{array, exports, get, put};
use crate::error::{Error, Result};
use crate::graph::memory::Allocation;
use crate::space::Place;
use crate::work::Work;
use crate::{capture, context, memory, params, stream};

/// # Safety
/// `out` is null or valid for writing.
unsafe fn allocate(out: *mut u64, bytes: usize, pool: Option<u64>, stream: u64) -> Result {
    context::healthy()?;
    let stream = stream::find(stream)?;
    if capture::is_capturing(&stream)? {
        let pool = memory::pool_of(pool.unwrap_or_else(|| memory::current_pool(stream.context.device)))?;
        if out.is_null() || pool.place != Place::Device {
            return Err(capture::invalidate(&stream, Error::INVALID_VALUE));
        }
        let allocation = Allocation::create(memory::device_props(pool.device), bytes as u64)?;
        let address = allocation.address;
        capture::add(&stream, &Work::Allocate(allocation))?;
        // SAFETY: not null, so valid by this function's contract.
        return unsafe { put(out, address) };
    }
    capture::forbid_unsafe()?;
    if out.is_null() {
        return Err(Error::INVALID_VALUE);
    }
    let pool = pool.unwrap_or_else(|| memory::current_pool(stream.context.device));
    // SAFETY: not null, so valid by this function's contract.
    unsafe { put(out, memory::allocate_async(pool, bytes, &stream)?) }
}

/// A device's pinned memory, as the calls that name a device mean it.
fn device_location(id: c_int) -> MemLocation {
    MemLocation { kind: 1, id }
}

const PINNED: u32 = 1;

exports! { TABLE:
    entry cuMemAllocAsync / cuMemAllocAsync_ptsz: (out: *mut u64, bytes: usize, stream: u64) {
        allocate(out, bytes, None, stream)
    }
    entry cuMemAllocFromPoolAsync / cuMemAllocFromPoolAsync_ptsz: (out: *mut u64, bytes: usize, pool: u64, stream: u64) {
        allocate(out, bytes, Some(pool), stream)
    }
    entry cuMemFreeAsync / cuMemFreeAsync_ptsz: (address: u64, stream: u64) {
        let stream = stream::find(stream)?;
        if capture::is_capturing(&stream)? {
            // Memory from elsewhere cannot be freed at every launch of a graph.
            let work = params::free(address).map_err(|error| capture::invalidate(&stream, error))?;
            return capture::add(&stream, &work).map(drop);
        }
        memory::free_async(address, &stream)
    }
    entry cuDeviceGetDefaultMemPool: (pool: *mut u64, device: c_int) {
        put(pool, memory::default_pool(Device::new(device)?))
    }
    entry cuDeviceGetMemPool: (pool: *mut u64, device: c_int) { put(pool, memory::current_pool(Device::new(device)?)) }
    entry cuDeviceSetMemPool: (device: c_int, pool: u64) {
        memory::set_current_pool_at(device_location(device), PINNED, pool)
    }
    entry cuMemGetDefaultMemPool: (pool: *mut u64, location: *const MemLocation, kind: u32) {
        put(pool, memory::default_pool_at(get(location)?, kind)?)
    }
    entry cuMemGetMemPool: (pool: *mut u64, location: *const MemLocation, kind: u32) {
        put(pool, memory::current_pool_at(get(location)?, kind)?)
    }
    entry cuMemSetMemPool: (location: *const MemLocation, kind: u32, pool: u64) {
        memory::set_current_pool_at(get(location)?, kind, pool)
    }
    entry cuMemPoolCreate: (pool: *mut u64, props: *const PoolProps) {
        let props = get(props)?;
        if pool.is_null() { Err(Error::INVALID_VALUE) } else { put(pool, memory::create_pool(&props)?) }
    }
    entry cuMemPoolDestroy: (pool: u64) { memory::destroy_pool(pool) }
    entry cuMemPoolTrimTo: (pool: u64, _keep_bytes: usize) { memory::pool_of(pool).map(drop) }
    entry cuMemPoolGetAttribute: (pool: u64, attribute: u32, value: *mut c_void) {
        let pool = memory::pool_of(pool)?;
        match attribute {
            1..=3 => put(value.cast::<c_int>(), pool.reuse[attribute as usize - 1].load(Ordering::Relaxed) as c_int),
            4 => put(value.cast::<u64>(), pool.release_threshold.load(Ordering::Relaxed)),
            5 | 7 => put(value.cast::<u64>(), pool.used.load(Ordering::Relaxed)),
            6 | 8 => put(value.cast::<u64>(), pool.high.load(Ordering::Relaxed)),
            _ => Err(Error::INVALID_VALUE),
        }
    }
    entry cuMemPoolSetAttribute: (pool: u64, attribute: u32, value: *mut c_void) {
        let pool = memory::pool_of(pool)?;
        match attribute {
            1..=3 => {
                let on = get(value.cast::<c_int>())?;
                pool.reuse[attribute as usize - 1].store(u64::from(on != 0), Ordering::Relaxed);
            }
            4 => pool.release_threshold.store(get(value.cast::<u64>())?, Ordering::Relaxed),
            // High-water marks can only be reset.
            6 | 8 if get(value.cast::<u64>())? == 0 => {
                pool.high.store(pool.used.load(Ordering::Relaxed), Ordering::Relaxed);
            }
            _ => return Err(Error::INVALID_VALUE),
        }
        Ok(())
    }
    entry cuMemPoolSetAccess: (pool: u64, grants: *const AccessDesc, count: usize) {
        memory::pool_of(pool)?;
        for grant in array(grants, count)? {
            match (grant.location.kind, grant.flags) {
                (1, 0 | 3) => Device::new(grant.location.id).map(drop)?,
                // All of a pool's memory is reachable from the host.
                (2..=4, 3) => {}
                _ => return Err(Error::INVALID_VALUE),
            }
        }
        Ok(())
    }
    entry cuMemPoolGetAccess: (flags: *mut u32, pool: u64, location: *const MemLocation) {
        memory::pool_of(pool)?;
        // Every place reaches every pool.
        memory::default_pool_at(get(location)?, PINNED)?;
        put(flags, 3)
    }
}
