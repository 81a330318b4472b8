//! Web's journal: what web must tell the ledger and the ledger did not answer, on web's own disk until it is delivered.
//!
//! It is a `SQLite` database in a folder of its own. A commit is on the disk whole or not at all, also when the power
//! fails or the volume is full, the one writer takes all entries that wait into one commit, and removing what is
//! delivered frees its place in the file. The crates that keep a log of their own (`yaque`, `okaywal`, `sled`) are
//! hardly maintained, and a log of our own would have to prove all of this again; the ledger uses `SQLite` already.
//!
//! An entry is removed after the ledger has answered it. A crash in between delivers it again under its own name, and
//! the ledger counts it once.

mod delivery;
mod files;
mod refused;
mod telling;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::ledger::wire::{Counted, Dated, Void};
pub(in crate::web::metering) use delivery::OF_THE_SERVICE;
pub(in crate::web::metering) use telling::tell;
use writer::{Line, Writer};

/// Bytes that a volume must have left for an entry: the pages of one commit, twice.
const ROOM: u64 = 32 * 1024;
/// Pages that are left for questions that were begun while there was room; fewer in a small journal.
const MARGIN: u64 = 16;
/// How often it is looked at whether an entry waits.
const LOOK: std::time::Duration = std::time::Duration::from_millis(100);

/// What web must still send to the ledger about an operation: one line of JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case", deny_unknown_fields)]
pub enum Entry {
    /// Counts what was used.
    Settle {
        /// The operation's name.
        operation: String,
        /// What was used.
        body: Counted,
    },
    /// Counts a document again in a ledger that lost it.
    Recount {
        /// The operation's name.
        operation: String,
        /// The document.
        body: Dated,
    },
    /// Gives back everything.
    Void {
        /// The operation's name.
        operation: String,
        /// Whose operation it is.
        body: Void,
    },
    /// Takes away from levels.
    Release {
        /// The operation's name.
        operation: String,
        /// What is gone.
        body: Counted,
    },
    /// Ends the operation of a document that is gone, unless it has ended.
    Conclude {
        /// The operation's name.
        operation: String,
        /// The levels of the document.
        body: Counted,
    },
}

impl Entry {
    /// The operation's name.
    pub fn operation(&self) -> &str {
        let (Self::Settle { operation, .. }
        | Self::Recount { operation, .. }
        | Self::Void { operation, .. }
        | Self::Release { operation, .. }
        | Self::Conclude { operation, .. }) = self;
        operation
    }

    /// The tenant's id.
    pub fn tenant(&self) -> String {
        let (Self::Settle { body: Counted { tenant, .. }, .. }
        | Self::Recount { body: Dated { tenant, .. }, .. }
        | Self::Void { body: Void { tenant, .. }, .. }
        | Self::Release { body: Counted { tenant, .. }, .. }
        | Self::Conclude { body: Counted { tenant, .. }, .. }) = self;
        tenant.clone().into()
    }
}

/// Why the journal cannot be used, or did not keep an entry.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Another replica uses the same folder.
    #[error("another replica of web uses the journal in {0}: give each replica a folder of its own")]
    InUse(PathBuf),
    /// The file system refused.
    #[error("cannot use {path}: {error}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The reason.
        error: std::io::Error,
    },
    /// There is no room for the entry. Nothing of it was written.
    #[error("web's journal is full: the ledger must be reached before more can be kept")]
    Full,
    /// More entries wait than the disk takes.
    #[error("web's journal has more to write than the disk keeps up with")]
    Busy,
    /// The file cannot be read.
    #[error("web's journal cannot be read: {0}")]
    Unreadable(String),
    /// The journal is being closed.
    #[error("web's journal is being closed")]
    Stopping,
    /// The database failed in another way.
    #[error("web's journal failed: {0}")]
    Database(String),
}

impl JournalError {
    fn at(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |error| Self::Io { path: path.to_owned(), error }
    }
}

impl From<rusqlite::Error> for JournalError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode::{DatabaseCorrupt, DiskFull, NotADatabase};
        match error.sqlite_error_code() {
            Some(DatabaseCorrupt | NotADatabase) => Self::Unreadable(error.to_string()),
            Some(DiskFull) => Self::Full,
            _ => Self::Database(error.to_string()),
        }
    }
}

