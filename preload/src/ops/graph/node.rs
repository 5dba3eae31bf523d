//! Nodes: from the driver's parameter structs to the description that the executor builds from.
//!
//! The structs are declared here with plain integers where `cuda.h` has enums: they come from the program or the driver, and
//! either may be newer than this file.

mod copy;

use super::Obstacle;
use super::walk::Walk;
use crate::ops::function::{self, Unusable};
use crate::ops::hostfn::{self, HostFn};
use crate::ops::launch::params::{Arguments, with_packed};
use crate::ops::stream::MemOp;
use crate::outcome::{Outcome, Reason};
use crate::result::CuResult;
use cudarc::driver::sys;
use lightos_protocol::request::{GraphNode, NodeAttribute};
use std::ffi::c_void;

pub use copy::Copy3d;

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

    #[test]
    fn the_structs_have_the_layout_of_the_driver_s() {
        use std::mem::offset_of;
        assert_eq!(offset_of!(KernelNode, params), offset_of!(sys::CUDA_KERNEL_NODE_PARAMS, kernelParams));
        assert_eq!(offset_of!(KernelNode, kernel), offset_of!(sys::CUDA_KERNEL_NODE_PARAMS, kern));
        assert_eq!(offset_of!(MemsetNode, height), offset_of!(sys::CUDA_MEMSET_NODE_PARAMS, height));
        assert_eq!(offset_of!(HostNode, data), offset_of!(sys::CUDA_HOST_NODE_PARAMS, userData));
        assert_eq!(offset_of!(NodeParams, params), 16);
        assert_eq!(offset_of!(sys::CUDA_MEMCPY_NODE_PARAMS, copyParams), 16);
    }

    #[test]
    fn a_memset_keeps_its_numbers() {
        let node = MemsetNode { dst: 1, pitch: 2, value: 3, element_bytes: 4, width: 5, height: 6 };
        let expected =
            GraphNode::Memset { dst: 1, pitch: 2, value: 3, element_bytes: 4, width: 5, height: 6 };
        assert_eq!(node.describe(), expected);
    }
}
