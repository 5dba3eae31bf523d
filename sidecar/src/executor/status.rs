//! What the program learns: replies to its requests, the sticky error, disconnection.

use std::ffi::c_void;
use std::sync::Arc;

use lightos_protocol::arena;
use lightos_protocol::codec;
use lightos_protocol::mapping::Reservation;
use lightos_protocol::pages::{ExecutorState, ReplyError, SessionPages};
use lightos_protocol::request::Reply;
use lightos_protocol::socket::Channel;
use lightos_protocol::verdict::Verdict;

use super::Executor;
use super::dispatch::Violation;
use super::driver::{self, Context, CuError, check, sys};
use super::fds::Fds;
use super::ipc::Ipc;

/// Why a program's session cannot be taken over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionError {
    #[error("the device addresses from {base:#x} are taken: {0}", base = arena::DEVICE_ARENA_BASE)]
    DeviceArena(CuError),
    #[error("the host addresses from {base:#x} are taken: {0}", base = arena::HOST_ARENA_BASE)]
    HostArena(std::io::Error),
    #[error("the device cannot reach shared host memory: {0}")]
    Timeline(CuError),
}

/// Reserves as much of the device arena as the driver grants; the error is that of the smallest size.
fn reserve_device_arena() -> Result<u64, CuError> {
    let mut result = Err(CuError::INVALID_VALUE);
    for bytes in arena::DEVICE_ARENA_SIZES {
        result = driver::reserve_exactly(arena::DEVICE_ARENA_BASE, bytes).map(|()| bytes);
        if result.is_ok() {
            break;
        }
    }
    result
}

impl Executor {
    /// Takes a program's session over: both arenas are reserved and the device can write the timeline words.
    pub(crate) fn new(
        context: Context,
        pages: Arc<SessionPages>,
        verdict: Verdict,
        program: Arc<Channel>,
        ipc: Ipc,
    ) -> Result<Self, SessionError> {
        let device_arena_bytes = reserve_device_arena().map_err(SessionError::DeviceArena)?;
        let host_arena = Reservation::fixed(arena::HOST_ARENA_BASE, arena::HOST_ARENA_BYTES)
            .map_err(SessionError::HostArena)?;
        let timeline = register_timeline(&pages).map_err(SessionError::Timeline)?;
        pages.status().set_executor_state(ExecutorState::Ready);
        Ok(Self {
            context,
            pages,
            verdict,
            fds: Fds::new(program),
            device_arena_bytes,
            host_arena,
            timeline,
            modules: Default::default(),
            streams: Default::default(),
            events: Default::default(),
            hostfns: Default::default(),
            graphs: Default::default(),
            memory: Default::default(),
            vmm: Default::default(),
            host: Default::default(),
            globals: Default::default(),
            ipc,
            arrays: Default::default(),
            textures: Default::default(),
            references: Default::default(),
            lost: None,
        })
    }

    /// The device address of a timeline word; `None` for a slot that does not exist.
    pub(crate) fn timeline_address(&self, slot: u32) -> Option<u64> {
        let timeline = self.pages.timeline();
        timeline.slot_address(slot).map(|address| self.timeline + (address - timeline.address()))
    }

    /// Answers the request whose record's header held `reply`.
    pub(super) fn answer(&self, reply: u32, outcome: Result<Reply, CuError>) -> Result<(), Violation> {
        let replies = self.pages.replies();
        let sent = match outcome {
            Ok(content) => match codec::encode(&content) {
                Ok(bytes) => replies.answer(reply, 0, &bytes),
                Err(_) => Err(ReplyError::TooLong { bytes: usize::MAX }),
            },
            Err(error) => replies.answer(reply, error.0, &[]),
        };
        match sent {
            Err(error @ ReplyError::TooLong { .. }) => {
                tracing::error!(%error, "an answer is dropped");
                Ok(replies.answer(reply, CuError::UNKNOWN.0, &[])?)
            }
            sent => Ok(sent?),
        }
    }

    /// Makes `error` the answer to everything that follows. The first one stays.
    pub(crate) fn lose(&mut self, error: CuError, during: &str) {
        if self.lost.is_some() {
            return;
        }
        self.lost = Some(error);
        tracing::warn!(%error, during, "session lost");
        let status = self.pages.status();
        status.set_error_text(&format!("{error} during {during}"));
        status.set_sticky_error(error.0);
    }

    /// Asks the driver whether work under way has failed, and has it show what kernels have printed. Cheap and without waiting.
    pub(super) fn poll(&mut self) {
        if self.lost.is_some() {
            return;
        }
        let legacy = std::ptr::null_mut();
        // SAFETY: the NULL stream always exists in the current context.
        let outcome = match check(unsafe { sys::cuStreamQuery(legacy) }) {
            // The driver keeps device printf output until a call that synchronises; nobody adds to the stream meanwhile, so this one does not wait.
            // SAFETY: as above.
            Ok(()) => check(unsafe { sys::cuStreamSynchronize(legacy) }),
            Err(CuError::NOT_READY) => Ok(()),
            Err(error) => Err(error),
        };
        let outcome = outcome.and_then(|()| self.destroy_left_arrays());
        if let Err(error) = outcome {
            self.lose(error, "execution");
        }
    }

    /// The program broke the protocol: it gets a sticky error and the reason.
    pub(super) fn disconnect(&mut self, violation: &Violation) {
        let status = self.pages.status();
        status.set_error_text(&format!("LightOS: disconnected, {violation}"));
        status.set_sticky_error(CuError::UNKNOWN.0);
        status.set_executor_state(ExecutorState::Failed);
    }
}

/// Registers the timeline words with the driver; returns their device address.
fn register_timeline(pages: &SessionPages) -> Result<u64, CuError> {
    let timeline = pages.timeline();
    let address = std::ptr::with_exposed_provenance_mut::<c_void>(timeline.address() as usize);
    let flags = sys::CU_MEMHOSTREGISTER_PORTABLE | sys::CU_MEMHOSTREGISTER_DEVICEMAP;
    let mut device = 0;
    // SAFETY: the range is the session pages' timeline area, page-aligned and mapped for the life of the process (`pages` is
    // kept by the executor, which never ends but with the process); all its words are atomics, so the device may write them.
    unsafe {
        check(sys::cuMemHostRegister_v2(address, timeline.bytes(), flags))?;
        check(sys::cuMemHostGetDevicePointer_v2(&mut device, address, 0))?;
    }
    Ok(device)
}
