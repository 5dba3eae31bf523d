//! Questions and orders of the command line.

use lightos_protocol::control::{Admin, AdminReply, DaemonStatus};
use lightos_protocol::socket::Channel;
use lightos_protocol::verdict::Duty;

use super::Daemon;
use super::peer::Peer;

/// Answers one question; every connection asks one.
pub(super) fn answer(daemon: &Daemon, channel: &Channel, peer: &Peer, may_ask: bool, question: &Admin) {
    let reply = if may_ask {
        reply(daemon, peer, question)
    } else {
        AdminReply::Failed(format!("user {} may not ask this of the sidecar", peer.uid))
    };
    if let Err(error) = channel.send(&reply, &[]) {
        tracing::debug!(pid = peer.pid, %error, "answer not taken");
    }
    if reply == AdminReply::ShuttingDown {
        let _ = daemon.stop.send("asked to");
    }
}

fn reply(daemon: &Daemon, peer: &Peer, question: &Admin) -> AdminReply {
    match question {
        Admin::Status => AdminReply::Status(DaemonStatus {
            pid: std::process::id(),
            uptime_seconds: daemon.started.elapsed().as_secs(),
            build: env!("CARGO_PKG_VERSION").to_owned(),
            devices: daemon.tenants.devices(),
            readings: daemon.telemetry.as_ref().map(|telemetry| telemetry.read()).unwrap_or_default(),
            tenants: daemon.tenants.running(),
        }),
        Admin::Report { tenant_id: None } => AdminReply::Report(daemon.tenants.reports(|_, _| true)),
        Admin::Report { tenant_id: Some(wanted) } => {
            let reports = daemon.tenants.reports(|id, _| id == *wanted);
            if reports.is_empty() {
                AdminReply::Failed(format!("there is no tenant {wanted}, or its report is no longer kept"))
            } else {
                AdminReply::Report(reports)
            }
        }
        Admin::ReportOfDescendants => {
            AdminReply::Report(daemon.tenants.reports(|_, lineage| lineage.contains(&peer.pid)))
        }
        Admin::SetDuty { tenant_id, permille } => {
            let duty = Duty::permille(*permille);
            let applied = daemon.tenants.set_duty(*tenant_id, duty);
            match tenant_id {
                Some(id) if applied.is_empty() => {
                    AdminReply::Failed(format!("no program {id} runs; `lightos status` lists them"))
                }
                _ => {
                    tracing::info!(uid = peer.uid, tenants = ?applied, duty = duty.as_permille(), "duty set");
                    AdminReply::DutySet(applied)
                }
            }
        }
        Admin::Shutdown => AdminReply::ShuttingDown,
    }
}
