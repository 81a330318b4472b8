//! `kubectl tenant`: the same commands under the name by which kubectl finds plugins.

use std::process::ExitCode;

use tenant_operator::cli::{self, Program};

fn main() -> ExitCode {
    cli::main(Program::KubectlTenant)
}
