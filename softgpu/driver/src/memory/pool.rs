//! Memory pools: of a device, of the host, of managed memory; and which of them is the default and the current one of its place.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, LazyLock, Mutex};

use lightos_softgpu_engine::profile::MAX_DEVICES;

use crate::abi::{MemLocation, PoolProps};
use crate::context;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::handle::{self, Table};
use crate::space::Place;

/// A memory pool. Reuse is the heap's business, so thresholds and reuse policies are remembered and have no effect.
#[derive(Debug)]
pub struct Pool {
    pub handle: u64,
    /// The device whose memory it hands out; for a pool of the host, the one whose contexts use it.
    pub device: Device,
    pub place: Place,
    pub is_default: bool,
    /// Bytes allocated and not yet freed in stream order, and their highest sum.
    pub used: AtomicU64,
    pub high: AtomicU64,
    pub release_threshold: AtomicU64,
    /// The three reuse switches, attributes 1 to 3.
    pub reuse: [AtomicU64; 3],
}

static POOLS: Table<Pool> = Table::new();

fn new_pool(device: Device, place: Place, is_default: bool) -> u64 {
    let pool = Pool {
        handle: handle::fresh(),
        device,
        place,
        is_default,
        used: AtomicU64::new(0),
        high: AtomicU64::new(0),
        release_threshold: AtomicU64::new(0),
        reuse: [const { AtomicU64::new(1) }; 3],
    };
    let handle = pool.handle;
    POOLS.insert(handle, Arc::new(pool));
    handle
}

/// The default and the current pool of a place, made when they are first asked for.
#[derive(Debug, Default)]
struct Pair {
    default: u64,
    current: u64,
}

static DEVICES: LazyLock<[Mutex<Pair>; MAX_DEVICES]> = LazyLock::new(Default::default);
static HOST: Mutex<Pair> = Mutex::new(Pair { default: 0, current: 0 });
static MANAGED: Mutex<Pair> = Mutex::new(Pair { default: 0, current: 0 });

fn pair<T>(device: Device, place: Place, look: impl FnOnce(&mut Pair) -> T) -> T {
    let pair = match place {
        Place::Device => &DEVICES[device.index()],
        Place::Host => &HOST,
        Place::Managed => &MANAGED,
    };
    let mut pair = pair.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if pair.default == 0 {
        pair.default = new_pool(device, place, true);
        pair.current = pair.default;
    }
    look(&mut pair)
}

/// `cuDeviceGetDefaultMemPool`.
pub fn default_pool(device: Device) -> u64 {
    pair(device, Place::Device, |pair| pair.default)
}

/// `cuDeviceGetMemPool`.
pub fn current_pool(device: Device) -> u64 {
    pair(device, Place::Device, |pair| pair.current)
}

/// `cuMemGetDefaultMemPool`: of a `CUmemLocation` and a `CUmemAllocationType`.
pub fn default_pool_at(location: MemLocation, allocation: u32) -> Result<u64> {
    let (device, place) = place_of(location, allocation)?;
    Ok(pair(device, place, |pair| pair.default))
}

/// `cuMemGetMemPool`.
pub fn current_pool_at(location: MemLocation, allocation: u32) -> Result<u64> {
    let (device, place) = place_of(location, allocation)?;
    Ok(pair(device, place, |pair| pair.current))
}

/// `cuMemSetMemPool` and, for a device's pinned memory, `cuDeviceSetMemPool`.
pub fn set_current_pool_at(location: MemLocation, allocation: u32, pool: u64) -> Result {
    let (device, place) = place_of(location, allocation)?;
    let found = pool_of(pool)?;
    if found.place != place || (place == Place::Device && found.device != device) {
        return Err(Error::INVALID_VALUE);
    }
    pair(device, place, |pair| pair.current = pool);
    Ok(())
}

pub fn pool_of(handle: u64) -> Result<Arc<Pool>> {
    POOLS.get(handle).ok_or(Error::INVALID_VALUE)
}

/// `cuMemPoolCreate`. The host counts as one NUMA node.
pub fn create_pool(props: &PoolProps) -> Result<u64> {
    if props.handle_types > 1 {
        return Err(Error::NOT_SUPPORTED);
    }
    let (device, place) = place_of(props.location, props.kind)?;
    Ok(new_pool(device, place, false))
}

/// Device and place of a pool at a `CUmemLocation` with a `CUmemAllocationType`. The device of a pool outside of devices is the current
/// context's, or the first.
fn place_of(location: MemLocation, allocation: u32) -> Result<(Device, Place)> {
    const PINNED: u32 = 1;
    const MANAGED: u32 = 2;
    const NONE: u32 = 0;
    const DEVICE: u32 = 1;
    let current = || context::current().map_or_else(|_| Device::new(0), |context| Ok(context.device));
    match (location.kind, allocation) {
        (DEVICE, PINNED) => Ok((Device::new(location.id)?, Place::Device)),
        (DEVICE, MANAGED) => Ok((Device::new(location.id)?, Place::Managed)),
        (NONE | 2..=4, MANAGED) => Ok((current()?, Place::Managed)),
        // HOST, HOST_NUMA, HOST_NUMA_CURRENT.
        (3, PINNED) if location.id != 0 => Err(Error::INVALID_VALUE),
        (2..=4, PINNED) => Ok((current()?, Place::Host)),
        _ => Err(Error::INVALID_VALUE),
    }
}

/// The properties of a pool of a device's pinned memory.
pub fn device_props(device: Device) -> PoolProps {
    let location = MemLocation { kind: 1, id: device.ordinal() };
    PoolProps { kind: 1, handle_types: 0, location, win32: 0, max_bytes: 0, usage: 0, reserved: [0; 54] }
}

/// Handles of the pools that the program has created.
pub fn created_pools() -> Vec<u64> {
    POOLS.all(|pool| !pool.is_default).iter().map(|pool| pool.handle).collect()
}

/// `cuMemPoolDestroy`: its place falls back to the default pool.
pub fn destroy_pool(handle: u64) -> Result {
    let pool = pool_of(handle)?;
    if pool.is_default {
        return Err(Error::INVALID_VALUE);
    }
    pair(pool.device, pool.place, |pair| {
        if pair.current == handle {
            pair.current = pair.default;
        }
    });
    POOLS.remove(handle);
    Ok(())
}
