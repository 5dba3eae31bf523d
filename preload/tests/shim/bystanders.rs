//! Programs that never touch CUDA, and programs with libraries of their own in the same chain.

use crate::bench::{Bench, passes_quietly, stdout};

#[test]
fn python_prints_and_exits() {
    let bench = Bench::new();
    let mut command = bench.command("python3");
    command.args(["-c", "import threading, subprocess; print(1); subprocess.run(['true'], check=True)"]);
    if std::process::Command::new("python3").arg("--version").output().is_err() {
        eprintln!("no python3 on this machine: nothing to test");
        return;
    }
    assert_eq!(stdout(&passes_quietly(command)), "1\n");
}

#[test]
fn a_shell_forks_execs_and_pipes() {
    let bench = Bench::new();
    let mut command = bench.command("bash");
    command
        .args(["-c", "echo one two | (read a b; echo $b $a); test $(ls / | wc -l) -gt 2; (exit 3); echo $?"]);
    assert_eq!(stdout(&passes_quietly(command)), "two one\n3\n");
}

#[test]
fn a_probe_does_not_find_cuda_where_there_is_no_driver() {
    let bench = Bench::new();
    std::fs::remove_file(bench.path("lib/libcuda.so.1")).expect("remove");
    bench.program(
        "probe",
        r#"
        extern int cuInit(unsigned) __attribute__((weak));
        int main(void) {
            void *self = dlopen(0, RTLD_NOW);
            CHECK(!dlsym(RTLD_DEFAULT, "cuInit"));
            CHECK(strstr(dlerror(), "cuInit"));
            CHECK(!dlsym(RTLD_NEXT, "cuInit"));
            CHECK(!dlsym(self, "cuInit"));
            CHECK(!dlvsym(RTLD_DEFAULT, "cuInit", "V1"));
            CHECK(!dlsym(RTLD_DEFAULT, "cuMemBatchDecompressAsync"));
            CHECK(dlsym(RTLD_DEFAULT, "malloc") && !dlerror());
            /* A weak reference sees our export and gets the answer of a machine without a device. */
            if (cuInit) CHECK(cuInit(0) == 100);
            return 0;
        }"#,
        &[],
    );
    passes_quietly(bench.command("probe"));
    let mut off = bench.command("probe");
    off.env("LIGHTOS_DISPATCH", "off");
    passes_quietly(off);
}

/// A second interposer of a plain libc function, as other tools preload them.
const INTERPOSER: &str = r#"
    int getpid_calls;
    pid_t getpid(void) {
        pid_t (*next)(void) = (pid_t (*)(void))dlsym(RTLD_NEXT, "getpid");
        CHECK(next && next != getpid);
        getpid_calls++;
        return next();
    }"#;

#[test]
fn another_preload_finds_its_own_successor() {
    let bench = Bench::new();
    bench.library("interposer.so", INTERPOSER, &[]);
    bench.program(
        "probe",
        r#"
        int main(void) {
            CHECK(getpid() > 0);
            CHECK(*(int *)dlsym(RTLD_DEFAULT, "getpid_calls") == 1);
            return 0;
        }"#,
        &[],
    );
    let (ours, other) = (crate::bench::shim(), bench.path("interposer.so"));
    for order in [[&ours, &other], [&other, &ours]] {
        let mut command = bench.command("probe");
        command.env("LD_PRELOAD", order.map(|path| path.to_str().expect("UTF-8")).join(":"));
        passes_quietly(command);
    }
}

#[test]
fn a_library_keeps_its_search_path() {
    let bench = Bench::new();
    std::fs::create_dir(bench.path("sub")).expect("folder");
    bench.library("sub/libprivate.so", "int answer(void) { return 42; }", &[]);
    bench.library(
        "libouter.so",
        r#"
        int outer(void) {
            void *inner = dlopen("libprivate.so", RTLD_NOW);
            CHECK(inner);
            return ((int (*)(void))dlsym(inner, "answer"))();
        }"#,
        &["-Wl,-rpath,$ORIGIN/sub"],
    );
    bench.program(
        "probe",
        "int outer(void); int main(void) { CHECK(outer() == 42); return 0; }",
        &["libouter.so", "-Wl,-rpath,$ORIGIN"],
    );
    passes_quietly(bench.command("probe"));
}

#[test]
fn vfork_and_exec_work() {
    let bench = Bench::new();
    bench.program(
        "probe",
        r#"
        int main(int count, char **words) {
            if (count > 1) { puts(words[1]); return 0; }
            pid_t child = vfork();
            if (!child) { execl(words[0], words[0], "again", (char *)0); _exit(9); }
            int status;
            CHECK(waitpid(child, &status, 0) == child && status == 0);
            execl("/bin/echo", "echo", "last", (char *)0);
            return 8;
        }"#,
        &[],
    );
    assert_eq!(stdout(&passes_quietly(bench.command("probe"))), "again\nlast\n");
}
