//! The register counts of kernels.

use crate::harness::{Device, HEADER};

/// A kernel that holds `live` words at once.
fn holding(live: u32, directives: &str, tail: &str) -> u32 {
    let define: String = (0..live).map(|n| format!("ld.global.u32 %r{n}, [%rd1+{}];", n * 4)).collect();
    let sum: String = (1..live).map(|n| format!("add.u32 %r0, %r0, %r{n};")).collect();
    let text = format!(
        "{HEADER}.visible .entry k(.param .u64 p) {directives} {{ .reg .b32 %r<300>; .reg .b64 %rd<3>; ld.param.u64 %rd1, [p];
        {define} {sum} st.global.u32 [%rd1], %r0; ret; }}{tail}"
    );
    let program = Device::default().load(&text).unwrap_or_else(|e| panic!("{e}"));
    program.kernel("k").unwrap().registers
}

#[test]
fn register_counts_follow_the_kernel_and_its_limits() {
    let small = ".reqntid 128";
    let counts: Vec<u32> =
        [4, 30, 70, 130, 250, 290].into_iter().map(|live| holding(live, small, "")).collect();
    // Two for the pointer, two for the system, in steps of 8.
    assert_eq!(counts, [16, 40, 80, 136, 255, 255]);
    assert_eq!(holding(100, ".maxntid 256 .maxnreg 50", ""), 50);
    assert_eq!(holding(100, ".maxntid 512, 2, 1", ""), 64, "1024 threads");
    assert_eq!(holding(100, "", ""), 64, "without bounds, as many threads");
    assert_eq!(holding(100, ".maxntid 256 .minnctapersm 4", ""), 64);
    assert_eq!(holding(100, small, ".pragma \"maxrregcount 57\";"), 57);
    assert_eq!(holding(10, small, ".pragma \"maxrregcount 57\";"), 16);
    assert_eq!(holding(100, small, ".pragma \"maxrregcount 3\";"), 16, "there are always 16");
}
