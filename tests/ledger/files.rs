//! The ledger's files in every bad state: each is refused, or survived, with a sentence that says what to do.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use rusqlite::Connection;
use serde_json::json;
use tenant_operator::ledger::store::sqlite::Sqlite;
use tenant_operator::ledger::store::{Store, StoreError};

use crate::conformance::reading;
use crate::support::{Api, Folder, Program, as_nobody, command, counted, free_port, refusal, reserve};

fn database(folder: &Folder) -> PathBuf {
    let data = folder.path().join("data");
    fs::create_dir_all(&data).expect("a folder");
    data.join("ledger.db")
}

/// A ledger that has counted so many operations and ended.
async fn used(folder: &Folder, operations: usize) {
    let mut program = Program::start(folder.path(), 0);
    let api = program.client();
    for number in 0..operations {
        api.must(&format!("q-{number}"), "settle", counted("acme", &json!({"queries": 1}))).await;
    }
    assert_eq!(program.stop().await.0, Some(0), "{}", program.logs());
}

/// A ledger does not start, and says why.
fn refuses(folder: &Folder, wanted: &str) {
    let (code, said) = refusal(&mut command(folder.path(), 0));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(wanted), "{wanted}: {said}");
    assert!(!said.contains("listening"), "{said}");
    assert_eq!(said.lines().filter(|line| line.starts_with("error: ")).count(), 1, "one sentence: {said}");
    assert!(!said.contains("panicked"), "{said}");
}

#[tokio::test]
async fn a_second_ledger_in_the_same_folder_refuses_to_start_and_the_first_goes_on() {
    let folder = Folder::new("two");
    let program = Program::start(folder.path(), 0);
    let data = folder.path().join("data");
    refuses(&folder, &format!("another ledger uses {}: stop it first, or set another folder", data.display()));
    // Nor by another name of the folder, nor in another process.
    let link = Folder::new("two-link");
    std::os::unix::fs::symlink(&data, link.path().join("data")).expect("a link");
    refuses(&link, "another ledger uses ");
    assert!(matches!(Sqlite::open(&data), Err(StoreError::InUse(_))));
    program.client().must("a", "settle", counted("acme", &json!({"queries": 1}))).await;
    program.kill();
    let program = Program::start(folder.path(), 0);
    assert_eq!(program.client().account("acme", "queries").await, [1, 0]);
}

#[tokio::test]
async fn a_folder_that_is_missing_is_made_and_a_file_in_its_place_is_refused() {
    let folder = Folder::new("missing");
    let deep = folder.path().join("a/b/c");
    drop(Sqlite::open(&deep).expect("a ledger"));
    assert!(deep.join("ledger.db").exists());
    fs::write(folder.path().join("data"), "a file").expect("a file");
    refuses(&folder, &format!("cannot use {}: ", folder.path().join("data").display()));
}

#[tokio::test]
async fn a_key_file_without_a_key_is_refused_without_showing_it() {
    let folder = Folder::new("key");
    fs::write(folder.path().join("key"), "hunter2\n").expect("a file");
    refuses(&folder, "must hold the 32 bytes of the ledger's key, or 64 lower-case hexadecimal digits");
    let (_, said) = refusal(&mut command(folder.path(), 0));
    assert!(!said.contains("hunter2"), "{said}");
}

#[tokio::test]
async fn a_ledger_of_a_later_version_is_refused_and_left_as_it_is() {
    let folder = Folder::new("newer");
    used(&folder, 1).await;
    let path = database(&folder);
    let connection = Connection::open(&path).expect("it opens");
    connection.pragma_update(None, "user_version", 7).expect("a later version");
    connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").expect("all in one file");
    drop(connection);
    let before = fs::read(&path).expect("a file");
    refuses(
        &folder,
        "the ledger has schema 7, and this version of tenant-operator knows 6: install the version that wrote it",
    );
    assert_eq!(fs::read(&path).expect("a file"), before);
}

