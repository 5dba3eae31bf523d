//! The handshake: who gets a session, who is turned away and with which words.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use lightos_protocol::codec;
use lightos_protocol::control::{
    Admin, AdminReply, Hello, HelloReply, Opening, Preamble, Purpose, RefusalReason,
};
use lightos_protocol::socket::Channel;
use lightos_tests::raw::{Parts, RawClient, greet};
use lightos_tests::{Sidecar, is_running};

const SECOND: Duration = Duration::from_secs(1);

fn refusal(reply: HelloReply) -> (RefusalReason, String) {
    match reply {
        HelloReply::Refused { reason, message } => (reason, message),
        HelloReply::Welcome(welcome) => panic!("welcomed: {welcome:?}"),
    }
}

#[test]
fn a_session_begins_and_ends_with_its_program() {
    let sidecar = Sidecar::start();
    let client = RawClient::connect(&sidecar.socket()).unwrap();
    assert!(client.is_served());
    assert!(!client.welcome.device.name.is_empty());
    assert!(client.welcome.device.total_memory_bytes > 0);

    let status = sidecar.status();
    assert_eq!(status["tenants"][0]["program"], "raw");
    assert_eq!(status["tenants"][0]["state"], "running");
    let executors = sidecar.executors();
    assert_eq!(executors.len(), 1);
    drop(client);
    assert!(lightos_tests::wait_until(SECOND, || !is_running(executors[0])), "{}", sidecar.log());
    assert!(lightos_tests::wait_until(SECOND, || sidecar.status()["tenants"] == serde_json::json!([])));
}

#[test]
fn another_build_is_told_which_side_to_update() {
    let sidecar = Sidecar::start();
    let mut opening = Opening::new(Purpose::Client(Hello::default()));
    opening.preamble = Preamble { protocol_hash: 1, version: (99, 0), ..Preamble::OURS };
    let channel = Channel::connect(&sidecar.socket()).unwrap();
    let parts = Parts::new().unwrap();
    channel.send(&opening, &parts.fds()).unwrap();
    let (reason, message) = refusal(channel.recv(Some(5 * SECOND)).unwrap().0);
    assert!(matches!(reason, RefusalReason::ProtocolMismatch { .. }), "{reason:?}");
    assert!(message.contains("update the sidecar"), "{message}");
    assert!(RawClient::connect(&sidecar.socket()).unwrap().is_served());
}

#[test]
fn strangers_are_hung_up_on() {
    let sidecar = Sidecar::start();
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 64], &[20, 0, 0, 0], &[]] {
        let mut stream = UnixStream::connect(sidecar.socket()).unwrap();
        stream.write_all(bytes).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        stream.set_read_timeout(Some(8 * SECOND)).unwrap();
        assert_eq!(stream.read(&mut [0; 64]).unwrap_or(0), 0, "{bytes:?}");
    }
    assert!(RawClient::connect(&sidecar.socket()).unwrap().is_served());
}

#[test]
fn descriptors_that_break_the_rules_are_refused() {
    let sidecar = Sidecar::start();
    let parts = Parts::new().unwrap();
    let fds = parts.fds();
    let file = tempfile::tempfile().unwrap();
    file.set_len(1 << 20).unwrap();
    let unsealed = [file.as_fd(), fds[1], fds[2], fds[3]];
    let no_ring = [fds[0], file.as_fd(), fds[2], fds[3]];
    for (case, fds) in
        [("none", &[][..]), ("three", &fds[..3]), ("unsealed pages", &unsealed), ("a file as ring", &no_ring)]
    {
        let (_, reply) = greet(&sidecar.socket(), fds);
        let (reason, message) = refusal(reply);
        assert!(
            matches!(reason, RefusalReason::BadHello | RefusalReason::ExecutorFailed),
            "{case}: {reason:?} {message}"
        );
        assert!(!message.is_empty());
    }
    assert!(RawClient::connect(&sidecar.socket()).unwrap().is_served());
}

#[test]
fn a_device_that_the_sidecar_does_not_have_is_refused_by_name() {
    let sidecar = Sidecar::start();
    let channel = Channel::connect(&sidecar.socket()).unwrap();
    let hello = Hello { device_uuid: [7; 16], ..Hello::default() };
    let parts = Parts::new().unwrap();
    channel.send(&Opening::new(Purpose::Client(hello)), &parts.fds()).unwrap();
    let (reason, message) = refusal(channel.recv(Some(10 * SECOND)).unwrap().0);
    assert_eq!(reason, RefusalReason::UnknownDevice);
    assert!(message.contains("device"), "{message}");
}

#[test]
fn one_program_too_many_is_refused_until_another_ends() {
    let sidecar = Sidecar::with_config("max_tenants: 1\n");
    let first = RawClient::connect(&sidecar.socket()).unwrap();
    let (reason, message) = RawClient::connect(&sidecar.socket()).unwrap_err();
    assert_eq!(reason, RefusalReason::TooManyTenants);
    assert!(message.contains("max_tenants"), "{message}");
    drop(first);
    let again = || RawClient::connect(&sidecar.socket()).is_ok_and(|client| client.is_served());
    assert!(lightos_tests::wait_until(2 * SECOND, again));
}

