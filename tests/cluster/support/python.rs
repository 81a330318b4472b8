//! Python with packages.

use std::path::PathBuf;

use tokio::process::Command;
use tokio::sync::Mutex;

use super::{ROOT, must, target};

/// The programs of a Python that has what `tests/<name>/requirements.txt` lists. It is made once, and again when the
/// list changes.
pub async fn python(name: &str) -> PathBuf {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());
    let _turn = ONE_AT_A_TIME.lock().await;
    let folder = target().join(format!("python-{name}"));
    let (programs, done) = (folder.join("bin"), folder.join("installed"));
    let requirements = format!("{ROOT}/tests/{name}/requirements.txt");
    let wanted = std::fs::read_to_string(&requirements).expect("the list of packages");
    if std::fs::read_to_string(&done).ok().as_ref() != Some(&wanted) {
        must(Command::new("python3").args(["-m", "venv"]).arg(&folder)).await;
        let mut pip = Command::new(programs.join("pip"));
        must(pip.args(["install", "--quiet", "--require-hashes", "--requirement", &requirements])).await;
        std::fs::write(done, wanted).expect("noted");
    }
    programs
}
