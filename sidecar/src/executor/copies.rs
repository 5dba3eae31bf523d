//! Copies and fills, in stream order.
//!
//! Nothing here waits: a copy that the program waits for writes a timeline word behind itself. Addresses are checked before the
//! driver sees them, because in this process an address outside the shared ranges would mean the executor's own memory.

mod boxes;

use std::ffi::c_void;

use lightos_protocol::arena;
use lightos_protocol::record::{CopyKind, Memcpy, Memcpy2D, MemcpyInline, Memset};

use super::Executor;
use super::driver::{CuError, check, sys};

impl Executor {
    pub(super) fn memcpy(&mut self, copy: &Memcpy) -> Result<(), CuError> {
        let kind = self.check_copy(copy.kind, (copy.dst, copy.bytes), (copy.src, copy.bytes))?;
        let stream = self.streams.raw(copy.stream)?;
        let bytes = copy.bytes as usize;
        // SAFETY: host ranges are pinned and mapped (`check_copy`), device ranges are checked by the driver.
        check(unsafe {
            match kind {
                CopyKind::HostToDevice => sys::cuMemcpyHtoDAsync_v2(copy.dst, host(copy.src), bytes, stream),
                CopyKind::DeviceToHost => sys::cuMemcpyDtoHAsync_v2(host(copy.dst), copy.src, bytes, stream),
                CopyKind::DeviceToDevice => sys::cuMemcpyDtoDAsync_v2(copy.dst, copy.src, bytes, stream),
                CopyKind::HostToHost => sys::cuMemcpyAsync(copy.dst, copy.src, bytes, stream),
            }
        })?;
        self.write_timeline(stream, copy.release_slot, copy.release_value)
    }

    /// A small copy whose bytes came in the record. The driver takes them before it returns: it stages pageable sources of up to
    /// 64 KiB itself.
    pub(super) fn memcpy_inline(&mut self, copy: &MemcpyInline, data: &[u8]) -> Result<(), CuError> {
        if !self.is_device(copy.dst, data.len() as u64) && !self.host.contains(copy.dst, data.len() as u64) {
            return Err(CuError::INVALID_VALUE);
        }
        let stream = self.streams.raw(copy.stream)?;
        // SAFETY: `data` lives across the call, and the driver does not read a pageable source after it returns.
        check(unsafe { sys::cuMemcpyHtoDAsync_v2(copy.dst, data.as_ptr().cast(), data.len(), stream) })
    }

    pub(super) fn memcpy_2d(&mut self, copy: &Memcpy2D) -> Result<(), CuError> {
        let dst_bytes = extent(copy.dst_pitch, copy.width_bytes, copy.height)?;
        let src_bytes = extent(copy.src_pitch, copy.width_bytes, copy.height)?;
        let kind = self.check_copy(copy.kind, (copy.dst, dst_bytes), (copy.src, src_bytes))?;
        let stream = self.streams.raw(copy.stream)?;
        let (from_host, to_host) = match kind {
            CopyKind::HostToDevice => (true, false),
            CopyKind::DeviceToHost => (false, true),
            CopyKind::DeviceToDevice => (false, false),
            CopyKind::HostToHost => (true, true),
        };
        let memory_type = |is_host| match is_host {
            true => sys::CUmemorytype::CU_MEMORYTYPE_HOST,
            false => sys::CUmemorytype::CU_MEMORYTYPE_DEVICE,
        };
        let description = sys::CUDA_MEMCPY2D {
            srcXInBytes: 0,
            srcY: 0,
            srcMemoryType: memory_type(from_host),
            srcHost: if from_host { host(copy.src) } else { std::ptr::null() },
            srcDevice: if from_host { 0 } else { copy.src },
            srcArray: std::ptr::null_mut(),
            srcPitch: copy.src_pitch as usize,
            dstXInBytes: 0,
            dstY: 0,
            dstMemoryType: memory_type(to_host),
            dstHost: if to_host { host(copy.dst) } else { std::ptr::null_mut() },
            dstDevice: if to_host { 0 } else { copy.dst },
            dstArray: std::ptr::null_mut(),
            dstPitch: copy.dst_pitch as usize,
            WidthInBytes: copy.width_bytes as usize,
            Height: copy.height as usize,
        };
        // SAFETY: as in `memcpy`; the whole extent of both sides was checked.
        check(unsafe { sys::cuMemcpy2DAsync_v2(&description, stream) })?;
        self.write_timeline(stream, copy.release_slot, copy.release_value)
    }

