//! What an array is made of, and what follows from it: its bytes, and the boxes of it that exist.

use crate::real;
use crate::result::CuResult;
use lightos_protocol::request::ArrayDescriptor;

real::driver! {
    fn cuArray3DGetDescriptor_v2(shape: *mut Shape, array: u64);
}

/// `CUDA_ARRAY3D_LAYERED` and `CUDA_ARRAY3D_CUBEMAP`: the depth counts layers, of which each level has all.
const LAYERS: u32 = 1 | 4;
/// `CUDA_ARRAY3D_SPARSE` and `CUDA_ARRAY3D_DEFERRED_MAPPING`.
const MAPPED_LATER: u32 = 0x40 | 0x80;

/// `CUDA_ARRAY3D_DESCRIPTOR`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    pub width: usize,
    pub height: usize,
    pub depth: usize,
    /// `CUarray_format`.
    pub format: u32,
    pub channels: u32,
    pub flags: u32,
}

impl From<Shape> for ArrayDescriptor {
    fn from(shape: Shape) -> Self {
        let Shape { width, height, depth, format, channels, flags } = shape;
        let (width, height, depth) = (width as u64, height as u64, depth as u64);
        Self { width, height, depth, format, channels, flags }
    }
}

impl Shape {
    /// As the local driver tells it.
    pub fn of(array: u64) -> Result<Self, CuResult> {
        let mut shape = Self::default();
        // SAFETY: a valid out-parameter; the handle is the program's, whose own call would use it in the same way.
        unsafe { cuArray3DGetDescriptor_v2(&mut shape, array).ok()? };
        Ok(shape)
    }

    /// Whether memory is to be mapped into it later.
    pub fn is_mapped_later(&self) -> bool {
        self.flags & MAPPED_LATER != 0
    }

    /// Bytes of an element, where each has its own.
    pub fn element_bytes(&self) -> Option<u64> {
        let channel = match self.format {
            0x01 | 0x08 => 1,
            0x02 | 0x09 | 0x10 => 2,
            0x03 | 0x0a | 0x20 => 4,
            // CU_AD_FORMAT_UNORM_INT_101010_2.
            0x50 => return Some(4),
            // CU_AD_FORMAT_{UNORM,SNORM}_INT{8,16}X{1,2,4}.
            0xc0 | 0xc6 => return Some(1),
            0xc1 | 0xc3 | 0xc7 | 0xc9 => return Some(2),
            0xc2 | 0xc4 | 0xc8 | 0xca => return Some(4),
            0xc5 | 0xcb => return Some(8),
            _ => return None,
        };
        Some(channel * u64::from(self.channels))
    }

    /// Bits of an element, on average where several share bytes: blocks of a compressed format, samples of a video format.
    fn element_bits(&self) -> u64 {
        match (self.element_bytes(), self.format) {
            (Some(bytes), _) => 8 * bytes,
            // BC1 and BC4, NV12, P010 and P016, and the formats of whole bytes.
            (None, 0x91 | 0x92 | 0x97 | 0x98) => 4,
            (None, 0x93..=0x9e) => 8,
            (None, 0xb0) => 12,
            (None, 0x9f | 0xa1) => 24,
            (None, 0xa2 | 0xa5) => 16,
            (None, _) => 32,
        }
    }

    /// Bytes of its elements; rows may be padded by as much as the driver likes.
    pub fn bytes(&self) -> u64 {
        let elements = [self.width, self.height.max(1), self.depth.max(1)]
            .into_iter()
            .fold(1_u64, |elements, extent| elements.saturating_mul(extent as u64));
        elements.saturating_mul(self.element_bits()).div_ceil(8)
    }

