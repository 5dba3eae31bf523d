//! cuStreamWaitValue, cuStreamWriteValue and batches of them, on words in memory that both sides see.

use super::find;
use crate::edge::In;
use crate::ops::capture::{self, captures};
use crate::ops::{context, host, memory};
use crate::outcome::{Outcome, Reason};
use crate::real;
use crate::result::CuResult;
use crate::session::session;
use lightos_protocol::record::{MemOpKind, StreamValue};
use lightos_protocol::request::MemOp as Operation;

/// `CU_STREAM_WAIT_VALUE_GEQ`, `_EQ`, `_AND`, `_NOR`.
const WAIT_CONDITIONS: u32 = 3;
/// `CU_STREAM_WAIT_VALUE_FLUSH`.
const WAIT_FLUSH: u32 = 1 << 30;
/// `CU_STREAM_WRITE_VALUE_NO_MEMORY_BARRIER`.
const WRITE_FLAGS: u32 = 1;
/// `CU_STREAM_MEMORY_BARRIER_TYPE_GPU`.
const BARRIER_FLAGS: u32 = 1;
/// `CU_DEVICE_ATTRIBUTE_CAN_FLUSH_REMOTE_WRITES`.
const CAN_FLUSH: u32 = 98;
/// The most operations of one batch.
const MAX_OPERATIONS: u32 = 256;

/// `CUstreamBatchMemOpParams`, of which the members for words and those without share the beginning.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct MemOp {
    kind: u32,
    /// Of a barrier or flush.
    plain_flags: u32,
    address: u64,
    value: u64,
    /// Of a wait or write.
    flags: u32,
    pad: u32,
    /// The driver's own.
    alias: u64,
    reserved: u64,
}

const _: () = assert!(size_of::<MemOp>() == size_of::<cudarc::driver::sys::CUstreamBatchMemOpParams>());

impl MemOp {
    /// What a graph's node or a batch does with it.
    pub fn describe(&self) -> Result<Operation, Outcome> {
        /// `CU_STREAM_MEM_OP_ATOMIC_REDUCTION`, which lies differently.
        const ATOMIC_REDUCTION: u32 = 8;
        if self.kind == ATOMIC_REDUCTION {
            return Err(Outcome::Refuse(Reason::Batch));
        }
        let kind = MemOpKind::try_from(self.kind).map_err(|_| CuResult::INVALID_VALUE)?;
        Ok(match kind.word_bytes() {
            0 => Operation { kind, flags: self.plain_flags, address: 0, value: 0 },
            4 => Operation {
                kind,
                flags: self.flags,
                address: self.address,
                value: u64::from(self.value as u32),
            },
            _ => Operation { kind, flags: self.flags, address: self.address, value: self.value },
        })
    }
}

/// One of cuStreamWaitValue and cuStreamWriteValue.
pub fn value(kind: MemOpKind, stream: u64, address: u64, value: u64, flags: u32) -> Outcome {
    // Whether a device writes without a barrier, its driver knows.
    let asks = flags != 0 && is_write(kind);
    run(stream, asks, || Ok([Operation { kind, flags, address, value }]))
}

fn is_write(kind: MemOpKind) -> bool {
    matches!(kind, MemOpKind::WriteValue32 | MemOpKind::WriteValue64)
}

/// cuStreamBatchMemOp.
pub fn batch_values(stream: u64, count: u32, operations: &In<MemOp>, flags: u32) -> Outcome {
    run(stream, false, || {
        // Nothing to do is no error.
        if count > MAX_OPERATIONS || flags != 0 {
            return Err(CuResult::INVALID_VALUE.into());
        }
        let described = (0..count as usize).map(|index| {
            let operation = operations.at(index)?.describe()?;
            // A device that cannot do without the barrier would refuse one of several; all of them can do with it.
            let flags =
                if is_write(operation.kind) { operation.flags & !WRITE_FLAGS } else { operation.flags };
            Ok(Operation { flags, ..operation })
        });
        described.collect::<Result<Vec<_>, Outcome>>()
    })
}

