//! The export set is a real driver's, and the shared object really exports it.

use std::collections::BTreeSet;

const FIXTURE: &str = include_str!("../../../../tests/fixtures/exports/libcuda-580.159.txt");

fn library() -> std::path::PathBuf {
    // Cargo builds the shared object beside the test's own executable.
    std::env::current_exe().unwrap().with_file_name("libcuda.so")
}

#[test]
fn the_shared_object_exports_what_a_real_driver_exports() {
    // SAFETY: loading the library runs no code beyond its own initialisers, which do nothing.
    let library = unsafe { libloading::Library::new(library()) }.unwrap();
    // SAFETY: the symbol is only looked up.
    let missing = |name: &&str| unsafe { library.get::<*const ()>(name.as_bytes()) }.is_err();
    let absent: Vec<&str> = FIXTURE.lines().filter(|line| !line.is_empty()).filter(missing).collect();
    assert!(absent.is_empty(), "not exported: {absent:?}");
}

#[test]
fn the_table_names_nothing_that_a_real_driver_does_not_export() {
    let real: BTreeSet<&str> = FIXTURE.lines().collect();
    let ours: BTreeSet<&str> = cuda::api::exports().map(|export| export.name).collect();
    assert_eq!(ours.difference(&real).collect::<Vec<_>>(), Vec::<&&str>::new());
    let unlisted: Vec<&&str> = real.difference(&ours).filter(|name| !name.starts_with("cudbg")).collect();
    assert_eq!(unlisted, Vec::<&&str>::new());
}

#[test]
fn the_soname_is_that_of_the_vendor() {
    let bytes = std::fs::read(library()).unwrap();
    assert!(bytes.windows(14).any(|window| window == b"\0libcuda.so.1\0"));
}
