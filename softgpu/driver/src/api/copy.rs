//! Copies of every shape, synchronous and in streams.

use crate::abi::{MEMORY_DEVICE, MEMORY_HOST, MEMORY_UNIFIED, Memcpy2d, Memcpy3d};
use crate::copy::{linear, plan};
use crate::edge::{exports, get};
use crate::error::Result;
use crate::work::{Task, Work};
use crate::{capture, context, stream};

/// A copy that ends before the call returns, in the default stream.
pub(super) fn copy_now(copy: &Memcpy3d) -> Result {
    context::healthy()?;
    let stream = stream::find(0)?;
    capture::forbid_sync(&stream)?;
    match plan(copy)? {
        Some(plan) => stream.run(Task::Copy(plan)),
        None => Ok(()),
    }
}

/// A copy in stream order. Where a side is pageable host memory, the call returns after the copy, as hardware's staging does.
pub(super) fn copy_later(copy: &Memcpy3d, handle: u64) -> Result {
    context::healthy()?;
    let stream = stream::find(handle)?;
    let Some(plan) = plan(copy)? else { return Ok(()) };
    if (plan.is_pageable() || plan.is_host_only()) && !capture::is_capturing(&stream)? {
        capture::forbid_implicit(&stream)?;
        return stream.run(Task::Copy(plan));
    }
    stream.submit(Work::Copy(*copy))
}

fn to_device(dst: u64, src: u64, bytes: usize) -> Memcpy3d {
    linear((MEMORY_DEVICE, dst), (MEMORY_HOST, src), bytes)
}

fn to_host(dst: u64, src: u64, bytes: usize) -> Memcpy3d {
    linear((MEMORY_HOST, dst), (MEMORY_DEVICE, src), bytes)
}

fn on_device(dst: u64, src: u64, bytes: usize) -> Memcpy3d {
    linear((MEMORY_DEVICE, dst), (MEMORY_DEVICE, src), bytes)
}

pub(super) fn unified(dst: u64, src: u64, bytes: usize) -> Memcpy3d {
    linear((MEMORY_UNIFIED, dst), (MEMORY_UNIFIED, src), bytes)
}

/// A copy between contexts: the addresses say everything, but the contexts must exist.
fn between(copy: Memcpy3d, contexts: [u64; 2]) -> Result<Memcpy3d> {
    for handle in contexts {
        context::find(handle)?;
    }
    Ok(Memcpy3d { reserved0: 0, reserved1: 0, ..copy })
}

exports! { TABLE:
    entry cuMemcpy / cuMemcpy_ptds: (dst: u64, src: u64, bytes: usize) { copy_now(&unified(dst, src, bytes)) }
    entry cuMemcpyAsync / cuMemcpyAsync_ptsz: (dst: u64, src: u64, bytes: usize, stream: u64) {
        copy_later(&unified(dst, src, bytes), stream)
    }
    entry cuMemcpyHtoD_v2 / cuMemcpyHtoD_v2_ptds: (dst: u64, src: u64, bytes: usize) {
        copy_now(&to_device(dst, src, bytes))
    }
    entry cuMemcpyDtoH_v2 / cuMemcpyDtoH_v2_ptds: (dst: u64, src: u64, bytes: usize) {
        copy_now(&to_host(dst, src, bytes))
    }
    entry cuMemcpyDtoD_v2 / cuMemcpyDtoD_v2_ptds: (dst: u64, src: u64, bytes: usize) {
        copy_now(&on_device(dst, src, bytes))
    }
    entry cuMemcpyHtoDAsync_v2 / cuMemcpyHtoDAsync_v2_ptsz: (dst: u64, src: u64, bytes: usize, stream: u64) {
        copy_later(&to_device(dst, src, bytes), stream)
    }
    entry cuMemcpyDtoHAsync_v2 / cuMemcpyDtoHAsync_v2_ptsz: (dst: u64, src: u64, bytes: usize, stream: u64) {
        copy_later(&to_host(dst, src, bytes), stream)
    }
    entry cuMemcpyDtoDAsync_v2 / cuMemcpyDtoDAsync_v2_ptsz: (dst: u64, src: u64, bytes: usize, stream: u64) {
        copy_later(&on_device(dst, src, bytes), stream)
    }
    entry cuMemcpyPeer / cuMemcpyPeer_ptds: (dst: u64, dst_context: u64, src: u64, src_context: u64, bytes: usize) {
        copy_now(&between(on_device(dst, src, bytes), [dst_context, src_context])?)
    }
    entry cuMemcpyPeerAsync / cuMemcpyPeerAsync_ptsz: (
        dst: u64, dst_context: u64, src: u64, src_context: u64, bytes: usize, stream: u64
    ) {
        copy_later(&between(on_device(dst, src, bytes), [dst_context, src_context])?, stream)
    }
    entry cuMemcpy2D_v2 / cuMemcpy2D_v2_ptds: (copy: *const Memcpy2d) { copy_now(&get(copy)?.into()) }
    entry cuMemcpy2DUnaligned_v2 / cuMemcpy2DUnaligned_v2_ptds: (copy: *const Memcpy2d) { copy_now(&get(copy)?.into()) }
    entry cuMemcpy2DAsync_v2 / cuMemcpy2DAsync_v2_ptsz: (copy: *const Memcpy2d, stream: u64) {
        copy_later(&get(copy)?.into(), stream)
    }
    entry cuMemcpy3D_v2 / cuMemcpy3D_v2_ptds: (copy: *const Memcpy3d) { copy_now(&get(copy)?) }
    entry cuMemcpy3DAsync_v2 / cuMemcpy3DAsync_v2_ptsz: (copy: *const Memcpy3d, stream: u64) {
        copy_later(&get(copy)?, stream)
    }
    entry cuMemcpy3DPeer / cuMemcpy3DPeer_ptds: (copy: *const Memcpy3d) {
        let copy = get(copy)?;
        copy_now(&between(copy, [copy.reserved1, copy.reserved0])?)
    }
    entry cuMemcpy3DPeerAsync / cuMemcpy3DPeerAsync_ptsz: (copy: *const Memcpy3d, stream: u64) {
        let copy = get(copy)?;
        copy_later(&between(copy, [copy.reserved1, copy.reserved0])?, stream)
    }
}
