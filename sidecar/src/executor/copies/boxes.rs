//! Boxes of bytes between memory and arrays: from the description that graphs and array copies share to the driver's own.

use std::ptr::{null_mut, with_exposed_provenance, with_exposed_provenance_mut};

use lightos_protocol::record::CopyKind;
use lightos_protocol::request::{ArrayPlace, CopyDescriptor};

use super::super::Executor;
use super::super::driver::{CuError, sys};

/// One end, checked.
struct End {
    kind: sys::CUmemorytype,
    /// Of memory: first byte, bytes from row to row, rows from slice to slice.
    address: u64,
    pitch: u64,
    rows: u64,
    /// Of an array: it, and where the box begins.
    array: sys::CUarray,
    at: [u64; 3],
}

impl Executor {
    /// The driver's description of a copy whose ends are the program's: arrays that it made, memory that it shares.
    pub(crate) fn box_copy(&self, copy: &CopyDescriptor) -> Result<sys::CUDA_MEMCPY3D, CuError> {
        let (from_host, to_host) = match CopyKind::try_from(copy.kind).map_err(|_| CuError::INVALID_VALUE)? {
            CopyKind::HostToDevice => (true, false),
            CopyKind::DeviceToHost => (false, true),
            CopyKind::DeviceToDevice => (false, false),
            CopyKind::HostToHost => (true, true),
        };
        let src = self.end(copy, from_host, copy.src_array, (copy.src, copy.src_pitch, copy.src_height))?;
        let dst = self.end(copy, to_host, copy.dst_array, (copy.dst, copy.dst_pitch, copy.dst_height))?;
        Ok(sys::CUDA_MEMCPY3D {
            srcXInBytes: src.at[0] as usize,
            srcY: src.at[1] as usize,
            srcZ: src.at[2] as usize,
            srcLOD: copy.levels[0] as usize,
            srcMemoryType: src.kind,
            srcHost: with_exposed_provenance(src.address as usize),
            srcDevice: src.address,
            srcArray: src.array,
            reserved0: null_mut(),
            srcPitch: src.pitch as usize,
            srcHeight: src.rows as usize,
            dstXInBytes: dst.at[0] as usize,
            dstY: dst.at[1] as usize,
            dstZ: dst.at[2] as usize,
            dstLOD: copy.levels[1] as usize,
            dstMemoryType: dst.kind,
            dstHost: with_exposed_provenance_mut(dst.address as usize),
            dstDevice: dst.address,
            dstArray: dst.array,
            reserved1: null_mut(),
            dstPitch: dst.pitch as usize,
            dstHeight: dst.rows as usize,
            WidthInBytes: copy.width_bytes as usize,
            Height: copy.height as usize,
            Depth: copy.depth as usize,
        })
    }

    fn end(
        &self,
        copy: &CopyDescriptor,
        is_host: bool,
        array: Option<ArrayPlace>,
        (address, pitch, rows): (u64, u64, u64),
    ) -> Result<End, CuError> {
        use sys::CUmemorytype::{CU_MEMORYTYPE_ARRAY, CU_MEMORYTYPE_DEVICE, CU_MEMORYTYPE_HOST};
        if let Some(place) = array {
            if is_host {
                return Err(CuError::INVALID_VALUE);
            }
            // The driver checks the box against the array's extents.
            let at = [place.x_bytes, place.y, place.z];
            let array = self.arrays.raw(place.array)?;
            return Ok(End { kind: CU_MEMORYTYPE_ARRAY, address: 0, pitch: 0, rows: 0, array, at });
        }
        let before_last = copy.depth.saturating_sub(1).saturating_mul(rows);
        self.check_program_memory(address, pitch, copy.width_bytes, before_last.saturating_add(copy.height))?;
        let kind = if is_host { CU_MEMORYTYPE_HOST } else { CU_MEMORYTYPE_DEVICE };
        Ok(End { kind, address, pitch, rows, array: null_mut(), at: [0; 3] })
    }
}
