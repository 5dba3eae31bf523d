//! Fills of every width and shape.

use crate::abi::Memset;
use crate::copy::check_fill;
use crate::edge::exports;
use crate::error::Result;
use crate::work::{Task, Work};
use crate::{capture, context, stream};

fn fill(dst: u64, element_bytes: u32, value: u32, width: usize) -> Memset {
    fill_2d(dst, 0, element_bytes, value, width, 1)
}

fn fill_2d(dst: u64, pitch: usize, element_bytes: u32, value: u32, width: usize, height: usize) -> Memset {
    Memset { dst, pitch, value, element_bytes, width, height }
}

/// A fill by a synchronous entry point, in the default stream.
fn now(fill: Memset) -> Result {
    context::healthy()?;
    let stream = stream::find(0)?;
    capture::forbid_sync(&stream)?;
    if check_fill(&fill)? { stream.run(Task::Fill(fill)) } else { Ok(()) }
}

fn later(fill: Memset, handle: u64) -> Result {
    context::healthy()?;
    let stream = stream::find(handle)?;
    if check_fill(&fill)? { stream.submit(Work::Fill(fill)) } else { Ok(()) }
}

exports! { TABLE:
    entry cuMemsetD8_v2 / cuMemsetD8_v2_ptds: (dst: u64, value: u8, count: usize) {
        now(fill(dst, 1, value.into(), count))
    }
    entry cuMemsetD16_v2 / cuMemsetD16_v2_ptds: (dst: u64, value: u16, count: usize) {
        now(fill(dst, 2, value.into(), count))
    }
    entry cuMemsetD32_v2 / cuMemsetD32_v2_ptds: (dst: u64, value: u32, count: usize) {
        now(fill(dst, 4, value, count))
    }
    entry cuMemsetD2D8_v2 / cuMemsetD2D8_v2_ptds: (dst: u64, pitch: usize, value: u8, width: usize, height: usize) {
        now(fill_2d(dst, pitch, 1, value.into(), width, height))
    }
    entry cuMemsetD2D16_v2 / cuMemsetD2D16_v2_ptds: (dst: u64, pitch: usize, value: u16, width: usize, height: usize) {
        now(fill_2d(dst, pitch, 2, value.into(), width, height))
    }
    entry cuMemsetD2D32_v2 / cuMemsetD2D32_v2_ptds: (dst: u64, pitch: usize, value: u32, width: usize, height: usize) {
        now(fill_2d(dst, pitch, 4, value, width, height))
    }
    entry cuMemsetD8Async / cuMemsetD8Async_ptsz: (dst: u64, value: u8, count: usize, stream: u64) {
        later(fill(dst, 1, value.into(), count), stream)
    }
    entry cuMemsetD16Async / cuMemsetD16Async_ptsz: (dst: u64, value: u16, count: usize, stream: u64) {
        later(fill(dst, 2, value.into(), count), stream)
    }
    entry cuMemsetD32Async / cuMemsetD32Async_ptsz: (dst: u64, value: u32, count: usize, stream: u64) {
        later(fill(dst, 4, value, count), stream)
    }
    entry cuMemsetD2D8Async / cuMemsetD2D8Async_ptsz: (
        dst: u64, pitch: usize, value: u8, width: usize, height: usize, stream: u64
    ) {
        later(fill_2d(dst, pitch, 1, value.into(), width, height), stream)
    }
    entry cuMemsetD2D16Async / cuMemsetD2D16Async_ptsz: (
        dst: u64, pitch: usize, value: u16, width: usize, height: usize, stream: u64
    ) {
        later(fill_2d(dst, pitch, 2, value.into(), width, height), stream)
    }
    entry cuMemsetD2D32Async / cuMemsetD2D32Async_ptsz: (
        dst: u64, pitch: usize, value: u32, width: usize, height: usize, stream: u64
    ) {
        later(fill_2d(dst, pitch, 4, value, width, height), stream)
    }
}
