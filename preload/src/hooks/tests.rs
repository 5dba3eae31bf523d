//! The table against the export list of a real driver.

use super::{Class, NAMES, TABLE, all, classify, local};
use std::collections::{BTreeMap, BTreeSet};

/// What driver 580 (CUDA 13.0) exports, what later headers add, and what the bindings of CUDA 12.4 to 13.3 look up
/// (tests/fixtures/exports/README.md).
fn exports() -> BTreeSet<&'static str> {
    let driver = include_str!("../../../tests/fixtures/exports/libcuda-580.159.txt");
    let newer = include_str!("../../../tests/fixtures/exports/libcuda-13.3-newer.txt");
    let declared = include_str!("../../../tests/fixtures/exports/declared.txt");
    let declared = declared.lines().filter_map(|line| line.split_whitespace().next());
    driver.split_whitespace().chain(newer.split_whitespace()).chain(declared).collect()
}

/// Every classified name with the number of places that claim it.
fn classified() -> BTreeMap<&'static str, usize> {
    let mut names = BTreeMap::new();
    for name in NAMES.iter().copied().flatten() {
        *names.entry(*name).or_default() += 1;
    }
    names
}

#[test]
fn every_exported_name_is_classified() {
    let classified = classified();
    let missing: Vec<_> = exports().into_iter().filter(|name| !classified.contains_key(name)).collect();
    assert!(missing.is_empty(), "{} names in no area, not refused, not local: {missing:?}", missing.len());
}

#[test]
fn no_name_is_classified_twice() {
    let twice: Vec<_> = classified().into_iter().filter(|(_, places)| *places > 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
}

#[test]
fn every_name_is_found_as_what_it_is() {
    for (row, hook) in all().enumerate() {
        let name = hook.slot.name();
        assert!(
            matches!(classify(name.to_bytes()), Class::Hook(found) if std::ptr::eq(found, hook)),
            "{name:?}"
        );
        assert_eq!(usize::from(hook.row), row, "{name:?}");
    }
    for name in local::NAMES {
        assert!(matches!(classify(name.as_bytes()), Class::Local), "{name}");
    }
    for name in ["cuNothing", "cuIni", "cu", "", "cudnnCreate"] {
        assert!(matches!(classify(name.as_bytes()), Class::Unknown), "{name}");
    }
}

#[test]
fn hooks_are_names_that_some_driver_exports() {
    let exports = exports();
    let unknown: Vec<_> =
        NAMES[..TABLE.len()].iter().copied().flatten().filter(|name| !exports.contains(*name)).collect();
    assert!(unknown.is_empty(), "misspelt, or newer than the export list: {unknown:?}");
}
