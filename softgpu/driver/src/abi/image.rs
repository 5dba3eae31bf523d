//! Structures of arrays, textures and surfaces.

/// `CUDA_ARRAY_DESCRIPTOR`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArrayDescriptor {
    pub width: usize,
    pub height: usize,
    pub format: u32,
    pub channels: u32,
}

/// `CUDA_ARRAY3D_DESCRIPTOR`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Array3dDescriptor {
    pub width: usize,
    pub height: usize,
    pub depth: usize,
    pub format: u32,
    pub channels: u32,
    pub flags: u32,
}

/// `CUDA_ARRAY_MEMORY_REQUIREMENTS`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ArrayMemoryRequirements {
    pub size: usize,
    pub alignment: usize,
    pub reserved: [u32; 4],
}

/// `CUresourcetype`.
pub const RESOURCE_ARRAY: u32 = 0;
pub const RESOURCE_MIPMAPPED_ARRAY: u32 = 1;
pub const RESOURCE_LINEAR: u32 = 2;
pub const RESOURCE_PITCH2D: u32 = 3;

/// `CUDA_RESOURCE_DESC`: the type and the union's 16 words, read according to the type.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResourceDesc {
    pub kind: u32,
    pub body: [u64; 16],
    pub flags: u32,
}

/// The linear member of `CUDA_RESOURCE_DESC`, and the start of the pitched one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinearResource {
    pub address: u64,
    pub format: u32,
    pub channels: u32,
}

impl ResourceDesc {
    /// The array member.
    pub fn array(&self) -> u64 {
        self.body[0]
    }

    /// What the linear and the pitched member have in common.
    pub fn linear(&self) -> LinearResource {
        let [address, shape, ..] = self.body;
        LinearResource { address, format: shape as u32, channels: (shape >> 32) as u32 }
    }

    /// The linear member's size in bytes.
    pub fn linear_bytes(&self) -> u64 {
        self.body[2]
    }

    /// The pitched member's width and height in elements, and its pitch in bytes.
    pub fn pitched(&self) -> (u64, u64, u64) {
        (self.body[2], self.body[3], self.body[4])
    }
}

/// `CUDA_TEXTURE_DESC`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TextureDesc {
    pub address: [u32; 3],
    pub filter: u32,
    pub flags: u32,
    pub max_anisotropy: u32,
    pub mipmap_filter: u32,
    pub mipmap_bias: f32,
    pub min_level: f32,
    pub max_level: f32,
    /// Bits of floats, or integers where the texture gives integers.
    pub border: [u32; 4],
    pub reserved: [u32; 12],
}

/// `CUDA_RESOURCE_VIEW_DESC`; never read, because views are not served.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct ResourceViewDesc {
    pub format: u32,
    pub size: [usize; 3],
    pub levels: [u32; 2],
    pub layers: [u32; 2],
    pub reserved: [u32; 16],
}

#[cfg(test)]
mod tests {
    use super::super::tests::same;
    use super::*;
    use cudarc::driver::sys;
    use std::mem::offset_of;

    #[test]
    fn layouts_are_those_of_the_cuda_headers() {
        same::<ArrayDescriptor, sys::CUDA_ARRAY_DESCRIPTOR>();
        same::<Array3dDescriptor, sys::CUDA_ARRAY3D_DESCRIPTOR>();
        same::<ArrayMemoryRequirements, sys::CUDA_ARRAY_MEMORY_REQUIREMENTS>();
        same::<ResourceDesc, sys::CUDA_RESOURCE_DESC>();
        same::<TextureDesc, sys::CUDA_TEXTURE_DESC>();
        same::<ResourceViewDesc, sys::CUDA_RESOURCE_VIEW_DESC>();
        assert_eq!(offset_of!(ResourceDesc, body), offset_of!(sys::CUDA_RESOURCE_DESC, res));
        assert_eq!(offset_of!(ResourceDesc, flags), offset_of!(sys::CUDA_RESOURCE_DESC, flags));
        assert_eq!(offset_of!(TextureDesc, border), offset_of!(sys::CUDA_TEXTURE_DESC, borderColor));
        assert_eq!(offset_of!(Array3dDescriptor, flags), offset_of!(sys::CUDA_ARRAY3D_DESCRIPTOR, Flags));
    }

    #[test]
    fn members_of_the_resource_union_are_read_where_they_are() {
        let mut body = [0; 16];
        body[..5].copy_from_slice(&[0x1234, 0x20 | 4 << 32, 64, 32, 512]);
        let resource = ResourceDesc { kind: RESOURCE_PITCH2D, body, flags: 0 };
        assert_eq!(resource.linear(), LinearResource { address: 0x1234, format: 0x20, channels: 4 });
        assert_eq!(resource.pitched(), (64, 32, 512));
        type Pitched = sys::CUDA_RESOURCE_DESC_st__bindgen_ty_1__bindgen_ty_4;
        let offsets = [offset_of!(Pitched, numChannels), offset_of!(Pitched, width)];
        assert_eq!((offsets, offset_of!(Pitched, pitchInBytes)), ([12, 16], 32));
    }
}
