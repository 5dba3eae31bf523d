//! The records of the ring: one per forwarded call, in program order.
//!
//! A record is a [`RecordHeader`] and a payload. Hot calls have fixed `repr(C)` payloads ([`payload`]),
//! written without encoding; everything else is a [`Op::Cold`] record that carries an encoded
//! [`Request`](crate::request::Request). Handles (streams, events, functions, ...) are the client's local
//! driver handles; the executor keeps the table to its own. The reader owns a private copy and checks it
//! here.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub mod payload;
pub use payload::*;

/// Starts every record, at a 64-byte boundary of the ring.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RecordHeader {
    /// Bytes of the record, header included, padding excluded: 16 to
    /// [`MAX_RECORD_BYTES`](crate::ring::MAX_RECORD_BYTES).
    pub len: u32,
    /// An [`Op`] as a number; anything else is a violation by the client.
    pub op: u16,
    /// Meaning by op; no bit is defined yet.
    pub flags: u16,
    /// Reply slot + 1 that wants the outcome, 0 for none (see [`crate::pages::Replies`]).
    pub reply: u32,
    /// Zero.
    pub reserved: u32,
}

/// Size of [`RecordHeader`].
pub const HEADER_BYTES: usize = size_of::<RecordHeader>();

/// Defines `Op` and its conversions from one list.
macro_rules! ops {
    ($($(#[$doc:meta])* $name:ident = $value:literal,)*) => {
        /// What a record asks for. Numbers are never reused within one protocol hash.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum Op { $($(#[$doc])* $name = $value,)* }

        impl Op {
            /// Every op, in order of its number.
            pub const ALL: &[Op] = &[$(Op::$name),*];

            /// Its name as written here, for logs and counters.
            pub const fn name(self) -> &'static str {
                match self { $(Op::$name => stringify!($name),)* }
            }
        }

        impl TryFrom<u16> for Op {
            type Error = RecordError;

            fn try_from(value: u16) -> Result<Self, RecordError> {
                match value { $($value => Ok(Op::$name),)* _ => Err(RecordError::UnknownOp { op: value }) }
            }
        }
    };
}

ops! {
    /// [`Launch`], then its attributes and parameters.
    Launch = 1,
    /// [`Memcpy`].
    Memcpy = 2,
    /// [`MemcpyInline`], then the bytes.
    MemcpyInline = 3,
    /// [`Memcpy2D`].
    Memcpy2D = 4,
    /// [`Memset`].
    Memset = 5,
    /// [`EventRecord`].
    EventRecord = 6,
    /// [`StreamWaitEvent`].
    StreamWaitEvent = 7,
    /// [`Timeline`].
    Timeline = 8,
    /// [`StreamValue`].
    StreamValue = 9,
    /// [`GraphLaunch`].
    GraphLaunch = 10,
    /// [`HostFunc`].
    HostFunc = 11,
    /// [`Handle`] of a stream to destroy.
    StreamDestroy = 12,
    /// [`Handle`] of an event to destroy.
    EventDestroy = 13,
    /// An encoded [`Request`](crate::request::Request).
    Cold = 14,
    /// [`BlobRef`]: a memfd sent over the socket holds an encoded [`Request`](crate::request::Request) too
    /// long for a record.
    ColdBlob = 15,
}

impl From<Op> for u16 {
    fn from(op: Op) -> u16 {
        op as u16
    }
}

/// What is wrong with a record; the executor disconnects a tenant that sends one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// No such op.
    #[error("unknown op {op}")]
    UnknownOp {
        /// The number found.
        op: u16,
    },
    /// The payload is shorter or longer than its own fields say.
    #[error("{what}: {found} payload bytes where {expected} were expected")]
    WrongSize {
        /// Which payload.
        what: &'static str,
        /// Size found.
        found: usize,
        /// Size required.
        expected: usize,
    },
    /// A count beyond what the CUDA interface allows.
    #[error("{what} is {found}, more than {limit}")]
    TooMany {
        /// Which count.
        what: &'static str,
        /// Its value.
        found: u64,
        /// The highest value allowed.
        limit: u64,
    },
    /// A field that has a closed set of values holds another.
    #[error("{what} has no value {found}")]
    UnknownValue {
        /// Which field.
        what: &'static str,
        /// What it holds.
        found: u32,
    },
}

/// A fixed payload and the op that it belongs to.
pub trait Payload: FromBytes + IntoBytes + Immutable + KnownLayout {
    /// The op of records with this payload; [`Handle`] names the first of the two that it serves.
    const OP: Op;
}

/// Copies a `T` off the start of `payload`; returns it and the bytes that follow.
///
/// # Errors
/// [`RecordError::WrongSize`] when `payload` is too short.
pub fn read_prefix<T: Payload>(payload: &[u8]) -> Result<(T, &[u8]), RecordError> {
    T::read_from_prefix(payload).map_err(|_| wrong_size::<T>(payload.len(), size_of::<T>()))
}

/// Copies a `T` that fills `payload` exactly.
///
/// # Errors
/// [`RecordError::WrongSize`] otherwise.
pub fn read_exact<T: Payload>(payload: &[u8]) -> Result<T, RecordError> {
    T::read_from_bytes(payload).map_err(|_| wrong_size::<T>(payload.len(), size_of::<T>()))
}

fn wrong_size<T: Payload>(found: usize, expected: usize) -> RecordError {
    RecordError::WrongSize { what: T::OP.name(), found, expected }
}