#[tokio::test]
async fn a_file_that_is_no_ledger_is_refused_and_left_as_it_is() {
    for (what, content) in [("text", b"queries,7\n".repeat(1000)), ("noise", (0..=255).cycle().take(50_000).collect())]
    {
        let folder = Folder::new(what);
        let path = database(&folder);
        fs::write(&path, &content).expect("a file");
        refuses(&folder, &format!("{} is not a ledger of tenant-operator: set another folder", path.display()));
        assert_eq!(fs::read(&path).expect("a file"), content, "{what}");
    }
    let folder = Folder::new("foreign");
    let path = database(&folder);
    let connection = Connection::open(&path).expect("it opens");
    connection.execute_batch("CREATE TABLE account (id); INSERT INTO account VALUES (7)").expect("a table");
    drop(connection);
    let before = fs::read(&path).expect("a file");
    refuses(&folder, &format!("{} is not a ledger of tenant-operator: set another folder", path.display()));
    assert!(fs::read(&path).expect("a file") == before, "the database of another application was changed");
}

/// Overwrites pages of a file, the first one being 1.
fn damage(path: &Path, pages: impl IntoIterator<Item = u64>) {
    let file = File::options().write(true).open(path).expect("a file");
    for page in pages {
        file.write_all_at(&[0xa5; 4096], (page - 1) * 4096).expect("written");
    }
}

#[tokio::test]
async fn a_damaged_or_truncated_file_is_told_as_such_and_answers_nothing_wrong() {
    const DAMAGED: &str = "the ledger's file is damaged: stop the ledger and move its files away; on a cluster, \
        give it a new volume. With snapshots it begins with the latest one, without them empty";
    let folder = Folder::new("truncated");
    used(&folder, 300).await;
    let path = database(&folder);
    let length = fs::metadata(&path).expect("a file").len();
    assert!(length > 12 * 4096, "{length} bytes in all");
    let of_length = |length: u64| {
        let copy = Folder::new("truncated-copy");
        fs::copy(&path, database(&copy)).expect("a copy");
        File::options().write(true).open(database(&copy)).expect("a file").set_len(length).expect("its length");
        copy
    };
    // SQLite itself counts a part of a page as a page, and reads what is missing of the last one as zeros.
    for (what, left) in [
        ("half", length / 2 / 4096 * 4096),
        ("one page", 4096),
        ("part of a page", length / 2 + 100),
        ("all but the last page", length - 4096),
        ("one byte of the last page", length - 4095),
        ("half of the last page", length - 2048),
        ("all but the last byte", length - 1),
        ("a byte too many", length + 1),
    ] {
        eprintln!("{what}");
        refuses(&of_length(left), DAMAGED);
    }
    // Whole pages behind the end that the first page names are no part of the database.
    let longer = of_length(length + 4096);
    let program = Program::start(longer.path(), 0);
    assert_eq!(program.client().account("acme", "queries").await, [300, 0], "a page too long");
    program.client().must("more", "settle", counted("acme", &json!({"queries": 1}))).await;
    assert_eq!(program.client().account("acme", "queries").await, [301, 0]);
    drop(program);
    // The page with the tables' names.
    let copy = Folder::new("damaged-first");
    fs::copy(&path, database(&copy)).expect("a copy");
    let file = File::options().write(true).open(database(&copy)).expect("a file");
    // All of it but its header: where the names need more than a page, little of it is in use.
    file.write_all_at(&[0xa5; 3984], 112).expect("written");
    eprintln!("the tables' names");
    refuses(&copy, DAMAGED);

    // All that is not the first page.
    damage(&path, 2..=length / 4096);
    eprintln!("all but the first page");
    refuses(&folder, DAMAGED);
}

