//! Texture and surface references of the program's modules, under its own handle values.
//!
//! Owned by the ring thread. A reference's settings take effect for the launches behind them, so they keep their place in the
//! ring; the queries are answered by the program's own driver.

use std::ffi::CString;

use lightos_protocol::request::{ArrayDescriptor, ReferenceState, Reply};
use rustc_hash::FxHashMap;

use super::Executor;
use super::driver::{CuError, check, sys};
use super::modules::Loaded;

/// The program's references.
#[derive(Debug, Default)]
pub(crate) struct References {
    textures: FxHashMap<u64, Texture>,
    surfaces: FxHashMap<u64, Surface>,
}

#[derive(Debug, Clone, Copy)]
struct Texture {
    raw: sys::CUtexref,
    /// The program's module; none for one that it created.
    module: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
struct Surface {
    raw: sys::CUsurfref,
    module: u64,
}

/// `CUDA_ARRAY_DESCRIPTOR`, whose format stays a number.
#[repr(C)]
struct Descriptor {
    width: usize,
    height: usize,
    format: u32,
    channels: u32,
}

const _: () = assert!(size_of::<Descriptor>() == size_of::<sys::CUDA_ARRAY_DESCRIPTOR>());

impl References {
    fn texture(&self, reference: u64) -> Result<sys::CUtexref, CuError> {
        self.textures.get(&reference).map(|texture| texture.raw).ok_or(CuError::INVALID_HANDLE)
    }

    pub(super) fn create(&mut self, reference: u64) -> Result<(), CuError> {
        let mut raw = std::ptr::null_mut();
        // SAFETY: a valid out-pointer.
        check(unsafe { sys::cuTexRefCreate(&mut raw) })?;
        self.textures.insert(reference, Texture { raw, module: None });
        Ok(())
    }

    pub(super) fn destroy(&mut self, reference: u64) -> Result<(), CuError> {
        let Some(&Texture { raw, module: None }) = self.textures.get(&reference) else {
            return Err(CuError::INVALID_HANDLE);
        };
        self.textures.remove(&reference);
        // SAFETY: created in `create`, and has just left the table.
        check(unsafe { sys::cuTexRefDestroy(raw) })
    }

    /// Forgets those of modules that are gone.
    pub(super) fn keep(&mut self, is_there: impl Fn(u64) -> bool) {
        self.textures.retain(|_, texture| texture.module.is_none_or(&is_there));
        self.surfaces.retain(|_, surface| is_there(surface.module));
    }
}

impl Executor {
    /// Finds a reference of a module that the program has found in its own.
    pub(super) fn module_reference(
        &mut self,
        reference: u64,
        module: u64,
        name: String,
        surface: bool,
    ) -> Result<(), CuError> {
        let name = CString::new(name).map_err(|_| CuError::INVALID_VALUE)?;
        let loaded = match self.modules.loaded(module, false)? {
            Loaded::Module(raw) => raw,
            Loaded::Library(library) => {
                let mut raw = std::ptr::null_mut();
                // SAFETY: the library is live and the out-pointer valid.
                check(unsafe { sys::cuLibraryGetModule(&mut raw, library) })?;
                raw
            }
        };
        if surface {
            let mut raw = std::ptr::null_mut();
            // SAFETY: the module is live, the name a C string, the out-pointer valid.
            check(unsafe { sys::cuModuleGetSurfRef(&mut raw, loaded, name.as_ptr()) })?;
            self.references.surfaces.insert(reference, Surface { raw, module });
        } else {
            let mut raw = std::ptr::null_mut();
            // SAFETY: as above.
            check(unsafe { sys::cuModuleGetTexRef(&mut raw, loaded, name.as_ptr()) })?;
            self.references.textures.insert(reference, Texture { raw, module: Some(module) });
        }
        Ok(())
    }

    pub(super) fn set_surface_reference(
        &mut self,
        reference: u64,
        array: u64,
        flags: u32,
    ) -> Result<(), CuError> {
        let surface = self.references.surfaces.get(&reference).ok_or(CuError::INVALID_HANDLE)?.raw;
        let array = self.arrays.raw(array)?;
        // SAFETY: both are live.
        check(unsafe { sys::cuSurfRefSetArray(surface, array, flags) })
    }

