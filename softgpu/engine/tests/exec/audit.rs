//! docs/PTX.md against the machine: each row's example in a kernel of its own.

use std::path::Path;

use crate::harness::{Device, HEADER};

/// One row of a table.
struct Row {
    section: String,
    form: String,
    example: String,
    refused: bool,
}

fn rows() -> Vec<Row> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/PTX.md");
    let text = std::fs::read_to_string(path).unwrap();
    let mut section = String::new();
    let mut rows = Vec::new();
    for line in text.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            section = title.to_owned();
        }
        let cells: Vec<String> =
            line.replace("\\|", "\u{1}").split('|').map(|c| c.trim().replace('\u{1}', "|")).collect();
        let [_, form, example, status, _] = cells.as_slice() else { continue };
        let Some(example) = example.strip_prefix('`').and_then(|e| e.strip_suffix('`')) else { continue };
        let refused = match status.split([':', ' ']).next() {
            Some("carried") => false,
            Some("refused") => true,
            _ => panic!("'{status}' of {form} is neither carried nor refused"),
        };
        rows.push(Row { section: section.clone(), form: form.clone(), example: example.to_owned(), refused });
    }
    rows
}

/// The example in a module, and the line that it stands on.
fn module(row: &Row) -> (String, usize) {
    let text = if row.section == "Directives" {
        format!("{HEADER}{}\n", row.example)
    } else {
        format!(
            "{HEADER}.visible .global .align 16 .b8 cell[256]; .const .align 16 .u32 table[4] = {{1, 2, 3, 4}};
            .func (.param .b32 v) callee(.param .b32 a) {{ .reg .b32 %r1; ld.param.u32 %r1, [a]; st.param.b32 [v], %r1; ret; }}
            .visible .entry k(.param .u64 out, .param .u64 in) {{
            .reg .pred %p<20>; .reg .b8 %b<9>; .reg .b16 %h<20>; .reg .b32 %r<60>; .reg .f32 %f<30>; .reg .b64 %rd<40>;
            .reg .f64 %d<30>; .reg .b128 %q<4>; .shared .align 16 .b8 tile[1024]; .local .align 16 .b8 own[64];
{}
            ret; }}",
            row.example
        )
    };
    let line = text[..text.find(&row.example).unwrap()].lines().count() + 1;
    (text, line)
}

/// The modules of all instructions that are carried.
pub fn carried() -> Vec<String> {
    let rows = rows();
    let instructions = rows.iter().filter(|row| !row.refused && row.section != "Directives");
    instructions.map(|row| module(row).0).collect()
}

#[test]
fn what_is_carried_loads_and_what_is_refused_is_named() {
    let mut wrong = Vec::new();
    let rows = rows();
    for row in &rows {
        let (text, line) = module(row);
        match (Device::default().load(&text), row.refused) {
            (Ok(_), false) => {}
            (Err(e), true) if row.section == "Directives" => {
                if !e.unsupported || !e.log.contains("line ") {
                    wrong.push(format!("{}: {e}", row.form));
                }
            }
            (Err(e), true) => {
                let opcode = row.example.split([' ', ';']).next().unwrap();
                let named =
                    e.log.contains(&format!("line {line}:")) && e.log.contains(&format!("'{opcode}'"));
                if !e.unsupported || !named {
                    wrong.push(format!("{}: refused, but with: {e}", row.form));
                }
            }
            (Ok(_), true) => wrong.push(format!("{}: loaded, and is listed as refused", row.form)),
            (Err(e), false) => wrong.push(format!("{}: {e}", row.form)),
        }
    }
    assert!(wrong.is_empty(), "{} of {} rows:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
    assert!(rows.len() > 120, "only {} rows", rows.len());
}
