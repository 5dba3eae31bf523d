//! Stream capture. The three versions of `cuStreamGetCaptureInfo` differ in what they return.

use crate::abi::EdgeData;
use crate::api::graph::plain;
use crate::edge::{array, exports, get, put, put_some};
use crate::error::{Error, Result};
use crate::{capture, graph, stream};

/// `CU_STREAM_SET_CAPTURE_DEPENDENCIES`; ADD is 0.
const SET_DEPENDENCIES: u32 = 1;

/// Outputs of the newer forms; null where the caller does not ask.
struct Outputs {
    status: *mut u32,
    id: *mut u64,
    graph: *mut u64,
    dependencies: *mut *const u64,
    edges: *mut *const EdgeData,
    count: *mut usize,
}

/// # Safety
/// Every output is null or valid for writing.
unsafe fn info(handle: u64, out: &Outputs) -> Result {
    let stream = stream::find(handle)?;
    let (status, member) = capture::status(&stream)?;
    // SAFETY: this function's contract.
    unsafe {
        put(out.status, status)?;
        let Some(member) = member.filter(|_| status == capture::STATUS_ACTIVE) else { return Ok(()) };
        put_some(out.id, member.session.id);
        put_some(out.graph, member.session.graph.handle);
        capture::with_tail(&stream, |tail, edges| {
            put_some(out.dependencies, tail.as_ptr());
            put_some(out.edges, edges.as_ptr());
            put_some(out.count, tail.len());
        });
    }
    Ok(())
}

/// # Safety
/// `nodes` holds `count` handles.
unsafe fn update(handle: u64, nodes: *const u64, count: usize, flags: u32) -> Result {
    let stream = stream::find(handle)?;
    if flags > SET_DEPENDENCIES {
        return Err(Error::INVALID_VALUE);
    }
    // SAFETY: this function's contract.
    capture::set_tail(&stream, &unsafe { array(nodes, count) }?, flags == SET_DEPENDENCIES)
}

exports! { TABLE:
    entry cuStreamBeginCapture_v2 / cuStreamBeginCapture_v2_ptsz: (stream: u64, mode: u32) {
        capture::begin(&stream::find(stream)?, mode)
    }
    entry cuStreamBeginCapture / cuStreamBeginCapture_ptsz: (stream: u64) {
        capture::begin(&stream::find(stream)?, capture::MODE_GLOBAL)
    }
    entry cuStreamBeginCaptureToGraph / cuStreamBeginCaptureToGraph_ptsz: (
        stream: u64, graph: u64, nodes: *const u64, edges: *const EdgeData, count: usize, mode: u32
    ) {
        let (stream, graph) = (stream::find(stream)?, graph::find(graph)?);
        plain(edges, count)?;
        capture::begin_to(&stream, mode, graph, array(nodes, count)?)
    }
    entry cuStreamEndCapture / cuStreamEndCapture_ptsz: (stream: u64, graph: *mut u64) {
        let stream = stream::find(stream)?;
        if graph.is_null() {
            return Err(Error::INVALID_VALUE);
        }
        put(graph, 0)?;
        put(graph, capture::end(&stream)?)
    }
    entry cuStreamIsCapturing / cuStreamIsCapturing_ptsz: (stream: u64, status: *mut u32) {
        let stream = stream::find(stream)?;
        put(status, capture::status(&stream)?.0)
    }
    entry cuStreamGetCaptureInfo / cuStreamGetCaptureInfo_ptsz: (stream: u64, status: *mut u32, id: *mut u64) {
        let (graph, dependencies) = (std::ptr::null_mut(), std::ptr::null_mut());
        let (edges, count) = (std::ptr::null_mut(), std::ptr::null_mut());
        info(stream, &Outputs { status, id, graph, dependencies, edges, count })
    }
    entry cuStreamGetCaptureInfo_v2 / cuStreamGetCaptureInfo_v2_ptsz: (
        stream: u64, status: *mut u32, id: *mut u64, graph: *mut u64, dependencies: *mut *const u64, count: *mut usize
    ) {
        info(stream, &Outputs { status, id, graph, dependencies, edges: std::ptr::null_mut(), count })
    }
    entry cuStreamGetCaptureInfo_v3 / cuStreamGetCaptureInfo_v3_ptsz: (
        stream: u64, status: *mut u32, id: *mut u64, graph: *mut u64, dependencies: *mut *const u64,
        edges: *mut *const EdgeData, count: *mut usize
    ) {
        info(stream, &Outputs { status, id, graph, dependencies, edges, count })
    }
    entry cuStreamUpdateCaptureDependencies / cuStreamUpdateCaptureDependencies_ptsz: (
        stream: u64, nodes: *const u64, count: usize, flags: u32
    ) {
        update(stream, nodes, count, flags)
    }
    entry cuStreamUpdateCaptureDependencies_v2 / cuStreamUpdateCaptureDependencies_v2_ptsz: (
        stream: u64, nodes: *const u64, edges: *const EdgeData, count: usize, flags: u32
    ) {
        plain(edges, count)?;
        update(stream, nodes, count, flags)
    }
    entry cuThreadExchangeStreamCaptureMode: (mode: *mut u32) {
        let before = capture::exchange_mode(get(mode)?)?;
        put(mode, before)
    }
}
