//! What crosses the LightOS process boundary, and nothing else.
//!
//! Four parties share this crate: the shim in the user's process, the executor that owns the device on its
//! behalf, the daemon that admits and supervises tenants, and the command line that asks the daemon
//! questions.
//!
//! | what | module | travels by |
//! | --- | --- | --- |
//! | hot calls (launches, copies) in program order | [`record`] over [`ring`] | shared memory, no system call |
//! | cold calls that want an answer | [`request`], encoded by [`codec`] | a ring record; the answer in a reply slot of [`pages`] |
//! | completion values, sticky error, counters, callbacks | [`pages`] | shared memory |
//! | what policy says of launches | [`verdict`] | shared memory that only the daemon writes |
//! | handshake, file descriptors, admin questions | [`control`] over [`socket`] | Unix socket |
//!
//! No policy and no CUDA call lives here. Whatever a peer can write is hostile to the reader: readers copy
//! it out first, validate the copy, and name the violation in an error instead of panicking. `unsafe` is
//! confined to [`ring`], [`mapping`] and the marker impls of [`pages`].

pub mod arena;
pub mod backoff;
pub mod codec;
pub mod control;
pub mod futex;
pub mod hash;
pub mod mapping;
pub mod pages;
pub mod record;
pub mod request;
pub mod ring;
pub mod socket;
pub mod verdict;

pub use hash::PROTOCOL_HASH;
