//! The checks: defects are found where they are, and programs without them are left in peace.

use std::sync::{Arc, Mutex};

use lightos_softgpu_engine::check::{Checker, Checks};

use crate::harness::{Device, HEADER, Shape, kernel, shape};

/// A device under the checks, and what they report.
struct Checked {
    device: Device,
    text: Arc<Mutex<String>>,
}

impl Checked {
    fn new(checks: Checks) -> Checked {
        let text = Arc::new(Mutex::new(String::new()));
        let sink = text.clone();
        let checker = Checker::new(checks, Box::new(move |line| sink.lock().unwrap().push_str(line)));
        let mut device = Device::default();
        device.checker = Some(checker);
        Checked { device, text }
    }

    fn checker(&self) -> &Checker {
        self.device.checker.as_ref().unwrap()
    }

    /// Device memory of which nothing has been written, as `cuMemAlloc` gives it.
    fn allocate(&self, bytes: u64) -> u64 {
        let start = self.device.allocate(bytes);
        self.checker().memory.allocate(start, bytes);
        start
    }

    /// All reports, with the summary.
    fn finish(&self) -> String {
        self.checker().finish();
        self.text.lock().unwrap().clone()
    }
}

/// Runs `body` (see [`kernel`]) with declarations before it, one block; gives the reports.
fn reports(declarations: &str, body: &str, threads: u32) -> String {
    let checked = Checked::new(Checks::ALL);
    let program =
        checked.device.load(&kernel(&format!("{declarations}\n{body}"))).unwrap_or_else(|e| panic!("{e}"));
    let out = checked.device.allocate(u64::from(threads) * 8);
    checked.device.run(&program, "k", shape(1, threads), &[out, out]).unwrap_or_else(|e| panic!("{e}"));
    checked.finish()
}

const CLEAN: &str = "softgpu: check: 0 races, 0 uninitialised reads, 0 leaks\n";
const WORDS: &str = ".shared .align 4 .b32 s[256];";

fn assert_clean(declarations: &str, body: &str, threads: u32) {
    assert_eq!(reports(declarations, body, threads), CLEAN, "{body}");
}

/// The line of the PTX that [`reports`] runs, of the first place where `what` stands in `body`.
fn line(declarations: &str, body: &str, what: &str) -> usize {
    let text = kernel(&format!("{declarations}\n{body}"));
    1 + text[..text.find(what).unwrap()].matches('\n').count()
}

/// Each thread stores its number; a tree of additions over 128 threads, with `barrier` between the steps.
fn reduction(barrier: &str) -> String {
    format!(
        "mad.lo.u32 %r1, %r0, 4, 0;
        st.shared.u32 [%r1], %r0;
        bar.sync 0;
        mov.u32 %r2, 64;
    STEP:
        setp.ge.u32 %p1, %r0, %r2;
        mad.lo.u32 %r3, %r2, 4, %r1;
        @%p1 bra SKIP;
        ld.shared.u32 %r4, [%r3];
        ld.shared.u32 %r5, [%r1];
        add.u32 %r5, %r5, %r4;
        st.shared.u32 [%r1], %r5;
    SKIP:
        {barrier}
        shr.u32 %r2, %r2, 1;
        setp.ne.u32 %p2, %r2, 0;
        @%p2 bra STEP;
        setp.eq.u32 %p3, %r0, 0;
        @%p3 st.global.u32 [%rd0], %r5;
        ret;"
    )
}

#[test]
fn a_missing_barrier_in_a_reduction_is_a_race() {
    assert_clean(WORDS, &reduction("bar.sync 0;"), 128);
    assert_clean(WORDS, &reduction("barrier.cta.sync.aligned 0, 128;"), 128);
    let broken = reduction("");
    let text = reports(WORDS, &broken, 128);
    let (store, load) =
        (line(WORDS, &broken, "st.shared.u32 [%r1], %r5"), line(WORDS, &broken, "ld.shared.u32 %r4"));
    assert!(text.contains("read-write race on 4 bytes of shared memory at offset 0x"), "{text}");
    assert!(
        text.contains(&format!(" at line {store}\n")) && text.contains(&format!(" at line {load}\n")),
        "{text}"
    );
    assert!(text.contains(&format!("read-write race, kernel k lines {load} and {store}\n")), "{text}");
    assert!(text.ends_with("1 races, 0 uninitialised reads, 0 leaks\n"), "{text}");
}

