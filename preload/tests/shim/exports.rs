//! What the shared library shows to other objects.

use crate::bench::shim;
use std::process::Command;

#[test]
fn only_the_hooked_functions_are_visible() {
    let output =
        Command::new("nm").args(["-D", "--defined-only"]).arg(shim()).output().expect("nm of the binutils");
    let listing = String::from_utf8(output.stdout).expect("text");
    let names: Vec<_> = listing.lines().filter_map(|line| line.split_whitespace().next_back()).collect();
    assert!(names.contains(&"cuInit") && names.contains(&"cuGetProcAddress_v2"), "{names:?}");
    let driver = include_str!("../../../tests/fixtures/exports/libcuda-580.159.txt");
    let newer = include_str!("../../../tests/fixtures/exports/libcuda-13.3-newer.txt");
    let declared = include_str!("../../../tests/fixtures/exports/declared.txt");
    let lists = driver.split_whitespace().chain(newer.split_whitespace()).chain(declared.split_whitespace());
    let driver: Vec<_> = lists.collect();
    let cupti = ["cuptiActivityEnable", "cuptiActivityEnableContext", "cuptiProfilerBeginSession"];
    let strange: Vec<_> = names
        .into_iter()
        .filter(|name| !["dlsym", "dlvsym", "fork"].contains(name))
        .filter(|name| !cupti.contains(name) && !driver.contains(name))
        .collect();
    assert!(strange.is_empty(), "{strange:?}");
}

#[test]
fn it_needs_nothing_but_the_c_library() {
    let output = Command::new("readelf").arg("-d").arg(shim()).output().expect("readelf of the binutils");
    let listing = String::from_utf8(output.stdout).expect("text");
    for line in listing.lines().filter(|line| line.contains("(NEEDED)")) {
        let allowed =
            ["libc.so.6", "libgcc_s.so.1", "ld-linux", "libm.so.6", "libdl.so.2", "libpthread.so.0"];
        assert!(allowed.iter().any(|name| line.contains(name)), "{line}");
    }
}
