//! Copies of the ledger's file: taken while it is written, and put in the place of a file that is lost.

use std::fs::File;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

use super::{files, schema};
use crate::ledger::store::StoreError;

/// Numbers of lines that are passed over after a restoration. Those that were written after the copy had these numbers, and readers may
/// know them.
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

/// Deletes the logs of a database. One that is left beside another database would be written into it.
fn clear_logs(database: &Path) {
    for suffix in ["-wal", "-shm", "-journal"] {
        let mut path = database.to_owned().into_os_string();
        path.push(suffix);
        drop(std::fs::remove_file(path));
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Copies the database as it is at one moment, and returns the ledger's id. All pages are copied in one step: a copy in several steps begins
/// again whenever the ledger is written (<https://www.sqlite.org/c3ref/backup_finish.html>). The writer does not wait for it.
pub fn take(database: &Path, to: &Path) -> Result<String, StoreError> {
    let from = files::connect_to_read(database)?;
    let mut copy = Connection::open(to)?;
    let done = Backup::new(&from, &mut copy)?.step(-1)?;
    if done != StepResult::Done {
        return Err(StoreError::Busy);
    }
    schema::id(&copy)
}

/// Puts a copy in the place of a file that is lost, if it is whole.
pub fn restore(copy: &Unfinished, database: &Path) -> Result<(), StoreError> {
    let connection = files::connect(copy.path())?;
    schema::version(&connection, copy.path())?;
    let verdict: String = connection.pragma_query_value(None, "quick_check", |row| row.get(0))?;
    if verdict != "ok" {
        return Err(StoreError::Corrupt);
    }
    connection.execute("UPDATE sqlite_sequence SET seq = seq + ? WHERE name = 'line'", [PASSED_OVER])?;
    // Writes everything into the one file.
    connection.close().map_err(|(_, error)| error)?;
    let failed = |error| StoreError::Io { path: database.to_owned(), error };
    clear_logs(database);
    std::fs::rename(copy.path(), database).map_err(failed)?;
    let folder = database.parent().unwrap_or(database);
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
}
