//! Hooks of the event functions.

use super::hooks;
use crate::edge::Out;
use crate::ops::event as ops;

hooks! {
    area event;
    fn cuEventCreate(out: *mut u64, flags: u32) => ops::create(Out::new(out), flags, |out| real::cuEventCreate(out, flags));
    fn cuEventDestroy(event: u64) => ops::destroy(event, || real::cuEventDestroy(event));
    fn cuEventDestroy_v2(event: u64) => ops::destroy(event, || real::cuEventDestroy_v2(event));
    fn cuEventRecord(event: u64, stream: u64) ptsz cuEventRecord_ptsz[stream]
        => ops::record(event, stream, 0, || real::cuEventRecord(event, stream));
    fn cuEventRecordWithFlags(event: u64, stream: u64, flags: u32) ptsz cuEventRecordWithFlags_ptsz[stream]
        => ops::record(event, stream, flags, || real::cuEventRecordWithFlags(event, stream, flags));
    fn cuEventQuery(event: u64) => ops::query(event, || real::cuEventQuery(event));
    fn cuEventSynchronize(event: u64) => ops::synchronize(event, || real::cuEventSynchronize(event));
    fn cuEventElapsedTime(milliseconds: *mut f32, start: u64, end: u64) => ops::elapsed(Out::new(milliseconds), start, end);
    fn cuEventElapsedTime_v2(milliseconds: *mut f32, start: u64, end: u64) => ops::elapsed(Out::new(milliseconds), start, end);
    fn cuStreamWaitEvent(stream: u64, event: u64, flags: u32) ptsz cuStreamWaitEvent_ptsz[stream]
        => ops::wait(stream, event, flags, || real::cuStreamWaitEvent(stream, event, flags));
}
