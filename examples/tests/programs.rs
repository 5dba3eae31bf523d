//! The programs where there is no device: what they say and how they end. With a device, the end-to-end suites run them.

use std::path::Path;
use std::process::{Command, Output};

const PROGRAMS: [&str; 4] = [
    env!("CARGO_BIN_EXE_vector_add"),
    env!("CARGO_BIN_EXE_sgemm"),
    env!("CARGO_BIN_EXE_reduction"),
    env!("CARGO_BIN_EXE_softmax"),
];

fn output(command: &mut Command) -> (Output, String, String) {
    let output = command.output().expect("the program starts");
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    (output, stdout, stderr)
}

#[test]
fn without_a_driver_each_says_so_and_fails() {
    // Files that are no libraries hide whatever driver this machine has: the loader stops at them.
    let folder = tempfile::tempdir().expect("a temporary folder");
    for name in ["libcuda.so", "libcuda.so.1"] {
        std::fs::write(folder.path().join(name), "not a library").expect("a file");
    }
    for program in PROGRAMS {
        let (output, stdout, stderr) = output(Command::new(program).env("LD_LIBRARY_PATH", folder.path()));
        assert_eq!(output.status.code(), Some(1), "{program}: {stderr}");
        let name = Path::new(program).file_name().and_then(|name| name.to_str()).expect("a name");
        assert_eq!(
            stderr,
            format!("{name}: no CUDA driver found: libcuda.so.1 is not on the library path\n")
        );
        assert_eq!(stdout, "");
    }
}

#[test]
fn help_names_the_options() {
    for program in PROGRAMS {
        let (output, stdout, _) = output(Command::new(program).arg("--help"));
        assert!(output.status.success());
        for word in ["-n <SIZE>", "--iterations <ITERATIONS>", "[default: 10]"] {
            assert!(stdout.contains(word), "{program} --help lacks {word}:\n{stdout}");
        }
    }
}

#[test]
fn sizes_out_of_range_are_usage_errors() {
    for program in PROGRAMS {
        for arguments in [["-n", "0"], ["-n", "x"], ["--iterations", "0"]] {
            let (output, ..) = output(Command::new(program).args(arguments));
            assert_eq!(output.status.code(), Some(2), "{program} {arguments:?}");
        }
    }
}