#[test]
fn a_barrier_between_reading_and_writing_again_is_needed() {
    let body = |barrier: &str| {
        format!(
            "mad.lo.u32 %r1, %r0, 4, 0; xor.b32 %r2, %r1, 128; mov.u32 %r3, 3;
        AGAIN: st.shared.u32 [%r1], %r3; bar.sync 0; ld.shared.u32 %r4, [%r2]; {barrier}
            add.u32 %r3, %r3, -1; setp.ne.u32 %p1, %r3, 0; @%p1 bra AGAIN; ret;"
        )
    };
    assert_clean(WORDS, &body("bar.sync 0;"), 64);
    let text = reports(WORDS, &body(""), 64);
    assert!(
        text.contains("read by thread") && text.ends_with("1 races, 0 uninitialised reads, 0 leaks\n"),
        "{text}"
    );
}

#[test]
fn two_writes_are_a_race_unless_one_instruction_stores_the_same_value() {
    let text = reports(WORDS, "st.shared.u32 [s], %r0; ret;", 64);
    assert!(
        text.contains("write-write race on 4 bytes of shared memory at offset 0x0, kernel k block [0, 0, 0]"),
        "{text}"
    );
    let within = reports(WORDS, "and.b32 %r1, %r0, 1; st.shared.u32 [s], %r1; ret;", 32);
    assert!(within.contains("write-write race") && within.contains("1 races"), "{within}");
    assert_clean(WORDS, "mov.u32 %r1, 7; st.shared.u32 [s], %r1; ret;", 32);
    // Different bytes of one word belong to different threads.
    assert_clean(
        ".shared .b8 s[64];",
        "mov.u32 %r1, s; add.u32 %r1, %r1, %r0; st.shared.u8 [%r1], %r0; ret;",
        64,
    );
    // All lanes store the same first element; the second is the lane's parity.
    let vector = |second: &str| {
        format!(
            "mov.u64 %rd1, 7; and.b32 %r1, %r0, 1; cvt.u64.u32 %rd2, %r1; st.shared.v2.u64 [s], {{%rd1, {second}}}; ret;"
        )
    };
    let declarations = ".shared .align 16 .b8 s[1024];";
    assert_clean(declarations, &vector("%rd1"), 32);
    assert!(reports(declarations, &vector("%rd2"), 32).contains("write-write race on 16 bytes"));
}

#[test]
fn named_barriers_order_those_who_meet_at_them() {
    // Warp 0 fills and arrives; warp 1 waits and reads; warp 2 is not concerned.
    let body = |wait: &str| {
        format!(
            "shr.u32 %r1, %r0, 5; setp.eq.u32 %p1, %r1, 0; setp.eq.u32 %p2, %r1, 1; shl.b32 %r2, %r0, 2;
            @!%p1 bra READER;
            st.shared.u32 [%r2], %r0; bar.arrive 3, 64; bra DONE;
        READER: @!%p2 bra DONE; {wait} ld.shared.u32 %r3, [%r2+-128]; st.global.u32 [%rd0], %r3;
        DONE: ret;"
        )
    };
    assert_clean(WORDS, &body("bar.sync 3, 64;"), 96);
    // The reader runs later here all the same: what is missing is the order.
    let text = reports(WORDS, &body(""), 96);
    assert!(text.contains("1 races, 0 uninitialised"), "{text}");
    // A barrier of two warps says nothing about a third.
    let other = body("bar.sync 3, 64;").replace("setp.eq.u32 %p2, %r1, 1;", "setp.ge.u32 %p2, %r1, 1;");
    let other = other.replace("bar.sync 3, 64;", "@%p3 bar.sync 3, 64;").replace("+-128", "+0");
    let other = other.replace(
        "shl.b32 %r2, %r0, 2;",
        "and.b32 %r4, %r0, 31; shl.b32 %r2, %r4, 2; setp.eq.u32 %p3, %r1, 1;",
    );
    let text = reports(WORDS, &other, 96);
    assert!(
        text.contains("read by thread [64, 0, 0]") && text.contains("1 races, 0 uninitialised"),
        "{text}"
    );
}

