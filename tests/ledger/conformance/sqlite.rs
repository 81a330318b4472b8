//! The ledger in `SQLite`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::Connection;
use tenant_operator::ledger::store::sqlite::Sqlite;
use tenant_operator::ledger::store::{Store, StoreError};

use super::{DAY, NOON, Place, forgetting, judge};
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
