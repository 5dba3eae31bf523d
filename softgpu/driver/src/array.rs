//! CUDA arrays: images in device memory whose layout the program does not see.
//!
//! Texels lie row by row. An array's memory is a range of the address space like any other, so freeing and context destruction
//! treat it as they treat allocations; its address is never given out.

pub mod mipmapped;

use std::sync::Arc;

use lightos_softgpu_engine::exec::image::{Format, Geometry, Texels};

use crate::abi::image::Array3dDescriptor;
use crate::context::{self, Context};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::handle::{self, Table};
use crate::memory;

/// `CUDA_ARRAY3D_LAYERED`, `SURFACE_LDST` and `TEXTURE_GATHER`.
const LAYERED: u32 = 1;
pub const SURFACE_LDST: u32 = 2;
const TEXTURE_GATHER: u32 = 8;
/// Every flag that CUDA 13.0 knows.
const KNOWN_FLAGS: u32 = 0x1ff;
/// Rows start at multiples of the widest access.
const ROW_ALIGNMENT: u64 = 16;

/// One array.
#[derive(Debug)]
pub struct Array {
    pub context: u64,
    pub descriptor: Array3dDescriptor,
    pub texels: Texels,
    /// The mipmapped array that it is a level of.
    pub mipmapped: Option<u64>,
}

static ARRAYS: Table<Array> = Table::new();

pub fn find(handle: u64) -> Option<Arc<Array>> {
    ARRAYS.get(handle)
}

/// A `CUarray_format` and a number of channels.
pub fn format_of(format: u32, channels: u32) -> Result<Format> {
    let format = match format {
        0x01 => Format::U8,
        0x02 => Format::U16,
        0x03 => Format::U32,
        0x08 => Format::S8,
        0x09 => Format::S16,
        0x0a => Format::S32,
        0x10 => Format::Half,
        0x20 => Format::Float,
        // Block-compressed, video and normalised formats.
        0x50 | 0x91..=0xd8 => return Err(Error::NOT_SUPPORTED),
        _ => return Err(Error::INVALID_VALUE),
    };
    if matches!(channels, 1 | 2 | 4) { Ok(format) } else { Err(Error::INVALID_VALUE) }
}

/// The geometry that extents and flags ask for.
fn geometry_of(descriptor: &Array3dDescriptor) -> Result<Geometry> {
    let Array3dDescriptor { width, height, depth, flags, .. } = *descriptor;
    if width == 0 || flags & !KNOWN_FLAGS != 0 {
        return Err(Error::INVALID_VALUE);
    }
    if flags & !(LAYERED | SURFACE_LDST | TEXTURE_GATHER) != 0 {
        return Err(Error::NOT_SUPPORTED);
    }
    let geometry = match (height, depth, flags & LAYERED != 0) {
        (0, 0, false) => Geometry::D1,
        (_, 0, false) => Geometry::D2,
        (1.., 1.., false) => Geometry::D3,
        (0, 1.., true) => Geometry::A1,
        (_, 1.., true) => Geometry::A2,
        _ => return Err(Error::INVALID_VALUE),
    };
    match geometry {
        Geometry::D2 => Ok(geometry),
        _ if flags & TEXTURE_GATHER != 0 => Err(Error::INVALID_VALUE),
        _ => Ok(geometry),
    }
}

/// Device attributes that bound width, height and depth; any one of the lists will do.
fn limits(geometry: Geometry, flags: u32) -> &'static [&'static [i32]] {
    if flags & SURFACE_LDST != 0 {
        return match geometry {
            Geometry::D1 | Geometry::Linear => &[&[55]],
            Geometry::D2 => &[&[56, 57]],
            Geometry::D3 => &[&[58, 59, 60]],
            Geometry::A1 => &[&[61, 62]],
            Geometry::A2 => &[&[63, 64, 65]],
        };
    }
    match geometry {
        Geometry::D1 | Geometry::Linear => &[&[21]],
        Geometry::D2 if flags & TEXTURE_GATHER != 0 => &[&[45, 46]],
        Geometry::D2 => &[&[22, 23]],
        Geometry::D3 => &[&[24, 25, 26], &[47, 48, 49]],
        Geometry::A1 => &[&[42, 43]],
        Geometry::A2 => &[&[27, 28, 29]],
    }
}

fn check_extents(descriptor: &Array3dDescriptor, limits: &[&[i32]], device: Device) -> Result {
    let extents = [descriptor.width, descriptor.height, descriptor.depth];
    let used = extents.iter().filter(|extent| **extent > 0);
    let within = |list: &&[i32]| {
        let holds =
            |(extent, id): (&usize, &i32)| device.attribute(*id).is_ok_and(|most| *extent <= most as usize);
        used.clone().zip(list.iter()).all(holds)
    };
    if limits.iter().any(within) { Ok(()) } else { Err(Error::INVALID_VALUE) }
}

/// `cuArray3DCreate`; `cuArrayCreate` has neither depth nor flags.
pub fn create(descriptor: &Array3dDescriptor) -> Result<u64> {
    let context = context::healthy()?;
    let geometry = geometry_of(descriptor)?;
    check_extents(descriptor, limits(geometry, descriptor.flags), context.device)?;
    make(&context, descriptor, None)
}

/// Makes an array of extents that were checked.
fn make(context: &Context, descriptor: &Array3dDescriptor, mipmapped: Option<u64>) -> Result<u64> {
    let format = format_of(descriptor.format, descriptor.channels)?;
    let geometry = geometry_of(descriptor)?;
    let row = descriptor.width as u64 * u64::from(format.bytes() * descriptor.channels);
    let (height, depth) = (descriptor.height.max(1), descriptor.depth.max(1));
    let pitch = row.next_multiple_of(ROW_ALIGNMENT);
    let slice = pitch * height as u64;
    let start = memory::allocate_array(context, slice * depth as u64)?;
    let texels = Texels {
        start,
        geometry,
        format,
        channels: descriptor.channels,
        width: descriptor.width as u32,
        height: height as u32,
        depth: depth as u32,
        pitch,
        slice,
    };
    let handle = handle::fresh();
    ARRAYS.insert(
        handle,
        Arc::new(Array { context: context.handle, descriptor: *descriptor, texels, mipmapped }),
    );
    Ok(handle)
}

/// `cuArrayDestroy`.
pub fn destroy(handle: u64) -> Result {
    let context = context::healthy()?;
    // A level ends with its mipmapped array alone.
    find(handle).filter(|array| array.mipmapped.is_none()).ok_or(Error::INVALID_HANDLE)?;
    let array = ARRAYS.remove(handle).ok_or(Error::INVALID_HANDLE)?;
    context.synchronize()?;
    memory::free_array(array.texels.start);
    Ok(())
}

/// Forgets the arrays of a destroyed context; their memory goes with its other memory.
pub(crate) fn forget_context(context: u64) {
    ARRAYS.retain(|array| array.context != context);
    mipmapped::forget_context(context);
}

impl Array {
    /// The address of a box of bytes, rows and slices inside the array. As on hardware, it may begin and end inside a texel.
    pub fn place(&self, at: [u64; 3], size: [u64; 3]) -> Result<u64> {
        let texels = &self.texels;
        let extents = [texels.row_bytes(), u64::from(texels.height), u64::from(texels.depth)];
        let fits = |((at, size), extent): ((u64, u64), u64)| at <= extent && size <= extent - at;
        if !at.into_iter().zip(size).zip(extents).all(fits) {
            return Err(Error::INVALID_VALUE);
        }
        Ok(texels.start + at[2] * texels.slice + at[1] * texels.pitch + at[0])
    }
}
