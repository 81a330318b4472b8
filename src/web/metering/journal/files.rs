//! The files of a journal: the database, a lock that keeps a second replica away, and folders for what cannot be read.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, MAIN_DB, OpenFlags, OptionalExtension, TransactionBehavior};

use super::JournalError;

/// Of `SQLite`'s files.
pub const PAGE: u64 = 4096;
/// The smallest database that holds an entry.
const LEAST_PAGES: u64 = 4;
/// Pages of the write-ahead log after which it is written into the database.
const LOG_PAGES: u32 = 256;
/// KiB of the database that stay in memory.
const CACHE: i64 = 256;
/// Says that a file is a journal: `TnOj` in ASCII.
const APPLICATION: i64 = 0x546e_4f6a;
/// The schema that this version reads and writes.
const VERSION: i64 = 1;
const TABLES: &str = "CREATE TABLE entry (seq INTEGER PRIMARY KEY, line TEXT NOT NULL) STRICT";

/// An entry that was kept: its number and its line.
pub type Kept = (i64, String);

/// A tenant, and bytes of its entries.
pub type Taken = (String, u64);

/// Whose an entry is. What is no entry is nobody's.
const WHOSE: &str = "CASE WHEN json_valid(line) THEN CAST(ifnull(line ->> '$.body.tenant', '') AS TEXT) ELSE '' END";

/// What the folders begin with that hold what could not be read.
const UNREADABLE: &str = "unreadable-";

/// Keeps a second replica away from the same folder. Goes with the process, however it ends.
#[derive(Debug)]
pub struct Lock(#[allow(dead_code, reason = "held, not read")] File);

impl Lock {
    /// Makes the folder if it is missing, and takes the lock.
    pub fn take(folder: &Path) -> Result<Self, JournalError> {
        fs::create_dir_all(folder).map_err(JournalError::at(folder))?;
        let path = folder.join("journal.lock");
        let options = File::options().create(true).truncate(false).write(true).open(&path);
        let file = options.map_err(JournalError::at(&path))?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(JournalError::InUse(folder.to_owned())),
            Err(TryLockError::Error(error)) => Err(JournalError::at(&path)(error)),
        }
    }
}

/// The pages of so many bytes.
pub fn pages(bytes: u64) -> u64 {
    (bytes / PAGE).max(LEAST_PAGES)
}

/// Where a journal is, and how large it may be.
#[derive(Clone, Debug)]
pub struct JournalPlace {
    pub folder: PathBuf,
    pub most_pages: u64,
}

impl JournalPlace {
    pub fn database(&self) -> PathBuf {
        self.folder.join("journal.db")
    }

    /// The database and its logs: the logs first. A database without its log is read; a log without its database is
    /// not.
    fn files(&self) -> [PathBuf; 3] {
        ["journal.db-wal", "journal.db-journal", "journal.db"].map(|name| self.folder.join(name))
    }

    /// Opens the database, or begins one. What cannot be read is set aside; the entries in it that can be read are
    /// kept.
    pub fn open(&self) -> Result<Connection, JournalError> {
        let why = match self.examine() {
            Ok(connection) => return self.prepare(connection),
            Err(JournalError::Unreadable(why)) => why,
            Err(error) => return Err(error),
        };
        let entries = self.readable();
        let aside = self.move_aside()?;
        tracing::error!(%why, folder = %aside.display(), entries = entries.len(),
            "web's journal cannot be read and is set aside; the entries in it that can be read are kept");
        let mut connection = self.prepare(connect(&self.database())?)?;
        if let Err(error) = insert(&mut connection, entries.iter().map(|(number, line)| (*number, line))) {
            tracing::error!(%error, "the entries that can be read were not kept: they are in the folder that is set aside");
        }
        Ok(connection)
    }