#[test]
fn lanes_of_a_warp_need_order_too() {
    let body = |order: &str| {
        format!(
            "shl.b32 %r1, %r0, 2; xor.b32 %r2, %r1, 4; setp.lt.u32 %p1, %r0, 16;
            st.shared.u32 [%r1], %r0; {order} ld.shared.u32 %r3, [%r2]; st.global.u32 [%rd0], %r3; ret;"
        )
    };
    assert_clean(WORDS, &body("bar.warp.sync -1;"), 32);
    assert_clean(WORDS, &body("shfl.sync.bfly.b32 %r5, %r0, 1, 31, -1;"), 64);
    assert_clean(WORDS, &body("vote.sync.ballot.b32 %r5, %p1, -1;"), 32);
    // Half warps that meet by themselves, on two paths.
    let halves = "@%p1 bra LOW; bar.warp.sync 0xffff0000; bra BOTH; LOW: bar.warp.sync 0xffff; BOTH:";
    assert_clean(WORDS, &body(halves), 32);
    assert!(reports(WORDS, &body(""), 32).contains("1 races"));
    let apart = body(halves).replace("xor.b32 %r2, %r1, 4;", "xor.b32 %r2, %r1, 64;");
    assert!(reports(WORDS, &apart, 32).contains("1 races"), "the halves have not met each other");
    // What one lane learned at a barrier of two warps, the others learn from it.
    let relay = "
        shr.u32 %r1, %r0, 5; and.b32 %r2, %r0, 31; shl.b32 %r3, %r2, 2; setp.eq.u32 %p1, %r1, 0; setp.eq.u32 %p2, %r2, 0;
        @!%p1 bra READ; st.shared.u32 [%r3], %r0; bar.warp.sync -1;
        @%p2 st.release.cta.shared.u32 [s+1020], %r2; ret;
    READ: @!%p2 bra MEET;
    SPIN: nanosleep.u32 10; ld.acquire.cta.shared.u32 %r4, [s+1020]; setp.ne.u32 %p3, %r4, 0; @%p3 bra SPIN;
    MEET: bar.warp.sync -1; ld.shared.u32 %r5, [%r3]; ret;";
    let flag = |body: &str| format!("mov.u32 %r9, 1; @!%p9 st.shared.u32 [s+1020], %r9; bar.sync 0; {body}");
    let start = "setp.ne.u32 %p9, %r0, 0; ";
    assert_clean(WORDS, &format!("{start}{}", flag(relay)), 64);
    // The flag may be read as the last element of a vector.
    let wide = "ld.volatile.shared.v4.u32 {%r10, %r11, %r12, %r4}, [s+1008];";
    let vector = flag(relay).replace("ld.acquire.cta.shared.u32 %r4, [s+1020];", wide);
    let aligned = ".shared .align 16 .b32 s[256];";
    let text = reports(aligned, &format!("{start}{vector}"), 64);
    assert!(text.contains(" 0 races"), "{text}");
    let cut = relay.replace("MEET: bar.warp.sync -1;", "MEET:");
    assert!(reports(WORDS, &format!("{start}{}", flag(&cut)), 64).contains("1 races"));
}

