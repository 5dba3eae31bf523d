//! Copies with an array at either end: a box of the executor's array, whose layout nobody here knows.
//!
//! The executor is asked for each copy, because its driver alone knows every rule for arrays, and what it says of a copy is said at
//! the call. A box that leaves its array is recognised here, before a part of it has been copied.

use lightos_protocol::request::{ArrayPlace, ArrayRequest, CopyDescriptor, Request};

use super::pitched::{ARRAY, Copy3D, DEVICE, Extent, HOST, Side, Side3D};
use super::staging::{self, CHUNK_BYTES, Chunk};
use super::{Place, Wait, count, kind, wire};
use crate::ops::array;
use crate::ops::memory::sidecar;
use crate::ops::{capture, context, global, stream};
use crate::outcome::Outcome;
use crate::result::CuResult;
use crate::session::Session;

/// One end of a copy.
#[derive(Clone, Copy, Debug)]
enum End {
    Array(ArrayPlace),
    Memory(Side, Place),
}

/// One end of a copy by offset: any of cuMemcpy{A,D,H}to{A,D,H}.
#[derive(Clone, Copy, Debug)]
pub enum Linear {
    /// An array and an offset in bytes in its first row.
    Array(u64, usize),
    Device(u64),
    Host(u64),
}

impl End {
    fn new(side: &Side3D, extent: Extent) -> Result<Self, Outcome> {
        if side.memory_type != ARRAY {
            let memory = Side::new(side, extent).map_err(Outcome::Fail)?;
            return Ok(Self::Memory(memory, memory.place(extent).map_err(Outcome::Fail)?));
        }
        let place = ArrayPlace {
            array: side.array.expose_provenance() as u64,
            x_bytes: side.x_bytes as u64,
            y: side.y as u64,
            z: side.z as u64,
        };
        let shape = array::find(place.array)?;
        let size = [extent.width, extent.height, extent.depth];
        if !shape.contains([place.x_bytes, place.y, place.z], size) {
            return Err(Outcome::Fail(CuResult::INVALID_VALUE));
        }
        Ok(Self::Array(place))
    }

    fn place(self) -> Place {
        match self {
            Self::Array(_) => Place::Device,
            Self::Memory(_, place) => place,
        }
    }

    /// This end from a slice and row of the box on: address, pitch, rows from slice to slice, or the place in the array.
    fn from(self, z: u64, row: u64, extent: Extent) -> (u64, u64, u64, Option<ArrayPlace>) {
        match self {
            Self::Array(place) => (0, 0, 0, Some(ArrayPlace { y: place.y + row, z: place.z + z, ..place })),
            Self::Memory(side, _) => {
                // A single row has a pitch that nobody looked at, a single slice a number of rows.
                let rows = (side.slice / side.pitch).max(extent.height);
                (side.at_slice(z) + row * side.pitch, side.pitch.max(extent.width), rows, None)
            }
        }
    }
}

/// Both ends and what else the executor must be told.
#[derive(Clone, Copy, Debug)]
struct Copy {
    dst: End,
    src: End,
    extent: Extent,
    levels: [u64; 2],
    stream: u64,
}

/// Rows of one slice: slice, first row and number.
#[derive(Clone, Copy, Debug)]
struct Group {
    z: u64,
    first: u64,
    rows: u64,
}

impl Copy {
    fn kind(&self) -> u32 {
        kind(self.dst.place(), self.src.place()).into()
    }

    /// The copy of the whole box.
    fn whole(&self) -> CopyDescriptor {
        let (src, src_pitch, src_height, src_array) = self.src.from(0, 0, self.extent);
        let (dst, dst_pitch, dst_height, dst_array) = self.dst.from(0, 0, self.extent);
        let Extent { width, height, depth } = self.extent;
        CopyDescriptor {
            src,
            src_pitch,
            src_height,
            dst,
            dst_pitch,
            dst_height,
            width_bytes: width,
            height,
            depth,
            kind: self.kind(),
            src_array,
            dst_array,
            levels: self.levels,
        }
    }

    /// The copy of a group of rows, whose pageable end is packed in a chunk.
    fn group(&self, chunk: u64, group: Group) -> CopyDescriptor {
        let extent = Extent { height: group.rows, depth: 1, ..self.extent };
        let end = |end: End| match end {
            End::Memory(_, Place::Pageable) => (chunk, extent.width, extent.height, None),
            end => end.from(group.z, group.first, extent),
        };
        let (src, src_pitch, src_height, src_array) = end(self.src);
        let (dst, dst_pitch, dst_height, dst_array) = end(self.dst);
        CopyDescriptor {
            src,
            src_pitch,
            src_height,
            dst,
            dst_pitch,
            dst_height,
            src_array,
            dst_array,
            height: group.rows,
            depth: 1,
            ..self.whole()
        }
    }

    fn order(
        &self,
        session: &Session,
        copy: CopyDescriptor,
        (release_slot, release_value): (u32, u32),
    ) -> Result<(), CuResult> {
        let request = ArrayRequest::Copy { copy, stream: self.stream, release_slot, release_value };
        session.call(&Request::Array(request)).map(drop)
    }

