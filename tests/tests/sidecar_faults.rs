//! What one tenant's end, by its own fault or not, does to it and to nobody else.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lightos_protocol::record::{Op, RecordHeader};
use lightos_protocol::request::{Reply, Request};
use lightos_tests::raw::RawClient;
use lightos_tests::{Sidecar, is_running, wait_until};

const SECOND: Duration = Duration::from_secs(1);

/// Does `harm` as one tenant and checks that it is disconnected for `reason`, and that another tenant and the daemon go on.
fn is_disconnected(reason: &str, harm: impl FnOnce(&RawClient)) {
    let sidecar = Sidecar::start();
    let bystander = RawClient::connect(&sidecar.socket()).unwrap();
    let client = RawClient::connect(&sidecar.socket()).unwrap();
    harm(&client);
    assert!(client.hangs_up(SECOND), "{reason}: the tenant stays connected\n{}", sidecar.log());
    assert_ne!(client.pages.status().sticky_error(), 0, "{reason}");
    assert!(client.pages.status().error_text().contains(reason), "{:?}", client.pages.status().error_text());
    assert!(bystander.is_served(), "{reason}: the other tenant is disturbed");
    assert!(RawClient::connect(&sidecar.socket()).unwrap().is_served(), "{reason}: the daemon is disturbed");
    assert!(sidecar.log().contains(reason), "{reason} is not logged:\n{}", sidecar.log());
}

fn header(len: u32, op: Op, reserved: u32) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&len.to_ne_bytes());
    bytes[4..6].copy_from_slice(&u16::from(op).to_ne_bytes());
    bytes[12..].copy_from_slice(&reserved.to_ne_bytes());
    bytes
}

#[test]
fn a_record_with_an_unknown_op() {
    is_disconnected("unknown op 999", |client| client.producer.push(999, 0, &[&[1, 2, 3]]).unwrap());
}

#[test]
fn a_record_whose_payload_has_the_wrong_size() {
    is_disconnected("Memcpy", |client| client.producer.push(Op::Memcpy as u16, 0, &[&[0; 8]]).unwrap());
}

#[test]
fn a_launch_that_claims_more_than_it_carries() {
    is_disconnected("param_bytes", |client| {
        let mut payload = [0xff; 56];
        payload[48..52].copy_from_slice(&1u32.to_ne_bytes());
        client.producer.push(Op::Launch as u16, 0, &[&payload]).unwrap();
    });
}

#[test]
fn a_request_that_is_none() {
    is_disconnected("request", |client| client.producer.push(Op::Cold as u16, 0, &[&[0xff; 32]]).unwrap());
}

#[test]
fn a_reply_slot_that_does_not_exist() {
    is_disconnected("reply slot 4711", |client| {
        let header = RecordHeader { op: Op::Cold as u16, reply: 4711, ..RecordHeader::default() };
        let ping = lightos_protocol::codec::encode(&Request::Ping).unwrap();
        client.producer.push_record(header, &ping, &[]).unwrap();
    });
}

#[test]
fn a_record_longer_than_a_record_may_be() {
    is_disconnected("claims 1073741824 bytes", |client| {
        client.forge(&header(1 << 30, Op::Cold, 0), 1 << 30, 1)
    });
}

#[test]
fn a_record_shorter_than_its_header() {
    is_disconnected("claims 3 bytes", |client| client.forge(&header(3, Op::Cold, 0), 64, 1));
}

#[test]
fn a_record_that_ends_behind_the_tail() {
    is_disconnected("ring tail", |client| client.forge(&header(4096, Op::Cold, 0), 64, 1));
}

#[test]
fn a_reserved_field_in_use() {
    is_disconnected("reserved field", |client| client.forge(&header(64, Op::Cold, 7), 64, 1));
}

#[test]
fn a_stamp_from_the_future() {
    is_disconnected("stamp", |client| client.forge(&header(64, Op::Cold, 0), 64, 3));
}

#[test]
fn a_head_that_the_program_moved() {
    is_disconnected("ring head", |client| {
        client.forge_head(1 << 40);
        client.forge(&header(64, Op::Cold, 0), 64, 1);
    });
}

