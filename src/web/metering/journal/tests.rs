//! The journal's files in every state, without a ledger. `tests/ledger/journal.rs` delivers, and kills.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::sync::atomic::AtomicUsize;

use futures::future::join_all;
use rusqlite::Connection;
use serde_json::{Value, json};

use super::*;

const LARGE: u64 = 16 << 20;

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("web-journal-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    fn open(&self) -> Journal {
        Journal::open(&self.0, LARGE).expect("a journal")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// What a crash would leave at this moment.
    fn crashed(&self) -> Self {
        let copy = Self::new();
        for name in ["journal.db", "journal.db-wal"] {
            fs::copy(self.file(name), copy.file(name)).expect("a copy");
        }
        copy
    }

    /// What is in the one folder of unreadable files.
    fn aside(&self) -> PathBuf {
        let names = fs::read_dir(&self.0).expect("a folder").map(|name| name.expect("a name").path());
        let mut aside = names.filter(|name| name.to_string_lossy().contains("/unreadable-"));
        let first = aside.next().expect("a folder");
        assert!(aside.next().is_none());
        first
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

fn entry(action: &str, operation: &str, tenant: &str) -> Entry {
    let period = json!({"start": "2026-01-01T00:00:00Z", "end": "2036-01-01T00:00:00Z"});
    let mut body = json!({"tenant": tenant, "period": period});
    if action != "void" {
        body["amounts"] = json!({"documents": 1});
    }
    serde_json::from_value(json!({"action": action, "operation": operation, "body": body})).expect("an entry")
}

async fn keep(journal: &Journal, numbers: std::ops::Range<usize>) {
    let entries: Vec<_> = numbers.map(|number| entry("settle", &format!("q-{number}"), "acme")).collect();
    for kept in join_all(entries.iter().map(|entry| journal.keep(entry))).await {
        kept.expect("kept");
    }
}

/// The operations that wait, in order.
async fn waiting(journal: &Journal) -> Vec<String> {
    let (mut names, mut after) = (Vec::new(), 0);
    loop {
        let page = journal.writer.read(after).await.expect("a page");
        let Some((last, _)) = page.last() else { return names };
        after = *last;
        names.extend(page.iter().map(|(_, line)| {
            let line: Value = serde_json::from_str(line).expect("JSON");
            line["operation"].as_str().expect("a name").to_owned()
        }));
    }
}

#[test]
fn an_entry_is_one_line_that_is_read_as_it_was_written() {
    for action in ["settle", "void", "release"] {
        let line = serde_json::to_string(&entry(action, "q-1", "acme")).expect("JSON");
        assert!(!line.contains('\n'));
        let read: Entry = serde_json::from_str(&line).expect("an entry");
        assert_eq!(serde_json::to_string(&read).expect("JSON"), line);
        assert_eq!((read.operation(), read.tenant().as_str()), ("q-1", "acme"));
    }
    let unknown = r#"{"action":"void","operation":"a","body":{"tenant":"a","period":{"start":"2026-01-01T00:00:00Z","end":"2027-01-01T00:00:00Z"},"more":1}}"#;
    assert!(serde_json::from_str::<Entry>(unknown).is_err());
}

#[tokio::test]
async fn many_entries_at_once_share_a_commit_and_stay_in_order() {
    let folder = Folder::new();
    let journal = folder.open();
    keep(&journal, 0..1000).await;
    let commits = journal.seen.commits.load(Ordering::Relaxed);
    assert!(commits < 100, "{commits} commits");
    assert_eq!(journal.entries(), 1000);
    let wanted: Vec<_> = (0..1000).map(|number| format!("q-{number}")).collect();
    assert_eq!(waiting(&journal).await, wanted);
}

#[test]
fn each_commit_is_synced_before_it_returns() {
    let folder = Folder::new();
    let connection = files::JournalPlace { folder: folder.0.clone(), most_pages: 100 }.open().expect("a database");
    let number = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0)).expect("a number");
    // 2 is FULL: in WAL mode, a sync in each commit.
    assert_eq!(number("synchronous"), 2);
    let mode: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).expect("a mode");
    assert_eq!(mode, "wal");
}