#[test]
fn atomics_do_not_race_and_pass_order_on() {
    let start = "setp.eq.u32 %p1, %r0, 0; mov.u32 %r1, 0; @%p1 st.shared.u32 [s], %r1; bar.sync 0;";
    assert_clean(
        WORDS,
        &format!("{start} atom.shared.add.u32 %r2, [s], 1; red.shared.max.u32 [s], %r0; ret;"),
        128,
    );
    let text =
        reports(WORDS, &format!("{start} red.shared.add.u32 [s], 1; ld.shared.u32 %r3, [s]; ret;"), 64);
    assert!(text.contains("    atomic by thread [") && text.contains("    read by thread ["), "{text}");
    // A lock around a plain word.
    let lock = format!(
        "{start} @%p1 st.shared.u32 [s+4], %r1; bar.sync 0; and.b32 %r8, %r0, 31; setp.ne.u32 %p2, %r8, 0; @%p2 bra DONE;
    TAKE: atom.shared.cas.b32 %r2, [s], 0, 1; setp.ne.u32 %p3, %r2, 0; @%p3 bra TAKE;
        ld.shared.u32 %r4, [s+4]; add.u32 %r4, %r4, 1; st.shared.u32 [s+4], %r4; membar.cta;
        atom.shared.exch.b32 %r5, [s], 0;
    DONE: ret;"
    );
    assert_clean(WORDS, &lock, 128);
    let open = lock.replace("TAKE: atom.shared.cas.b32 %r2, [s], 0, 1;", "TAKE: mov.u32 %r2, 0;");
    let open = open.replace("atom.shared.exch.b32 %r5, [s], 0;", "");
    let text = reports(WORDS, &open, 128);
    assert!(text.contains("read-write race") && text.contains("write-write race"), "{text}");
}

#[test]
fn mbarriers_order_those_who_wait_at_them() {
    let body = |wait: &str| {
        format!(
            "setp.eq.u32 %p1, %r0, 0; mov.u32 %r1, s; shl.b32 %r2, %r0, 2; add.u32 %r2, %r2, 64;
            @%p1 mbarrier.init.shared.b64 [%r1], 64; bar.sync 0;
            st.shared.u32 [%r2], %r0;
            mbarrier.arrive.shared.b64 %rd1, [%r1];
        WAIT: {wait}
            xor.b32 %r3, %r0, 33; shl.b32 %r3, %r3, 2; ld.shared.u32 %r4, [%r3+64]; st.global.u32 [%rd0], %r4; ret;"
        )
    };
    let wait = "mbarrier.try_wait.shared.b64 %p2, [%r1], %rd1; @!%p2 bra WAIT;";
    assert_clean(".shared .align 8 .b32 s[256];", &body(wait), 64);
    assert!(reports(".shared .align 8 .b32 s[256];", &body(""), 64).contains("1 races"));
}

#[test]
fn threads_that_have_exited_keep_nobody_waiting() {
    let body = "shl.b32 %r1, %r0, 2; st.shared.u32 [%r1], %r0; setp.ge.u32 %p1, %r0, 64; @%p1 ret;
        bar.sync 0; ld.shared.u32 %r2, [%r1+256]; st.global.u32 [%rd0], %r2; ret;";
    assert_clean(WORDS, body, 128);
}

#[test]
fn shared_memory_starts_unwritten_in_every_block() {
    let body = |start: &str| {
        format!(
            "shl.b32 %r1, %r0, 2; mov.u32 %r4, %ctaid.x; setp.eq.u32 %p1, %r4, 0; {start} ld.shared.u32 %r2, [%r1]; bar.sync 0;
            st.shared.u32 [%r1], %r2; ret;"
        )
    };
    let run = |body: &str| {
        let checked = Checked::new(Checks::ALL);
        let program = checked.device.load(&kernel(&format!("{WORDS}\n{body}"))).unwrap();
        let out = checked.device.allocate(1024);
        checked.device.run(&program, "k", shape(3, 64), &[out, 0]).unwrap();
        checked.finish()
    };
    assert_eq!(run(&body("st.shared.u32 [%r1], %r0;")), CLEAN);
    let text = run(&body("@%p1 st.shared.u32 [%r1], %r0;"));
    assert!(text.contains("uninitialised read of 4 bytes of shared memory at offset 0x"), "{text}");
    assert!(text.contains("128 times: uninitialised read of shared memory, kernel k line "), "{text}");
    assert!(
        text.ends_with("0 races, 1 uninitialised reads, 0 leaks\n") && !text.contains("block [0, 0, 0]"),
        "{text}"
    );
}

