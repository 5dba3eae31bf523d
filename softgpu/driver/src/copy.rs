//! Copies and fills: validation against the address space, and execution.
//!
//! Every copy is a box of rows between two pitched places, of which arrays are one sort; 1D and 2D copies are boxes of height or depth 1.

use crate::abi::{MEMORY_ARRAY, MEMORY_DEVICE, MEMORY_HOST, MEMORY_UNIFIED, Memcpy2d, Memcpy3d, Memset};
use crate::array;
use crate::check;
use crate::error::{Error, Result};
use crate::space::SPACE;

/// One side of a copy: where its first byte is, and how far rows and slices are apart (bytes).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Side {
    start: u64,
    pitch: u64,
    slice: u64,
    host_type: bool,
}

/// A validated copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    src: Side,
    dst: Side,
    width: u64,
    height: u64,
    depth: u64,
}

/// The parameters of a one-dimensional copy.
pub fn linear(dst: (u32, u64), src: (u32, u64), bytes: usize) -> Memcpy3d {
    Memcpy3d {
        src_type: src.0,
        src_host: if src.0 == MEMORY_HOST { src.1 } else { 0 },
        src_device: if src.0 == MEMORY_HOST { 0 } else { src.1 },
        src_pitch: bytes,
        src_height: 1,
        dst_type: dst.0,
        dst_host: if dst.0 == MEMORY_HOST { dst.1 } else { 0 },
        dst_device: if dst.0 == MEMORY_HOST { 0 } else { dst.1 },
        dst_pitch: bytes,
        dst_height: 1,
        width_bytes: bytes,
        height: 1,
        depth: 1,
        ..Memcpy3d::default()
    }
}

impl From<Memcpy2d> for Memcpy3d {
    fn from(copy: Memcpy2d) -> Memcpy3d {
        Memcpy3d {
            src_x_bytes: copy.src_x_bytes,
            src_y: copy.src_y,
            src_type: copy.src_type,
            src_host: copy.src_host,
            src_device: copy.src_device,
            src_array: copy.src_array,
            src_pitch: copy.src_pitch,
            dst_x_bytes: copy.dst_x_bytes,
            dst_y: copy.dst_y,
            dst_type: copy.dst_type,
            dst_host: copy.dst_host,
            dst_device: copy.dst_device,
            dst_array: copy.dst_array,
            dst_pitch: copy.dst_pitch,
            width_bytes: copy.width_bytes,
            height: copy.height,
            depth: 1,
            ..Memcpy3d::default()
        }
    }
}

/// The side of a copy that is a box of an array; layers count as slices.
fn array_side(handle: u64, at: [usize; 3], size: [u64; 3]) -> Result<Side> {
    let array = array::find(handle).ok_or(Error::INVALID_VALUE)?;
    let start = array.place(at.map(|at| at as u64), size)?;
    let (pitch, slice) = (array.texels.pitch, array.texels.slice);
    Ok(Side { start, pitch, slice, host_type: false })
}

/// Checks the parameters; `None` where there is nothing to copy.
pub fn plan(copy: &Memcpy3d) -> Result<Option<Plan>> {
    let (width, height, depth) = (copy.width_bytes as u64, copy.height as u64, copy.depth as u64);
    if width == 0 || height == 0 || depth == 0 {
        return Ok(None);
    }
    let side =
        |kind: u32, host: u64, device: u64, x: usize, y: usize, z: usize, pitch: usize, rows: usize| {
            let base = match kind {
                MEMORY_HOST => host,
                MEMORY_DEVICE | MEMORY_UNIFIED => device,
                _ => return Err(Error::INVALID_VALUE),
            };
            let (x, y, z) = (x as u64, y as u64, z as u64);
            let row_end = x.checked_add(width).ok_or(Error::INVALID_VALUE)?;
            let pitch = if pitch == 0 { row_end } else { pitch as u64 };
            if base == 0 || ((height > 1 || depth > 1) && pitch < row_end) {
                return Err(Error::INVALID_VALUE);
            }
            let rows_end = y.checked_add(height).ok_or(Error::INVALID_VALUE)?;
            let rows = if rows == 0 { rows_end } else { rows as u64 };
            if depth > 1 && rows < rows_end {
                return Err(Error::INVALID_VALUE);
            }
            let slice = pitch.checked_mul(rows).ok_or(Error::INVALID_VALUE)?;
            let offset = |slices: u64, rows: u64| {
                slice.checked_mul(slices)?.checked_add(pitch.checked_mul(rows)?)?.checked_add(x)
            };
            let start = offset(z, y).and_then(|o| base.checked_add(o)).ok_or(Error::INVALID_VALUE)?;
            let last = offset(depth - 1, height - 1).and_then(|o| (o - x).checked_add(width));
            let last = last.ok_or(Error::INVALID_VALUE)?;
            if kind == MEMORY_DEVICE {
                SPACE.require(start, last)?;
            }
            start.checked_add(last).ok_or(Error::INVALID_VALUE)?;
            Ok(Side { start, pitch, slice, host_type: kind == MEMORY_HOST })
        };
    let size = [width, height, depth];
    let src = match copy.src_type {
        MEMORY_ARRAY => array_side(copy.src_array, [copy.src_x_bytes, copy.src_y, copy.src_z], size)?,
        kind => side(
            kind,
            copy.src_host,
            copy.src_device,
            copy.src_x_bytes,
            copy.src_y,
            copy.src_z,
            copy.src_pitch,
            copy.src_height,
        )?,
    };
    let dst = match copy.dst_type {
        MEMORY_ARRAY => array_side(copy.dst_array, [copy.dst_x_bytes, copy.dst_y, copy.dst_z], size)?,
        kind => side(
            kind,
            copy.dst_host,
            copy.dst_device,
            copy.dst_x_bytes,
            copy.dst_y,
            copy.dst_z,
            copy.dst_pitch,
            copy.dst_height,
        )?,
    };
    Ok(Some(Plan { src, dst, width, height, depth }))
}

