//! Memory that graphs allocate: what a memory allocation node stands for.
//!
//! An allocation keeps one address and its pages from the moment the node is made until neither a graph nor the program has a use for it. What
//! a launch changes is whether it is allocated: a launch of a graph whose memory the program has not freed is an error, as on
//! hardware, unless the graph was instantiated to free it. Memory that is not allocated at the moment is accessible here, which on
//! hardware it need not be.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::abi::PoolProps;
use crate::context;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::heap;
use crate::space::{Kind, Range, SPACE};

/// One allocation.
#[derive(Debug)]
pub struct Allocation {
    pub address: u64,
    pub bytes: u64,
    pub props: PoolProps,
    device: Device,
    is_live: AtomicBool,
    /// One executable graph at a time may allocate it.
    is_instantiated: AtomicBool,
}

/// Allocations by address.
static ALL: Mutex<BTreeMap<u64, Weak<Allocation>>> = Mutex::new(BTreeMap::new());
/// Those that are allocated now: they outlive their graphs.
static LIVE: Mutex<BTreeMap<u64, Arc<Allocation>>> = Mutex::new(BTreeMap::new());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Allocation {
    /// Pinned memory of a device.
    pub fn create(props: PoolProps, bytes: u64) -> Result<Arc<Allocation>> {
        const PINNED: u32 = 1;
        const ON_DEVICE: u32 = 1;
        let context = context::healthy()?;
        if bytes == 0 || props.kind != PINNED || props.location.kind != ON_DEVICE || props.handle_types != 0 {
            return Err(Error::INVALID_VALUE);
        }
        let device = Device::new(props.location.id)?;
        let address = heap::allocate(device, bytes)?;
        if !SPACE.insert(Range::new(address, bytes, heap::ALIGNMENT, Kind::Graph, device, context.handle)) {
            heap::free(device, address, bytes);
            return Err(Error::UNKNOWN);
        }
        let allocation = Arc::new(Allocation {
            address,
            bytes,
            props,
            device,
            is_live: AtomicBool::new(false),
            is_instantiated: AtomicBool::new(false),
        });
        lock(&ALL).insert(address, Arc::downgrade(&allocation));
        Ok(allocation)
    }

    pub fn is_live(&self) -> bool {
        self.is_live.load(Ordering::Acquire)
    }

    /// A launch allocates it.
    pub fn allocate(self: &Arc<Self>) {
        self.is_live.store(true, Ordering::Release);
        lock(&LIVE).insert(self.address, self.clone());
    }

    /// A graph or the program frees it; an error where it is not allocated.
    pub fn free(&self) -> Result {
        let was_live = self.is_live.swap(false, Ordering::AcqRel);
        // Dropped behind the lock: it may be the last reference.
        let _last = lock(&LIVE).remove(&self.address);
        if was_live { Ok(()) } else { Err(Error::INVALID_VALUE) }
    }

    /// An executable graph takes it; false where another one has it.
    pub fn claim(&self) -> bool {
        !self.is_instantiated.swap(true, Ordering::AcqRel)
    }

    /// That executable graph is gone.
    pub fn release(&self) {
        self.is_instantiated.store(false, Ordering::Release);
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        lock(&ALL).remove(&self.address);
        // Gone already where its context was destroyed.
        if SPACE.remove(self.address, |range| range.kind == Kind::Graph).is_some() {
            heap::free(self.device, self.address, self.bytes);
        }
    }
}

/// The allocation that starts at `address`.
pub fn find(address: u64) -> Option<Arc<Allocation>> {
    lock(&ALL).get(&address)?.upgrade()
}

/// Bytes allocated now, and bytes that graphs hold, on a device.
pub fn usage(device: Device) -> (u64, u64) {
    let all: Vec<_> = lock(&ALL).values().filter_map(Weak::upgrade).collect();
    let here = all.iter().filter(|allocation| allocation.device == device);
    here.fold((0, 0), |(live, held), allocation| {
        (live + if allocation.is_live() { allocation.bytes } else { 0 }, held + allocation.bytes)
    })
}
