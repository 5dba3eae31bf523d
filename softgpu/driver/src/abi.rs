//! The C structures of the driver API, with every enumeration as the integer that C passes.
//!
//! A caller may put any value into an enum field, so the fields are integers here; a test compares size, alignment and offsets with
//! the bindings of the CUDA headers. Handles are `u64`: numbers, never followed.

pub mod image;

use std::ffi::{c_char, c_void};

/// A host function of `cuLaunchHostFunc` and host nodes.
pub type HostFn = Option<unsafe extern "C" fn(data: *mut c_void)>;
/// A callback of `cuStreamAddCallback`.
pub type StreamCallback = Option<unsafe extern "C" fn(stream: u64, status: u32, data: *mut c_void)>;

/// `CUmemorytype`.
pub const MEMORY_HOST: u32 = 1;
pub const MEMORY_DEVICE: u32 = 2;
pub const MEMORY_ARRAY: u32 = 3;
pub const MEMORY_UNIFIED: u32 = 4;

/// `CUDA_MEMCPY2D`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memcpy2d {
    pub src_x_bytes: usize,
    pub src_y: usize,
    pub src_type: u32,
    pub src_host: u64,
    pub src_device: u64,
    pub src_array: u64,
    pub src_pitch: usize,
    pub dst_x_bytes: usize,
    pub dst_y: usize,
    pub dst_type: u32,
    pub dst_host: u64,
    pub dst_device: u64,
    pub dst_array: u64,
    pub dst_pitch: usize,
    pub width_bytes: usize,
    pub height: usize,
}

/// `CUDA_MEMCPY3D`; `CUDA_MEMCPY3D_PEER` has contexts in the reserved words.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memcpy3d {
    pub src_x_bytes: usize,
    pub src_y: usize,
    pub src_z: usize,
    pub src_lod: usize,
    pub src_type: u32,
    pub src_host: u64,
    pub src_device: u64,
    pub src_array: u64,
    pub reserved0: u64,
    pub src_pitch: usize,
    pub src_height: usize,
    pub dst_x_bytes: usize,
    pub dst_y: usize,
    pub dst_z: usize,
    pub dst_lod: usize,
    pub dst_type: u32,
    pub dst_host: u64,
    pub dst_device: u64,
    pub dst_array: u64,
    pub reserved1: u64,
    pub dst_pitch: usize,
    pub dst_height: usize,
    pub width_bytes: usize,
    pub height: usize,
    pub depth: usize,
}

/// `CUDA_MEMSET_NODE_PARAMS`, first version.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memset {
    pub dst: u64,
    /// Bytes from row to row; unused where `height` is 1.
    pub pitch: usize,
    pub value: u32,
    /// 1, 2 or 4.
    pub element_bytes: u32,
    /// Elements per row.
    pub width: usize,
    pub height: usize,
}

/// `CUDA_KERNEL_NODE_PARAMS` of versions 2 and 3; the first version ends before `kern`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct KernelNode {
    pub func: u64,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub shared_bytes: u32,
    pub params: *mut *mut c_void,
    pub extra: *mut *mut c_void,
    pub kern: u64,
    pub ctx: u64,
}

/// `CUDA_KERNEL_NODE_PARAMS`, first version.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct KernelNodeV1 {
    pub func: u64,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub shared_bytes: u32,
    pub params: *mut *mut c_void,
    pub extra: *mut *mut c_void,
}

/// `CUDA_HOST_NODE_PARAMS`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct HostNode {
    pub function: HostFn,
    pub data: *mut c_void,
}

/// `CUDA_BATCH_MEM_OP_NODE_PARAMS`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct BatchNode {
    pub ctx: u64,
    pub count: u32,
    pub ops: *mut MemOp,
    pub flags: u32,
}

/// `CUstreamBatchMemOpParams` as its wait and write members lay it out.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct MemOp {
    pub operation: u32,
    pub address: u64,
    pub value: u64,
    pub flags: u32,
    pub alias: u64,
    pub reserved: u64,
}

/// `CUgraphNodeParams`: the type and 29 words, read according to the type.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct GraphNode {
    pub kind: u32,
    pub reserved0: [i32; 3],
    pub body: [u64; 29],
    pub reserved2: i64,
}

/// The memcpy member of `CUgraphNodeParams`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct MemcpyNode {
    pub flags: i32,
    pub reserved: i32,
    pub ctx: u64,
    pub copy: Memcpy3d,
}

/// `CUgraphEdgeData`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EdgeData {
    pub from_port: u8,
    pub to_port: u8,
    pub kind: u8,
    pub reserved: [u8; 5],
}

/// `CUDA_GRAPH_INSTANTIATE_PARAMS`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct InstantiateParams {
    pub flags: u64,
    pub upload_stream: u64,
    pub error_node: u64,
    pub result: u32,
}

/// `CUgraphExecUpdateResultInfo`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct UpdateResult {
    pub result: u32,
    pub error_node: u64,
    pub error_from_node: u64,
}

/// `CUlaunchConfig`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct LaunchConfig {
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub shared_bytes: u32,
    pub stream: u64,
    pub attributes: *const LaunchAttribute,
    pub attribute_count: u32,
}

/// `CUlaunchAttribute`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct LaunchAttribute {
    pub id: u32,
    pub pad: [u8; 4],
    pub value: AttributeValue,
}

/// `CUlaunchAttributeValue`, 64 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttributeValue(pub [u64; 8]);

