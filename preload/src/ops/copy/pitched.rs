//! Two- and three-dimensional copies. Those of linear memory are reduced to linear copies where rows touch; those with arrays go to
//! [`boxes`].

use std::ffi::c_void;

use lightos_protocol::record::Memcpy2D;

use super::staged;
use super::staging::{self, CHUNK_BYTES, Chunk};
use super::{Place, Role, Wait, boxes, count, kind, place, transfer, wire};
use crate::edge::In;
use crate::ops::memory::sidecar;
use crate::ops::{capture, context, global, stream};
use crate::outcome::{Outcome, Reason};
use crate::result::CuResult;

/// One end of `CUDA_MEMCPY2D`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Side2D {
    pub x_bytes: usize,
    pub y: usize,
    /// `CUmemorytype`.
    pub memory_type: u32,
    pub host: *mut c_void,
    pub device: u64,
    pub array: *mut c_void,
    pub pitch: usize,
}

/// `CUDA_MEMCPY2D`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Copy2D {
    pub src: Side2D,
    pub dst: Side2D,
    pub width_bytes: usize,
    pub height: usize,
}

/// One end of `CUDA_MEMCPY3D` and `CUDA_MEMCPY3D_PEER`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Side3D {
    pub x_bytes: usize,
    pub y: usize,
    pub z: usize,
    pub level: usize,
    /// `CUmemorytype`.
    pub memory_type: u32,
    pub host: *mut c_void,
    pub device: u64,
    pub array: *mut c_void,
    /// Reserved, or the context of a peer copy: all contexts are on the session's device.
    pub context: *mut c_void,
    pub pitch: usize,
    /// Rows from one slice to the next.
    pub rows: usize,
}

/// `CUDA_MEMCPY3D` and `CUDA_MEMCPY3D_PEER`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Copy3D {
    pub src: Side3D,
    pub dst: Side3D,
    pub width_bytes: usize,
    pub height: usize,
    pub depth: usize,
}

const _: () = {
    // The sizes of the C structures on 64-bit machines.
    assert!(size_of::<Copy2D>() == 128);
    assert!(size_of::<Copy3D>() == 200);
};

/// `CU_MEMORYTYPE_*`.
pub const HOST: u32 = 1;
pub const DEVICE: u32 = 2;
pub const ARRAY: u32 = 3;
const UNIFIED: u32 = 4;

/// One end, reduced to what a copy of linear memory needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Side {
    pub address: u64,
    pub role: Role,
    /// Bytes from row to row.
    pub pitch: u64,
    /// Bytes from slice to slice.
    pub slice: u64,
}

/// What is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    pub width: u64,
    pub height: u64,
    pub depth: u64,
}

impl Side {
    /// # Errors
    /// `INVALID_VALUE` for unknown memory types, pitches shorter than what is copied of a row, sizes that overflow.
    pub fn new(side: &Side3D, extent: Extent) -> Result<Self, CuResult> {
        let (base, role) = match side.memory_type {
            HOST => (side.host.expose_provenance() as u64, Role::Host),
            DEVICE => (side.device, Role::Device),
            UNIFIED => (side.device, Role::Unified),
            _ => return Err(CuResult::INVALID_VALUE),
        };
        let row_end = (side.x_bytes as u64).checked_add(extent.width).ok_or(CuResult::INVALID_VALUE)?;
        // A pitch of 0 means that rows follow each other.
        let pitch = if side.pitch == 0 { row_end } else { side.pitch as u64 };
        if (extent.height > 1 || extent.depth > 1) && pitch < row_end {
            return Err(CuResult::INVALID_VALUE);
        }
        if extent.depth > 1 && (side.rows as u64) < extent.height {
            return Err(CuResult::INVALID_VALUE);
        }
        let address = || {
            let slice = pitch.checked_mul(side.rows as u64)?;
            let offset = slice
                .checked_mul(side.z as u64)?
                .checked_add(pitch.checked_mul(side.y as u64)?)?
                .checked_add(side.x_bytes as u64)?;
            Some(Self { address: base.checked_add(offset)?, role, pitch, slice })
        };
        address().filter(|_| base != 0).ok_or(CuResult::INVALID_VALUE)
    }

