//! A tenant's report as JSON, the same in `lightos status --json` and `lightos run --report`.

use std::collections::BTreeMap;

use lightos_protocol::control::{ExecutorExit, TenantReport};
use serde_json::{Value, json};

/// Calls and reasons are objects by name; functions and reasons that did not occur are absent.
pub(super) fn tenant(tenant: &TenantReport) -> Value {
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
        "mode": tenant.mode,
        "duty_percent": f64::from(tenant.duty_permille) / 10.0,
        "held_seconds": tenant.traffic.held_ns as f64 / 1e9,
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
