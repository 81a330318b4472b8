//! Answers for idempotency keys, in a file of their own: no snapshot holds them, and their bodies hold up no command.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, params};

use super::files;
use super::writer::{When, Writer};
use crate::api::Timestamp;
use crate::ledger::answers::{Finish, KEPT, Kept, Key, ROOM, ROW, begin, finish, make_room, too_many};
use crate::ledger::store::{Answers, StoreError};
use crate::ledger::wire::{AnswerState, KeptAnswer};

/// How long it may take until the log can be emptied: the writer is in a transaction.
const BUSY: Duration = Duration::from_secs(5);
const TABLE: &str = "CREATE TABLE IF NOT EXISTS answer (id INTEGER PRIMARY KEY AUTOINCREMENT, tenant TEXT NOT NULL,
         key TEXT NOT NULL, request TEXT NOT NULL, attempt TEXT NOT NULL, until INTEGER NOT NULL, size INTEGER NOT NULL, answer TEXT) STRICT;
     CREATE UNIQUE INDEX IF NOT EXISTS answer_key ON answer (tenant, key);
     CREATE INDEX IF NOT EXISTS answer_age ON answer (tenant, id, size);
     CREATE INDEX IF NOT EXISTS answer_until ON answer (until);
     CREATE TABLE IF NOT EXISTS probe (id INTEGER PRIMARY KEY, filling BLOB NOT NULL) STRICT;";

/// The sum of what all keys take, and what keeps it right. It is added up anew when the file is opened, and written only
/// if it differs: a ledger starts on a full volume as well.
fn sum() -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS total (bytes INTEGER NOT NULL) STRICT;
         INSERT INTO total SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM total);
         UPDATE total SET bytes = known.bytes FROM (SELECT ifnull(sum(size + {ROW}), 0) AS bytes FROM answer) AS known
             WHERE total.bytes <> known.bytes;
         CREATE TRIGGER IF NOT EXISTS answer_begun AFTER INSERT ON answer
             BEGIN UPDATE total SET bytes = bytes + new.size + {ROW}; END;
         CREATE TRIGGER IF NOT EXISTS answer_changed AFTER UPDATE OF size ON answer
             BEGIN UPDATE total SET bytes = bytes + new.size - old.size; END;
         CREATE TRIGGER IF NOT EXISTS answer_gone AFTER DELETE ON answer
             BEGIN UPDATE total SET bytes = bytes - old.size - {ROW}; END;"
    )
}

/// The file of answers.
#[derive(Debug)]
pub struct AnswerFile {
    writer: Writer,
    path: PathBuf,
}

impl AnswerFile {
    /// Opens the file of a folder. A file that is damaged is made anew: it holds the answers of a day.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let path = folder.join("answers.db");
        let connection = match Self::connect(&path) {
            Err(StoreError::Corrupt) => {
                tracing::error!(path = %path.display(), "the file of kept answers is damaged: it is made anew");
                for suffix in ["", "-wal", "-shm"] {
                    drop(std::fs::remove_file(folder.join(format!("answers.db{suffix}"))));
                }
                Self::connect(&path)
            }
            opened => opened,
        };
        Ok(Self { writer: Writer::start(connection?)?, path })
    }

    fn connect(path: &Path) -> Result<Connection, StoreError> {
        let connection = files::connect(path)?;
        files::prepare(&connection, path)?;
        // What is deleted is overwritten: answers cite customers' documents.
        connection.pragma_update_and_check(None, "secure_delete", true, |_| Ok(()))?;
        connection.execute_batch(&format!("BEGIN IMMEDIATE; {TABLE} {} COMMIT;", sum()))?;
        Ok(connection)
    }
}

#[async_trait]
impl Answers for AnswerFile {
    async fn begin(&self, key: Key, until: Timestamp, now: Timestamp) -> Result<AnswerState, StoreError> {
        let work = move |connection: &Connection| {
            let state = begin(kept(connection, &key)?, &key, now);
            if state == AnswerState::New {
                put(connection, &key, until)?;
                trim(connection, &key.tenant)?;
            }
            Ok(state)
        };
        self.writer.write(When::Now, work).await
    }

    async fn finish(
        &self,
        key: Key,
        answer: Option<KeptAnswer>,
        most: i64,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let work = move |connection: &Connection| {
            let finish = finish(kept(connection, &key)?, &key, now);
            match (&answer, finish) {
                (Some(answer), Finish::Keep) => {
                    let sql = "UPDATE answer SET until = ?, size = ?, answer = ? WHERE tenant = ? AND key = ?";
                    let (until, size, text) = (now.plus(KEPT).as_second(), answer.size(), answer.text());
                    connection.prepare_cached(sql)?.execute(params![until, size, text, key.tenant, key.key])?;
                    trim(connection, &key.tenant)?;
                    shrink(connection, most)?;
                }
                (None, Finish::Keep) => {
                    let sql = "DELETE FROM answer WHERE tenant = ? AND key = ?";
                    connection.prepare_cached(sql)?.execute([&key.tenant, &key.key])?;
                }
                _ => {}
            }
            Ok(finish == Finish::KeptBefore || (finish == Finish::Keep && answer.is_some()))
        };
        self.writer.write(When::Now, work).await
    }

