//! What the daemon and its executors cost while no program calls anything.
//!
//! By hand: `ps -o rss,time -p $(pgrep -x lightos)`.

use std::time::Duration;

use lightos_tests::Sidecar;
use lightos_tests::raw::RawClient;

const TENANTS: usize = 8;
const WINDOW: Duration = Duration::from_secs(3);
const MAX_RSS_KIB: u64 = 30 << 10;
/// One percent of a core.
const MAX_LOAD: f64 = 0.01;

/// Nanoseconds that all threads of a process have run, from schedstat(5).
fn run_ns(pid: u32) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let run = |task: std::fs::DirEntry| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    };
    tasks.filter_map(run).sum()
}

fn rss_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn eight_idle_programs_cost_next_to_nothing() {
    let sidecar = Sidecar::start();
    let clients: Vec<_> = (0..TENANTS).map(|_| RawClient::connect(&sidecar.socket()).unwrap()).collect();
    assert!(clients.iter().all(RawClient::is_served));
    let mut pids = sidecar.executors();
    assert_eq!(pids.len(), TENANTS);
    pids.insert(0, sidecar.pid());
    // Executors look at the device less and less often while nothing happens.
    std::thread::sleep(Duration::from_secs(1));
    let before: Vec<u64> = pids.iter().map(|&pid| run_ns(pid)).collect();
    std::thread::sleep(WINDOW);
    let load = |(&pid, &before): (&u32, &u64)| {
        (run_ns(pid).saturating_sub(before)) as f64 / WINDOW.as_nanos() as f64
    };
    let loads: Vec<f64> = pids.iter().zip(&before).map(load).collect();
    let rss_kib = rss_kib(sidecar.pid());
    println!("daemon: {rss_kib} KiB, loads of the daemon and {TENANTS} executors: {loads:.5?}");
    assert!(before[0] > 0, "the kernel counts no run time");
    assert!(rss_kib < MAX_RSS_KIB, "the daemon holds {rss_kib} KiB");
    assert!(loads.iter().all(|&load| load < MAX_LOAD), "{loads:?}");
}