#[tokio::test]
async fn what_was_kept_outlives_a_crash_and_a_torn_end() {
    let folder = Folder::new();
    let journal = folder.open();
    for number in 0..50 {
        keep(&journal, number..number + 1).await;
    }
    let crashed = folder.crashed();
    assert_eq!(waiting(&crashed.open()).await.len(), 50);

    // Half a frame that was never committed.
    let crashed = folder.crashed();
    let log = File::options().append(true).open(crashed.file("journal.db-wal")).expect("a log");
    let length = log.metadata().expect("a log").len();
    std::io::Write::write_all(&mut &log, &[0xa5; 1000]).expect("written");
    let again = crashed.open();
    assert_eq!((waiting(&again).await.len(), again.set_aside()), (50, 0));
    keep(&again, 50..60).await;
    drop(again);
    assert_eq!(waiting(&crashed.open()).await.len(), 60);

    // The last commit was written in part.
    let crashed = folder.crashed();
    File::options().write(true).open(crashed.file("journal.db-wal")).expect("a log").set_len(length - 7).expect("cut");
    let again = crashed.open();
    assert_eq!((waiting(&again).await.len(), again.set_aside()), (49, 0));
}

#[tokio::test]
async fn a_tenant_that_floods_the_journal_leaves_room_for_others() {
    let folder = Folder::new();
    let journal = Journal::open(&folder.0, 256 * 1024).expect("a journal");
    let fill = async |tenant: &str| {
        let mut kept = 0_u64;
        while journal.has_room_for(tenant) {
            journal.keep(&entry("settle", &format!("{tenant}-{kept}"), tenant)).await.expect("kept");
            kept += 1;
        }
        kept
    };
    let (first, second) = (fill("flood").await, fill("second").await);
    assert!(first > 300 && second > first / 3 && second < first, "{first} and {second}");
    assert!(journal.has_room() && journal.has_room_for("other") && !journal.has_room_for("flood"));
    // What is no entry is in nobody's share.
    journal.writer.keep(Line { tenant: String::new(), text: "no JSON".into() }).await.expect("kept");
    drop(journal);

    let journal = Journal::open(&folder.0, 256 * 1024).expect("a journal");
    assert!(journal.has_room_for("other") && !journal.has_room_for("flood"), "after a restart");
    while journal.entries() > second {
        let page = journal.writer.read(0).await.expect("a page");
        journal.writer.remove(page.iter().map(|(number, _)| *number).collect()).await.expect("removed");
    }
    assert!(journal.has_room_for("flood"), "its entries are delivered");
    while journal.entries() > 0 {
        let page = journal.writer.read(0).await.expect("a page");
        journal.writer.remove(page.iter().map(|(number, _)| *number).collect()).await.expect("removed");
    }
    assert!(journal.seen.by_tenant().is_empty(), "{:?}", journal.seen.by_tenant());
}

#[tokio::test]
async fn a_small_journal_says_when_it_is_full_and_has_room_again() {
    let folder = Folder::new();
    let journal = Journal::open(&folder.0, 128 * 1024).expect("a journal");
    let (mut kept, mut kept_with_room) = (0, 0);
    let error = loop {
        let has_room = journal.has_room();
        match journal.keep(&entry("settle", &format!("q-{kept}"), "acme")).await {
            Ok(()) => kept += 1,
            Err(error) => break error,
        }
        kept_with_room += u64::from(has_room);
        assert!(kept < 10_000);
    };
    assert!(matches!(error, JournalError::Full), "{error}");
    assert!(!journal.has_room());
    assert_eq!(journal.entries(), kept);
    assert!(kept_with_room > 100 && kept - kept_with_room > 50, "{kept_with_room} of {kept} with room");
    // A batch in which none fits, and nothing of which is written.
    let many = (0..50).map(|number| entry("settle", &format!("more-{number}"), "acme")).collect::<Vec<_>>();
    for refused in join_all(many.iter().map(|entry| journal.keep(entry))).await {
        // What is left of the last page may take a few.
        assert!(matches!(refused, Ok(()) | Err(JournalError::Full)), "{refused:?}");
    }
    let kept = journal.entries();
    let size = fs::metadata(folder.file("journal.db")).expect("a file").len();
    assert!(size <= 128 * 1024, "{size}");
    drop(journal);

    let journal = Journal::open(&folder.0, 128 * 1024).expect("a journal");
    assert!(!journal.has_room());
    assert_eq!((journal.entries(), waiting(&journal).await.len() as u64), (kept, kept));
    let first: Vec<_> = journal.writer.read(0).await.expect("a page").iter().map(|(number, _)| *number).collect();
    let removed = first.len() as u64;
    journal.writer.remove(first).await.expect("removed");
    assert_eq!(journal.entries(), kept - removed);
    assert!(journal.has_room());
    journal.keep(&entry("settle", "again", "acme")).await.expect("kept");
    assert_eq!(waiting(&journal).await.last().map(String::as_str), Some("again"));
}

