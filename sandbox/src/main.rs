//! The `tenant-operator-sandbox` command.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    tenant_operator_sandbox::cli::main().await
}