    /// Changes one setting of a texture reference.
    pub(super) fn set_reference(&mut self, reference: u64, state: ReferenceState) -> Result<Reply, CuError> {
        let texture = self.references.texture(reference)?;
        if let ReferenceState::Address { address, bytes, takes_offset } = state {
            // Without memory, the reference is unbound.
            if address != 0 {
                self.check_program_memory(address, 0, bytes, 1)?;
            }
            let mut offset = 0;
            let out = if takes_offset { &raw mut offset } else { std::ptr::null_mut() };
            // SAFETY: the reference is live, the memory the program's, and the out-pointer valid or null.
            check(unsafe { sys::cuTexRefSetAddress_v2(out, texture, address, bytes as usize) })?;
            return Ok(Reply::U64(offset as u64));
        }
        // SAFETY: the reference is live, and so is every array; enums are variants, and pointers valid for the call.
        check(unsafe {
            match state {
                ReferenceState::Address { .. } => sys::CUresult::CUDA_SUCCESS,
                ReferenceState::Array { array, flags } => {
                    sys::cuTexRefSetArray(texture, self.arrays.raw(array)?, flags)
                }
                ReferenceState::MipmappedArray { mipmapped, flags } => {
                    sys::cuTexRefSetMipmappedArray(texture, self.arrays.raw_mipmapped(mipmapped)?, flags)
                }
                ReferenceState::Address2D { descriptor, address, pitch } => {
                    let descriptor = self.rows(descriptor, address, pitch)?;
                    let descriptor = (&raw const descriptor).cast();
                    sys::cuTexRefSetAddress2D_v3(texture, descriptor, address, pitch as usize)
                }
                ReferenceState::Format { format, channels } => {
                    sys::cuTexRefSetFormat(texture, array_format(format)?, channels)
                }
                ReferenceState::AddressMode { dimension, mode } => {
                    sys::cuTexRefSetAddressMode(texture, dimension, address_mode(mode)?)
                }
                ReferenceState::FilterMode(mode) => sys::cuTexRefSetFilterMode(texture, filter_mode(mode)?),
                ReferenceState::MipmapFilterMode(mode) => {
                    sys::cuTexRefSetMipmapFilterMode(texture, filter_mode(mode)?)
                }
                ReferenceState::MipmapLevelBias(bias) => sys::cuTexRefSetMipmapLevelBias(texture, bias),
                ReferenceState::MipmapLevelClamp(low, high) => {
                    sys::cuTexRefSetMipmapLevelClamp(texture, low, high)
                }
                ReferenceState::MaxAnisotropy(most) => sys::cuTexRefSetMaxAnisotropy(texture, most),
                ReferenceState::BorderColor(mut color) => {
                    sys::cuTexRefSetBorderColor(texture, color.as_mut_ptr())
                }
                ReferenceState::Flags(flags) => sys::cuTexRefSetFlags(texture, flags),
            }
        })?;
        Ok(Reply::Done)
    }

    /// The driver's description of rows of the program's memory.
    fn rows(&self, from: ArrayDescriptor, address: u64, pitch: u64) -> Result<Descriptor, CuError> {
        let row_bytes = element_bytes(from.format, from.channels)
            .and_then(|bytes| bytes.checked_mul(from.width))
            .ok_or(CuError::INVALID_VALUE)?;
        self.check_program_memory(address, pitch, row_bytes, from.height)?;
        let (width, height) = (from.width as usize, from.height as usize);
        Ok(Descriptor { width, height, format: from.format, channels: from.channels })
    }
}

/// Bytes of an element of linear memory, by `CUarray_format` and channels.
fn element_bytes(format: u32, channels: u32) -> Option<u64> {
    let channel = match format {
        0x01 | 0x08 => 1,
        0x02 | 0x09 | 0x10 => 2,
        0x03 | 0x0a | 0x20 => 4,
        _ => return None,
    };
    matches!(channels, 1 | 2 | 4).then_some(channel * u64::from(channels))
}

fn array_format(format: u32) -> Result<sys::CUarray_format, CuError> {
    use sys::CUarray_format as Format;
    Ok(match format {
        0x01 => Format::CU_AD_FORMAT_UNSIGNED_INT8,
        0x02 => Format::CU_AD_FORMAT_UNSIGNED_INT16,
        0x03 => Format::CU_AD_FORMAT_UNSIGNED_INT32,
        0x08 => Format::CU_AD_FORMAT_SIGNED_INT8,
        0x09 => Format::CU_AD_FORMAT_SIGNED_INT16,
        0x0a => Format::CU_AD_FORMAT_SIGNED_INT32,
        0x10 => Format::CU_AD_FORMAT_HALF,
        0x20 => Format::CU_AD_FORMAT_FLOAT,
        _ => return Err(CuError::INVALID_VALUE),
    })
}

fn address_mode(mode: u32) -> Result<sys::CUaddress_mode, CuError> {
    use sys::CUaddress_mode as Mode;
    Ok(match mode {
        0 => Mode::CU_TR_ADDRESS_MODE_WRAP,
        1 => Mode::CU_TR_ADDRESS_MODE_CLAMP,
        2 => Mode::CU_TR_ADDRESS_MODE_MIRROR,
        3 => Mode::CU_TR_ADDRESS_MODE_BORDER,
        _ => return Err(CuError::INVALID_VALUE),
    })
}

fn filter_mode(mode: u32) -> Result<sys::CUfilter_mode, CuError> {
    match mode {
        0 => Ok(sys::CUfilter_mode::CU_TR_FILTER_MODE_POINT),
        1 => Ok(sys::CUfilter_mode::CU_TR_FILTER_MODE_LINEAR),
        _ => Err(CuError::INVALID_VALUE),
    }
}
