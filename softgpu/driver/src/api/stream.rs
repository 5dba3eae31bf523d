//! Streams: creation, queries, host functions, waits and writes of memory words.

use std::ffi::{c_int, c_void};
use std::sync::atomic::Ordering;

use crate::abi::{AttributeValue, HostFn, MemOp, StreamCallback};
use crate::edge::{array, exports, get, put, put_some};
use crate::error::{Error, Result};
use crate::work::{
    HostCall, Task, UserData, WAIT_VALUE_32, WAIT_VALUE_64, WRITE_VALUE_32, WRITE_VALUE_64, Work,
    check_mem_op,
};
use crate::{capture, context, event, stream};

/// `CUstreamAttrID`.
const ACCESS_POLICY_WINDOW: u32 = 1;
const SYNCHRONIZATION_POLICY: u32 = 3;
const PRIORITY: u32 = 8;
const MEM_SYNC_DOMAIN_MAP: u32 = 9;
const MEM_SYNC_DOMAIN: u32 = 10;
/// The most operations in one `cuStreamBatchMemOp`.
const BATCH_LIMIT: u32 = 256;

fn mem_ops(handle: u64, ops: Vec<MemOp>) -> Result {
    context::healthy()?;
    let stream = stream::find(handle)?;
    ops.iter().try_for_each(check_mem_op)?;
    stream.submit(Work::MemOps(ops))
}

fn mem_op(handle: u64, operation: u32, address: u64, value: u64, flags: u32) -> Result {
    // Hardware refuses CU_STREAM_WRITE_VALUE_NO_MEMORY_BARRIER, the only flag that a write has. In batches it has not been asked for it.
    if matches!(operation, WRITE_VALUE_32 | WRITE_VALUE_64) && flags != 0 {
        return Err(Error::INVALID_VALUE);
    }
    mem_ops(handle, vec![MemOp { operation, address, value, flags, alias: 0, reserved: 0 }])
}

/// # Safety
/// `ops` holds `count` entries.
unsafe fn batch_mem_op(stream: u64, count: u32, ops: *const MemOp, flags: u32) -> Result {
    if count > BATCH_LIMIT || flags != 0 {
        return Err(Error::INVALID_VALUE);
    }
    if count == 0 {
        return stream::find(stream).map(drop);
    }
    // SAFETY: this function's contract.
    mem_ops(stream, unsafe { array(ops, count as usize) }?)
}

