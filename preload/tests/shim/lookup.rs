//! Every way in which a program finds driver functions leads to the hooks, natively and only those.

use crate::bench::{Bench, passes, passes_quietly, stderr};

const ONE_LINE: &str = "lightos: no sidecar at ";

/// The program ran natively after exactly one line that says what to do.
#[track_caller]
fn warned_once(output: &std::process::Output) {
    let stderr = stderr(output);
    assert!(stderr.starts_with(ONE_LINE) && stderr.ends_with("; running natively\n"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.contains("start `lightos sidecar`"), "{stderr}");
}

const BY_HANDLE: &str = r#"
    int main(int count, char **words) {
        int hooked = count < 2;
        void *driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
        CHECK(driver);
        CHECK(ours(dlsym(driver, "cuInit")) == hooked);
        CHECK(ours(dlsym(driver, "cuMemBatchDecompressAsync")) == hooked);
        CHECK(!ours(dlsym(driver, "cuDeviceGet")));
        CHECK(!dlsym(driver, "cuStreamBatchMemOp"));
        CHECK(!dlsym(RTLD_DEFAULT, "cuInit"));
        CHECK(((Init)dlsym(driver, "cuInit"))(0) == 0);
        CHECK(((Init)dlsym(driver, "cuInit"))(1) == 1);
        CHECK(((Init)dlsym(driver, "cuInit"))(0) == 0);
        int device = -1;
        CHECK(((int (*)(int *, int))dlsym(driver, "cuDeviceGet"))(&device, 0) == 0 && device == 0);
        /* Refused functions run natively without a session, with every argument in place. */
        CHECK(((AtoA)dlsym(driver, "cuMemcpyAtoA_v2"))((void *)1, 2, (void *)3, 4, 5) == 2002);
        CHECK(((Bias)dlsym(driver, "cuTexRefSetMipmapLevelBias"))((void *)1, 2.5f) == 2003);
        CHECK(((Param)dlsym(driver, "cuParamSetf"))((void *)1, 8, 1.5f) == 2006);
        CHECK(((Batch)dlsym(driver, "cuMemBatchDecompressAsync"))(1, 2, 3, 4, 5, 6, 7, 8, 9) == 2004);
        /* A function newer than the shim: one stub, which runs natively without a session. */
        int (*future)(int) = (int (*)(int))dlsym(driver, "cuFutureFunction");
        CHECK(ours(future) == hooked && (void *)future == dlsym(driver, "cuFutureFunction") && future(6) == 2005);
        return 0;
    }"#;

#[test]
fn by_dlsym_on_a_handle() {
    let bench = Bench::new();
    bench.program("probe", BY_HANDLE, &[]);
    warned_once(&passes(bench.command("probe")));
}

#[test]
fn switched_off_every_pointer_is_the_drivers_own() {
    let bench = Bench::new();
    bench.program("probe", BY_HANDLE, &[]);
    let mut command = bench.command("probe");
    command.arg("off").env("LIGHTOS_DISPATCH", "off");
    passes_quietly(command);
}

#[test]
fn required_but_absent_the_program_learns_it_at_init() {
    let bench = Bench::new();
    bench.program(
        "probe",
        r#"
        int main(void) {
            Init init = (Init)dlsym(dlopen("libcuda.so.1", RTLD_NOW), "cuInit");
            CHECK(init(0) == 802);
            CHECK(init(0) == 802);
            return 0;
        }"#,
        &[],
    );
    let mut command = bench.command("probe");
    command.env("LIGHTOS_REQUIRE", "1");
    let stderr = stderr(&passes(command));
    assert!(stderr.starts_with(ONE_LINE) && stderr.contains("LIGHTOS_REQUIRE=1"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

#[test]
fn by_cu_get_proc_address() {
    let bench = Bench::new();
    bench.program(
        "probe",
        r#"
        int main(void) {
            void *driver = dlopen("libcuda.so.1", RTLD_NOW);
            GetProcAddress2 get = (GetProcAddress2)dlsym(driver, "cuGetProcAddress_v2");
            GetProcAddress old = (GetProcAddress)dlsym(driver, "cuGetProcAddress");
            CHECK(ours(get) && ours(old) && (void *)get != (void *)old);
            void *found = 0, *other = 0;
            unsigned status = 9;
            /* The hook is the one that dlsym gives for the exact entry point: version and per-thread variant included. */
            CHECK(get("cuInit", &found, 12000, 0, &status) == 0 && status == 0);
            CHECK(found == dlsym(driver, "cuInit"));
            CHECK(get("cuCtxCreate", &found, 12000, 0, &status) == 0 && found == dlsym(driver, "cuCtxCreate_v2"));
            CHECK(get("cuCtxCreate", &other, 13000, 0, &status) == 0 && other == dlsym(driver, "cuCtxCreate_v4"));
            CHECK(ours(found) && ours(other) && found != other);
            CHECK(get("cuStreamBatchMemOp", &found, 12000, 0, 0) == 0 && found == dlsym(driver, "cuStreamBatchMemOp_v2"));
            CHECK(get("cuStreamBatchMemOp", &other, 12000, 2, 0) == 0 && other == dlsym(driver, "cuStreamBatchMemOp_v2_ptsz"));
            CHECK(ours(found) && ours(other) && found != other);
            /* The look-up of itself: four arguments for old programs, five for new ones. */
            CHECK(get("cuGetProcAddress", &found, 11030, 0, 0) == 0 && found == (void *)old);
            CHECK(get("cuGetProcAddress", &found, 12000, 0, 0) == 0 && found == (void *)get);
            CHECK(old("cuInit", &found, 11030, 0) == 0 && found == dlsym(driver, "cuInit"));
            /* What is not hooked, and what does not exist. */
            CHECK(get("cuDeviceGet", &found, 12000, 0, 0) == 0 && found == dlsym(driver, "cuDeviceGet") && !ours(found));
            CHECK(get("cuFutureFunction", &found, 12000, 0, 0) == 0 && found == dlsym(driver, "cuFutureFunction") && ours(found));
            CHECK(((int (*)(int))found)(6) == 2005);
            /* A version of a hooked function that has no exported name. */
            CHECK(get("cuCtxCreate", &other, 99000, 0, 0) == 0 && ours(other) && other != found);
            CHECK(other != dlsym(driver, "cuCtxCreate_v4") && ((int (*)(int))other)(3) == 2010);
            CHECK(get("cuNothing", &found, 12000, 0, &status) == 500 && status == 1 && !found);
            found = (void *)5;
            CHECK(old("cuNothing", &found, 11030, 0) == 500 && found == (void *)5);
            return 0;
        }"#,
        &[],
    );
    passes_quietly(bench.command("probe"));
}

#[test]
fn by_direct_linking() {
    let bench = Bench::new();
    bench.program(
        "probe",
        r#"
        int cuInit(unsigned); int cuDeviceGet(int *, int);
        int cuMemBatchDecompressAsync(long, long, long, long, long, long, long, long, long);
        int main(void) {
            int device;
            CHECK(cuDeviceGet(&device, 0) == 3);
            CHECK(cuInit(1) == 1);
            CHECK(cuInit(0) == 0 && ours((void *)cuInit));
            CHECK(cuDeviceGet(&device, 0) == 0 && !ours((void *)cuDeviceGet));
            CHECK(cuMemBatchDecompressAsync(1, 2, 3, 4, 5, 6, 7, 8, 9) == 2004);
            /* The program's own scope now holds a driver: look-ups there find the hooks. */
            CHECK(dlsym(RTLD_DEFAULT, "cuInit") == (void *)cuInit);
            CHECK(dlsym(RTLD_NEXT, "cuInit") == (void *)cuInit);
            CHECK(dlsym(dlopen(0, RTLD_NOW), "cuInit") == (void *)cuInit);
            return 0;
        }"#,
        &["lib/libcuda.so.1"],
    );
    warned_once(&passes(bench.command("probe")));
}

#[test]
fn by_a_path_of_its_own() {
    let bench = Bench::new();
    std::fs::rename(bench.path("lib/libcuda.so.1"), bench.path("libmydriver.so")).expect("rename");
    bench.library(
        "libcufile.so",
        "int cuFileDriverOpen(void) { return 1; } int cuInit(unsigned f) { return 77; }",
        &[],
    );
    bench.program(
        "probe",
        r#"
        int main(void) {
            void *file = dlopen("./libcufile.so", RTLD_NOW), *driver = dlopen("./libmydriver.so", RTLD_NOW);
            CHECK(file && driver);
            CHECK(!ours(dlsym(file, "cuFileDriverOpen")));
            CHECK(ours(dlsym(driver, "cuInit")));
            /* The driver is known now: another library's function of that name is that library's affair. */
            CHECK(!ours(dlsym(file, "cuInit")));
            CHECK(((Init)dlsym(file, "cuInit"))(0) == 77);
            CHECK(((Init)dlsym(driver, "cuInit"))(0) == 0);
            CHECK(((Batch)dlsym(driver, "cuMemBatchDecompressAsync"))(1, 2, 3, 4, 5, 6, 7, 8, 9) == 2004);
            return 0;
        }"#,
        &[],
    );
    warned_once(&passes(bench.command("probe")));
}

#[test]
fn a_wrapper_library_gets_the_driver_behind_itself() {
    let bench = Bench::new();
    // As a tracing tool does it: linked in front of the driver, finds the next definition, calls it.
    bench.library(
        "libwrapper.so",
        r#"
        int wrapped;
        int cuInit(unsigned flags) { wrapped++; return ((Init)dlsym(RTLD_NEXT, "cuInit"))(flags); }"#,
        &["-Wl,--no-as-needed", "lib/libcuda.so.1"],
    );
    bench.program(
        "probe",
        r#"
        extern int wrapped;
        int main(void) {
            Init init = (Init)dlsym(dlopen("./libwrapper.so", RTLD_NOW), "cuInit");
            CHECK(init(0) == 0);
            CHECK(wrapped == 1);
            return 0;
        }"#,
        &["libwrapper.so", "lib/libcuda.so.1", "-Wl,-rpath,$ORIGIN"],
    );
    let mut command = bench.command("probe");
    command.env("LIGHTOS_DISPATCH", "off");
    passes_quietly(command);
    passes(bench.command("probe"));
}
