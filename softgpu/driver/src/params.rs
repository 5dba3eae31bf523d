//! Node parameters: from the C structures to [`Work`], and back.
//!
//! Everything that a caller passes by pointer is copied here, so a node never refers to the caller's memory. Parameters that the
//! driver hands out (kernel parameter pointers, batched operations) stay valid as long as the node keeps them.

use std::sync::Arc;

use crate::abi::{BatchNode, GraphNode, HostNode, KernelNode, MemAllocNode, Memcpy3d, MemcpyNode, Memset};
use crate::context;
use crate::edge::array;
use crate::error::{Error, Result};
use crate::graph::memory::{self, Allocation};
use crate::launch::{KernelCall, Request, prepare};
use crate::work::{HostCall, UserData, Work, check_mem_op};
use crate::{copy, event, function, graph};

/// `CUgraphNodeType`.
const KERNEL: u32 = 0;
const MEMCPY: u32 = 1;
const MEMSET: u32 = 2;
const HOST: u32 = 3;
const CHILD: u32 = 4;
const EMPTY: u32 = 5;
const WAIT_EVENT: u32 = 6;
const RECORD_EVENT: u32 = 7;
const MEM_ALLOC: u32 = 10;
const MEM_FREE: u32 = 11;
const BATCH_MEM_OP: u32 = 12;

/// A memory allocation node. The access descriptors can grant nothing that the memory does not have.
pub fn allocation(node: &MemAllocNode) -> Result<Arc<Allocation>> {
    Allocation::create(node.props, node.bytes as u64)
}

/// What a memory allocation node says of itself.
pub fn of_allocation(allocation: &Allocation) -> MemAllocNode {
    let (bytes, address) = (allocation.bytes as usize, allocation.address);
    MemAllocNode { props: allocation.props, grants: std::ptr::null(), grant_count: 0, bytes, address }
}

/// A memory free node, for memory that a graph allocates.
pub fn free(address: u64) -> Result<Work> {
    memory::find(address).map(|_| Work::Free(address)).ok_or(Error::INVALID_VALUE)
}

/// A kernel node; `kern` names the kernel where `func` is null.
///
/// # Safety
/// The parameter pointers are as a launch's.
pub unsafe fn kernel(node: &KernelNode) -> Result<Work> {
    let request = Request {
        function: if node.func != 0 { node.func } else { node.kern },
        grid: node.grid,
        block: node.block,
        shared_bytes: node.shared_bytes,
        params: node.params,
        extra: node.extra,
        attributes: &[],
    };
    // SAFETY: this function's contract.
    Ok(Work::Kernel(Arc::new(unsafe { prepare(&request) }?)))
}

/// As [`kernel`], for a node that keeps the attributes of an earlier call.
///
/// # Safety
/// As [`kernel`].
pub unsafe fn kernel_like(node: &KernelNode, before: &KernelCall) -> Result<Work> {
    let request = Request {
        function: if node.func != 0 { node.func } else { node.kern },
        grid: node.grid,
        block: node.block,
        shared_bytes: node.shared_bytes,
        params: node.params,
        extra: node.extra,
        attributes: &before.attributes,
    };
    // SAFETY: this function's contract.
    Ok(Work::Kernel(Arc::new(unsafe { prepare(&request) }?.into_node()?)))
}

/// The parameters of a kernel node.
pub fn of_kernel(call: &KernelCall) -> KernelNode {
    let is_kernel = function::KERNELS.get(call.handle).is_some();
    KernelNode {
        func: if is_kernel { 0 } else { call.handle },
        grid: call.grid,
        block: call.block,
        shared_bytes: call.shared_bytes,
        params: call.param_pointers(),
        extra: std::ptr::null_mut(),
        kern: if is_kernel { call.handle } else { call.function.kernel },
        ctx: context::current_handle(),
    }
}

/// A copy node.
pub fn memcpy(parameters: &Memcpy3d, context: u64) -> Result<Work> {
    if context != 0 {
        context::find(context)?;
    }
    copy::plan(parameters)?;
    Ok(Work::Copy(*parameters))
}

/// A fill node.
pub fn memset(fill: &Memset, context: u64) -> Result<Work> {
    if context != 0 {
        context::find(context)?;
    }
    if copy::check_fill(fill)? { Ok(Work::Fill(*fill)) } else { Err(Error::INVALID_VALUE) }
}

/// A host function node.
pub fn host(node: &HostNode) -> Result<Work> {
    if node.function.is_none() {
        return Err(Error::INVALID_VALUE);
    }
    Ok(Work::Host(HostCall { function: node.function, data: UserData(node.data) }))
}

/// A node of batched memory operations.
///
/// # Safety
/// The array holds `count` operations.
pub unsafe fn batch(node: &BatchNode) -> Result<Work> {
    if node.count == 0 || node.flags != 0 {
        return Err(Error::INVALID_VALUE);
    }
    // SAFETY: this function's contract.
    let ops = unsafe { array(node.ops.cast_const(), node.count as usize) }?;
    ops.iter().try_for_each(check_mem_op)?;
    Ok(Work::MemOps(ops))
}

/// Any node by its generic parameters.
///
/// # Safety
/// Pointers in the parameters are as the type's own function asks.
pub unsafe fn generic(node: &GraphNode) -> Result<Work> {
    if node.reserved0 != [0; 3] || node.reserved2 != 0 {
        return Err(Error::INVALID_VALUE);
    }
    let body = node.body.as_ptr();
    // SAFETY: each structure is plain data no larger than the body, and the type says which one is there.
    unsafe {
        match node.kind {
            KERNEL => kernel(&body.cast::<KernelNode>().read()),
            MEMCPY => {
                let copy = body.cast::<MemcpyNode>().read();
                memcpy(&copy.copy, copy.ctx)
            }
            // The second version of the fill parameters ends with the context.
            MEMSET => memset(&body.cast::<Memset>().read(), node.body[size_of::<Memset>() / 8]),
            HOST => host(&HostNode {
                function: std::mem::transmute::<u64, crate::abi::HostFn>(node.body[0]),
                data: node.body[1] as *mut _,
            }),
            CHILD => Ok(Work::Child(graph::find(node.body[0])?)),
            EMPTY => Ok(Work::Empty),
            WAIT_EVENT => Ok(Work::WaitEvent(event::find(node.body[0])?)),
            RECORD_EVENT => Ok(Work::RecordEvent(event::find(node.body[0])?)),
            BATCH_MEM_OP => batch(&body.cast::<BatchNode>().read()),
            MEM_ALLOC => allocation(&body.cast::<MemAllocNode>().read()).map(Work::Allocate),
            MEM_FREE => free(node.body[0]),
            8 | 9 | 13 => Err(Error::NOT_SUPPORTED),
            _ => Err(Error::INVALID_VALUE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generic_parameters_hold_every_structure() {
        assert!(size_of::<MemcpyNode>() <= 29 * 8 && size_of::<KernelNode>() <= 29 * 8);
        let mut node = GraphNode { kind: EMPTY, reserved0: [0; 3], body: [0; 29], reserved2: 0 };
        // SAFETY: an empty node has no pointers.
        assert!(matches!(unsafe { generic(&node) }, Ok(Work::Empty)));
        node.reserved2 = 1;
        // SAFETY: as above.
        assert_eq!(unsafe { generic(&node) }.err(), Some(Error::INVALID_VALUE));
    }
}
