//! A program that dispatches its calls itself, under the verdict: there is no executor to start or to supervise, and neither side's end
//! is the other's.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use lightos_protocol::control::{DeviceInfo, ExecutorExit, HelloReply, Limits, Welcome};
use lightos_protocol::socket::Channel;
use rustix::event::{PollFd, PollFlags, poll};

use super::Daemon;
use super::tenants::{Leash, Tenant};

/// Hands an admitted program its verdict page. `socket` is the daemon's handle for hanging up.
pub(super) fn welcome(
    daemon: &Daemon,
    channel: &Channel,
    tenant: &Arc<Tenant>,
    socket: OwnedFd,
    verdict: &OwnedFd,
) {
    tenant.leash(Leash { channel: socket, process: None });
    daemon.tenants.serving(tenant, None);
    let welcome = Welcome {
        tenant_id: tenant.id,
        tenant_class: tenant.class.clone(),
        device: DeviceInfo::default(),
        device_arena_bytes: 0,
        limits: Limits::default(),
    };
    if let Err(error) = channel.send(&HelloReply::Welcome(welcome), &[verdict.as_fd()]) {
        tracing::info!(tenant = tenant.id, %error, "program left during the handshake");
    }
}

/// Waits for the program's end, or the daemon's, and keeps the report.
pub(super) fn attend(daemon: &Daemon, channel: &Channel, pidfd: &OwnedFd, tenant: &Arc<Tenant>) {
    tracing::info!(tenant = tenant.id, pid = tenant.pid, program = %tenant.name, "tenant begins, dispatching locally");
    // A forked child may keep the socket open, so the process itself is watched as well.
    let mut fds = [PollFd::new(channel, PollFlags::RDHUP), PollFd::new(pidfd, PollFlags::IN)];
    while let Err(error) = poll(&mut fds, None) {
        if error != rustix::io::Errno::INTR {
            tracing::error!(%error, "poll");
            break;
        }
    }
    tracing::info!(tenant = tenant.id, pid = tenant.pid, "tenant ends");
    daemon.tenants.finish(tenant, ExecutorExit::Clean);
}
