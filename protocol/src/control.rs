//! The handshake, file descriptors, and the questions of the command line.
//!
//! Every connection starts with one [`Opening`]; the daemon answers a client with a [`HelloReply`] and an
//! administrator with an [`AdminReply`]. After `Welcome` only [`FdMessage`]s cross the socket, in both
//! directions, and its end is the end of the session.
//!
//! Frozen for all versions, so that any two builds can refuse each other politely: the [`Preamble`] at the
//! start of `Opening`, and the encoding of `HelloReply::Refused` with `RefusalReason::ProtocolMismatch`
//! (variant numbers 1 and 0, then hash and version).

use serde::{Deserialize, Serialize};

use crate::codec::{self, CodecError};
use crate::hash::PROTOCOL_HASH;

mod report;
pub use report::{CallCount, DeviceReading, ExecutorExit, MemoryUse, TenantReport, TenantState, Traffic};

/// First eight bytes of every connection: "LightOS" and a zero.
pub const MAGIC: u64 = u64::from_le_bytes(*b"LightOS\0");
/// (major, minor) of the protocol, for people; [`PROTOCOL_HASH`] decides.
pub const VERSION: (u16, u16) = (0, 1);
/// Position of the [`SessionPages`](crate::pages::SessionPages) memfd among the descriptors sent with
/// [`Hello`].
pub const HELLO_FD_PAGES: usize = 0;
/// Position of the ring's memfd among the descriptors sent with [`Hello`].
pub const HELLO_FD_RING: usize = 1;
/// Position of a copy of the client's standard output, which becomes the executor's: device `printf`
/// appears where it does natively. A client whose output is closed sends /dev/null.
pub const HELLO_FD_STDOUT: usize = 2;
/// Position of a copy of the client's standard error, likewise.
pub const HELLO_FD_STDERR: usize = 3;
/// How many descriptors accompany a [`Hello`] for [`Mode::Sidecar`].
pub const HELLO_FDS: usize = 4;
/// How many accompany one for [`Mode::Local`]: the pages alone.
pub const LOCAL_HELLO_FDS: usize = 1;

/// Tells builds apart before anything else is decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preamble {
    /// [`MAGIC`].
    pub magic: u64,
    /// The sender's [`PROTOCOL_HASH`].
    pub protocol_hash: u64,
    /// The sender's [`VERSION`].
    pub version: (u16, u16),
}

impl Preamble {
    /// This build's.
    pub const OURS: Self = Self { magic: MAGIC, protocol_hash: PROTOCOL_HASH, version: VERSION };
}

/// The first message on a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opening {
    /// Comes first for ever.
    pub preamble: Preamble,
    /// What the peer wants.
    pub purpose: Purpose,
}

/// Why somebody connects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    /// A client process wants a session.
    Client(Hello),
    /// Somebody asks or orders.
    Admin(Admin),
}

/// Why an opening was not understood.
#[derive(Debug, thiserror::Error)]
pub enum OpeningError {
    /// The peer does not speak LightOS at all.
    #[error("peer does not speak the LightOS protocol")]
    Foreign,
    /// Another build: answer with [`HelloReply::mismatch`].
    #[error("peer speaks protocol {}.{} ({:016x}), this build {}.{} ({PROTOCOL_HASH:016x})",
        .0.version.0, .0.version.1, .0.protocol_hash, VERSION.0, VERSION.1)]
    Mismatch(Preamble),
    /// The right build, but not a message.
    #[error(transparent)]
    Malformed(#[from] CodecError),
}

impl Opening {
    /// An opening of this build.
    pub const fn new(purpose: Purpose) -> Self {
        Self { preamble: Preamble::OURS, purpose }
    }

    /// Decodes the first frame of a connection; looks at the preamble alone until it matches.
    ///
    /// # Errors
    /// See [`OpeningError`].
    pub fn decode(frame: &[u8]) -> Result<Self, OpeningError> {
        let (preamble, _) = codec::decode_prefix::<Preamble>(frame).map_err(|_| OpeningError::Foreign)?;
        if preamble.magic != MAGIC {
            return Err(OpeningError::Foreign);
        }
        if preamble.protocol_hash != PROTOCOL_HASH {
            return Err(OpeningError::Mismatch(preamble));
        }
        Ok(codec::decode(frame)?)
    }
}

/// Where a program's calls are dispatched.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// By an executor process, which owns the program's device memory.
    #[default]
    Sidecar,
    /// By the program's own driver, under the [verdict](crate::verdict); its page comes with the [`Welcome`].
    Local,
}

impl Mode {
    /// How many descriptors come with the hello.
    pub const fn hello_fds(self) -> usize {
        match self {
            Self::Sidecar => HELLO_FDS,
            Self::Local => LOCAL_HELLO_FDS,
        }
    }
}

/// A client process introduces itself; [`Mode::hello_fds`] descriptors come along.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Where its calls are to be dispatched.
    pub mode: Mode,
    /// Its process id as it sees it; the daemon trusts SO_PEERCRED only.
    pub pid: u32,
    /// /proc/self/comm.
    pub process_name: String,
    /// The first argument of the command.
    pub argv0: String,
    /// The tenant class asked for (`LIGHTOS_CLASS`); the daemon's policy decides.
    pub tenant_class: Option<String>,
    /// Names of the counter rows in the session pages, by index: one for each hooked function.
    pub hooks: Vec<String>,
    /// Names of the reason counters in the session pages, by index.
    pub reasons: Vec<String>,
    /// `cuDriverGetVersion` of the client's driver, e.g. 13000.
    pub driver_version: i32,
    /// The device the session is about: the client's ordinal 0.
    pub device_uuid: [u8; 16],
    /// Those variables of [`DRIVER_ENVIRONMENT`] that the client has set.
    pub environment: Vec<(String, String)>,
}

