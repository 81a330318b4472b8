//! The files of a ledger: the database, and a lock that keeps a second ledger away.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, MAIN_DB, OpenFlags};

use crate::ledger::store::StoreError;

/// How long a read waits while the write-ahead log is being reset.
const BUSY: Duration = Duration::from_secs(5);
/// Statements that stay prepared: those of one command, and those of the pages.
const PREPARED: usize = 64;

/// The database of a folder.
pub fn database(folder: &Path) -> PathBuf {
    folder.join("ledger.db")
}

/// Keeps a second ledger away from the same folder. Goes with the process, however it ends.
#[derive(Debug)]
pub struct Lock(#[allow(dead_code, reason = "held, not read")] File);

impl Lock {
    /// Makes the folder if it is missing, and takes the lock.
    pub fn take(folder: &Path) -> Result<Self, StoreError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |error| StoreError::Io { path, error }
        };
        std::fs::create_dir_all(folder).map_err(failed(folder))?;
        let path = folder.join("ledger.lock");
        let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(failed(&path))?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(StoreError::InUse(folder.to_owned())),
            Err(TryLockError::Error(error)) => Err(failed(&path)(error)),
        }
    }
}

/// Opens the database to write, and makes it if it is missing. Changes nothing of what is there.
pub fn connect(path: &Path) -> Result<Connection, StoreError> {
    // Without SQLITE_OPEN_URI, a path that begins with `file:` is a path.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    // SQLite opens a file that it may not write to read it alone, and each command would fail.
    if connection.is_readonly(MAIN_DB)? {
        let error = std::io::ErrorKind::PermissionDenied.into();
        return Err(StoreError::Io { path: path.to_owned(), error });
    }
    Ok(connection)
}

/// Fails if the database ends within a page. `SQLite` writes whole pages, and a crash while it copies them from its log
/// leaves the log. Without one, the file was cut off, and what is missing might be noticed only when it is needed.
pub fn check_length(connection: &Connection, path: &Path, has_log: bool) -> Result<(), StoreError> {
    let page: u32 = connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
    let length = std::fs::metadata(path).map_err(|error| StoreError::Io { path: path.to_owned(), error })?.len();
    if !has_log && length.checked_rem(page.into()).is_some_and(|rest| rest > 0) {
        Err(StoreError::Corrupt)
    } else {
        Ok(())
    }
}

/// Whether the database of this path has a log with something in it.
pub fn has_log(path: &Path) -> bool {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    std::fs::metadata(log).is_ok_and(|log| log.len() > 0)
}

/// Sets how a ledger is written.
pub fn prepare(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let mode: String = connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
    if mode != "wal" {
        return Err(StoreError::Database(format!(
            "{} is on a file system without shared memory, which SQLite's write-ahead log needs: use a block volume",
            path.display()
        )));
    }
    connection.pragma_update(None, "synchronous", "full")?;
    connection.set_prepared_statement_cache_capacity(PREPARED);
    Ok(())
}

/// Opens the database to read.
pub fn connect_to_read(path: &Path) -> Result<Connection, StoreError> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(PREPARED);
    Ok(connection)
}