#[tokio::test]
async fn a_page_that_is_damaged_while_the_ledger_runs_fails_what_needs_it_and_is_told() {
    let folder = Folder::new("damaged");
    used(&folder, 300).await;
    let path = database(&folder);
    let connection = Connection::open(&path).expect("it opens");
    let root = "SELECT rootpage FROM sqlite_schema WHERE name = 'account'";
    let root: i64 = connection.query_row(root, [], |row| row.get(0)).expect("a table");
    drop(connection);
    damage(&path, [u64::try_from(root).expect("a page")]);
    let program = Program::start(folder.path(), 0);
    let api = program.client();
    for (what, (status, problem)) in [
        ("usage", api.get("/v1/tenants/acme/usage").await),
        ("periods", api.get("/v1/tenants/acme/periods").await),
        ("settle", api.command("new", "settle", counted("acme", &json!({"queries": 1}))).await.expect("an answer")),
        (
            "reserve",
            api.command("new", "reserve", reserve("acme", &json!({"queries": 1}), &json!({"queries": 1000}), 60))
                .await
                .expect("an answer"),
        ),
    ] {
        assert_eq!((status, problem["code"].as_str()), (503, Some("ledger_unavailable")), "{what}: {problem}");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("is damaged")), "{what}: {problem}");
    }
    assert!(program.logs().contains("is damaged"), "{}", program.logs());
}

#[tokio::test]
async fn an_interrupted_first_start_is_begun_again() {
    let folder = Folder::new("empty");
    fs::write(database(&folder), "").expect("an empty file");
    used(&folder, 1).await;
    // A write-ahead log whose end was never written holds what was committed before.
    let folder = Folder::new("torn");
    let program = Program::start(folder.path(), 0);
    for number in 0..20 {
        program.client().must(&format!("q-{number}"), "settle", counted("acme", &json!({"queries": 1}))).await;
    }
    program.kill();
    let log = database(&folder).with_extension("db-wal");
    let length = fs::metadata(&log).expect("a log").len();
    let file = File::options().write(true).open(&log).expect("a log");
    file.write_all_at(&[0xa5; 1000], length).expect("half a frame more");
    let program = Program::start(folder.path(), 0);
    assert_eq!(program.client().account("acme", "queries").await, [20, 0]);
}

/// A small file system of its own. None where it cannot be: it needs root.
pub struct Volume(PathBuf);

impl Volume {
    pub fn new(folder: &Folder, size: &str) -> Option<Self> {
        let path = folder.path().join("data");
        fs::create_dir_all(&path).expect("a folder");
        mount(&["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"], &path).then_some(Self(path))
    }

