//! The ledger in `SQLite`.

use std::sync::Arc;

use async_trait::async_trait;
use tenant_operator::ledger::store::sqlite::Sqlite;
use tenant_operator::ledger::store::{Store, StoreError};

use super::{Place, judge};
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
        Ok(Arc::new(Sqlite::open(self.0.path())?))
    }

    async fn left_by_a_crash(&self) -> Box<dyn Place> {
        let copy = Folder::new("crash");
        // The write-ahead log is made anew only by a commit, and no client waits for one.
        for file in ["ledger.db", "ledger.db-wal"] {
            drop(std::fs::copy(self.0.path().join(file), copy.path().join(file)));
        }
        Box::new(Self(copy))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_in_sqlite_keeps_every_contract() {
    assert!(judge(&SqliteFolder::place, |_| true).await.is_empty());
}
