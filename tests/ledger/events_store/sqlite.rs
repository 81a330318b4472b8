//! An events store in a file of `SQLite`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::Connection;
use tenant_operator::ledger::events::sqlite::SqliteEvents;
use tenant_operator::ledger::events::{Batch, EventsError, EventsStore, Mark, Page, Span};

use super::{OURS, Place, Spoil, at, judge, line, used};
use crate::conformance::{DAY, NOON};
use crate::support::Folder;

/// A folder with the file.
pub struct File(Folder);

impl File {
    pub fn place() -> Box<dyn Place> {
        Box::new(Self(Folder::new("events")))
    }

    fn path(&self) -> std::path::PathBuf {
        self.0.path().join("events.db")
    }

    fn execute(&self, sql: &str) {
        Connection::open(self.path()).expect("it opens").execute_batch(sql).expect(sql);
    }
}

#[async_trait]
impl Place for File {
    fn open(&self) -> Arc<dyn EventsStore> {
        Arc::new(SqliteEvents::new(&self.path()))
    }

    async fn spoil(&self, how: Spoil) {
        match how {
            Spoil::StrayLine => self.execute(&format!(
                "INSERT INTO line VALUES ('acme', {NOON}, 999999, {NOON}, 'stray', {NOON}, 'settled', 1, 0, 0, 0, 0, 0, 0)"
            )),
            Spoil::Newer => self.execute("PRAGMA user_version = 9"),
            Spoil::SomethingElse => self.execute("CREATE TABLE customers (name TEXT); PRAGMA user_version = 1"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_events_store_in_sqlite_keeps_every_contract() {
    assert_eq!(judge(File::place).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_is_made_anew_and_another_one_is_not_touched() {
    let file = File(Folder::new("damaged"));
    let lines: Vec<_> = (1..=5000).map(|seq| line(seq, "acme", seq, used(1))).collect();
    let store = file.open();
    let position = store.position(OURS).await.expect("a new store");
    let batch = Batch { generation: position.generation, after: position.mark, lines };
    store.append(OURS, &batch).await.expect("appended");
    drop(store);
    let mut bytes = std::fs::read(file.path()).expect("the file");
    bytes[100..4096].fill(0xff);
    std::fs::write(file.path(), bytes).expect("damaged");
    let position = file.open().position(OURS).await.expect("made anew");
    assert_eq!(position.mark, Mark::default());
    std::fs::write(file.path(), "a letter to the customers, longer than the header of a database ".repeat(30))
        .expect("text");
    drop(std::fs::remove_file(file.0.path().join("events.db-wal")));
    let refused = file.open().position(OURS).await.expect_err("no events store").to_string();
    assert!(refused.contains("holds something else") && refused.contains("events.db"), "{refused}");
    assert!(std::fs::read_to_string(file.path()).is_ok_and(|text| text.starts_with("a letter")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_found_damaged_later_is_made_anew() {
    let file = File(Folder::new("damaged-later"));
    let lines: Vec<_> = (1..=5000).map(|seq| line(seq, "acme", seq, used(1))).collect();
    let ever = Span { from: at(0), to: at(NOON * 2) };
    let store = file.open();
    let position = store.position(OURS).await.expect("a new store");
    let batch = Batch { generation: position.generation, after: position.mark, lines: lines.clone() };
    store.append(OURS, &batch).await.expect("appended");
    drop(store);
    let mut bytes = std::fs::read(file.path()).expect("the file");
    let middle = bytes.len() / 2;
    bytes[middle..].fill(0xff);
    std::fs::write(file.path(), bytes).expect("damaged");
    let store = file.open();
    let read = store.lines(OURS, "acme", ever, Page { after: 0, most: 100_000 }).await;
    assert!(matches!(read, Err(EventsError::Corrupt(_))), "{read:?}");
    let position = store.position(OURS).await.expect("made anew");
    let batch = Batch { generation: position.generation, after: position.mark, lines: lines.clone() };
    store.append(OURS, &batch).await.expect("appended");
    let read = store.lines(OURS, "acme", ever, Page { after: 0, most: 100_000 }).await.expect("read");
    assert_eq!(read, lines);
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_that_are_too_old_are_forgotten_and_not_fed_again() {
    let file = File(Folder::new("retention"));
    let store = file.open();
    let position = store.position(OURS).await.expect("a new store");
    let lines: Vec<_> = (1..=10).map(|seq| line(seq, "acme", seq * DAY, used(1))).collect();
    let batch = Batch { generation: position.generation, after: position.mark, lines: lines.clone() };
    store.append(OURS, &batch).await.expect("appended");
    store.keep(Duration::from_hours(72), at(NOON + 10 * DAY)).await.expect("forgotten");
    let ever = Span { from: at(0), to: at(NOON * 2) };
    assert_eq!(store.lines(OURS, "acme", ever, Page { after: 0, most: 100 }).await.expect("lines"), lines[6..]);
    assert_eq!(store.position(OURS).await.expect("a position").mark, Mark::of(&lines[9]));
}

/// A file that forgets as much as it gets does not grow.
#[tokio::test(flavor = "multi_thread")]
async fn the_space_of_lines_that_are_forgotten_is_used_again() {
    const EACH: i64 = 3000;
    let file = File(Folder::new("space"));
    let store = file.open();
    let pages = || -> i64 {
        let connection = Connection::open(file.path()).expect("it opens");
        connection.pragma_query_value(None, "page_count", |row| row.get(0)).expect("a number")
    };
    let mut sizes = Vec::new();
    for day in 0..12 {
        let position = store.position(OURS).await.expect("a position");
        let seq = position.mark.seq;
        let lines = (1..=EACH).map(|n| line(seq + n, "acme", day * DAY + n * 20, used(1))).collect();
        let batch = Batch { generation: position.generation, after: position.mark, lines };
        store.append(OURS, &batch).await.expect("appended");
        store.keep(Duration::from_hours(48), at(NOON + (day + 1) * DAY)).await.expect("forgotten");
        sizes.push(pages());
    }
    assert!(sizes[0] > 50 && sizes[11] <= sizes[3] + sizes[0] / 10, "{sizes:?}");
}
