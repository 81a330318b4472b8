//! Where the ledger is kept. A store applies each command in one transaction and answers after the commit.

mod batch;
pub(super) mod columns;
mod hours;
mod migration;
pub mod postgres;
pub mod sqlite;

use async_trait::async_trait;
use serde::Serialize;

use super::account::{Account, LineKind, Period};
use super::answers::Key;
use super::beginning::Beginning;
use super::decision::{Answer, Changes, Command};
use super::units::Amounts;
use super::wire::{AnswerState, KeptAnswer, OldDocument};
use crate::api::Timestamp;

pub use hours::{ClosedHour, ClosedHours};

/// Keeps the ledger. `tests/ledger` judges each implementation by the same tests.
#[async_trait]
pub trait Store: std::fmt::Debug + Send + Sync {
    /// Applies a command at this moment and returns its answer after the commit. If it fails, the command may have been
    /// applied or not: repeat it under the same name.
    async fn apply(&self, command: Command, now: Timestamp) -> Result<Answer, StoreError>;

    /// Applies events at this moment, and returns their answers in order after the commit. If it fails, some may have
    /// been applied: repeat them.
    async fn count(&self, events: Vec<Command>, now: Timestamp) -> Result<Vec<Answer>, StoreError>;

    /// What a tenant has used in its latest period, and its levels. None for a tenant that the ledger does not know.
    async fn usage(&self, tenant: &str) -> Result<Option<(Period, Account)>, StoreError>;

    /// What a tenant used in each of its periods, the latest first, at most `most` of them. The levels are zero.
    async fn periods(&self, tenant: &str, most: u32) -> Result<Vec<(Period, Account)>, StoreError>;

    /// What was counted on each day of UTC, in order, from the first day up to and with the last. Of the whole site
    /// without a tenant.
    async fn days(&self, tenant: Option<&str>, first: Day, last: Day) -> Result<Vec<(Day, Amounts)>, StoreError>;

    /// What a tenant used in each closed hour from a moment on, of at most so many hours. Closes the hours that are
    /// over.
    async fn hours(&self, tenant: &str, from: Timestamp, most: u32, now: Timestamp) -> Result<ClosedHours, StoreError>;

    /// The lines after a sequence number, in order, at most `most` of them.
    async fn lines(&self, after: i64, most: u32) -> Result<Vec<StoredLine>, StoreError>;

    /// What lies after a sequence number: how many lines, of which at most `most` are looked at.
    async fn waiting(&self, after: i64, most: u32) -> Result<Waiting, StoreError>;

    /// The ledger's own id, made once with it. Its copies and restorations have the same.
    async fn id(&self) -> Result<String, StoreError>;

    /// The tenants with a line after a sequence number, in the order of their latest lines, at most `most` of them.
    async fn changed(&self, after: i64, most: u32) -> Result<Vec<Changed>, StoreError>;

    /// Succeeds if commands can be applied, as far as can be seen without one. Waits for no other call.
    async fn ready(&self) -> Result<(), StoreError>;

    /// Deletes operations whose `decision::ended_at` is before a moment, at most so many of them, and returns how many
    /// it deleted. Their lines stay. It waits until commands leave it time.
    async fn forget(&self, before: Timestamp, most: u32) -> Result<u32, StoreError>;

    /// The pending operations.
    async fn pending(&self) -> Result<Vec<Pending>, StoreError>;

    /// How the ledger began: at this moment, if it has not been asked before. None where its beginning is not known: a
    /// version before this one made it, or another system keeps and restores its database.
    async fn begin(&self, _now: Timestamp) -> Result<Option<Beginning>, StoreError> {
        Ok(None)
    }

    /// Notes that what a tenant had stored before a beginning is counted again.
    async fn recounted_of(&self, _beginning: &str, _tenant: &str) -> Result<(), StoreError> {
        Ok(())
    }

    /// The tenants that were counted again since a beginning, in the order of their ids after one of them, at most so
    /// many.
    async fn recounted_tenants(&self, _beginning: &str, _after: &str, _most: u32) -> Result<Vec<String>, StoreError> {
        Ok(Vec::new())
    }

    /// Notes that all tenants of the moment are counted again.
    async fn recounted(&self, _beginning: &str, _now: Timestamp) -> Result<(), StoreError> {
        Ok(())
    }

    /// Documents of a tenant that were counted before the ledger began and not released, in the order of their names
    /// after one of them, at most so many.
    async fn old_documents(&self, _tenant: &str, _after: &str, _most: u32) -> Result<Vec<OldDocument>, StoreError> {
        Ok(Vec::new())
    }

    /// The answers that are kept beside it.
    fn answers(&self) -> &dyn Answers;
}

/// Keeps answers for idempotency keys.
#[async_trait]
pub trait Answers: std::fmt::Debug + Send + Sync {
    /// Begins a key, which is free again at `until` if it is new and not finished by then.
    async fn begin(&self, key: Key, until: Timestamp, now: Timestamp) -> Result<AnswerState, StoreError>;