    /// Bytes from the first to the last byte.
    fn reach(&self, extent: Extent) -> Option<u64> {
        let rows = self.pitch.checked_mul(extent.height - 1)?;
        self.slice.checked_mul(extent.depth - 1)?.checked_add(rows)?.checked_add(extent.width)
    }

    /// Which memory it is in.
    pub fn place(&self, extent: Extent) -> Result<Place, CuResult> {
        place(self.address, self.reach(extent).ok_or(CuResult::INVALID_VALUE)?, self.role)
    }

    /// The first byte of a slice.
    pub fn at_slice(&self, z: u64) -> u64 {
        self.address + z * self.slice
    }
}

/// cuMemcpy2D and kin.
pub fn copy_2d(copy: In<Copy2D>, stream: u64, wait: Wait) -> Result<Outcome, CuResult> {
    let copy = copy.get()?;
    let side = |side: Side2D| Side3D {
        x_bytes: side.x_bytes,
        y: side.y,
        z: 0,
        level: 0,
        memory_type: side.memory_type,
        host: side.host,
        device: side.device,
        array: side.array,
        context: std::ptr::null_mut(),
        pitch: side.pitch,
        rows: 0,
    };
    let (width_bytes, height) = (copy.width_bytes, copy.height);
    run(Copy3D { src: side(copy.src), dst: side(copy.dst), width_bytes, height, depth: 1 }, stream, wait)
}

/// cuMemcpy3D, cuMemcpy3DPeer and kin.
pub fn copy_3d(copy: In<Copy3D>, stream: u64, wait: Wait) -> Result<Outcome, CuResult> {
    run(copy.get()?, stream, wait)
}

fn run(copy: Copy3D, stream: u64, wait: Wait) -> Result<Outcome, CuResult> {
    context::check()?;
    if capture::captures(stream) {
        global::introduce([copy.src.device, copy.dst.device]);
        return Ok(Outcome::PassThrough(Reason::Capturing));
    }
    let extent =
        Extent { width: copy.width_bytes as u64, height: copy.height as u64, depth: copy.depth as u64 };
    if extent.width == 0 || extent.height == 0 || extent.depth == 0 {
        return Ok(Outcome::Done);
    }
    if copy.src.memory_type == ARRAY || copy.dst.memory_type == ARRAY {
        return Ok(boxes::copy(&copy, extent, stream, wait));
    }
    let (dst, src) = (Side::new(&copy.dst, extent)?, Side::new(&copy.src, extent)?);
    let (mut to, mut from) = (dst.place(extent)?, src.place(extent)?);
    let stream = wire(stream)?;
    if wait == Wait::Yes && (to == Place::Staged || from == Place::Staged) {
        (to, from) = staged::settle((dst.address, to), from, stream)?;
    }
    for z in 0..extent.depth {
        slice((dst.at_slice(z), dst.pitch, to), (src.at_slice(z), src.pitch, from), extent, stream)?;
    }
    let waits = wait == Wait::Yes && (to, from) != (Place::Device, Place::Device);
    if waits {
        stream::synchronize(stream)?;
    }
    Ok(Outcome::Done)
}

/// Address, pitch and place of one end of a slice.
type Rows = (u64, u64, Place);

