//! An events store in a `SQLite` file of its own, beside the ledger's or elsewhere.
//!
//! A batch and the mark behind it are one transaction, so a crash at any moment leaves no line missing and none stored
//! twice. After a power cut its last transactions may be gone (`synchronous=NORMAL`): the ledger feeds them again.

mod rows;
mod schema;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::{Asked, Batch, EventsError, EventsStore, Page, Position, Span, Sum, forgotten_before};
use crate::api::Timestamp;
use crate::ledger::store::StoredLine;

/// How long a call may take. A call that takes longer ends by itself later.
const CALL: Duration = Duration::from_secs(30);
/// How long a statement waits for another one.
const BUSY: Duration = Duration::from_secs(5);
/// What stays free of the volume for the ledger, whose file is usually on the same one: a tenth, and at most so much.
const FREE: u64 = 1 << 30;

/// A file.
#[derive(Debug)]
pub struct SqliteEvents {
    path: PathBuf,
    /// Opened by the first call, and again after one that found the file damaged.
    writer: Arc<Mutex<Option<Connection>>>,
    reader: Arc<Mutex<Option<Connection>>>,
    /// Whether a call found it damaged.
    damaged: AtomicBool,
}

impl SqliteEvents {
    /// The store of a file. It is opened, and made if it is missing, by the first call.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), writer: Arc::default(), reader: Arc::default(), damaged: AtomicBool::new(false) }
    }

    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, EventsError> + Send + 'static,
    ) -> Result<T, EventsError> {
        if self.damaged.swap(false, Ordering::Relaxed) {
            let (writer, reader, path) = (self.writer.clone(), self.reader.clone(), self.path.clone());
            let removed = tokio::task::spawn_blocking(move || {
                for connection in [writer, reader] {
                    *connection.lock().unwrap_or_else(PoisonError::into_inner) = None;
                }
                remove(&path);
            });
            removed.await.map_err(|error| EventsError::Failed(error.to_string()))?;
        }
        let path = self.path.clone();
        self.noticed(on(&self.writer, move || open(&path), work).await)
    }

    /// Notes that the file is damaged: the next write makes it anew.
    fn noticed<T>(&self, done: Result<T, EventsError>) -> Result<T, EventsError> {
        if matches!(done, Err(EventsError::Corrupt(_))) {
            self.damaged.store(true, Ordering::Relaxed);
        }
        done
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, EventsError> + Send + 'static,
    ) -> Result<T, EventsError> {
        let path = self.path.clone();
        self.noticed(on(&self.reader, move || open_to_read(&path), work).await)
    }
}

/// Does something with a connection, which is opened if it is not. One that failed is closed.
async fn on<T: Send + 'static>(
    connection: &Arc<Mutex<Option<Connection>>>,
    open: impl FnOnce() -> Result<Connection, EventsError> + Send + 'static,
    work: impl FnOnce(&mut Connection) -> Result<T, EventsError> + Send + 'static,
) -> Result<T, EventsError> {
    let connection = connection.clone();
    let done = tokio::task::spawn_blocking(move || {
        let mut place = connection.lock().unwrap_or_else(PoisonError::into_inner);
        if place.is_none() {
            *place = Some(open()?);
        }
        let Some(connection) = place.as_mut() else { return Err(EventsError::Away("it is closed".into())) };
        let done = work(connection);
        if matches!(done, Err(EventsError::Corrupt(_) | EventsError::Failed(_))) {
            *place = None;
        }
        done
    });
    let done = tokio::time::timeout(CALL, done).await.map_err(|_| EventsError::Late(CALL))?;
    done.map_err(|error| EventsError::Failed(error.to_string()))?
}

/// Deletes a file that is damaged.
fn remove(path: &Path) {
    tracing::error!(path = %path.display(), "the events store's file is damaged: it is made anew from the ledger");
    for suffix in ["", "-wal", "-shm"] {
        let mut file = path.to_owned().into_os_string();
        file.push(suffix);
        drop(std::fs::remove_file(file));
    }
}

