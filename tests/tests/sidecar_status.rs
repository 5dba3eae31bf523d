//! `lightos status` of a sidecar that has a device and a program.

use lightos_tests::raw::RawClient;
use lightos_tests::{Sidecar, command};

#[test]
fn devices_are_read_through_nvml() {
    let sidecar = Sidecar::start();
    let client = RawClient::connect(&sidecar.socket()).unwrap();
    let status = sidecar.status();
    let reading = &status["readings"][0];
    assert_eq!(reading["name"], client.welcome.device.name, "{status:#}");
    assert_eq!(status["devices"][0]["name"], client.welcome.device.name, "{status:#}");
    assert!((1..120).contains(&reading["temperature_c"].as_u64().unwrap()), "{reading:#}");
    assert!((1_000..2_000_000).contains(&reading["power_mw"].as_u64().unwrap()), "{reading:#}");
    assert!(reading["memory_total_bytes"].as_u64().unwrap() > 1 << 30, "{reading:#}");
    assert!(reading["utilization_percent"].as_u64().unwrap() <= 100, "{reading:#}");
}

#[test]
fn the_table_names_device_and_program() {
    let sidecar = Sidecar::start();
    let client = RawClient::connect(&sidecar.socket()).unwrap();
    let output = command(["status", "--socket"]).arg(sidecar.socket()).output().unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    for part in ["TENANT", "TEMP", "raw", "running", client.welcome.device.name.as_str()] {
        assert!(table.contains(part), "{part} is missing:\n{table}");
    }
}
