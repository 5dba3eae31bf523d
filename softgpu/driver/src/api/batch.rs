//! Calls that carry several operations.

use super::copy::{copy_later, unified};
use super::memory::check_managed;
use crate::abi::{MEMORY_ARRAY, MEMORY_UNIFIED, Memcpy3d};
use crate::edge::{self, exports, put_some};
use crate::error::{Error, Result};
use crate::{array, stream};

/// `CUmemcpyAttributes`: source access order, two locations, flags.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct CopyAttributes {
    order: u32,
    hints: [i32; 4],
    flags: u32,
}

/// `CUmemcpy3DOperand`: of a pointer its address, elements from row to row, rows from slice to slice and a hint; of an array its handle and where
/// in it the box begins.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Operand {
    kind: u32,
    body: [u64; 4],
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
/// `CU_MEMCPY_OPERAND_TYPE_POINTER`, `CU_MEMCPY_OPERAND_TYPE_ARRAY`.
const POINTER: u32 = 1;
const ARRAY: u32 = 2;

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
            edge::array(lists.targets, count)?,
            edge::array(lists.sources, count)?,
            edge::array(lists.sizes, count)?,
            edge::array(lists.attributes, attribute_count)?,
            edge::array(lists.indices, attribute_count)?,
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
    for (index, copy) in unsafe { edge::array(list, count) }?.into_iter().enumerate() {
        if let Err(error) = copy.plain().and_then(|copy| copy_later(&copy, stream)) {
            // SAFETY: this function's contract.
            unsafe { put_some(failed, index) };
            return Err(error);
        }
    }
    Ok(())
}

impl Operand {
    /// Bytes of an array's elements; `None` for a pointer.
    fn element_bytes(&self) -> Result<Option<usize>> {
        match self.kind {
            POINTER => Ok(None),
            ARRAY => {
                let array = array::find(self.body[0]).ok_or(Error::INVALID_HANDLE)?;
                Ok(Some(array.texels.texel_bytes() as usize))
            }
            _ => Err(Error::INVALID_VALUE),
        }
    }
}

impl BoxCopy {
    /// Lengths are in elements of the array that takes part, in bytes between pointers.
    fn plain(&self) -> Result<Memcpy3d> {
        let [width, height, depth] = self.extent;
        if !ORDERS.contains(&self.order) || width == 0 || height == 0 || depth == 0 {
            return Err(Error::INVALID_VALUE);
        }
        let element = match (self.source.element_bytes()?, self.target.element_bytes()?) {
            (Some(source), Some(target)) if source != target => return Err(Error::INVALID_VALUE),
            (source, target) => source.or(target).unwrap_or(1),
        };
        let or = |given: u64, least: usize| if given == 0 { least } else { given as usize };
        let mut copy = Memcpy3d { width_bytes: width * element, height, depth, ..unified(0, 0, 0) };
        let [first, second, third, fourth] = self.source.body;
        if self.source.kind == ARRAY {
            (copy.src_type, copy.src_array) = (MEMORY_ARRAY, first);
            (copy.src_x_bytes, copy.src_y, copy.src_z) =
                (second as usize * element, third as usize, fourth as usize);
        } else {
            (copy.src_type, copy.src_device) = (MEMORY_UNIFIED, first);
            (copy.src_pitch, copy.src_height) = (or(second, width) * element, or(third, height));
        }
        let [first, second, third, fourth] = self.target.body;
        if self.target.kind == ARRAY {
            (copy.dst_type, copy.dst_array) = (MEMORY_ARRAY, first);
            (copy.dst_x_bytes, copy.dst_y, copy.dst_z) =
                (second as usize * element, third as usize, fourth as usize);
        } else {
            (copy.dst_type, copy.dst_device) = (MEMORY_UNIFIED, first);
            (copy.dst_pitch, copy.dst_height) = (or(second, width) * element, or(third, height));
        }
        Ok(copy)
    }
}

/// # Safety
/// Both arrays hold `count` entries.
unsafe fn hints(
    addresses: *const u64,
    sizes: *const usize,
    count: usize,
    locations: Option<usize>,
    flags: u64,
    stream: u64,
) -> Result {
    if count == 0 || locations == Some(0) || flags != 0 || stream == 0 {
        return Err(Error::INVALID_VALUE);
    }
    stream::find(stream)?;
    // SAFETY: this function's contract.
    let (addresses, sizes) = unsafe { (edge::array(addresses, count)?, edge::array(sizes, count)?) };
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
        location_count: usize, flags: u64, stream: u64
    ) {
        hints(addresses, sizes, count, Some(location_count), flags, stream)
    }
    entry cuMemDiscardBatchAsync / cuMemDiscardBatchAsync_ptsz: (
        addresses: *const u64, sizes: *const usize, count: usize, flags: u64, stream: u64
    ) {
        hints(addresses, sizes, count, None, flags, stream)
    }
    entry cuMemDiscardAndPrefetchBatchAsync / cuMemDiscardAndPrefetchBatchAsync_ptsz: (
        addresses: *const u64, sizes: *const usize, count: usize, _locations: *const u64, _indices: *const usize,
        location_count: usize, flags: u64, stream: u64
    ) {
        hints(addresses, sizes, count, Some(location_count), flags, stream)
    }
}
