//! Images: what texture and surface objects stand for, and how one texel is found and read.
//!
//! Texels lie row by row in device memory, rows `pitch` bytes and slices `slice` bytes apart. The driver face describes an
//! object once, when it is made; kernels find it by handle ([`super::Memory::texture`], [`super::Memory::surface`]).
//! `lookup` checks the memory behind a description before the first access of a warp, so that a description alone never makes
//! memory accessible. `sample` holds the filters.

pub(super) mod lookup;
mod sample;

use half::f16;

use super::transfer::Element;

/// The type of one channel, as `CUarray_format` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    U8,
    U16,
    U32,
    S8,
    S16,
    S32,
    Half,
    Float,
}

impl Format {
    /// Bytes of one channel.
    pub fn bytes(self) -> u32 {
        match self {
            Format::U8 | Format::S8 => 1,
            Format::U16 | Format::S16 | Format::Half => 2,
            Format::U32 | Format::S32 | Format::Float => 4,
        }
    }

    /// True where a fetch gives floats unless the object asks for integers: 32-bit integers are never promoted.
    pub fn promotes(self) -> bool {
        !matches!(self, Format::U32 | Format::S32)
    }

    /// The word that a fetch gives for a channel's bits: a float, promoted to [0, 1] or [-1, 1] where the channel is an integer;
    /// with `as_integer`, the extended integer.
    #[inline(always)]
    fn word(self, bits: u32, as_integer: bool) -> u32 {
        let float = match self {
            Format::Float | Format::U32 | Format::S32 => return bits,
            Format::Half => f16::from_bits(bits as u16).to_f32(),
            Format::U8 | Format::U16 if as_integer => return bits,
            Format::S8 if as_integer => return bits as i8 as i32 as u32,
            Format::S16 if as_integer => return bits as i16 as i32 as u32,
            Format::U8 => bits as f32 / 255.0,
            Format::U16 => bits as f32 / 65535.0,
            Format::S8 => (f32::from(bits as i8) / 127.0).max(-1.0),
            Format::S16 => (f32::from(bits as i16) / 32767.0).max(-1.0),
        };
        float.to_bits()
    }
}

/// Dimensions of an image, as the instructions name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Geometry {
    /// Linear memory: read by integer coordinates alone.
    Linear,
    D1,
    D2,
    D3,
    /// A layered 1-D image.
    A1,
    /// A layered 2-D image.
    A2,
}

/// Where the texels of an image are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Texels {
    /// Device address of the first texel.
    pub start: u64,
    pub geometry: Geometry,
    pub format: Format,
    /// 1, 2 or 4.
    pub channels: u32,
    /// Texels per row.
    pub width: u32,
    /// Rows per slice; 1 where the geometry has none.
    pub height: u32,
    /// Slices of a 3-D image, layers of a layered one; 1 for the others.
    pub depth: u32,
    /// Bytes from row to row.
    pub pitch: u64,
    /// Bytes from slice to slice.
    pub slice: u64,
}

impl Texels {
    pub fn texel_bytes(&self) -> u32 {
        self.format.bytes() * self.channels
    }

    /// Bytes of the texels of one row.
    pub fn row_bytes(&self) -> u64 {
        u64::from(self.width) * u64::from(self.texel_bytes())
    }

    /// The first address behind the texels; `None` where the description contradicts itself.
    pub fn end(&self) -> Option<u64> {
        let Texels { start, channels, width, height, depth, pitch, slice, .. } = *self;
        let channel = u64::from(self.format.bytes());
        let aligned = [start, pitch, slice].iter().all(|value| value.is_multiple_of(channel));
        if !matches!(channels, 1 | 2 | 4) || width == 0 || height == 0 || depth == 0 || !aligned {
            return None;
        }
        let rows = pitch.checked_mul(u64::from(height) - 1)?;
        let slices = slice.checked_mul(u64::from(depth) - 1)?;
        start.checked_add(slices)?.checked_add(rows)?.checked_add(self.row_bytes())
    }

    /// The address of a byte of a row; the coordinates are inside the image.
    #[inline(always)]
    pub(super) fn address(&self, byte: u64, y: u32, z: u32) -> u64 {
        self.start + u64::from(z) * self.slice + u64::from(y) * self.pitch + byte
    }
}

/// `CUaddress_mode`: what stands for texels outside the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressMode {
    Wrap,
    Clamp,
    Mirror,
    Border,
}

/// How a texture object is read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampler {
    /// Per axis. Without normalised coordinates wrap and mirror act as clamp.
    pub address: [AddressMode; 3],
    /// Linear filtering in place of the nearest texel; integers are never filtered.
    pub linear: bool,
    /// `CU_TRSF_NORMALIZED_COORDINATES`: [0, 1) spans the image.
    pub normalized: bool,
    /// `CU_TRSF_READ_AS_INTEGER`: 8- and 16-bit integers are not promoted to floats.
    pub as_integer: bool,
    /// The border's channels as a fetch gives them: bits of floats, or of integers where the texture gives integers.
    pub border: [u32; 4],
}

/// A texture object.
#[derive(Clone, Debug, PartialEq)]
pub struct Texture {
    pub texels: Texels,
    pub sampler: Sampler,
}

/// A surface object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Surface(pub Texels);

impl Texture {
    /// True where a fetch gives floats.
    pub fn gives_floats(&self) -> bool {
        let format = self.texels.format;
        match format {
            Format::Half | Format::Float => true,
            _ => format.promotes() && !self.sampler.as_integer,
        }
    }

    /// The words of the texel there, which is inside the image. Absent channels are 0, an absent fourth is 1.
    #[inline(always)]
    fn texel(&self, x: u32, y: u32, z: u32) -> [u32; 4] {
        let Texels { format, channels, .. } = self.texels;
        let at = self.texels.address(u64::from(x) * u64::from(self.texels.texel_bytes()), y, z);
        let mut words = self.absent();
        let bits = |k: u64| {
            // SAFETY: `lookup` found all texels of the image accessible in this turn and aligned to the channel's size, and
            // the caller's coordinates are inside it; k counts its channels.
            unsafe {
                match format.bytes() {
                    1 => <u8 as Element>::read(at + k),
                    2 => <u16 as Element>::read(at + k * 2),
                    _ => <u32 as Element>::read(at + k * 4),
                }
            }
        };
        words[0] = format.word(bits(0), self.sampler.as_integer);
        if channels > 1 {
            words[1] = format.word(bits(1), self.sampler.as_integer);
        }
        if channels > 2 {
            words[2] = format.word(bits(2), self.sampler.as_integer);
            words[3] = format.word(bits(3), self.sampler.as_integer);
        }
        words
    }

    fn absent(&self) -> [u32; 4] {
        [0, 0, 0, if self.gives_floats() { 1f32.to_bits() } else { 1 }]
    }

    /// What the border gives: its colour in the channels that the image has.
    fn border(&self) -> [u32; 4] {
        let mut words = self.absent();
        let channels = self.texels.channels as usize;
        words[..channels].copy_from_slice(&self.sampler.border[..channels]);
        words
    }
}
