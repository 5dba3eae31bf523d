//! Hooks of the functions that begin and end a stream capture.

use super::hooks;
use crate::ops::capture::{begin, begin_in_graph, end};
use std::ffi::c_void;

hooks! {
    area capture;
    fn cuStreamBeginCapture(stream: u64) ptsz cuStreamBeginCapture_ptsz[stream]
        => begin(stream, || real::cuStreamBeginCapture(stream));
    fn cuStreamBeginCapture_v2(stream: u64, mode: u32) ptsz cuStreamBeginCapture_v2_ptsz[stream]
        => begin(stream, || real::cuStreamBeginCapture_v2(stream, mode));
    fn cuStreamBeginCaptureToGraph(
        stream: u64, graph: u64, dependencies: *const u64, data: *const c_void, count: usize, mode: u32,
    ) ptsz cuStreamBeginCaptureToGraph_ptsz[stream]
        => begin_in_graph(stream, || real::cuStreamBeginCaptureToGraph(stream, graph, dependencies, data, count, mode));
    /// The local driver compares the calls with the graph's nodes, and asks the program where they differ.
    fn cuStreamBeginRecaptureToGraph(stream: u64, mode: u32, graph: u64, differs: *const c_void, data: *mut c_void)
        ptsz cuStreamBeginRecaptureToGraph_ptsz[stream]
        => begin_in_graph(stream, || real::cuStreamBeginRecaptureToGraph(stream, mode, graph, differs, data));
    fn cuStreamEndCapture(stream: u64, graph: *mut u64) ptsz cuStreamEndCapture_ptsz[stream]
        => end(stream, || real::cuStreamEndCapture(stream, graph));
}