    /// Keeps the answer of a key, or frees the key without one. Returns whether the answer is kept: the key must be
    /// begun, by this request. If the answers of all tenants take more than `most` bytes with it, the oldest go.
    async fn finish(&self, key: Key, answer: Option<KeptAnswer>, most: i64, now: Timestamp)
    -> Result<bool, StoreError>;

    /// The bytes that the keys of all tenants take. The store keeps this sum, so it reads no key to answer.
    async fn bytes(&self) -> Result<i64, StoreError>;

    /// Erases the keys of a tenant, and returns how many there were.
    async fn erase(&self, tenant: &str) -> Result<u64, StoreError>;

    /// Deletes keys that are free by now, at most so many, and returns how many.
    async fn sweep(&self, now: Timestamp, most: u32) -> Result<u32, StoreError>;
}

/// The `period_start` of the row that holds a tenant's levels. No period begins then: the API refuses it.
const LEVELS: i64 = 0;

impl Account {
    /// The sum.
    fn plus(self, other: Self) -> Self {
        Self { used: self.used.plus(other.used), reserved: self.reserved.plus(other.reserved) }
    }
}

/// A row of an account: its `period_start` and `period_end`, and what it holds.
type AccountRow = (i64, i64, Account);

impl Changes {
    /// The rows of the account that are written: that of the flows, also if a period begins in which nothing is used
    /// yet, and that of the levels.
    fn rows(&self, before: &Account, period: Period) -> impl Iterator<Item = AccountRow> {
        let only = |account: &Account, levels| Account {
            used: account.used.only(levels),
            reserved: account.reserved.only(levels),
        };
        let (begins, start, end) = (self.latest.is_some(), period.start.as_second(), period.end.as_second());
        self.account.into_iter().flat_map(move |after| {
            [(false, start, end), (true, LEVELS, LEVELS)].into_iter().filter_map(move |(levels, start, end)| {
                let row = only(&after, levels);
                let differs = row != only(before, levels) || (begins && !levels);
                differs.then_some((start, end, row))
            })
        })
    }
}

/// A day of UTC, in days since 1970-01-01.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Day(pub i64);

impl Day {
    /// The day that a moment is in.
    pub const fn of(moment: Timestamp) -> Self {
        Self(moment.as_second().div_euclid(24 * 3600))
    }
}

/// A line, with what it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredLine {
    /// Its number. A later line has a greater one, and no two are the same.
    pub seq: i64,
    /// The operation.
    pub operation: String,
    /// The tenant.
    pub tenant: String,
    /// The start of the period that its flows are counted in.
    pub period_start: Timestamp,
    /// When it was written.
    pub at: Timestamp,
    /// The start of the hour that it is part of, which is a later one than that of `at` if that one was closed.
    pub hour: Timestamp,
    /// Why it was written.
    pub kind: LineKind,
    /// What it adds.
    pub amounts: Amounts,
}

/// Lines that lie after another one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// How many.
    pub lines: u32,
    /// When the first of them was written.
    pub since: Option<Timestamp>,
}

/// A tenant for which something was counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// Its id.
    pub tenant: String,
    /// Its latest period.
    pub period: Period,
    /// What it has used and reserved: of flows in that period, of levels at the moment.
    pub account: Account,
    /// The number of its latest line.
    pub seq: i64,
}

/// An operation that is neither settled nor voided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Its name.
    pub operation: String,
    /// Its tenant.
    pub tenant: String,
    /// Seconds that it has.
    pub expires_after: u32,
}

/// Why a store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process uses the same files.
    #[error("another ledger uses {0}: stop it first, or set another folder")]
    InUse(std::path::PathBuf),
    /// A later version of the operator wrote the files.
    #[error(
        "the ledger has schema {found}, and this version of tenant-operator knows {known}: install the version that wrote it, or a later one"
    )]
    Newer {
        /// Of the files.
        found: i64,
        /// Of this program.
        known: i64,
    },
    /// The file is something else.
    #[error("{0} is not a ledger of tenant-operator: set another folder, or move the file away")]
    NotALedger(std::path::PathBuf),
    /// The URL of the database cannot be used.
    #[error("LEDGER_URL: {0}")]
    Url(String),
    /// The file is damaged.
    #[error(
        "the ledger's file is damaged: stop the ledger and move its files away; on a cluster, give it a new volume. With snapshots it begins with the latest one, without them empty, and the controller counts again what others know"
    )]
    Corrupt,
    /// No space is left.
    #[error("the ledger's volume is full: enlarge it")]
    Full,
    /// A copy would leave too little room.
    #[error("the ledger's volume has less room than twice the database, so no snapshot is taken: enlarge it")]
    NoRoomToCopy,
    /// More commands wait than the ledger takes.
    #[error("the ledger has more to do than it can keep up with: try again")]
    Busy,
    /// The ledger is ending.
    #[error("the ledger is stopping")]
    Stopping,
    /// The file system refused.
    #[error("cannot use {path}: {error}")]
    Io {
        /// The file or folder.
        path: std::path::PathBuf,
        /// The reason.
        error: std::io::Error,
    },
    /// The database does not answer.
    #[error("the ledger's database does not answer")]
    Silent,
    /// The database failed in another way.
    #[error("the ledger's database failed: {0}")]
    Database(String),
}
