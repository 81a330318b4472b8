//! The ledger in `SQLite`: one file, one writer, and many commands in one commit.
//!
//! `synchronous=FULL` in WAL mode syncs each commit before it returns
//! (<https://www.sqlite.org/pragma.html#pragma_synchronous>). A sync takes a millisecond or more, so the writer takes
//! all commands that wait into one transaction.

mod answers;
mod beginning;
mod copy;
mod events;
mod files;
mod hours;
mod rows;
mod schema;
mod values;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use rusqlite::Connection;

use super::{Answers, Changed, ClosedHours, Day, Pending, Store, StoreError, StoredLine, Waiting};
use crate::api::Timestamp;
use crate::ledger::account::{Account, Period};
use crate::ledger::beginning::Beginning;
use crate::ledger::decision::{Answer, Command};
use crate::ledger::snapshots::{SnapshotError, Snapshots};
use crate::ledger::units::Amounts;
use crate::ledger::wire::OldDocument;
use answers::AnswerFile;
use writer::{When, Writer};

pub use copy::{Unfinished, restore};

/// Events of one transaction: about ten milliseconds, for which commands wait.
const EVENTS: usize = 500;

/// A ledger in a folder of its own.
#[derive(Debug)]
pub struct Sqlite {
    /// Reads beside the writer. One is enough: reads are short, and those of pages that are not are rare. It closes
    /// first: the last connection writes the log into the database, and only the writer may.
    reader: Arc<Mutex<Connection>>,
    writer: Writer,
    answers: AnswerFile,
    folder: PathBuf,
    /// Held as long as the ledger is open.
    _lock: files::Lock,
}

impl Sqlite {
    /// Opens the ledger in a folder, or begins one. Fails if another process has it open.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        Self::locked(files::Lock::take(folder)?, folder)
    }

    /// Opens the ledger in a folder. If there is none, begins with the latest snapshot, or anew where there is no
    /// snapshot either.
    pub async fn open_or_restore(folder: &Path, snapshots: &Snapshots) -> Result<Self, SnapshotError> {
        let lock = files::Lock::take(folder)?;
        let path = files::database(folder);
        // A file without a byte is what a volume that was cleared leaves, or a first start that was interrupted.
        let is_empty = std::fs::metadata(&path).map_or(true, |file| file.len() == 0);
        if is_empty && let Some(taken) = snapshots.restore(folder, &path).await? {
            tracing::warn!(%taken, "the folder was empty: the ledger begins with the latest snapshot, and what was counted since then is lost");
        }
        Ok(Self::locked(lock, folder)?)
    }

    fn locked(lock: files::Lock, folder: &Path) -> Result<Self, StoreError> {
        let path = files::database(folder);
        let has_log = files::has_log(&path);
        let mut connection = files::connect(&path)?;
        let version = schema::version(&connection, &path)?;
        files::check_length(&connection, &path, has_log)?;
        files::prepare(&connection, &path)?;
        schema::migrate(&mut connection, version)?;
        let reader = files::connect_to_read(&path)?;
        let (writer, answers) = (Writer::start(connection)?, AnswerFile::open(folder)?);
        let folder = folder.to_owned();
        Ok(Self { writer, answers, reader: Arc::new(Mutex::new(reader)), folder, _lock: lock })
    }

    /// A copy of the ledger as it is now, and the ledger's id.
    pub async fn copy(&self) -> Result<(Unfinished, String), StoreError> {
        let folder = self.folder.clone();
        let copied = tokio::task::spawn_blocking(move || {
            let copy = Unfinished::new(&folder, "snapshot.db");
            let id = copy::take(&files::database(&folder), copy.path())?;
            Ok((copy, id))
        });
        copied.await.map_err(|_| StoreError::Stopping)?
    }

    async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let reader = self.reader.clone();
        let read = tokio::task::spawn_blocking(move || query(&reader.lock().unwrap_or_else(PoisonError::into_inner)));
        Ok(read.await.map_err(|_| StoreError::Stopping)??)
    }
}

#[async_trait]
impl Store for Sqlite {
    async fn apply(&self, command: Command, now: Timestamp) -> Result<Answer, StoreError> {
        self.writer.write(When::Now, move |connection| rows::apply(connection, &command, now)).await
    }

    async fn count(&self, events: Vec<Command>, now: Timestamp) -> Result<Vec<Answer>, StoreError> {
        let mut answers = Vec::with_capacity(events.len());
        for events in events.chunks(EVENTS) {
            let events = events.to_vec();
            let count = move |connection: &Connection| events::count(connection, &events, now);
            answers.extend(self.writer.write(When::Now, count).await?);
        }
        Ok(answers)
    }

