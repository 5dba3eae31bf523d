//! Fills of device memory, or of pinned memory through its device address.
//!
//! As natively, even the synchronous functions return before the fill is done, unless it is host memory that is filled.

use lightos_protocol::record::Memset;

use super::copy::{Place, Role, Wait, place, wire};
use super::memory::sidecar;
use super::{capture, context, global, stream};
use crate::outcome::{Outcome, Reason};
use crate::result::CuResult;

/// What is filled.
#[derive(Clone, Copy, Debug)]
pub struct Area {
    pub dst: u64,
    /// Bytes from row to row; not looked at for one row.
    pub pitch: usize,
    /// Elements by row.
    pub width: usize,
    pub height: usize,
    /// 1, 2 or 4.
    pub element_bytes: u32,
}

impl Area {
    /// `count` elements in a row.
    pub fn linear(dst: u64, count: usize, element_bytes: u32) -> Self {
        Self { dst, pitch: 0, width: count, height: 1, element_bytes }
    }

    /// Bytes from the first to the last; `INVALID_VALUE` for shapes that the driver rejects.
    fn reach(&self) -> Result<u64, CuResult> {
        let (pitch, element) = (self.pitch as u64, u64::from(self.element_bytes));
        let aligned = self.dst.is_multiple_of(element) && (self.height == 1 || pitch.is_multiple_of(element));
        let row = (self.width as u64).checked_mul(element).ok_or(CuResult::INVALID_VALUE)?;
        if !aligned || (self.height > 1 && pitch < row) {
            return Err(CuResult::INVALID_VALUE);
        }
        let rows = pitch.checked_mul(self.height as u64 - 1).and_then(|rows| rows.checked_add(row));
        rows.ok_or(CuResult::INVALID_VALUE)
    }
}

/// Any of cuMemsetD*.
pub fn fill(area: Area, value: u32, stream: u64, wait: Wait) -> Result<Outcome, CuResult> {
    context::check()?;
    if capture::captures(stream) {
        global::introduce([area.dst, 0]);
        return Ok(Outcome::PassThrough(Reason::Capturing));
    }
    if area.width == 0 || area.height == 0 {
        return Ok(Outcome::Done);
    }
    let place = place(area.dst, area.reach()?, Role::Device)?;
    if place == Place::Staged {
        return Ok(Outcome::Refuse(Reason::HostRegister));
    }
    let stream = wire(stream)?;
    let record = Memset {
        dst: area.dst,
        pitch: area.pitch as u64,
        value,
        element_bytes: area.element_bytes,
        width: area.width as u64,
        height: area.height as u64,
        stream,
    };
    sidecar()?.send(&record, &[])?;
    if wait == Wait::Yes && place != Place::Device {
        stream::synchronize(stream)?;
    }
    Ok(Outcome::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reach_and_rejections() {
        let area = Area { dst: 0x1000, pitch: 64, width: 10, height: 3, element_bytes: 4 };
        assert_eq!(area.reach(), Ok(2 * 64 + 40));
        assert_eq!(Area::linear(0x1000, 7, 2).reach(), Ok(14));
        let invalid = Err(CuResult::INVALID_VALUE);
        assert_eq!(Area { dst: 0x1002, ..area }.reach(), invalid);
        assert_eq!(Area { pitch: 62, ..area }.reach(), invalid);
        assert_eq!(Area { pitch: 36, ..area }.reach(), invalid);
        assert_eq!(Area { width: usize::MAX, ..area }.reach(), invalid);
    }
}
