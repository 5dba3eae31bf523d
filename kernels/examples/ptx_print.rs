//! Reads PTX and prints it in the printer's form: `cargo run -p lightos-kernels --example ptx_print FILE`.

use std::process::ExitCode;

use lightos_kernels::ptx::parse;

fn main() -> ExitCode {
    let Some(path) = std::env::args_os().nth(1) else {
        eprintln!("usage: ptx_print FILE");
        return ExitCode::from(2);
    };
    let result = std::fs::read_to_string(&path)
        .map_err(|error| error.to_string())
        .and_then(|text| parse(&text).map_err(|error| error.to_string()));
    match result {
        Ok(module) => {
            print!("{module}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{}: {error}", path.display());
            ExitCode::FAILURE
        }
    }
}
