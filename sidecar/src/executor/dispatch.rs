//! From a record to the area that executes it, and from the outcome to whoever waits for it.
//!
//! A record that no correct shim writes is a [`Violation`] and ends the tenant. An error of the driver goes to the record's
//! reply slot; a record without one turns it into the tenant's sticky error.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;

use lightos_protocol::codec::{self, CodecError};
use lightos_protocol::pages::ReplyError;
use lightos_protocol::record::{self, LaunchView, MemcpyInline, Op, RecordError};
use lightos_protocol::request::{Reply, Request};
use lightos_protocol::ring::{Record, RingViolation};

use super::driver::CuError;
use super::{Executor, context};

/// What a program did to shared memory that a correct shim never does.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Violation {
    #[error("ring: {0}")]
    Ring(#[from] RingViolation),
    #[error("record: {0}")]
    Record(#[from] RecordError),
    #[error("request: {0}")]
    Request(#[from] CodecError),
    #[error("request: {0}")]
    Blob(#[from] super::fds::BlobError),
    #[error("reply: {0}")]
    Reply(#[from] ReplyError),
}

impl Executor {
    /// Executes one record.
    pub(crate) fn dispatch(&mut self, record: &Record<'_>) -> Result<(), Violation> {
        let op = Op::try_from(record.header.op)?;
        self.pages.counters().traffic().dispatched.fetch_add(1, Ordering::Relaxed);
        // cudarc panics where the driver lacks a symbol; the program gets an error instead of a dead executor.
        let outcome = catch_unwind(AssertUnwindSafe(|| self.execute(op, record.payload)))
            .unwrap_or(Ok(Err(CuError::NOT_SUPPORTED)))?;
        let reply = record.header.reply;
        if let Err(error) = outcome
            && (reply == 0 || error.is_sticky())
        {
            self.lose(error, op.name());
        }
        if reply == 0 { Ok(()) } else { self.answer(reply, outcome) }
    }

    /// Decodes the payload and calls the area. The outer error is a violation, the inner one the driver's.
    fn execute(&mut self, op: Op, payload: &[u8]) -> Result<Result<Reply, CuError>, Violation> {
        if let Some(error) = self.lost {
            return Ok(Err(error));
        }
        let done = match op {
            Op::Launch => {
                let view = LaunchView::parse(payload)?;
                self.admit();
                self.launch(&view)
            }
            Op::Memcpy => {
                let copy = record::read_exact(payload)?;
                self.memcpy(&copy)
            }
            Op::MemcpyInline => {
                let (copy, data) = MemcpyInline::parse(payload)?;
                self.memcpy_inline(&copy, data)
            }
            Op::Memcpy2D => {
                let copy = record::read_exact(payload)?;
                self.memcpy_2d(&copy)
            }
            Op::Memset => {
                let fill = record::read_exact(payload)?;
                self.memset(&fill)
            }
            Op::EventRecord => {
                let event = record::read_exact(payload)?;
                self.event_record(&event)
            }
            Op::StreamWaitEvent => {
                let wait = record::read_exact(payload)?;
                self.stream_wait_event(&wait)
            }
            Op::Timeline => {
                let mark = record::read_exact(payload)?;
                self.timeline(&mark)
            }
            Op::StreamValue => {
                let value = record::read_exact(payload)?;
                self.stream_value(&value)
            }
            Op::GraphLaunch => {
                let launch = record::read_exact(payload)?;
                self.admit();
                self.graph_launch(&launch)
            }
            Op::HostFunc => {
                let function = record::read_exact(payload)?;
                self.host_func(&function)
            }
            Op::StreamDestroy => {
                let record::Handle { handle } = record::read_exact(payload)?;
                self.stream_destroy(handle)
            }
            Op::EventDestroy => {
                let record::Handle { handle } = record::read_exact(payload)?;
                self.event_destroy(handle)
            }
            Op::Cold => return Ok(self.request(codec::decode(payload)?)),
            Op::ColdBlob => {
                let blob = record::read_exact(payload)?;
                let bytes = self.fds.request(&blob)?;
                return Ok(self.request(codec::decode(&bytes)?));
            }
        };
        Ok(done.map(|()| Reply::Done))
    }

    /// Holds the next launch, and with it all that follows in program order, for as long as policy says. The end of the program or of
    /// the daemon ends this process meanwhile.
    fn admit(&self) {
        if !self.verdict.is_go() {
            let held = self.verdict.wait(|| false);
            let nanoseconds = u64::try_from(held.as_nanos()).unwrap_or(u64::MAX);
            self.pages.counters().traffic().held_ns.fetch_add(nanoseconds, Ordering::Relaxed);
        }
    }

    fn request(&mut self, request: Request) -> Result<Reply, CuError> {
        match request {
            Request::Memory(request) => self.memory_request(request),
            Request::Module(request) => self.module_request(request),
            Request::Ipc(request) => self.ipc_request(request),
            Request::Stream(request) => self.stream_request(request),
            Request::Graph(request) => self.graph_request(request),
            Request::Array(request) => self.array_request(request),
            Request::Texture(request) => self.texture_request(request),
            Request::Context(request) => context::request(request),
            Request::Ping => Ok(Reply::Done),
        }
    }
}
