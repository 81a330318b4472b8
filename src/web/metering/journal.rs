//! What the ledger could not be told while it was away. This is a stub that keeps nothing, until the journal takes its place.

use std::path::Path;

use crate::ledger::client::LedgerClient;
use crate::ledger::wire::{Counted, Void};

/// How an operation ended.
#[derive(Clone, Debug)]
pub enum Entry {
    /// Counted.
    Settle {
        /// The operation.
        operation: String,
        /// What was used.
        body: Counted,
    },
    /// Given back.
    Void {
        /// The operation.
        operation: String,
        /// Whose.
        body: Void,
    },
    /// Taken away from levels.
    Release {
        /// The operation.
        operation: String,
        /// What is gone.
        body: Counted,
    },
}

/// Why an entry was not kept.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// There is no room.
    #[error("the journal is full")]
    Full,
}

/// The journal.
#[derive(Debug)]
pub struct Journal;

impl Journal {
    /// Opens the journal in a folder.
    pub fn open(_folder: &Path, _most_bytes: u64) -> Result<Self, JournalError> {
        Ok(Self)
    }

    /// Keeps an entry.
    pub async fn keep(&self, _entry: &Entry) -> Result<(), JournalError> {
        Err(JournalError::Full)
    }

    /// Whether there is room for another entry.
    pub fn has_room(&self) -> bool {
        false
    }

    /// Delivers entries until it is cancelled.
    pub async fn deliver(&self, _ledger: &LedgerClient) {
        std::future::pending().await
    }
}
