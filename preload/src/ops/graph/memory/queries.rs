//! What nodes that allocate and free say of themselves, and what all graphs hold.

use super::{AllocNode, MEM_ALLOC, MEM_FREE, Node, table};
use crate::edge::Out;
use crate::ops::memory::slabs::DEVICE;
use crate::outcome::{Outcome, Reason};
use crate::result::CuResult;

/// cuGraphNodeGetType.
pub fn node_type(out: Out<u32>, node: u64) -> Outcome {
    let kind = match table().nodes.get(&node) {
        Some(Node::Allocate { .. }) => MEM_ALLOC,
        Some(Node::Free { .. }) => MEM_FREE,
        None => return Outcome::PassThrough(Reason::LocalQuery),
    };
    out.required().map(|out| out.put(kind)).into()
}

/// cuGraphMemAllocNodeGetParams.
pub fn allocation_of(out: Out<AllocNode>, node: u64) -> Outcome {
    let table = table();
    let Some(Node::Allocate { address, .. }) = table.nodes.get(&node) else {
        return Outcome::PassThrough(Reason::InvalidArgument);
    };
    let Some(memory) = table.memory.get(address) else { return Outcome::Fail(CuResult::INVALID_VALUE) };
    out.required().map(|out| out.put(memory.node)).into()
}

/// cuGraphMemFreeNodeGetParams.
pub fn freed_by(out: Out<u64>, node: u64) -> Outcome {
    match table().nodes.get(&node) {
        Some(&Node::Free { address, .. }) => out.required().map(|out| out.put(address)).into(),
        _ => Outcome::PassThrough(Reason::InvalidArgument),
    }
}

/// cuDeviceGetGraphMemAttribute: bytes allocated now and bytes that graphs hold; the marks are not kept apart.
pub fn attribute(device: i32, attribute: u32, value: Out<u64>) -> Outcome {
    if device != DEVICE {
        return Outcome::PassThrough(Reason::OtherDevice);
    }
    let (live, held) = table().memory.values().fold((0, 0), |(live, held), memory| {
        (live + if memory.is_live { memory.bytes } else { 0 }, held + memory.bytes)
    });
    let bytes = match attribute {
        0 | 1 => live,
        2 | 3 => held,
        _ => return Outcome::PassThrough(Reason::InvalidArgument),
    };
    value.required().map(|value| value.put(bytes)).into()
}