/// Opens the file to write. One that is damaged is made anew: the ledger has all that it held.
fn open(path: &Path) -> Result<Connection, EventsError> {
    match open_once(path) {
        Err(EventsError::Corrupt(_)) => {
            remove(path);
            open_once(path)
        }
        opened => opened,
    }
}

fn open_once(path: &Path) -> Result<Connection, EventsError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    schema::migrate(&mut connection, path)?;
    Ok(connection)
}

fn open_to_read(path: &Path) -> Result<Connection, EventsError> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.busy_timeout(BUSY)?;
    Ok(connection)
}

/// Fails if a batch would leave the ledger too little room.
fn has_room(path: &Path) -> Result<(), EventsError> {
    let volume = rustix::fs::statvfs(path).map_err(|error| EventsError::Failed(error.to_string()))?;
    let [free, size] = [volume.f_bavail, volume.f_blocks].map(|blocks| blocks.saturating_mul(volume.f_frsize));
    if free < FREE.min(size / 10) {
        let why = "what is free of its volume is left to the ledger: a tenth, or 1 GiB where that is less";
        return Err(EventsError::Full(why.into()));
    }
    Ok(())
}

#[async_trait]
impl EventsStore for SqliteEvents {
    fn kind(&self) -> &'static str {
        "SQLite"
    }

    async fn position(&self, ledger: &str) -> Result<Position, EventsError> {
        let ledger = ledger.to_owned();
        self.write(move |connection| rows::position(connection, &ledger)).await
    }

    async fn append(&self, ledger: &str, batch: &Batch) -> Result<(), EventsError> {
        let (ledger, batch, path) = (ledger.to_owned(), batch.clone(), self.path.clone());
        let append = move |connection: &mut Connection| {
            has_room(&path)?;
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            rows::append(&transaction, &ledger, &batch)?;
            Ok(transaction.commit()?)
        };
        self.write(append).await
    }

    async fn wipe(&self, ledger: &str, take_over: bool) -> Result<i64, EventsError> {
        let ledger = ledger.to_owned();
        let wipe = move |connection: &mut Connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let generation = rows::wipe(&transaction, &ledger, take_over)?;
            transaction.commit()?;
            Ok(generation)
        };
        self.write(wipe).await
    }

    async fn sums(&self, ledger: &str, asked: Asked<'_>, span: Span) -> Result<Vec<Sum>, EventsError> {
        let (ledger, shape, tenant) = (ledger.to_owned(), asked.shape(), asked.tenant().map(str::to_owned));
        let sums = move |connection: &mut Connection| {
            rows::owned(connection, &ledger)?;
            Ok(rows::sums(connection, &shape, tenant.as_deref(), span)?)
        };
        self.read(sums).await
    }

    async fn lines(&self, ledger: &str, tenant: &str, span: Span, page: Page) -> Result<Vec<StoredLine>, EventsError> {
        let (ledger, tenant) = (ledger.to_owned(), tenant.to_owned());
        let lines = move |connection: &mut Connection| {
            rows::owned(connection, &ledger)?;
            Ok(rows::lines(connection, &tenant, span, page)?)
        };
        self.read(lines).await
    }

    async fn keep(&self, retention: Duration, now: Timestamp) -> Result<(), EventsError> {
        let before = forgotten_before(retention, now);
        // In transactions that are not long.
        while self.write(move |connection| Ok(rows::expire(connection, before)?)).await? == rows::FORGOTTEN {}
        Ok(())
    }
}

impl From<rusqlite::Error> for EventsError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode::{CannotOpen, DatabaseCorrupt, DiskFull, NotADatabase};
        let words = error.to_string();
        match error.sqlite_error_code() {
            Some(DatabaseCorrupt) => Self::Corrupt(words),
            Some(NotADatabase) => Self::NotOurs("the file".into()),
            Some(DiskFull) => Self::Full(words),
            Some(CannotOpen) => Self::Away(words),
            _ => Self::Failed(words),
        }
    }
}
