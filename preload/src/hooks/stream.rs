//! Hooks of the stream functions.

use super::hooks;
use crate::edge::{In, Out};
use crate::ops::stream as ops;
use crate::outcome::{Outcome, Reason};
use lightos_protocol::record::MemOpKind::{WaitValue32, WaitValue64, WriteValue32, WriteValue64};

hooks! {
    area stream;
    fn cuStreamCreate(out: *mut u64, flags: u32) => ops::create(Out::new(out), flags, 0, |out| real::cuStreamCreate(out, flags));
    fn cuStreamCreateWithPriority(out: *mut u64, flags: u32, priority: i32)
        => ops::create(Out::new(out), flags, priority, |out| real::cuStreamCreateWithPriority(out, flags, priority));
    fn cuStreamDestroy(stream: u64) => ops::destroy(stream, || real::cuStreamDestroy(stream));
    fn cuStreamDestroy_v2(stream: u64) => ops::destroy(stream, || real::cuStreamDestroy_v2(stream));
    fn cuStreamQuery(stream: u64) ptsz cuStreamQuery_ptsz[stream]
        => ops::query(stream, || real::cuStreamQuery(stream));
    fn cuStreamSynchronize(stream: u64) ptsz cuStreamSynchronize_ptsz[stream]
        => ops::synchronize_call(stream, || real::cuStreamSynchronize(stream));
    fn cuCtxSynchronize() => ops::synchronize_context_call(|| real::cuCtxSynchronize());
    fn cuCtxSynchronize_v2(context: u64) => ops::synchronize_context_call(|| real::cuCtxSynchronize_v2(context));
    fn cuStreamSetAttribute(stream: u64, attribute: u32, value: *const [u8; 64]) ptsz cuStreamSetAttribute_ptsz[stream]
        => ops::set_attribute(stream, attribute, &In::new(value), || real::cuStreamSetAttribute(stream, attribute, value));
    fn cuStreamCopyAttributes(to: u64, from: u64) => ops::copy_attributes(to, || real::cuStreamCopyAttributes(to, from));
    fn cuStreamCopyAttributes_ptsz(to: u64, from: u64)
        => ops::copy_attributes(super::per_thread(to), || real::cuStreamCopyAttributes_ptsz(to, from));
    /// Of a green context, and none can be created: the local driver says so.
    fn cuStreamGetGreenCtx(stream: u64, context: *mut u64) => Outcome::PassThrough(Reason::LocalQuery);
    fn cuStreamWaitValue32(stream: u64, address: u64, value: u32, flags: u32) ptsz cuStreamWaitValue32_ptsz[stream]
        => ops::value(WaitValue32, stream, address, value.into(), flags);
    fn cuStreamWaitValue32_v2(stream: u64, address: u64, value: u32, flags: u32) ptsz cuStreamWaitValue32_v2_ptsz[stream]
        => ops::value(WaitValue32, stream, address, value.into(), flags);
    fn cuStreamWaitValue64(stream: u64, address: u64, value: u64, flags: u32) ptsz cuStreamWaitValue64_ptsz[stream]
        => ops::value(WaitValue64, stream, address, value, flags);
    fn cuStreamWaitValue64_v2(stream: u64, address: u64, value: u64, flags: u32) ptsz cuStreamWaitValue64_v2_ptsz[stream]
        => ops::value(WaitValue64, stream, address, value, flags);
    fn cuStreamWriteValue32(stream: u64, address: u64, value: u32, flags: u32) ptsz cuStreamWriteValue32_ptsz[stream]
        => ops::value(WriteValue32, stream, address, value.into(), flags);
    fn cuStreamWriteValue32_v2(stream: u64, address: u64, value: u32, flags: u32) ptsz cuStreamWriteValue32_v2_ptsz[stream]
        => ops::value(WriteValue32, stream, address, value.into(), flags);
    fn cuStreamWriteValue64(stream: u64, address: u64, value: u64, flags: u32) ptsz cuStreamWriteValue64_ptsz[stream]
        => ops::value(WriteValue64, stream, address, value, flags);
    fn cuStreamWriteValue64_v2(stream: u64, address: u64, value: u64, flags: u32) ptsz cuStreamWriteValue64_v2_ptsz[stream]
        => ops::value(WriteValue64, stream, address, value, flags);
    fn cuStreamBatchMemOp(stream: u64, count: u32, list: *const ops::MemOp, flags: u32) ptsz cuStreamBatchMemOp_ptsz[stream]
        => ops::batch_values(stream, count, &In::new(list), flags);
    fn cuStreamBatchMemOp_v2(stream: u64, count: u32, list: *const ops::MemOp, flags: u32) ptsz cuStreamBatchMemOp_v2_ptsz[stream]
        => ops::batch_values(stream, count, &In::new(list), flags);
}