    async fn usage(&self, tenant: &str) -> Result<Option<(Period, Account)>, StoreError> {
        let tenant = tenant.to_owned();
        self.read(move |connection| rows::usage(connection, &tenant)).await
    }

    async fn periods(&self, tenant: &str, most: u32) -> Result<Vec<(Period, Account)>, StoreError> {
        let tenant = tenant.to_owned();
        self.read(move |connection| rows::periods(connection, &tenant, most)).await
    }

    async fn days(&self, tenant: Option<&str>, first: Day, last: Day) -> Result<Vec<(Day, Amounts)>, StoreError> {
        let tenant = tenant.map(str::to_owned);
        self.read(move |connection| rows::days(connection, tenant.as_deref(), first, last)).await
    }

    async fn hours(&self, tenant: &str, from: Timestamp, most: u32, now: Timestamp) -> Result<ClosedHours, StoreError> {
        let tenant = tenant.to_owned();
        let mut until = self.read(hours::closed).await?;
        if until < now.hour().as_second() {
            until = self.writer.write(When::Now, move |connection| hours::close(connection, now)).await?;
        }
        self.read(move |connection| hours::list(connection, &tenant, from, (until, most))).await
    }

    async fn lines(&self, after: i64, most: u32) -> Result<Vec<StoredLine>, StoreError> {
        self.read(move |connection| rows::lines(connection, after, most)).await
    }

    async fn waiting(&self, after: i64, most: u32) -> Result<Waiting, StoreError> {
        self.read(move |connection| rows::waiting(connection, after, most)).await
    }

    async fn id(&self) -> Result<String, StoreError> {
        self.read(schema::id).await
    }

    async fn changed(&self, after: i64, most: u32) -> Result<Vec<Changed>, StoreError> {
        self.read(move |connection| rows::changed(connection, after, most)).await
    }

    async fn ready(&self) -> Result<(), StoreError> {
        self.writer.ready().await?;
        self.read(|connection| connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))).await
    }

    async fn forget(&self, before: Timestamp, most: u32) -> Result<u32, StoreError> {
        let forget = move |connection: &Connection| rows::forget(connection, before, most);
        Ok(u32::try_from(self.writer.write(When::Idle, forget).await?).unwrap_or(most))
    }

    async fn pending(&self) -> Result<Vec<Pending>, StoreError> {
        self.read(rows::pending).await
    }

    async fn begin(&self, now: Timestamp) -> Result<Option<Beginning>, StoreError> {
        self.writer.write(When::Now, move |connection| beginning::begin(connection, now)).await
    }

    async fn recounted(&self, beginning: &str, now: Timestamp) -> Result<(), StoreError> {
        let id = beginning.to_owned();
        self.writer.write(When::Now, move |connection| beginning::recounted(connection, &id, now)).await
    }

    async fn recounted_of(&self, beginning: &str, tenant: &str) -> Result<(), StoreError> {
        let (id, tenant) = (beginning.to_owned(), tenant.to_owned());
        self.writer.write(When::Now, move |connection| beginning::recounted_of(connection, &id, &tenant)).await
    }

    async fn recounted_tenants(&self, beginning: &str, after: &str, most: u32) -> Result<Vec<String>, StoreError> {
        let (id, after) = (beginning.to_owned(), after.to_owned());
        self.read(move |connection| beginning::recounted_tenants(connection, &id, &after, most)).await
    }

    async fn old_documents(&self, tenant: &str, after: &str, most: u32) -> Result<Vec<OldDocument>, StoreError> {
        let (tenant, after) = (tenant.to_owned(), after.to_owned());
        self.read(move |connection| beginning::old_documents(connection, &tenant, &after, most)).await
    }

    fn answers(&self) -> &dyn Answers {
        &self.answers
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode::{DatabaseBusy, DatabaseCorrupt, DiskFull, NotADatabase};
        // The shared memory of the write-ahead log is a file as well, and it could not grow.
        let no_room = |failed: &rusqlite::ffi::Error| failed.extended_code == rusqlite::ffi::SQLITE_IOERR_SHMSIZE;
        if error.sqlite_error().is_some_and(no_room) {
            return Self::Full;
        }
        match error.sqlite_error_code() {
            Some(DatabaseCorrupt | NotADatabase) => Self::Corrupt,
            Some(DiskFull) => Self::Full,
            Some(DatabaseBusy) => Self::Busy,
            _ => Self::Database(error.to_string()),
        }
    }
}
