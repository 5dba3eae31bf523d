//! The checks that a user can switch on: races in shared memory, reads of memory that nothing has written, and objects
//! that are left over.
//!
//! A [`Checker`] gathers what the interpreter (`exec::watch`) and the driver find, shows each defect once and counts its
//! repetitions (`report`), and knows which bytes of device memory have been written (`written`). The process has one if the
//! environment variable `SOFTGPU_CHECK` asks for it; without it no grid is watched, and the interpreter runs as it always
//! does.
//!
//! Threads: any; one lock for the reports, one for the table of allocations.

mod report;
mod written;

use std::fs::OpenOptions;
use std::io::Write;
use std::sync::{Mutex, OnceLock};

pub use report::{Access, Race, Read};
pub use written::{Region, Written};

use report::Reports;

/// Which checks are on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checks {
    pub race: bool,
    pub init: bool,
    pub leak: bool,
}

impl Checks {
    pub const ALL: Checks = Checks { race: true, init: true, leak: true };

    /// Reads a comma-separated list of `race`, `init`, `leak`, `all` (also `1`); gives the words that are none of these, too.
    pub fn parse(list: &str) -> (Checks, Vec<&str>) {
        let mut checks = Checks::default();
        let mut unknown = Vec::new();
        for word in list.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            match word {
                "race" => checks.race = true,
                "init" => checks.init = true,
                "leak" => checks.leak = true,
                "all" | "1" => checks = Checks::ALL,
                other => unknown.push(other),
            }
        }
        (checks, unknown)
    }
}

/// Where reports go: complete lines, one report a call.
pub type Output = Box<dyn Fn(&str) + Send + Sync>;

/// The checks of one process, and what they have found.
pub struct Checker {
    pub checks: Checks,
    /// Allocations of device memory, and which of their bytes have been written. Memory that is not entered here counts as
    /// written.
    pub memory: Written,
    reports: Reports,
}

impl std::fmt::Debug for Checker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checker").field("checks", &self.checks).finish_non_exhaustive()
    }
}

impl Checker {
    pub fn new(checks: Checks, output: Output) -> Checker {
        Checker { checks, memory: Written::default(), reports: Reports::new(output) }
    }

    /// True if grids must be watched while they run.
    pub fn watches(&self) -> bool {
        self.checks.race || self.checks.init
    }

    /// Reports two accesses that nothing orders.
    pub fn race(&self, race: &Race<'_>) {
        self.reports.race(race);
    }

    /// Reports a read of memory that nothing has written.
    pub fn uninitialised(&self, read: &Read<'_>) {
        self.reports.read(read);
    }

    /// Reports `count` objects that are left over; `what` is one line that describes them.
    pub fn leak(&self, count: u64, what: &str) {
        self.reports.leak(count, what);
    }

    /// Writes one line that is no report of a check.
    pub fn say(&self, line: &str) {
        self.reports.say(line);
    }

    /// The counts of repeated defects and the summary line, for the end of the process.
    pub fn finish(&self) {
        self.reports.finish();
    }
}

/// The process's checker, as `SOFTGPU_CHECK` and `SOFTGPU_CHECK_LOG` ask for it at the first call.
pub fn get() -> Option<&'static Checker> {
    static CHECKER: OnceLock<Option<Checker>> = OnceLock::new();
    CHECKER
        .get_or_init(|| {
            let list = std::env::var_os("SOFTGPU_CHECK")?;
            let list = list.to_string_lossy();
            let (checks, unknown) = Checks::parse(&list);
            if !unknown.is_empty() {
                let words = unknown.join(", ");
                eprintln!("softgpu: SOFTGPU_CHECK: unknown: {words}; known are race, init, leak, all");
            }
            (checks != Checks::default()).then(|| Checker::new(checks, output()))
        })
        .as_ref()
}

/// The file that `SOFTGPU_CHECK_LOG` names, shared with other processes by appending to it; else standard error.
fn output() -> Output {
    let path = std::env::var_os("SOFTGPU_CHECK_LOG").filter(|path| !path.is_empty());
    if let Some(path) = path {
        match OpenOptions::new().append(true).create(true).open(&path) {
            Ok(file) => {
                let file = Mutex::new(file);
                return Box::new(move |text| {
                    let mut file = file.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                    let _ = file.write_all(text.as_bytes());
                });
            }
            Err(error) => eprintln!("softgpu: SOFTGPU_CHECK_LOG: {}: {error}", path.display()),
        }
    }
    Box::new(|text| {
        let _ = std::io::stderr().write_all(text.as_bytes());
    })
}

#[cfg(test)]
mod tests {
    use super::Checks;

    #[test]
    fn lists_are_read_and_unknown_words_named() {
        let race = Checks { race: true, ..Checks::default() };
        assert_eq!(Checks::parse("race"), (race, vec![]));
        assert_eq!(Checks::parse(" leak, init,race"), (Checks::ALL, vec![]));
        assert_eq!(Checks::parse("1"), (Checks::ALL, vec![]));
        assert_eq!(Checks::parse("all"), (Checks::ALL, vec![]));
        assert_eq!(Checks::parse("race,raec,ALL"), (race, vec!["raec", "ALL"]));
        assert_eq!(Checks::parse(""), (Checks::default(), vec![]));
    }
}
