//! Hooks of the fill functions.

use super::hooks;
use crate::ops::copy::Wait;
use crate::ops::memset::{Area, fill};

hooks! {
    area memset;
    fn cuMemsetD8_v2(dst: u64, value: u8, count: usize) ptds cuMemsetD8_v2_ptds[stream]
        => fill(Area::linear(dst, count, 1), value.into(), stream, Wait::Yes);
    fn cuMemsetD16_v2(dst: u64, value: u16, count: usize) ptds cuMemsetD16_v2_ptds[stream]
        => fill(Area::linear(dst, count, 2), value.into(), stream, Wait::Yes);
    fn cuMemsetD32_v2(dst: u64, value: u32, count: usize) ptds cuMemsetD32_v2_ptds[stream]
        => fill(Area::linear(dst, count, 4), value, stream, Wait::Yes);
    fn cuMemsetD2D8_v2(dst: u64, pitch: usize, value: u8, width: usize, height: usize)
        ptds cuMemsetD2D8_v2_ptds[stream]
        => fill(Area { dst, pitch, width, height, element_bytes: 1 }, value.into(), stream, Wait::Yes);
    fn cuMemsetD2D16_v2(dst: u64, pitch: usize, value: u16, width: usize, height: usize)
        ptds cuMemsetD2D16_v2_ptds[stream]
        => fill(Area { dst, pitch, width, height, element_bytes: 2 }, value.into(), stream, Wait::Yes);
    fn cuMemsetD2D32_v2(dst: u64, pitch: usize, value: u32, width: usize, height: usize)
        ptds cuMemsetD2D32_v2_ptds[stream]
        => fill(Area { dst, pitch, width, height, element_bytes: 4 }, value, stream, Wait::Yes);
    fn cuMemsetD8Async(dst: u64, value: u8, count: usize, stream: u64) ptsz cuMemsetD8Async_ptsz[stream]
        => fill(Area::linear(dst, count, 1), value.into(), stream, Wait::No);
    fn cuMemsetD16Async(dst: u64, value: u16, count: usize, stream: u64) ptsz cuMemsetD16Async_ptsz[stream]
        => fill(Area::linear(dst, count, 2), value.into(), stream, Wait::No);
    fn cuMemsetD32Async(dst: u64, value: u32, count: usize, stream: u64) ptsz cuMemsetD32Async_ptsz[stream]
        => fill(Area::linear(dst, count, 4), value, stream, Wait::No);
    fn cuMemsetD2D8Async(dst: u64, pitch: usize, value: u8, width: usize, height: usize, stream: u64)
        ptsz cuMemsetD2D8Async_ptsz[stream]
        => fill(Area { dst, pitch, width, height, element_bytes: 1 }, value.into(), stream, Wait::No);
    fn cuMemsetD2D16Async(dst: u64, pitch: usize, value: u16, width: usize, height: usize, stream: u64)
        ptsz cuMemsetD2D16Async_ptsz[stream]
        => fill(Area { dst, pitch, width, height, element_bytes: 2 }, value.into(), stream, Wait::No);
    fn cuMemsetD2D32Async(dst: u64, pitch: usize, value: u32, width: usize, height: usize, stream: u64)
        ptsz cuMemsetD2D32Async_ptsz[stream]
        => fill(Area { dst, pitch, width, height, element_bytes: 4 }, value, stream, Wait::No);
}
