//! The daemon's configuration: one YAML file, checked before anything starts.
//!
//! Precedence: command line, then `LIGHTOS_SOCKET` / `LIGHTOS_LOG`, then the file, then the defaults below. A file named
//! on the command line must exist; the default file need not.

use std::path::{Path, PathBuf};

use serde::Deserialize;

/// Read when no `--config` is given and the file exists.
pub const DEFAULT_FILE: &str = "/etc/lightos/sidecar.yaml";

const MAX_TENANTS: std::ops::RangeInclusive<u32> = 1..=1024;
const MAX_SPIN_US: u32 = 10_000;
const MAX_FINISHED: u32 = 100_000;
const LOG_LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Every key of the file. All are optional.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Path of the listening socket; see [`crate::layout::socket_candidates`] for the default.
    pub socket: Option<PathBuf>,
    /// A further group (name or number) whose members may connect; otherwise only the daemon's own user and root.
    pub group: Option<String>,
    /// CUDA ordinal of the device that executors open.
    pub device: u32,
    /// Programs served at the same time, 1 to 1024; one more is refused and runs natively.
    pub max_tenants: u32,
    /// Microseconds an executor polls an empty ring after the last call before it sleeps, 0 to 10000. Polling costs a
    /// core while a program is between calls; sleeping costs a wake-up at the next call. 2000 with eight cores or more,
    /// else 50.
    pub spin_us: u32,
    /// Share of time in which a program may launch, in percent, 0 to 100, until `lightos throttle` says otherwise: 100 is unhindered,
    /// 0 starts programs paused.
    pub duty_percent: u32,
    /// Reports of ended programs kept for `lightos status` and `lightos run --report`, 0 to 100000.
    pub finished_reports: u32,
    /// off, error, warn, info, debug, trace, or a filter like `lightos_sidecar::executor=debug`.
    pub log: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            socket: None,
            group: None,
            device: 0,
            max_tenants: 64,
            spin_us: default_spin_us(),
            duty_percent: 100,
            finished_reports: 256,
            log: "info".to_owned(),
        }
    }
}

/// Long enough to bridge the gaps between the launches of an eager model where the executor has a core to itself, short
/// where it would take it from the program.
fn default_spin_us() -> u32 {
    const MANY_CORES: usize = 8;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if cores >= MANY_CORES { 2000 } else { 50 }
}

/// Why a configuration is not usable. Each message names the file, and the key where there is one.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{}: {source}", path.display())]
    Parse { path: PathBuf, source: yaml_serde::Error },
    #[error("{}: {key}: {found} is not allowed; allowed: {allowed}", path.display())]
    Value { path: PathBuf, key: &'static str, found: String, allowed: String },
}

impl Config {
    /// Reads `explicit`, or [`DEFAULT_FILE`] where it exists, or gives the defaults.
    pub fn load(explicit: Option<&Path>) -> Result<Self, ConfigError> {
        let path = explicit.unwrap_or(Path::new(DEFAULT_FILE));
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&text, path),
            Err(error) if explicit.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
                Ok(Self::default())
            }
            Err(source) => Err(ConfigError::Read { path: path.to_owned(), source }),
        }
    }

    /// Parses and checks `text`, which was read from `path`.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        // A file without any key (empty, or comments only) is the null document, which is not a mapping.
        let config: Option<Self> = yaml_serde::from_str(text)
            .map_err(|source| ConfigError::Parse { path: path.to_owned(), source })?;
        let config = config.unwrap_or_default();
        config.check(path)?;
        Ok(config)
    }

    fn check(&self, path: &Path) -> Result<(), ConfigError> {
        let value = |key, found: String, allowed: String| {
            Err(ConfigError::Value { path: path.to_owned(), key, found, allowed })
        };
        if !MAX_TENANTS.contains(&self.max_tenants) {
            return value("max_tenants", self.max_tenants.to_string(), "1 to 1024".into());
        }
        if self.spin_us > MAX_SPIN_US {
            return value("spin_us", self.spin_us.to_string(), format!("0 to {MAX_SPIN_US} (microseconds)"));
        }
        if self.duty_percent > 100 {
            return value("duty_percent", self.duty_percent.to_string(), "0 to 100".into());
        }
        if self.finished_reports > MAX_FINISHED {
            return value(
                "finished_reports",
                self.finished_reports.to_string(),
                format!("0 to {MAX_FINISHED}"),
            );
        }
        if let Some(socket) = &self.socket
            && !socket.is_absolute()
        {
            return value("socket", socket.display().to_string(), "an absolute path".into());
        }
        if !LOG_LEVELS.contains(&self.log.as_str()) && !self.log.contains('=') {
            let allowed = format!("{}, or a filter such as lightos_sidecar=debug", LOG_LEVELS.join(", "));
            return value("log", self.log.clone(), allowed);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, Path::new("/etc/lightos/sidecar.yaml")).map_err(|error| error.to_string())
    }

    #[test]
    fn empty_files_are_the_defaults() {
        for text in ["", "# nothing\n", "{}"] {
            assert_eq!(parse(text).unwrap(), Config::default(), "{text:?}");
        }
    }

    #[test]
    fn keys_override_their_default_alone() {
        let config = parse("max_tenants: 3\nsocket: /tmp/x.sock\n").unwrap();
        assert_eq!(config.max_tenants, 3);
        assert_eq!(config.socket.as_deref(), Some(Path::new("/tmp/x.sock")));
        assert_eq!(config.spin_us, Config::default().spin_us);
    }

    #[test]
    fn an_unknown_key_is_named_with_file_and_alternatives() {
        let message = parse("max_tenant: 3\n").unwrap_err();
        for part in ["/etc/lightos/sidecar.yaml", "max_tenant", "max_tenants", "spin_us"] {
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn a_wrong_type_is_named_with_file_and_key() {
        let message = parse("device: first\n").unwrap_err();
        for part in ["/etc/lightos/sidecar.yaml", "device", "u32"] {
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn values_out_of_range_say_what_is_allowed() {
        for (text, key, allowed) in [
            ("max_tenants: 0", "max_tenants", "1 to 1024"),
            ("max_tenants: 1025", "max_tenants", "1 to 1024"),
            ("spin_us: 10001", "spin_us", "0 to 10000"),
            ("duty_percent: 101", "duty_percent", "0 to 100"),
            ("finished_reports: 100001", "finished_reports", "0 to 100000"),
            ("socket: run/x.sock", "socket", "absolute"),
            ("log: loud", "log", "debug"),
        ] {
            let message = parse(text).unwrap_err();
            assert!(message.contains(key) && message.contains(allowed), "{text}: {message}");
        }
    }

    #[test]
    fn a_missing_file_is_an_error_only_when_named() {
        let path = Path::new("/nonexistent/lightos.yaml");
        let message = Config::load(Some(path)).unwrap_err().to_string();
        assert!(message.contains("/nonexistent/lightos.yaml"), "{message}");
    }
}