#[test]
fn a_killed_executor_takes_its_own_tenant_alone() {
    let sidecar = Sidecar::start();
    let victim = RawClient::connect(&sidecar.socket()).unwrap();
    let before = sidecar.executors();
    let bystander = RawClient::connect(&sidecar.socket()).unwrap();
    // SAFETY: the executor is a child of the daemon, which runs; nothing but a signal is sent.
    unsafe { libc::kill(before[0] as i32, libc::SIGKILL) };
    assert!(victim.hangs_up(SECOND));
    assert_eq!(victim.call(&Request::Ping), None);
    assert!(bystander.is_served());
    assert!(wait_until(SECOND, || sidecar.status()["tenants"].as_array().unwrap().len() == 1));
    assert!(sidecar.log().contains("Signal(9)"), "{}", sidecar.log());
}

#[test]
fn sigterm_ends_executors_and_removes_the_socket() {
    let mut sidecar = Sidecar::start();
    let clients = [0; 3].map(|_| RawClient::connect(&sidecar.socket()).unwrap());
    let executors = sidecar.executors();
    assert_eq!(executors.len(), 3);
    sidecar.signal(libc::SIGTERM);
    assert_eq!(sidecar.wait(3 * SECOND), Some(0), "{}", sidecar.log());
    assert!(clients.iter().all(|client| client.hangs_up(SECOND)));
    assert!(executors.iter().all(|pid| !is_running(*pid)));
    assert!(!sidecar.socket().exists());
}

#[test]
fn no_executor_outlives_a_killed_daemon() {
    let mut sidecar = Sidecar::start();
    let client = RawClient::connect(&sidecar.socket()).unwrap();
    let executors = sidecar.executors();
    sidecar.signal(libc::SIGKILL);
    sidecar.wait(SECOND);
    assert!(client.hangs_up(SECOND));
    assert!(wait_until(SECOND, || executors.iter().all(|pid| !is_running(*pid))));
}

/// Not a test by itself: the program that the next two tests kill. With `LIGHTOS_TEST_FORK` it leaves a child that keeps the socket.
#[test]
#[ignore = "the body of a process that other tests start"]
fn program_that_waits() {
    let Some(socket) = std::env::var_os("LIGHTOS_TEST_SOCKET") else { return };
    let client = RawClient::connect(std::path::Path::new(&socket)).unwrap();
    assert_eq!(client.call(&Request::Ping), Some(Ok(Reply::Done)));
    if std::env::var_os("LIGHTOS_TEST_FORK").is_some() {
        // SAFETY: the child calls async-signal-safe functions only.
        unsafe {
            if libc::fork() == 0 {
                libc::sleep(30);
                libc::_exit(0);
            }
        }
    }
    eprintln!("program waits");
    std::thread::sleep(30 * SECOND);
}

fn start_program(sidecar: &Sidecar, fork: bool) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "program_that_waits", "--ignored", "--nocapture"]);
    command.env("LIGHTOS_TEST_SOCKET", sidecar.socket()).stdout(Stdio::null()).stderr(Stdio::null());
    if fork {
        command.env("LIGHTOS_TEST_FORK", "1");
    }
    let child = command.spawn().unwrap();
    let serves = || sidecar.status()["tenants"][0]["state"] == "running" && !sidecar.executors().is_empty();
    assert!(wait_until(20 * SECOND, serves), "{}", sidecar.log());
    child
}

fn killed_program_loses_its_executor(fork: bool) {
    let sidecar = Sidecar::start();
    let mut child = start_program(&sidecar, fork);
    if fork {
        let forked = || !lightos_tests::children(child.id()).is_empty();
        assert!(wait_until(5 * SECOND, forked));
    }
    let forked = lightos_tests::children(child.id());
    let executors = sidecar.executors();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(wait_until(SECOND, || executors.iter().all(|pid| !is_running(*pid))), "{}", sidecar.log());
    for pid in forked {
        assert!(is_running(pid), "the forked child holds the socket");
        // SAFETY: a grandchild of ours that sleeps; nothing but a signal is sent.
        unsafe { libc::kill(pid as i32, libc::SIGKILL) };
    }
}

#[test]
fn a_killed_program_loses_its_executor_within_a_second() {
    killed_program_loses_its_executor(false);
}

#[test]
fn even_if_a_forked_child_keeps_the_socket() {
    killed_program_loses_its_executor(true);
}

#[test]
fn a_daemon_ends_after_it_has_reaped_an_executor_that_does_not_listen() {
    let mut sidecar = Sidecar::start();
    let _client = RawClient::connect(&sidecar.socket()).unwrap();
    lightos_tests::stop(sidecar.executors()[0]);
    sidecar.signal(libc::SIGTERM);
    assert_eq!(sidecar.wait(8 * SECOND), Some(0), "{}", sidecar.log());
    assert!(sidecar.log().contains("Signal(9)"), "not reaped:\n{}", sidecar.log());
}
