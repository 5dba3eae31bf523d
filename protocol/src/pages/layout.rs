//! Where things lie in the session pages. Every area starts at a multiple of 64 KiB, so that the timeline
//! can be registered with the driver on its own whatever the page size.

use std::sync::atomic::{AtomicU32, AtomicU64};

use crate::mapping::Shared;

/// First bytes of the file.
pub const MAGIC: u64 = u64::from_le_bytes(*b"LtOsPage");
/// Words of the timeline. Slot 0 is never used: it means "none".
pub const TIMELINE_SLOTS: usize = 65_536;
/// Cold calls of one client that may wait at once.
pub const REPLY_SLOTS: usize = 64;
/// Most bytes of an encoded reply.
pub const REPLY_PAYLOAD_BYTES: usize = 4064;
/// Host functions posted and not yet finished.
pub const CALLBACK_CELLS: usize = 256;
/// Hooked functions that can be counted.
pub const COUNTER_ROWS: usize = 1024;
/// Reasons that can be counted.
pub const REASON_COUNT: usize = 256;
/// Functions that are refused because the shim does not know them.
pub const UNKNOWN_FUNCTIONS: usize = 64;
/// Most bytes of such a function's name.
pub const UNKNOWN_NAME_BYTES: usize = 64;
/// Most bytes of the error text.
pub const ERROR_TEXT_BYTES: usize = 1024;
/// Size of the file.
pub const PAGES_BYTES: usize = size_of::<Layout>();
/// Where the timeline starts.
pub const TIMELINE_OFFSET: usize = std::mem::offset_of!(Layout, timeline);

const AREA_BYTES: usize = 64 << 10;

/// The whole file.
#[derive(Debug)]
#[repr(C)]
pub struct Layout {
    /// See [`Status`](super::Status).
    pub status: StatusArea,
    /// See [`Counters`](super::Counters).
    pub counters: CounterArea,
    /// See [`Callbacks`](super::Callbacks).
    pub callbacks: CallbackArea,
    /// See [`Replies`](super::Replies).
    pub replies: [ReplyArea; REPLY_SLOTS],
    /// See [`Timeline`](super::Timeline).
    pub timeline: [AtomicU32; TIMELINE_SLOTS],
}

/// Written by the executor.
#[derive(Debug)]
#[repr(C)]
pub struct StatusArea {
    /// [`MAGIC`].
    pub magic: AtomicU64,
    /// `CUresult` that every call answers from now on; 0 for none.
    pub sticky_error: AtomicU32,
    /// An [`ExecutorState`](super::ExecutorState).
    pub executor_state: AtomicU32,
    /// Bytes of `error_text` that count.
    pub error_text_bytes: AtomicU32,
    /// Zero.
    pub reserved: AtomicU32,
    /// Why the session failed: UTF-8 in memory order.
    pub error_text: [AtomicU64; ERROR_TEXT_BYTES / 8],
    /// Zero.
    pub filler: [AtomicU64; (AREA_BYTES - 24 - ERROR_TEXT_BYTES) / 8],
}

/// Written by client and executor.
#[derive(Debug)]
#[repr(C)]
pub struct CounterArea {
    /// Calls, by hook and [`Outcome`](super::Outcome).
    pub calls: [[AtomicU64; 4]; COUNTER_ROWS],
    /// Pass-throughs and refusals, by reason.
    pub reasons: [AtomicU64; REASON_COUNT],
    /// Work that crossed the boundary.
    pub traffic: TrafficCounters,
    /// Refused functions that have no row among `calls`.
    pub unknown: [UnknownFunction; UNKNOWN_FUNCTIONS],
    /// Zero.
    pub filler: [AtomicU64;
        (AREA_BYTES
            - 32 * COUNTER_ROWS
            - 8 * REASON_COUNT
            - size_of::<TrafficCounters>()
            - UNKNOWN_FUNCTIONS * size_of::<UnknownFunction>())
            / 8],
}

/// A function of a driver that is newer than the shim.
#[derive(Debug)]
#[repr(C)]
pub struct UnknownFunction {
    /// Times it was refused; the name is there once this is not 0.
    pub refused: AtomicU64,
    /// Its name, padded with zeros.
    pub name: [AtomicU64; UNKNOWN_NAME_BYTES / 8],
}

/// Work that crossed the boundary. `dispatched` is the executor's, `held_ns` the dispatcher's, the others are the client's.
#[derive(Debug)]
#[repr(C)]
pub struct TrafficCounters {
    /// Kernel launches.
    pub launches: AtomicU64,
    /// Graph launches.
    pub graph_launches: AtomicU64,
    /// Bytes from host to device.
    pub host_to_device_bytes: AtomicU64,
    /// Bytes from device to host.
    pub device_to_host_bytes: AtomicU64,
    /// Bytes from device to device.
    pub device_to_device_bytes: AtomicU64,
    /// Device memory allocated now, in bytes.
    pub memory_current_bytes: AtomicU64,
    /// Most device memory allocated at once, in bytes.
    pub memory_peak_bytes: AtomicU64,
    /// Records dispatched.
    pub dispatched: AtomicU64,
    /// Nanoseconds for which launches were held by the verdict.
    pub held_ns: AtomicU64,
}

/// A queue of cells, each used again once its function has finished.
#[derive(Debug)]
#[repr(C)]
pub struct CallbackArea {
    /// Counts posts; the client sleeps on it.
    pub doorbell: AtomicU32,
    /// Zero.
    pub reserved: [AtomicU32; 7],
    /// Callback number n, counted from 1, is in cell n % [`CALLBACK_CELLS`].
    pub cells: [CallbackCell; CALLBACK_CELLS],
    /// Zero.
    pub filler: [AtomicU64; (AREA_BYTES - 32 - 32 * CALLBACK_CELLS) / 8],
}

/// One callback.
#[derive(Debug)]
#[repr(C)]
pub struct CallbackCell {
    /// Number of the callback whose data is here.
    pub posted: AtomicU32,
    /// Number of the last callback here that has finished; the executor sleeps on it.
    pub done: AtomicU32,
    /// The client's number for function and argument.
    pub id: AtomicU64,
    /// `CUresult` to pass to a stream callback.
    pub status: AtomicU32,
    /// Zero.
    pub reserved: [AtomicU32; 3],
}

/// One reply slot.
#[derive(Debug)]
#[repr(C)]
pub struct ReplyArea {
    /// Who has the slot; the client sleeps on it.
    pub state: AtomicU32,
    /// `CUresult`.
    pub result: AtomicU32,
    /// Bytes of `payload` that count.
    pub payload_bytes: AtomicU32,
    /// Zero.
    pub reserved: [AtomicU32; 5],
    /// An encoded [`Reply`](crate::request::Reply).
    pub payload: [AtomicU64; REPLY_PAYLOAD_BYTES / 8],
}

// SAFETY: each of these consists of atomics alone, in repr(C), checked below to have no surprise in size.
unsafe impl Shared for Layout {}

const _: () = {
    assert!(size_of::<StatusArea>() == AREA_BYTES);
    assert!(size_of::<CounterArea>() == AREA_BYTES);
    assert!(size_of::<CallbackArea>() == AREA_BYTES);
    assert!(size_of::<ReplyArea>() == 4096);
    assert!(TIMELINE_OFFSET.is_multiple_of(AREA_BYTES));
    assert!(PAGES_BYTES.is_multiple_of(AREA_BYTES));
};
