//! Texture and surface objects: checked descriptions, and what kernels find under their handles.
//!
//! An object outlives nothing: a kernel that uses one whose array or memory is gone gets a fault. Neither does it promise memory: as on
//! hardware, nobody asks when it is made whether all its texels exist, and a kernel gets a fault where some do not.

use std::sync::Arc;

use lightos_softgpu_engine::exec::image::{AddressMode, Geometry, Sampler, Surface, Texels, Texture};

use crate::abi::image::{
    LinearResource, RESOURCE_ARRAY, RESOURCE_LINEAR, RESOURCE_MIPMAPPED_ARRAY, RESOURCE_PITCH2D,
    ResourceDesc, TextureDesc,
};
use crate::array::{self, SURFACE_LDST, format_of};
use crate::context;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::handle::{self, Table};
use crate::space::SPACE;

/// `CU_TRSF_READ_AS_INTEGER` and its like.
const READ_AS_INTEGER: u32 = 1;
const NORMALIZED_COORDINATES: u32 = 2;
const SRGB: u32 = 0x10;
/// Without levels and cube maps, these two change nothing.
const DISABLE_TRILINEAR_OPTIMIZATION: u32 = 0x20;
const SEAMLESS_CUBEMAP: u32 = 0x40;
const KNOWN_FLAGS: u32 =
    READ_AS_INTEGER | NORMALIZED_COORDINATES | SRGB | DISABLE_TRILINEAR_OPTIMIZATION | SEAMLESS_CUBEMAP;

/// Attributes that bound textures over linear memory.
const TEXTURE_ALIGNMENT: i32 = 14;
const PITCH_ALIGNMENT: i32 = 51;
const LINEAR_WIDTH: i32 = 69;
const PITCHED_WIDTH: i32 = 70;
const PITCHED_HEIGHT: i32 = 71;
const PITCHED_PITCH: i32 = 72;

/// An object with the descriptions that made it.
#[derive(Debug)]
pub struct Object<T> {
    context: u64,
    pub resource: ResourceDesc,
    /// Absent for surfaces.
    pub description: Option<TextureDesc>,
    machine: Arc<T>,
}

static TEXTURES: Table<Object<Texture>> = Table::new();
static SURFACES: Table<Object<Surface>> = Table::new();

impl<T> Object<T> {
    /// What a kernel finds; `None` once the array is gone.
    fn live(&self) -> Option<Arc<T>> {
        let is_there = self.resource.kind != RESOURCE_ARRAY || array::find(self.resource.array()).is_some();
        is_there.then(|| self.machine.clone())
    }
}

/// The texture object that a kernel names.
pub fn in_kernel(handle: u64) -> Option<Arc<Texture>> {
    TEXTURES.get(handle)?.live()
}

/// The surface object that a kernel names.
pub fn surface_in_kernel(handle: u64) -> Option<Arc<Surface>> {
    SURFACES.get(handle)?.live()
}

pub fn find(handle: u64) -> Result<Arc<Object<Texture>>> {
    TEXTURES.get(handle).ok_or(Error::INVALID_VALUE)
}

pub fn find_surface(handle: u64) -> Result<Arc<Object<Surface>>> {
    SURFACES.get(handle).ok_or(Error::INVALID_VALUE)
}

/// `cuTexObjectDestroy`.
pub fn destroy(handle: u64) -> Result {
    TEXTURES.remove(handle).map(drop).ok_or(Error::INVALID_VALUE)
}

/// `cuSurfObjectDestroy`.
pub fn destroy_surface(handle: u64) -> Result {
    SURFACES.remove(handle).map(drop).ok_or(Error::INVALID_VALUE)
}

/// Forgets the objects of a destroyed context.
pub(crate) fn forget_context(context: u64) {
    TEXTURES.retain(|object| object.context != context);
    SURFACES.retain(|object| object.context != context);
}

