//! Texture and surface objects. The program holds this process's own values, because its kernels read them from their parameters.
//!
//! Owned by the ring thread. An object names arrays that the program made, or memory by its address.

use std::collections::HashSet;

use lightos_protocol::request::texture::{RESOURCE_VIEW_DESC_WORDS, TEXTURE_DESC_WORDS};
use lightos_protocol::request::{Reply, ResourceDescriptor, TextureDescriptor, TextureRequest};

use super::Executor;
use super::driver::{CuError, check, sys};

/// `CUresourcetype`.
const ARRAY: u32 = 0;
const MIPMAPPED_ARRAY: u32 = 1;
const LINEAR: u32 = 2;
const PITCH2D: u32 = 3;

/// The program's texture and surface objects.
#[derive(Debug, Default)]
pub(crate) struct Textures {
    textures: HashSet<u64>,
    surfaces: HashSet<u64>,
}

/// `CUDA_RESOURCE_DESC`, whose enums stay numbers: the program chose them.
#[repr(C)]
struct ResourceDesc {
    kind: u32,
    words: [u64; 16],
    flags: u32,
}

const _: () = {
    assert!(size_of::<ResourceDesc>() == size_of::<sys::CUDA_RESOURCE_DESC>());
    assert!(size_of::<[u32; TEXTURE_DESC_WORDS]>() == size_of::<sys::CUDA_TEXTURE_DESC>());
    assert!(size_of::<[u64; RESOURCE_VIEW_DESC_WORDS]>() == size_of::<sys::CUDA_RESOURCE_VIEW_DESC>());
};

impl Executor {
    /// Executes a cold call about textures and surfaces.
    pub(crate) fn texture_request(&mut self, request: TextureRequest) -> Result<Reply, CuError> {
        match request {
            TextureRequest::Create(wanted) => {
                let TextureDescriptor { resource, texture, view } = *wanted;
                let resource = self.resource(&resource)?;
                let view = view.as_ref().map_or(std::ptr::null(), |view| view.as_ptr().cast());
                let (mut object, resource, texture) = (0, &raw const resource, texture.as_ptr().cast());
                // SAFETY: a valid out-pointer; the three descriptions have the C layouts and name what is the program's (`resource`).
                check(unsafe { sys::cuTexObjectCreate(&mut object, resource.cast(), texture, view) })?;
                self.textures.textures.insert(object);
                return Ok(Reply::U64(object));
            }
            TextureRequest::Destroy { object } => {
                self.textures.textures.take(&object).ok_or(CuError::INVALID_VALUE)?;
                // SAFETY: the object was ours and has just left the table.
                check(unsafe { sys::cuTexObjectDestroy(object) })?;
            }
            TextureRequest::CreateSurface { resource } => {
                let (mut object, resource) = (0, self.resource(&resource)?);
                // SAFETY: as above.
                check(unsafe { sys::cuSurfObjectCreate(&mut object, (&raw const resource).cast()) })?;
                self.textures.surfaces.insert(object);
                return Ok(Reply::U64(object));
            }
            TextureRequest::DestroySurface { object } => {
                self.textures.surfaces.take(&object).ok_or(CuError::INVALID_VALUE)?;
                // SAFETY: as above.
                check(unsafe { sys::cuSurfObjectDestroy(object) })?;
            }
            TextureRequest::ModuleReference { reference, module, name, surface } => {
                self.module_reference(reference, module, name, surface)?;
            }
            TextureRequest::CreateReference { reference } => self.references.create(reference)?,
            TextureRequest::DestroyReference { reference } => self.references.destroy(reference)?,
            TextureRequest::SetReference { reference, state } => {
                return self.set_reference(reference, state);
            }
            TextureRequest::SetSurfaceReference { reference, array, flags } => {
                self.set_surface_reference(reference, array, flags)?;
            }
        }
        Ok(Reply::Done)
    }

    /// The driver's description of a resource of the program's.
    fn resource(&self, wanted: &ResourceDescriptor) -> Result<ResourceDesc, CuError> {
        let ResourceDescriptor { kind, mut words, flags } = *wanted;
        match kind {
            ARRAY => words[0] = self.arrays.raw(words[0])?.expose_provenance() as u64,
            MIPMAPPED_ARRAY => words[0] = self.arrays.raw_mipmapped(words[0])?.expose_provenance() as u64,
            // The driver judges the shape, and nobody the range: a kernel may read at any address, with a texture or without.
            LINEAR | PITCH2D => {}
            _ => return Err(CuError::INVALID_VALUE),
        }
        Ok(ResourceDesc { kind, words, flags })
    }
}
