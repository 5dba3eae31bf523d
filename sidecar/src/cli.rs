//! The command line. Exit codes: 0 done, 1 failed, 2 wrong usage or configuration; `run` gives the command's own.

mod client;
mod run;
mod sidecar;
mod status;
mod tenant_json;
mod throttle;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// A GPU operating layer for unmodified CUDA programs.
#[derive(Debug, Parser)]
#[command(name = "lightos", version, about, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon that owns the GPU and serves preloaded programs
    Sidecar(SidecarArgs),
    /// Run one command under LightOS; the exit status is the command's
    ///
    /// The command is served by a running sidecar where one answers, else by a private one that lives as long as the command.
    Run(RunArgs),
    /// Show the programs and devices of a running sidecar
    Status(StatusArgs),
    /// Set the share of time in which programs may launch
    ///
    /// Launches are held for the rest of each 10 ms period. 100 lifts the throttle, 0 pauses until the next order. The sidecar's own
    /// user and root may do this.
    Throttle(ThrottleArgs),
    /// Print the version and the protocol hash
    Version,
    /// One program's device process; started by the sidecar
    #[command(hide = true)]
    Executor(ExecutorArgs),
}

/// Arguments of `lightos sidecar`.
#[derive(Debug, Args)]
struct SidecarArgs {
    /// Configuration file [default: /etc/lightos/sidecar.yaml, where it exists]
    #[arg(long, value_name = "FILE", env = "LIGHTOS_CONFIG")]
    config: Option<PathBuf>,
    /// Path of the listening socket [default: /run/lightos/lightos.sock, else under $XDG_RUNTIME_DIR]
    #[arg(long, value_name = "PATH", env = "LIGHTOS_SOCKET")]
    socket: Option<PathBuf>,
    /// Serve programs on the software GPU
    #[arg(long)]
    softgpu: bool,
    /// Log filter: off, error, warn, info, debug, trace
    #[arg(long, value_name = "LEVEL", env = "LIGHTOS_LOG")]
    log: Option<String>,
    /// Share of time in which programs may launch, at first [default: duty_percent of the configuration, else 100]
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(0..=100))]
    duty: Option<u32>,
    /// End when the parent process, which has this process id, ends
    #[arg(long, hide = true, value_name = "PID")]
    with_parent: Option<u32>,
}

/// Where the calls of a command go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Dispatch {
    /// As each process needs: `sidecar`, or `local` for one that uses NCCL or several GPUs
    Auto,
    /// To the executor process of the sidecar
    Sidecar,
    /// To the driver in the process itself, under the sidecar's policy
    Local,
    /// Nowhere: the library is loaded and does nothing
    Off,
}

/// Arguments of `lightos run`.
#[derive(Debug, Args)]
struct RunArgs {
    /// Run on the software GPU, with a private sidecar
    #[arg(long)]
    softgpu: bool,
    /// Write a JSON report of what the command's processes called
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// The sidecar to use [default: /run/lightos/lightos.sock, else under $XDG_RUNTIME_DIR, else a private one]
    #[arg(long, value_name = "PATH", env = "LIGHTOS_SOCKET")]
    socket: Option<PathBuf>,
    /// Where the command's calls go
    #[arg(long, value_name = "MODE", value_enum, default_value = "auto")]
    dispatch: Dispatch,
    /// Share of time in which the command may launch; served by a private sidecar
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(0..=100), conflicts_with = "socket")]
    duty: Option<u32>,
    /// Log filter of a private sidecar
    #[arg(long, value_name = "LEVEL", env = "LIGHTOS_LOG", default_value = "error")]
    log: String,
    /// The command and its arguments
    #[arg(trailing_var_arg = true, required = true, value_name = "COMMAND")]
    command: Vec<std::ffi::OsString>,
}

/// Arguments of `lightos status`.
#[derive(Debug, Args)]
struct StatusArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// The sidecar to ask [default: /run/lightos/lightos.sock, else under $XDG_RUNTIME_DIR]
    #[arg(long, value_name = "PATH", env = "LIGHTOS_SOCKET")]
    socket: Option<PathBuf>,
}

/// Arguments of `lightos throttle`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("whom").required(true))]
struct ThrottleArgs {
    /// The program, by the number that `lightos status` shows
    #[arg(long, value_name = "NUMBER", group = "whom")]
    tenant: Option<u64>,
    /// Every program that runs now
    #[arg(long, group = "whom")]
    all: bool,
    /// The share of time in which it may launch
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(0..=100))]
    duty: u32,
    /// The sidecar to tell [default: /run/lightos/lightos.sock, else under $XDG_RUNTIME_DIR]
    #[arg(long, value_name = "PATH", env = "LIGHTOS_SOCKET")]
    socket: Option<PathBuf>,
}

/// What `ps` shows of an executor; its set-up comes over stdin.
#[derive(Debug, Args)]
struct ExecutorArgs {
    #[arg(long)]
    tenant: u64,
    #[arg(long)]
    pid: u32,
    #[arg(long)]
    program: String,
}

/// Parses the process's arguments and runs the command.
pub fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Sidecar(args) => sidecar::main(args),
        Command::Run(args) => return run::main(args),
        Command::Status(args) => status::main(args),
        Command::Throttle(args) => throttle::main(args),
        Command::Version => {
            println!(
                "lightos {} (protocol {:016x})",
                env!("CARGO_PKG_VERSION"),
                lightos_protocol::PROTOCOL_HASH
            );
            Ok(())
        }
        Command::Executor(_) => return crate::executor::main(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// A command that did not do what was asked.
#[derive(Debug)]
struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    /// The arguments or the configuration are wrong.
    fn usage(message: impl std::fmt::Display) -> Self {
        Self { code: 2, message: message.to_string() }
    }

    /// Something outside failed.
    fn failed(message: impl std::fmt::Display) -> Self {
        Self { code: 1, message: message.to_string() }
    }

    fn report(self) -> ExitCode {
        eprintln!("lightos: {}", self.message);
        ExitCode::from(self.code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn everything_after_the_command_is_the_commands() {
        let cli = Cli::parse_from([
            "lightos",
            "run",
            "--softgpu",
            "--",
            "python",
            "-c",
            "print(1)",
            "--report",
            "x",
        ]);
        let Command::Run(args) = cli.command else { panic!("{cli:?}") };
        assert_eq!(args.command, ["python", "-c", "print(1)", "--report", "x"]);
        assert!(args.softgpu && args.report.is_none());
    }
}
