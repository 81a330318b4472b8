//! The programs of the other crates, `tenant-operator-dev` and `tenant-operator-sandbox`: Cargo tells a test the paths
//! of its own crate's programs only.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The path of a program, which is built by the first call, in the profile of this test.
pub fn program(name: &str) -> PathBuf {
    static FOLDER: OnceLock<&Path> = OnceLock::new();
    FOLDER.get_or_init(build).join(name)
}

fn build() -> &'static Path {
    let folder = Path::new(env!("CARGO_BIN_EXE_tenant-operator")).parent().expect("a folder");
    let profile = match folder.file_name().and_then(|name| name.to_str()).expect("its name") {
        "debug" => "dev",
        profile => profile,
    };
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args(["build", "--locked", "--quiet", "--profile", profile, "--bins"])
        .args(["-p", "tenant-operator-dev", "-p", "tenant-operator-sandbox"])
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    // What Cargo sets for this test would make build scripts run again that look at it.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"].iter().any(|own| name.starts_with(own)) {
            cargo.env_remove(&*name);
        }
    }
    assert!(cargo.status().expect("cargo runs").success(), "the programs were not built");
    folder
}
