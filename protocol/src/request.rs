//! Cold calls: what the client asks for seldom and waits for, as serde enums.
//!
//! A request travels in the ring (an [`Op::Cold`](crate::record::Op::Cold) record, or
//! [`Op::ColdBlob`](crate::record::Op::ColdBlob) when it is long), so it keeps its place among the hot
//! calls. The outcome comes back through the reply slot named in the record's header: a `CUresult` and, on
//! success, an encoded [`Reply`]. File descriptors that belong to a request or reply cross the socket in a
//! [`FdMessage`](crate::control::FdMessage) with the same tag; the client sends its descriptor before it
//! pushes the request.

use serde::{Deserialize, Serialize};

pub mod array;
pub mod context;
pub mod graph;
pub mod ipc;
pub mod memory;
pub mod module;
pub mod stream;
pub mod texture;

pub use array::{ArrayDescriptor, ArrayPlace, ArrayRequest};
pub use context::ContextRequest;
pub use graph::{
    CopyDescriptor, GraphBody, GraphNode, GraphRequest, GraphViolation, MemOp, NodeAttribute, NodePlace,
};
pub use ipc::{IpcMemory, IpcRequest};
pub use memory::MemoryRequest;
pub use module::ModuleRequest;
pub use stream::StreamRequest;
pub use texture::{ReferenceState, ResourceDescriptor, TextureDescriptor, TextureRequest};

/// Links files sent over the socket with the request that speaks of them. The client counts up from 1; 0 is
/// never used.
pub type Tag = u64;

/// A cold call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// Memory and mappings.
    Memory(MemoryRequest),
    /// Modules, libraries, functions.
    Module(ModuleRequest),
    /// Memory and events shared between processes.
    Ipc(IpcRequest),
    /// Streams and events.
    Stream(StreamRequest),
    /// Executable graphs.
    Graph(GraphRequest),
    /// Arrays and the copies from and to them.
    Array(ArrayRequest),
    /// Textures and surfaces.
    Texture(TextureRequest),
    /// The context as a whole.
    Context(ContextRequest),
    /// Answered with [`Reply::Done`] once everything before it in the ring has been dispatched.
    Ping,
}

impl Request {
    /// Whether the executor holds something afterwards that the client's own driver does not have as well: memory and what lies in it.
    /// Streams, events, modules and the context's settings exist on both sides.
    pub const fn keeps_state_of_its_own(&self) -> bool {
        matches!(self, Self::Memory(_) | Self::Graph(_) | Self::Ipc(_))
    }
}

/// What a successful call answers. Failures carry a `CUresult` in the reply slot and, if there is one,
/// [`Reply::Text`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Reply {
    /// Nothing but success.
    Done,
    /// An integer of 64 bits: a handle, a size.
    U64(u64),
    /// An integer of 32 bits.
    U32(u32),
    /// A signed integer: an attribute's value.
    I32(i32),
    /// A time in milliseconds, as cuEventElapsedTime gives it.
    F32(f32),
    /// A range of device memory: a global variable.
    Address {
        /// First byte.
        address: u64,
        /// Size in bytes.
        bytes: u64,
    },
    /// Text for people: a JIT log, the reason of a failure.
    Text(String),
    /// Raw bytes: what a query copied out.
    Bytes(Vec<u8>),
    /// A module is loaded; logs of the JIT compiler, empty if not asked for.
    Loaded {
        /// `CU_JIT_INFO_LOG_BUFFER`.
        info_log: String,
        /// `CU_JIT_ERROR_LOG_BUFFER`.
        error_log: String,
    },
}
