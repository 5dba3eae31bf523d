//! The `lightos` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    lightos_sidecar::cli::main()
}
