//! What a user meets before any program runs: configuration, double start, permissions, messages.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const LIGHTOS: &str = env!("CARGO_BIN_EXE_lightos");

fn lightos(arguments: &[&str]) -> Command {
    let mut command = Command::new(LIGHTOS);
    for variable in ["LIGHTOS_SOCKET", "LIGHTOS_LOG", "LIGHTOS_CONFIG", "LD_PRELOAD"] {
        command.env_remove(variable);
    }
    command.args(arguments).stdin(Stdio::null());
    command
}

fn output(arguments: &[&str]) -> (Output, String) {
    let output = lightos(arguments).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    (output, stderr)
}

/// A daemon without any device; ends with this value.
struct Daemon(Child);

impl Daemon {
    fn start(socket: &Path) -> Self {
        let child =
            lightos(&["sidecar", "--log", "warn", "--config", "/dev/null", "--socket"]).arg(socket).spawn();
        let daemon = Self(child.unwrap());
        let deadline = Instant::now() + Duration::from_secs(10);
        while std::os::unix::net::UnixStream::connect(socket).is_err() {
            assert!(Instant::now() < deadline, "the daemon does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
        daemon
    }

    fn signal(&self, number: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, number).unwrap();
    }

    fn wait(&mut self) -> Option<i32> {
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        None
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_bad_configuration_is_a_usage_error_with_file_and_key() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sidecar.yaml");
    for (text, expected) in [
        ("max_tenant: 3\n", &["max_tenant", "max_tenants"][..]),
        ("max_tenants: 0\n", &["max_tenants", "1 to 1024"]),
        ("device: [1]\n", &["device"]),
        ("log: loud\n", &["log", "trace"]),
        ("socket: [\n", &["socket", "line 1"]),
    ] {
        std::fs::write(&file, text).unwrap();
        let (output, stderr) = output(&["sidecar", "--config", file.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(2), "{text}: {stderr}");
        assert!(stderr.contains(file.to_str().unwrap()), "{text}: {stderr}");
        for part in expected {
            assert!(stderr.contains(part), "{text}: {part} is missing in: {stderr}");
        }
    }
}

#[test]
fn a_named_configuration_must_exist() {
    let (output, stderr) = output(&["sidecar", "--config", "/nonexistent/sidecar.yaml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr.contains("/nonexistent/sidecar.yaml"), "{stderr}");
}

#[test]
fn an_unknown_group_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sidecar.yaml");
    std::fs::write(&file, "group: no-such-group\n").unwrap();
    let socket = folder.path().join("x.sock");
    let (output, stderr) =
        output(&["sidecar", "--config", file.to_str().unwrap(), "--socket", socket.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr.contains("no-such-group"), "{stderr}");
}

#[test]
fn the_example_configuration_holds_the_defaults() {
    use lightos_sidecar::config::Config;
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/sidecar.yaml"));
    let example = Config::load(Some(path)).unwrap();
    let socket = Some("/run/lightos/lightos.sock".into());
    assert_eq!(example, Config { socket, ..Config::default() });
}

#[test]
fn one_daemon_for_each_socket_and_a_clean_end() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("x.sock");
    let mut daemon = Daemon::start(&socket);
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o660);

    let (second, stderr) =
        output(&["sidecar", "--config", "/dev/null", "--socket", socket.to_str().unwrap()]);
    assert_eq!(second.status.code(), Some(1));
    assert!(stderr.contains("already running") && stderr.contains(&daemon.0.id().to_string()), "{stderr}");
    assert!(std::os::unix::net::UnixStream::connect(&socket).is_ok(), "the first one still serves");

    daemon.signal(rustix::process::Signal::TERM);
    assert_eq!(daemon.wait(), Some(0));
    assert!(!socket.exists());
}

#[test]
fn a_killed_daemon_leaves_nothing_in_the_way() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("x.sock");
    let mut first = Daemon::start(&socket);
    first.signal(rustix::process::Signal::KILL);
    first.wait();
    assert!(socket.exists(), "a killed daemon cannot tidy up");
    let mut second = Daemon::start(&socket);
    second.signal(rustix::process::Signal::INT);
    assert_eq!(second.wait(), Some(0));
}

#[test]
fn status_says_how_to_start_a_sidecar_and_reads_one() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("x.sock");
    let arguments = ["status", "--socket", socket.to_str().unwrap()];
    let (none, stderr) = output(&arguments);
    assert_eq!(none.status.code(), Some(1));
    assert!(stderr.contains(socket.to_str().unwrap()) && stderr.contains("lightos sidecar"), "{stderr}");

    let daemon = Daemon::start(&socket);
    let (table, _) = output(&arguments);
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(table.contains(&format!("pid {}", daemon.0.id())) && table.contains("No programs"), "{table}");

    let (json, _) = output(&["status", "--json", "--socket", socket.to_str().unwrap()]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["schema"], 1);
    assert_eq!(json["pid"], daemon.0.id());
    assert_eq!(json["tenants"], serde_json::json!([]));
}

#[test]
fn help_and_version_answer() {
    let (help, _) = output(&["--help"]);
    let help = String::from_utf8(help.stdout).unwrap();
    for word in ["sidecar", "run", "status", "version"] {
        assert!(help.contains(word), "{help}");
    }
    assert!(!help.contains("executor"), "{help}");
    let (version, _) = output(&["version"]);
    assert!(String::from_utf8(version.stdout).unwrap().starts_with("lightos 0."));
    let (bare, stderr) = output(&[]);
    assert_eq!(bare.status.code(), Some(2));
    assert!(stderr.contains("Usage"), "{stderr}");
}

#[test]
fn an_executor_started_by_hand_says_so() {
    let (output, stderr) = output(&["executor", "--tenant", "1", "--pid", "1", "--program", "x"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr.contains("lightos sidecar"), "{stderr}");
}

#[test]
fn the_service_manager_learns_of_start_and_stop() {
    let folder = tempfile::tempdir().unwrap();
    let (socket, notify) = (folder.path().join("x.sock"), folder.path().join("notify"));
    let manager = std::os::unix::net::UnixDatagram::bind(&notify).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut command = lightos(&["sidecar", "--log", "off", "--config", "/dev/null", "--socket"]);
    let child = command.arg(&socket).env("NOTIFY_SOCKET", &notify).spawn().unwrap();
    let mut daemon = Daemon(child);
    let said = || {
        let mut text = [0; 256];
        let length = manager.recv(&mut text).unwrap();
        String::from_utf8_lossy(&text[..length]).into_owned()
    };
    assert!(said().contains("READY=1"));
    assert!(socket.exists(), "ready means that programs can connect");
    daemon.signal(rustix::process::Signal::TERM);
    assert!(said().contains("STOPPING=1"));
    assert_eq!(daemon.wait(), Some(0));
}