/// Checks all operations, then sends them in order.
fn run<L: AsRef<[Operation]>>(
    stream: u64,
    asks: bool,
    operations: impl FnOnce() -> Result<L, Outcome>,
) -> Outcome {
    if captures(stream) {
        return capture::PASS;
    }
    let run = || {
        let session = session().ok_or(CuResult::DEINITIALIZED)?;
        context::check()?;
        let operations = operations()?;
        operations.as_ref().iter().try_for_each(check)?;
        if operations.as_ref().iter().any(|operation| host::staged(operation.address)) {
            return Err(Outcome::Refuse(Reason::HostRegister));
        }
        let stream = find(stream)?;
        for &Operation { kind, flags, address, value } in operations.as_ref() {
            let operation = kind.into();
            let record = StreamValue { stream: stream.wire(), address, value, flags, operation };
            if asks { session.ask(&record, &[])? } else { session.send(&record, &[])? }
        }
        stream.touch();
        Ok(())
    };
    run().map_or_else(|outcome| outcome, |()| Outcome::Done)
}

/// What native validates at the call.
fn check(operation: &Operation) -> Result<(), CuResult> {
    let &Operation { kind, flags, address, .. } = operation;
    let allowed = match kind {
        MemOpKind::WaitValue32 | MemOpKind::WaitValue64 => WAIT_CONDITIONS | WAIT_FLUSH,
        MemOpKind::WriteValue32 | MemOpKind::WriteValue64 => WRITE_FLAGS,
        MemOpKind::Barrier => BARRIER_FLAGS,
        MemOpKind::FlushRemoteWrites => 0,
    };
    let bytes = kind.word_bytes();
    let reachable = memory::is_device(address, bytes) || host::shared(address) || host::staged(address);
    let visible = bytes == 0 || address.is_multiple_of(bytes) && reachable;
    if flags & !allowed != 0 || !visible {
        return Err(CuResult::INVALID_VALUE);
    }
    let is_wait = matches!(kind, MemOpKind::WaitValue32 | MemOpKind::WaitValue64);
    if kind == MemOpKind::FlushRemoteWrites || is_wait && flags & WAIT_FLUSH != 0 {
        let mut can = 0;
        // SAFETY: a valid out-parameter.
        unsafe { real::cuDeviceGetAttribute(&mut can, CAN_FLUSH, 0).ok()? };
        if can == 0 {
            return Err(CuResult::NOT_SUPPORTED);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_flags_where_the_driver_has_them() {
        let op = MemOp { plain_flags: 1, address: 64, value: 7 << 32 | 5, flags: 2, ..MemOp::default() };
        let described = |kind| MemOp { kind, ..op }.describe();
        let word = |kind, value| Ok(Operation { kind, flags: 2, address: 64, value });
        assert_eq!(described(2), word(MemOpKind::WriteValue32, 5));
        assert_eq!(described(4), word(MemOpKind::WaitValue64, 7 << 32 | 5));
        let barrier = Operation { kind: MemOpKind::Barrier, flags: 1, address: 0, value: 0 };
        assert_eq!(described(6), Ok(barrier));
        assert_eq!(described(8), Err(Outcome::Refuse(Reason::Batch)));
        assert_eq!(described(7), Err(Outcome::Fail(CuResult::INVALID_VALUE)));
    }

    #[test]
    fn flags_and_addresses_are_judged_before_anything_is_sent() {
        let operation = |kind, flags, address| Operation { kind, flags, address, value: 0 };
        let invalid = Err(CuResult::INVALID_VALUE);
        assert_eq!(check(&operation(MemOpKind::Barrier, 1, 0)), Ok(()));
        assert_eq!(check(&operation(MemOpKind::Barrier, 2, 0)), invalid);
        assert_eq!(check(&operation(MemOpKind::FlushRemoteWrites, 1, 0)), invalid);
        assert_eq!(check(&operation(MemOpKind::WriteValue32, 0, 0x7f00_0000_0000)), invalid, "nobody's");
    }
}