    /// The database, if it is a journal and whole, or new. Changes nothing of what is there.
    fn examine(&self) -> Result<Connection, JournalError> {
        let path = self.database();
        let length = fs::metadata(&path).map_or(0, |file| file.len());
        // SQLite would delete the log of a database without a page.
        if length == 0 && self.files().iter().any(|log| fs::metadata(log).is_ok_and(|log| log.len() > 0)) {
            return Err(JournalError::Unreadable("its log is there, and the database is not".into()));
        }
        if path.is_dir() {
            return Err(JournalError::Unreadable(format!("{} is a folder", path.display())));
        }
        let connection = connect(&path)?;
        whole(&connection).map_err(|error| match error.sqlite_error_code() {
            // A sector that the disk does not read any more.
            Some(rusqlite::ErrorCode::SystemIoFailure) => JournalError::Unreadable(error.to_string()),
            _ => error.into(),
        })??;
        Ok(connection)
    }

    /// Sets how a journal is written, and makes its table in a new file.
    fn prepare(&self, mut connection: Connection) -> Result<Connection, JournalError> {
        let mode: String = connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
        if mode != "wal" {
            return Err(JournalError::Database(format!("SQLite has no write-ahead log in {}", self.folder.display())));
        }
        connection.pragma_update(None, "synchronous", "full")?;
        // Entries are read once: they need no memory.
        connection.pragma_update(None, "cache_size", -CACHE)?;
        connection.pragma_update_and_check(None, "wal_autocheckpoint", LOG_PAGES, |_| Ok(()))?;
        let most = i64::try_from(self.most_pages).unwrap_or(i64::MAX);
        connection.pragma_update_and_check(None, "max_page_count", most, |_| Ok(()))?;
        if number(&connection, "user_version")? < VERSION {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            transaction.execute_batch(TABLES)?;
            transaction.pragma_update(None, "application_id", APPLICATION)?;
            transaction.pragma_update(None, "user_version", VERSION)?;
            transaction.commit()?;
        }
        self.sync()?;
        Ok(connection)
    }

    /// Makes the names of the files in the folder outlive a power cut.
    fn sync(&self) -> Result<(), JournalError> {
        File::open(&self.folder).and_then(|folder| folder.sync_all()).map_err(JournalError::at(&self.folder))
    }

    /// The entries of a damaged journal that can be read: from the front up to the damage, and from the end.
    fn readable(&self) -> BTreeMap<i64, String> {
        let mut entries = BTreeMap::new();
        let path = self.database();
        if !fs::metadata(&path).is_ok_and(|file| file.is_file() && file.len() > 0) {
            return entries;
        }
        let Ok(connection) = connect(&path) else { return entries };
        if number(&connection, "application_id").ok() != Some(APPLICATION) {
            return entries;
        }
        for order in ["ASC", "DESC"] {
            let query = format!("SELECT seq, line FROM entry ORDER BY seq {order}");
            let Ok(mut statement) = connection.prepare(&query) else { continue };
            let Ok(rows) = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))) else { continue };
            entries.extend(rows.map_while(Result::ok).collect::<Vec<Kept>>());
        }
        entries
    }

    /// Moves the database and its logs into a folder of their own.
    fn move_aside(&self) -> Result<PathBuf, JournalError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let (mut number, mut aside) = (1, self.folder.join(format!("{UNREADABLE}{now}")));
        while aside.exists() {
            number += 1;
            aside = self.folder.join(format!("{UNREADABLE}{now}-{number}"));
        }
        fs::create_dir(&aside).map_err(JournalError::at(&aside))?;
        for file in self.files() {
            let name = file.file_name().unwrap_or_default();
            match fs::rename(&file, aside.join(name)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(JournalError::at(&file)(error));
                }
                _ => {}
            }
        }
        self.sync()?;
        Ok(aside)
    }

    /// How many folders hold what could not be read.
    pub fn set_aside(&self) -> u64 {
        let Ok(names) = fs::read_dir(&self.folder) else { return 0 };
        let is_aside = |name: &fs::DirEntry| name.file_name().to_string_lossy().starts_with(UNREADABLE);
        names.filter_map(Result::ok).filter(is_aside).count() as u64
    }

    /// Deletes the database. Its log goes first: what is left after a crash is delivered again.
    pub fn delete(&self) -> Result<(), JournalError> {
        for file in self.files() {
            match fs::remove_file(&file) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(JournalError::at(&file)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Opens a database to write, and makes it if it is missing. Changes nothing of what is there.
fn connect(path: &Path) -> Result<Connection, JournalError> {
    // Without SQLITE_OPEN_URI, a path that begins with `file:` is a path.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    // SQLite opens a file that it may not write to read it alone, and each entry would fail.
    if connection.is_readonly(MAIN_DB)? {
        return Err(JournalError::at(path)(std::io::ErrorKind::PermissionDenied.into()));
    }
    // Closing a damaged database must not write its log into it.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    // This is the one connection: the log needs no shared memory, and no file for it.
    connection.pragma_update_and_check(None, "locking_mode", "exclusive", |_| Ok(()))?;
    Ok(connection)
}

fn number(connection: &Connection, pragma: &str) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, pragma, |row| row.get(0))
}

/// Whether a database is a journal that this version reads, with all its pages, or new.
fn whole(connection: &Connection) -> rusqlite::Result<Result<(), JournalError>> {
    let unreadable = |why: String| Ok(Err(JournalError::Unreadable(why)));
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if number(connection, "application_id")? != APPLICATION && tables > 0 {
        return unreadable("the file is of another application".into());
    }
    match number(connection, "user_version")? {
        VERSION | 0 => {}
        found => return unreadable(format!("it has schema {found}, and this version knows {VERSION}")),
    }
    let verdict: String = connection.pragma_query_value(None, "quick_check", |row| row.get(0))?;
    if verdict == "ok" { Ok(Ok(())) } else { unreadable(verdict) }
}

/// Adds entries, all or none.
pub fn insert<'a>(
    connection: &mut Connection,
    entries: impl IntoIterator<Item = (i64, &'a String)>,
) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for (number, line) in entries {
        transaction.prepare_cached("INSERT INTO entry (seq, line) VALUES (?, ?)")?.execute((number, line))?;
    }
    transaction.commit()
}

