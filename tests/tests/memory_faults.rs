//! The executor dies: calls fail in bounded time, this process's hold on device memory ends, pinned memory stays readable.

#[path = "memory/cuda.rs"]
mod cuda;

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::ptr;
use std::time::{Duration, Instant};

use cuda::{allocate, ok, pattern, start, sys, upload};
use lightos_tests::{Sidecar, wait_until};

/// Set for the process that the test starts.
const PROGRAM: &str = "LIGHTOS_TEST_PROGRAM";

/// How many mappings of device memory this process has in the arena.
fn mappings() -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("a process has mappings");
    maps.lines().filter(|line| line.starts_with("30") && line.contains("memfd:")).count()
}

/// Copies until the executor is gone, then says what is left.
fn program() {
    start();
    let block = allocate(64 << 20);
    let small = allocate(100);
    let data = pattern(48 << 20, 1);
    let mut pinned = ptr::null_mut();
    // SAFETY: a valid out-pointer; then a block of 4096 bytes.
    unsafe {
        ok(sys::cuMemAllocHost_v2(&mut pinned, 4096));
        pinned.cast::<u8>().write_bytes(0x42, 4096);
    }
    upload(block, &data);
    println!("ready {}", mappings());
    let mut last = Instant::now();
    let error = loop {
        // SAFETY: the vector is valid for its length.
        match unsafe { sys::cuMemcpyHtoD_v2(block, data.as_ptr().cast(), data.len()) } {
            sys::CUresult::CUDA_SUCCESS => last = Instant::now(),
            error => break error,
        }
    };
    println!("sticky {} in time {}", error as u32, last.elapsed() < Duration::from_secs(1));
    let mut other = 0;
    // SAFETY: valid pointers and our own addresses.
    unsafe {
        println!("alloc {}", sys::cuMemAlloc_v2(&mut other, 64) as u32);
        println!("free {}", sys::cuMemFree_v2(small) as u32);
        println!("pinned {:#x}", pinned.cast::<u8>().add(4095).read());
    }
    println!(
        "mapped {}",
        if wait_until(Duration::from_secs(2), || mappings() == 0) { 0 } else { mappings() }
    );
}

#[test]
fn a_killed_executor_leaves_an_error_and_no_memory() {
    if std::env::var_os(PROGRAM).is_some() {
        program();
        std::process::exit(0);
    }
    let sidecar = Sidecar::start();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "a_killed_executor_leaves_an_error_and_no_memory", "--nocapture"]);
    let mut command = sidecar.preloaded(command);
    let mut child = command
        .env(PROGRAM, "1")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the test binary starts");
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.starts_with("ready") {
        line.clear();
        assert_ne!(output.read_line(&mut line).unwrap(), 0, "the program ended early\n{}", sidecar.log());
    }
    assert_ne!(line.trim(), "ready 0", "device memory is mapped in the program");
    std::thread::sleep(Duration::from_millis(50));
    // SAFETY: the executor is a child of the daemon, which runs; nothing but a signal is sent.
    unsafe { libc::kill(sidecar.executors()[0] as i32, libc::SIGKILL) };
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    let status = child.wait().unwrap();
    let mut warnings = String::new();
    child.stderr.take().unwrap().read_to_string(&mut warnings).unwrap();
    assert!(status.success(), "{status}\n{rest}\n{warnings}");
    // CUDA_ERROR_LAUNCH_FAILED for every call from then on.
    let expected = "sticky 719 in time true\nalloc 719\nfree 719\npinned 0x42\nmapped 0\n";
    assert_eq!(rest, expected, "{warnings}");
    assert_eq!(warnings.lines().count(), 1, "one warning line: {warnings}");
}
