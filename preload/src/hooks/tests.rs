//! The table against the export list of a real driver.

use super::{AREA_NAMES, all, find, local};
use std::collections::{BTreeMap, BTreeSet};

fn exports() -> BTreeSet<&'static str> {
    include_str!("../../../tests/fixtures/exports/libcuda-580.159.txt").split_whitespace().collect()
}

/// Every classified name with the number of places that claim it.
fn classified() -> BTreeMap<&'static str, usize> {
    let mut names = BTreeMap::new();
    for name in AREA_NAMES.iter().copied().flatten().chain(local::NAMES) {
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
fn every_hook_is_found_by_its_own_name_only() {
    for (row, hook) in all().enumerate() {
        let name = hook.slot.name().to_bytes();
        assert!(std::ptr::eq(find(name).expect("indexed"), hook), "{:?}", hook.slot.name());
        assert_eq!(usize::from(hook.row), row, "{:?}", hook.slot.name());
        assert!(find(&name[..name.len() - 1]).is_none_or(|other| other.slot.name() != hook.slot.name()));
    }
    for name in ["cuNothing", "cu", "", "cudnnCreate"] {
        assert!(find(name.as_bytes()).is_none(), "{name}");
    }
}

#[test]
fn hooks_are_names_that_some_driver_exports() {
    let exports = exports();
    let unknown: Vec<_> =
        AREA_NAMES.iter().copied().flatten().filter(|name| !exports.contains(*name)).collect();
    assert!(unknown.is_empty(), "misspelt, or newer than the export list: {unknown:?}");
}