/// The next entries after a number, in order, without those that are done.
pub fn read(connection: &Connection, after: i64, done: &BTreeSet<i64>, most: usize) -> rusqlite::Result<Vec<Kept>> {
    let mut statement = connection.prepare_cached("SELECT seq, line FROM entry WHERE seq > ? ORDER BY seq")?;
    let rows = statement.query_map([after], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let is_open = |row: &rusqlite::Result<Kept>| row.as_ref().map_or(true, |(number, _)| !done.contains(number));
    rows.filter(is_open).take(most).collect()
}

/// Removes entries, all or none: whose there were, and their bytes.
pub fn remove(connection: &mut Connection, entries: &BTreeSet<i64>) -> rusqlite::Result<Vec<Taken>> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut removed = Vec::new();
    let sql = format!("DELETE FROM entry WHERE seq = ? RETURNING {WHOSE}, octet_length(line)");
    for entry in entries {
        removed.extend(transaction.prepare_cached(&sql)?.query_row([entry], taken).optional()?);
    }
    transaction.commit()?;
    Ok(removed)
}

/// How many entries there are, and the number of the last one.
pub fn entries(connection: &Connection) -> rusqlite::Result<(usize, i64)> {
    let query = "SELECT count(*), ifnull(max(seq), 0) FROM entry";
    let (count, last) = connection.query_row(query, [], |row| Ok((row.get::<_, i64>(0)?, row.get(1)?)))?;
    Ok((usize::try_from(count).unwrap_or(0), last))
}

/// The bytes of each tenant's entries.
pub fn by_tenant(connection: &Connection) -> rusqlite::Result<Vec<Taken>> {
    let sql = format!("SELECT {WHOSE}, sum(octet_length(line)) FROM entry GROUP BY 1");
    connection.prepare(&sql)?.query_map([], taken)?.collect()
}

fn taken(row: &rusqlite::Row) -> rusqlite::Result<Taken> {
    Ok((row.get(0)?, u64::try_from(row.get::<_, i64>(1)?).unwrap_or(0)))
}

/// How many pages are in use.
pub fn used_pages(connection: &Connection) -> rusqlite::Result<u64> {
    let used = number(connection, "page_count")? - number(connection, "freelist_count")?;
    Ok(u64::try_from(used).unwrap_or(0))
}
