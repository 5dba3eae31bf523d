//! The per-thread default stream (`CU_STREAM_PER_THREAD`, and 0 in the `_ptsz` functions).
//!
//! Each thread that uses it has one at the executor: an ordinary blocking stream, made at the first use and destroyed when the
//! thread ends. Other destructors of the ending thread may still use it: the handle lies in a word without a destructor, and its end is
//! thread-specific data of the C library, which comes round again for a thread that made another stream meanwhile.

use super::{Stream, announce, release};
use crate::result::CuResult;
use crate::session::session;
use std::cell::Cell;
use std::ffi::c_void;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Ids have the top bit, which no address has.
const FIRST_ID: u64 = 1 << 63;

static NEXT_ID: AtomicU64 = AtomicU64::new(FIRST_ID);

thread_local! {
    static OWN: Cell<Option<&'static Stream>> = const { Cell::new(None) };
}

/// The thread ends. Without a session (the process ends, or a forked child) there is nobody to tell.
extern "C" fn end(_: *mut c_void) {
    if let (Some(stream), Some(session)) = (OWN.take(), session()) {
        let _ = release(session, stream);
    }
}

/// Has [`end`] called when the calling thread ends. Without a free key its stream stays until the process ends.
fn end_with_the_thread() {
    static KEY: OnceLock<Option<libc::pthread_key_t>> = OnceLock::new();
    let key = KEY.get_or_init(|| {
        let mut key = 0;
        // SAFETY: a valid out-parameter; the function is never unloaded (preloaded objects are not).
        (unsafe { libc::pthread_key_create(&mut key, Some(end)) } == 0).then_some(key)
    });
    if let Some(key) = *key {
        // SAFETY: a live key; the value only has to differ from null.
        unsafe { libc::pthread_setspecific(key, ptr::without_provenance(1)) };
    }
}

/// Whether `id` is one that this file makes up.
pub fn is_own(id: u64) -> bool {
    id >= FIRST_ID
}

/// The calling thread's default stream.
pub fn own() -> Result<&'static Stream, CuResult> {
    match OWN.get() {
        Some(stream) => Ok(stream),
        None => create(),
    }
}

#[cold]
fn create() -> Result<&'static Stream, CuResult> {
    let session = session().ok_or(CuResult::DEINITIALIZED)?;
    let id = NEXT_ID.fetch_add(1, Relaxed);
    // Not in the table: no program handle has this value.
    let stream = announce(session, 0, id, 0, 0)?;
    OWN.set(Some(stream));
    end_with_the_thread();
    Ok(stream)
}
