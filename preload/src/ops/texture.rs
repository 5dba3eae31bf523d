//! Texture and surface objects. A kernel reads an object from its parameters, so the program holds the executor's value, and what it
//! asks about an object is answered from the descriptions that it made the object from.
//!
//! The executor's driver judges a description: its arrays have the properties of the local ones, and the memory is the same.

pub mod reference;

use super::memory::sidecar;
use super::{array, context};
use crate::edge::{In, Out};
use crate::outcome::{Outcome, Reason};
use crate::result::CuResult;
use crate::session::Session;
use lightos_protocol::request::texture::{RESOURCE_VIEW_DESC_WORDS, TEXTURE_DESC_WORDS};
use lightos_protocol::request::{Reply, Request, ResourceDescriptor, TextureDescriptor, TextureRequest};
use rustc_hash::FxHashMap;
use std::ops::Range;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

/// `CUDA_RESOURCE_DESC`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResourceDesc {
    /// `CUresourcetype`.
    kind: u32,
    /// The union: an array's handle comes first.
    words: [u64; 16],
    flags: u32,
}

/// `CUDA_TEXTURE_DESC`.
pub type TextureDesc = [u32; TEXTURE_DESC_WORDS];
/// `CUDA_RESOURCE_VIEW_DESC`.
pub type ViewDesc = [u64; RESOURCE_VIEW_DESC_WORDS];

/// Words of `borderColor` in a [`TextureDesc`].
const BORDER_COLOR: Range<usize> = 10..14;

/// `CUresourcetype`.
const ARRAY: u32 = 0;
const MIPMAPPED_ARRAY: u32 = 1;

/// What a texture object was made from.
#[derive(Clone, Copy, Debug)]
struct Texture {
    resource: ResourceDesc,
    texture: TextureDesc,
    view: Option<ViewDesc>,
    /// The `CUcontext` with whose end it ends.
    context: u64,
}

/// What a surface object was made from.
#[derive(Clone, Copy, Debug)]
struct Surface {
    resource: ResourceDesc,
    /// As [`Texture::context`].
    context: u64,
}

type Table<T> = LazyLock<Mutex<FxHashMap<u64, T>>>;

static TEXTURES: Table<Texture> = LazyLock::new(Default::default);
static SURFACES: Table<Surface> = LazyLock::new(Default::default);

/// The local driver says what is wrong with the handle.
const UNKNOWN: Outcome = Outcome::PassThrough(Reason::InvalidArgument);

