//! Calls that carry several operations: copies, prefetches. Each is carried out as its operations in the order in which
//! they were given; the driver promises no order among the copies of a batch, so this one is as good as any.
//!
//! Everything that can be wrong with a batch is looked for before its first operation.

use std::ffi::c_void;

use super::array::shape::Shape;
use super::capture::{self, captures};
use super::copy::pitched::{Copy3D, Side3D, copy_3d};
use super::copy::{Place, Role, Wait, linear, place};
use super::stream;
use super::{context, managed};
use crate::edge::{In, Out};
use crate::outcome::Outcome;
use crate::result::CuResult;

/// `CU_MEMCPY_SRC_ACCESS_ORDER_STREAM`, and the first number beyond the orders.
const ORDER_STREAM: u32 = 1;
const ORDERS: std::ops::Range<u32> = 1..4;

/// `CUmemcpyAttributes`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct CopyAttributes {
    pub source_access_order: u32,
    pub source_hint: [i32; 2],
    pub target_hint: [i32; 2],
    pub flags: u32,
}

/// The three lists of cuMemcpyBatchAsync that say what is copied.
#[derive(Debug)]
pub struct Lists {
    pub targets: In<u64>,
    pub sources: In<u64>,
    pub sizes: In<usize>,
    pub count: usize,
}

/// How they are copied: `indices` says at which copy each attribute begins to hold.
#[derive(Debug)]
pub struct Attributes {
    pub list: In<CopyAttributes>,
    pub indices: In<usize>,
    pub count: usize,
}

/// One copy of a batch.
#[derive(Clone, Copy, Debug)]
struct Linear {
    target: u64,
    source: u64,
    bytes: usize,
    order: u32,
}

/// cuMemcpyBatchAsync. `failed` receives the place of an operation that is to blame for an error.
pub fn copies(lists: &Lists, attributes: &Attributes, failed: Out<usize>, stream: u64) -> Outcome {
    in_stream(stream, || {
        let orders = orders(attributes, lists.count)?;
        let copy = |index: usize| {
            Ok(Linear {
                target: lists.targets.at(index)?,
                source: lists.sources.at(index)?,
                bytes: lists.sizes.at(index)?,
                order: order_of(&orders, index),
            })
        };
        let copies = (0..lists.count).map(copy).collect::<Result<Vec<_>, CuResult>>()?;
        for (index, copy) in copies.iter().enumerate() {
            if let Err(error) = copy.check() {
                failed.put(index);
                return Err(error);
            }
        }
        copies.iter().try_for_each(|copy| copy.issue(stream))
    })
}

/// cuMemcpyWithAttributesAsync.
pub fn one_copy(
    target: u64,
    source: u64,
    bytes: usize,
    attributes: &In<CopyAttributes>,
    stream: u64,
) -> Outcome {
    in_stream(stream, || {
        let order = attributes.get()?.source_access_order;
        if !ORDERS.contains(&order) {
            return Err(CuResult::INVALID_VALUE);
        }
        let copy = Linear { target, source, bytes, order };
        copy.check()?;
        copy.issue(stream)
    })
}

/// Runs what goes into a stream of the program's own, or a thread's default stream; batches into the legacy stream are errors, and captures are the
/// local driver's.
fn in_stream(stream: u64, run: impl FnOnce() -> Result<(), CuResult>) -> Outcome {
    if captures(stream) {
        return capture::PASS;
    }
    let run = || {
        context::check()?;
        if stream <= 1 {
            return Err(CuResult::INVALID_VALUE);
        }
        stream::find(stream)?;
        run()
    };
    run().into()
}

/// The attributes' first copies and source access orders, in order.
fn orders(attributes: &Attributes, copies: usize) -> Result<Vec<(usize, u32)>, CuResult> {
    if copies == 0 || attributes.count == 0 || attributes.count > copies {
        return Err(CuResult::INVALID_VALUE);
    }
    let mut orders = Vec::with_capacity(attributes.count);
    for index in 0..attributes.count {
        let (first, order) = (attributes.indices.at(index)?, attributes.list.at(index)?.source_access_order);
        let follows = orders.last().map_or(first == 0, |&(before, _)| first > before);
        if !follows || first >= copies || !ORDERS.contains(&order) {
            return Err(CuResult::INVALID_VALUE);
        }
        orders.push((first, order));
    }
    Ok(orders)
}

