//! cuStreamWaitValue and cuStreamWriteValue, on words in memory that both sides see.

use super::find;
use crate::ops::capture::{self, captures};
use crate::ops::{context, host, memory};
use crate::outcome::{Outcome, Reason};
use crate::real;
use crate::result::CuResult;
use crate::session::session;
use lightos_protocol::record::StreamValue;

/// `CU_STREAM_WAIT_VALUE_GEQ`, `_EQ`, `_AND`, `_NOR`.
const WAIT_CONDITIONS: u32 = 3;
/// `CU_STREAM_WAIT_VALUE_FLUSH`.
const WAIT_FLUSH: u32 = 1 << 30;
/// `CU_STREAM_WRITE_VALUE_NO_MEMORY_BARRIER`.
const WRITE_FLAGS: u32 = 1;
/// `CU_DEVICE_ATTRIBUTE_CAN_FLUSH_REMOTE_WRITES`.
const CAN_FLUSH: u32 = 98;

/// What a call does with the word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// cuStreamWaitValue.
    Wait,
    /// cuStreamWriteValue.
    Write,
}

/// A 32-bit word.
pub fn value32(what: Access, stream: u64, address: u64, value: u32, flags: u32) -> Outcome {
    outcome(what, stream, address, value.into(), flags, 32)
}

/// A 64-bit word.
pub fn value64(what: Access, stream: u64, address: u64, value: u64, flags: u32) -> Outcome {
    outcome(what, stream, address, value, flags, 64)
}

fn outcome(what: Access, stream: u64, address: u64, value: u64, flags: u32, width: u32) -> Outcome {
    if captures(stream) {
        return capture::PASS;
    }
    let run = || {
        let session = session().ok_or(CuResult::DEINITIALIZED)?;
        context::check()?;
        check_value(what, address, flags, u64::from(width / 8))?;
        if host::staged(address) {
            return Ok(Outcome::Refuse(Reason::HostRegister));
        }
        let stream = find(stream)?;
        let wait = u32::from(what == Access::Wait);
        session
            .send(&StreamValue { stream: stream.wire(), address, value, flags, width, wait, pad: 0 }, &[])?;
        stream.touch();
        Ok(Outcome::Done)
    };
    run().into()
}

/// What native validates at the call.
pub fn check_value(what: Access, address: u64, flags: u32, bytes: u64) -> Result<(), CuResult> {
    let allowed = match what {
        Access::Wait => WAIT_CONDITIONS | WAIT_FLUSH,
        Access::Write => WRITE_FLAGS,
    };
    let visible = memory::is_device(address, bytes) || host::shared(address) || host::staged(address);
    if flags & !allowed != 0 || !address.is_multiple_of(bytes) || !visible {
        return Err(CuResult::INVALID_VALUE);
    }
    if what == Access::Wait && flags & WAIT_FLUSH != 0 {
        let mut can = 0;
        // SAFETY: a valid out-parameter.
        unsafe { real::cuDeviceGetAttribute(&mut can, CAN_FLUSH, 0).ok()? };
        if can == 0 {
            return Err(CuResult::NOT_SUPPORTED);
        }
    }
    Ok(())
}
