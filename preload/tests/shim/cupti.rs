//! Programs that ask CUPTI for records: every call arrives where it would have gone without the shim, and nothing is said without a session.

use crate::bench::{Bench, passes_quietly};

/// A CUPTI whose functions answer with its own number, and with what they were asked.
const CUPTI: &str = r#"
    int calls;
    int cuptiActivityEnable(unsigned kind) { calls++; return NUMBER + kind; }
    int cuptiActivityEnableContext(void *context, unsigned kind) { calls++; return NUMBER + (int)(long)context + kind; }
    int cuptiActivityEnable_v2(void *subscriber, unsigned kind, void *config) {
        return NUMBER + (int)(long)subscriber + kind + (int)(long)config;
    }
    int cuptiProfilerBeginSession(void *parameters) { return NUMBER + *(int *)parameters; }
    int cuptiSubscribe(void) { return NUMBER; }"#;

const TYPES: &str = r#"
    typedef int (*Enable)(unsigned);
    typedef int (*EnableContext)(void *, unsigned);
    typedef int (*EnableV2)(void *, unsigned, void *);
    int cuptiActivityEnable(unsigned);
    int cuptiActivityEnableContext(void *, unsigned);
    int cuptiProfilerBeginSession(void *);"#;

/// Builds `name`, a CUPTI of this number.
fn cupti(bench: &Bench, name: &str, number: u32) {
    let soname = format!("-Wl,-soname,{name}");
    bench.library(name, &CUPTI.replace("NUMBER", &number.to_string()), &[&soname]);
}

#[test]
fn a_program_that_is_linked_with_cupti_reaches_it() {
    let bench = Bench::new();
    cupti(&bench, "libcupti.so.12", 1000);
    let source = r#"
        extern int calls;
        int main(void) {
            int parameter = 7;
            CHECK(ours((void *)cuptiActivityEnable));
            CHECK(cuptiActivityEnable(10) == 1010);
            CHECK(cuptiActivityEnableContext((void *)100, 4) == 1104);
            CHECK(cuptiProfilerBeginSession(&parameter) == 1007);
            CHECK(calls == 2);
            for (int way = 0; way < 3; way++) {
                void *handle = way == 0 ? RTLD_DEFAULT : way == 1 ? RTLD_NEXT : dlopen(0, RTLD_NOW);
                Enable found = (Enable)dlsym(handle, "cuptiActivityEnable");
                CHECK(ours(found) && found(3) == 1003);
                CHECK(((EnableV2)dlsym(handle, "cuptiActivityEnable_v2"))((void *)100, 10, (void *)20) == 1130);
                CHECK(!ours(dlsym(handle, "cuptiSubscribe")));
            }
            CHECK(calls == 5);
            return 0;
        }"#;
    bench.program("probe", &format!("{TYPES}{source}"), &["libcupti.so.12", "-Wl,-rpath,$ORIGIN"]);
    passes_quietly(bench.command("probe"));
}

#[test]
fn each_library_reaches_its_own_cupti() {
    let bench = Bench::new();
    for (number, letter) in [(1000, "a"), (2000, "b"), (3000, "c")] {
        let cupti_name = format!("libcupti-{letter}.so");
        cupti(&bench, &cupti_name, number);
        let user = format!("{TYPES} int use_{letter}(unsigned kind) {{ return cuptiActivityEnable(kind); }}");
        bench.library(&format!("lib{letter}.so"), &user, &[&cupti_name, "-Wl,-rpath,$ORIGIN"]);
    }
    let source = r#"
        int main(void) {
            /* As an interpreter loads its extensions: into no common scope. */
            void *a = dlopen("./liba.so", RTLD_NOW | RTLD_LOCAL), *b = dlopen("./libb.so", RTLD_NOW | RTLD_LOCAL);
            void *c = dlopen("./libcupti-c.so", RTLD_NOW | RTLD_LOCAL);
            CHECK(a && b && c);
            CHECK(((Enable)dlsym(b, "use_b"))(10) == 2010);
            CHECK(((Enable)dlsym(a, "use_a"))(10) == 1010);
            CHECK(((Enable)dlsym(c, "cuptiActivityEnable"))(10) == 3010);
            void *again = dlopen("./libcupti-a.so", RTLD_NOW);
            Enable of_a = (Enable)dlsym(again, "cuptiActivityEnable");
            CHECK(ours(of_a) && of_a(1) == 1001);
            CHECK(of_a == (Enable)dlsym(a, "cuptiActivityEnable"));
            /* The scope of the program itself holds none. */
            CHECK(!dlsym(RTLD_DEFAULT, "cuptiActivityEnable"));
            return 0;
        }"#;
    bench.program("probe", &format!("{TYPES}{source}"), &[]);
    passes_quietly(bench.command("probe"));
}

#[test]
fn a_wrapper_of_cupti_stays_in_the_chain() {
    let bench = Bench::new();
    cupti(&bench, "libcupti.so.12", 1000);
    let wrapper = r#"
        int cuptiActivityEnable(unsigned kind) {
            return 5000 + ((Enable)dlsym(RTLD_NEXT, "cuptiActivityEnable"))(kind);
        }"#;
    bench.library("libwrapper.so", &format!("{TYPES}{wrapper}"), &[]);
    bench.program(
        "probe",
        &format!("{TYPES} int main(void) {{ CHECK(cuptiActivityEnable(10) == 6010); return 0; }}"),
        &["libcupti.so.12", "-Wl,-rpath,$ORIGIN"],
    );
    let (ours, wrapper) = (crate::bench::shim(), bench.path("libwrapper.so"));
    for order in [[&ours, &wrapper], [&wrapper, &ours]] {
        let mut command = bench.command("probe");
        command.env("LD_PRELOAD", order.map(|path| path.to_str().expect("UTF-8")).join(":"));
        passes_quietly(command);
    }
}

#[test]
fn a_probe_does_not_find_cupti_where_there_is_none() {
    let bench = Bench::new();
    let source = r#"
        extern int cuptiActivityEnable(unsigned) __attribute__((weak));
        extern int cuptiActivityEnable_v2(void *, unsigned, void *) __attribute__((weak));
        int main(void) {
            CHECK(!dlsym(RTLD_DEFAULT, "cuptiActivityEnable"));
            CHECK(strstr(dlerror(), "cuptiActivityEnable"));
            CHECK(!dlsym(RTLD_NEXT, "cuptiActivityEnable"));
            CHECK(!dlsym(RTLD_NEXT, "cuptiActivityEnable_v2"));
            CHECK(!dlsym(dlopen(0, RTLD_NOW), "cuptiActivityEnable"));
            /* A weak reference sees our export and is told that nothing is initialised; newer functions stay absent. */
            if (cuptiActivityEnable) CHECK(cuptiActivityEnable(10) == 15);
            CHECK(!cuptiActivityEnable_v2);
            return 0;
        }"#;
    bench.program("probe", source, &[]);
    passes_quietly(bench.command("probe"));
    let mut off = bench.command("probe");
    off.env("LIGHTOS_DISPATCH", "off");
    passes_quietly(off);
}
