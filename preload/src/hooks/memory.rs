//! Hooks of the device memory functions.

use super::hooks;
use crate::edge::Out;
use crate::ops::memory;

hooks! {
    area memory;
    fn cuMemAlloc_v2(out: *mut u64, bytes: usize) => memory::allocate(Out::new(out), bytes);
    fn cuMemAllocPitch_v2(out: *mut u64, pitch: *mut usize, width: usize, height: usize, element_bytes: u32)
        => memory::allocate_pitch(Out::new(out), Out::new(pitch), width, height, element_bytes);
    fn cuMemFree_v2(address: u64) => memory::free(address);
    fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) => memory::info(Out::new(free), Out::new(total));
    fn cuMemGetAddressRange_v2(base: *mut u64, bytes: *mut usize, address: u64)
        => memory::address_range(Out::new(base), Out::new(bytes), address);
}
