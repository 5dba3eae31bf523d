//! `lightos run`: one command under LightOS, with the command's own exit status.
//!
//! Exit status: the command's; 128 + n when signal n ended it; 127 when it is not found and 126 when it cannot be started, as a
//! shell does; 125 when LightOS itself failed before the command ran.

mod private;
mod report;
mod signals;

use std::ffi::OsStr;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus};

use clap::ValueEnum;

use super::client::{AskError, Client};
use super::{Dispatch, RunArgs};
use crate::layout::{self, LayoutError};
use private::{PrivateError, PrivateSidecar};
use report::ReportFile;

const CODE_OWN: u8 = 125;
const CODE_NOT_EXECUTABLE: u8 = 126;
const CODE_NOT_FOUND: u8 = 127;

/// Why the command was not run.
#[derive(Debug, thiserror::Error)]
enum RunError {
    #[error(transparent)]
    Layout(#[from] LayoutError),
    #[error(transparent)]
    NoSidecar(#[from] AskError),
    #[error("cannot write the report {}: {source}; name a file in a folder that exists and can be written to", path.display())]
    Report { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Private(#[from] PrivateError),
    #[error("cannot handle signals: {0}")]
    Signals(io::Error),
    #[error("{}: command not found", .0.display())]
    NotFound(PathBuf),
    #[error("{}: cannot be executed: {source}", path.display())]
    NotExecutable { path: PathBuf, source: io::Error },
}

/// A sidecar for the command: one that runs anyway, or ours.
enum Sidecar {
    Running(PathBuf),
    Private(PrivateSidecar),
    None,
}

impl Sidecar {
    fn socket(&self) -> Option<&Path> {
        match self {
            Self::Running(socket) => Some(socket),
            Self::Private(sidecar) => Some(sidecar.socket()),
            Self::None => None,
        }
    }
}

pub(super) fn main(args: RunArgs) -> ExitCode {
    match run(&args) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("lightos: {error}");
            ExitCode::from(match error {
                RunError::NotFound(_) => CODE_NOT_FOUND,
                RunError::NotExecutable { .. } => CODE_NOT_EXECUTABLE,
                _ => CODE_OWN,
            })
        }
    }
}

fn run(args: &RunArgs) -> Result<ExitCode, RunError> {
    let report = args.report.as_deref().map(ReportFile::create).transpose()?;
    let intercept = layout::intercept()?;
    let softgpu = args.softgpu.then(layout::softgpu).transpose()?;
    let sidecar = choose(args)?;

    let mut command = Command::new(&args.command[0]);
    command.args(&args.command[1..]);
    command.env("LD_PRELOAD", preload(&intercept, std::env::var_os("LD_PRELOAD").as_deref()));
    if let Some(folder) = &softgpu {
        let rest = std::env::var_os("LD_LIBRARY_PATH");
        command.env("LD_LIBRARY_PATH", layout::prepend(folder, rest.as_deref()));
    }
    match sidecar.socket() {
        Some(socket) => {
            let mode = args.dispatch.to_possible_value().expect("no mode is hidden");
            command.env(layout::SOCKET_VARIABLE, socket).env("LIGHTOS_DISPATCH", mode.get_name())
        }
        None => command.env("LIGHTOS_DISPATCH", "off"),
    };
    let outcome = execute(command, Path::new(&args.command[0]));

    // Natively a program's device memory is free by the time its parent sees its end: so it is here, with or without a report.
    let tenants = match sidecar.socket() {
        Some(socket) => report::collect(socket, matches!(sidecar, Sidecar::Private(_))),
        None => Ok(Vec::new()),
    };
    if let Some(report) = report {
        let tenants = tenants.unwrap_or_else(|error| {
            eprintln!("lightos: the report names no program: {error}");
            Vec::new()
        });
        report.write(args, &sidecar, outcome.as_ref().ok().copied().map(exit_code), &tenants)?;
    }
    if let Sidecar::Private(sidecar) = sidecar {
        sidecar.stop();
    }
    outcome.map(|status| ExitCode::from(exit_code(status)))
}

/// The sidecar at the named place, or at the usual one, where one answers; else a private one, which the software GPU and a command with a
/// duty of its own always get unless a place is named (the one at the usual place owns the machine's own device).
fn choose(args: &RunArgs) -> Result<Sidecar, RunError> {
    if args.dispatch == Dispatch::Off {
        return Ok(Sidecar::None);
    }
    if let Some(socket) = &args.socket {
        match Client::connect(Some(socket)) {
            Ok(client) => return Ok(Sidecar::Running(client.path().to_owned())),
            Err(error) => eprintln!("lightos: {error}; a private sidecar serves this command"),
        }
    } else if !args.softgpu && args.duty.is_none() {
        match Client::connect(None) {
            Ok(client) => return Ok(Sidecar::Running(client.path().to_owned())),
            Err(AskError::NoSidecar(_)) => {}
            Err(error) => eprintln!("lightos: {error}; a private sidecar serves this command"),
        }
    }
    Ok(Sidecar::Private(PrivateSidecar::start(args)?))
}

/// Runs the command to its end, passing signals on.
fn execute(mut command: Command, name: &Path) -> Result<ExitStatus, RunError> {
    let forwarding = signals::Forwarding::prepare().map_err(RunError::Signals)?;
    let mut child = command.spawn().map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => RunError::NotFound(name.to_owned()),
        _ => RunError::NotExecutable { path: name.to_owned(), source },
    })?;
    forwarding.start(child.id()).map_err(RunError::Signals)?;
    child.wait().map_err(|source| RunError::NotExecutable { path: name.to_owned(), source })
}

/// As a shell gives it in `$?`.
fn exit_code(status: ExitStatus) -> u8 {
    match (status.code(), status.signal()) {
        (Some(code), _) => code as u8,
        (None, signal) => 128u8.wrapping_add(signal.unwrap_or(0) as u8),
    }
}

/// `LD_PRELOAD` with our library first and what the user preloads behind it.
fn preload(intercept: &Path, present: Option<&OsStr>) -> std::ffi::OsString {
    let is_present = present.is_some_and(|list| {
        let ours = intercept.as_os_str().as_encoded_bytes();
        list.as_encoded_bytes().split(|byte| b": ".contains(byte)).any(|entry| entry == ours)
    });
    match present {
        Some(list) if is_present => list.to_owned(),
        list => layout::prepend(intercept, list),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_a_shells() {
        assert_eq!(exit_code(ExitStatus::from_raw(3 << 8)), 3);
        assert_eq!(exit_code(ExitStatus::from_raw(15)), 143);
        assert_eq!(exit_code(ExitStatus::from_raw(9)), 137);
    }

    #[test]
    fn what_is_preloaded_stays_and_ours_comes_once() {
        let ours = Path::new("/opt/l.so");
        let list = |present: Option<&str>| preload(ours, present.map(OsStr::new)).into_string().unwrap();
        assert_eq!(list(None), "/opt/l.so");
        assert_eq!(list(Some("/a.so /b.so")), "/opt/l.so:/a.so /b.so");
        assert_eq!(list(Some("/a.so:/opt/l.so")), "/a.so:/opt/l.so");
    }
}
