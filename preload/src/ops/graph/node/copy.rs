//! Copy nodes: boxes between memory and arrays.

use super::super::walk::Walk;
use super::super::{Obstacle, pageable};
use crate::ops::{array, host, memory};
use crate::outcome::{Outcome, Reason};
use crate::result::CuResult;
use cudarc::driver::sys;
use lightos_protocol::arena::{Region, classify};
use lightos_protocol::record::CopyKind;
use lightos_protocol::request::{ArrayPlace, CopyDescriptor, GraphNode};

/// One side of a [`Copy3d`].
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct Side {
    x_bytes: usize,
    y: usize,
    z: usize,
    level: usize,
    /// `CUmemorytype`.
    kind: u32,
    host: u64,
    device: u64,
    array: u64,
    reserved: u64,
    pitch: usize,
    height: usize,
}

/// `CUDA_MEMCPY3D_v2`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Copy3d {
    src: Side,
    dst: Side,
    width_bytes: usize,
    height: usize,
    depth: usize,
}

const _: () = assert!(size_of::<Copy3d>() == size_of::<sys::CUDA_MEMCPY3D>());

/// `CU_MEMORYTYPE_*`.
const HOST: u32 = 1;
const DEVICE: u32 = 2;
const ARRAY: u32 = 3;
const UNIFIED: u32 = 4;

/// Where one end of a copy begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Memory(u64, pageable::Place),
    Array(ArrayPlace),
}

impl End {
    fn is_device(self) -> bool {
        matches!(self, Self::Array(_) | Self::Memory(_, pageable::Place::Device))
    }

    fn is_pageable(self) -> bool {
        matches!(self, Self::Memory(_, pageable::Place::Pageable))
    }

    /// As an end of linear memory, which an array is not.
    fn linear(self, side: &Side) -> Option<pageable::End> {
        let Self::Memory(address, place) = self else { return None };
        Some(pageable::End { address, place, pitch: side.pitch as u64, rows: side.height as u64 })
    }

    /// Address, pitch, rows from slice to slice; or the place in an array.
    fn parts(self, side: &Side) -> (u64, u64, u64, Option<ArrayPlace>) {
        match self {
            Self::Memory(address, _) => (address, side.pitch as u64, side.height as u64, None),
            Self::Array(place) => (0, 0, 0, Some(place)),
        }
    }
}

impl Side {
    fn resolve(&self) -> Result<End, Obstacle> {
        let base = match self.kind {
            HOST => self.host,
            DEVICE | UNIFIED => self.device,
            ARRAY => return self.array(),
            _ => return Err(CuResult::INVALID_VALUE.into()),
        };
        let rows = self.z.wrapping_mul(self.height).wrapping_add(self.y);
        let address = base.wrapping_add(rows.wrapping_mul(self.pitch).wrapping_add(self.x_bytes) as u64);
        let place = if self.kind != HOST && memory::is_device(address, 1) {
            pageable::Place::Device
        } else if host::shared(address) {
            pageable::Place::Pinned
        } else if self.kind != DEVICE && classify(address) == Region::ClientHost && address != 0 {
            pageable::Place::Pageable
        } else {
            // The local driver has taken it for memory of its own, which the executor does not have.
            return Err(CuResult::INVALID_VALUE.into());
        };
        Ok(End::Memory(address, place))
    }

    /// The local driver has judged the box; the executor must have the array.
    fn array(&self) -> Result<End, Obstacle> {
        array::find(self.array).map_err(|outcome| match outcome {
            Outcome::Refuse(reason) => Obstacle::Refused(reason),
            _ => CuResult::INVALID_VALUE.into(),
        })?;
        let (x_bytes, y, z) = (self.x_bytes as u64, self.y as u64, self.z as u64);
        Ok(End::Array(ArrayPlace { array: self.array, x_bytes, y, z }))
    }
}

impl Copy3d {
    /// Of its ends in memory that the device reaches.
    pub fn addresses(&self) -> [u64; 2] {
        [self.src.device, self.dst.device]
    }

    pub fn describe(self, walk: &mut Walk) -> Result<GraphNode, Obstacle> {
        let (from, to) = (self.src.resolve()?, self.dst.resolve()?);
        if from.is_pageable() || to.is_pageable() {
            let (Some(src), Some(dst)) = (from.linear(&self.src), to.linear(&self.dst)) else {
                // The processor does not know how an array lies.
                return Err(Obstacle::Refused(Reason::PageableInGraph));
            };
            let extent = [self.width_bytes as u64, self.height as u64, self.depth as u64];
            let (body, staged) = pageable::describe(dst, src, extent)?;
            walk.pending = Some(staged);
            return Ok(walk.inside(body));
        }
        let kind = match (from.is_device(), to.is_device()) {
            (false, true) => CopyKind::HostToDevice,
            (true, false) => CopyKind::DeviceToHost,
            (true, true) => CopyKind::DeviceToDevice,
            (false, false) => CopyKind::HostToHost,
        };
        let (src, src_pitch, src_height, src_array) = from.parts(&self.src);
        let (dst, dst_pitch, dst_height, dst_array) = to.parts(&self.dst);
        Ok(GraphNode::Memcpy(CopyDescriptor {
            src,
            src_pitch,
            src_height,
            dst,
            dst_pitch,
            dst_height,
            width_bytes: self.width_bytes as u64,
            height: self.height as u64,
            depth: self.depth as u64,
            kind: kind.into(),
            src_array,
            dst_array,
            levels: [self.src.level as u64, self.dst.level as u64],
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lightos_protocol::arena::DEVICE_ARENA_BASE;

    #[test]
    fn the_structs_have_the_layout_of_the_driver_s() {
        use std::mem::offset_of;
        assert_eq!(offset_of!(Copy3d, dst), offset_of!(sys::CUDA_MEMCPY3D, dstXInBytes));
        assert_eq!(offset_of!(Side, device), offset_of!(sys::CUDA_MEMCPY3D, srcDevice));
        assert_eq!(offset_of!(Copy3d, depth), offset_of!(sys::CUDA_MEMCPY3D, Depth));
    }

    #[test]
    fn pageable_memory_is_told_apart() {
        let side = |kind, address| Side { kind, host: address, device: address, ..Side::default() };
        let pageable = Ok(End::Memory(0x7fff_0000_1000, pageable::Place::Pageable));
        assert_eq!(side(HOST, 0x7fff_0000_1000).resolve(), pageable);
        assert_eq!(side(UNIFIED, 0x7fff_0000_1000).resolve(), pageable);
        let invalid = Err(Obstacle::Failed(CuResult::INVALID_VALUE));
        assert_eq!(side(DEVICE, 0x7fff_0000_1000).resolve(), invalid, "a device address of somebody else");
        assert_eq!(side(9, DEVICE_ARENA_BASE).resolve(), Err(Obstacle::Failed(CuResult::INVALID_VALUE)));
        // A host copy of an address of device memory is one that native refuses, too.
        assert!(side(HOST, DEVICE_ARENA_BASE).resolve().is_err());
    }

    #[test]
    fn an_end_in_an_array_has_a_place_there_and_no_address() {
        let side = Side { x_bytes: 4, y: 2, z: 1, pitch: 64, height: 8, array: 0x77, ..Side::default() };
        let place = ArrayPlace { array: 0x77, x_bytes: 4, y: 2, z: 1 };
        assert_eq!(End::Array(place).parts(&side), (0, 0, 0, Some(place)));
        assert_eq!(End::Memory(0x1000, pageable::Place::Device).parts(&side), (0x1000, 64, 8, None));
        assert!(End::Array(place).is_device());
    }
}
