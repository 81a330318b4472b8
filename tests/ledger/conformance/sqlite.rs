//! The ledger in `SQLite`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::Connection;
use tenant_operator::ledger::answers::Key;
use tenant_operator::ledger::decision::forgotten_before;
use tenant_operator::ledger::store::sqlite::Sqlite;
use tenant_operator::ledger::store::{Store, StoreError};
use tenant_operator::ledger::wire::KeptAnswer;

use super::{Client, DAY, NOON, Place, at, forgetting, judge};
use crate::support::Folder;

/// A folder.
pub struct SqliteFolder(Folder);

impl SqliteFolder {
    pub fn place() -> Box<dyn Place> {
        Box::new(Self(Folder::new("store")))
    }
}

#[async_trait]
impl Place for SqliteFolder {
    async fn open(&self) -> Result<Arc<dyn Store>, StoreError> {
        let mut tries = 0;
        loop {
            match Sqlite::open(self.0.path()) {
                // A process that another test starts has this one's open files until it runs its own program.
                Err(StoreError::InUse(_)) if tries < 100 => tries += 1,
                opened => return Ok(Arc::new(opened?)),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn left_by_a_crash(&self) -> Box<dyn Place> {
        let copy = Folder::new("crash");
        // The write-ahead log is made anew only by a commit, and no client waits for one.
        for file in ["ledger.db", "ledger.db-wal", "answers.db", "answers.db-wal"] {
            drop(std::fs::copy(self.0.path().join(file), copy.path().join(file)));
        }
        Box::new(Self(copy))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_in_sqlite_keeps_every_contract() {
    assert!(judge(&SqliteFolder::place, |_| true).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_the_first_schema_is_brought_up_to_this_one() {
    let folder = Folder::new("schema-1");
    let connection = Connection::open(folder.path().join("ledger.db")).expect("a file");
    let (growing, options) = ("INTEGER PRIMARY KEY AUTOINCREMENT", " STRICT, WITHOUT ROWID");
    let units = forgetting::units("INTEGER");
    connection
        .execute_batch(&format!(
            "PRAGMA journal_mode = WAL; {}
             CREATE TABLE ledger (id TEXT NOT NULL) STRICT; INSERT INTO ledger VALUES ('5ec2e7be57a1c0ff');
             CREATE TABLE site_day (day INTEGER PRIMARY KEY, {units}) STRICT;
             INSERT INTO site_day VALUES ({}, 8,0,0,0,0,2,70);
             PRAGMA application_id = 1416515440; PRAGMA user_version = 1;",
            forgetting::schema_1("INTEGER", growing, options),
            NOON / DAY,
        ))
        .expect("schema 1");
    drop(connection);
    for _ in 0..2 {
        drop(Sqlite::open(folder.path()).expect("it is migrated once"));
    }
    let store: Arc<dyn Store> = Arc::new(Sqlite::open(folder.path()).expect("a ledger"));
    forgetting::migrated(&store).await.expect("all that it counted");
}

/// What is forgotten leaves its place to what comes next.
#[tokio::test(flavor = "multi_thread")]
async fn the_space_of_operations_that_are_forgotten_is_used_again() {
    let folder = SqliteFolder(Folder::new("space"));
    let store = folder.open().await.expect("a ledger");
    let number = |what: &str| -> i64 {
        let connection = Connection::open(folder.0.path().join("ledger.db")).expect("it opens");
        connection.pragma_query_value(None, what, |row| row.get(0)).expect("a number")
    };
    let client = Client::of(&store, "acme");
    let voided = async |round: i64| {
        let client = Client { now: NOON + round * 2 * DAY, ..client.clone() };
        let voids = (0..4000).map(|n| {
            let client = client.clone();
            async move { client.void(&format!("voided-{round}-{n}")).await }
        });
        for done in futures::future::join_all(voids).await {
            done.expect("voided");
        }
    };
    voided(0).await;
    let size = number("page_count");
    for round in 1..4 {
        let before = forgotten_before(at(NOON + round * 2 * DAY));
        while store.forget(before, 500).await.expect("forgotten") > 0 {}
        assert!(number("freelist_count") > size / 3, "{} of {size} pages are free", number("freelist_count"));
        voided(round).await;
        assert!(number("page_count") <= size + size / 10, "{} pages after {size}", number("page_count"));
    }
}

/// An answer cites a customer's documents. Once it is erased, no byte of it is in the files.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_an_answer_that_is_erased_stays_in_the_files() {
    let folder = SqliteFolder(Folder::new("erased"));
    let store = folder.open().await.expect("a ledger");
    let holds = |text: &str| {
        let files = std::fs::read_dir(folder.0.path()).expect("a folder");
        files.filter_map(Result::ok).any(|file| {
            let bytes = std::fs::read(file.path()).expect("a file");
            bytes.windows(text.len()).any(|window| window == text.as_bytes())
        })
    };
    let key = |tenant: &str, number: i64| Key {
        tenant: tenant.into(),
        key: format!("k-{number}"),
        request: "r".into(),
        attempt: "1".into(),
    };
    for number in 0..20 {
        for tenant in ["leaves", "stays"] {
            let key = key(tenant, number);
            store.answers().begin(key.clone(), at(NOON + 60), at(NOON)).await.expect("begun");
            let body = format!("the salary list of {tenant}, ").repeat(usize::try_from(number * 40).expect("a number"));
            let answer = KeptAnswer { status: 200, headers: vec![], body };
            assert!(store.answers().finish(key, Some(answer), i64::MAX, at(NOON)).await.expect("kept"));
        }
    }
    assert!(holds("the salary list of leaves"), "the files are looked through");
    assert_eq!(store.answers().erase("leaves").await.expect("erased"), 20);
    assert!(!holds("the salary list of leaves"));
    assert!(holds("the salary list of stays"));
}