#[test]
fn a_word_counts_as_written_where_a_byte_of_it_is() {
    // A structure of four bytes with one byte of padding, copied as a word.
    assert_clean(WORDS, "shl.b32 %r1, %r0, 2; st.shared.u8 [%r1+1], %r0; ld.shared.u32 %r2, [%r1]; ret;", 32);
    // Elements of a vector stand for themselves.
    let text = reports(
        ".shared .align 8 .b32 s[64];",
        "shl.b32 %r1, %r0, 3; st.shared.u32 [%r1], %r0; ld.shared.v2.u32 {%r2, %r3}, [%r1]; ret;",
        32,
    );
    assert!(
        text.contains("at offset 0x4,") && text.contains("32 times") && text.contains("1 uninitialised"),
        "{text}"
    );
}

#[test]
fn local_memory_is_unwritten_in_every_frame() {
    let local = ".local .align 8 .b8 depot[64];";
    assert_clean(local, "st.local.u32 [depot+8], %r0; ld.local.u32 %r1, [depot+8]; ret;", 64);
    let generic = "mov.u64 %rd1, depot; cvta.local.u64 %rd2, %rd1; st.u64 [%rd2+16], %rd1; ld.local.u64 %rd3, [depot+16]; ret;";
    assert_clean(local, generic, 32);
    // One lane of each pair writes.
    let text = reports(
        local,
        "and.b32 %r1, %r0, 1; setp.eq.u32 %p1, %r1, 1; @%p1 st.local.u32 [depot+8], %r0; ld.local.u32 %r1, [depot+8]; ret;",
        64,
    );
    assert!(
        text.contains("uninitialised read of 4 bytes of local memory at offset 0x8, kernel k line"),
        "{text}"
    );
    assert!(
        text.contains("thread [0, 0, 0]") && text.contains("32 times") && text.contains("1 uninitialised"),
        "{text}"
    );
    // A callee's frame lies where the one before it has written; its parameter and its result are values.
    let ptx = |read: &str| {
        format!(
            "{HEADER}
.func (.param .b32 result) first(.param .b32 x) {{
    .reg .b32 %r<4>; .local .align 4 .b8 depot[16];
    ld.param.u32 %r1, [x]; st.local.u32 [depot], %r1; st.local.u32 [depot+4], %r1; st.param.b32 [result], %r1; ret; }}
.func (.param .b32 result) second(.param .b32 x) {{
    .reg .b32 %r<4>; .local .align 4 .b8 depot[16];
    ld.param.u32 %r1, [x]; st.local.u32 [depot], %r1; ld.local.u32 %r2, [{read}]; st.param.b32 [result], %r2; ret; }}
.visible .entry k(.param .u64 out) {{
    .reg .b32 %r<9>; .reg .b64 %rd<4>;
    {{ .param .b32 a; .param .b32 b; mov.u32 %r1, %tid.x; st.param.b32 [a], %r1; call (b), first, (a); ld.param.b32 %r2, [b]; }}
    {{ .param .b32 a; .param .b32 b; st.param.b32 [a], %r2; call (b), second, (a); ld.param.b32 %r3, [b]; }}
    ret; }}"
        )
    };
    let run = |text: &str| {
        let checked = Checked::new(Checks::ALL);
        let program = checked.device.load(text).unwrap_or_else(|e| panic!("{e}"));
        checked.device.run(&program, "k", shape(2, 40), &[0]).unwrap();
        checked.finish()
    };
    assert_eq!(run(&ptx("depot")), CLEAN);
    let text = run(&ptx("depot+4"));
    assert!(text.contains("80 times: uninitialised read of local memory, kernel k line 10\n"), "{text}");
    assert!(text.ends_with(" 0 races, 1 uninitialised reads, 0 leaks\n"), "{text}");
}

