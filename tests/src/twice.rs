//! A test body that runs twice in processes of its own: natively and under the preload library. Both must tell the same story.
//!
//! The test binary starts itself with the name of the test; the child finds [`BODY`] set, runs the body and prints what it notes.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::{command, native};

/// Set in the child to the name of the test whose body it runs.
const BODY: &str = "LIGHTOS_TEST_BODY";
const START: &str = "<<<notes";
const END: &str = "notes>>>";

/// Runs `body` natively and under `lightos run` and compares what it returns, line by line. `test` is the full name of the calling test.
/// Returns the tenant's report of the second run.
///
/// # Panics
/// When a run fails, the stories differ, or the second run did not go through a sidecar.
pub fn twice(test: &str, body: impl FnOnce() -> Vec<String>) -> Value {
    twice_with(test, &[], body)
}

/// As [`twice`], with these environment variables set in both runs.
pub fn twice_with(test: &str, variables: &[(&str, &str)], body: impl FnOnce() -> Vec<String>) -> Value {
    if std::env::var(BODY).is_ok_and(|name| name == test) {
        println!("\n{START}\n{}\n{END}", body().join("\n"));
        std::process::exit(0);
    }
    let own = std::env::current_exe().expect("a test has a path");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let report = folder.path().join("report.json");
    let program = |mut program: Command| {
        program.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(BODY, test);
        program.envs(variables.iter().copied());
        // A device of its own: what other tests allocate at the same time must not show.
        program.env("SOFTGPU_STATE", folder.path().join("device"));
        program
    };
    let expected = story(program(native(Command::new(&own))));
    let mut run = command(["run", "--softgpu", "--report"]);
    run.arg(&report).arg("--").arg(&own);
    let found = story(program(run));
    let tenant = tenant(&report);
    for (line, (expected, found)) in expected.iter().zip(&found).enumerate() {
        assert_eq!(found, expected, "note {line} of {test}, native on the right\n{tenant:#}");
    }
    assert_eq!(found.len(), expected.len(), "{test}: one run is longer");
    tenant
}

fn tenant(report: &Path) -> Value {
    let text = std::fs::read_to_string(report).expect("the run leaves a report");
    let report: Value = serde_json::from_str(&text).expect("the report is JSON");
    let tenant = report["tenants"][0].clone();
    assert!(tenant.is_object(), "the run did not go through the sidecar: {report:#}");
    tenant
}

fn story(mut program: Command) -> Vec<String> {
    let output = program.output().expect("the program starts");
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program:?}: {}\n{text}\n{errors}", output.status);
    let notes = text.split_once(START).and_then(|(_, rest)| rest.split_once(END));
    let (notes, _) = notes.unwrap_or_else(|| panic!("no notes in\n{text}\n{errors}"));
    notes.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}