/// `cuTexObjectCreate`; `has_view` where the caller passed a resource view.
pub fn create(resource: &ResourceDesc, description: &TextureDesc, has_view: bool) -> Result<u64> {
    let context = context::healthy()?;
    if resource.flags != 0 {
        return Err(Error::INVALID_VALUE);
    }
    let texels = match resource.kind {
        RESOURCE_ARRAY => array::find(resource.array()).ok_or(Error::INVALID_VALUE)?.texels,
        RESOURCE_MIPMAPPED_ARRAY => return Err(Error::NOT_SUPPORTED),
        RESOURCE_LINEAR => linear(resource, context.device)?,
        RESOURCE_PITCH2D => pitched(resource, context.device)?,
        _ => return Err(Error::INVALID_VALUE),
    };
    if has_view {
        let is_array = resource.kind == RESOURCE_ARRAY;
        return Err(if is_array { Error::NOT_SUPPORTED } else { Error::INVALID_VALUE });
    }
    let texture = Texture { texels, sampler: sampler(description)? };
    if texels.geometry != Geometry::Linear && texture.sampler.linear && !texture.gives_floats() {
        return Err(Error::INVALID_VALUE);
    }
    let handle = handle::fresh();
    // Hardware does not give the border's colour back.
    let (resource, description) = (*resource, Some(TextureDesc { border: [0; 4], ..*description }));
    let machine = Arc::new(texture);
    TEXTURES.insert(handle, Arc::new(Object { context: context.handle, resource, description, machine }));
    Ok(handle)
}

/// `cuSurfObjectCreate`: over arrays that were made for it.
pub fn create_surface(resource: &ResourceDesc) -> Result<u64> {
    let context = context::healthy()?;
    if resource.kind != RESOURCE_ARRAY || resource.flags != 0 {
        return Err(Error::INVALID_VALUE);
    }
    let array = array::find(resource.array()).ok_or(Error::INVALID_VALUE)?;
    if array.descriptor.flags & SURFACE_LDST == 0 {
        return Err(Error::INVALID_VALUE);
    }
    let handle = handle::fresh();
    let machine = Arc::new(Surface(array.texels));
    let object = Object { context: context.handle, resource: *resource, description: None, machine };
    SURFACES.insert(handle, Arc::new(object));
    Ok(handle)
}

fn sampler(description: &TextureDesc) -> Result<Sampler> {
    let mode = |mode: u32| {
        Ok(match mode {
            0 => AddressMode::Wrap,
            1 => AddressMode::Clamp,
            2 => AddressMode::Mirror,
            3 => AddressMode::Border,
            _ => return Err(Error::INVALID_VALUE),
        })
    };
    let [x, y, z] = description.address;
    let flags = description.flags;
    if description.filter > 1 || description.mipmap_filter > 1 || flags & !KNOWN_FLAGS != 0 {
        return Err(Error::INVALID_VALUE);
    }
    if flags & SRGB != 0 {
        return Err(Error::NOT_SUPPORTED);
    }
    Ok(Sampler {
        address: [mode(x)?, mode(y)?, mode(z)?],
        linear: description.filter == 1,
        normalized: flags & NORMALIZED_COORDINATES != 0,
        as_integer: flags & READ_AS_INTEGER != 0,
        border: description.border,
    })
}

/// True where a value is between 1 and a device attribute.
fn within(device: Device, value: u64, attribute: i32) -> Result<bool> {
    Ok(value > 0 && value <= device.attribute(attribute)? as u64)
}

fn linear(resource: &ResourceDesc, device: Device) -> Result<Texels> {
    let LinearResource { address: start, format, channels } = resource.linear();
    let format = format_of(format, channels)?;
    let bytes = resource.linear_bytes();
    let width = bytes / u64::from(format.bytes() * channels);
    if !within(device, width, LINEAR_WIDTH)? {
        return Err(Error::INVALID_VALUE);
    }
    let geometry = Geometry::Linear;
    let width = width as u32;
    let texels = Texels { start, geometry, format, channels, width, height: 1, depth: 1, pitch: 0, slice: 0 };
    checked(texels, device)
}

fn pitched(resource: &ResourceDesc, device: Device) -> Result<Texels> {
    let LinearResource { address: start, format, channels } = resource.linear();
    let format = format_of(format, channels)?;
    let (width, height, pitch) = resource.pitched();
    // Hardware takes rows that overlap, and no rows at all.
    let fits = within(device, width, PITCHED_WIDTH)?
        && (height == 0 || within(device, height, PITCHED_HEIGHT)?)
        && within(device, pitch, PITCHED_PITCH)?;
    if !fits || !pitch.is_multiple_of(device.attribute(PITCH_ALIGNMENT)? as u64) {
        return Err(Error::INVALID_VALUE);
    }
    let (geometry, width, height) = (Geometry::D2, width as u32, height as u32);
    let texels = Texels { start, geometry, format, channels, width, height, depth: 1, pitch, slice: 0 };
    checked(texels, device)
}

/// Texels that begin in memory of the program, aligned.
fn checked(texels: Texels, device: Device) -> Result<Texels> {
    if !texels.start.is_multiple_of(device.attribute(TEXTURE_ALIGNMENT)? as u64) {
        return Err(Error::INVALID_VALUE);
    }
    SPACE.require(texels.start, 1)?;
    Ok(texels)
}
