//! The pages that client, executor and daemon share: one memfd made by the client.
//!
//! | area | written by | read by |
//! | --- | --- | --- |
//! | [`Status`]: sticky error, executor's state | executor | client, daemon |
//! | [`Timeline`]: completion values | the device, by order of the executor | client |
//! | [`Replies`]: outcomes of cold calls | executor | client |
//! | [`Callbacks`]: host functions to run | executor posts, client finishes | both |
//! | [`Counters`]: what the tenant did | client, executor | daemon |
//!
//! All words are atomics; a reader validates what it loads, since any other party may have written
//! nonsense. Synchronisation: whoever publishes stores the word that announces (state, posted, len) with
//! Release after the data; whoever reads loads it with Acquire before.

use std::io;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::mapping::{SharedMapping, sealed_bytes, sealed_memfd};

mod bytes;
mod callbacks;
mod counters;
pub mod layout;
mod replies;
mod status;
mod timeline;

pub use callbacks::{Callback, Callbacks};
pub use counters::{CounterSnapshot, Counters, Outcome};
pub use layout::{
    CALLBACK_CELLS, COUNTER_ROWS, ERROR_TEXT_BYTES, PAGES_BYTES, REASON_COUNT, REPLY_PAYLOAD_BYTES,
    REPLY_SLOTS, TIMELINE_SLOTS, TrafficCounters, UNKNOWN_FUNCTIONS,
};
pub use replies::{Answer, Replies, ReplyError, ReplyTicket};
pub use status::{ExecutorState, Status};
pub use timeline::Timeline;

/// One party's mapping of a session's pages, with that party's private state. Share it in an `Arc`.
#[derive(Debug)]
pub struct SessionPages {
    mapping: SharedMapping,
    /// View of `mapping`, made once.
    layout: NonNull<layout::Layout>,
    /// Client: one bit for each reply slot in use.
    claimed_replies: AtomicU64,
    /// Executor: callbacks posted so far.
    posted_callbacks: AtomicU32,
    /// Client: callbacks taken so far.
    taken_callbacks: AtomicU32,
}

// SAFETY: `layout` points into `mapping`, which moves along and stays mapped; it holds atomics only.
unsafe impl Send for SessionPages {}
// SAFETY: as for Send.
unsafe impl Sync for SessionPages {}

impl SessionPages {
    /// Makes the pages of a new session, and the descriptor to send with the hello.
    ///
    /// # Errors
    /// What memfd_create or mmap report.
    pub fn create() -> io::Result<(Self, OwnedFd)> {
        let fd = sealed_memfd("lightos-session", PAGES_BYTES as u64)?;
        let pages = Self::map(&fd)?;
        pages.callbacks().prepare(0);
        pages.layout().status.magic.store(layout::MAGIC, Ordering::Release);
        Ok((pages, fd))
    }

    /// Maps the pages that a client has made.
    ///
    /// # Errors
    /// `InvalidData` when the file is not sealed, has another size or another magic number.
    pub fn open(fd: OwnedFd) -> io::Result<Self> {
        let invalid = || io::Error::new(io::ErrorKind::InvalidData, "not session pages of this protocol");
        if sealed_bytes(std::os::fd::AsFd::as_fd(&fd))? != PAGES_BYTES as u64 {
            return Err(invalid());
        }
        let pages = Self::map(&fd)?;
        if pages.layout().status.magic.load(Ordering::Acquire) != layout::MAGIC {
            return Err(invalid());
        }
        Ok(pages)
    }

    fn map(fd: &OwnedFd) -> io::Result<Self> {
        let mapping = SharedMapping::whole(fd, PAGES_BYTES as u64)?;
        let view = mapping.view::<layout::Layout>(0);
        let layout = NonNull::from(view.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?);
        Ok(Self {
            mapping,
            layout,
            claimed_replies: AtomicU64::new(0),
            posted_callbacks: AtomicU32::new(0),
            taken_callbacks: AtomicU32::new(0),
        })
    }

    fn layout(&self) -> &layout::Layout {
        // SAFETY: a checked view of `mapping`, which lives as long as `self`.
        unsafe { self.layout.as_ref() }
    }

    /// Sticky error and executor's state.
    pub fn status(&self) -> Status<'_> {
        Status::new(&self.layout().status)
    }

    /// Completion values.
    pub fn timeline(&self) -> Timeline<'_> {
        Timeline::new(&self.layout().timeline, self.mapping.address_of(layout::TIMELINE_OFFSET))
    }

    /// Outcomes of cold calls.
    pub fn replies(&self) -> Replies<'_> {
        Replies::new(&self.layout().replies, &self.claimed_replies)
    }

    /// Host functions to run.
    pub fn callbacks(&self) -> Callbacks<'_> {
        Callbacks::new(&self.layout().callbacks, &self.posted_callbacks, &self.taken_callbacks)
    }

    /// What the tenant did.
    pub fn counters(&self) -> Counters<'_> {
        Counters::new(&self.layout().counters)
    }
}
