//! Texture and surface objects.

use crate::abi::image::{ResourceDesc, ResourceViewDesc, TextureDesc};
use crate::edge::{exports, get, put};
use crate::error::Error;
use crate::{context, texture};

exports! { TABLE:
    entry cuTexObjectCreate: (
        out: *mut u64, resource: *const ResourceDesc, description: *const TextureDesc, view: *const ResourceViewDesc
    ) {
        let (resource, description) = (get(resource)?, get(description)?);
        if out.is_null() {
            return Err(Error::INVALID_VALUE);
        }
        put(out, texture::create(&resource, &description, !view.is_null())?)
    }
    entry cuTexObjectDestroy: (object: u64) {
        context::healthy()?;
        texture::destroy(object)
    }
    entry cuTexObjectGetResourceDesc: (out: *mut ResourceDesc, object: u64) {
        context::current()?;
        put(out, texture::find(object)?.resource)
    }
    entry cuTexObjectGetTextureDesc: (out: *mut TextureDesc, object: u64) {
        context::current()?;
        put(out, texture::find(object)?.description.ok_or(Error::INVALID_VALUE)?)
    }
    entry cuTexObjectGetResourceViewDesc: (out: *mut ResourceViewDesc, object: u64) {
        context::current()?;
        texture::find(object)?;
        // No object has a view; of one without hardware says that it is all zeros.
        put(out, ResourceViewDesc::default())
    }
    entry cuSurfObjectCreate: (out: *mut u64, resource: *const ResourceDesc) {
        let resource = get(resource)?;
        if out.is_null() { Err(Error::INVALID_VALUE) } else { put(out, texture::create_surface(&resource)?) }
    }
    entry cuSurfObjectDestroy: (object: u64) {
        context::healthy()?;
        texture::destroy_surface(object)
    }
    entry cuSurfObjectGetResourceDesc: (out: *mut ResourceDesc, object: u64) {
        context::current()?;
        put(out, texture::find_surface(object)?.resource)
    }
}