#[test]
fn device_memory_is_unwritten_until_somebody_writes() {
    // in[i] is written by the threads below the limit, then read by all.
    let body = |limit: u32| {
        format!(
            "ld.param.u64 %rd1, [in]; mad.wide.u32 %rd1, %r0, 4, %rd1; setp.lt.u32 %p1, %r0, {limit};
            @%p1 st.global.u32 [%rd1], %r0; ld.global.u32 %r1, [%rd1]; st.global.u32 [%rd0], %r1; ret;"
        )
    };
    let run = |body: &str, prepare: &dyn Fn(&Checked, u64)| {
        let checked = Checked::new(Checks { init: true, ..Checks::default() });
        let program = checked.device.load(&kernel(body)).unwrap();
        let (out, input) = (checked.allocate(1024), checked.allocate(512));
        prepare(&checked, input);
        checked.device.run(&program, "k", shape(1, 128), &[out, input]).unwrap();
        (checked.finish(), input)
    };
    assert_eq!(run(&body(128), &|_, _| ()).0, CLEAN);
    assert_eq!(run(&body(0), &|checked, at| checked.checker().memory.mark(at, 512)).0, CLEAN);
    assert_eq!(run(&body(0), &|checked, at| checked.checker().memory.forget(at)).0, CLEAN);
    let (text, input) = run(&body(64), &|_, _| ());
    let (at, ptx) = (input + 256, kernel(&body(64)));
    let line = 1 + ptx[..ptx.find("ld.global.u32 %r1, [%rd1]").unwrap()].matches('\n').count();
    let expected = format!(
        "softgpu: check: uninitialised read of 4 bytes of global memory at address {at:#x} (byte 256 of 512 allocated at {input:#x}), kernel k line {line} block [0, 0, 0] thread [64, 0, 0]\n"
    );
    assert!(text.starts_with(&expected), "{text}\n{expected}");
    assert!(
        text.contains("64 times") && text.ends_with("0 races, 1 uninitialised reads, 0 leaks\n"),
        "{text}"
    );
    // Half by a copy of the host, half by the kernel.
    assert_eq!(run(&body(64), &|checked, at| checked.checker().memory.mark(at + 256, 256)).0, CLEAN);
    // An atomic reads what it changes; an exchange does not care.
    let atomic = |op: &str| format!("ld.param.u64 %rd1, [in]; atom.global.{op} %r1, [%rd1], 1; ret;");
    assert!(run(&atomic("add.u32"), &|_, _| ()).0.contains("1 uninitialised"));
    assert_eq!(run(&atomic("exch.b32"), &|_, _| ()).0, CLEAN);
}

#[test]
fn asynchronous_copies_write_shared_memory_and_read_the_source() {
    let body = "mov.u32 %r1, s; shl.b32 %r2, %r0, 4; add.u32 %r3, %r1, %r2; ld.param.u64 %rd1, [in]; cvt.u64.u32 %rd2, %r2;
        add.u64 %rd3, %rd1, %rd2; cp.async.cg.shared.global [%r3], [%rd3], 16; cp.async.wait_all; BARRIER
        xor.b32 %r4, %r3, 512; ld.shared.v4.u32 {%r5, %r6, %r7, %r8}, [%r4]; ret;";
    let run = |body: &str, written: u64| {
        let checked = Checked::new(Checks::ALL);
        let program =
            checked.device.load(&kernel(&format!(".shared .align 1024 .b8 s[1024];\n{body}"))).unwrap();
        let (out, input) = (checked.allocate(1024), checked.allocate(1024));
        checked.checker().memory.mark(input, written);
        checked.device.run(&program, "k", shape(1, 64), &[out, input]).unwrap();
        checked.finish()
    };
    assert_eq!(run(&body.replace("BARRIER", "bar.sync 0;"), 1024), CLEAN);
    assert!(run(&body.replace("BARRIER", ""), 1024).contains("1 races"));
    assert!(
        run(&body.replace("BARRIER", "bar.sync 0;"), 1008).contains("4 times: uninitialised read of global")
    );
}

