//! Every fixture reads, prints, and reads back to the same tree; damaged fixtures end in an error or a tree,
//! never in a panic, and a tree that comes of one prints to itself as well.

use std::path::{Path, PathBuf};

use lightos_kernels::ptx::ast::Module;
use lightos_kernels::ptx::parse;
use proptest::prelude::*;

fn ptx_files() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths: Vec<PathBuf> = ["tests/fixtures", "ptx"]
        .iter()
        .flat_map(|folder| std::fs::read_dir(root.join(folder)).expect("a folder of PTX"))
        .map(|entry| entry.expect("a folder entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "ptx"))
        .collect();
    paths.sort();
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).expect("PTX text");
        (path, text)
    };
    paths.into_iter().map(read).collect()
}

fn assert_round_trip(mut module: Module, what: &dyn std::fmt::Display) {
    let text = module.to_string();
    let mut again = parse(&text).unwrap_or_else(|error| panic!("{what}: printed text: {error}\n{text}"));
    module.erase_spans();
    again.erase_spans();
    assert!(module == again, "{what} prints to another tree:\n{text}");
}

#[test]
fn every_fixture_round_trips() {
    let files = ptx_files();
    assert!(files.len() >= 40, "only {} fixtures found", files.len());
    for (path, text) in files {
        let module = parse(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(!module.items.is_empty(), "{} is empty", path.display());
        assert_round_trip(module, &path.display());
    }
}

/// What a mutation may put in: the tokens with meaning, so that damage reaches deep into the grammar.
const SPLICES: &[&str] = &[
    "{",
    "}",
    "(",
    ")",
    "[",
    "]",
    ";",
    ",",
    ":",
    "|",
    "@",
    "!",
    "-",
    "+",
    "<",
    ">",
    "<<",
    "?",
    "=",
    "\"",
    "/*",
    "//",
    "_",
    " .reg",
    ".b32",
    ".global ",
    ".align 8",
    ".v4",
    "%r<4>",
    "0x",
    "0f3F800000",
    "1.5",
    "-9223372036854775808",
    "18446744073709551615",
    "generic(",
    "0xFF(",
    ".section",
    ".loc 1 2 3",
    ".pragma",
    ".attribute(",
    ".callprototype",
    "L:",
    "call",
    "\0",
    "é",
    "\u{1F600}",
];

#[derive(Clone, Debug)]
enum Damage {
    Delete { at: prop::sample::Index, length: usize },
    Insert { at: prop::sample::Index, splice: &'static str },
    Repeat { at: prop::sample::Index, length: usize, times: usize },
    Cut { at: prop::sample::Index },
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        (at(), 1..40_usize).prop_map(|(at, length)| Damage::Delete { at, length }),
        (at(), prop::sample::select(SPLICES)).prop_map(|(at, splice)| Damage::Insert { at, splice }),
        (at(), 1..60_usize, 1..200_usize).prop_map(|(at, length, times)| Damage::Repeat {
            at,
            length,
            times
        }),
        at().prop_map(|at| Damage::Cut { at }),
    ]
}

fn apply(text: &mut String, damage: &Damage) {
    let boundary = |text: &str, at: usize| text.floor_char_boundary(at);
    match damage {
        Damage::Delete { at, length } => {
            let start = boundary(text, at.index(text.len() + 1));
            let end = boundary(text, (start + length).min(text.len()));
            text.replace_range(start..end, "");
        }
        Damage::Insert { at, splice } => {
            let start = boundary(text, at.index(text.len() + 1));
            text.insert_str(start, splice);
        }
        Damage::Repeat { at, length, times } => {
            let start = boundary(text, at.index(text.len() + 1));
            let end = boundary(text, (start + length).min(text.len()));
            let piece = text[start..end].repeat(*times);
            text.insert_str(start, &piece);
        }
        Damage::Cut { at } => text.truncate(boundary(text, at.index(text.len() + 1))),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn damaged_fixtures_never_panic(
        file in any::<prop::sample::Index>(),
        damages in prop::collection::vec(damage(), 1..4),
    ) {
        let files = ptx_files();
        let (path, text) = file.get(&files);
        let mut text = text.clone();
        for damage in &damages {
            apply(&mut text, damage);
        }
        if let Ok(module) = parse(&text) {
            assert_round_trip(module, &format_args!("{} after {damages:?}", path.display()));
        }
    }

    #[test]
    fn token_soup_never_panics(tokens in prop::collection::vec(prop::sample::select(SPLICES), 0..60)) {
        for frame in [".version 8.0 .target sm_75 ", ".version 8.0 .target sm_75 .func f { ", ".version 8.0 .target sm_75 .global .u32 a = "] {
            for separator in ["", " "] {
                if let Ok(module) = parse(&format!("{frame}{}", tokens.join(separator))) {
                    assert_round_trip(module, &format_args!("{frame}{}", tokens.join(separator)));
                }
            }
        }
    }

    #[test]
    fn any_text_never_panics(text in ".{0,200}") {
        let _ = parse(&text);
        let _ = parse(&format!(".version 8.0 .target sm_75 .func f {{ {text}"));
    }
}
