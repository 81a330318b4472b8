//! Answers for idempotency keys, in a file of their own: no snapshot holds them, and their bodies hold up no command.

use std::path::Path;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, params};

use super::files;
use super::writer::{When, Writer};
use crate::api::Timestamp;
use crate::ledger::answers::{Finish, KEPT, Kept, Key, begin, finish, too_many};
use crate::ledger::store::{Answers, StoreError};
use crate::ledger::wire::{AnswerState, KeptAnswer};

const TABLE: &str = "CREATE TABLE IF NOT EXISTS answer (id INTEGER PRIMARY KEY AUTOINCREMENT, tenant TEXT NOT NULL,
         key TEXT NOT NULL, request TEXT NOT NULL, attempt TEXT NOT NULL, until INTEGER NOT NULL, size INTEGER NOT NULL, answer TEXT) STRICT;
     CREATE UNIQUE INDEX IF NOT EXISTS answer_key ON answer (tenant, key);
     CREATE INDEX IF NOT EXISTS answer_age ON answer (tenant, id, size);
     CREATE INDEX IF NOT EXISTS answer_until ON answer (until);
     CREATE TABLE IF NOT EXISTS probe (id INTEGER PRIMARY KEY, filling BLOB NOT NULL) STRICT;";

/// The file of answers.
#[derive(Debug)]
pub struct AnswerFile(Writer);

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
        Ok(Self(Writer::start(connection?)?))
    }

    fn connect(path: &Path) -> Result<Connection, StoreError> {
        let connection = files::connect(path)?;
        files::prepare(&connection, path)?;
        connection.execute_batch(TABLE)?;
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
        self.0.write(When::Now, work).await
    }

    async fn finish(&self, key: Key, answer: Option<KeptAnswer>, now: Timestamp) -> Result<bool, StoreError> {
        let work = move |connection: &Connection| {
            let finish = finish(kept(connection, &key)?, &key, now);
            match (&answer, finish) {
                (Some(answer), Finish::Keep) => {
                    let sql = "UPDATE answer SET until = ?, size = ?, answer = ? WHERE tenant = ? AND key = ?";
                    let (until, size, text) = (now.plus(KEPT).as_second(), answer.size(), answer.text());
                    connection.prepare_cached(sql)?.execute(params![until, size, text, key.tenant, key.key])?;
                    trim(connection, &key.tenant)?;
                }
                (None, Finish::Keep) => {
                    let sql = "DELETE FROM answer WHERE tenant = ? AND key = ?";
                    connection.prepare_cached(sql)?.execute([&key.tenant, &key.key])?;
                }
                _ => {}
            }
            Ok(finish == Finish::KeptBefore || (finish == Finish::Keep && answer.is_some()))
        };
        self.0.write(When::Now, work).await
    }

    async fn erase(&self, tenant: &str) -> Result<u64, StoreError> {
        let tenant = tenant.to_owned();
        let work = move |connection: &Connection| {
            connection.prepare_cached("DELETE FROM answer WHERE tenant = ?")?.execute([&tenant])
        };
        Ok(self.0.write(When::Now, work).await? as u64)
    }

    async fn sweep(&self, now: Timestamp, most: u32) -> Result<u32, StoreError> {
        let work = move |connection: &Connection| {
            let sql = "DELETE FROM answer WHERE id IN (SELECT id FROM answer WHERE until <= ? ORDER BY until LIMIT ?)";
            connection.prepare_cached(sql)?.execute(params![now.as_second(), most])
        };
        Ok(u32::try_from(self.0.write(When::Idle, work).await?).unwrap_or(most))
    }
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
    let sql = "INSERT OR REPLACE INTO answer (tenant, key, request, attempt, until, size) VALUES (?, ?, ?, ?, ?, 0)";
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
