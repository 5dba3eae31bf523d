//! Hooks of the copy functions.

use super::hooks;
use crate::edge::In;
use crate::ops::copy::pitched::{Copy2D, Copy3D, copy_2d, copy_3d};
use crate::ops::copy::{Role::*, Wait, linear, peer};
use std::ffi::c_void;

/// The number of a host pointer. Whoever reads or writes through it restores the provenance exposed here.
fn address(pointer: *const c_void) -> u64 {
    pointer.expose_provenance() as u64
}

hooks! {
    area copy;
    fn cuMemcpyHtoD_v2(dst: u64, src: *const c_void, bytes: usize) ptds cuMemcpyHtoD_v2_ptds[stream]
        => linear((dst, Device), (address(src), Host), bytes, stream, Wait::Yes);
    fn cuMemcpyDtoH_v2(dst: *mut c_void, src: u64, bytes: usize) ptds cuMemcpyDtoH_v2_ptds[stream]
        => linear((address(dst), Host), (src, Device), bytes, stream, Wait::Yes);
    fn cuMemcpyDtoD_v2(dst: u64, src: u64, bytes: usize) ptds cuMemcpyDtoD_v2_ptds[stream]
        => linear((dst, Device), (src, Device), bytes, stream, Wait::Yes);
    fn cuMemcpy(dst: u64, src: u64, bytes: usize) ptds cuMemcpy_ptds[stream]
        => linear((dst, Unified), (src, Unified), bytes, stream, Wait::Yes);
    fn cuMemcpyPeer(dst: u64, dst_context: u64, src: u64, src_context: u64, bytes: usize)
        ptds cuMemcpyPeer_ptds[stream]
        => peer((dst, dst_context), (src, src_context), bytes, stream, Wait::Yes);
    fn cuMemcpyHtoDAsync_v2(dst: u64, src: *const c_void, bytes: usize, stream: u64)
        ptsz cuMemcpyHtoDAsync_v2_ptsz[stream]
        => linear((dst, Device), (address(src), Host), bytes, stream, Wait::No);
    fn cuMemcpyDtoHAsync_v2(dst: *mut c_void, src: u64, bytes: usize, stream: u64)
        ptsz cuMemcpyDtoHAsync_v2_ptsz[stream]
        => linear((address(dst), Host), (src, Device), bytes, stream, Wait::No);
    fn cuMemcpyDtoDAsync_v2(dst: u64, src: u64, bytes: usize, stream: u64) ptsz cuMemcpyDtoDAsync_v2_ptsz[stream]
        => linear((dst, Device), (src, Device), bytes, stream, Wait::No);
    fn cuMemcpyAsync(dst: u64, src: u64, bytes: usize, stream: u64) ptsz cuMemcpyAsync_ptsz[stream]
        => linear((dst, Unified), (src, Unified), bytes, stream, Wait::No);
    fn cuMemcpyPeerAsync(dst: u64, dst_context: u64, src: u64, src_context: u64, bytes: usize, stream: u64)
        ptsz cuMemcpyPeerAsync_ptsz[stream]
        => peer((dst, dst_context), (src, src_context), bytes, stream, Wait::No);
    fn cuMemcpy2D_v2(copy: *const Copy2D) ptds cuMemcpy2D_v2_ptds[stream]
        => copy_2d(In::new(copy), stream, Wait::Yes);
    fn cuMemcpy2DUnaligned_v2(copy: *const Copy2D) ptds cuMemcpy2DUnaligned_v2_ptds[stream]
        => copy_2d(In::new(copy), stream, Wait::Yes);
    fn cuMemcpy2DAsync_v2(copy: *const Copy2D, stream: u64) ptsz cuMemcpy2DAsync_v2_ptsz[stream]
        => copy_2d(In::new(copy), stream, Wait::No);
    fn cuMemcpy3D_v2(copy: *const Copy3D) ptds cuMemcpy3D_v2_ptds[stream]
        => copy_3d(In::new(copy), stream, Wait::Yes);
    fn cuMemcpy3DAsync_v2(copy: *const Copy3D, stream: u64) ptsz cuMemcpy3DAsync_v2_ptsz[stream]
        => copy_3d(In::new(copy), stream, Wait::No);
    fn cuMemcpy3DPeer(copy: *const Copy3D) ptds cuMemcpy3DPeer_ptds[stream]
        => copy_3d(In::new(copy), stream, Wait::Yes);
    fn cuMemcpy3DPeerAsync(copy: *const Copy3D, stream: u64) ptsz cuMemcpy3DPeerAsync_ptsz[stream]
        => copy_3d(In::new(copy), stream, Wait::No);
}
