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

/// What the names of the variables begin with that Cargo sets for a test of this crate.
const OWN: [&str; 4] = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"];

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
    // With these, Cargo would run build scripts again that look at them, ring's for one, here and in the next build.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name == "OUT_DIR" || OWN.iter().any(|own| name.starts_with(own)) {
            cargo.env_remove(&*name);
        }
    }
    assert!(cargo.status().expect("cargo runs").success(), "the programs were not built");
    folder
}