    pub fn again(&self, options: &str) {
        assert!(mount(&["-o", &format!("remount,{options}")], &self.0), "{options}");
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

fn mount(options: &[&str], path: &Path) -> bool {
    Command::new("mount").args(options).arg(path).output().is_ok_and(|done| done.status.success())
}

#[tokio::test]
async fn a_full_volume_refuses_and_goes_on_with_all_that_it_answered_once_there_is_room() {
    let folder = Folder::new("full");
    let Some(volume) = Volume::new(&folder, "1200k") else {
        eprintln!("Not tested: a small volume needs root.");
        return;
    };
    let port = free_port();
    let program = Program::start(folder.path(), port);
    let api = program.client();
    let (mut told, mut number) = (0, 0);
    let mut fill = async |api: &Api, most: i64| {
        for _ in 0..most {
            number += 1;
            let body = counted("acme", &json!({"queries": 1}));
            let name = format!("q-{number}");
            match api.command(&name, "settle", body).await.expect("an answer") {
                (200, _) => told += 1,
                (503, problem) => return (told, name, problem["detail"].as_str().unwrap_or_default().to_owned()),
                other => panic!("{other:?}"),
            }
        }
        panic!("the volume is not full after {told}")
    };
    let (before, first, detail) = fill(&api, 20_000).await;
    assert_eq!(detail, "the ledger's volume is full: enlarge it");
    assert!(before > 20, "{before}");
    let ready = api.probe("/readyz").await;
    assert!(ready.0 == 503 && ready.1.contains("volume is full"), "{ready:?}");
    assert_eq!(api.account("acme", "queries").await, [before, 0], "it is read all the same");
    // A reservation that finds it full is not awaited: clients that try again and again cost no memory.
    let body = reserve("acme", &json!({"queries": 1}), &json!({}), 3600);
    let mut reserved = 0;
    while api.command(&format!("r-{reserved}"), "reserve", body.clone()).await.expect("an answer").0 == 200 {
        reserved += 1;
    }
    assert_eq!(api.pending().await, reserved);
    // Others find it full as well, in a batch too.
    let many = (0..50).map(|number| {
        let api = api.clone();
        async move { api.command(&format!("b-{number}"), "settle", counted("acme", &json!({"queries": 1}))).await }
    });
    for answer in futures::future::join_all(many).await {
        assert_eq!(answer.expect("an answer").0, 503);
    }
    program.kill();

    // A ledger that starts on a full volume has all that was answered.
    let mut program = Program::start(folder.path(), port);
    let api = program.client();
    assert_eq!(api.account("acme", "queries").await, [before, reserved]);
    volume.again("size=2200k");
    api.must("room", "settle", counted("acme", &json!({"queries": 1}))).await;
    let (after, second, detail) = fill(&api, 20_000).await;
    assert_eq!(detail, "the ledger's volume is full: enlarge it");
    assert!(after > before + 20, "{before} and {after}");
    // The same process goes on.
    assert_eq!(api.probe("/readyz").await.0, 503, "the volume is full again");
    volume.again("size=20m");
    assert_eq!(api.probe("/readyz").await.0, 200, "there is room, although no command was written since");
    api.must("more-room", "settle", counted("acme", &json!({"queries": 1}))).await;
    // A command whose commit failed is repeated under its name: it counts, and counts once.
    for name in [&first, &second, &first, &second] {
        api.must(name, "settle", counted("acme", &json!({"queries": 1}))).await;
    }
    assert_eq!(api.account("acme", "queries").await, [after + 4, reserved]);
    assert_eq!(program.stop().await.0, Some(0));
    let store: Arc<dyn Store> = Arc::new(Sqlite::open(&folder.path().join("data")).expect("a ledger"));
    reading::agree(&store, &["acme"]).await.expect("accounts, days and lines agree");
}

#[tokio::test]
async fn a_volume_that_is_full_from_the_beginning_or_read_only_is_told() {
    let folder = Folder::new("tiny");
    let Some(volume) = Volume::new(&folder, "16k") else {
        eprintln!("Not tested: a small volume needs root.");
        return;
    };
    refuses(&folder, "the ledger's volume is full: enlarge it");
    volume.again("size=20m");
    used(&folder, 5).await;
    volume.again("ro");
    refuses(&folder, &format!("cannot use {}", volume.0.join("ledger.lock").display()));
    volume.again("rw");
    used(&folder, 10).await;
}

#[tokio::test]
async fn a_folder_or_a_file_that_may_not_be_written_is_told() {
    let folder = Folder::new("permissions");
    used(&folder, 5).await;
    let data = folder.path().join("data");
    // Another user than root, which may do everything.
    let as_another = |folder: &Folder| {
        let mut command = command(folder.path(), 0);
        if rustix::process::geteuid().is_root() {
            command = as_nobody(&command);
        }
        refusal(&mut command)
    };
    fs::set_permissions(&data, Permissions::from_mode(0o555)).expect("permissions");
    for file in fs::read_dir(&data).expect("files") {
        fs::set_permissions(file.expect("a file").path(), Permissions::from_mode(0o444)).expect("permissions");
    }
    let (code, said) = as_another(&folder);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains(&format!("error: cannot use {}: Permission denied", data.join("ledger.lock").display())),
        "{said}"
    );
    // The lock may be written, and the database not.
    fs::set_permissions(data.join("ledger.lock"), Permissions::from_mode(0o666)).expect("permissions");
    fs::set_permissions(&data, Permissions::from_mode(0o777)).expect("permissions");
    let (code, said) = as_another(&folder);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("ledger.db"), "{said}");
    for file in fs::read_dir(&data).expect("files") {
        fs::set_permissions(file.expect("a file").path(), Permissions::from_mode(0o644)).expect("permissions");
    }
    used(&folder, 5).await;
}
