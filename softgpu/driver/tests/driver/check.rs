//! `SOFTGPU_CHECK`: what a program gets to read about itself. Each program runs in a process of its own.

use std::process::Command;

use cuda::api::{context, copy, event, launch, memory, memset, module, pool, stream};

use crate::support::{BUMP, VECTOR_ADD, code, kernel, ok, param, params, primary};

/// Runs `body` in a fresh process under `SOFTGPU_CHECK=list` and gives what that writes on standard error and to the log; `None`
/// in that process.
fn program(name: &str, list: &str, body: impl FnOnce()) -> Option<(String, String)> {
    if std::env::var("SOFTGPU_TEST_CHILD").as_deref() == Ok(name) {
        body();
        return None;
    }
    let stem = format!("softgpu-check-{}-{}", std::process::id(), name.replace("::", "-"));
    let (state, log) = (std::env::temp_dir().join(&stem), std::env::temp_dir().join(format!("{stem}.log")));
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture"]).env("SOFTGPU_TEST_CHILD", name);
    command.env("SOFTGPU_STATE", &state).env_remove("SOFTGPU_VERBOSE").env("SOFTGPU_CHECK", list);
    match name.contains("log") {
        true => command.env("SOFTGPU_CHECK_LOG", &log),
        false => command.env_remove("SOFTGPU_CHECK_LOG"),
    };
    let output = command.output().unwrap();
    let logged = std::fs::read_to_string(&log).unwrap_or_default();
    let _ = (std::fs::remove_file(state), std::fs::remove_file(log));
    let errors = String::from_utf8(output.stderr).unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && printed.contains("1 passed"), "{printed}{errors}");
    Some((errors, logged))
}

fn run(function: u64, values: &mut [*mut std::ffi::c_void], blocks: u32, threads: u32) {
    let null = std::ptr::null_mut();
    ok!(launch::cuLaunchKernel(function, blocks, 1, 1, threads, 1, 1, 0, 0, params(values), null));
    ok!(context::cuCtxSynchronize());
}

/// c = a + b over `count` values.
fn add(function: u64, a: u64, b: u64, c: u64, count: u32) {
    let (mut a, mut b, mut c, mut n) = (a, b, c, count);
    run(function, &mut [param(&mut a), param(&mut b), param(&mut c), param(&mut n)], count.div_ceil(64), 64);
}

fn device_memory(bytes: usize) -> u64 {
    let mut at = 0;
    ok!(memory::cuMemAlloc_v2(&mut at, bytes));
    at
}

const CLEAN: &str = "softgpu: check: 0 races, 0 uninitialised reads, 0 leaks\n";

#[test]
fn a_clean_program_gets_the_summary_alone() {
    let text = program("check::a_clean_program_gets_the_summary_alone", "all", || {
        primary();
        let (module, function) = kernel(VECTOR_ADD, "vector_add");
        let (a, b, c) = (device_memory(400), device_memory(400), device_memory(400));
        let host = [1f32; 100];
        ok!(copy::cuMemcpyHtoD_v2(a, host.as_ptr() as u64, 400));
        ok!(memset::cuMemsetD32_v2(b, 7, 100));
        add(function, a, b, c, 100);
        // What a kernel and a copy between devices have written is written, and a fresh pool allocation by its copy.
        let (mut d, mut line) = (0, 0);
        ok!(stream::cuStreamCreate(&mut line, 0));
        ok!(pool::cuMemAllocAsync(&mut d, 400, line));
        ok!(copy::cuMemcpyDtoDAsync_v2(d, c, 400, line));
        ok!(stream::cuStreamSynchronize(line));
        add(function, c, d, a, 100);
        // The host writes pinned and managed memory as it likes.
        let (mut pinned, mut managed) = (std::ptr::null_mut(), 0);
        ok!(memory::cuMemAllocHost_v2(&mut pinned, 400));
        ok!(memory::cuMemAllocManaged(&mut managed, 400, 1));
        add(function, pinned as u64, managed, a, 100);
        let mut done = 0;
        ok!(event::cuEventCreate(&mut done, 0));
        ok!(event::cuEventDestroy_v2(done));
        ok!(memory::cuMemFreeHost(pinned as u64));
        ok!(pool::cuMemFreeAsync(d, line));
        ok!(stream::cuStreamDestroy_v2(line));
        for at in [a, b, c, managed] {
            ok!(memory::cuMemFree_v2(at));
        }
        ok!(module::cuModuleUnload(module));
    });
    if let Some((text, log)) = text {
        assert_eq!((text.as_str(), log.as_str()), (CLEAN, ""));
    }
}

