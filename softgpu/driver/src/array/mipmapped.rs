//! Mipmapped arrays: arrays of falling size, each of which is one that copies and surfaces take. Textures over all levels are not served.

use std::sync::Arc;

use lightos_softgpu_engine::exec::image::Geometry;

use super::{ARRAYS, Array, LAYERED, check_extents, geometry_of, limits, make};
use crate::abi::image::Array3dDescriptor;
use crate::context;
use crate::error::{Error, Result};
use crate::handle::{self, Table};
use crate::memory;

/// One mipmapped array.
#[derive(Debug)]
pub struct Mipmapped {
    context: u64,
    levels: Vec<u64>,
}

static MIPMAPPED: Table<Mipmapped> = Table::new();

pub fn find(handle: u64) -> Result<Arc<Mipmapped>> {
    MIPMAPPED.get(handle).ok_or(Error::INVALID_HANDLE)
}

/// The descriptor of a level. Layers are not halved.
fn level_of(first: &Array3dDescriptor, level: u32) -> Array3dDescriptor {
    let halved = |extent: usize| if extent == 0 { 0 } else { (extent >> level).max(1) };
    let depth = if first.flags & LAYERED != 0 { first.depth } else { halved(first.depth) };
    Array3dDescriptor { width: halved(first.width), height: halved(first.height), depth, ..*first }
}

/// `cuMipmappedArrayCreate`; the number of levels is clamped to what the extents give.
pub fn create(first: &Array3dDescriptor, levels: u32) -> Result<u64> {
    let context = context::healthy()?;
    let geometry = geometry_of(first)?;
    let bounds: &[&[i32]] = match geometry {
        Geometry::D1 => &[&[77]],
        Geometry::D2 => &[&[73, 74]],
        _ => limits(geometry, first.flags),
    };
    check_extents(first, bounds, context.device)?;
    let depth = if first.flags & LAYERED != 0 { 0 } else { first.depth };
    let longest = first.width.max(first.height).max(depth);
    let levels = levels.clamp(1, longest.ilog2() + 1);
    let handle = handle::fresh();
    let mut made = Vec::new();
    for level in 0..levels {
        match make(&context, &level_of(first, level), Some(handle)) {
            Ok(level) => made.push(level),
            Err(error) => {
                free(&made);
                return Err(error);
            }
        }
    }
    MIPMAPPED.insert(handle, Arc::new(Mipmapped { context: context.handle, levels: made }));
    Ok(handle)
}

/// `cuMipmappedArrayGetLevel`.
pub fn level(handle: u64, level: u32) -> Result<u64> {
    context::healthy()?;
    find(handle)?.levels.get(level as usize).copied().ok_or(Error::INVALID_VALUE)
}

/// `cuMipmappedArrayDestroy`.
pub fn destroy(handle: u64) -> Result {
    let context = context::healthy()?;
    let mipmapped = MIPMAPPED.remove(handle).ok_or(Error::INVALID_HANDLE)?;
    context.synchronize()?;
    free(&mipmapped.levels);
    Ok(())
}

fn free(levels: &[u64]) {
    let arrays = levels.iter().filter_map(|level| ARRAYS.remove(*level));
    arrays.for_each(|array: Arc<Array>| memory::free_array(array.texels.start));
}

/// Forgets those of a destroyed context, whose levels are forgotten as arrays.
pub(super) fn forget_context(context: u64) {
    MIPMAPPED.retain(|mipmapped| mipmapped.context != context);
}