impl Plan {
    /// True where a side is host memory that is not pinned: such a copy ends before the call returns.
    pub fn is_pageable(&self) -> bool {
        [self.src, self.dst].iter().any(|side| SPACE.find(side.start).is_none())
    }

    /// True for host-to-host copies, which even the asynchronous calls finish before they return.
    pub fn is_host_only(&self) -> bool {
        self.src.host_type && self.dst.host_type
    }

    /// Moves the bytes. Overlap is allowed within one row.
    pub fn run(&self) {
        for z in 0..self.depth {
            for y in 0..self.height {
                let src = self.src.start + z * self.src.slice + y * self.src.pitch;
                let dst = self.dst.start + z * self.dst.slice + y * self.dst.pitch;
                // SAFETY: device sides were checked against the address space, and freeing memory waits for queued work;
                // host sides are the caller's to keep valid, as CUDA asks.
                unsafe { std::ptr::copy(src as *const u8, dst as *mut u8, self.width as usize) };
                check::wrote(dst, self.width);
            }
        }
    }
}

/// Checks a fill; false where there is nothing to fill.
pub fn check_fill(fill: &Memset) -> Result<bool> {
    if !matches!(fill.element_bytes, 1 | 2 | 4) {
        return Err(Error::INVALID_VALUE);
    }
    let element = u64::from(fill.element_bytes);
    let row = (fill.width as u64).checked_mul(element).ok_or(Error::INVALID_VALUE)?;
    if fill.width == 0 || fill.height == 0 {
        return Ok(false);
    }
    let pitch = fill.pitch as u64;
    if !fill.dst.is_multiple_of(element)
        || (fill.height > 1 && (pitch < row || !pitch.is_multiple_of(element)))
    {
        return Err(Error::INVALID_VALUE);
    }
    let last = pitch.checked_mul(fill.height as u64 - 1).and_then(|rows| rows.checked_add(row));
    SPACE.require(fill.dst, last.ok_or(Error::INVALID_VALUE)?)?;
    Ok(true)
}

/// Fills memory that [`check_fill`] accepted.
pub fn run_fill(fill: &Memset) {
    for y in 0..fill.height as u64 {
        let row = fill.dst + y * fill.pitch as u64;
        // SAFETY: the range was checked against the address space, and freeing memory waits for queued work; rows are
        // aligned to the element size.
        unsafe {
            match fill.element_bytes {
                1 => std::ptr::write_bytes(row as *mut u8, fill.value as u8, fill.width),
                2 => std::slice::from_raw_parts_mut(row as *mut u16, fill.width).fill(fill.value as u16),
                _ => std::slice::from_raw_parts_mut(row as *mut u32, fill.width).fill(fill.value),
            }
        }
        check::wrote(row, fill.width as u64 * u64::from(fill.element_bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_are_copied_row_by_row() {
        let src: Vec<u8> = (0..64).collect();
        let mut dst = [0u8; 32];
        let copy = Memcpy3d {
            src_type: MEMORY_HOST,
            src_host: src.as_ptr() as u64,
            src_x_bytes: 1,
            src_y: 1,
            src_pitch: 8,
            src_height: 4,
            dst_type: MEMORY_HOST,
            dst_host: dst.as_mut_ptr() as u64,
            dst_pitch: 4,
            dst_height: 2,
            width_bytes: 3,
            height: 2,
            depth: 2,
            ..Memcpy3d::default()
        };
        let plan = plan(&copy).unwrap().unwrap();
        assert!(plan.is_host_only());
        plan.run();
        assert_eq!(dst[..16], [9, 10, 11, 0, 17, 18, 19, 0, 41, 42, 43, 0, 49, 50, 51, 0]);
    }

    #[test]
    fn bad_boxes_are_refused() {
        let byte = 0u8;
        let here = std::ptr::from_ref(&byte) as u64;
        let good = linear((MEMORY_HOST, here), (MEMORY_HOST, here), 1);
        assert!(plan(&good).unwrap().is_some());
        for bad in [
            Memcpy3d { src_type: MEMORY_DEVICE, src_device: here, ..good },
            Memcpy3d { dst_type: 9, ..good },
            Memcpy3d { src_host: 0, ..good },
            Memcpy3d { height: 2, width_bytes: 9, src_pitch: 4, ..good },
            Memcpy3d { src_x_bytes: usize::MAX, ..good },
            Memcpy3d { src_y: usize::MAX, src_height: 0, ..good },
            Memcpy3d { height: 2, width_bytes: 20, src_pitch: usize::MAX - 10, dst_pitch: 20, ..good },
        ] {
            assert_eq!(plan(&bad), Err(Error::INVALID_VALUE), "{bad:?}");
        }
        assert_eq!(plan(&Memcpy3d { width_bytes: 0, ..good }), Ok(None));
    }
}