    /// Bytes of a mipmapped array's levels, of which this is the first. The driver makes at least one, and none below one element.
    pub fn bytes_of_levels(&self, levels: u32) -> u64 {
        let halved = |extent: usize, level: u32| if extent == 0 { 0 } else { (extent >> level).max(1) };
        let is_layered = self.flags & LAYERS != 0;
        let longest = self.width.max(self.height).max(if is_layered { 0 } else { self.depth });
        let most = longest.checked_ilog2().unwrap_or(0) + 1;
        let levels = (0..levels.clamp(1, most)).map(|level| {
            let depth = if is_layered { self.depth } else { halved(self.depth, level) };
            Self { width: halved(self.width, level), height: halved(self.height, level), depth, ..*self }
        });
        levels.fold(0, |bytes, level| level.bytes().saturating_add(bytes))
    }

    /// Whether a box of bytes, rows and slices is inside. Of formats whose elements share bytes the executor's driver knows more.
    pub fn contains(&self, at: [u64; 3], size: [u64; 3]) -> bool {
        let Some(element) = self.element_bytes() else { return true };
        let extents = [
            (self.width as u64).saturating_mul(element),
            self.height.max(1) as u64,
            self.depth.max(1) as u64,
        ];
        let fits = |((at, size), extent): ((u64, u64), u64)| at <= extent && size <= extent - at;
        at.into_iter().zip(size).zip(extents).all(fits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cudarc::driver::sys;

    const FLOATS: Shape = Shape { width: 10, height: 4, depth: 0, format: 0x20, channels: 2, flags: 0 };

    #[test]
    fn the_struct_has_the_layout_of_the_driver_s() {
        assert_eq!(size_of::<Shape>(), size_of::<sys::CUDA_ARRAY3D_DESCRIPTOR>());
        assert_eq!(
            std::mem::offset_of!(Shape, flags),
            std::mem::offset_of!(sys::CUDA_ARRAY3D_DESCRIPTOR, Flags)
        );
    }

    #[test]
    fn bytes_are_those_of_the_elements() {
        assert_eq!(FLOATS.bytes(), 10 * 4 * 8);
        assert_eq!(Shape { height: 0, ..FLOATS }.bytes(), 80);
        assert_eq!(Shape { depth: 6, ..FLOATS }.bytes(), 6 * 320);
        assert_eq!(Shape { width: 64, height: 64, format: 0x91, channels: 4, ..FLOATS }.bytes(), 64 * 64 / 2);
        assert_eq!(Shape { width: 64, height: 64, format: 0xb0, channels: 3, ..FLOATS }.bytes(), 64 * 96);
        assert_eq!(Shape { format: 0xc5, ..FLOATS }.element_bytes(), Some(8));
    }

    #[test]
    fn levels_halve_what_is_not_a_layer() {
        let first = Shape { width: 8, height: 4, depth: 4, format: 0x01, channels: 1, flags: 0 };
        assert_eq!(first.bytes_of_levels(4), 128 + 16 + 2 + 1);
        let layered = Shape { flags: 1, ..first };
        assert_eq!(layered.bytes_of_levels(4), 4 * (32 + 8 + 2 + 1));
        assert_eq!(Shape { height: 0, depth: 0, ..first }.bytes_of_levels(9), 8 + 4 + 2 + 1);
        assert_eq!(first.bytes_of_levels(0), 128);
    }

    #[test]
    fn memory_may_be_mapped_later() {
        assert!(!Shape { flags: 1 | 2 | 4 | 8, ..FLOATS }.is_mapped_later());
        assert!(Shape { flags: 2 | 0x40, ..FLOATS }.is_mapped_later());
        assert!(Shape { flags: 0x80, ..FLOATS }.is_mapped_later());
    }

    #[test]
    fn boxes_stay_inside() {
        assert!(FLOATS.contains([0; 3], [80, 4, 1]));
        assert!(FLOATS.contains([72, 3, 0], [8, 1, 1]));
        assert!(!FLOATS.contains([73, 3, 0], [8, 1, 1]));
        assert!(!FLOATS.contains([0, 1, 0], [8, 4, 1]));
        assert!(!FLOATS.contains([0, 0, 1], [8, 1, 1]));
        assert!(!FLOATS.contains([u64::MAX, 0, 0], [8, 1, 1]));
    }
}