exports! { TABLE:
    entry cuStreamCreate: (out: *mut u64, flags: u32) {
        if out.is_null() { Err(Error::INVALID_VALUE) } else { put(out, stream::create(flags, 0)?.handle) }
    }
    entry cuStreamCreateWithPriority: (out: *mut u64, flags: u32, priority: c_int) {
        if out.is_null() { Err(Error::INVALID_VALUE) } else { put(out, stream::create(flags, priority)?.handle) }
    }
    entry cuStreamDestroy_v2: (stream: u64) { stream::destroy(stream) }
    entry cuStreamQuery / cuStreamQuery_ptsz: (stream: u64) {
        let stream = stream::find(stream)?;
        capture::forbid_sync(&stream)?;
        capture::forbid_unsafe()?;
        context::poisoned()?;
        if stream.is_idle() { context::poisoned() } else { Err(Error::NOT_READY) }
    }
    entry cuStreamSynchronize / cuStreamSynchronize_ptsz: (stream: u64) {
        let stream = stream::find(stream)?;
        capture::forbid_sync(&stream)?;
        capture::forbid_unsafe()?;
        stream.synchronize()
    }
    entry cuStreamGetFlags / cuStreamGetFlags_ptsz: (stream: u64, flags: *mut u32) {
        put(flags, stream::find(stream)?.flags)
    }
    entry cuStreamGetPriority / cuStreamGetPriority_ptsz: (stream: u64, priority: *mut c_int) {
        put(priority, stream::find(stream)?.priority)
    }
    entry cuStreamGetId / cuStreamGetId_ptsz: (stream: u64, id: *mut u64) { put(id, stream::find(stream)?.id) }
    entry cuStreamGetCtx / cuStreamGetCtx_ptsz: (stream: u64, context: *mut u64) {
        put(context, stream::find(stream)?.context.handle)
    }
    entry cuStreamGetCtx_v2 / cuStreamGetCtx_v2_ptsz: (stream: u64, context: *mut u64, green: *mut u64) {
        put(context, stream::find(stream)?.context.handle)?;
        put_some(green, 0);
        Ok(())
    }
    entry cuStreamGetDevice / cuStreamGetDevice_ptsz: (stream: u64, device: *mut c_int) {
        put(device, stream::find(stream)?.context.device.ordinal())
    }
    entry cuStreamGetGreenCtx: (stream: u64, green: *mut u64) {
        stream::find(stream)?;
        put(green, 0)
    }
    entry cuStreamWaitEvent / cuStreamWaitEvent_ptsz: (stream: u64, event: u64, flags: u32) {
        let stream = stream::find(stream)?;
        context::poisoned()?;
        event::make_wait(&stream, &event::find(event)?, flags)
    }
    entry cuStreamAddCallback / cuStreamAddCallback_ptsz: (
        stream: u64, function: StreamCallback, data: *mut c_void, flags: u32
    ) {
        context::healthy()?;
        let found = stream::find(stream)?;
        if function.is_none() || flags != 0 {
            return Err(Error::INVALID_VALUE);
        }
        capture::forbid_sync(&found)?;
        found.enqueue(Task::Callback { function, stream, data: UserData(data) }).map(drop)
    }
    entry cuLaunchHostFunc / cuLaunchHostFunc_ptsz: (stream: u64, function: HostFn, data: *mut c_void) {
        context::healthy()?;
        let stream = stream::find(stream)?;
        if function.is_none() {
            return Err(Error::INVALID_VALUE);
        }
        stream.submit(Work::Host(HostCall { function, data: UserData(data) }))
    }
    entry cuStreamCopyAttributes / cuStreamCopyAttributes_ptsz: (to: u64, from: u64) {
        let (to, from) = (stream::find(to)?, stream::find(from)?);
        to.sync_policy.store(from.sync_policy.load(Ordering::Relaxed), Ordering::Relaxed);
        Ok(())
    }
    entry cuStreamGetAttribute / cuStreamGetAttribute_ptsz: (stream: u64, attribute: u32, value: *mut AttributeValue) {
        let stream = stream::find(stream)?;
        let mut words = [0u64; 8];
        match attribute {
            SYNCHRONIZATION_POLICY => words[0] = stream.sync_policy.load(Ordering::Relaxed).into(),
            PRIORITY => words[0] = (stream.priority as u32).into(),
            // The default map: normal launches in domain 0, remote ones in domain 1.
            MEM_SYNC_DOMAIN_MAP => words[0] = 0x100,
            ACCESS_POLICY_WINDOW | MEM_SYNC_DOMAIN => {}
            _ => return Err(Error::INVALID_VALUE),
        }
        put(value, AttributeValue(words))
    }
    entry cuStreamSetAttribute / cuStreamSetAttribute_ptsz: (
        stream: u64, attribute: u32, value: *const AttributeValue
    ) {
        let stream = stream::find(stream)?;
        let word = get(value)?.words()[0];
        match attribute {
            SYNCHRONIZATION_POLICY if (1..=4).contains(&word) => {
                stream.sync_policy.store(word, Ordering::Relaxed);
                Ok(())
            }
            // Hints without effect on this machine.
            ACCESS_POLICY_WINDOW | PRIORITY | MEM_SYNC_DOMAIN_MAP | MEM_SYNC_DOMAIN => Ok(()),
            _ => Err(Error::INVALID_VALUE),
        }
    }
    entry cuStreamWaitValue32_v2 / cuStreamWaitValue32_v2_ptsz: (stream: u64, address: u64, value: u32, flags: u32) {
        mem_op(stream, WAIT_VALUE_32, address, value.into(), flags)
    }
    entry cuStreamWaitValue64_v2 / cuStreamWaitValue64_v2_ptsz: (stream: u64, address: u64, value: u64, flags: u32) {
        mem_op(stream, WAIT_VALUE_64, address, value, flags)
    }
    entry cuStreamWriteValue32_v2 / cuStreamWriteValue32_v2_ptsz: (stream: u64, address: u64, value: u32, flags: u32) {
        mem_op(stream, WRITE_VALUE_32, address, value.into(), flags)
    }
    entry cuStreamWriteValue64_v2 / cuStreamWriteValue64_v2_ptsz: (stream: u64, address: u64, value: u64, flags: u32) {
        mem_op(stream, WRITE_VALUE_64, address, value, flags)
    }
    entry cuStreamBatchMemOp / cuStreamBatchMemOp_ptsz: (stream: u64, count: u32, ops: *const MemOp, flags: u32) {
        batch_mem_op(stream, count, ops, flags)
    }
    entry cuStreamBatchMemOp_v2 / cuStreamBatchMemOp_v2_ptsz: (stream: u64, count: u32, ops: *const MemOp, flags: u32) {
        batch_mem_op(stream, count, ops, flags)
    }
}
