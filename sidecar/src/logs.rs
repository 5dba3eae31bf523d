//! Log set-up. The daemon logs to its stderr; an executor logs to a copy of it, because its own stdout and stderr are
//! those of the program it serves.

use std::fs::File;
use std::sync::Mutex;

use tracing_subscriber::EnvFilter;

/// Whether `filter` can be used, with the reason where it cannot.
pub fn check(filter: &str) -> Result<(), String> {
    EnvFilter::try_new(filter).map(drop).map_err(|error| error.to_string())
}

fn filter(filter: &str) -> EnvFilter {
    EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"))
}

/// Logs of the daemon.
pub fn to_stderr(level: &str) {
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter(level))
        .with_ansi(colours)
        .with_writer(std::io::stderr)
        .try_init();
}

/// Logs of an executor, to the file that the daemon handed over.
pub fn to_file(file: File, level: &str) {
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter(level))
        .with_ansi(false)
        .with_writer(Mutex::new(file))
        .try_init();
}