#[test]
fn memory_that_nobody_has_written_is_named() {
    let text = program("check::memory_that_nobody_has_written_is_named", "init", || {
        primary();
        let (_, function) = kernel(VECTOR_ADD, "vector_add");
        let (a, b, c) = (device_memory(400), device_memory(400), device_memory(400));
        ok!(memset::cuMemsetD8_v2(a, 0, 400));
        // Half of it, in two rows with a gap between them.
        ok!(memset::cuMemsetD2D32_v2(b, 200, 1, 25, 2));
        add(function, a, b, c, 100);
        // The address comes back; its contents do not count.
        ok!(memory::cuMemFree_v2(a));
        let again = device_memory(400);
        assert_eq!(again, a);
        ok!(memset::cuMemsetD8_v2(b, 0, 400));
        add(function, again, b, c, 100);
        println!("a={a:#x} b={b:#x}");
    });
    if let Some((text, _)) = text {
        let line = |what: &str| 1 + VECTOR_ADD[..VECTOR_ADD.find(what).unwrap()].matches('\n').count();
        let (first, second) = (line("ld.global.f32 %f1"), line("ld.global.f32 %f2"));
        let of_b = format!(", kernel vector_add line {second} block [0, 0, 0] thread [25, 0, 0]\n");
        let of_a = format!(", kernel vector_add line {first} block ");
        assert!(text.contains("uninitialised read of 4 bytes of global memory at address 0x"), "{text}");
        assert!(text.contains(" (byte 100 of 400 allocated at 0x") && text.contains(&of_b), "{text}");
        assert!(text.contains(&of_a), "{text}");
        let times = |count: u32, line: usize| {
            format!(
                "softgpu: check: {count} times: uninitialised read of global memory, kernel vector_add line {line}\n"
            )
        };
        assert!(text.contains(&times(50, second)) && text.contains(&times(100, first)), "{text}");
        assert!(text.ends_with("softgpu: check: 0 races, 2 uninitialised reads, 0 leaks\n"), "{text}");
    }
}

#[test]
fn what_is_left_over_is_listed_by_kind() {
    let text = program("check::what_is_left_over_is_listed_by_kind", "leak", || {
        ok!(cuda::api::init::cuInit(0));
        let (mut own, mut line, mut done, mut pinned) = (0, 0, 0, std::ptr::null_mut());
        ok!(context::cuCtxCreate_v2(&mut own, 0, 0));
        ok!(stream::cuStreamCreate(&mut line, 0));
        device_memory(1000);
        ok!(memory::cuMemFree_v2(device_memory(10)));
        ok!(context::cuCtxDestroy_v2(own));
        primary();
        for _ in 0..6 {
            device_memory(100);
        }
        ok!(memory::cuMemAllocHost_v2(&mut pinned, 5000));
        ok!(event::cuEventCreate(&mut done, 0));
        kernel(BUMP, "bump");
        ok!(context::cuCtxCreate_v2(&mut own, 0, 0));
    });
    if let Some((text, _)) = text {
        let lines: Vec<&str> = text.lines().collect();
        let starts = [
            "1 allocation of device memory, 1000 bytes, when context 0x",
            "1 stream when context 0x",
            "6 allocations of device memory, 600 bytes, at the end of the process: 0x",
            "1 allocation of pinned host memory, 5000 bytes, at the end of the process: 0x",
            "1 event at the end of the process: 0x",
            "1 module at the end of the process: 0x",
            "1 context at the end of the process: 0x",
        ];
        for (line, start) in lines.iter().zip(starts) {
            assert!(line.starts_with(&format!("softgpu: check: leak: {start}")), "{text}");
        }
        assert!(
            lines[0].ends_with("(1000 bytes)") && lines[2].ends_with("(100 bytes), and 2 more"),
            "{text}"
        );
        assert_eq!(lines[7..], ["softgpu: check: 0 races, 0 uninitialised reads, 12 leaks"], "{text}");
    }
}

/// Each thread reads what its neighbour in the other warp has stored.
const EXCHANGE: &str = ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry exchange()\n{\n.reg .b32 %r<4>;\n\
    .shared .align 4 .b32 s[64];\nmov.u32 %r1, %tid.x;\nshl.b32 %r1, %r1, 2;\nst.shared.u32 [%r1], %r1;\n\
    xor.b32 %r2, %r1, 128;\nld.shared.u32 %r3, [%r2];\nret;\n}\n";

#[test]
fn races_go_to_the_log() {
    let text = program("check::races_go_to_the_log", "race", || {
        primary();
        let (_, function) = kernel(EXCHANGE, "exchange");
        run(function, &mut [], 2, 64);
    });
    if let Some((text, log)) = text {
        assert_eq!(text, "");
        let first = "softgpu: check: read-write race on 4 bytes of shared memory at offset 0x80, kernel exchange block [0, 0, 0]
softgpu: check:     read by thread [0, 0, 0] at line 12
softgpu: check:     write by thread [32, 0, 0] at line 10\n";
        assert!(log.starts_with(first), "{log}");
        assert!(log.ends_with("softgpu: check: 1 races, 0 uninitialised reads, 0 leaks\n"), "{log}");
    }
}

#[test]
fn faults_are_explained() {
    let text = program("check::faults_are_explained", "leak", || {
        primary();
        let (_, function) = kernel(BUMP, "bump");
        let (mut at, mut step) = (0x1000u64, 1u32);
        let null = std::ptr::null_mut();
        let mut values = [param(&mut at), param(&mut step)];
        ok!(launch::cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, 0, params(&mut values), null));
        assert_eq!(code!(context::cuCtxSynchronize()), 700);
    });
    if let Some((text, _)) = text {
        assert!(
            text.starts_with("softgpu: illegal address 0x1000 (4 bytes, global) at kernel bump line "),
            "{text}"
        );
    }
}

#[test]
fn unknown_words_are_named_and_the_rest_counts() {
    let text = program("check::unknown_words_are_named_and_the_rest_counts", "memcheck,leak", || {
        primary();
        device_memory(64);
    });
    if let Some((text, _)) = text {
        let line = "softgpu: SOFTGPU_CHECK: unknown: memcheck; known are race, init, leak, all\n";
        assert!(text.starts_with(line) && text.ends_with(" 1 leaks\n"), "{text}");
    }
    let text = program("check::unknown_words_are_named_and_the_rest_counts", "sync", || {
        primary();
    });
    if let Some((text, _)) = text {
        assert_eq!(text, "softgpu: SOFTGPU_CHECK: unknown: sync; known are race, init, leak, all\n");
    }
}
