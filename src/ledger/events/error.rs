//! Why an events store did not do what it was asked, with the fix.

use crate::ledger::store::StoreError;

/// Of an events store.
#[derive(Debug, thiserror::Error)]
pub enum EventsError {
    /// The URL cannot be used.
    #[error("EVENTS_URL: {0}: use clickhouse://user:password@host:8123/database, or clickhouses:// for TLS")]
    Url(String),
    /// It was fed by another ledger.
    #[error(
        "the events store belongs to the ledger {found}, and this one is {own}: set another EVENTS_URL, or delete what it holds with `tenant-operator ledger rebuild --take-over`"
    )]
    Foreign {
        /// The ledger that it belongs to.
        found: String,
        /// This ledger.
        own: String,
    },
    /// A later version wrote it.
    #[error(
        "the events store has schema {found}, and this version of tenant-operator knows {known}: install the version that wrote it, or a later one"
    )]
    Newer {
        /// Of the store.
        found: i64,
        /// Of this program.
        known: i64,
    },
    /// It holds something else.
    #[error("{0} holds something else than an events store of tenant-operator: name an empty one")]
    NotOurs(String),
    /// The database is missing.
    #[error("the events store has no database of this name: create it, or correct EVENTS_URL ({0})")]
    NoDatabase(String),
    /// The user or password is wrong, or the user may too little.
    #[error("the events store refuses the user of EVENTS_URL: correct the user, its password or its rights ({0})")]
    Refused(String),
    /// No space is left.
    #[error("the events store has no room left: enlarge it. The ledger goes on, and feeds it when there is room ({0})")]
    Full(String),
    /// It is damaged.
    #[error("the events store's file is damaged: {0}")]
    Corrupt(String),
    /// It cannot be reached.
    #[error("the events store does not answer: check it, EVENTS_URL and the network ({0})")]
    Away(String),
    /// It took too long.
    #[error("the events store did not answer within {} s", .0.as_secs())]
    Late(std::time::Duration),
    /// It was begun anew in the meantime.
    #[error("the events store was begun anew in the meantime")]
    Superseded,
    /// It failed in another way.
    #[error("the events store failed: {0}")]
    Failed(String),
}

/// Fails if an events store belongs to another ledger.
pub(super) fn belongs(found: &str, own: &str) -> Result<(), EventsError> {
    if found == own {
        return Ok(());
    }
    Err(EventsError::Foreign { found: found.to_owned(), own: own.to_owned() })
}

/// Why a round of the feed failed.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// The events store.
    #[error(transparent)]
    Events(#[from] EventsError),
    /// The ledger.
    #[error("the ledger cannot be read: {0}")]
    Ledger(#[from] StoreError),
}