#[test]
fn matrices_are_followed_through_shared_memory() {
    let body = "mov.u32 %r1, s; shl.b32 %r2, %r0, 2; add.u32 %r3, %r1, %r2; st.shared.u32 [%r3], %r0; ORDER
        and.b32 %r4, %r0, 7; shl.b32 %r4, %r4, 4; add.u32 %r4, %r4, %r1;
        ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r5}, [%r4];
        st.shared.u32 [%r3], %r5; ret;";
    assert_clean(".shared .align 16 .b8 s[1024];", &body.replace("ORDER", "bar.sync 0;"), 32);
    // Another warp's rows.
    let other = body.replace(
        "add.u32 %r4, %r4, %r1;",
        "add.u32 %r4, %r4, %r1; shr.u32 %r9, %r0, 5; xor.b32 %r9, %r9, 1; mad.lo.u32 %r4, %r9, 128, %r4;",
    );
    let other = other.replace("st.shared.u32 [%r3], %r5;", "");
    assert_clean(".shared .align 16 .b8 s[1024];", &other.replace("ORDER", "bar.sync 0;"), 64);
    assert!(reports(".shared .align 16 .b8 s[1024];", &other.replace("ORDER", ""), 64).contains("1 races"));
}

#[test]
fn a_fault_is_the_same_under_the_checks() {
    let run = |check: bool| {
        let checked = Checked::new(Checks::ALL);
        let mut device = checked.device;
        if !check {
            device.checker = None;
        }
        let program = device.load(&kernel("shl.b32 %r1, %r0, 2; ld.shared.u32 %r2, [%r1+64]; ret;")).unwrap();
        device.run(&program, "k", Shape { shared: 64, ..shape(1, 32) }, &[0, 0])
    };
    assert_eq!(run(true), run(false));
    assert!(run(true).is_err());
}

#[test]
fn the_example_kernels_are_clean() {
    use lightos_kernels::{Geometry, reduction, sgemm, softmax, vector_add};
    let checked = Checked::new(Checks::ALL);
    let (device, memory) = (&checked.device, &checked.checker().memory);
    let input = |bytes: u64| {
        let at = checked.allocate(bytes);
        memory.mark(at, bytes);
        at
    };
    let run = |ptx: &str, entry: &str, geometry: Geometry, params: &[&[u8]]| {
        let program = device.load(ptx).unwrap();
        let Geometry { grid, block, shared_bytes } = geometry;
        let shape = Shape { grid, block, shared: shared_bytes, cooperative: false };
        device.run_bytes(&program, entry, shape, &params.concat()).unwrap();
    };
    let long = u64::to_le_bytes;
    let word = u32::to_le_bytes;
    let (a, b, c) = (input(4000), input(4000), checked.allocate(4000));
    let params = [&long(a)[..], &long(b), &long(c), &word(1000)];
    run(vector_add::PTX, vector_add::ENTRY, vector_add::geometry(1000), &params);
    let (n, one) = (100u32, word(1f32.to_bits()));
    let (a, b, c) = (input(40_000), input(40_000), checked.allocate(40_000));
    let params = [&word(n)[..], &word(n), &word(n), &one, &long(a), &long(b), &word(0), &word(0), &long(c)];
    run(sgemm::PTX, sgemm::ENTRY, sgemm::geometry(n, n), &params);
    let (values, partial) = (input(40_000), checked.allocate(4 * u64::from(reduction::MAX_BLOCKS)));
    let first = reduction::geometry(10_000);
    run(reduction::PTX, reduction::ENTRY, first, &[&long(values), &long(partial), &word(10_000)]);
    let params = [&long(partial)[..], &long(partial), &word(first.grid[0])];
    run(reduction::PTX, reduction::ENTRY, reduction::final_geometry(), &params);
    let (values, result) = (input(40_000), checked.allocate(40_000));
    run(softmax::PTX, softmax::ENTRY, softmax::geometry(10), &[&long(values), &long(result), &word(1000)]);
    assert_eq!(checked.finish(), CLEAN);
}