/// Copies one slice, without waiting for what need not be waited for.
fn slice(dst: Rows, src: Rows, Extent { width, height, .. }: Extent, stream: u64) -> Result<(), CuResult> {
    let ((dst, dst_pitch, mut to), (src, src_pitch, mut from)) = (dst, src);
    if height == 1 || (dst_pitch == width && src_pitch == width) {
        return transfer((dst, to), (src, from), width * height, stream, Wait::No);
    }
    let pageable = to == Place::Pageable || from == Place::Pageable;
    if to == Place::Staged || from == Place::Staged {
        if !pageable {
            return staged::copy((dst, dst_pitch, to), (src, src_pitch, from), (width, height), stream);
        }
        // Both ends are the program's own, and its memory that is not registered cannot be left for later.
        (to, from) = staged::settle((dst, to), from, stream)?;
    }
    if pageable && (width > CHUNK_BYTES || to == from) {
        return (0..height).try_for_each(|row| {
            transfer((dst + row * dst_pitch, to), (src + row * src_pitch, from), width, stream, Wait::No)
        });
    }
    let session = sidecar()?;
    count(session, to, from, width * height);
    let record = Memcpy2D {
        dst,
        dst_pitch,
        src,
        src_pitch,
        width_bytes: width,
        height,
        stream,
        kind: kind(to, from).into(),
        ..Memcpy2D::default()
    };
    // Rows from the first of a group on, on the side that is not packed in the chunk.
    let staged = |chunk: &mut Chunk, (first, height): (u64, u64)| {
        let address = chunk.address;
        chunk.lend(session, |(release_slot, release_value)| {
            let group = Memcpy2D { height, release_slot, release_value, ..record };
            let group = match from {
                Place::Pageable => {
                    Memcpy2D { dst: dst + first * dst_pitch, src: address, src_pitch: width, ..group }
                }
                _ => Memcpy2D { dst: address, dst_pitch: width, src: src + first * src_pitch, ..group },
            };
            session.send(&group, &[])
        })
    };
    match (to, from) {
        (_, Place::Pageable) => staging::upload_rows(session, (src, src_pitch), (width, height), staged),
        (Place::Pageable, _) => staging::download_rows(session, (dst, dst_pitch), (width, height), staged),
        _ => session.send(&record, &[]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOWHERE: Side3D = Side3D {
        x_bytes: 0,
        y: 0,
        z: 0,
        level: 0,
        memory_type: DEVICE,
        host: std::ptr::null_mut(),
        device: 0x1000,
        array: std::ptr::null_mut(),
        context: std::ptr::null_mut(),
        pitch: 0,
        rows: 0,
    };

    #[test]
    fn offsets_pitches_and_slices() {
        let extent = Extent { width: 10, height: 3, depth: 2 };
        let side = Side3D { x_bytes: 4, y: 1, z: 2, pitch: 64, rows: 8, ..NOWHERE };
        let reduced = Side::new(&side, extent).unwrap();
        assert_eq!(reduced.address, 0x1000 + 2 * 8 * 64 + 64 + 4);
        assert_eq!((reduced.pitch, reduced.slice), (64, 512));
        assert_eq!(reduced.reach(extent), Some(512 + 2 * 64 + 10));
    }

    #[test]
    fn impossible_shapes_are_invalid() {
        let invalid = Err(CuResult::INVALID_VALUE);
        let flat = Extent { width: 10, height: 2, depth: 1 };
        assert_eq!(Side::new(&Side3D { pitch: 9, ..NOWHERE }, flat), invalid, "rows overlap");
        assert_eq!(Side::new(&Side3D { pitch: 12, x_bytes: 3, ..NOWHERE }, flat), invalid);
        assert!(Side::new(&Side3D { pitch: 12, x_bytes: 2, ..NOWHERE }, flat).is_ok());
        assert!(Side::new(&NOWHERE, Extent { height: 1, ..flat }).is_ok(), "one row needs no pitch");
        let deep = Extent { depth: 2, ..flat };
        assert_eq!(Side::new(&Side3D { pitch: 16, rows: 1, ..NOWHERE }, deep), invalid, "slices overlap");
        assert_eq!(Side::new(&Side3D { device: 0, pitch: 16, ..NOWHERE }, flat), invalid);
        assert_eq!(Side::new(&Side3D { memory_type: 9, pitch: 16, ..NOWHERE }, flat), invalid);
        assert_eq!(Side::new(&Side3D { pitch: usize::MAX, y: 9, ..NOWHERE }, flat), invalid, "overflow");
    }
}
