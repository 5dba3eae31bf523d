//! Nodes: from the driver's parameter structs to the description that the executor builds from.
//!
//! The structs are declared here with plain integers where `cuda.h` has enums: they come from the program or the driver, and
//! either may be newer than this file.

use super::Obstacle;
use super::pageable;
use super::walk::Walk;
use crate::ops::function::{self, Unusable};
use crate::ops::hostfn::{self, HostFn};
use crate::ops::launch::params::{Arguments, with_packed};
use crate::ops::stream::MemOp;
use crate::ops::{array, host, memory};
use crate::outcome::{Outcome, Reason};
use crate::result::CuResult;
use cudarc::driver::sys;
use lightos_protocol::arena::{Region, classify};
use lightos_protocol::record::CopyKind;
use lightos_protocol::request::{ArrayPlace, CopyDescriptor, GraphNode, NodeAttribute};
use std::ffi::c_void;

/// `CUDA_KERNEL_NODE_PARAMS_v2` and `_v3`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct KernelNode {
    function: u64,
    grid: [u32; 3],
    block: [u32; 3],
    shared_bytes: u32,
    params: *mut *mut c_void,
    extra: *mut *mut c_void,
    /// Absent from `_v1`.
    kernel: u64,
    context: u64,
}

/// `CUDA_MEMSET_NODE_PARAMS`, with which `_v2` begins.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct MemsetNode {
    dst: u64,
    pitch: usize,
    value: u32,
    element_bytes: u32,
    width: usize,
    height: usize,
}

/// `CUDA_HOST_NODE_PARAMS`, with which `_v2` begins.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct HostNode {
    function: Option<HostFn>,
    data: *mut c_void,
}

/// `CUDA_BATCH_MEM_OP_NODE_PARAMS`, with which `_v2` agrees.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct BatchNode {
    context: u64,
    count: u32,
    operations: *const MemOp,
    flags: u32,
}

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

/// `CUgraphNodeParams`: the type, then the parameters in 232 bytes.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct NodeParams {
    pub(super) kind: u32,
    reserved: [u32; 3],
    pub(super) params: [u64; 29],
    reserved2: u64,
}

const _: () = assert!(size_of::<KernelNode>() == size_of::<sys::CUDA_KERNEL_NODE_PARAMS>());
const _: () = assert!(size_of::<MemsetNode>() == size_of::<sys::CUDA_MEMSET_NODE_PARAMS>());
const _: () = assert!(size_of::<BatchNode>() == size_of::<sys::CUDA_BATCH_MEM_OP_NODE_PARAMS>());
const _: () = assert!(size_of::<Copy3d>() == size_of::<sys::CUDA_MEMCPY3D>());
const _: () = assert!(size_of::<NodeParams>() == size_of::<sys::CUgraphNodeParams>());

/// `CUgraphNodeType`.
pub mod kind {
    pub const KERNEL: u32 = 0;
    pub const MEMCPY: u32 = 1;
    pub const MEMSET: u32 = 2;
    pub const HOST: u32 = 3;
    pub const GRAPH: u32 = 4;
    pub const EMPTY: u32 = 5;
    pub const WAIT_EVENT: u32 = 6;
    pub const EVENT_RECORD: u32 = 7;
    pub const BATCH_MEM_OP: u32 = 12;
}

/// `CU_MEMORYTYPE_*`.
const HOST: u32 = 1;
const DEVICE: u32 = 2;
const ARRAY: u32 = 3;
const UNIFIED: u32 = 4;

impl KernelNode {
    /// For the driver to fill.
    pub const EMPTY: Self = Self {
        function: 0,
        grid: [0; 3],
        block: [0; 3],
        shared_bytes: 0,
        params: std::ptr::null_mut(),
        extra: std::ptr::null_mut(),
        kernel: 0,
        context: 0,
    };

    /// Reads the program's struct; `_v1` ends before the kernel.
    ///
    /// # Safety
    /// `params` is null or a struct of that version.
    pub unsafe fn read(params: *const Self, is_v1: bool) -> Result<Self, Obstacle> {
        if params.is_null() {
            return Err(CuResult::INVALID_VALUE.into());
        }
        if !is_v1 {
            // SAFETY: not null, so a whole struct.
            return Ok(unsafe { params.read_unaligned() });
        }
        let mut node = Self::EMPTY;
        let bytes = std::mem::offset_of!(Self, kernel);
        // SAFETY: not null, so a struct of the first version, which ends where `kernel` begins.
        unsafe { std::ptr::copy_nonoverlapping(params.cast::<u8>(), (&raw mut node).cast::<u8>(), bytes) };
        Ok(node)
    }

    /// # Safety
    /// Parameter pointers as a launch has them.
    pub unsafe fn describe(self, attributes: Vec<NodeAttribute>) -> Result<GraphNode, Obstacle> {
        // The driver may fill in both; the kernel is what the program looked up.
        let handle = if self.kernel != 0 { self.kernel } else { self.function };
        let function = function::find(handle).map_err(|unusable| match unusable {
            Unusable::Unknown => Obstacle::Failed(CuResult::INVALID_HANDLE),
            Unusable::Refused(reason) => Obstacle::Refused(reason),
            Unusable::Failed(error) => Obstacle::Failed(error),
        })?;
        let mut params = Vec::new();
        // SAFETY: as the caller vouches.
        let arguments = unsafe { Arguments::new(self.params, self.extra) };
        with_packed(function.layout(), arguments, |bytes| {
            params = bytes.to_vec();
            Ok(())
        })?;
        let Self { grid, block, shared_bytes, .. } = self;
        Ok(GraphNode::Kernel { function: handle, grid, block, shared_bytes, params, attributes })
    }
}

