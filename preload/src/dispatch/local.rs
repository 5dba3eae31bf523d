//! `local` dispatch: every call is the process's own driver's; launches ask the verdict first.
//!
//! What is hooked are launches alone, so nothing stands between the program and the functions that a forwarding layer cannot carry. A launch
//! costs two counters and one load of the verdict. Where the sidecar ends, the program goes on without it.

use crate::{
    hooks::Hook,
    life,
    session::{self, ConnectError},
};
use lightos_protocol::{
    control::Mode,
    pages::{Outcome, SessionPages},
    socket::{Channel, SocketError},
    verdict::Verdict,
};
use std::{
    os::fd::AsFd,
    ptr,
    sync::atomic::{
        AtomicBool, AtomicPtr,
        Ordering::{Acquire, Relaxed, Release},
    },
};

static LOCAL: AtomicPtr<Local> = AtomicPtr::new(ptr::null_mut());

/// What is launched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Launch {
    /// A kernel.
    Kernel,
    /// A graph.
    Graph,
}

/// This process as a tenant that dispatches for itself. Made once and never freed: other threads may be using it.
#[derive(Debug)]
struct Local {
    pages: SessionPages,
    verdict: Verdict,
    channel: Channel,
    /// What the channel's socket is known by.
    socket: (u64, u64),
    /// The sidecar has ended: nobody is left to change the verdict.
    is_alone: AtomicBool,
}

/// Connects as a tenant that dispatches for itself.
pub fn begin() -> Result<(), ConnectError> {
    let (pages, channel, verdict) = session::introduce_locally(life::settings(), Mode::Local)?;
    let socket = session::identity(channel.as_fd()).ok_or(ConnectError::Handshake(SocketError::Closed))?;
    let local: &'static Local =
        Box::leak(Box::new(Local { pages, verdict, channel, socket, is_alone: AtomicBool::new(false) }));
    life::register_handlers();
    LOCAL.store(ptr::from_ref(local).cast_mut(), Release);
    let watch = session::spawn_watch(move || local.watch());
    watch.inspect_err(|_| retire()).map_err(ConnectError::Thread)
}

#[inline]
fn local() -> Option<&'static Local> {
    // SAFETY: the pointer is null or a leaked `Local`, published with Release.
    unsafe { LOCAL.load(Acquire).as_ref() }
}

/// Before a launch: counts it, and holds it for as long as policy says. Nothing where this process does not dispatch for itself.
#[inline]
pub fn admit(hook: &Hook, launch: Launch) {
    let Some(local) = local() else { return };
    let counters = local.pages.counters();
    counters.count(hook.row.into(), Outcome::Passed);
    let traffic = counters.traffic();
    let launches = if launch == Launch::Kernel { &traffic.launches } else { &traffic.graph_launches };
    launches.fetch_add(1, Relaxed);
    if !local.verdict.is_go() {
        local.hold();
    }
}

/// From now on launches are neither counted nor held.
pub fn retire() {
    LOCAL.store(ptr::null_mut(), Release);
}

/// In the child of a fork: the parent is the tenant. Async-signal-safe.
pub fn forget_in_child() {
    if let Some(local) = local() {
        retire();
        session::close_in_child(&local.channel, local.socket);
    }
}

impl Local {
    #[cold]
    fn hold(&self) {
        // A launch of a process that exits is not held either.
        let held = self.verdict.wait(|| self.is_alone.load(Relaxed) || local().is_none());
        let nanoseconds = u64::try_from(held.as_nanos()).unwrap_or(u64::MAX);
        self.pages.counters().traffic().held_ns.fetch_add(nanoseconds, Relaxed);
    }

    /// Waits for the sidecar's end.
    fn watch(&self) {
        session::wait_for_hangup(&self.channel);
        self.is_alone.store(true, Relaxed);
        if local().is_some() {
            life::warn("the sidecar has ended; this program goes on without it");
            retire();
        }
    }
}