fn order_of(orders: &[(usize, u32)], copy: usize) -> u32 {
    let holds = orders.partition_point(|&(first, _)| first <= copy);
    orders.get(holds.wrapping_sub(1)).map_or(ORDER_STREAM, |&(_, order)| order)
}

impl Linear {
    fn check(&self) -> Result<(), CuResult> {
        if self.bytes == 0 {
            return Err(CuResult::INVALID_VALUE);
        }
        place(self.target, self.bytes as u64, Role::Unified)?;
        place(self.source, self.bytes as u64, Role::Unified).map(drop)
    }

    fn issue(&self, stream: u64) -> Result<(), CuResult> {
        let pageable = place(self.source, self.bytes as u64, Role::Unified)? == Place::Pageable;
        if pageable && self.order == ORDER_STREAM {
            // A pageable source is read at the call, but what comes before in the stream may still write it.
            stream::synchronize(stream)?;
        }
        let (target, source) = ((self.target, Role::Unified), (self.source, Role::Unified));
        done(linear(target, source, self.bytes, stream, Wait::No)?)
    }
}

/// An operation of a batch cannot be left to the local driver.
fn done(outcome: Outcome) -> Result<(), CuResult> {
    match outcome {
        Outcome::Done => Ok(()),
        Outcome::Fail(error) => Err(error),
        Outcome::PassThrough(_) => Err(CuResult::INVALID_VALUE),
        Outcome::Refuse(_) => Err(CuResult::NOT_SUPPORTED),
    }
}

/// `CUmemcpy3DOperand`: a pointer (address, row length, layer height, location hint) or an array (handle, offset of x, y, z).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Operand {
    pub kind: u32,
    pub pad: u32,
    pub body: [u64; 4],
}

/// `CUDA_MEMCPY3D_BATCH_OP`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct BoxCopy {
    pub source: Operand,
    pub target: Operand,
    pub extent: [usize; 3],
    pub source_access_order: u32,
    pub flags: u32,
}

const _: () = assert!(size_of::<BoxCopy>() == 112 && size_of::<CopyAttributes>() == 24);

/// `CU_MEMCPY_OPERAND_TYPE_POINTER`, `_ARRAY`.
const POINTER: u32 = 1;
const ARRAY_OPERAND: u32 = 2;
/// `CU_MEMORYTYPE_ARRAY`, `CU_MEMORYTYPE_UNIFIED`.
const ARRAY: u32 = 3;
const UNIFIED: u32 = 4;

/// cuMemcpy3DBatchAsync, and with one operation cuMemcpy3DWithAttributesAsync.
pub fn boxes(list: &In<BoxCopy>, count: usize, failed: Out<usize>, flags: u64, stream: u64) -> Outcome {
    in_stream(stream, || {
        if count == 0 || flags != 0 {
            return Err(CuResult::INVALID_VALUE);
        }
        let mut copies = Vec::with_capacity(count);
        for index in 0..count {
            let copy = list.at(index)?;
            match copy.plain() {
                Ok(found) => copies.push((found, copy.source_access_order)),
                Err(error) => {
                    failed.put(index);
                    return Err(error);
                }
            }
        }
        for (copy, order) in copies {
            let from_pointer = copy.src.memory_type == UNIFIED;
            if from_pointer
                && order == ORDER_STREAM
                && place(copy.src.device, 1, Role::Unified)? == Place::Pageable
            {
                stream::synchronize(stream)?;
            }
            // SAFETY: a live structure of this frame.
            let copy = unsafe { In::new(&raw const copy) };
            done(copy_3d(copy, stream, Wait::No).into())?;
        }
        Ok(())
    })
}

impl BoxCopy {
    /// Lengths are in elements of the array that takes part, in bytes between pointers.
    fn plain(&self) -> Result<Copy3D, CuResult> {
        let [width, height, depth] = self.extent;
        if !ORDERS.contains(&self.source_access_order) || width == 0 || height == 0 || depth == 0 {
            return Err(CuResult::INVALID_VALUE);
        }
        let element_bytes = match (self.source.element_bytes()?, self.target.element_bytes()?) {
            (Some(source), Some(target)) if source != target => return Err(CuResult::INVALID_VALUE),
            (source, target) => source.or(target).unwrap_or(1),
        };
        let side = |operand: &Operand| operand.side(width, height, element_bytes);
        let width_bytes = width.checked_mul(element_bytes).ok_or(CuResult::INVALID_VALUE)?;
        Ok(Copy3D { src: side(&self.source)?, dst: side(&self.target)?, width_bytes, height, depth })
    }
}

