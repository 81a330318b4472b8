//! The `tenant-operator-dev` command.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    tenant_operator_dev::cli::main().await
}
