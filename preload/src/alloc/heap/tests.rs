//! The heap against a device of limited size that checks every creation and destruction.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::*;

const BASE: u64 = 0x3000_0000_0000;
const ARENA: u64 = 4 << 30;

/// A device with `capacity` bytes. Panics on overlap and on destruction of what was not created.
#[derive(Debug, Clone)]
struct Device {
    capacity: u64,
    slabs: Rc<RefCell<BTreeMap<u64, u64>>>,
}

impl Device {
    fn used(&self) -> u64 {
        self.slabs.borrow().values().sum()
    }

    fn holds(&self, address: u64, bytes: u64) -> bool {
        let slabs = self.slabs.borrow();
        slabs.range(..=address).next_back().is_some_and(|(base, length)| address + bytes <= base + length)
    }
}

impl Backing for Device {
    fn create(&self, address: u64, bytes: u64) -> Result<(), CuResult> {
        assert!(address.is_multiple_of(DEVICE_PAGE_BYTES) && bytes.is_multiple_of(DEVICE_PAGE_BYTES));
        if self.used() + bytes > self.capacity {
            return Err(CuResult::OUT_OF_MEMORY);
        }
        assert!(!self.holds(address, 1), "slab over a slab");
        self.slabs.borrow_mut().insert(address, bytes);
        Ok(())
    }

    fn destroy(&self, address: u64, bytes: u64) {
        assert_eq!(self.slabs.borrow_mut().remove(&address), Some(bytes));
    }
}

fn heap(capacity: u64) -> (Heap<Device>, Device) {
    let device = Device { capacity, slabs: Rc::default() };
    (Heap::new(device.clone(), BASE, ARENA), device)
}

#[test]
fn small_ones_share_and_large_ones_do_not() {
    let (mut heap, device) = heap(1 << 30);
    let first = heap.allocate(1).unwrap();
    let second = heap.allocate(513).unwrap();
    let third = heap.allocate(1).unwrap();
    assert_eq!((first % 512, second - first, third - second), (0, 512, 1024));
    assert_eq!(device.used(), 2 << 20, "a small program stays small");
    let large = heap.allocate((1 << 20) + 1).unwrap();
    assert!(large.is_multiple_of(2 << 20));
    assert_eq!(device.used(), 4 << 20);
}

#[test]
fn random_traffic_keeps_its_promises() {
    let (mut heap, device) = heap(512 << 20);
    let mut seed = 7_u64;
    let mut random = move |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    let mut held: BTreeMap<u64, u64> = BTreeMap::new();
    for _ in 0..5_000 {
        if random(5) < 3 || held.is_empty() {
            let bytes = if random(10) == 0 { 1 + random(40 << 20) } else { 1 + random(300_000) };
            let Ok(address) = heap.allocate(bytes) else { continue };
            assert!(device.holds(address, bytes), "memory is there");
            let left = held.range(..=address).next_back();
            assert!(left.is_none_or(|(base, length)| base + length <= address), "overlap");
            assert!(held.range(address..).next().is_none_or(|(base, _)| address + bytes <= *base), "overlap");
            held.insert(address, bytes);
        } else {
            let nth = random(held.len() as u64) as usize;
            let (&address, &bytes) = held.iter().nth(nth).unwrap();
            held.remove(&address);
            heap.free(address, bytes);
        }
        let empty: u64 = heap.slabs.values().filter(|slab| !slab.used).map(|slab| slab.bytes).sum();
        assert_eq!(heap.cached_bytes(), empty);
        assert!(empty <= CACHE_BYTES);
    }
    for (address, bytes) in held {
        heap.free(address, bytes);
    }
    assert_eq!(device.used(), heap.cached_bytes());
    heap.trim(0);
    assert_eq!(device.used(), 0);
    assert!(heap.arena.is_unused());
    assert_eq!(heap.shared_bytes, 0);
}

#[test]
fn the_cache_makes_room_before_memory_is_out() {
    let (mut heap, device) = heap(64 << 20);
    let first = heap.allocate(48 << 20).unwrap();
    heap.free(first, 48 << 20);
    assert_eq!(heap.cached_bytes(), 48 << 20);
    assert!(heap.allocate(60 << 20).is_ok());
    assert_eq!(heap.allocate(8 << 20), Err(CuResult::OUT_OF_MEMORY));
    assert_eq!(device.used(), 60 << 20, "a failure leaves nothing");
    assert!(heap.allocate(100).is_ok(), "a 2 MiB slab still fits");
    assert_eq!(heap.allocate(u64::MAX), Err(CuResult::OUT_OF_MEMORY));
    assert_eq!(heap.allocate(ARENA + 1), Err(CuResult::OUT_OF_MEMORY));
}

#[test]
fn an_empty_slab_of_the_same_size_is_reused() {
    let (mut heap, device) = heap(1 << 30);
    let first = heap.allocate(10 << 20).unwrap();
    heap.free(first, 10 << 20);
    assert_eq!(heap.allocate(10 << 20), Ok(first));
    let huge = heap.allocate(200 << 20).unwrap();
    heap.free(huge, 200 << 20);
    assert_eq!(device.used(), 10 << 20, "too large to keep");
}

#[test]
fn reservations_avoid_slabs_and_honour_hints() {
    let (mut heap, _) = heap(1 << 30);
    let slab = heap.allocate(2 << 20).unwrap();
    assert_eq!(heap.reserve(8 << 20, 2 << 20, BASE + (1 << 30)), Some(BASE + (1 << 30)));
    let beside = heap.reserve(2 << 20, 2 << 20, slab).unwrap();
    assert_ne!(beside, slab, "a taken hint is only a hint");
    assert!(heap.reserve(64 << 20, 1 << 30, 0).unwrap().is_multiple_of(1 << 30));
    heap.unreserve(BASE + (1 << 30), 8 << 20);
    assert!(heap.reserve(8 << 20, 2 << 20, BASE + (1 << 30)).is_some());
}