#[test]
fn an_administrator_can_ask_for_one_tenant_and_for_the_end() {
    let mut sidecar = Sidecar::start();
    let client = RawClient::connect(&sidecar.socket()).unwrap();
    let ask = |question| -> AdminReply {
        let channel = Channel::connect(&sidecar.socket()).unwrap();
        channel.send(&Opening::new(Purpose::Admin(question)), &[]).unwrap();
        channel.recv(Some(5 * SECOND)).unwrap().0
    };
    let AdminReply::Report(reports) = ask(Admin::Report { tenant_id: Some(client.welcome.tenant_id) }) else {
        panic!("no report")
    };
    assert_eq!((reports.len(), reports[0].pid), (1, std::process::id()));
    let AdminReply::Failed(message) = ask(Admin::Report { tenant_id: Some(4711) }) else {
        panic!("a report")
    };
    assert!(message.contains("4711"), "{message}");
    assert_eq!(ask(Admin::Shutdown), AdminReply::ShuttingDown);
    assert_eq!(sidecar.wait(5 * SECOND), Some(0));
    assert!(client.hangs_up(SECOND));
}

#[test]
fn messages_are_decoded_with_limits() {
    // A hello that claims a list of 2^60 names: refused by the decoder before anything is allocated.
    let sidecar = Sidecar::start();
    let mut bytes = codec::encode(&Preamble::OURS).unwrap();
    bytes.extend_from_slice(&[0; 12]);
    bytes.extend_from_slice(&(1u64 << 60).to_le_bytes());
    let mut stream = UnixStream::connect(sidecar.socket()).unwrap();
    stream.write_all(&(bytes.len() as u32).to_le_bytes()).unwrap();
    stream.write_all(&bytes).unwrap();
    stream.set_read_timeout(Some(8 * SECOND)).unwrap();
    assert_eq!(stream.read(&mut [0; 64]).unwrap_or(0), 0);
    assert!(RawClient::connect(&sidecar.socket()).unwrap().is_served());
}

#[test]
fn a_programs_name_is_its_own() {
    let sidecar = Sidecar::start();
    for process_name in
        ["-bash", "--help", "", "a b", "\u{1b}[31m\n", "\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}"]
    {
        let channel = Channel::connect(&sidecar.socket()).unwrap();
        let hello = Hello { process_name: process_name.into(), ..Hello::default() };
        let parts = Parts::new().unwrap();
        channel.send(&Opening::new(Purpose::Client(hello)), &parts.fds()).unwrap();
        let reply = channel.recv::<HelloReply>(Some(10 * SECOND)).unwrap().0;
        assert!(matches!(reply, HelloReply::Welcome(_)), "{process_name:?}: {reply:?}");
    }
}

#[test]
fn the_programs_output_is_the_executors() {
    // Device printf is written by the driver inside the executor, and has to come out where the program's own output does.
    let sidecar = Sidecar::start();
    let mut parts = Parts::new().unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    parts.output = file.reopen().unwrap().into();
    let (_channel, reply) = greet(&sidecar.socket(), &parts.fds());
    assert!(matches!(reply, HelloReply::Welcome(_)), "{reply:?}");
    let executor = sidecar.executors()[0];
    for stream in [1, 2] {
        let target = std::fs::read_link(format!("/proc/{executor}/fd/{stream}")).unwrap();
        assert_eq!(target, file.path());
    }
    assert_eq!(
        std::fs::read_to_string(file.path()).unwrap(),
        "",
        "the executor writes nothing of its own there"
    );
    let command_line = std::fs::read_to_string(format!("/proc/{executor}/cmdline")).unwrap();
    assert!(command_line.contains("--program=raw"), "{command_line:?}");
    assert!(std::fs::read_to_string(format!("/proc/{executor}/comm")).unwrap().starts_with("lightos-x:raw"));
}

#[test]
fn an_executor_has_the_programs_driver_settings_and_addresses_of_its_own() {
    let sidecar = Sidecar::start();
    let channel = Channel::connect(&sidecar.socket()).unwrap();
    let set = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let environment = vec![set("CUDA_MODULE_LOADING", "EAGER"), set("LD_PRELOAD", "/nonexistent.so")];
    let hello = Hello { environment, ..Hello::default() };
    let parts = Parts::new().unwrap();
    channel.send(&Opening::new(Purpose::Client(hello)), &parts.fds()).unwrap();
    let reply = channel.recv::<HelloReply>(Some(10 * SECOND)).unwrap().0;
    assert!(matches!(reply, HelloReply::Welcome(_)), "{reply:?}");
    let executor = sidecar.executors()[0];
    let read = |what| std::fs::read_to_string(format!("/proc/{executor}/{what}")).unwrap();
    let variables = read("environ");
    let variables: Vec<&str> = variables.split('\0').collect();
    assert!(variables.contains(&"CUDA_MODULE_LOADING=EAGER"), "{variables:?}");
    assert!(!variables.iter().any(|variable| variable.starts_with("LD_PRELOAD")), "{variables:?}");
    // Programs have their libraries at the top of the address space.
    let limit = read("limits");
    let unlimited =
        limit.lines().any(|line| line.starts_with("Max stack size") && line.contains("unlimited"));
    let maps = read("maps");
    let library = maps.lines().find(|line| line.contains("libcuda")).expect("the driver is loaded");
    let start = u64::from_str_radix(library.split('-').next().unwrap(), 16).unwrap();
    assert!(!unlimited || start < 0x7000_0000_0000, "{library}");
}