#[tokio::test]
async fn a_second_replica_in_the_same_folder_is_told_and_the_first_goes_on() {
    let folder = Folder::new();
    let deep = folder.file("a/b");
    let journal = Journal::open(&deep, LARGE).expect("a journal");
    let error = Journal::open(&deep, LARGE).expect_err("in use").to_string();
    let wanted = "another replica of web uses the journal in ";
    assert!(error.starts_with(wanted) && error.contains(&deep.display().to_string()), "{error}");
    keep(&journal, 0..1).await;
    drop(journal);
    assert_eq!(Journal::open(&deep, LARGE).expect("a journal").entries(), 1);
    // A file in the place of the folder.
    let error = Journal::open(&deep.join("journal.db"), LARGE).expect_err("a file");
    assert!(matches!(&error, JournalError::Io { path, .. } if path.ends_with("journal.db")), "{error}");
}

#[tokio::test]
async fn what_is_no_journal_is_set_aside_as_it_is() {
    let foreign = Folder::new();
    let connection = Connection::open(foreign.file("journal.db")).expect("it opens");
    connection.execute_batch("CREATE TABLE entry (seq, line); INSERT INTO entry VALUES (7, 'x')").expect("a table");
    connection.close().expect("closed");
    let foreign = fs::read(foreign.file("journal.db")).expect("a file");
    let later = Folder::new();
    keep(&later.open(), 0..3).await;
    let connection = Connection::open(later.file("journal.db")).expect("it opens");
    connection.pragma_update(None, "user_version", 7).expect("a later version");
    connection.close().expect("closed");
    let later = fs::read(later.file("journal.db")).expect("a file");
    for (what, content, kept) in [
        ("text", b"queries,7\n".repeat(1000), 0),
        ("a word", b"hello".to_vec(), 0),
        ("noise", (0..=255).cycle().take(50_000).collect(), 0),
        ("another application", foreign, 0),
        // Its entries are kept, if they can be read.
        ("a later version", later, 3),
    ] {
        let folder = Folder::new();
        fs::write(folder.file("journal.db"), &content).expect("a file");
        let journal = folder.open();
        assert_eq!((journal.set_aside(), journal.entries()), (1, kept), "{what}");
        assert!(fs::read(folder.aside().join("journal.db")).expect("a file") == content, "{what} was changed");
        keep(&journal, 0..5).await;
        drop(journal);
        let journal = folder.open();
        assert_eq!((journal.set_aside(), journal.entries()), (1, kept + 5), "{what}");
    }
    // A folder, and a log whose database is gone.
    let folder = Folder::new();
    fs::create_dir_all(folder.file("journal.db/x")).expect("a folder");
    assert_eq!(folder.open().set_aside(), 1);
    let of = Folder::new();
    let journal = of.open();
    keep(&journal, 0..5).await;
    let crashed = of.crashed();
    let log = fs::read(crashed.file("journal.db-wal")).expect("a log");
    for empty in [true, false] {
        let folder = Folder::new();
        fs::write(folder.file("journal.db-wal"), &log).expect("a log");
        if empty {
            fs::write(folder.file("journal.db"), "").expect("a file");
        }
        assert_eq!(folder.open().set_aside(), 1);
        assert!(fs::read(folder.aside().join("journal.db-wal")).expect("a log") == log);
    }
}

#[tokio::test]
async fn an_interrupted_first_start_is_begun_again() {
    let folder = Folder::new();
    fs::write(folder.file("journal.db"), "").expect("an empty file");
    let journal = folder.open();
    assert_eq!((journal.set_aside(), journal.entries()), (0, 0));
}

