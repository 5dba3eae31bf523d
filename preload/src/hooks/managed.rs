//! Hooks of the managed memory functions.

use super::hooks;
use crate::edge::Out;
use crate::ops::managed;

hooks! {
    area managed;
    fn cuMemAllocManaged(out: *mut u64, bytes: usize, flags: u32) => managed::allocate(Out::new(out), bytes, flags);
    fn cuStreamAttachMemAsync(stream: u64, address: u64, bytes: usize, flags: u32) ptsz cuStreamAttachMemAsync_ptsz[stream]
        => managed::attach(stream, address, bytes, flags);
    fn cuMemAdvise(address: u64, bytes: usize, advice: u32, device: i32) => managed::advise(address, bytes);
    // A `CUmemLocation` (type and id) travels by value in one register.
    fn cuMemAdvise_v2(address: u64, bytes: usize, advice: u32, location: u64) => managed::advise(address, bytes);
    fn cuMemPrefetchAsync(address: u64, bytes: usize, device: i32, stream: u64) ptsz cuMemPrefetchAsync_ptsz[stream]
        => managed::prefetch(address, bytes, stream);
    fn cuMemPrefetchAsync_v2(address: u64, bytes: usize, location: u64, flags: u32, stream: u64)
        ptsz cuMemPrefetchAsync_v2_ptsz[stream]
        => managed::prefetch(address, bytes, stream);
}