fn lock<T>(table: &'static Table<T>) -> MutexGuard<'static, FxHashMap<u64, T>> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The description for the executor.
///
/// # Errors
/// What becomes of a call that names an array which the executor does not have.
fn described(resource: &ResourceDesc) -> Result<ResourceDescriptor, Outcome> {
    let ResourceDesc { kind, words, flags } = *resource;
    if kind == ARRAY {
        array::find(words[0])?;
    }
    if kind == MIPMAPPED_ARRAY && !array::is_mipmapped(words[0]) {
        return Err(UNKNOWN);
    }
    Ok(ResourceDescriptor { kind, words, flags })
}

fn object(request: TextureRequest) -> Result<u64, CuResult> {
    match sidecar()?.call(&Request::Texture(request))? {
        Reply::U64(object) => Ok(object),
        _ => Err(CuResult::UNKNOWN),
    }
}

/// cuTexObjectCreate.
pub fn create(
    out: Out<u64>,
    resource: In<ResourceDesc>,
    texture: In<TextureDesc>,
    view: In<ViewDesc>,
) -> Result<Outcome, CuResult> {
    context::check()?;
    let (resource, texture, view) = (resource.get()?, texture.get()?, view.get().ok());
    let out = out.required()?;
    let described = match described(&resource) {
        Ok(described) => described,
        Err(outcome) => return Ok(outcome),
    };
    let wanted = TextureDescriptor { resource: described, texture, view };
    let made = object(TextureRequest::Create(Box::new(wanted)))?;
    lock(&TEXTURES).insert(made, Texture { resource, texture, view, context: context::current() });
    out.put(made);
    Ok(Outcome::Done)
}

/// cuTexObjectDestroy.
pub fn destroy(object: u64) -> Result<Outcome, CuResult> {
    context::check()?;
    if lock(&TEXTURES).remove(&object).is_none() {
        return Ok(UNKNOWN);
    }
    sidecar()?.cast(&Request::Texture(TextureRequest::Destroy { object }))?;
    Ok(Outcome::Done)
}

/// cuSurfObjectCreate.
pub fn create_surface(out: Out<u64>, resource: In<ResourceDesc>) -> Result<Outcome, CuResult> {
    context::check()?;
    let resource = resource.get()?;
    let out = out.required()?;
    let described = match described(&resource) {
        Ok(described) => described,
        Err(outcome) => return Ok(outcome),
    };
    let made = object(TextureRequest::CreateSurface { resource: described })?;
    lock(&SURFACES).insert(made, Surface { resource, context: context::current() });
    out.put(made);
    Ok(Outcome::Done)
}

/// cuSurfObjectDestroy.
pub fn destroy_surface(object: u64) -> Result<Outcome, CuResult> {
    context::check()?;
    if lock(&SURFACES).remove(&object).is_none() {
        return Ok(UNKNOWN);
    }
    sidecar()?.cast(&Request::Texture(TextureRequest::DestroySurface { object }))?;
    Ok(Outcome::Done)
}

/// The objects of a context that has ended.
pub fn end_of_context(session: &Session, context: u64) {
    for (object, _) in lock(&TEXTURES).extract_if(|_, texture| texture.context == context) {
        let _ = session.cast(&Request::Texture(TextureRequest::Destroy { object }));
    }
    for (object, _) in lock(&SURFACES).extract_if(|_, surface| surface.context == context) {
        let _ = session.cast(&Request::Texture(TextureRequest::DestroySurface { object }));
    }
}

/// Answers a question about a known object.
fn answer<T, U>(
    table: &'static Table<T>,
    out: Out<U>,
    object: u64,
    part: impl FnOnce(&T) -> U,
) -> Result<Outcome, CuResult> {
    context::check()?;
    let Some(found) = lock(table).get(&object).map(part) else { return Ok(UNKNOWN) };
    out.required()?.put(found);
    Ok(Outcome::Done)
}

/// cuTexObjectGetResourceDesc.
pub fn resource(out: Out<ResourceDesc>, object: u64) -> Result<Outcome, CuResult> {
    answer(&TEXTURES, out, object, |texture| texture.resource)
}

/// cuTexObjectGetTextureDesc. The driver reports no border colour (seen in driver 580).
pub fn description(out: Out<TextureDesc>, object: u64) -> Result<Outcome, CuResult> {
    answer(&TEXTURES, out, object, |texture| {
        let mut found = texture.texture;
        found[BORDER_COLOR].fill(0);
        found
    })
}

/// cuTexObjectGetResourceViewDesc: all zeros for an object without a view.
pub fn view(out: Out<ViewDesc>, object: u64) -> Result<Outcome, CuResult> {
    answer(&TEXTURES, out, object, |texture| texture.view.unwrap_or([0; RESOURCE_VIEW_DESC_WORDS]))
}

/// cuSurfObjectGetResourceDesc.
pub fn surface_resource(out: Out<ResourceDesc>, object: u64) -> Result<Outcome, CuResult> {
    answer(&SURFACES, out, object, |surface| surface.resource)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cudarc::driver::sys;

    #[test]
    fn the_structs_have_the_layout_of_the_driver_s() {
        use std::mem::offset_of;
        assert_eq!(size_of::<ResourceDesc>(), size_of::<sys::CUDA_RESOURCE_DESC>());
        assert_eq!(offset_of!(ResourceDesc, words), offset_of!(sys::CUDA_RESOURCE_DESC, res));
        assert_eq!(offset_of!(ResourceDesc, flags), offset_of!(sys::CUDA_RESOURCE_DESC, flags));
        assert_eq!(size_of::<TextureDesc>(), size_of::<sys::CUDA_TEXTURE_DESC>());
        assert_eq!(BORDER_COLOR.start * 4, offset_of!(sys::CUDA_TEXTURE_DESC, borderColor));
        assert_eq!(size_of::<ViewDesc>(), size_of::<sys::CUDA_RESOURCE_VIEW_DESC>());
    }
}
