//! The JSON report: what the command's processes called, one entry for each process that used CUDA.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lightos_protocol::control::{Admin, AdminReply, TenantReport, TenantState};
use serde_json::{Value, json};

use super::{RunArgs, RunError, Sidecar};
use crate::cli::client::Client;
use crate::cli::tenant_json::tenant;
use crate::daemon::is_alive;

/// An executor ends within a second of its program; the driver may need longer to take a full device back.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(10);

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

/// The reports of the command's processes, after the executors of those that have ended have ended as well.
pub(super) fn collect(socket: &Path, is_private: bool) -> Result<Vec<TenantReport>, String> {
    let question = if is_private { Admin::Report { tenant_id: None } } else { Admin::ReportOfDescendants };
    let deadline = Instant::now() + SETTLE_TIMEOUT;
    loop {
        let answer = Client::connect(Some(socket)).and_then(|client| client.ask(&question));
        let tenants = match answer.map_err(|error| error.to_string())? {
            AdminReply::Report(tenants) => tenants,
            AdminReply::Failed(message) => return Err(message),
            other => return Err(format!("unexpected answer {other:?}")),
        };
        if tenants.iter().all(is_settled) || Instant::now() > deadline {
            return Ok(tenants);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether there is nothing to wait for: the executor is gone, or its program goes on without the command that started it.
fn is_settled(tenant: &TenantReport) -> bool {
    matches!(tenant.state, TenantState::Finished | TenantState::Failed) || is_alive(tenant.pid)
}