    fn run(&self, session: &Session) -> Result<(), CuResult> {
        let Extent { width, height, depth } = self.extent;
        let pageable = match (self.dst, self.src) {
            (End::Memory(side, Place::Pageable), _) | (_, End::Memory(side, Place::Pageable)) => side,
            _ => return self.order(session, self.whole(), (0, 0)),
        };
        // No array has rows of that length.
        if width > CHUNK_BYTES {
            return Err(CuResult::INVALID_VALUE);
        }
        (0..depth).try_for_each(|z| {
            let rows = (pageable.at_slice(z), pageable.pitch);
            let order = |chunk: &mut Chunk, (first, rows): (u64, u64)| {
                let copy = self.group(chunk.address, Group { z, first, rows });
                chunk.lend(session, |release| self.order(session, copy, release))
            };
            match self.src {
                End::Memory(_, Place::Pageable) => {
                    staging::upload_rows(session, rows, (width, height), order)
                }
                _ => staging::download_rows(session, rows, (width, height), order),
            }
        })
    }
}

/// A copy of a box that is not empty, one of whose ends is an array. The context was checked, and the stream is not being captured.
pub fn copy(copy: &Copy3D, extent: Extent, stream: u64, wait: Wait) -> Outcome {
    let (src, dst) = match (End::new(&copy.src, extent), End::new(&copy.dst, extent)) {
        (Ok(src), Ok(dst)) => (src, dst),
        (Err(outcome), _) | (_, Err(outcome)) => return outcome,
    };
    let run = || {
        let session = sidecar()?;
        let levels = [copy.src.level as u64, copy.dst.level as u64];
        let copy = Copy { dst, src, extent, levels, stream: wire(stream)? };
        copy.run(session)?;
        let (to, from) = (dst.place(), src.place());
        count(session, to, from, extent.width * extent.height * extent.depth);
        match wait {
            Wait::Yes if (to, from) != (Place::Device, Place::Device) => stream::synchronize(copy.stream),
            _ => Ok(()),
        }
    };
    Outcome::from(run())
}

/// The copies by offset: of bytes in the first row of an array, whatever its dimensions and elements are.
pub fn by_offset(dst: Linear, src: Linear, bytes: usize, stream: u64, wait: Wait) -> Outcome {
    let run = || {
        context::check()?;
        if capture::captures(stream) {
            let device = |end| if let Linear::Device(address) = end { address } else { 0 };
            global::introduce([device(dst), device(src)]);
            return Ok(capture::PASS);
        }
        for end in [src, dst] {
            if let Linear::Array(array, _) = end
                && let Err(outcome) = array::find(array)
            {
                return Ok(outcome);
            }
        }
        if bytes == 0 {
            return Ok(Outcome::Done);
        }
        let side = |end| side(end, bytes);
        let row = Copy3D { src: side(src), dst: side(dst), width_bytes: bytes, height: 1, depth: 1 };
        Ok(copy(&row, Extent { width: bytes as u64, height: 1, depth: 1 }, stream, wait))
    };
    run().into()
}

fn side(end: Linear, bytes: usize) -> Side3D {
    let none = std::ptr::null_mut();
    let pointer = |address: u64| std::ptr::with_exposed_provenance_mut(address as usize);
    let nowhere = Side3D {
        x_bytes: 0,
        y: 0,
        z: 0,
        level: 0,
        memory_type: DEVICE,
        host: none,
        device: 0,
        array: none,
        context: none,
        pitch: bytes,
        rows: 1,
    };
    match end {
        Linear::Array(array, offset) => {
            Side3D { memory_type: ARRAY, array: pointer(array), x_bytes: offset, ..nowhere }
        }
        Linear::Device(device) => Side3D { device, ..nowhere },
        Linear::Host(host) => Side3D { memory_type: HOST, host: pointer(host), ..nowhere },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::copy::Role;

    const EXTENT: Extent = Extent { width: 8, height: 4, depth: 2 };

    fn memory(place: Place) -> End {
        End::Memory(Side { address: 0x1000, role: Role::Unified, pitch: 16, slice: 16 * 6 }, place)
    }

    fn array() -> End {
        End::Array(ArrayPlace { array: 7, x_bytes: 32, y: 10, z: 3 })
    }

    #[test]
    fn a_box_keeps_its_place_and_pitches() {
        let copy =
            Copy { dst: array(), src: memory(Place::Pinned), extent: EXTENT, levels: [0, 5], stream: 0 };
        let whole = copy.whole();
        assert_eq!((whole.src, whole.src_pitch, whole.src_height), (0x1000, 16, 6));
        assert_eq!(whole.dst_array, Some(ArrayPlace { array: 7, x_bytes: 32, y: 10, z: 3 }));
        assert_eq!((whole.dst, whole.src_array, whole.levels), (0, None, [0, 5]));
        assert_eq!((whole.width_bytes, whole.height, whole.depth), (8, 4, 2));
    }

    #[test]
    fn rows_in_a_chunk_are_packed_and_the_array_s_are_not() {
        let copy =
            Copy { dst: memory(Place::Pageable), src: array(), extent: EXTENT, levels: [0; 2], stream: 0 };
        let group = copy.group(0x9000, Group { z: 1, first: 2, rows: 2 });
        assert_eq!((group.dst, group.dst_pitch, group.dst_height), (0x9000, 8, 2));
        assert_eq!(group.src_array, Some(ArrayPlace { array: 7, x_bytes: 32, y: 12, z: 4 }));
        assert_eq!((group.height, group.depth), (2, 1));
    }

    #[test]
    fn a_single_row_needs_no_pitch() {
        let side = Side { address: 0x1000, role: Role::Device, pitch: 3, slice: 0 };
        let row = Extent { width: 8, height: 1, depth: 1 };
        assert_eq!(End::Memory(side, Place::Device).from(0, 0, row), (0x1000, 8, 1, None));
    }
}
