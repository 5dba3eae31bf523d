//! `lightos sidecar`.

use super::{Failure, SidecarArgs};
use crate::config::Config;
use crate::daemon::{self, Options};
use crate::{layout, logs};

pub(super) fn main(args: SidecarArgs) -> Result<(), Failure> {
    if let Some(parent) = args.with_parent {
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))
            .map_err(Failure::failed)?;
        // It may have ended before the line above, which then announces nothing.
        if std::os::unix::process::parent_id() != parent {
            return Err(Failure::failed("the parent process has ended"));
        }
    }
    let mut config = Config::load(args.config.as_deref()).map_err(Failure::usage)?;
    config.duty_percent = args.duty.unwrap_or(config.duty_percent);
    let log = args.log.unwrap_or_else(|| config.log.clone());
    logs::check(&log).map_err(|reason| Failure::usage(format!("log filter {log:?}: {reason}")))?;
    let socket = match args.socket.or_else(|| config.socket.clone()) {
        Some(socket) => socket,
        None => daemon::default_socket().map_err(Failure::failed)?,
    };
    let softgpu = args.softgpu.then(layout::softgpu).transpose().map_err(Failure::failed)?;
    logs::to_stderr(&log);
    daemon::serve(&Options { socket, config, softgpu, log }).map_err(Failure::failed)
}
