//! Calls that go wrong, aliases, and stacks.

use lightos_softgpu_engine::exec::Fault;

use crate::harness::{Device, HEADER, kernel, results, shape};

fn fault(text: &str, input: u64) -> Fault {
    let device = Device::default();
    let program = device.load(text).unwrap_or_else(|e| panic!("{e}"));
    device.run(&program, "k", shape(1, 4), &[device.allocate(64), input]).unwrap_err()
}

const FUNCTIONS: &str = "
.func (.reg .b32 %v) twice(.reg .b32 %x) { add.u32 %v, %x, %x; ret; }
.func (.reg .b32 %v) square(.reg .b32 %x) { mul.lo.u32 %v, %x, %x; ret; }
.visible .entry other() { ret; }
";

fn with_functions(body: &str) -> String {
    kernel(body).replacen(HEADER, &format!("{HEADER}{FUNCTIONS}"), 1)
}

#[test]
fn a_jump_beyond_its_table_is_a_fault() {
    let text = kernel(
        "T: .branchtargets A, B; ld.param.u64 %rd1, [in]; cvt.u32.u64 %r1, %rd1; brx.idx %r1, T; A: B: ret;",
    );
    match fault(&text, 2) {
        Fault::IllegalInstruction { what, place } => {
            assert!(what.contains("target 2 of 2"), "{what}");
            assert_eq!(place.line, 9);
        }
        other => panic!("{other}"),
    }
    assert!(matches!(fault(&text, u64::from(u32::MAX)), Fault::IllegalInstruction { .. }));
}

#[test]
fn calls_reach_what_their_list_names() {
    let list = |targets: &str, function: &str| {
        with_functions(&format!(
            "F: .calltargets {targets}; mov.u64 %rd1, {function}; call (%r1), %rd1, (%r0), F; cvt.u64.u32 %rd2, %r1;
            st.global.u64 [%rd0], %rd2; ret;"
        ))
    };
    let device = Device::default();
    let program = device.load(&list("twice, square", "square")).unwrap();
    let out = device.allocate(32);
    device.run(&program, "k", shape(1, 4), &[out, 0]).unwrap();
    assert_eq!(device.download::<u64>(out, 4), [0, 1, 4, 9]);
    assert!(matches!(fault(&list("twice", "square"), 0), Fault::IllegalInstruction { .. }));
    // A kernel, what is no function, and numbers beside and behind all functions.
    let pointer = |value: &str| {
        with_functions(&format!(
            "P: .callprototype _ (); ld.param.u64 %rd2, [in]; mov.u64 %rd1, {value}; add.u64 %rd1, %rd1, %rd2; call %rd1, (), P; ret;"
        ))
    };
    for (value, beyond) in [("other", 0), ("0", 0), ("twice", 8), ("twice", 16_000), ("twice", 1 << 40)] {
        assert!(
            matches!(fault(&pointer(value), beyond), Fault::IllegalInstruction { .. }),
            "{value} + {beyond}"
        );
    }
    let error = Device::default().load(&list("nowhere", "square")).unwrap_err();
    assert!(error.log.contains("nowhere"), "{}", error.log);
}

#[test]
fn recursion_ends_with_its_stack() {
    // With a large frame of registers, of local memory, and of neither.
    let wide: String = (0..400).map(|n| format!("add.u64 %r{n}, %r{n}, 1;")).collect();
    for body in [format!(".reg .b64 %r<400>; {wide}"), ".local .b8 pad[4096];".to_owned(), String::new()] {
        let text = format!(
            "{HEADER}.func f() {{ {body} call f; ret; }} .visible .entry k(.param .u64 a, .param .u64 b) {{ call f; ret; }}"
        );
        assert!(matches!(fault(&text, 0), Fault::StackOverflow { .. }), "{body}");
    }
}

