//! Cold calls about texture and surface objects, and about the texture and surface references of modules.
//!
//! Descriptions travel as the words of their C structs: the client has judged none of them, the driver does.

use serde::{Deserialize, Serialize};

use super::array::ArrayDescriptor;

/// Words of `CUDA_TEXTURE_DESC`.
pub const TEXTURE_DESC_WORDS: usize = 26;
/// Words of `CUDA_RESOURCE_VIEW_DESC`.
pub const RESOURCE_VIEW_DESC_WORDS: usize = 14;

/// A call about textures and surfaces. Array and reference handles are the client's; objects are the executor's own, because
/// kernels read them from their parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum TextureRequest {
    /// cuTexObjectCreate; answers [`Reply::U64`](super::Reply::U64), the object.
    Create(Box<TextureDescriptor>),
    /// cuTexObjectDestroy.
    Destroy {
        /// The executor's object.
        object: u64,
    },
    /// cuSurfObjectCreate; answers [`Reply::U64`](super::Reply::U64), the object.
    CreateSurface {
        /// What it reads and writes.
        resource: ResourceDescriptor,
    },
    /// cuSurfObjectDestroy.
    DestroySurface {
        /// The executor's object.
        object: u64,
    },
    /// cuModuleGetTexRef or cuModuleGetSurfRef: know the executor's counterpart under the client's handle.
    ModuleReference {
        /// The client's `CUtexref` or `CUsurfref`.
        reference: u64,
        /// The client's `CUmodule`.
        module: u64,
        /// Its name.
        name: String,
        /// True for a `CUsurfref`.
        surface: bool,
    },
    /// cuTexRefCreate.
    CreateReference {
        /// The client's `CUtexref`.
        reference: u64,
    },
    /// cuTexRefDestroy.
    DestroyReference {
        /// The client's `CUtexref`.
        reference: u64,
    },
    /// One of cuTexRefSet*; answers [`Reply::U64`](super::Reply::U64), the byte offset, for [`ReferenceState::Address`].
    SetReference {
        /// The client's `CUtexref`.
        reference: u64,
        /// What is set.
        state: ReferenceState,
    },
    /// cuSurfRefSetArray.
    SetSurfaceReference {
        /// The client's `CUsurfref`.
        reference: u64,
        /// The client's `CUarray`.
        array: u64,
        /// As the program gave them.
        flags: u32,
    },
}

/// What a texture object is made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextureDescriptor {
    /// What it reads.
    pub resource: ResourceDescriptor,
    /// `CUDA_TEXTURE_DESC`.
    pub texture: [u32; TEXTURE_DESC_WORDS],
    /// `CUDA_RESOURCE_VIEW_DESC`.
    pub view: Option<[u64; RESOURCE_VIEW_DESC_WORDS]>,
}

/// `CUDA_RESOURCE_DESC`; an array in it is the client's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceDescriptor {
    /// `CUresourcetype`.
    pub kind: u32,
    /// The union: an array's or mipmapped array's handle first, or an address.
    pub words: [u64; 16],
    /// Zero, says the interface.
    pub flags: u32,
}

/// One setting of a texture reference.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum ReferenceState {
    /// cuTexRefSetArray.
    Array {
        /// The client's `CUarray`.
        array: u64,
        /// As the program gave them.
        flags: u32,
    },
    /// cuTexRefSetMipmappedArray.
    MipmappedArray {
        /// The client's `CUmipmappedArray`.
        mipmapped: u64,
        /// As the program gave them.
        flags: u32,
    },
    /// cuTexRefSetAddress.
    Address {
        /// First byte.
        address: u64,
        /// Size in bytes.
        bytes: u64,
        /// Whether the program takes a byte offset, which unaligned memory needs.
        takes_offset: bool,
    },
    /// cuTexRefSetAddress2D.
    Address2D {
        /// Extent and format; depth and flags mean nothing.
        descriptor: ArrayDescriptor,
        /// First byte.
        address: u64,
        /// Bytes from one row to the next.
        pitch: u64,
    },
    /// cuTexRefSetFormat.
    Format {
        /// `CUarray_format`.
        format: u32,
        /// Channels by element.
        channels: i32,
    },
    /// cuTexRefSetAddressMode.
    AddressMode {
        /// Dimension.
        dimension: i32,
        /// `CUaddress_mode`.
        mode: u32,
    },
    /// cuTexRefSetFilterMode.
    FilterMode(u32),
    /// cuTexRefSetMipmapFilterMode.
    MipmapFilterMode(u32),
    /// cuTexRefSetMipmapLevelBias.
    MipmapLevelBias(f32),
    /// cuTexRefSetMipmapLevelClamp: lowest and highest level.
    MipmapLevelClamp(f32, f32),
    /// cuTexRefSetMaxAnisotropy.
    MaxAnisotropy(u32),
    /// cuTexRefSetBorderColor.
    BorderColor([f32; 4]),
    /// cuTexRefSetFlags.
    Flags(u32),
}
