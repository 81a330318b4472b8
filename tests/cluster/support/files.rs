//! The checkout, and where a run keeps its files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The checkout.
pub const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Where this run keeps its files: 500 MB at its end. They stay, so that a failure can be looked into; the next run
/// removes them.
fn scratch() -> &'static Path {
    static SCRATCH: OnceLock<PathBuf> = OnceLock::new();
    SCRATCH.get_or_init(|| {
        let runs = std::env::temp_dir().join("tenant-operator-tests");
        for run in std::fs::read_dir(&runs).into_iter().flatten().flatten() {
            let pid = run.file_name().to_str().and_then(|n| n.parse().ok()).and_then(rustix::process::Pid::from_raw);
            if pid.is_some_and(|pid| rustix::process::test_kill_process(pid).is_err()) {
                drop(std::fs::remove_dir_all(run.path()));
            }
        }
        let own = runs.join(std::process::id().to_string());
        drop(std::fs::remove_dir_all(&own));
        std::fs::create_dir_all(&own).expect("a folder");
        own
    })
}

/// A path that this test run has to itself; nothing is there.
pub fn folder(name: &str) -> PathBuf {
    let folder = scratch().join(name);
    drop(std::fs::remove_dir_all(&folder));
    folder
}

/// All files of a folder by their paths in it.
pub fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    fn collect(at: &Path, root: &Path, found: &mut BTreeMap<String, Vec<u8>>) {
        for entry in std::fs::read_dir(at).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                collect(&path, root, found);
            } else {
                let name = path.strip_prefix(root).expect("inside").display().to_string();
                found.insert(name, std::fs::read(&path).expect("a file"));
            }
        }
    }
    let mut found = BTreeMap::new();
    collect(folder, folder, &mut found);
    found
}

/// A folder that outlives the run, for what is installed once.
pub fn target() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).to_path_buf()
}
