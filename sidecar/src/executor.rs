//! The process that owns the device on behalf of one program.
//!
//! Threads: the *ring thread* (the process's main thread) consumes the ring and makes every driver call that the program
//! asked for, in program order; the *monitor* thread ends the process when the program or the daemon is gone; host
//! functions run on the driver's own thread. The ring thread never waits for the device: waiting is the program's, through
//! timeline words in the shared pages.
//!
//! Each area keeps its state in a struct of its own file and adds its methods to [`Executor`]; [`dispatch`] is the one place
//! that maps records to them.

mod arrays;
mod context;
pub mod control;
mod copies;
mod dispatch;
pub mod driver;
mod events;
mod fds;
mod globals;
mod graphs;
mod host;
mod hostfn;
mod ipc;
mod launch;
mod memory;
mod modules;
mod monitor;
mod process;
mod references;
mod status;
mod streams;
mod textures;
mod vmm;

use std::sync::Arc;

use lightos_protocol::mapping::Reservation;
use lightos_protocol::pages::SessionPages;
use lightos_protocol::verdict::Verdict;

use driver::Context;
pub(crate) use monitor::pidfd;
pub use process::main;

/// One program's device state. Owned by the ring thread.
pub(crate) struct Executor {
    /// The device's primary context, current on the ring thread.
    pub(crate) context: Context,
    /// Shared with the program: status, timeline words, reply slots, callback queue, counters.
    pub(crate) pages: Arc<SessionPages>,
    /// What policy says of the program's launches.
    pub(crate) verdict: Verdict,
    /// Bytes of device addresses reserved, one of [`DEVICE_ARENA_SIZES`](lightos_protocol::arena::DEVICE_ARENA_SIZES).
    pub(crate) device_arena_bytes: u64,
    /// The reserved addresses of pinned host memory, the same in the program.
    pub(crate) host_arena: Reservation,
    /// Device address of the timeline words, see [`Executor::timeline_address`].
    timeline: u64,
    /// File descriptors that the program sends beside its requests, and ours to it.
    pub(crate) fds: fds::Fds,
    pub(crate) modules: modules::Modules,
    pub(crate) streams: streams::Streams,
    pub(crate) events: events::Events,
    pub(crate) hostfns: hostfn::HostFunctions,
    pub(crate) graphs: graphs::Graphs,
    pub(crate) memory: memory::Memory,
    pub(crate) vmm: vmm::Vmm,
    pub(crate) host: host::HostMemory,
    pub(crate) globals: globals::Globals,
    ipc: ipc::Ipc,
    pub(crate) arrays: arrays::Arrays,
    pub(crate) textures: textures::Textures,
    pub(crate) references: references::References,
    /// The first error that no call could report; every later record is refused with it.
    lost: Option<driver::CuError>,
}
