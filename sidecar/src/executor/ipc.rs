//! Memory and events that the program shares with other processes by IPC handles.
//!
//! Memory goes by way of the daemon, which holds the descriptors of exported slabs and gives them to whoever has the token. The ring
//! thread waits for its answers, which come in well under a millisecond since the daemon only looks into a table. Events are the driver's
//! own from end to end, so they work between a program under LightOS and any other.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lightos_protocol::arena;
use lightos_protocol::request::ipc::{IPC_HANDLE_BYTES, IpcPlace};
use lightos_protocol::request::{IpcMemory, IpcRequest, Reply};
use lightos_protocol::socket::Channel;

use super::Executor;
use super::control::{IpcAnswer, IpcDenial, IpcGrant, IpcQuestion, Notice};
use super::driver::{CuError, check, sys};
use super::vmm::{self, Physical};

/// A daemon that does not answer for so long is as good as gone.
const TIMEOUT: Duration = Duration::from_secs(2);

/// What the executor knows about sharing.
#[derive(Debug)]
pub(crate) struct Ipc {
    daemon: Arc<Channel>,
    /// UUID of the executor's device.
    device: [u8; 16],
    /// Number of the latest question: an answer that came too late must not pass for another's.
    asked: u64,
    /// Slabs of other programs that are mapped here: size in bytes by address.
    opened: HashMap<u64, u64>,
}

impl From<IpcDenial> for CuError {
    fn from(denial: IpcDenial) -> Self {
        match denial {
            IpcDenial::Unknown | IpcDenial::Mismatch => Self::INVALID_VALUE,
            IpcDenial::Own => Self::INVALID_CONTEXT,
            IpcDenial::OtherDevice => Self::NOT_SUPPORTED,
            IpcDenial::TooMany => Self::OUT_OF_MEMORY,
        }
    }
}

impl Ipc {
    pub(super) fn new(daemon: Arc<Channel>, device: [u8; 16]) -> Self {
        Self { daemon, device, asked: 0, opened: HashMap::new() }
    }

    /// Asks the daemon; what it grants and the descriptors that come with it.
    fn ask(
        &mut self,
        question: IpcQuestion,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(IpcGrant, Vec<OwnedFd>), CuError> {
        self.asked += 1;
        let number = self.asked;
        let lost = |error| {
            tracing::warn!(%error, "no answer from the daemon");
            CuError::OPERATING_SYSTEM
        };
        self.daemon.send(&Notice::Ipc { number, question }, fds).map_err(lost)?;
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let (answer, fds) = self.daemon.recv::<IpcAnswer>(Some(left)).map_err(lost)?;
            if answer.number == number {
                return Ok((answer.outcome?, fds));
            }
        }
    }
}

impl Executor {
    /// Executes a cold call about what processes share.
    pub(super) fn ipc_request(&mut self, request: IpcRequest) -> Result<Reply, CuError> {
        match request {
            IpcRequest::Export { address, bytes } => return self.ipc_export(address, bytes),
            IpcRequest::Withdraw { token } => {
                self.ipc.ask(IpcQuestion::Withdraw { token }, &[])?;
            }
            IpcRequest::Open { memory, address, tag } => self.ipc_open(memory, address, tag)?,
            IpcRequest::Close { address } => {
                let bytes = *self.ipc.opened.get(&address).ok_or(CuError::INVALID_VALUE)?;
                vmm::unmap(address, bytes)?;
                self.ipc.opened.remove(&address);
            }
            IpcRequest::EventHandle { event } => {
                return self.events.ipc_handle(event).map(|handle| Reply::Bytes(handle.to_vec()));
            }
            IpcRequest::EventOpen { event, handle } => {
                let handle: [u8; IPC_HANDLE_BYTES] = handle.try_into().map_err(|_| CuError::INVALID_VALUE)?;
                self.events.ipc_open(event, handle)?;
            }
            IpcRequest::EventAwait { event, slot, value } => {
                let stream = self.events.wait_apart(event)?;
                self.write_timeline(stream, slot, value)?;
            }
        }
        Ok(Reply::Done)
    }

    fn ipc_export(&mut self, address: u64, bytes: u64) -> Result<Reply, CuError> {
        let (slab, slab_bytes) = self.memory.slab_around(address, bytes).ok_or(CuError::INVALID_VALUE)?;
        let fd = Physical::mapped_at(slab)?.export()?;
        let place = IpcPlace { slab_bytes, offset: address - slab, bytes };
        let question = IpcQuestion::Offer { device: self.ipc.device, place };
        match self.ipc.ask(question, &[fd.as_fd()])? {
            (IpcGrant::Token(token), _) => Ok(Reply::Bytes(IpcMemory { token, place }.to_handle().to_vec())),
            _ => Err(CuError::UNKNOWN),
        }
    }

    fn ipc_open(&mut self, memory: IpcMemory, address: u64, tag: u64) -> Result<(), CuError> {
        let bytes = memory.place.slab_bytes;
        if !memory.place.is_sound() || !arena::is_device_range(address, bytes) {
            return Err(CuError::INVALID_VALUE);
        }
        let question = IpcQuestion::Open { device: self.ipc.device, memory };
        let (IpcGrant::Slab, fds) = self.ipc.ask(question, &[])? else { return Err(CuError::UNKNOWN) };
        let [slab] = <[OwnedFd; 1]>::try_from(fds).map_err(|_| CuError::OPERATING_SYSTEM)?;
        Physical::import(slab.as_fd())?.map(address, bytes, 0)?;
        let shared = vmm::set_access(self.context.device(), address, bytes, vmm::READ_WRITE)
            .and_then(|()| self.fds.send(tag, slab.as_fd()));
        if let Err(error) = shared {
            let _ = vmm::unmap(address, bytes);
            return Err(error);
        }
        self.ipc.opened.insert(address, bytes);
        Ok(())
    }
}

/// The driver's handle as bytes.
pub(super) fn bytes_of(handle: sys::CUipcEventHandle) -> [u8; IPC_HANDLE_BYTES] {
    handle.reserved.map(|byte| byte as u8)
}

/// Opens the event behind a handle of the driver's.
pub(super) fn open_event(handle: [u8; IPC_HANDLE_BYTES]) -> Result<sys::CUevent, CuError> {
    let handle = sys::CUipcEventHandle { reserved: handle.map(|byte| byte as _) };
    let mut raw = std::ptr::null_mut();
    // SAFETY: a valid out-pointer; a handle may hold anything, and the driver judges it.
    check(unsafe { sys::cuIpcOpenEventHandle(&mut raw, handle) })?;
    Ok(raw)
}
