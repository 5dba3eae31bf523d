//! docs/PITFALLS.md names tests that exist.

use std::collections::HashSet;
use std::path::Path;

/// Names of all functions in the Rust and Python files below `folder`.
fn functions(folder: &Path, into: &mut HashSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            functions(&path, into);
        } else if path.extension().is_some_and(|ending| ending == "rs" || ending == "py") {
            let text = std::fs::read_to_string(&path).unwrap();
            let named = text.lines().filter_map(|line| {
                let line = line.trim_start();
                let rest = line.strip_prefix("fn ").or_else(|| line.strip_prefix("def "))?;
                rest.split(['(', '<']).next()
            });
            into.extend(named.map(str::to_owned));
        }
    }
}

#[test]
fn every_pitfall_has_its_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut known = HashSet::new();
    for folder in ["tests/tests", "tests/clients", "preload/tests", "protocol/tests"] {
        functions(&root.join(folder), &mut known);
    }
    let text = std::fs::read_to_string(root.join("docs/PITFALLS.md")).unwrap();
    let rows: Vec<_> = text.lines().filter(|line| line.starts_with("| ") && line.ends_with("` |")).collect();
    assert!(rows.len() > 40, "{} rows", rows.len());
    for row in rows {
        let name = row.rsplit('`').nth(1).unwrap();
        assert!(known.contains(name), "no test is called {name}: {row}");
    }
}
