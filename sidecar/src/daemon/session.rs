//! One connection: who it is, what it wants, and for a program the whole life of its executor.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lightos_protocol::control::{
    self, Admin, DeviceInfo, Hello, HelloReply, Limits, Mode, Opening, OpeningError, Purpose, RefusalReason,
    Welcome,
};
use lightos_protocol::pages::SessionPages;
use lightos_protocol::socket::Channel;
use lightos_protocol::verdict::{Duty, VerdictWriter};

use super::executors::{ExecutorProcess, ProgramFds, StartError};
use super::peer::Peer;
use super::tenants::Tenant;
use super::{Daemon, admin, local};
use crate::executor::control::{DeviceFacts, Setup};

/// A peer says at once what it wants.
const OPENING_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an ended program's executor may take to give its memory back; a driver needs tenths of a second for a full device.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection that is not a tenant yet (or never).
struct Visit<'a>(&'a Daemon);

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        self.0.visitors.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The body of a connection's thread.
pub(super) fn serve(daemon: &Arc<Daemon>, stream: UnixStream, peer: &Peer) {
    let visit = Visit(daemon);
    let channel = Channel::from(stream);
    let (frame, fds) = match channel.recv_frame(Some(OPENING_TIMEOUT)) {
        Ok(received) => received,
        Err(error) => return tracing::debug!(pid = peer.pid, %error, "connection without an opening"),
    };
    let opening = match Opening::decode(&frame) {
        Ok(opening) => opening,
        Err(OpeningError::Mismatch(theirs)) => {
            tracing::warn!(pid = peer.pid, "another build: {}", OpeningError::Mismatch(theirs));
            return drop(channel.send(&HelloReply::mismatch(&theirs), &[]));
        }
        Err(error) => return tracing::warn!(pid = peer.pid, %error, "opening not understood"),
    };
    let own_uid = rustix::process::geteuid().as_raw();
    let allowed = peer.is_allowed(own_uid, daemon.group);
    match opening.purpose {
        Purpose::Admin(question) => {
            let orders = matches!(question, Admin::Shutdown | Admin::SetDuty { .. });
            let may_ask = if orders { peer.is_owner(own_uid) } else { allowed };
            admin::answer(daemon, &channel, peer, may_ask, &question);
        }
        Purpose::Client(hello) => {
            let outcome = if allowed {
                program(daemon, &channel, peer, hello, fds)
            } else {
                Err((RefusalReason::NotAllowed, format!("user {} may not use this sidecar", peer.uid)))
            };
            match outcome {
                Ok(Served::Executor(process, tenant)) => {
                    // The program must see the executor's end as a hang-up: no copy of its socket stays here.
                    drop((channel, visit));
                    supervise(daemon, process, &tenant);
                }
                Ok(Served::Locally(pidfd, tenant)) => {
                    drop(visit);
                    local::attend(daemon, &channel, &pidfd, &tenant);
                }
                Err((reason, message)) => {
                    tracing::warn!(pid = peer.pid, %message, "program refused");
                    let _ = channel.send(&HelloReply::Refused { reason, message }, &[]);
                }
            }
        }
    }
}

type Refusal = (RefusalReason, String);

/// An admitted program.
enum Served {
    /// By this executor.
    Executor(ExecutorProcess, Arc<Tenant>),
    /// By its own driver; the descriptor is a pidfd of it.
    Locally(OwnedFd, Arc<Tenant>),
}

