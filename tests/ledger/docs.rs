//! The examples of docs/ledger.md, in one shell, as a reader runs them.

use std::process::Command;

use crate::support::{BINARY, Folder, free_port};

#[test]
fn the_examples_of_the_page_work_as_written() {
    let page = include_str!("../../docs/ledger.md");
    let examples: Vec<_> = page.split("```sh ledger\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert_eq!(examples.len(), 4, "examples");
    let folder = Folder::new("docs");
    let port = free_port().to_string();
    // The ledgers in the background end with the shell.
    let script = format!("set -eu\ntrap 'kill $(jobs -p)' EXIT\n{}", examples.concat());
    let metrics = free_port().to_string();
    let free = |script: String, port: &str| script.replace(port, &free_port().to_string());
    let script = script.replace("8084", &port).replace("8085", &metrics);
    let script = ["8086", "8087"].into_iter().fold(script, free);
    let programs = std::path::Path::new(BINARY).parent().expect("a folder").display().to_string();
    let path = format!("{programs}:{}", std::env::var("PATH").unwrap_or_default());
    let mut shell = Command::new("bash");
    shell.args(["-c", &script]).current_dir(folder.path()).env("PATH", path);
    let output = shell.env("LEDGER_METRICS_LISTEN", format!("127.0.0.1:{metrics}")).output().expect("bash runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    for wanted in [
        r#"{"state":"reserved","period":{"start":"2026-11-01T00:00:00Z","end":"2026-12-01T00:00:00Z"},"left":{"queries":9999}}"#,
        r#"{"state":"settled","posted":{"queries":1,"prompt_tokens":812,"completion_tokens":96}}"#,
        r#""used":{"queries":1,"prompt_tokens":812,"completion_tokens":96},"reserved":{}"#,
        r#""counted":{"queries":1,"prompt_tokens":812,"completion_tokens":96}"#,
    ] {
        assert!(said.contains(wanted), "{wanted} is missing: {said}");
    }
    // Before the move and after it.
    let usage = |line: &&str| line.contains(r#""used":{"queries":1,"prompt_tokens":812"#) && line.starts_with('{');
    assert_eq!(said.lines().filter(usage).count(), 2, "the other ledger says the same: {said}");
}