/// Environment variables that change what the CUDA driver does, not what it may touch: a program sets them for the process that owns the
/// device, which is the executor ("CUDA Environment Variables", CUDA C++ Programming Guide).
pub const DRIVER_ENVIRONMENT: [&str; 7] = [
    "CUDA_CACHE_DISABLE",
    "CUDA_CACHE_MAXSIZE",
    "CUDA_DEVICE_DEFAULT_PERSISTING_L2_CACHE_PERCENTAGE_LIMIT",
    "CUDA_DEVICE_MAX_CONNECTIONS",
    "CUDA_DISABLE_PTX_JIT",
    "CUDA_FORCE_PTX_JIT",
    "CUDA_MODULE_LOADING",
];

/// The daemon's answer to a [`Hello`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum HelloReply {
    /// The session stands; the executor is on the other end from now on.
    Welcome(Welcome),
    /// No session; the client runs natively, or fails if it was told to.
    Refused {
        /// For programs.
        reason: RefusalReason,
        /// For people: one line.
        message: String,
    },
}

impl HelloReply {
    /// The refusal for another build, saying which side to update.
    pub fn mismatch(client: &Preamble) -> Self {
        let (theirs, ours) = (client.version, VERSION);
        let advice = match theirs.cmp(&ours) {
            std::cmp::Ordering::Less => "update the preload library",
            std::cmp::Ordering::Greater => "update the sidecar",
            std::cmp::Ordering::Equal => "install preload library and sidecar from the same build",
        };
        Self::Refused {
            reason: RefusalReason::ProtocolMismatch { daemon_hash: PROTOCOL_HASH, daemon_version: ours },
            message: format!(
                "preload library speaks protocol {}.{} ({:016x}), sidecar {}.{} ({PROTOCOL_HASH:016x}): {advice}",
                theirs.0, theirs.1, client.protocol_hash, ours.0, ours.1
            ),
        }
    }
}

/// What the client learns about its session.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Welcome {
    /// The tenant's number, unique for the daemon's lifetime.
    pub tenant_id: u64,
    /// The class it was given.
    pub tenant_class: String,
    /// The device behind the executor; empty in [`Mode::Local`].
    pub device: DeviceInfo,
    /// Bytes that the executor has reserved at [`DEVICE_ARENA_BASE`](crate::arena::DEVICE_ARENA_BASE), and the client reserves as well.
    /// Zero in [`Mode::Local`].
    pub device_arena_bytes: u64,
    /// What it may use.
    pub limits: Limits,
}

/// A device as the daemon names it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceInfo {
    /// The executor's ordinal.
    pub ordinal: u32,
    /// cuDeviceGetName.
    pub name: String,
    /// cuDeviceGetUuid_v2.
    pub uuid: [u8; 16],
    /// cuDeviceTotalMem.
    pub total_memory_bytes: u64,
}

/// What policy grants a tenant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Most device memory, in bytes; none when unlimited.
    pub memory_bytes: Option<u64>,
    /// Stream priority the tenant's default maps to.
    pub priority: i32,
}

/// Why a client was turned away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RefusalReason {
    /// Another build. Frozen: variant 0, this content.
    ProtocolMismatch {
        /// The daemon's [`PROTOCOL_HASH`].
        daemon_hash: u64,
        /// The daemon's [`VERSION`].
        daemon_version: (u16, u16),
    },
    /// Policy forbids this user or class.
    NotAllowed,
    /// As many tenants as the policy allows are running.
    TooManyTenants,
    /// The executor did not come up.
    ExecutorFailed,
    /// The client's device is not one the daemon has.
    UnknownDevice,
    /// The hello or its descriptors break the rules.
    BadHello,
    /// The daemon is on its way out.
    ShuttingDown,
}

/// Announces the descriptor it travels with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FdMessage {
    /// The tag a request names.
    pub tag: u64,
}

/// What the command line asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Admin {
    /// The daemon and its tenants, in brief.
    Status,
    /// Full counters of one tenant, or of all, finished ones included as far as remembered.
    Report {
        /// Its number; none for all.
        tenant_id: Option<u64>,
    },
    /// As [`Admin::Report`], of the tenants whose process descends from the asking process.
    ReportOfDescendants,
    /// Set the share of time in which programs may launch.
    SetDuty {
        /// The program's number; none for all that run.
        tenant_id: Option<u64>,
        /// In thousandths: 1000 lifts the throttle, 0 pauses.
        permille: u32,
    },
    /// Finish: end every session and exit.
    Shutdown,
}

/// The daemon's answer to an [`Admin`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum AdminReply {
    /// To [`Admin::Status`].
    Status(DaemonStatus),
    /// To [`Admin::Report`] and [`Admin::ReportOfDescendants`].
    Report(Vec<TenantReport>),
    /// To [`Admin::SetDuty`]: the programs that it applies to.
    DutySet(Vec<u64>),
    /// To [`Admin::Shutdown`].
    ShuttingDown,
    /// Not allowed, or no such tenant: one line for people.
    Failed(String),
}

/// The daemon in brief.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DaemonStatus {
    /// Its process id.
    pub pid: u32,
    /// Seconds since it started.
    pub uptime_seconds: u64,
    /// Crate version of its build.
    pub build: String,
    /// The devices it owns.
    pub devices: Vec<DeviceInfo>,
    /// What the device management library says of each device of the machine; empty where there is none.
    pub readings: Vec<DeviceReading>,
    /// Running tenants.
    pub tenants: Vec<TenantReport>,
}

#[cfg(test)]
mod tests;
