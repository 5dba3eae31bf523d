//! `lightos run`.
use super::RunArgs;
use std::process::ExitCode;

pub(super) fn main(_args: RunArgs) -> ExitCode {
    ExitCode::FAILURE
}