/// A journal of 3000 entries, all of them in the database.
async fn large() -> Folder {
    let folder = Folder::new();
    let journal = folder.open();
    keep(&journal, 0..3000).await;
    drop(journal);
    let connection = Connection::open(folder.file("journal.db")).expect("it opens");
    connection.pragma_update_and_check(None, "wal_checkpoint", "truncate", |_| Ok(())).expect("all in one file");
    folder
}

fn damage(folder: &Folder, page: u64) {
    let file = File::options().write(true).open(folder.file("journal.db")).expect("a file");
    file.write_all_at(&[0xa5; 4096], (page - 1) * 4096).expect("written");
}

#[tokio::test]
async fn of_a_damaged_journal_the_entries_that_can_be_read_are_kept() {
    let folder = large().await;
    damage(&folder, 100);
    let damaged = fs::read(folder.file("journal.db")).expect("a file");
    let journal = folder.open();
    assert_eq!(journal.set_aside(), 1);
    assert!(fs::read(folder.aside().join("journal.db")).expect("a file") == damaged);
    let left = waiting(&journal).await;
    assert!(left.len() > 2900 && left.len() < 3000, "{}", left.len());
    assert_eq!((left.first().map(String::as_str), left.last().map(String::as_str)), (Some("q-0"), Some("q-2999")));
    // The first page, and a file that was cut: none or some.
    for (length, page) in [(None, 1), (Some(100 * 4096), 90), (Some(100 * 4096 + 100), 90)] {
        let folder = large().await;
        damage(&folder, page);
        if let Some(length) = length {
            File::options().write(true).open(folder.file("journal.db")).expect("a file").set_len(length).expect("cut");
        }
        let journal = folder.open();
        assert_eq!(journal.set_aside(), 1);
        keep(&journal, 3000..3005).await;
    }
}

#[tokio::test]
async fn the_log_of_a_damaged_journal_is_set_aside_as_it_is() {
    let folder = Folder::new();
    let journal = folder.open();
    // In many commits, so that a part is in the database and the rest is in the log.
    for number in 0..400 {
        keep(&journal, 5 * number..5 * (number + 1)).await;
    }
    let crashed = folder.crashed();
    damage(&crashed, 10);
    let log = fs::read(crashed.file("journal.db-wal")).expect("a log");
    let journal = crashed.open();
    assert_eq!(journal.set_aside(), 1);
    assert!(fs::read(crashed.aside().join("journal.db-wal")).expect("a log") == log, "the log was changed");
    assert!(waiting(&journal).await.len() > 1900);
}

#[tokio::test]
async fn a_page_that_is_damaged_while_the_journal_is_open_costs_no_other_entry() {
    let folder = large().await;
    let journal = folder.open();
    // One that the check at the start has read first, so that SQLite does not have it in memory any more.
    damage(&folder, 10);
    let mut pages = 0;
    let mut after = 0;
    while let Ok(page) = journal.writer.read(after).await {
        let Some((last, _)) = page.last() else { break };
        (after, pages) = (*last, pages + 1);
    }
    assert!(pages < 12, "the damage is not seen");
    keep(&journal, 3000..3005).await;
    assert_eq!(journal.set_aside(), 1);
    let left = waiting(&journal).await;
    assert!(left.len() > 2900 && left.len() < 3005, "{}", left.len());
    assert_eq!(left.last().map(String::as_str), Some("q-3004"));
}

#[test]
fn a_refused_entry_has_a_line_of_its_own_after_a_torn_one() {
    let folder = Folder::new();
    assert_eq!(refused::lines(&folder.0).expect("none"), 0);
    refused::append(&folder.0, "one").expect("written");
    let file = File::options().append(true).open(folder.file("refused.jsonl")).expect("a file");
    std::io::Write::write_all(&mut &file, b"tor").expect("written");
    refused::append(&folder.0, "two").expect("written");
    assert_eq!(fs::read_to_string(folder.file("refused.jsonl")).expect("text"), "one\ntor\ntwo\n");
    assert_eq!(folder.open().refused(), 3);
}
