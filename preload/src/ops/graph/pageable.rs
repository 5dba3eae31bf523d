//! Nodes that copy from or to the program's pageable memory, which only the program itself can reach.
//!
//! Such a node becomes a small graph inside the executor's: a copy between the device and staging memory that both sides share, and a host
//! function that moves the bytes between that and the program's memory, in the order that the direction asks for. The executor's
//! graph keeps one node for each of the program's, so that places and edges stay what they are.

use super::Obstacle;
use crate::ops::host;
use crate::ops::hostfn;
use crate::result::CuResult;
use lightos_protocol::record::CopyKind;
use lightos_protocol::request::{CopyDescriptor, GraphBody, GraphNode};
use std::ffi::c_void;
use std::ptr;

/// One end of a copy, as a node has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    pub address: u64,
    pub place: Place,
    /// Bytes from row to row.
    pub pitch: u64,
    /// Rows from slice to slice.
    pub rows: u64,
}

/// Where an end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Device,
    Pinned,
    Pageable,
}

/// Bytes by row, rows, slices.
pub type Extent = [u64; 3];

/// What a node with pageable memory needs for as long as launches of it may run.
#[derive(Debug)]
pub struct Staged {
    /// Address and size of the staging memory, if the device has a part in the copy.
    staging: Option<(u64, u64)>,
    callback: u64,
    /// The host function's argument.
    _work: Box<Move>,
}

impl Drop for Staged {
    fn drop(&mut self) {
        hostfn::forget(&[self.callback]);
        if let Some((address, bytes)) = self.staging {
            host::release(address, bytes);
        }
    }
}

/// A copy by the processor.
#[derive(Debug, PartialEq, Eq)]
struct Move {
    dst: End,
    src: End,
    extent: Extent,
}

impl Move {
    /// Start of each row at both ends.
    fn rows(&self) -> impl Iterator<Item = (u64, u64)> {
        let Self { dst, src, extent: [_, height, depth] } = *self;
        let at = |end: End, z: u64, y: u64| end.address + (z * end.rows + y) * end.pitch;
        (0..depth).flat_map(move |z| (0..height).map(move |y| (at(dst, z, y), at(src, z, y))))
    }
}

/// The host function: `work` is a [`Move`].
unsafe extern "C" fn run(work: *mut c_void) {
    // SAFETY: the argument of a function that its `Staged` forgets before it frees it; nobody changes it.
    let work = unsafe { &*work.cast::<Move>() };
    for (dst, src) in work.rows() {
        let dst = ptr::with_exposed_provenance_mut::<u8>(dst as usize);
        let src = ptr::with_exposed_provenance::<u8>(src as usize);
        // SAFETY: each end is staging memory of that size, or memory that the program vouches for at every launch of its graph; natively
        // the driver's own copy would touch the same bytes.
        unsafe { ptr::copy(src, dst, work.extent[0] as usize) };
    }
}

/// The graph that stands for a copy of which at least one end is pageable, and what it needs.
pub fn describe(dst: End, src: End, extent: Extent) -> Result<(GraphBody, Staged), Obstacle> {
    let [width, height, depth] = extent;
    let bytes = width.checked_mul(height).and_then(|bytes| bytes.checked_mul(depth));
    let bytes = bytes.filter(|bytes| *bytes != 0).ok_or(CuResult::INVALID_VALUE)?;
    let is_uploaded = src.place == Place::Pageable;
    let on_device = if is_uploaded { dst } else { src };
    if on_device.place != Place::Device {
        // The processor reaches both.
        let staged = Staged::new(None, Move { dst, src, extent })?;
        let nodes = vec![GraphNode::Host { callback: staged.callback }];
        return Ok((GraphBody { nodes, ..GraphBody::default() }, staged));
    }
    let staging = host::obtain(bytes)?;
    let packed = End { address: staging, place: Place::Pinned, pitch: width, rows: height };
    let (by_host, by_device) = match is_uploaded {
        true => ((packed, src), (dst, packed)),
        false => ((dst, packed), (packed, src)),
    };
    let staged = Staged::new(Some((staging, bytes)), Move { dst: by_host.0, src: by_host.1, extent })?;
    let host = GraphNode::Host { callback: staged.callback };
    let device = copy(by_device.0, by_device.1, extent);
    let nodes = if is_uploaded { vec![host, device] } else { vec![device, host] };
    Ok((GraphBody { nodes, edges: vec![(0, 1)], ports: Vec::new() }, staged))
}

/// A copy between ends that the executor reaches.
pub fn copy(dst: End, src: End, [width_bytes, height, depth]: Extent) -> GraphNode {
    let kind = match (src.place, dst.place) {
        (Place::Device, Place::Device) => CopyKind::DeviceToDevice,
        (Place::Device, _) => CopyKind::DeviceToHost,
        (_, Place::Device) => CopyKind::HostToDevice,
        _ => CopyKind::HostToHost,
    };
    GraphNode::Memcpy(CopyDescriptor {
        src: src.address,
        src_pitch: src.pitch,
        src_height: src.rows,
        dst: dst.address,
        dst_pitch: dst.pitch,
        dst_height: dst.rows,
        width_bytes,
        height,
        depth,
        kind: kind.into(),
        ..CopyDescriptor::default()
    })
}

impl Staged {
    fn new(staging: Option<(u64, u64)>, work: Move) -> Result<Self, CuResult> {
        let mut work = Box::new(work);
        // SAFETY: `run` may be called with its work until the number is forgotten, which `drop` does before it frees the box.
        let callback = unsafe { hostfn::of_graph(run, (&raw mut *work).cast()) };
        match callback {
            Ok(callback) => Ok(Self { staging, callback, _work: work }),
            Err(error) => {
                staging.into_iter().for_each(|(address, bytes)| host::release(address, bytes));
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(bytes: &[u8], pitch: u64, rows: u64) -> End {
        End { address: bytes.as_ptr().expose_provenance() as u64, place: Place::Pageable, pitch, rows }
    }

    #[test]
    fn rows_and_slices_are_moved_and_nothing_else() {
        let src: Vec<u8> = (0..48).collect();
        let mut dst = [0u8; 16];
        let to = End { address: dst.as_mut_ptr().expose_provenance() as u64, ..end(&dst, 4, 2) };
        let mut work = Move { dst: to, src: end(&src, 8, 3), extent: [3, 2, 2] };
        // SAFETY: both ends have the rows that the work names.
        unsafe { run((&raw mut work).cast()) };
        assert_eq!(dst, [0, 1, 2, 0, 8, 9, 10, 0, 24, 25, 26, 0, 32, 33, 34, 0]);
    }

    #[test]
    fn an_empty_or_endless_copy_is_an_error() {
        let here = end(&[0], 1, 1);
        for extent in [[0, 1, 1], [1, 0, 1], [u64::MAX, 2, 1]] {
            let found = describe(here, here, extent).map(|(body, _)| body);
            assert_eq!(found, Err(Obstacle::Failed(CuResult::INVALID_VALUE)));
        }
    }
}
