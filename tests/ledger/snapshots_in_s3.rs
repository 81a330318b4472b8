//! Snapshots in S3: a ledger that lost its volume begins with the latest one by itself. Whatever is wrong with the
//! storage, a ledger with its files serves, none begins in another's place or with less than there is, and no object is
//! written over.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::s3::S3;
use crate::support::{Api, Folder, LIMIT, Program, command, counted, refusal};

/// A ledger whose snapshots are in this folder of the bucket.
fn with_snapshots(folder: &Path, endpoint: &str, snapshots: &str, every: &str) -> Command {
    let mut command = command(folder, 0);
    command.envs(S3::variables(endpoint)).args(["--snapshots", &S3::url(snapshots), "--snapshot-interval", every]);
    command
}

fn start(folder: &Folder, s3: &S3, snapshots: &str, every: &str) -> Program {
    Program::of(with_snapshots(folder.path(), s3.endpoint(), snapshots, every), folder.path())
}

fn lose(folder: &Folder) {
    std::fs::remove_dir_all(folder.path().join("data")).expect("a volume");
}

async fn count(api: &Api, name: &str, number: usize) {
    for question in 0..number {
        api.must(&format!("{name}-{question}"), "settle", counted("acme", &json!({"queries": 1}))).await;
    }
}

async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < LIMIT, "it never came that {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The one snapshot of a ledger that has counted so many queries and lost its volume: its name and its bytes.
async fn one_snapshot(s3: &S3, snapshots: &str, queries: usize) -> (String, Vec<u8>) {
    let folder = Folder::new("s3-first");
    let mut program = Program::start(folder.path(), 0);
    count(&program.client(), "q", queries).await;
    assert_eq!(program.stop().await.0, Some(0));
    let program = start(&folder, s3, snapshots, "1h");
    until("there is a snapshot", async || s3.names(snapshots).await.len() == 1).await;
    program.kill();
    let name = s3.names(snapshots).await.remove(0);
    let bytes = s3.read(&name).await;
    (name, bytes)
}

/// The name of a snapshot that was taken so many seconds after this one.
fn later(name: &str, seconds: i64) -> String {
    let (folder, file) = name.rsplit_once('/').expect("a folder");
    let second: i64 = file.strip_suffix(".db").and_then(|second| second.parse().ok()).expect("a time");
    format!("{folder}/{:012}.db", second + seconds)
}

