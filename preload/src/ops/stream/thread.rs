//! The per-thread default stream (`CU_STREAM_PER_THREAD`, and 0 in the `_ptsz` functions).
//!
//! Each thread that uses it has one at the executor: an ordinary blocking stream, made at the first use and destroyed when the
//! thread ends.

use super::{Stream, announce, release};
use crate::result::CuResult;
use crate::session::session;
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Ids have the top bit, which no address has.
const FIRST_ID: u64 = 1 << 63;

static NEXT_ID: AtomicU64 = AtomicU64::new(FIRST_ID);

thread_local! {
    static OWN: Own = const { Own(Cell::new(None)) };
}

struct Own(Cell<Option<&'static Stream>>);

impl Drop for Own {
    fn drop(&mut self) {
        // Without a session (the process ends, or a forked child) there is nobody to tell.
        if let (Some(stream), Some(session)) = (self.0.get(), session()) {
            let _ = release(session, stream);
        }
    }
}

/// Whether `id` is one that this file makes up.
pub fn is_own(id: u64) -> bool {
    id >= FIRST_ID
}

/// The calling thread's default stream.
pub fn own() -> Result<&'static Stream, CuResult> {
    match OWN.try_with(|own| own.0.get()) {
        Ok(Some(stream)) => Ok(stream),
        Ok(None) => create(),
        // The thread is ending: its storage is gone, and its stream with it.
        Err(_) => Err(CuResult::INVALID_HANDLE),
    }
}

#[cold]
fn create() -> Result<&'static Stream, CuResult> {
    let session = session().ok_or(CuResult::DEINITIALIZED)?;
    let id = NEXT_ID.fetch_add(1, Relaxed);
    // Not in the table: no program handle has this value.
    let stream = announce(session, 0, id, 0, 0)?;
    let _ = OWN.try_with(|own| own.0.set(Some(stream)));
    Ok(stream)
}
