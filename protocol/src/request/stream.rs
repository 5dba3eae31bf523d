//! Cold calls about streams and events.

use serde::{Deserialize, Serialize};

/// A call about streams or events. Handles are the client's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum StreamRequest {
    /// cuStreamCreate or cuStreamCreateWithPriority.
    Create {
        /// The client's `CUstream`.
        stream: u64,
        /// `CUstream_flags`.
        flags: u32,
        /// As the program gave it.
        priority: i32,
    },
    /// cuEventCreate.
    EventCreate {
        /// The client's `CUevent`.
        event: u64,
        /// `CUevent_flags`.
        flags: u32,
    },
    /// cuEventElapsedTime; answers [`Reply::F32`](super::Reply::F32) in milliseconds.
    EventElapsed {
        /// The earlier event.
        start: u64,
        /// The later event.
        end: u64,
    },
    /// cuEventQuery, for events without a timeline word; answers [`Reply::Done`](super::Reply::Done) or fails with
    /// `CUDA_ERROR_NOT_READY`.
    EventQuery {
        /// The client's `CUevent`.
        event: u64,
    },
    /// cuStreamSetAttribute.
    SetAttribute {
        /// The client's `CUstream`.
        stream: u64,
        /// `CUstreamAttrID`.
        attribute: u32,
        /// `CUstreamAttrValue`: 64 bytes.
        value: Vec<u8>,
    },
}