/// What the writer's thread tells the others.
#[derive(Debug, Default)]
struct Seen {
    /// Entries that wait.
    entries: AtomicU64,
    /// Pages that the journal may still fill.
    pages: AtomicU64,
    /// Bytes of each tenant's entries.
    by_tenant: Mutex<HashMap<String, u64>>,
    /// Lines in the file of refused entries.
    refused: AtomicU64,
    /// Files that were set aside because they could not be read.
    set_aside: AtomicU64,
    /// Commits that kept entries.
    commits: AtomicU64,
    /// Rings when an entry was kept.
    kept: Notify,
}

impl Seen {
    fn by_tenant(&self) -> MutexGuard<'_, HashMap<String, u64>> {
        self.by_tenant.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Entries on web's own disk that wait for the ledger.
#[derive(Debug)]
pub struct Journal {
    writer: Writer,
    seen: Arc<Seen>,
    folder: PathBuf,
    margin: u64,
    /// Held as long as the journal is open.
    _lock: files::Lock,
}

impl Journal {
    /// Opens the journal in a folder, and makes the folder if it is missing. The database grows to at most so many
    /// bytes; its write-ahead log adds about a megabyte. What cannot be read is set aside, and the journal begins
    /// without it.
    pub fn open(folder: &Path, most_bytes: u64) -> Result<Self, JournalError> {
        let lock = files::Lock::take(folder)?;
        let seen = Arc::new(Seen::default());
        let place = files::JournalPlace { folder: folder.to_owned(), most_pages: files::pages(most_bytes) };
        let margin = MARGIN.min(place.most_pages / 4).max(1);
        seen.refused.store(refused::lines(folder)?, Ordering::Relaxed);
        let writer = Writer::start(place, seen.clone())?;
        let journal = Self { writer, seen, folder: folder.to_owned(), margin, _lock: lock };
        let (entries, refused) = (journal.entries(), journal.refused());
        if entries + refused > 0 {
            tracing::info!(folder = %folder.display(), entries, refused, "web's journal holds entries of before");
        }
        Ok(journal)
    }

    /// Keeps an entry, and returns when it is on the disk. Entries that come at once share a sync.
    pub async fn keep(&self, entry: &Entry) -> Result<(), JournalError> {
        let line = serde_json::to_string(entry).map_err(|error| JournalError::Database(error.to_string()))?;
        self.writer.keep(Line { tenant: entry.tenant(), text: line }).await
    }

    /// Whether an entry would be kept, as far as can be seen without one.
    pub fn has_room(&self) -> bool {
        self.room().is_some()
    }

    /// Whether a tenant may begin what will need an entry. Each may take as much as is left for the others: one that
    /// floods the journal takes half of it, and a second one half of the rest.
    pub fn has_room_for(&self, tenant: &str) -> bool {
        let taken = self.seen.by_tenant().get(tenant).copied().unwrap_or(0);
        self.room().is_some_and(|room| taken <= room)
    }

    /// Bytes that are left. None where a question must not begin any more.
    fn room(&self) -> Option<u64> {
        // A file system that does not tell is asked by the entry itself.
        let volume = rustix::fs::statvfs(&self.folder);
        let left = volume.map_or(u64::MAX, |volume| volume.f_bavail.saturating_mul(volume.f_frsize));
        let pages = self.seen.pages.load(Ordering::Relaxed).checked_sub(self.margin)?;
        Some(left.checked_sub(ROOM)?.min(pages * files::PAGE))
    }

    /// Returns when no entry waits.
    pub async fn emptied(&self) {
        while self.entries() > 0 {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// How many entries wait.
    pub fn entries(&self) -> u64 {
        self.seen.entries.load(Ordering::Relaxed)
    }

    /// How many lines `refused.jsonl` has: entries that the ledger refuses for good, with the reason. A person decides
    /// about them.
    pub fn refused(&self) -> u64 {
        self.seen.refused.load(Ordering::Relaxed)
    }

    /// How many folders named `unreadable-…` there are: files of the journal that could not be read.
    pub fn set_aside(&self) -> u64 {
        self.seen.set_aside.load(Ordering::Relaxed)
    }
}
