//! Calls that carry several operations.

use super::copy::{copy_later, unified};
use super::memory::check_managed;
use crate::abi::{MEMORY_UNIFIED, Memcpy3d};
use crate::edge::{array, exports, put_some};
use crate::error::{Error, Result};
use crate::stream;

/// `CUmemcpyAttributes`: source access order, two locations, flags.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct CopyAttributes {
    order: u32,
    hints: [i32; 4],
    flags: u32,
}

/// `CUmemcpy3DOperand` of a pointer: address, bytes from row to row, rows from slice to slice, a hint.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Operand {
    kind: u32,
    address: u64,
    row: usize,
    layer: usize,
    hint: u64,
}

/// `CUDA_MEMCPY3D_BATCH_OP`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct BoxCopy {
    source: Operand,
    target: Operand,
    extent: [usize; 3],
    order: u32,
    flags: u32,
}

/// Source access orders: in stream order, during the call, any.
const ORDERS: std::ops::RangeInclusive<u32> = 1..=3;
/// `CU_MEMCPY_OPERAND_TYPE_POINTER`.
const POINTER: u32 = 1;

/// The arguments of cuMemcpyBatchAsync up to the stream.
struct Lists {
    targets: *const u64,
    sources: *const u64,
    sizes: *const usize,
    count: usize,
    attributes: *const CopyAttributes,
    indices: *const usize,
    attribute_count: usize,
}

/// # Safety
/// Each array holds as many entries as its count says; `failed` is null or valid.
unsafe fn copies(lists: &Lists, failed: *mut usize, stream: u64) -> Result {
    let &Lists { count, attribute_count, .. } = lists;
    if count == 0 || attribute_count == 0 || attribute_count > count || stream == 0 {
        return Err(Error::INVALID_VALUE);
    }
    // SAFETY: this function's contract.
    let (targets, sources, sizes, attributes, indices) = unsafe {
        (
            array(lists.targets, count)?,
            array(lists.sources, count)?,
            array(lists.sizes, count)?,
            array(lists.attributes, attribute_count)?,
            array(lists.indices, attribute_count)?,
        )
    };
    let ascend = indices.windows(2).all(|pair| pair[0] < pair[1]);
    let in_range = indices[0] == 0 && indices.iter().all(|first| *first < count);
    if !ascend || !in_range || !attributes.iter().all(|attribute| ORDERS.contains(&attribute.order)) {
        return Err(Error::INVALID_VALUE);
    }
    let copies = targets.into_iter().zip(sources).zip(sizes).enumerate();
    for (index, ((target, source), bytes)) in copies {
        let copied = if bytes == 0 {
            Err(Error::INVALID_VALUE)
        } else {
            copy_later(&unified(target, source, bytes), stream)
        };
        if let Err(error) = copied {
            // SAFETY: this function's contract.
            unsafe { put_some(failed, index) };
            return Err(error);
        }
    }
    Ok(())
}

/// # Safety
/// `list` holds `count` entries; `failed` is null or valid.
unsafe fn boxes(list: *const BoxCopy, count: usize, failed: *mut usize, flags: u64, stream: u64) -> Result {
    if count == 0 || flags != 0 || stream == 0 {
        return Err(Error::INVALID_VALUE);
    }
    // SAFETY: this function's contract.
    for (index, copy) in unsafe { array(list, count) }?.into_iter().enumerate() {
        if let Err(error) = copy.linear().and_then(|copy| copy_later(&copy, stream)) {
            // SAFETY: this function's contract.
            unsafe { put_some(failed, index) };
            return Err(error);
        }
    }
    Ok(())
}

impl BoxCopy {
    fn linear(&self) -> Result<Memcpy3d> {
        let [width_bytes, height, depth] = self.extent;
        if self.source.kind != POINTER || self.target.kind != POINTER {
            return Err(Error::NOT_SUPPORTED);
        }
        if !ORDERS.contains(&self.order) || width_bytes == 0 || height == 0 || depth == 0 {
            return Err(Error::INVALID_VALUE);
        }
        let or = |given: usize, least: usize| if given == 0 { least } else { given };
        Ok(Memcpy3d {
            src_type: MEMORY_UNIFIED,
            src_device: self.source.address,
            src_pitch: or(self.source.row, width_bytes),
            src_height: or(self.source.layer, height),
            dst_type: MEMORY_UNIFIED,
            dst_device: self.target.address,
            dst_pitch: or(self.target.row, width_bytes),
            dst_height: or(self.target.layer, height),
            width_bytes,
            height,
            depth,
            ..unified(0, 0, 0)
        })
    }
}

/// # Safety
/// Both arrays hold `count` entries.
unsafe fn hints(addresses: *const u64, sizes: *const usize, count: usize, flags: u64, stream: u64) -> Result {
    stream::find(stream)?;
    if count == 0 || flags != 0 {
        return Err(Error::INVALID_VALUE);
    }
    // SAFETY: this function's contract.
    let (addresses, sizes) = unsafe { (array(addresses, count)?, array(sizes, count)?) };
    addresses.into_iter().zip(sizes).try_for_each(|(address, bytes)| check_managed(address, bytes))
}

exports! { TABLE:
    entry cuMemcpyBatchAsync / cuMemcpyBatchAsync_ptsz: (
        targets: *const u64, sources: *const u64, sizes: *const usize, count: usize, attributes: *const CopyAttributes,
        indices: *const usize, attribute_count: usize, failed: *mut usize, stream: u64
    ) {
        copies(&Lists { targets, sources, sizes, count, attributes, indices, attribute_count }, failed, stream)
    }
    entry cuMemcpyBatchAsync_v2 / cuMemcpyBatchAsync_v2_ptsz: (
        targets: *const u64, sources: *const u64, sizes: *const usize, count: usize, attributes: *const CopyAttributes,
        indices: *const usize, attribute_count: usize, stream: u64
    ) {
        let none = std::ptr::null_mut();
        copies(&Lists { targets, sources, sizes, count, attributes, indices, attribute_count }, none, stream)
    }
    entry cuMemcpy3DBatchAsync / cuMemcpy3DBatchAsync_ptsz: (
        count: usize, list: *const BoxCopy, failed: *mut usize, flags: u64, stream: u64
    ) {
        boxes(list, count, failed, flags, stream)
    }
    entry cuMemcpy3DBatchAsync_v2 / cuMemcpy3DBatchAsync_v2_ptsz: (
        count: usize, list: *const BoxCopy, flags: u64, stream: u64
    ) {
        boxes(list, count, std::ptr::null_mut(), flags, stream)
    }
    entry cuMemPrefetchBatchAsync / cuMemPrefetchBatchAsync_ptsz: (
        addresses: *const u64, sizes: *const usize, count: usize, _locations: *const u64, _indices: *const usize,
        _location_count: usize, flags: u64, stream: u64
    ) {
        hints(addresses, sizes, count, flags, stream)
    }
    entry cuMemDiscardBatchAsync / cuMemDiscardBatchAsync_ptsz: (
        addresses: *const u64, sizes: *const usize, count: usize, flags: u64, stream: u64
    ) {
        hints(addresses, sizes, count, flags, stream)
    }
    entry cuMemDiscardAndPrefetchBatchAsync / cuMemDiscardAndPrefetchBatchAsync_ptsz: (
        addresses: *const u64, sizes: *const usize, count: usize, _locations: *const u64, _indices: *const usize,
        _location_count: usize, flags: u64, stream: u64
    ) {
        hints(addresses, sizes, count, flags, stream)
    }
}
