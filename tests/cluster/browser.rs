//! The pages, as people use them: `tests/browser/walk.mjs` in a real browser, on what `make dev` starts.

use std::path::Path;
use std::process::Command;

use crate::conformance::target;
use crate::dev::Dev;
use crate::support::{ROOT, said};

/// Debian's chromium, or what the user names.
fn chromium() -> Option<String> {
    let named = std::env::var("CHROMIUM").ok();
    let usual = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].map(str::to_owned);
    named.into_iter().chain(usual).find(|path| Path::new(path).is_file())
}

fn has(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}

fn must(command: &mut Command) -> String {
    let output = command.output().expect("it runs");
    let text = said(&output);
    assert!(output.status.success(), "{text}");
    text
}

#[test]
fn a_customer_walks_from_the_prices_to_an_answer_from_their_own_document() {
    let Some(chromium) = chromium().filter(|_| has("node") && has("npm")) else {
        assert!(std::env::var("CI").is_err(), "node, npm and chromium are needed for the tests of the pages");
        eprintln!("Pages not tested in a browser: node, npm or chromium is missing (apt-get install chromium).");
        return;
    };
    let (folder, shots) = (target().join("browser"), target().join("screenshots"));
    for folder in [&folder, &shots] {
        std::fs::create_dir_all(folder).expect("a folder");
    }
    for file in ["package.json", "package-lock.json", "walk.mjs"] {
        std::fs::copy(format!("{ROOT}/tests/browser/{file}"), folder.join(file)).expect("copied");
    }
    must(Command::new("npm").args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"]).current_dir(&folder));
    let dev = Dev::start("walk");
    let address = |name: &str| said(&dev.shell(&format!("printf %s \"${name}\""))).trim().to_owned();
    let walked = must(
        Command::new("node")
            .arg("walk.mjs")
            .current_dir(&folder)
            .env("WEB_URL", address("WEB_URL"))
            .env("SANDBOX_URL", address("SANDBOX_URL"))
            .env("OUT", &shots)
            .env("PDF", format!("{ROOT}/tests/fixtures/travel.pdf"))
            .env("CHROMIUM", chromium),
    );
    assert!(walked.contains(" pages judged"), "{walked}");
    dev.stop();
}
