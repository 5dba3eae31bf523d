//! Events.

use crate::edge::{exports, put};
use crate::error::Error;
use crate::{capture, context, event, stream};

exports! { TABLE:
    entry cuEventCreate: (out: *mut u64, flags: u32) {
        if out.is_null() { Err(Error::INVALID_VALUE) } else { put(out, event::create(flags)?) }
    }
    entry cuEventDestroy_v2: (event: u64) { event::destroy(event) }
    entry cuEventRecord / cuEventRecord_ptsz: (event: u64, stream: u64) {
        context::healthy()?;
        event::record(&event::find(event)?, &stream::find(stream)?, 0)
    }
    entry cuEventRecordWithFlags / cuEventRecordWithFlags_ptsz: (event: u64, stream: u64, flags: u32) {
        context::healthy()?;
        event::record(&event::find(event)?, &stream::find(stream)?, flags)
    }
    entry cuEventQuery: (event: u64) {
        let event = event::find(event)?;
        event.forbid_captured()?;
        capture::forbid_unsafe()?;
        event.query()
    }
    entry cuEventSynchronize: (event: u64) {
        let event = event::find(event)?;
        event.forbid_captured()?;
        capture::forbid_unsafe()?;
        event.synchronize()
    }
    entry cuEventElapsedTime: (ms: *mut f32, start: u64, end: u64) {
        put(ms, event::elapsed_ms(&*event::find(start)?, &*event::find(end)?)?)
    }
    entry cuEventElapsedTime_v2: (ms: *mut f32, start: u64, end: u64) {
        put(ms, event::elapsed_ms(&*event::find(start)?, &*event::find(end)?)?)
    }
}
