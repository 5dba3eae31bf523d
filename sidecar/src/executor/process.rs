//! The executor process: set-up over stdin, the device, the main loop.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use lightos_protocol::pages::SessionPages;
use lightos_protocol::ring::{Consumer, RingMemory};
use lightos_protocol::socket::{Channel, SocketError};
use lightos_protocol::verdict::Verdict;

use super::control::{DeviceFacts, Ending, Notice, SETUP_FDS, Setup};
use super::driver::{self, Context, StartError};
use super::ipc::Ipc;
use super::monitor::Watch;
use super::status::SessionError;
use super::{Executor, monitor};
use crate::logs;

/// The daemon sends the set-up right after it started the process.
const SETUP_TIMEOUT: Duration = Duration::from_secs(10);
/// Records between two looks at the clock, so that a busy ring does not pay for it.
const RECORDS_PER_LOOK: u32 = 256;
/// How often an idle executor asks the driver for errors of work under way: at first, and when nothing has happened for long.
const POLL: std::ops::Range<Duration> = Duration::from_millis(1)..Duration::from_millis(100);

/// Why an executor cannot serve its program.
#[derive(Debug, thiserror::Error)]
enum OpenError {
    #[error("set-up came with {0} descriptors")]
    Fds(usize),
    #[error("ring: {0}")]
    Ring(io::Error),
    #[error("shared pages: {0}")]
    Pages(io::Error),
    #[error("verdict page: {0}")]
    Verdict(io::Error),
    #[error("no monitor thread: {0}")]
    Monitor(io::Error),
    #[error(transparent)]
    Driver(#[from] StartError),
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error("daemon: {0}")]
    Daemon(#[from] SocketError),
}

/// The hidden subcommand `lightos executor`. Stdin is the channel to the daemon.
pub fn main() -> ExitCode {
    let daemon = match daemon_channel() {
        Ok(daemon) => Arc::new(daemon),
        Err(error) => {
            eprintln!("lightos executor: started by hand ({error}); it is started by `lightos sidecar`");
            return ExitCode::from(2);
        }
    };
    let (setup, fds) = match daemon.recv::<Setup>(Some(SETUP_TIMEOUT)) {
        Ok(received) => received,
        Err(error) => {
            eprintln!("lightos executor: no set-up from the daemon: {error}");
            return ExitCode::from(2);
        }
    };
    match open(&daemon, setup, fds) {
        Ok((executor, consumer)) => run(executor, consumer, &daemon),
        Err(error) => {
            let unknown_device = matches!(
                error,
                OpenError::Driver(StartError::NoSuchUuid { .. } | StartError::NoSuchDevice { .. })
            );
            let _ = daemon.send(&Notice::Failed { message: error.to_string(), unknown_device }, &[]);
            ExitCode::FAILURE
        }
    }
}

/// Stdin as the channel to the daemon, whose death is ours from here on.
fn daemon_channel() -> io::Result<Channel> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    let stdin = io::stdin().as_fd().try_clone_to_owned()?;
    rustix::net::sockopt::socket_type(&stdin)?;
    Ok(Channel::from(stdin))
}

fn open(daemon: &Arc<Channel>, setup: Setup, fds: Vec<OwnedFd>) -> Result<(Executor, Consumer), OpenError> {
    let fds: [OwnedFd; SETUP_FDS] = fds.try_into().map_err(|fds: Vec<_>| OpenError::Fds(fds.len()))?;
    let [program, ring, pages, pidfd, verdict, log] = fds;
    logs::to_file(File::from(log), &setup.log);
    // The default hook would write into the program's stderr.
    std::panic::set_hook(Box::new(|panic| tracing::error!(%panic, "executor panicked")));
    name_process(&setup);
    let program = Arc::new(Channel::from(program));
    let ring = RingMemory::open(ring).map_err(OpenError::Ring)?;
    let pages = SessionPages::open(pages).map_err(OpenError::Pages)?;
    let verdict = Verdict::open(&verdict).map_err(OpenError::Verdict)?;
    // From here on the process ends with the program, however long the driver takes to start.
    let opened = Arc::new(OnceLock::new());
    let watched = Watch { daemon: daemon.clone(), program: program.clone(), pidfd, context: opened.clone() };
    monitor::start(watched).map_err(OpenError::Monitor)?;

    driver::load()?;
    let (context, device) = Context::open(setup.device, setup.device_uuid)?;
    let _ = opened.set(context);
    let ipc = Ipc::new(daemon.clone(), device.uuid);
    let executor = Executor::new(context, Arc::new(pages), verdict, program, ipc)?;
    let library = driver::library_path().map(|path| path.display().to_string()).unwrap_or_default();
    let facts = DeviceFacts {
        ordinal: device.ordinal,
        name: device.name,
        uuid: device.uuid,
        total_bytes: device.total_bytes,
        driver_version: device.driver_version,
        device_arena_bytes: executor.device_arena_bytes,
        library,
    };
    tracing::info!(tenant = setup.tenant, pid = setup.pid, program = %setup.program, device = %facts.name, driver = %facts.library, "executor ready");
    daemon.send(&Notice::Ready(facts), &[])?;
    let spin = Duration::from_micros(setup.spin_us.into());
    Ok((executor, Consumer::new(ring).with_spin(spin)))
}

/// Shown by `ps -o comm` and `top`: the kernel keeps 15 bytes.
fn name_process(setup: &Setup) {
    let mut name = format!("lightos-x:{}", setup.program).replace('\0', "");
    while name.len() > 15 {
        name.pop();
    }
    if let Ok(name) = std::ffi::CString::new(name) {
        let _ = rustix::thread::set_name(&name);
    }
}

/// The ring thread.
fn run(mut executor: Executor, mut consumer: Consumer, daemon: &Channel) -> ! {
    let mut scratch = Vec::new();
    let mut pause = POLL.start;
    let mut polled = Instant::now();
    let mut records = 0u32;
    let violation = loop {
        match consumer.next(pause, &mut scratch) {
            Ok(Some(record)) => {
                pause = POLL.start;
                if let Err(violation) = executor.dispatch(&record) {
                    break violation;
                }
                // A program that never pauses must learn of a lost device as well.
                records = records.wrapping_add(1);
                if records.is_multiple_of(RECORDS_PER_LOOK) && polled.elapsed() >= POLL.end {
                    polled = Instant::now();
                    executor.poll();
                }
            }
            Ok(None) => {
                pause = (pause * 2).min(POLL.end);
                polled = Instant::now();
                executor.poll();
            }
            Err(violation) => break violation.into(),
        }
    };
    tracing::warn!(%violation, "program is disconnected");
    executor.disconnect(&violation);
    // Producers that wait for space learn that nobody reads any more.
    drop(consumer);
    monitor::end(daemon, Ending::Violation { reason: violation.to_string() })
}