/// Admits a program, and starts its executor where it wants one.
fn program(
    daemon: &Daemon,
    channel: &Channel,
    peer: &Peer,
    hello: Hello,
    fds: Vec<OwnedFd>,
) -> Result<Served, Refusal> {
    let bad = |message: String| (RefusalReason::BadHello, message);
    let count = fds.len();
    let mut fds: Vec<Option<OwnedFd>> = fds.into_iter().map(Some).collect();
    let wanted = hello.mode.hello_fds();
    if count != wanted {
        return Err(bad(format!("hello came with {count} descriptors, not {wanted}")));
    }
    let mut fd = |index: usize| fds[index].take().ok_or_else(|| bad("a descriptor is used twice".into()));
    let pages_fd = fd(control::HELLO_FD_PAGES)?;
    let clone = |fd: &OwnedFd| fd.try_clone().map_err(|error| bad(error.to_string()));
    let pages =
        SessionPages::open(clone(&pages_fd)?).map_err(|error| bad(format!("shared pages: {error}")))?;
    let pidfd =
        crate::executor::pidfd(peer.pid).map_err(|error| bad(format!("pid {}: {error}", peer.pid)))?;
    let socket = channel.as_fd().try_clone_to_owned().map_err(|error| bad(error.to_string()))?;
    let (verdict, verdict_fd) = VerdictWriter::create().map_err(|error| bad(error.to_string()))?;
    verdict.set(Duty::permille(daemon.options.config.duty_percent * 10));
    let (mode, device_uuid, environment) = (hello.mode, hello.device_uuid, hello.environment.clone());
    let tenant = Tenant::new(&daemon.tenants, peer, hello, pages, verdict).map_err(bad)?;
    if mode == Mode::Local {
        refuse_while_stopping(daemon)?;
        daemon.tenants.admit(&tenant).map_err(|message| (RefusalReason::TooManyTenants, message))?;
        local::welcome(daemon, channel, &tenant, socket, &verdict_fd);
        return Ok(Served::Locally(pidfd, tenant));
    }
    let program = ProgramFds {
        socket,
        ring: fd(control::HELLO_FD_RING)?,
        pages: pages_fd,
        pidfd,
        verdict: verdict_fd,
        stdout: fd(control::HELLO_FD_STDOUT)?,
        stderr: fd(control::HELLO_FD_STDERR)?,
    };
    refuse_while_stopping(daemon)?;
    daemon.tenants.admit(&tenant).map_err(|message| (RefusalReason::TooManyTenants, message))?;
    let setup = Setup {
        tenant: tenant.id,
        pid: peer.pid,
        program: tenant.name.clone(),
        device: daemon.options.config.device,
        device_uuid,
        spin_us: daemon.options.config.spin_us,
        log: daemon.options.log.clone(),
    };
    daemon.tenants.settle(SETTLE_TIMEOUT);
    start(daemon, channel, &tenant, &setup, &environment, program)
        .map_err(|error| {
            let reason = match &error {
                StartError::Device(_) => RefusalReason::UnknownDevice,
                _ => RefusalReason::ExecutorFailed,
            };
            daemon.tenants.forget(&tenant);
            (reason, error.to_string())
        })
        .map(|process| Served::Executor(process, tenant))
}

fn refuse_while_stopping(daemon: &Daemon) -> Result<(), Refusal> {
    if daemon.stopping.load(Ordering::Relaxed) {
        return Err((RefusalReason::ShuttingDown, "the sidecar is shutting down".into()));
    }
    Ok(())
}

fn start(
    daemon: &Daemon,
    channel: &Channel,
    tenant: &Arc<Tenant>,
    setup: &Setup,
    environment: &[(String, String)],
    program: ProgramFds,
) -> Result<ExecutorProcess, StartError> {
    let process = ExecutorProcess::spawn(&daemon.options, setup, environment, program)?;
    let leash = process.leash().map_err(StartError::Spawn)?;
    tenant.leash(leash);
    let facts = match process.ready() {
        Ok(facts) => facts,
        Err(error) => {
            process.abandon();
            return Err(error);
        }
    };
    let device_arena_bytes = facts.device_arena_bytes;
    let device = device_info(facts);
    daemon.tenants.serving(tenant, Some(&device));
    let welcome = Welcome {
        tenant_id: tenant.id,
        tenant_class: tenant.class.clone(),
        device,
        device_arena_bytes,
        limits: Limits::default(),
    };
    if let Err(error) = channel.send(&HelloReply::Welcome(welcome), &[]) {
        tracing::info!(tenant = tenant.id, %error, "program left during the handshake");
    }
    Ok(process)
}

fn device_info(facts: DeviceFacts) -> DeviceInfo {
    DeviceInfo {
        ordinal: facts.ordinal,
        name: facts.name,
        uuid: facts.uuid,
        total_memory_bytes: facts.total_bytes,
    }
}

/// Waits for the end of the executor and keeps the report.
fn supervise(daemon: &Daemon, process: ExecutorProcess, tenant: &Arc<Tenant>) {
    tracing::info!(tenant = tenant.id, pid = tenant.pid, program = %tenant.name, executor = process.pid(), "tenant begins");
    let exit = process.wait(|question, fds| daemon.broker.answer(tenant.id, question, fds));
    daemon.broker.forget(tenant.id);
    match &exit {
        control::ExecutorExit::Clean => tracing::info!(tenant = tenant.id, pid = tenant.pid, "tenant ends"),
        exit => tracing::warn!(tenant = tenant.id, pid = tenant.pid, ?exit, "tenant ends"),
    }
    daemon.tenants.finish(tenant, exit);
}