impl AttributeValue {
    /// The value's first three 32-bit words.
    pub fn words(&self) -> [u32; 3] {
        [self.0[0] as u32, (self.0[0] >> 32) as u32, self.0[1] as u32]
    }
}

/// `CUmemLocation`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemLocation {
    pub kind: u32,
    pub id: i32,
}

/// `CUmemAllocationProp`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AllocationProp {
    pub kind: u32,
    pub handle_types: u32,
    pub location: MemLocation,
    pub win32: u64,
    pub compression: u8,
    pub rdma: u8,
    pub usage: u16,
    pub reserved: [u8; 4],
}

/// `CUmemAccessDesc`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct AccessDesc {
    pub location: MemLocation,
    pub flags: u32,
}

/// `CUmemPoolProps`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct PoolProps {
    pub kind: u32,
    pub handle_types: u32,
    pub location: MemLocation,
    pub win32: u64,
    pub max_bytes: usize,
    pub usage: u16,
    pub reserved: [u8; 54],
}

/// `CUDA_MEM_ALLOC_NODE_PARAMS`, both versions.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct MemAllocNode {
    pub props: PoolProps,
    pub grants: *const AccessDesc,
    pub grant_count: usize,
    pub bytes: usize,
    /// The address, an output.
    pub address: u64,
}

/// `CUdevprop`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct DevProp {
    pub max_threads_per_block: i32,
    pub max_threads_dim: [i32; 3],
    pub max_grid_size: [i32; 3],
    pub shared_mem_per_block: i32,
    pub total_constant_memory: i32,
    pub simd_width: i32,
    pub mem_pitch: i32,
    pub regs_per_block: i32,
    pub clock_rate: i32,
    pub texture_align: i32,
}

/// `CUctxCreateParams`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct CtxCreateParams {
    pub affinity: *const c_void,
    pub affinity_count: i32,
    pub cig: *const c_void,
}

/// A C string argument.
pub type Text = *const c_char;

#[cfg(test)]
mod tests {
    use super::*;
    use cudarc::driver::sys;
    use std::mem::offset_of;

    pub fn same<A, B>() {
        assert_eq!(size_of::<A>(), size_of::<B>(), "{}", std::any::type_name::<A>());
        assert_eq!(align_of::<A>(), align_of::<B>(), "{}", std::any::type_name::<A>());
    }

    #[test]
    fn layouts_are_those_of_the_cuda_headers() {
        same::<Memcpy2d, sys::CUDA_MEMCPY2D>();
        same::<Memcpy3d, sys::CUDA_MEMCPY3D>();
        same::<Memcpy3d, sys::CUDA_MEMCPY3D_PEER>();
        same::<Memset, sys::CUDA_MEMSET_NODE_PARAMS_v1>();
        same::<KernelNode, sys::CUDA_KERNEL_NODE_PARAMS_v2>();
        same::<KernelNodeV1, sys::CUDA_KERNEL_NODE_PARAMS_v1>();
        same::<HostNode, sys::CUDA_HOST_NODE_PARAMS_v1>();
        same::<BatchNode, sys::CUDA_BATCH_MEM_OP_NODE_PARAMS_v1>();
        same::<MemOp, sys::CUstreamBatchMemOpParams>();
        same::<GraphNode, sys::CUgraphNodeParams>();
        same::<MemAllocNode, sys::CUDA_MEM_ALLOC_NODE_PARAMS>();
        same::<MemcpyNode, sys::CUDA_MEMCPY_NODE_PARAMS>();
        same::<EdgeData, sys::CUgraphEdgeData>();
        same::<InstantiateParams, sys::CUDA_GRAPH_INSTANTIATE_PARAMS>();
        same::<UpdateResult, sys::CUgraphExecUpdateResultInfo>();
        same::<LaunchConfig, sys::CUlaunchConfig>();
        same::<LaunchAttribute, sys::CUlaunchAttribute>();
        same::<MemLocation, sys::CUmemLocation>();
        same::<AllocationProp, sys::CUmemAllocationProp>();
        same::<AccessDesc, sys::CUmemAccessDesc>();
        same::<PoolProps, sys::CUmemPoolProps>();
        same::<DevProp, sys::CUdevprop>();
        same::<CtxCreateParams, sys::CUctxCreateParams>();
    }

    #[test]
    fn offsets_are_those_of_the_cuda_headers() {
        assert_eq!(offset_of!(Memcpy3d, dst_device), offset_of!(sys::CUDA_MEMCPY3D, dstDevice));
        assert_eq!(offset_of!(Memcpy3d, depth), offset_of!(sys::CUDA_MEMCPY3D, Depth));
        assert_eq!(offset_of!(Memcpy2d, dst_pitch), offset_of!(sys::CUDA_MEMCPY2D, dstPitch));
        assert_eq!(offset_of!(KernelNode, params), offset_of!(sys::CUDA_KERNEL_NODE_PARAMS_v2, kernelParams));
        assert_eq!(offset_of!(KernelNode, kern), offset_of!(sys::CUDA_KERNEL_NODE_PARAMS_v2, kern));
        assert_eq!(offset_of!(LaunchConfig, stream), offset_of!(sys::CUlaunchConfig, hStream));
        assert_eq!(offset_of!(AllocationProp, compression), offset_of!(sys::CUmemAllocationProp, allocFlags));
        assert_eq!(offset_of!(GraphNode, reserved2), offset_of!(sys::CUgraphNodeParams, reserved2));
    }
}
