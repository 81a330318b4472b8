//! Snapshots of a ledger in `SQLite`, in a storage of objects: what is left when its volume is lost.
//!
//! A snapshot is `ledger-<id>/<time>.db`, a database that any `SQLite` opens. The ledger that finds its folder empty
//! begins with the latest one. What was counted after it was taken is lost, and the ledger says so.

use std::path::Path;
use std::time::Duration;

use super::store::StoreError;
use super::store::sqlite::{Sqlite, Unfinished, restore};
use crate::api::Timestamp;
use crate::export::{ExportError, Store as Storage};

/// Snapshots that are kept: two hours of those that are taken every five minutes.
const KEPT: usize = 24;
/// How long a ledger that begins waits for the list of snapshots. The kubelet starts it again afterwards.
const PATIENCE: Duration = Duration::from_secs(15);
const FOLDER: &str = "ledger-";
const SUFFIX: &str = ".db";

/// Where snapshots are kept, and how often one is taken.
#[derive(Clone, Debug)]
pub struct Snapshots {
    storage: Storage,
    every: Duration,
}

/// Why a snapshot was not taken or restored.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The storage does not answer, or refuses.
    #[error("the storage of snapshots: {0}")]
    Storage(#[source] object_store::Error),
    /// A snapshot could not be copied there or from there.
    #[error("the storage of snapshots: {0}")]
    Copied(#[source] ExportError),
    /// It was asked again and again, and did not answer.
    #[error(
        "{url} does not answer, and the folder is empty: the ledger begins once it can look for its latest snapshot. Check the storage's endpoint, and the network on the way there"
    )]
    Away {
        /// The storage.
        url: String,
    },
    /// The ledger's files.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A later version took the latest snapshot. An earlier one lacks what was counted since.
    #[error("{url}: the latest snapshot cannot be restored, and no earlier one is taken for it: {why}")]
    Newer {
        /// The storage.
        url: String,
        /// Which schemas.
        why: StoreError,
    },
    /// The storage holds snapshots of other ledgers as well.
    #[error("{url} holds snapshots of {count} ledgers, and the folder is empty: move those of the others away")]
    Several {
        /// The storage.
        url: String,
        /// How many.
        count: usize,
    },
    /// No snapshot can be used.
    #[error(
        "none of the {count} snapshots in {url} can be restored, the latest because: {why}. Restore one by hand, or move them away"
    )]
    Unusable {
        /// The storage.
        url: String,
        /// How many.
        count: usize,
        /// What is wrong with the latest one.
        why: StoreError,
    },
}

impl From<ExportError> for SnapshotError {
    fn from(error: ExportError) -> Self {
        match error {
            ExportError::Store(error) => Self::Storage(error),
            error => Self::Copied(error),
        }
    }
}

impl Snapshots {
    /// Opens `file:///a/folder` or `s3://bucket/folder`.
    pub fn open(url: &str, every: Duration) -> Result<Self, ExportError> {
        Ok(Self { storage: Storage::open(url, None)?, every })
    }

    /// Puts the latest snapshot into a folder without a ledger. Returns when it was taken; None if there is none.
    pub async fn restore(&self, folder: &Path, database: &Path) -> Result<Option<Timestamp>, SnapshotError> {
        let url = || self.storage.url().to_owned();
        let listed = tokio::time::timeout(PATIENCE, self.storage.names(FOLDER)).await;
        let names = listed.map_err(|_| SnapshotError::Away { url: url() })??;
        let mut found: Vec<_> = names.iter().filter_map(|name| Some((taken_at(name)?, name))).collect();
        let ledgers: std::collections::BTreeSet<_> =
            found.iter().filter_map(|(_, name)| Some(name.split_once('/')?.0)).collect();
        if ledgers.len() > 1 {
            return Err(SnapshotError::Several { url: url(), count: ledgers.len() });
        }
        found.sort_unstable();
        let (count, mut refused) = (found.len(), None);
        for (at, name) in found.into_iter().rev() {
            let copy = Unfinished::new(folder, "restoring.db");
            self.storage.download(name, copy.path()).await?;
            match restore(&copy, at, database) {
                Ok(()) => return Ok(Some(at)),
                Err(why @ StoreError::Newer { .. }) => return Err(SnapshotError::Newer { url: url(), why }),
                Err(why) => {
                    tracing::error!(%why, name, "a snapshot cannot be used");
                    refused.get_or_insert(why);
                }
            }
        }
        match refused {
            Some(why) => Err(SnapshotError::Unusable { url: url(), count, why }),
            None => Ok(None),
        }
    }

    /// Takes a snapshot, and deletes those that are too many.
    pub async fn take(&self, ledger: &Sqlite, now: Timestamp) -> Result<(), SnapshotError> {
        let (copy, id) = ledger.copy().await?;
        let folder = format!("{FOLDER}{id}/");
        let mut names = self.storage.names(&folder).await?;
        names.retain(|name| taken_at(name).is_some());
        names.sort_unstable();
        // A clock that was wrong when one was taken changes nothing of their order.
        let latest = names.iter().filter_map(|name| taken_at(name)).max();
        let at = latest.map_or(now, |latest| now.max(latest.plus(1))).as_second().max(0);
        self.storage.upload(copy.path(), &format!("{folder}{at:012}{SUFFIX}")).await?;
        for old in names.iter().rev().skip(KEPT - 1) {
            self.storage.remove(old).await?;
        }
        Ok(())
    }

    /// How often one is taken.
    pub const fn every(&self) -> Duration {
        self.every
    }
}

/// When a snapshot was taken, if the name is one's.
fn taken_at(name: &str) -> Option<Timestamp> {
    let (folder, file) = name.split_once('/')?;
    folder.strip_prefix(FOLDER)?;
    let second = file.strip_suffix(SUFFIX)?;
    second.bytes().all(|byte| byte.is_ascii_digit()).then(|| second.parse().ok()).flatten().map(Timestamp::from_second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_snapshots_are_taken_for_one() {
        assert_eq!(taken_at("ledger-ab/001800000000.db"), Some(Timestamp::from_second(1_800_000_000)));
        for other in
            ["ledger-ab/001800000000.db-wal", "ledger-ab/x.db", "ledger-ab", "acme/001800000000.db", "ledger-ab/+1.db"]
        {
            assert_eq!(taken_at(other), None, "{other}");
        }
    }
}