/// A ledger with an empty folder ends with one sentence that says this, and leaves no ledger behind.
fn begins_nothing(mut command: Command, folder: &Folder, wanted: &[&str]) {
    let (code, said) = refusal(&mut command);
    assert_eq!(code, Some(1), "{said}");
    assert!(wanted.iter().all(|wanted| said.contains(wanted)), "{wanted:?}: {said}");
    assert_eq!(said.lines().filter(|line| line.starts_with("error: ")).count(), 1, "one sentence: {said}");
    assert!(!said.contains("listening") && !said.contains("panicked"), "{said}");
    assert!(!folder.path().join("data/ledger.db").exists(), "a ledger was begun");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_lost_its_volume_begins_with_its_latest_snapshot_in_s3() {
    let (s3, folder) = (S3::start().await, Folder::new("s3"));
    let program = start(&folder, &s3, "ours", "1s");
    let api = program.client();
    count(&api, "before", 30).await;
    let taken = s3.names("ours").await.len();
    // The one after the next was begun after all of this was counted.
    until("snapshots are taken", async || s3.names("ours").await.len() >= taken + 2).await;
    let (_, status) = api.get("/v1/status").await;
    let before = status["beginning"]["id"].clone();
    program.kill();
    lose(&folder);

    let program = start(&folder, &s3, "ours", "1s");
    let api = program.client();
    assert_eq!(api.account("acme", "queries").await, [30, 0]);
    assert!(program.logs().contains("the ledger begins with the latest snapshot"), "{}", program.logs());
    let (_, status) = api.get("/v1/status").await;
    let beginning = &status["beginning"];
    assert!(beginning["snapshot"].is_string() && beginning["id"] != before, "{status}");
    count(&api, "after", 5).await;
    count(&api, "before", 30).await;
    assert_eq!(api.account("acme", "queries").await, [35, 0], "what it had counts once");
    let ledgers: std::collections::BTreeSet<_> =
        s3.names("ours").await.iter().filter_map(|name| Some(name.split('/').nth(1)?.to_owned())).collect();
    assert_eq!(ledgers.len(), 1, "it is the same ledger: {ledgers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storage_that_refuses_or_is_away_stops_no_ledger_that_has_its_files_and_lets_none_begin_empty() {
    let (s3, folder) = (S3::start().await, Folder::new("s3-refuses"));
    let program = start(&folder, &s3, "ours", "1s");
    let api = program.client();
    until("a snapshot is taken", async || !s3.names("ours").await.is_empty()).await;
    s3.knows_keys(false).await;
    let told = |program: &Program| {
        let logs = program.logs();
        logs.lines().any(|line| line.contains("no snapshot was taken") && line.contains("403"))
    };
    until("the ledger reports the refusal", async || told(&program)).await;
    count(&api, "refused", 10).await;
    assert_eq!(api.probe("/readyz").await.0, 200);
    program.kill();
    // A ledger that starts with its files needs no storage, whether it refuses or is away.
    let nowhere = format!("http://127.0.0.1:{}", crate::support::free_port());
    for (name, endpoint) in [("refuses", s3.endpoint()), ("is away", &*nowhere)] {
        let program = Program::of(with_snapshots(folder.path(), endpoint, "ours", "1s"), folder.path());
        count(&program.client(), name.split(' ').next().expect("a word"), 10).await;
        program.kill();
    }
    lose(&folder);
    let refused = with_snapshots(folder.path(), s3.endpoint(), "ours", "1s");
    begins_nothing(refused, &folder, &["error: the storage of snapshots: ", "403"]);
    let away = with_snapshots(folder.path(), &nowhere, "ours", "1s");
    begins_nothing(away, &folder, &["error: the storage of snapshots: ", "Connection refused"]);
    // It takes connections, and says nothing.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let silent = format!("http://{}", listener.local_addr().expect("its address"));
    let hangs = with_snapshots(folder.path(), &silent, "ours", "1s");
    begins_nothing(hangs, &folder, &["s3://ledgers/ours does not answer, and the folder is empty"]);
    s3.knows_keys(true).await;
    let program = start(&folder, &s3, "ours", "1h");
    assert!(program.logs().contains("the ledger begins with the latest snapshot"), "{}", program.logs());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_was_cut_off_gives_way_to_the_one_before_and_stays_as_it_is() {
    let s3 = S3::start().await;
    let (name, whole) = one_snapshot(&s3, "cut", 300).await;
    let length = whole.len();
    assert!(length > 12 * 4096 && length.is_multiple_of(4096), "{length}");
    for left in [0, 50, 4096, length / 2, length - 4096, length - 4095, length - 1] {
        let snapshots = format!("cut-{left}");
        let good = name.replacen("cut", &snapshots, 1);
        let cut = later(&good, 60);
        s3.write(&good, whole.clone()).await;
        s3.write(&cut, whole[..left].to_vec()).await;
        let folder = Folder::new("s3-cut");
        let program = start(&folder, &s3, &snapshots, "1h");
        assert_eq!(program.client().account("acme", "queries").await, [300, 0], "{left} bytes of {length}");
        assert!(program.logs().contains("a snapshot cannot be used"), "{left}: {}", program.logs());
        // Its own comes after both.
        until("there is another", async || s3.names(&snapshots).await.len() == 3).await;
        let names = s3.names(&snapshots).await;
        assert_eq!(names[..2], [good.clone(), cut.clone()], "{names:?}");
        assert!(s3.read(&good).await == whole && s3.read(&cut).await == whole[..left], "{left}: written over");
    }
    // Alone, it is no ledger.
    let folder = Folder::new("s3-cut");
    s3.write(&name.replacen("cut", "cut-alone", 1), whole[..length - 1].to_vec()).await;
    let alone = with_snapshots(folder.path(), s3.endpoint(), "cut-alone", "1h");
    begins_nothing(alone, &folder, &["none of the 1 snapshots in s3://ledgers/cut-alone can be restored", "damaged"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_of_a_later_version_is_not_passed_over_for_an_earlier_one() {
    let s3 = S3::start().await;
    let (name, bytes) = one_snapshot(&s3, "newer", 20).await;
    let folder = Folder::new("s3-newer");
    let file = folder.path().join("newer.db");
    std::fs::write(&file, &bytes).expect("a file");
    let connection = Connection::open(&file).expect("it opens");
    connection.pragma_update(None, "user_version", 7).expect("a later version");
    connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").expect("all in one file");
    drop(connection);
    let newer = (later(&name, 300), std::fs::read(&file).expect("a file"));
    s3.write(&newer.0, newer.1.clone()).await;
    let command = with_snapshots(folder.path(), s3.endpoint(), "newer", "1s");
    let wanted =
        ["s3://ledgers/newer: the latest snapshot cannot be restored", "schema 7", "install the version that wrote it"];
    begins_nothing(command, &folder, &wanted);
    assert_eq!(s3.names("newer").await, [name.clone(), newer.0.clone()]);
    assert!(s3.read(&name).await == bytes && s3.read(&newer.0).await == newer.1, "written over");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_installations_with_one_folder_leave_each_others_snapshots_alone_and_restore_none() {
    let s3 = S3::start().await;
    let (name, bytes) = one_snapshot(&s3, "shared", 20).await;
    let other = Folder::new("s3-other");
    // It has its own files before it is given this folder: an empty ledger would begin with what is there.
    let mut program = Program::start(other.path(), 0);
    count(&program.client(), "other", 3).await;
    assert_eq!(program.stop().await.0, Some(0));
    let program = start(&other, &s3, "shared", "1s");
    until("it has taken several", async || s3.names("shared").await.len() > 4).await;
    let (_, usage): (u16, Value) = program.client().get("/v1/tenants/acme/usage").await;
    assert_eq!(usage["used"]["queries"], 3, "{usage}");
    program.kill();
    assert!(s3.read(&name).await == bytes, "written over");
    lose(&other);
    let command = with_snapshots(other.path(), s3.endpoint(), "shared", "1s");
    begins_nothing(command, &other, &["s3://ledgers/shared holds snapshots of 2 ledgers"]);
}
