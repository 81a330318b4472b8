//! The `tenant-operator` command, also callable as `kubectl tenant`.

use std::process::ExitCode;

fn main() -> ExitCode {
    tenant_operator::cli::main()
}
