//! Compiler output must load: the PTX that NVRTC, nvcc and LLVM write.

use std::path::Path;

use crate::harness::Device;

/// Fixtures that cannot load, with the word their JIT log must name. The last field: because of an instruction that the
/// machine does not carry, not because the module is incomplete.
const REFUSED: [(&str, &str, bool); 6] = [
    ("triton-matmul.sm_90", "wgmma.fence", true),
    ("launch_bounds.13_5", "reqnctapercluster", true),
    ("relocatable.", "unresolved extern 'table'", false),
    ("odd-syntax.", "cp.async.bulk.tensor", true),
    ("llvm-style.", "cp.async.bulk.tensor", true),
    ("tensor-cores.", "cp.async.bulk", true),
];

#[test]
fn compiler_output_loads() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../kernels");
    let mut seen = 0;
    let mut failed = Vec::new();
    for folder in ["ptx", "tests/fixtures"] {
        for entry in std::fs::read_dir(root.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|e| e != "ptx") {
                continue;
            }
            seen += 1;
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let expected = REFUSED.iter().find(|(prefix, ..)| name.starts_with(prefix));
            let text = std::fs::read_to_string(&path).unwrap();
            match (Device::default().load(&text), expected) {
                (Ok(program), None) if program.kernels().count() > 0 => {}
                (Err(e), Some((_, word, unsupported)))
                    if e.unsupported == *unsupported && e.log.contains(word) => {}
                (Ok(_), _) => failed.push(format!("{name}: loaded without a kernel, or against expectation")),
                (Err(e), _) => failed.push(format!("{name}: {e}")),
            }
        }
    }
    assert!(failed.is_empty(), "{} of {seen} failed:\n{}", failed.len(), failed.join("\n"));
    assert!(seen >= 20, "only {seen} fixtures found");
}
