//! The tables in `SQLite`.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use super::beginning;
use crate::ledger::store::StoreError;
use crate::ledger::store::columns::declared;
use crate::ledger::store::{hours, migration};

/// Says that a file is a ledger: `TnOp` in ASCII.
const APPLICATION: i64 = 0x546e_4f70;
/// The schema that this version writes. A later one migrates from each before it.
const VERSION: i64 = 6;

fn first() -> String {
    let amounts = |prefix| declared(prefix, "INTEGER");
    let (used, reserved, posted, units) = (amounts("used_"), amounts("reserved_"), amounts("posted_"), amounts(""));
    format!(
        "CREATE TABLE tenant (id TEXT PRIMARY KEY, period_start INTEGER NOT NULL, period_end INTEGER NOT NULL)
             STRICT, WITHOUT ROWID;
         CREATE TABLE account (tenant TEXT NOT NULL, period_start INTEGER NOT NULL, period_end INTEGER NOT NULL,
             {used}, {reserved}, PRIMARY KEY (tenant, period_start)) STRICT, WITHOUT ROWID;
         CREATE TABLE operation (id TEXT PRIMARY KEY, tenant TEXT NOT NULL, period_start INTEGER NOT NULL,
             period_end INTEGER NOT NULL, state TEXT NOT NULL, expires_after INTEGER NOT NULL, at INTEGER NOT NULL,
             {reserved}, {posted}) STRICT, WITHOUT ROWID;
         CREATE INDEX pending ON operation (id) WHERE state = 'pending';
         CREATE TABLE line (seq INTEGER PRIMARY KEY AUTOINCREMENT, operation TEXT NOT NULL, tenant TEXT NOT NULL,
             period_start INTEGER NOT NULL, at INTEGER NOT NULL, kind TEXT NOT NULL, {units}) STRICT;
         CREATE TABLE tenant_day (tenant TEXT NOT NULL, day INTEGER NOT NULL, {units}, PRIMARY KEY (tenant, day))
             STRICT, WITHOUT ROWID;
         CREATE TABLE ledger (id TEXT NOT NULL) STRICT;
         CREATE TABLE site_day (day INTEGER PRIMARY KEY, {units}) STRICT;"
    )
}

fn second() -> String {
    // Its one row is written to find out whether the ledger can be written.
    migration::second("INTEGER") + "CREATE TABLE probe (id INTEGER PRIMARY KEY, filling BLOB NOT NULL) STRICT;"
}

/// The schema of a file, 0 of a new one. Refuses what a later version wrote, and what is no ledger. Reads only: the
/// file of another application stays as it is.
pub fn version(connection: &Connection, path: &Path) -> Result<i64, StoreError> {
    let number = |pragma: &str| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    let application = number("application_id").map_err(|error| match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::NotADatabase) => StoreError::NotALedger(path.to_owned()),
        _ => error.into(),
    })?;
    let tables_there: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if application != APPLICATION && tables_there > 0 {
        return Err(StoreError::NotALedger(path.to_owned()));
    }
    match number("user_version")? {
        found if found > VERSION => Err(StoreError::Newer { found, known: VERSION }),
        found => Ok(found),
    }
}

/// Makes the tables of a new file, and brings those of an earlier version up to this one.
pub fn migrate(connection: &mut Connection, version: i64) -> Result<(), StoreError> {
    if version >= VERSION {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if version < 1 {
        transaction.execute_batch(&first())?;
        let id = hex::encode(rand::random::<[u8; 8]>());
        transaction.execute("INSERT INTO ledger (id) VALUES (?)", [id])?;
        transaction.pragma_update(None, "application_id", APPLICATION)?;
    }
    if version < 2 {
        transaction.execute_batch(&second())?;
    }
    if version < 3 {
        let tables = hours::tables("INTEGER", &declared("", "INTEGER"), "STRICT, WITHOUT ROWID");
        transaction.execute_batch(&tables)?;
    }
    if version < 4 {
        transaction.execute_batch(&hours::of_lines("INTEGER"))?;
    }
    if version < 5 {
        transaction.execute_batch(beginning::TABLE)?;
    }
    if version < 6 {
        transaction.execute_batch(beginning::RECOUNTED)?;
    }
    if version < 1 {
        beginning::put(&transaction, None)?;
    }
    transaction.pragma_update(None, "user_version", VERSION)?;
    Ok(transaction.commit()?)
}

/// The ledger's own id, which its copies share.
pub fn id(connection: &Connection) -> rusqlite::Result<String> {
    connection.query_row("SELECT id FROM ledger", [], |row| row.get(0))
}
