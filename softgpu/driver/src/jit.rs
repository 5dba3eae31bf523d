//! JIT options of module and library loads and of the linker: the log buffers, and the register limit.

use std::borrow::Cow;
use std::ffi::c_void;

use crate::error::{Error, Result};

const MAX_REGISTERS: u32 = 0;
const INFO_BUFFER: u32 = 3;
const INFO_BYTES: u32 = 4;
const ERROR_BUFFER: u32 = 5;
const ERROR_BYTES: u32 = 6;
const WALL_TIME: u32 = 2;

/// The caller's option arrays.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    names: *const u32,
    values: *mut *mut c_void,
    count: usize,
}

impl Options {
    pub const NONE: Options = Options { names: std::ptr::null(), values: std::ptr::null_mut(), count: 0 };

    /// # Safety
    /// `names` and `values` hold `count` options with their values, and stay valid while the options are used.
    pub unsafe fn new(names: *const u32, values: *mut *mut c_void, count: u32) -> Result<Options> {
        if count > 0 && (names.is_null() || values.is_null()) {
            return Err(Error::INVALID_VALUE);
        }
        Ok(Options { names, values, count: count as usize })
    }

    fn slot(&self, name: u32) -> Option<*mut *mut c_void> {
        // SAFETY: both arrays hold `count` entries by the contract of `new`.
        let at = (0..self.count).find(|i| unsafe { self.names.add(*i).read_unaligned() } == name)?;
        // SAFETY: as above.
        Some(unsafe { self.values.add(at) })
    }

    /// `ptx` with the register limit that the caller asks for, in the form that the engine reads.
    pub fn limited<'p>(&self, ptx: &'p str) -> Cow<'p, str> {
        // SAFETY: the slot is an entry of the caller's array, whose value is a number.
        let asked = self.slot(MAX_REGISTERS).map(|slot| unsafe { slot.read_unaligned() } as usize as u32);
        match asked {
            None | Some(0) => Cow::Borrowed(ptx),
            Some(limit) => Cow::Owned(format!("{ptx}\n.pragma \"maxrregcount {limit}\";\n")),
        }
    }

    /// Writes the logs and the numbers of bytes written, as far as the caller asked for them.
    pub fn report(&self, info: &str, error: &str) {
        self.write_log(INFO_BUFFER, INFO_BYTES, info);
        self.write_log(ERROR_BUFFER, ERROR_BYTES, error);
        if let Some(slot) = self.slot(WALL_TIME) {
            // SAFETY: the option's value is an output word in the caller's array.
            unsafe { slot.cast::<f32>().write_unaligned(0.0) };
        }
    }

    fn write_log(&self, buffer: u32, size: u32, text: &str) {
        let (Some(buffer), Some(size)) = (self.slot(buffer), self.slot(size)) else { return };
        // SAFETY: the buffer option's value is a pointer to as many bytes as the size option's value says.
        unsafe {
            let (to, room) =
                (buffer.read_unaligned().cast::<u8>(), size.read_unaligned() as usize & 0xffff_ffff);
            if to.is_null() || room == 0 {
                return;
            }
            let length = text.len().min(room - 1);
            std::ptr::copy_nonoverlapping(text.as_ptr(), to, length);
            to.add(length).write(0);
            size.write_unaligned((if length == 0 { 0 } else { length + 1 }) as *mut c_void);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_are_cut_to_the_buffer_and_their_size_is_told() {
        let mut log = [0xffu8; 8];
        let names = [ERROR_BUFFER, ERROR_BYTES, 7];
        let mut values = [log.as_mut_ptr().cast::<c_void>(), 8 as *mut c_void, std::ptr::null_mut()];
        // SAFETY: three options with their values, alive for the test.
        let options = unsafe { Options::new(names.as_ptr(), values.as_mut_ptr(), 3) }.unwrap();
        options.report("", "line 12: nonsense");
        assert_eq!((&log, values[1] as usize), (b"line 12\0", 8));
    }
}
