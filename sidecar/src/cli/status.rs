//! `lightos status`.

use std::fmt::Write as _;

use lightos_protocol::control::{
    Admin, AdminReply, DaemonStatus, DeviceReading, Mode, TenantReport, TenantState,
};
use serde_json::json;

use super::client::Client;
use super::{Failure, StatusArgs, tenant_json};

pub(super) fn main(args: StatusArgs) -> Result<(), Failure> {
    let client = Client::connect(args.socket.as_deref()).map_err(Failure::failed)?;
    let status = match client.ask(&Admin::Status).map_err(Failure::failed)? {
        AdminReply::Status(status) => status,
        AdminReply::Failed(message) => return Err(Failure::failed(message)),
        other => return Err(Failure::failed(format!("unexpected answer {other:?}"))),
    };
    if args.json {
        println!("{:#}", json(&status));
    } else {
        print!("{}", table(&status));
    }
    Ok(())
}

fn json(status: &DaemonStatus) -> serde_json::Value {
    let devices = status.devices.iter().map(|device| {
        json!({ "ordinal": device.ordinal, "name": device.name, "memory_total_bytes": device.total_memory_bytes })
    });
    json!({
        "schema": 1,
        "pid": status.pid,
        "version": status.build,
        "uptime_seconds": status.uptime_seconds,
        "devices": devices.collect::<Vec<_>>(),
        "readings": status.readings,
        "tenants": status.tenants.iter().map(tenant_json::tenant).collect::<Vec<_>>(),
    })
}

fn table(status: &DaemonStatus) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "lightos {} · pid {} · up {}",
        status.build,
        status.pid,
        duration(status.uptime_seconds as f64)
    );
    text.push('\n');
    if status.readings.is_empty() {
        for device in &status.devices {
            let _ = writeln!(
                text,
                "GPU {}: {}, {}",
                device.ordinal,
                device.name,
                bytes(device.total_memory_bytes)
            );
        }
        text.push_str("No device readings (no NVML).\n");
    } else {
        let rows = status.readings.iter().map(device_row);
        let head = ["GPU", "NAME", "TEMP", "POWER", "UTIL", "MEMORY"];
        columns(&mut text, std::iter::once(head.map(str::to_owned)).chain(rows).collect());
    }
    text.push('\n');
    if status.tenants.is_empty() {
        text.push_str("No programs.\n");
    } else {
        let head = [
            "TENANT", "PID", "PROGRAM", "MODE", "DUTY", "STATE", "AGE", "LAUNCHES", "COPIED", "MEMORY",
            "PEAK",
        ];
        let rows = status.tenants.iter().map(tenant_row);
        columns(&mut text, std::iter::once(head.map(str::to_owned)).chain(rows).collect());
    }
    text
}

fn device_row(reading: &DeviceReading) -> [String; 6] {
    let dash = || "-".to_owned();
    let power = match (reading.power_mw, reading.power_limit_mw) {
        (Some(now), Some(limit)) => format!("{} / {} W", (now + 500) / 1000, (limit + 500) / 1000),
        (Some(now), None) => format!("{} W", (now + 500) / 1000),
        (None, _) => dash(),
    };
    let memory = match (reading.memory_used_bytes, reading.memory_total_bytes) {
        (Some(used), Some(total)) => format!("{} / {}", bytes(used), bytes(total)),
        _ => dash(),
    };
    [
        reading.index.to_string(),
        reading.name.clone(),
        reading.temperature_c.map_or_else(dash, |value| format!("{value} C")),
        power,
        reading.utilization_percent.map_or_else(dash, |value| format!("{value} %")),
        memory,
    ]
}

fn tenant_row(tenant: &TenantReport) -> [String; 11] {
    let traffic = &tenant.traffic;
    let copied = traffic
        .host_to_device_bytes
        .saturating_add(traffic.device_to_host_bytes)
        .saturating_add(traffic.device_to_device_bytes);
    let state = match tenant.state {
        TenantState::Running if tenant.sticky_error != 0 => format!("error {}", tenant.sticky_error),
        TenantState::Starting => "starting".into(),
        TenantState::Running => "running".into(),
        TenantState::Finished => "finished".into(),
        TenantState::Failed => "failed".into(),
    };
    [
        tenant.tenant_id.to_string(),
        tenant.pid.to_string(),
        tenant.process_name.clone(),
        match tenant.mode {
            Mode::Sidecar => "sidecar".into(),
            Mode::Local => "local".into(),
        },
        format!("{} %", f64::from(tenant.duty_permille) / 10.0),
        state,
        duration(tenant.age_seconds),
        traffic.launches.saturating_add(traffic.graph_launches).to_string(),
        bytes(copied),
        bytes(tenant.memory.current_bytes),
        bytes(tenant.memory.peak_bytes),
    ]
}

/// Left-aligned columns as wide as their widest cell, two spaces apart.
fn columns<const N: usize>(text: &mut String, rows: Vec<[String; N]>) {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            let _ = write!(line, "{cell:width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
}

fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.0) as u64;
    match whole {
        0..60 => format!("{whole}s"),
        60..3600 => format!("{}m{:02}s", whole / 60, whole % 60),
        3600..86_400 => format!("{}h{:02}m", whole / 3600, whole / 60 % 60),
        _ => format!("{}d{:02}h", whole / 86_400, whole / 3600 % 24),
    }
}

/// Binary units with one decimal, as nvidia-smi and free give them.
fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(150_109_880_320), "139.8 GiB");
        assert_eq!(duration(59.9), "59s");
        assert_eq!(duration(3601.0), "1h00m");
        assert_eq!(duration(90_000.0), "1d01h");
    }

    #[test]
    fn absent_readings_are_dashes_and_columns_align() {
        let status = DaemonStatus {
            readings: vec![DeviceReading {
                name: "NVIDIA H200".into(),
                power_mw: Some(696_400),
                ..Default::default()
            }],
            tenants: vec![TenantReport { process_name: "python3".into(), pid: 4711, ..Default::default() }],
            ..Default::default()
        };
        let text = table(&status);
        assert!(text.contains("NVIDIA H200  -     696 W"), "{text}");
        let lines: Vec<_> =
            text.lines().filter(|line| line.contains("PROGRAM") || line.contains("python3")).collect();
        assert_eq!(lines[0].find("PROGRAM"), lines[1].find("python3"), "{text}");
    }

    #[test]
    fn json_carries_a_schema_number_beside_the_fields() {
        let tenants = vec![TenantReport { process_name: "python3".into(), ..Default::default() }];
        let value = json(&DaemonStatus { pid: 7, tenants, ..Default::default() });
        assert_eq!((value["schema"].as_u64(), value["pid"].as_u64()), (Some(1), Some(7)));
        assert_eq!(value["tenants"][0]["program"], "python3");
    }
}