impl Operand {
    /// Bytes of an array's elements; `None` for a pointer.
    fn element_bytes(&self) -> Result<Option<usize>, CuResult> {
        match self.kind {
            POINTER => Ok(None),
            ARRAY_OPERAND => {
                let bytes = Shape::of(self.body[0])?.element_bytes().ok_or(CuResult::INVALID_VALUE)?;
                Ok(Some(bytes as usize))
            }
            _ => Err(CuResult::INVALID_VALUE),
        }
    }

    fn side(&self, width: usize, height: usize, element_bytes: usize) -> Result<Side3D, CuResult> {
        let none = std::ptr::null_mut::<c_void>();
        let side = Side3D {
            x_bytes: 0,
            y: 0,
            z: 0,
            level: 0,
            memory_type: UNIFIED,
            host: none,
            device: 0,
            array: none,
            context: none,
            pitch: 0,
            rows: 0,
        };
        let bytes = |elements: usize| elements.checked_mul(element_bytes).ok_or(CuResult::INVALID_VALUE);
        if self.kind == ARRAY_OPERAND {
            let [array, x, y, z] = self.body;
            let array = std::ptr::without_provenance_mut(array as usize);
            let (y, z) = (y as usize, z as usize);
            return Ok(Side3D { memory_type: ARRAY, array, x_bytes: bytes(x as usize)?, y, z, ..side });
        }
        let [device, row, rows, _] = self.body;
        let or = |given: u64, least: usize| if given == 0 { least } else { given as usize };
        place(device, 1, Role::Unified)?;
        Ok(Side3D { device, pitch: bytes(or(row, width))?, rows: or(rows, height), ..side })
    }
}

/// cuMemPrefetchBatchAsync, cuMemDiscardBatchAsync, cuMemDiscardAndPrefetchBatchAsync: managed memory has nothing to move, and what may be discarded
/// may as well stay.
///
/// `locations` is how many places a prefetch names.
pub fn hints(
    addresses: &In<u64>,
    sizes: &In<usize>,
    count: usize,
    locations: Option<usize>,
    flags: u64,
    stream: u64,
) -> Outcome {
    in_stream(stream, || {
        if count == 0 || locations == Some(0) || flags != 0 {
            return Err(CuResult::INVALID_VALUE);
        }
        for index in 0..count {
            if !managed::is_managed(addresses.at(index)?, sizes.at(index)?) {
                return Err(CuResult::INVALID_VALUE);
            }
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_attribute_holds_until_the_next_begins() {
        let orders = [(0, 3), (2, 1), (5, 2)];
        let found: Vec<_> = (0..7).map(|copy| order_of(&orders, copy)).collect();
        assert_eq!(found, [3, 3, 1, 1, 1, 2, 2]);
    }

    fn read(firsts: &[usize], kinds: &[u32], copies: usize) -> Result<Vec<(usize, u32)>, CuResult> {
        let hint = [0; 2];
        let list: Vec<_> = kinds
            .iter()
            .map(|&source_access_order| CopyAttributes {
                source_access_order,
                source_hint: hint,
                target_hint: hint,
                flags: 0,
            })
            .collect();
        // SAFETY: lists of this frame, with as many elements as are stated.
        let (list, indices) = unsafe { (In::new(list.as_ptr()), In::new(firsts.as_ptr())) };
        orders(&Attributes { list, indices, count: firsts.len() }, copies)
    }

    #[test]
    fn attributes_begin_at_the_first_copy_and_ascend() {
        assert_eq!(read(&[0, 3], &[1, 2], 4), Ok(vec![(0, 1), (3, 2)]));
        for (firsts, kinds, copies) in [
            (&[1][..], &[1][..], 4),
            (&[0, 0], &[1, 1], 4),
            (&[0, 4], &[1, 1], 4),
            (&[0], &[0], 4),
            (&[0], &[4], 4),
            (&[0, 1, 2], &[1, 1, 1], 2),
            (&[], &[], 2),
            (&[0], &[1], 0),
        ] {
            assert_eq!(read(firsts, kinds, copies), Err(CuResult::INVALID_VALUE), "{firsts:?} of {copies}");
        }
    }
}
