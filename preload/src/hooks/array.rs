//! Hooks of the functions on arrays, and of the copies that name one by offset. Queries stay with the local driver, whose twin is true.

use super::hooks;
use crate::edge::{In, Out};
use crate::ops::array::{self as ops, shape::Shape};
use crate::ops::copy::Wait;
use crate::ops::copy::boxes::{Linear::*, by_offset};
use std::ffi::c_void;

/// The number of a host pointer. Whoever reads or writes through it restores the provenance exposed here.
fn address(pointer: *const c_void) -> u64 {
    pointer.expose_provenance() as u64
}

hooks! {
    area array;
    fn cuArrayCreate_v2(out: *mut u64, descriptor: *const c_void) => ops::create_array(
        Out::new(out), |out| real::cuArrayCreate_v2(out, descriptor), |array| real::cuArrayDestroy(array),
    );
    fn cuArray3DCreate_v2(out: *mut u64, descriptor: *const Shape) => ops::create_array(
        Out::new(out), |out| real::cuArray3DCreate_v2(out, descriptor), |array| real::cuArrayDestroy(array),
    );
    fn cuArrayDestroy(array: u64) => ops::destroy_array(array, || real::cuArrayDestroy(array));
    fn cuArrayGetPlane(out: *mut u64, array: u64, plane: u32)
        => ops::plane(Out::new(out), array, plane, |out| real::cuArrayGetPlane(out, array, plane));
    fn cuMipmappedArrayCreate(out: *mut u64, descriptor: *const Shape, levels: u32) => ops::create_mipmapped(
        Out::new(out), || In::new(descriptor).get(), levels,
        |out| real::cuMipmappedArrayCreate(out, descriptor, levels), |array| real::cuMipmappedArrayDestroy(array),
    );
    fn cuMipmappedArrayDestroy(mipmapped: u64)
        => ops::destroy_mipmapped(mipmapped, || real::cuMipmappedArrayDestroy(mipmapped));
    fn cuMipmappedArrayGetLevel(out: *mut u64, mipmapped: u64, level: u32)
        => ops::level(Out::new(out), mipmapped, level, |out| real::cuMipmappedArrayGetLevel(out, mipmapped, level));
    fn cuMemcpyAtoA_v2(dst: u64, dst_offset: usize, src: u64, src_offset: usize, bytes: usize)
        ptds cuMemcpyAtoA_v2_ptds[stream]
        => by_offset(Array(dst, dst_offset), Array(src, src_offset), bytes, stream, Wait::Yes);
    fn cuMemcpyAtoD_v2(dst: u64, src: u64, offset: usize, bytes: usize) ptds cuMemcpyAtoD_v2_ptds[stream]
        => by_offset(Device(dst), Array(src, offset), bytes, stream, Wait::Yes);
    fn cuMemcpyDtoA_v2(dst: u64, offset: usize, src: u64, bytes: usize) ptds cuMemcpyDtoA_v2_ptds[stream]
        => by_offset(Array(dst, offset), Device(src), bytes, stream, Wait::Yes);
    fn cuMemcpyAtoH_v2(dst: *mut c_void, src: u64, offset: usize, bytes: usize) ptds cuMemcpyAtoH_v2_ptds[stream]
        => by_offset(Host(address(dst)), Array(src, offset), bytes, stream, Wait::Yes);
    fn cuMemcpyHtoA_v2(dst: u64, offset: usize, src: *const c_void, bytes: usize) ptds cuMemcpyHtoA_v2_ptds[stream]
        => by_offset(Array(dst, offset), Host(address(src)), bytes, stream, Wait::Yes);
    fn cuMemcpyAtoHAsync_v2(dst: *mut c_void, src: u64, offset: usize, bytes: usize, stream: u64)
        ptsz cuMemcpyAtoHAsync_v2_ptsz[stream]
        => by_offset(Host(address(dst)), Array(src, offset), bytes, stream, Wait::No);
    fn cuMemcpyHtoAAsync_v2(dst: u64, offset: usize, src: *const c_void, bytes: usize, stream: u64)
        ptsz cuMemcpyHtoAAsync_v2_ptsz[stream]
        => by_offset(Array(dst, offset), Host(address(src)), bytes, stream, Wait::No);
}