    async fn bytes(&self) -> Result<i64, StoreError> {
        self.writer.write(When::Now, total).await
    }

    async fn erase(&self, tenant: &str) -> Result<u64, StoreError> {
        let tenant = tenant.to_owned();
        let work = move |connection: &Connection| {
            connection.prepare_cached("DELETE FROM answer WHERE tenant = ?")?.execute([&tenant])
        };
        let erased = self.writer.write(When::Now, work).await? as u64;
        let path = self.path.clone();
        let emptied = tokio::task::spawn_blocking(move || empty_log(&path)).await;
        emptied.map_err(|error| StoreError::Database(error.to_string()))??;
        Ok(erased)
    }

    async fn sweep(&self, now: Timestamp, most: u32) -> Result<u32, StoreError> {
        let work = move |connection: &Connection| {
            let sql = "DELETE FROM answer WHERE id IN (SELECT id FROM answer WHERE until <= ? ORDER BY until LIMIT ?)";
            connection.prepare_cached(sql)?.execute(params![now.as_second(), most])
        };
        Ok(u32::try_from(self.writer.write(When::Idle, work).await?).unwrap_or(most))
    }
}

/// Empties the write-ahead log, which holds what was written before it was deleted.
fn empty_log(path: &Path) -> Result<(), StoreError> {
    let connection = files::connect(path)?;
    connection.busy_timeout(BUSY)?;
    let busy: i64 = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    if busy == 0 { Ok(()) } else { Err(StoreError::Busy) }
}

fn kept(connection: &Connection, key: &Key) -> rusqlite::Result<Option<Kept>> {
    let sql = "SELECT request, attempt, until, answer FROM answer WHERE tenant = ? AND key = ?";
    let read = |row: &rusqlite::Row| {
        let answer: Option<String> = row.get(3)?;
        let answer = answer.and_then(|text| serde_json::from_str(&text).ok());
        let until = Timestamp::from_second(row.get(2)?);
        Ok(Kept { request: row.get(0)?, attempt: row.get(1)?, until, answer })
    };
    connection.prepare_cached(sql)?.query_row([&key.tenant, &key.key], read).optional()
}

/// Writes a key that begins, in the place of one that is over: it is the newest.
fn put(connection: &Connection, key: &Key, until: Timestamp) -> rusqlite::Result<()> {
    // A replacement would not tell the trigger what it replaces.
    connection.prepare_cached("DELETE FROM answer WHERE tenant = ? AND key = ?")?.execute([&key.tenant, &key.key])?;
    let sql = "INSERT INTO answer (tenant, key, request, attempt, until, size) VALUES (?, ?, ?, ?, ?, 0)";
    let bound = params![key.tenant, key.key, key.request, key.attempt, until.as_second()];
    connection.prepare_cached(sql)?.execute(bound).map(drop)
}

/// Deletes the oldest keys of a tenant that has too many.
fn trim(connection: &Connection, tenant: &str) -> rusqlite::Result<()> {
    let sql = "SELECT id, size FROM answer WHERE tenant = ? ORDER BY id DESC";
    let last = {
        let mut statement = connection.prepare_cached(sql)?;
        let keys = statement.query_map([tenant], |row| Ok((row.get(0)?, row.get(1)?)))?;
        too_many(keys.collect::<rusqlite::Result<Vec<_>>>()?)
    };
    if let Some(last) = last {
        let sql = "DELETE FROM answer WHERE tenant = ? AND id <= ?";
        connection.prepare_cached(sql)?.execute(params![tenant, last])?;
    }
    Ok(())
}

fn total(connection: &Connection) -> rusqlite::Result<i64> {
    connection.prepare_cached("SELECT bytes FROM total")?.query_row([], |row| row.get(0))
}

/// Deletes the oldest answers of all tenants where they take more than so many bytes. A request that is being served
/// keeps its key.
fn shrink(connection: &Connection, most: i64) -> rusqlite::Result<()> {
    let over = total(connection)?.saturating_sub(most);
    if over <= 0 {
        return Ok(());
    }
    let oldest = {
        let sql = "SELECT id, size FROM answer WHERE answer IS NOT NULL ORDER BY id LIMIT ?";
        let mut statement = connection.prepare_cached(sql)?;
        let rows = statement.query_map([ROOM], |row| Ok((row.get(0)?, row.get(1)?)))?;
        make_room(rows.collect::<rusqlite::Result<Vec<_>>>()?, over)
    };
    let mut delete = connection.prepare_cached("DELETE FROM answer WHERE id = ?")?;
    oldest.into_iter().try_for_each(|id| delete.execute([id]).map(drop))
}
