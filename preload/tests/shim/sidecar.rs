//! The shim against a sidecar that this test plays itself: handshake, counters, refusals, the end of the executor, fork.

use crate::bench::{Bench, passes, passes_quietly, stderr};
use lightos_protocol::{
    arena::DEVICE_ARENA_BYTES,
    control::{HelloReply, Opening, Preamble, Purpose, Welcome},
    pages::{ExecutorState, SessionPages},
    socket::Channel,
};
use std::{os::unix::net::UnixListener, process::Child, process::Command, process::Stdio, time::Instant};

/// Accepts one client and welcomes it.
fn welcome(listener: &UnixListener) -> (Channel, SessionPages, lightos_protocol::control::Hello) {
    let channel = Channel::from(listener.accept().expect("accept").0);
    let (frame, mut fds) = channel.recv_frame(None).expect("opening");
    let Purpose::Client(hello) = Opening::decode(&frame).expect("this build").purpose else {
        panic!("not a client")
    };
    assert_eq!(fds.len(), lightos_protocol::control::HELLO_FDS);
    let pages = SessionPages::open(fds.remove(0)).expect("session pages");
    pages.status().set_executor_state(ExecutorState::Ready);
    let welcome = Welcome { device_arena_bytes: DEVICE_ARENA_BYTES, ..Welcome::default() };
    channel.send(&HelloReply::Welcome(welcome), &[]).expect("welcome");
    (channel, pages, hello)
}

fn start(mut command: Command) -> Child {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start")
}

#[track_caller]
fn finish(child: Child) -> String {
    let output = child.wait_with_output().expect("wait");
    assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), stderr(&output));
    stderr(&output)
}

#[test]
fn a_session_counts_refuses_and_forgets_itself_in_children() {
    let bench = Bench::new();
    bench.program(
        "probe",
        r#"
        int main(void) {
            void *driver = dlopen("libcuda.so.1", RTLD_NOW);
            Batch batch = (Batch)dlsym(driver, "cuMemBatchDecompressAsync");
            CHECK(batch(1, 2, 3, 4, 5, 6, 7, 8, 9) == 2004);
            CHECK(((Init)dlsym(driver, "cuInit"))(0) == 0);
            CHECK(batch(1, 2, 3, 4, 5, 6, 7, 8, 9) == 801);
            CHECK(batch(1, 2, 3, 4, 5, 6, 7, 8, 9) == 801);
            /* Hooks that leave the answer, or an unknown handle, to the driver. */
            CHECK(((Param)dlsym(driver, "cuParamSetf"))((void *)1, 8, 1.5f) == 2006);
            CHECK(((Bias)dlsym(driver, "cuTexRefSetMipmapLevelBias"))((void *)1, 2.5f) == 2003);
            CHECK(((int (*)(int))dlsym(driver, "cuFutureFunction"))(6) == 801);
            int (*set)(void *) = (int (*)(void *))dlsym(driver, "cuCtxSetCurrent");
            CHECK(set((void *)16) == 0 && set(0) == 2001);
            pid_t child = fork();
            if (!child) {
                CHECK(batch(1, 2, 3, 4, 5, 6, 7, 8, 9) == 2004);
                _exit(5);
            }
            int status;
            CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 5);
            CHECK(batch(1, 2, 3, 4, 5, 6, 7, 8, 9) == 801);
            return 0;
        }"#,
        &[],
    );
    let listener = UnixListener::bind(bench.path("socket")).expect("bind");
    let child = start(bench.command("probe"));
    let pid = child.id();
    let (_channel, pages, hello) = welcome(&listener);
    assert_eq!(finish(child), "");
    assert_eq!((hello.pid, hello.process_name.as_str()), (pid, "probe"));
    assert_eq!((hello.driver_version, hello.device_uuid), (12040, [7; 16]));
    let counters = pages.counters().snapshot(&hello.hooks, &hello.reasons);
    let row =
        |name: &str| counters.calls.iter().find(|row| row.function == name).cloned().unwrap_or_default();
    assert_eq!(row("cuMemBatchDecompressAsync").refused, 3);
    assert_eq!(row("cuFutureFunction").refused, 1, "a newer driver's function is reported by name");
    assert_eq!((row("cuCtxSetCurrent").forwarded, row("cuCtxSetCurrent").failed), (1, 1));
    let reasons: Vec<_> = counters.reasons.iter().map(|(name, count)| (name.as_str(), *count)).collect();
    assert!(
        reasons.contains(&("Batch", 3))
            && reasons.contains(&("InvalidArgument", 1))
            && reasons.contains(&("UnknownFunction", 1)),
        "{reasons:?}"
    );
}