    pub(super) fn memset(&mut self, fill: &Memset) -> Result<(), CuError> {
        let size = u64::from(fill.element_bytes);
        let row_bytes = fill.width.checked_mul(size).ok_or(CuError::INVALID_VALUE)?;
        let bytes = extent(fill.pitch, row_bytes, fill.height)?;
        if !self.is_device(fill.dst, bytes) && !self.host.contains(fill.dst, bytes) {
            return Err(CuError::INVALID_VALUE);
        }
        let stream = self.streams.raw(fill.stream)?;
        let (dst, value) = (fill.dst, fill.value);
        let (pitch, width, height) = (fill.pitch as usize, fill.width as usize, fill.height as usize);
        // SAFETY: no host pointers but pinned ones, which were checked; the driver checks device ranges.
        check(unsafe {
            match (fill.element_bytes, height) {
                (1, 1) => sys::cuMemsetD8Async(dst, value as u8, width, stream),
                (2, 1) => sys::cuMemsetD16Async(dst, value as u16, width, stream),
                (4, 1) => sys::cuMemsetD32Async(dst, value, width, stream),
                (1, _) => sys::cuMemsetD2D8Async(dst, pitch, value as u8, width, height, stream),
                (2, _) => sys::cuMemsetD2D16Async(dst, pitch, value as u16, width, height, stream),
                (4, _) => sys::cuMemsetD2D32Async(dst, pitch, value, width, height, stream),
                _ => return Err(CuError::INVALID_VALUE),
            }
        })
    }

    /// Whether the range lies in the arena or in a global variable that the program asked for.
    fn is_device(&self, address: u64, bytes: u64) -> bool {
        arena::is_device_range(address, bytes) || self.globals.contains(address, bytes)
    }

    /// Checks that a pitched block lies in memory that the program shares with this process, device or host: a graph must not read or
    /// write what is the executor's own.
    pub(super) fn check_program_memory(
        &self,
        address: u64,
        pitch: u64,
        row_bytes: u64,
        rows: u64,
    ) -> Result<(), CuError> {
        let bytes = extent(pitch, row_bytes, rows)?;
        let shared = self.is_device(address, bytes) || self.host.contains(address, bytes);
        if shared { Ok(()) } else { Err(CuError::INVALID_VALUE) }
    }

    /// Checks both ends, each an address and the bytes from there, against the kind.
    fn check_copy(&self, kind: u32, dst: (u64, u64), src: (u64, u64)) -> Result<CopyKind, CuError> {
        let kind = CopyKind::try_from(kind).map_err(|_| CuError::INVALID_VALUE)?;
        let device = |(address, bytes)| self.is_device(address, bytes);
        let host = |(address, bytes)| self.host.contains(address, bytes);
        let valid = match kind {
            CopyKind::HostToDevice => device(dst) && host(src),
            CopyKind::DeviceToHost => host(dst) && device(src),
            CopyKind::DeviceToDevice => device(dst) && device(src),
            CopyKind::HostToHost => host(dst) && host(src),
        };
        if valid { Ok(kind) } else { Err(CuError::INVALID_VALUE) }
    }
}

/// Bytes from the first to the last byte of a pitched block; an empty one has none.
fn extent(pitch: u64, row_bytes: u64, height: u64) -> Result<u64, CuError> {
    let Some(rows_before) = height.checked_sub(1) else { return Ok(0) };
    if height > 1 && pitch < row_bytes {
        return Err(CuError::INVALID_VALUE);
    }
    let start = rows_before.checked_mul(pitch).ok_or(CuError::INVALID_VALUE)?;
    start.checked_add(row_bytes).ok_or(CuError::INVALID_VALUE)
}

fn host(address: u64) -> *mut c_void {
    std::ptr::with_exposed_provenance_mut(address as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extents_reach_the_last_byte_and_never_wrap() {
        assert_eq!(extent(0, 100, 1), Ok(100));
        assert_eq!(extent(128, 100, 3), Ok(356));
        assert_eq!(extent(128, 100, 0), Ok(0));
        assert_eq!(extent(99, 100, 2), Err(CuError::INVALID_VALUE));
        assert_eq!(extent(u64::MAX, 1, 3), Err(CuError::INVALID_VALUE));
        assert_eq!(extent(u64::MAX, u64::MAX, 2), Err(CuError::INVALID_VALUE));
    }
}
