//! The `tenant-operator` command, also callable as `kubectl tenant`.

use std::process::ExitCode;

use tenant_operator::cli::{self, Program};

fn main() -> ExitCode {
    cli::main(Program::TenantOperator)
}