#[test]
fn a_child_of_a_fork_does_not_keep_the_session_open() {
    let bench = Bench::new();
    bench.program(
        "probe",
        r#"
        int main(void) {
            CHECK(((Init)dlsym(dlopen("libcuda.so.1", RTLD_NOW), "cuInit"))(0) == 0);
            if (!fork()) { char byte; close(1); close(2); (void)!read(0, &byte, 1); _exit(0); }
            abort();
        }"#,
        &[],
    );
    let listener = UnixListener::bind(bench.path("socket")).expect("bind");
    let mut child = start(bench.command("probe"));
    let (channel, _pages, _) = welcome(&listener);
    child.wait().expect("the parent aborts");
    // The child still lives (its stdin is open): only its copy of the socket could hold the connection.
    let start = Instant::now();
    while !channel.peer_gone() {
        assert!(start.elapsed().as_secs() < 1, "the forked child holds the session's socket");
        std::thread::yield_now();
    }
}

#[test]
fn exit_handlers_run_natively() {
    let bench = Bench::new();
    bench.program(
        "probe",
        r#"
        Batch batch;
        static void late(void) { CHECK(batch(1, 2, 3, 4, 5, 6, 7, 8, 9) == 2004); }
        int main(void) {
            void *driver = dlopen("libcuda.so.1", RTLD_NOW);
            batch = (Batch)dlsym(driver, "cuMemBatchDecompressAsync");
            atexit(late);
            CHECK(((Init)dlsym(driver, "cuInit"))(0) == 0);
            CHECK(batch(1, 2, 3, 4, 5, 6, 7, 8, 9) == 801);
            return 0;
        }"#,
        &[],
    );
    let listener = UnixListener::bind(bench.path("socket")).expect("bind");
    let child = start(bench.command("probe"));
    let _session = welcome(&listener);
    assert_eq!(finish(child), "");
}

#[test]
fn when_the_executor_is_gone_the_program_learns_it_within_a_second() {
    let bench = Bench::new();
    bench.program(
        "probe",
        r#"
        int main(void) {
            char byte;
            void *driver = dlopen("libcuda.so.1", RTLD_NOW);
            CHECK(((Init)dlsym(driver, "cuInit"))(0) == 0);
            CHECK(read(0, &byte, 1) == 1);
            return 0;
        }"#,
        &[],
    );
    let listener = UnixListener::bind(bench.path("socket")).expect("bind");
    let mut child = start(bench.command("probe"));
    let (channel, pages, _) = welcome(&listener);
    pages.status().set_error_text("killed by signal 9");
    drop(channel);
    let start = Instant::now();
    while pages.status().sticky_error() == 0 {
        assert!(start.elapsed().as_secs() < 1, "no sticky error");
        std::thread::yield_now();
    }
    assert_eq!(pages.status().sticky_error(), 719);
    // Let the watch finish its line before the program ends.
    std::thread::sleep(std::time::Duration::from_millis(100));
    std::io::Write::write_all(child.stdin.as_mut().expect("piped"), b"x").expect("the program waits");
    let stderr = finish(child);
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.contains("killed by signal 9"), "{stderr}");
}

const INIT: &str = r#"
    int main(void) {
        CHECK(((Init)dlsym(dlopen("libcuda.so.1", RTLD_NOW), "cuInit"))(0) == 0);
        return 0;
    }"#;

#[test]
fn a_sidecar_of_another_build_is_named_as_such() {
    let bench = Bench::new();
    bench.program("probe", INIT, &[]);
    let listener = UnixListener::bind(bench.path("socket")).expect("bind");
    let child = start(bench.command("probe"));
    let channel = Channel::from(listener.accept().expect("accept").0);
    let _ = channel.recv_frame(None).expect("opening");
    let older = Preamble { version: (0, 0), ..Preamble::OURS };
    channel.send(&HelloReply::mismatch(&older), &[]).expect("refusal");
    let stderr = finish(child);
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.contains("update the preload library") && stderr.contains("running natively"), "{stderr}");
}

#[test]
fn a_sidecar_that_hangs_up_is_no_sidecar() {
    let bench = Bench::new();
    bench.program("probe", INIT, &[]);
    let listener = UnixListener::bind(bench.path("socket")).expect("bind");
    let child = start(bench.command("probe"));
    drop(listener.accept().expect("accept"));
    let stderr = finish(child);
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.contains("same build") && stderr.contains("running natively"), "{stderr}");
}

#[test]
fn a_stale_socket_is_no_sidecar() {
    let bench = Bench::new();
    bench.program("probe", INIT, &[]);
    drop(UnixListener::bind(bench.path("socket")).expect("bind"));
    assert_eq!(stderr(&passes(bench.command("probe"))).lines().count(), 1);
    let mut off = bench.command("probe");
    off.env("LIGHTOS_DISPATCH", "off");
    passes_quietly(off);
}
