//! `kubectl tenant`: the same command under the name by which kubectl finds plugins.

use std::process::ExitCode;

fn main() -> ExitCode {
    tenant_operator::cli::main()
}
