//! Copies of the ledger's file: taken while it is written, and put in the place of a file that is lost.

use std::fs::File;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

use super::{beginning, files, schema};
use crate::api::Timestamp;
use crate::ledger::store::StoreError;

/// Numbers of lines that are passed over after a restoration. Those that were written after the copy had these numbers,
/// and readers may know them.
const PASSED_OVER: i64 = 1_000_000_000;

/// A file beside the ledger that is being made. Nothing of it stays when this is dropped.
pub struct Unfinished(PathBuf);

impl Unfinished {
    /// An empty place in the ledger's folder.
    pub fn new(folder: &Path, name: &str) -> Self {
        let place = Self(folder.join(name));
        place.clear();
        place
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    fn clear(&self) {
        drop(std::fs::remove_file(&self.0));
        clear_logs(&self.0);
    }
}

/// Deletes the logs of a database.
fn clear_logs(database: &Path) {
    for suffix in ["-wal", "-shm", "-journal"] {
        let mut path = database.to_owned().into_os_string();
        path.push(suffix);
        drop(std::fs::remove_file(path));
    }
}

/// Renames the log of a database that is gone: `SQLite` would write it into the copy. It may hold what the copy lacks,
/// so a person decides about it.
fn set_logs_aside(database: &Path) -> Result<(), StoreError> {
    for suffix in ["-wal", "-journal"] {
        let with = |suffix: &str| {
            let mut path = database.to_owned().into_os_string();
            path.push(suffix);
            PathBuf::from(path)
        };
        let log = with(suffix);
        if std::fs::metadata(&log).is_ok_and(|log| log.len() > 0) {
            let aside = with(&format!("{suffix}.before-restoration"));
            tracing::warn!(log = %aside.display(), "the folder holds the log of a database that is gone: it is set aside");
            std::fs::rename(&log, &aside).map_err(|error| StoreError::Io { path: log, error })?;
        }
    }
    clear_logs(database);
    Ok(())
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Copies the database as it is at one moment, and returns the ledger's id. All pages are copied in one step: a copy in
/// several steps begins again whenever the ledger is written (<https://www.sqlite.org/c3ref/backup_finish.html>). The
/// writer does not wait for it.
pub fn take(database: &Path, to: &Path) -> Result<String, StoreError> {
    has_room(database)?;
    let from = files::connect_to_read(database)?;
    let mut copy = Connection::open(to)?;
    let done = Backup::new(&from, &mut copy)?.step(-1)?;
    if done != StepResult::Done {
        return Err(StoreError::Busy);
    }
    whole(&copy)?;
    Ok(schema::id(&copy)?)
}

/// Fails if a page is damaged. Copies of a damaged ledger would take the place of those before it was.
fn whole(connection: &Connection) -> Result<(), StoreError> {
    let verdict: String = connection.pragma_query_value(None, "quick_check", |row| row.get(0))?;
    if verdict == "ok" { Ok(()) } else { Err(StoreError::Corrupt) }
}

/// Fails if a copy would leave the ledger too little room.
fn has_room(database: &Path) -> Result<(), StoreError> {
    let failed = |error: std::io::Error| StoreError::Io { path: database.to_owned(), error };
    let file = std::fs::metadata(database).map_err(failed)?.len();
    let volume = rustix::fs::statvfs(database).map_err(|error| failed(error.into()))?;
    if volume.f_bavail.saturating_mul(volume.f_frsize) < file.saturating_mul(2) {
        return Err(StoreError::NoRoomToCopy);
    }
    Ok(())
}

/// Puts a copy in the place of a file that is lost, if it is whole. The ledger begins again with what the copy had when
/// it was taken.
pub fn restore(copy: &Unfinished, taken: Timestamp, database: &Path) -> Result<(), StoreError> {
    let mut connection = files::connect(copy.path())?;
    let version = schema::version(&connection, copy.path())?;
    // An object without a byte is an empty database, and no ledger that began.
    if version == 0 {
        return Err(StoreError::NotALedger(copy.path().to_owned()));
    }
    files::check_length(&connection, copy.path(), false)?;
    whole(&connection)?;
    schema::migrate(&mut connection, version)?;
    beginning::put(&connection, Some(taken))?;
    // A copy without lines has no row here.
    connection.execute(
        "INSERT INTO sqlite_sequence (name, seq) SELECT 'line', 0 WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'line')",
        [],
    )?;
    connection.execute("UPDATE sqlite_sequence SET seq = seq + ? WHERE name = 'line'", [PASSED_OVER])?;
    // Writes everything into the one file.
    connection.close().map_err(|(_, error)| error)?;
    let failed = |error| StoreError::Io { path: database.to_owned(), error };
    set_logs_aside(database)?;
    std::fs::rename(copy.path(), database).map_err(failed)?;
    let folder = database.parent().unwrap_or(database);
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
}
