//! Hooks of the functions on texture and surface objects and references.

use super::hooks;
use crate::edge::{In, Name, Out};
use crate::ops::texture::reference::{self, Rows};
use crate::ops::texture::{self as ops, ResourceDesc, TextureDesc, ViewDesc};
use lightos_protocol::request::ReferenceState as State;
use std::ffi::c_char;

hooks! {
    area texture;
    fn cuTexObjectCreate(
        out: *mut u64, resource: *const ResourceDesc, texture: *const TextureDesc, view: *const ViewDesc,
    ) => ops::create(Out::new(out), In::new(resource), In::new(texture), In::new(view));
    fn cuTexObjectDestroy(object: u64) => ops::destroy(object);
    fn cuTexObjectGetResourceDesc(out: *mut ResourceDesc, object: u64) => ops::resource(Out::new(out), object);
    fn cuTexObjectGetTextureDesc(out: *mut TextureDesc, object: u64) => ops::description(Out::new(out), object);
    fn cuTexObjectGetResourceViewDesc(out: *mut ViewDesc, object: u64) => ops::view(Out::new(out), object);
    fn cuSurfObjectCreate(out: *mut u64, resource: *const ResourceDesc)
        => ops::create_surface(Out::new(out), In::new(resource));
    fn cuSurfObjectDestroy(object: u64) => ops::destroy_surface(object);
    fn cuSurfObjectGetResourceDesc(out: *mut ResourceDesc, object: u64)
        => ops::surface_resource(Out::new(out), object);
    fn cuModuleGetTexRef(out: *mut u64, module: u64, name: *const c_char) => reference::of_module(
        Out::new(out), module, Name::new(name), false, |out| real::cuModuleGetTexRef(out, module, name),
    );
    fn cuModuleGetSurfRef(out: *mut u64, module: u64, name: *const c_char) => reference::of_module(
        Out::new(out), module, Name::new(name), true, |out| real::cuModuleGetSurfRef(out, module, name),
    );
    fn cuTexRefCreate(out: *mut u64) => reference::create(Out::new(out), |out| real::cuTexRefCreate(out));
    fn cuTexRefDestroy(texture: u64) => reference::destroy(texture, || real::cuTexRefDestroy(texture));
    fn cuTexRefSetArray(texture: u64, array: u64, flags: u32) => reference::set(
        texture, State::Array { array, flags }, || real::cuTexRefSetArray(texture, array, flags),
    );
    fn cuTexRefSetMipmappedArray(texture: u64, mipmapped: u64, flags: u32) => reference::set(
        texture, State::MipmappedArray { mipmapped, flags },
        || real::cuTexRefSetMipmappedArray(texture, mipmapped, flags),
    );
    fn cuTexRefSetAddress_v2(offset: *mut usize, texture: u64, address: u64, bytes: usize) => reference::set_address(
        texture, Out::new(offset), address, bytes,
        |offset| real::cuTexRefSetAddress_v2(offset, texture, address, bytes),
    );
    fn cuTexRefSetAddress2D_v3(texture: u64, rows: *const Rows, address: u64, pitch: usize)
        => reference::set_rows(
            texture, In::new(rows), address, pitch, || real::cuTexRefSetAddress2D_v3(texture, rows, address, pitch),
        );
    fn cuTexRefGetAddress_v2(out: *mut u64, texture: u64) => reference::address(Out::new(out), texture);
    fn cuTexRefSetFormat(texture: u64, format: u32, channels: i32) => reference::set(
        texture, State::Format { format, channels }, || real::cuTexRefSetFormat(texture, format, channels),
    );
    fn cuTexRefSetAddressMode(texture: u64, dimension: i32, mode: u32) => reference::set(
        texture, State::AddressMode { dimension, mode }, || real::cuTexRefSetAddressMode(texture, dimension, mode),
    );
    fn cuTexRefSetFilterMode(texture: u64, mode: u32)
        => reference::set(texture, State::FilterMode(mode), || real::cuTexRefSetFilterMode(texture, mode));
    fn cuTexRefSetMipmapFilterMode(texture: u64, mode: u32) => reference::set(
        texture, State::MipmapFilterMode(mode), || real::cuTexRefSetMipmapFilterMode(texture, mode),
    );
    fn cuTexRefSetMipmapLevelBias(texture: u64, bias: f32) => reference::set(
        texture, State::MipmapLevelBias(bias), || real::cuTexRefSetMipmapLevelBias(texture, bias),
    );
    fn cuTexRefSetMipmapLevelClamp(texture: u64, low: f32, high: f32) => reference::set(
        texture, State::MipmapLevelClamp(low, high), || real::cuTexRefSetMipmapLevelClamp(texture, low, high),
    );
    fn cuTexRefSetMaxAnisotropy(texture: u64, most: u32)
        => reference::set(texture, State::MaxAnisotropy(most), || real::cuTexRefSetMaxAnisotropy(texture, most));
    fn cuTexRefSetBorderColor(texture: u64, color: *const [f32; 4]) => reference::set_border(
        texture, In::new(color), || real::cuTexRefSetBorderColor(texture, color),
    );
    fn cuTexRefSetFlags(texture: u64, flags: u32)
        => reference::set(texture, State::Flags(flags), || real::cuTexRefSetFlags(texture, flags));
    fn cuSurfRefSetArray(surface: u64, array: u64, flags: u32)
        => reference::set_surface(surface, array, flags, || real::cuSurfRefSetArray(surface, array, flags));
}