impl MemsetNode {
    /// As [`Copy3d::addresses`].
    pub fn addresses(&self) -> [u64; 2] {
        [self.dst, 0]
    }

    pub fn describe(self) -> GraphNode {
        GraphNode::Memset {
            dst: self.dst,
            pitch: self.pitch as u64,
            value: self.value,
            element_bytes: self.element_bytes,
            width: self.width as u64,
            height: self.height as u64,
        }
    }
}

impl HostNode {
    /// For the driver to fill.
    pub const EMPTY: Self = Self { function: None, data: std::ptr::null_mut() };

    /// # Safety
    /// The program promises that the function may be called at every launch.
    pub unsafe fn describe(self, walk: &mut Walk) -> Result<GraphNode, Obstacle> {
        let function = self.function.ok_or(CuResult::INVALID_VALUE)?;
        // SAFETY: as the caller vouches.
        let callback = unsafe { hostfn::of_graph(function, self.data)? };
        walk.callbacks.push(callback);
        Ok(GraphNode::Host { callback })
    }
}

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

impl BatchNode {
    /// For the driver to fill.
    pub const EMPTY: Self = Self { context: 0, count: 0, operations: std::ptr::null(), flags: 0 };

    /// # Safety
    /// The list is null or has as many entries as the count says.
    pub unsafe fn describe(self) -> Result<GraphNode, Obstacle> {
        if self.operations.is_null() {
            return Err(CuResult::INVALID_VALUE.into());
        }
        let described = (0..self.count as usize).map(|index| {
            // SAFETY: not null, and below the count.
            let operation = unsafe { self.operations.add(index).read_unaligned() };
            operation.describe().map_err(|outcome| match outcome {
                Outcome::Refuse(reason) => Obstacle::Refused(reason),
                _ => Obstacle::Failed(CuResult::INVALID_VALUE),
            })
        });
        described.collect::<Result<Vec<_>, _>>().map(GraphNode::MemOps)
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

impl NodeParams {
    /// As [`Copy3d::addresses`]; zeros for what neither copies nor fills.
    pub fn addresses(&self) -> [u64; 2] {
        let params = self.params.as_ptr();
        // SAFETY: the array is larger than either structure and aligned for it; both are plain numbers.
        unsafe {
            match self.kind {
                kind::MEMCPY => params.add(2).cast::<Copy3d>().read().addresses(),
                kind::MEMSET => params.cast::<MemsetNode>().read().addresses(),
                _ => [0; 2],
            }
        }
    }

    /// # Safety
    /// The parameters are what the type says, with pointers as the functions for that type take them.
    pub unsafe fn describe(&self, walk: &mut Walk) -> Result<GraphNode, Obstacle> {
        let params = self.params.as_ptr();
        // SAFETY: the array is as large as any node's parameters, and holds those of the kind, as the caller vouches.
        unsafe {
            match self.kind {
                kind::KERNEL => params.cast::<KernelNode>().read().describe(Vec::new()),
                // Flags and a context come first.
                kind::MEMCPY => params.add(2).cast::<Copy3d>().read().describe(walk),
                kind::MEMSET => Ok(params.cast::<MemsetNode>().read().describe()),
                kind::HOST => params.cast::<HostNode>().read().describe(walk),
                kind::GRAPH => walk.child(self.params[0]),
                kind::EVENT_RECORD => Ok(walk.event_record(self.params[0])),
                kind::WAIT_EVENT => Ok(GraphNode::EventWait { event: self.params[0] }),
                kind::BATCH_MEM_OP => params.cast::<BatchNode>().read().describe(),
                _ => Err(Obstacle::Refused(Reason::GraphNodeKind)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lightos_protocol::arena::DEVICE_ARENA_BASE;

    #[test]
    fn the_structs_have_the_layout_of_the_driver_s() {
        use std::mem::offset_of;
        assert_eq!(offset_of!(KernelNode, params), offset_of!(sys::CUDA_KERNEL_NODE_PARAMS, kernelParams));
        assert_eq!(offset_of!(KernelNode, kernel), offset_of!(sys::CUDA_KERNEL_NODE_PARAMS, kern));
        assert_eq!(offset_of!(MemsetNode, height), offset_of!(sys::CUDA_MEMSET_NODE_PARAMS, height));
        assert_eq!(offset_of!(HostNode, data), offset_of!(sys::CUDA_HOST_NODE_PARAMS, userData));
        assert_eq!(offset_of!(Copy3d, dst), offset_of!(sys::CUDA_MEMCPY3D, dstXInBytes));
        assert_eq!(offset_of!(Side, device), offset_of!(sys::CUDA_MEMCPY3D, srcDevice));
        assert_eq!(offset_of!(Copy3d, depth), offset_of!(sys::CUDA_MEMCPY3D, Depth));
        assert_eq!(offset_of!(NodeParams, params), 16);
        assert_eq!(offset_of!(sys::CUDA_MEMCPY_NODE_PARAMS, copyParams), 16);
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

    #[test]
    fn a_memset_keeps_its_numbers() {
        let node = MemsetNode { dst: 1, pitch: 2, value: 3, element_bytes: 4, width: 5, height: 6 };
        let expected =
            GraphNode::Memset { dst: 1, pitch: 2, value: 3, element_bytes: 4, width: 5, height: 6 };
        assert_eq!(node.describe(), expected);
    }
}
