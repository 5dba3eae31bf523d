//! The JSON report: what the command's processes called, one entry for each process that used CUDA.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lightos_protocol::control::{Admin, AdminReply, ExecutorExit, TenantReport, TenantState};
use serde_json::{Value, json};

use super::{RunArgs, RunError, Sidecar};
use crate::cli::client::Client;

/// An executor ends within a second of its program.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(3);

/// The opened file: a path that cannot be written is known before the command starts.
pub(super) struct ReportFile {
    file: File,
    path: PathBuf,
}

impl ReportFile {
    pub(super) fn create(path: &Path) -> Result<Self, RunError> {
        match File::create(path) {
            Ok(file) => Ok(Self { file, path: path.to_owned() }),
            Err(source) => Err(RunError::Report { path: path.to_owned(), source }),
        }
    }

    /// Writes the report; `exit` is none when the command did not start.
    pub(super) fn write(
        mut self,
        args: &RunArgs,
        sidecar: &Sidecar,
        exit: Option<u8>,
        tenants: &[TenantReport],
    ) -> Result<(), RunError> {
        let command: Vec<_> = args.command.iter().map(|part| part.to_string_lossy()).collect();
        let document = json!({
            "schema": 1,
            "command": command,
            "exit_status": exit,
            "softgpu": args.softgpu,
            "sidecar": match sidecar {
                Sidecar::Running(socket) => json!(socket.to_string_lossy()),
                Sidecar::Private(_) => json!("private"),
                Sidecar::None => Value::Null,
            },
            "tenants": tenants.iter().map(tenant).collect::<Vec<_>>(),
        });
        writeln!(self.file, "{document:#}").map_err(|source| RunError::Report { path: self.path, source })
    }
}

/// The reports of the command's processes, after their executors have ended. A sidecar that cannot be asked any more has none.
pub(super) fn collect(socket: &Path, is_private: bool) -> Vec<TenantReport> {
    let question = if is_private { Admin::Report { tenant_id: None } } else { Admin::ReportOfDescendants };
    let deadline = Instant::now() + SETTLE_TIMEOUT;
    loop {
        let answer = Client::connect(Some(socket)).and_then(|client| client.ask(&question));
        let tenants = match answer {
            Ok(AdminReply::Report(tenants)) => tenants,
            Ok(AdminReply::Failed(message)) => {
                eprintln!("lightos: no report: {message}");
                return Vec::new();
            }
            Ok(other) => {
                eprintln!("lightos: no report: unexpected answer {other:?}");
                return Vec::new();
            }
            Err(error) => {
                eprintln!("lightos: no report: {error}");
                return Vec::new();
            }
        };
        let is_settled =
            |tenant: &TenantReport| matches!(tenant.state, TenantState::Finished | TenantState::Failed);
        if tenants.iter().all(is_settled) || Instant::now() > deadline {
            return tenants;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn tenant(tenant: &TenantReport) -> Value {
    let calls: BTreeMap<_, _> = tenant
        .calls
        .iter()
        .map(|call| {
            let outcomes = json!({
                "forwarded": call.forwarded,
                "passed": call.passed,
                "failed": call.failed,
                "refused": call.refused,
            });
            (call.function.as_str(), outcomes)
        })
        .collect();
    let reasons: BTreeMap<_, _> =
        tenant.reasons.iter().map(|(name, count)| (name.as_str(), *count)).collect();
    json!({
        "tenant": tenant.tenant_id,
        "pid": tenant.pid,
        "program": tenant.process_name,
        "class": tenant.tenant_class,
        "state": tenant.state,
        "seconds": tenant.age_seconds,
        // Every launch call; those of graphs are counted on their own as well.
        "launches": tenant.traffic.launches.saturating_add(tenant.traffic.graph_launches),
        "graph_launches": tenant.traffic.graph_launches,
        "records": tenant.traffic.dispatched,
        "bytes": {
            "host_to_device": tenant.traffic.host_to_device_bytes,
            "device_to_host": tenant.traffic.device_to_host_bytes,
            "device_to_device": tenant.traffic.device_to_device_bytes,
        },
        "memory": {
            "current_bytes": tenant.memory.current_bytes,
            "peak_bytes": tenant.memory.peak_bytes,
        },
        "calls": calls,
        "reasons": reasons,
        "sticky_error": tenant.sticky_error,
        "executor_exit": tenant.executor_exit.as_ref().map(exit),
    })
}

fn exit(exit: &ExecutorExit) -> String {
    match exit {
        ExecutorExit::Clean => "clean".into(),
        ExecutorExit::Status(code) => format!("status {code}"),
        ExecutorExit::Signal(number) => format!("signal {number}"),
        ExecutorExit::Violation(reason) => format!("protocol violation: {reason}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lightos_protocol::control::{CallCount, Traffic};

    #[test]
    fn calls_and_reasons_are_found_by_name() {
        let report = TenantReport {
            calls: vec![CallCount { function: "cuLaunchKernel".into(), forwarded: 3, ..Default::default() }],
            reasons: vec![("LocalQuery".into(), 2)],
            traffic: Traffic { launches: 3, graph_launches: 2, ..Default::default() },
            executor_exit: Some(ExecutorExit::Signal(9)),
            ..Default::default()
        };
        let value = tenant(&report);
        assert_eq!(value["calls"]["cuLaunchKernel"]["forwarded"], 3);
        assert_eq!(value["reasons"]["LocalQuery"], 2);
        assert_eq!(value["executor_exit"], "signal 9");
        assert_eq!((&value["launches"], &value["graph_launches"]), (&5.into(), &2.into()));
        assert_eq!(value["bytes"]["host_to_device"], 0);
    }
}
