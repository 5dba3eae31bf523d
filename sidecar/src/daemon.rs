//! The daemon: listens, admits programs, starts and supervises one executor process for each, answers the command line.
//!
//! Threads: the main thread waits for signals and orders; one thread accepts; one thread per connection shakes hands and, for a
//! program, lives as long as its executor (which dies with that thread, see docs/adr/0004). The daemon makes no CUDA call.

mod admin;
mod executors;
mod ipc;
mod listener;
mod local;
mod peer;
mod session;
mod tenants;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::fs::Gid;
use sd_notify::NotifyState;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::config::Config;
use crate::telemetry::Telemetry;
use ipc::Broker;
use listener::Listening;
pub use listener::{ListenError, default_socket};
use tenants::Tenants;
pub(crate) use tenants::is_alive;

/// How long executors may take to end before they are killed.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);
/// Connections that may be shaking hands or asking at once, tenants not counted.
const MAX_VISITORS: usize = 128;

/// How to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where to listen.
    pub socket: PathBuf,
    pub config: Config,
    /// The software GPU's libraries, when programs are to run on it.
    pub softgpu: Option<PathBuf>,
    /// Log filter, for the executors.
    pub log: String,
}

/// Why the daemon stopped without having been asked.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error("cannot {what}: {source}")]
    Io { what: &'static str, source: std::io::Error },
}

/// What all threads share.
#[derive(Debug)]
struct Daemon {
    options: Options,
    group: Option<Gid>,
    tenants: Tenants,
    broker: Broker,
    telemetry: Option<Telemetry>,
    started: Instant,
    visitors: AtomicUsize,
    stopping: AtomicBool,
    stop: mpsc::Sender<&'static str>,
}

/// Serves until a signal or an administrator ends it.
pub fn serve(options: &Options) -> Result<(), ServeError> {
    let group = options.config.group.as_deref().map(peer::group).transpose()?;
    // Before the socket exists: who sees it may ask for the end.
    let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT, SIGHUP])
        .map_err(|source| ServeError::Io { what: "handle signals", source })?;
    let listening = Arc::new(Listening::bind(&options.socket, group)?);
    let (stop, stopped) = mpsc::channel();
    let telemetry = Telemetry::open(options.softgpu.as_deref())
        .inspect_err(|error| tracing::info!(%error, "no device readings"))
        .ok();
    let daemon = Arc::new(Daemon {
        options: options.clone(),
        group,
        tenants: Tenants::new(&options.config),
        broker: Broker::new(),
        telemetry,
        started: Instant::now(),
        visitors: AtomicUsize::new(0),
        stopping: AtomicBool::new(false),
        stop: stop.clone(),
    });
    thread("signals", move || {
        for _ in signals.forever() {
            let _ = stop.send("signal");
        }
    })?;
    let acceptor = (daemon.clone(), listening.clone());
    thread("accept", move || accept(&acceptor.0, &acceptor.1))?;

    tracing::info!(socket = %options.socket.display(), softgpu = options.softgpu.is_some(), "serving");
    notify(NotifyState::Ready);
    let reason = stopped.recv().unwrap_or("no thread is left");
    tracing::info!(reason, "stopping");
    notify(NotifyState::Stopping);
    daemon.stopping.store(true, Ordering::Relaxed);
    daemon.tenants.end_all(SHUTDOWN_TIMEOUT);
    listening.remove();
    Ok(())
}

fn thread(name: &'static str, body: impl FnOnce() + Send + 'static) -> Result<(), ServeError> {
    std::thread::Builder::new()
        .name(name.into())
        .spawn(body)
        .map(drop)
        .map_err(|source| ServeError::Io { what: "start a thread", source })
}

fn accept(daemon: &Arc<Daemon>, listening: &Listening) {
    loop {
        match listening.accept() {
            Ok((stream, peer)) => {
                if daemon.visitors.fetch_add(1, Ordering::Relaxed) >= MAX_VISITORS {
                    daemon.visitors.fetch_sub(1, Ordering::Relaxed);
                    tracing::warn!(pid = peer.pid, "too many connections at once; one is closed");
                    continue;
                }
                let own = daemon.clone();
                if thread("session", move || session::serve(&own, stream, &peer)).is_err() {
                    daemon.visitors.fetch_sub(1, Ordering::Relaxed);
                }
            }
            Err(error) => {
                // A peer that is gone already, or no descriptors left: neither ends the daemon, and neither may spin it.
                tracing::warn!(%error, "accept");
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::debug!(%error, "service manager not told");
    }
}