#[test]
fn an_alias_stands_for_its_function() {
    let text = kernel("call (%r1), second, (%r0); cvt.u64.u32 %rd1, %r1; st.global.u64 [%rd0], %rd1; ret;")
        .replacen(
            HEADER,
            &format!("{HEADER}{FUNCTIONS} .func (.reg .b32 %v) second(.reg .b32 %x); .alias second, square;"),
            1,
        );
    let device = Device::default();
    let program = device.load(&text).unwrap();
    let out = device.allocate(32);
    device.run(&program, "k", shape(1, 4), &[out, 0]).unwrap();
    assert_eq!(device.download::<u64>(out, 4), [0, 1, 4, 9]);
}

#[test]
fn stack_memory_outlives_branches_and_calls() {
    // Odd lanes take memory in a branch; a call afterwards must not reuse it. A second piece is given back.
    let text = kernel(
        "and.b32 %r1, %r0, 1; setp.eq.u32 %p1, %r1, 0; mov.u64 %rd1, 0; @%p1 bra JOIN;
        cvt.u64.u32 %rd2, %r0; add.u64 %rd2, %rd2, 40; alloca.u64 %rd1, %rd2, 32; st.local.u32 [%rd1+36], %r0;
    JOIN: call (%r2), clobber, (%r0); stacksave.u64 %rd3; alloca.u32 %r5, 64; stackrestore.u64 %rd3; alloca.u32 %r6, 64;
        setp.ne.u32 %p2, %r5, %r6; @%p2 trap; st.local.u32 [%r6+60], 77;
        call (%r2), clobber, (%r0); ld.local.u32 %r8, [%r6+60]; setp.ne.u32 %p2, %r8, 77; @%p2 trap;
        mov.u32 %r3, 1000; @!%p1 ld.local.u32 %r3, [%rd1+36]; and.b64 %rd4, %rd1, 31; cvt.u32.u64 %r4, %rd4; add.u32 %r3, %r3, %r4;
        add.u32 %r3, %r3, %r2; cvt.u64.u32 %rd5, %r3; st.global.u64 [%rd0], %rd5; ret;",
    );
    let callee = ".func (.reg .b32 %v) clobber(.reg .b32 %x) { .local .align 8 .b8 pad[512]; .reg .b32 %i; .reg .pred %p; mov.u32 %i, 0;
        LOOP: st.local.u32 [%i], -1; add.u32 %i, %i, 4; setp.lt.u32 %p, %i, 4; @%p bra LOOP;
        mov.u32 %i, pad; st.local.u32 [%i], -1; st.local.u32 [%i+508], -1; mov.u32 %v, 0; ret; }";
    // The first four bytes of the kernel's own frame are the loop's target; keep them free.
    let text = text.replacen(HEADER, &format!("{HEADER}{callee}"), 1).replacen(
        "and.b32 %r1, %r0, 1;",
        ".local .align 16 .b8 spare[16]; and.b32 %r1, %r0, 1;",
        1,
    );
    let device = Device::default();
    let program = device.load(&text).unwrap_or_else(|e| panic!("{e}"));
    let out = device.allocate(32 * 8);
    device.run(&program, "k", shape(1, 32), &[out, 0]).unwrap_or_else(|e| panic!("{e}"));
    let expected: Vec<u64> = (0..32).map(|lane| if lane % 2 == 1 { lane } else { 1000 }).collect();
    assert_eq!(device.download::<u64>(out, 32), expected);
    assert!(matches!(fault(&kernel("alloca.u64 %rd1, 100000000; ret;"), 0), Fault::StackOverflow { .. }));
    assert!(matches!(
        fault(&kernel("mov.u64 %rd1, 99; stackrestore.u64 %rd1; ret;"), 0),
        Fault::IllegalInstruction { .. }
    ));
    assert_eq!(
        results(
            "alloca.u64 %rd1, 8; st.local.u64 [%rd1], 5; ld.local.u64 %rd2, [%rd1]; st.global.u64 [%rd0], %rd2; ret;",
            2
        ),
        [5, 5]
    );
}
