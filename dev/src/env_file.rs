//! The `env` file, which gives a shell everything that runs.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::cluster::Cluster;

/// Writes variables and the folders of programs as a script for `source`.
pub fn write(path: &Path, env: &[(&'static str, String)], programs: &[PathBuf]) -> std::io::Result<()> {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
    let mut file = std::fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    for (name, value) in env {
        writeln!(file, "export {name}={}", quoted(value))?;
    }
    for folder in programs {
        writeln!(file, "export PATH={}:\"$PATH\"", quoted(&folder.display().to_string()))?;
    }
    Ok(())
}

/// Writes a file that only this user reads.
pub fn secret(path: &Path, text: &str) -> std::io::Result<()> {
    std::fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?.write_all(text.as_bytes())
}

/// The folders of kubectl, if we built it, and of `kubectl tenant`.
pub fn programs(cluster: Option<&Cluster>) -> Vec<PathBuf> {
    let kubectl = cluster.and_then(|c| c.kubectl.as_deref()).and_then(Path::parent).map(Path::to_path_buf);
    let ours = std::env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_path_buf));
    kubectl.into_iter().chain(ours).collect()
}
