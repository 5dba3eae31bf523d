//! Copies from and to registered memory whose pages the executor does not have ([`Place::Staged`]).
//!
//! The program may count on what registration promises: an asynchronous copy returns at once and happens in stream order, after what host
//! functions and earlier copies of the stream have written. So each registration has a stand-in of its size in shared pinned memory, made at the
//! first asynchronous copy; the device copies from and to the stand-in, and a host function in the same stream moves the
//! bytes between it and the program's memory, before or after. Copies under way at the same time touch the same bytes of the stand-in only
//! where they touch the same bytes of the program's memory. A synchronous copy needs no stand-in: it waits for the stream and goes the way of
//! pageable memory.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use lightos_protocol::record::{Memcpy, Memcpy2D};

use super::{Place, count, kind, staging};
use crate::alloc::live::{Allocation, Kind};
use crate::ops::memory::{LIVE, sidecar};
use crate::ops::{host, hostfn, stream};
use crate::result::CuResult;

/// Rows in host memory that move when a stream gets there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// First byte and bytes from row to row.
    pub dst: (u64, u64),
    pub src: (u64, u64),
    pub width: u64,
    pub height: u64,
}

impl Move {
    /// Moves them now.
    pub fn run(&self) {
        let ((dst, dst_pitch), (src, src_pitch)) = (self.dst, self.src);
        for row in 0..self.height {
            // Without a session there is nobody left to see what moved.
            let _ = staging::move_bytes(dst + row * dst_pitch, src + row * src_pitch, self.width);
        }
    }
}

/// Address and size of stand-ins, by the registration's address.
static STAND_INS: Mutex<BTreeMap<u64, (u64, u64)>> = Mutex::new(BTreeMap::new());

fn stand_ins() -> MutexGuard<'static, BTreeMap<u64, (u64, u64)>> {
    STAND_INS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What stands in for an address in staged memory.
fn stand_in(address: u64) -> Result<u64, CuResult> {
    let registration = LIVE.find(address).ok_or(CuResult::INVALID_VALUE)?;
    let mut stand_ins = stand_ins();
    let base = match stand_ins.get(&registration.base) {
        Some(&(base, _)) => base,
        None => {
            let base = host::obtain(registration.bytes)?;
            stand_ins.insert(registration.base, (base, registration.bytes));
            base
        }
    };
    Ok(base + (address - registration.base))
}

/// A registration ends; no copy from or to it is under way.
pub fn forget(registration: &Allocation) {
    if let Some((base, bytes)) = stand_ins().remove(&registration.base) {
        host::relinquish(base, bytes);
    }
}

/// One end of a copy: first byte, bytes from row to row, and where that is.
pub type End = (u64, u64, Place);

/// Copies rows of `width` bytes asynchronously; at least one end is staged, none is pageable. The stream is as in records.
pub fn copy(dst: End, src: End, (width, height): (u64, u64), stream: u64) -> Result<(), CuResult> {
    if dst.2 == Place::Staged {
        writable(dst.0)?;
    }
    let session = sidecar()?;
    count(session, dst.2, src.2, width * height);
    if !dst.2.is_in_device_arena() && !src.2.is_in_device_arena() {
        let rows = Move { dst: (dst.0, dst.1), src: (src.0, src.1), width, height };
        return hostfn::move_rows(session, stream, rows);
    }
    let through = |end: End| if end.2 == Place::Staged { stand_in(end.0) } else { Ok(end.0) };
    let (to, from) = (through(dst)?, through(src)?);
    if src.2 == Place::Staged {
        hostfn::move_rows(session, stream, Move { dst: (from, src.1), src: (src.0, src.1), width, height })?;
    }
    let kind = kind(dst.2, src.2).into();
    if height == 1 {
        let record = Memcpy { dst: to, src: from, bytes: width, stream, kind, ..Memcpy::default() };
        session.send(&record, &[])?;
    } else {
        let record = Memcpy2D {
            dst: to,
            dst_pitch: dst.1,
            src: from,
            src_pitch: src.1,
            width_bytes: width,
            height,
            stream,
            kind,
            ..Memcpy2D::default()
        };
        session.send(&record, &[])?;
    }
    if dst.2 == Place::Staged {
        hostfn::move_rows(session, stream, Move { dst: (dst.0, dst.1), src: (to, dst.1), width, height })?;
    }
    Ok(())
}

/// Before a synchronous copy: the stream's work may write the memory still. The places of the ends from here on.
pub fn settle(dst: (u64, Place), src: Place, stream: u64) -> Result<(Place, Place), CuResult> {
    if dst.1 == Place::Staged {
        writable(dst.0)?;
    }
    stream::synchronize(stream)?;
    let pageable = |place| if place == Place::Staged { Place::Pageable } else { place };
    Ok((pageable(dst.1), pageable(src)))
}

/// Whether the registration lets the device write.
fn writable(address: u64) -> Result<(), CuResult> {
    match LIVE.find(address).map(|found| found.kind) {
        Some(Kind::Staged { flags }) if flags & host::REGISTER_READ_ONLY != 0 => Err(CuResult::INVALID_VALUE),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_move_without_a_session_moves_nothing() {
        let (from, mut to) = ([1u8; 4], [0u8; 4]);
        let address = |bytes: *const u8| bytes.expose_provenance() as u64;
        let (dst, src) = ((address(to.as_mut_ptr()), 2), (address(from.as_ptr()), 2));
        Move { dst, src, width: 2, height: 2 }.run();
        assert_eq!(to, [0; 4]);
    }

    #[test]
    fn memory_registered_for_reading_is_not_written() {
        let base = 0x5678_0000_0000;
        LIVE.insert(base, 64, Kind::Staged { flags: host::REGISTER_READ_ONLY });
        LIVE.insert(base + 64, 64, Kind::Staged { flags: 0 });
        assert_eq!(writable(base + 3), Err(CuResult::INVALID_VALUE));
        assert_eq!(writable(base + 64), Ok(()));
        LIVE.remove_all(|known| known.base == base || known.base == base + 64);
    }
}
