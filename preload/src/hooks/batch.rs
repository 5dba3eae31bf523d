//! Hooks of the functions that carry several operations.

use super::hooks;
use crate::edge::{In, Out};
use crate::ops::batch::{Attributes, BoxCopy, CopyAttributes, Lists, boxes, copies, hints, one_copy};
use std::ffi::c_void;
use std::ptr::null_mut;

hooks! {
    area batch;
    fn cuMemcpyBatchAsync(
        targets: *const u64, sources: *const u64, sizes: *const usize, count: usize, attributes: *const CopyAttributes,
        indices: *const usize, attribute_count: usize, failed: *mut usize, stream: u64,
    ) ptsz cuMemcpyBatchAsync_ptsz[stream] => copies(
        &Lists { targets: In::new(targets), sources: In::new(sources), sizes: In::new(sizes), count },
        &Attributes { list: In::new(attributes), indices: In::new(indices), count: attribute_count }, Out::new(failed), stream,
    );
    fn cuMemcpyBatchAsync_v2(
        targets: *const u64, sources: *const u64, sizes: *const usize, count: usize, attributes: *const CopyAttributes,
        indices: *const usize, attribute_count: usize, stream: u64,
    ) ptsz cuMemcpyBatchAsync_v2_ptsz[stream] => copies(
        &Lists { targets: In::new(targets), sources: In::new(sources), sizes: In::new(sizes), count },
        &Attributes { list: In::new(attributes), indices: In::new(indices), count: attribute_count }, Out::new(null_mut()), stream,
    );
    fn cuMemcpyWithAttributesAsync(target: u64, source: u64, bytes: usize, attributes: *const CopyAttributes, stream: u64)
        ptsz cuMemcpyWithAttributesAsync_ptsz[stream] => one_copy(target, source, bytes, &In::new(attributes), stream);
    fn cuMemcpy3DBatchAsync(count: usize, list: *const BoxCopy, failed: *mut usize, flags: u64, stream: u64)
        ptsz cuMemcpy3DBatchAsync_ptsz[stream] => boxes(&In::new(list), count, Out::new(failed), flags, stream);
    fn cuMemcpy3DBatchAsync_v2(count: usize, list: *const BoxCopy, flags: u64, stream: u64)
        ptsz cuMemcpy3DBatchAsync_v2_ptsz[stream] => boxes(&In::new(list), count, Out::new(null_mut()), flags, stream);
    fn cuMemcpy3DWithAttributesAsync(copy: *const BoxCopy, flags: u64, stream: u64)
        ptsz cuMemcpy3DWithAttributesAsync_ptsz[stream] => boxes(&In::new(copy), 1, Out::new(null_mut()), flags, stream);
    fn cuMemPrefetchBatchAsync(
        addresses: *const u64, sizes: *const usize, count: usize, locations: *const c_void, indices: *const usize,
        location_count: usize, flags: u64, stream: u64,
    ) ptsz cuMemPrefetchBatchAsync_ptsz[stream] => hints(&In::new(addresses), &In::new(sizes), count, Some(location_count), flags, stream);
    fn cuMemDiscardBatchAsync(addresses: *const u64, sizes: *const usize, count: usize, flags: u64, stream: u64)
        ptsz cuMemDiscardBatchAsync_ptsz[stream] => hints(&In::new(addresses), &In::new(sizes), count, None, flags, stream);
    fn cuMemDiscardAndPrefetchBatchAsync(
        addresses: *const u64, sizes: *const usize, count: usize, locations: *const c_void, indices: *const usize,
        location_count: usize, flags: u64, stream: u64,
    ) ptsz cuMemDiscardAndPrefetchBatchAsync_ptsz[stream] => hints(&In::new(addresses), &In::new(sizes), count, Some(location_count), flags, stream);
}
