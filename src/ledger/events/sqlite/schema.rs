//! The tables.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use crate::ledger::events::EventsError;
use crate::ledger::store::columns::declared;

/// Says that a file is an events store: `TnEv` in ASCII.
const APPLICATION: i64 = 0x546e_4576;
/// The schema that this version writes. A later one migrates from each before it, or begins anew.
const VERSION: i64 = 1;

/// The lines, those of a tenant beside each other in the order of time, and the one row of how far they go.
pub fn lines() -> String {
    format!(
        "CREATE TABLE line (tenant TEXT NOT NULL, at INTEGER NOT NULL, seq INTEGER NOT NULL, hour INTEGER NOT NULL,
             operation TEXT NOT NULL, period_start INTEGER NOT NULL, kind TEXT NOT NULL, {},
             PRIMARY KEY (tenant, at, seq)) STRICT, WITHOUT ROWID;
         CREATE INDEX line_hour ON line (hour);",
        declared("", "INTEGER")
    )
}

const FED: &str = "CREATE TABLE fed (one INTEGER PRIMARY KEY CHECK (one = 1), ledger TEXT NOT NULL,
    generation INTEGER NOT NULL, seq INTEGER NOT NULL, digest TEXT NOT NULL) STRICT;";

/// Makes the tables of a new file. Refuses what a later version wrote, and what is something else.
pub fn migrate(connection: &mut Connection, path: &Path) -> Result<(), EventsError> {
    let number = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let not_ours = || EventsError::NotOurs(path.display().to_string());
    let application = number("application_id").map_err(|error| match error.into() {
        EventsError::NotOurs(_) => not_ours(),
        error => error,
    })?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if application != APPLICATION && tables > 0 {
        return Err(not_ours());
    }
    let found = number("user_version")?;
    if found > VERSION {
        return Err(EventsError::Newer { found, known: VERSION });
    }
    connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "normal")?;
    if found < VERSION {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute_batch(&(lines() + FED))?;
        transaction.pragma_update(None, "application_id", APPLICATION)?;
        transaction.pragma_update(None, "user_version", VERSION)?;
        transaction.commit()?;
    }
    Ok(())
}
