//! Hooks of stream-ordered allocation. Pools themselves are the local driver's.

use super::hooks;
use crate::edge::{In, Out};
use crate::ops::pool::{self, Properties};
use std::ffi::c_void;

hooks! {
    area pool;
    fn cuMemAllocAsync(out: *mut u64, bytes: usize, stream: u64) ptsz cuMemAllocAsync_ptsz[stream]
        => pool::allocate(Out::new(out), bytes, stream);
    fn cuMemAllocFromPoolAsync(out: *mut u64, bytes: usize, pool: u64, stream: u64)
        ptsz cuMemAllocFromPoolAsync_ptsz[stream] => pool::allocate_from(Out::new(out), bytes, pool, stream);
    fn cuMemFreeAsync(address: u64, stream: u64) ptsz cuMemFreeAsync_ptsz[stream] => pool::free(address, stream);
    fn cuMemPoolCreate(out: *mut u64, properties: *const Properties) => {
        let _ = out;
        pool::create(In::new(properties))
    };
    fn cuMemPoolTrimTo(pool: u64, keep_bytes: usize) => pool::trim(pool, keep_bytes);
    fn cuMemPoolGetAttribute(pool: u64, attribute: u32, value: *mut c_void)
        => pool::attribute(pool, attribute, Out::new(value));
    fn cuMemPoolSetAttribute(pool: u64, attribute: u32, value: *mut c_void)
        => pool::set_attribute(pool, attribute, Out::new(value));
}
