//! What the daemon and an executor say to each other over the executor's stdin. Both are always the same binary.
//!
//! After the set-up the executor speaks and the daemon listens; the one thing that the executor waits for is the [`IpcAnswer`] to a question of
//! its own.

use lightos_protocol::request::IpcMemory;
use lightos_protocol::request::ipc::{IpcPlace, IpcToken};
use serde::{Deserialize, Serialize};

/// Daemon to executor, once, with these descriptors in this order: the program's socket, its ring, its shared pages, a pidfd
/// of its process, its verdict page, the log.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Setup {
    pub tenant: u64,
    /// The program's process id, as the daemon sees it.
    pub pid: u32,
    pub program: String,
    /// CUDA ordinal of the device to open where the program names none.
    pub device: u32,
    /// The program's device; zeros for none.
    pub device_uuid: [u8; 16],
    /// Microseconds to poll an empty ring before sleeping.
    pub spin_us: u32,
    /// Filter for the executor's log lines.
    pub log: String,
}

/// Descriptors that come with [`Setup`].
pub const SETUP_FDS: usize = 6;

/// Executor to daemon.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Notice {
    /// The device is open and the ring is being consumed; the program may be welcomed.
    Ready(DeviceFacts),
    /// The executor cannot serve and ends.
    Failed { message: String, unknown_device: bool },
    /// The executor ends, and why.
    Ending(Ending),
    /// A question about memory shared by IPC handles; answered with an [`IpcAnswer`] of the same number.
    Ipc { number: u64, question: IpcQuestion },
}

/// What an executor asks of the daemon's broker. Devices are named by their UUIDs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum IpcQuestion {
    /// Others may open this allocation; the slab's descriptor comes along. Granted with a token.
    Offer { device: [u8; 16], place: IpcPlace },
    /// The end of an offer.
    Withdraw { token: IpcToken },
    /// The slab of another program's offer, as its handle describes it. Granted with the slab's descriptor.
    Open { device: [u8; 16], memory: IpcMemory },
}

/// Daemon to executor.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct IpcAnswer {
    pub number: u64,
    pub outcome: Result<IpcGrant, IpcDenial>,
}

/// What an executor gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum IpcGrant {
    Token(IpcToken),
    Withdrawn,
    Slab,
}

/// Why it gets nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum IpcDenial {
    /// There is no such offer: it was made up, withdrawn, or its program has ended.
    Unknown,
    /// The handle describes the memory otherwise than the offer did, or the offer makes no sense.
    Mismatch,
    /// The offer is the program's own.
    Own,
    /// The memory is another device's.
    OtherDevice,
    /// The program, or all programs together, have as many offers as can be kept.
    TooMany,
}

/// The device as the executor opened it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceFacts {
    pub ordinal: u32,
    pub name: String,
    pub uuid: [u8; 16],
    pub total_bytes: u64,
    pub driver_version: u32,
    /// Bytes reserved as the device arena.
    pub device_arena_bytes: u64,
    /// The file the driver was loaded from.
    pub library: String,
}

/// Why an executor ended by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// The program closed its socket or ended.
    ProgramEnded,
    /// The program wrote something into shared memory that no correct shim writes.
    Violation { reason: String },
    /// The daemon asked, or is gone.
    Shutdown,
}

impl std::fmt::Display for Ending {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::ProgramEnded => out.write_str("program ended"),
            Self::Violation { reason } => write!(out, "protocol violation: {reason}"),
            Self::Shutdown => out.write_str("sidecar shut down"),
        }
    }
}
