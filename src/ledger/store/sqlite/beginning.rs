//! The beginning of a ledger in `SQLite`, and what it has of before.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::rows;
use super::values::{amounts, period};
use crate::api::Timestamp;
use crate::ledger::account::Period;
use crate::ledger::beginning::{Began, Beginning, had_used, used_before};
use crate::ledger::names;
use crate::ledger::store::LEVELS;
use crate::ledger::store::columns::columns;
use crate::ledger::units::{Amounts, Unit};
use crate::ledger::wire::OldDocument;

/// The table. It has one row, and none in a ledger that a version before it began.
pub const TABLE: &str =
    "CREATE TABLE beginning (id TEXT PRIMARY KEY, at INTEGER, snapshot_at INTEGER, recounted_at INTEGER) STRICT;";

/// The tenants that the controller has counted again since the ledger began.
pub const RECOUNTED: &str = "CREATE TABLE recounted (tenant TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;";

/// Writes that the ledger begins, empty or with a snapshot. When it begins is written once it runs and knows the time.
pub fn put(connection: &Connection, snapshot: Option<Timestamp>) -> rusqlite::Result<()> {
    let id = hex::encode(rand::random::<[u8; 8]>());
    connection.execute_batch("DELETE FROM beginning; DELETE FROM recounted;")?;
    let sql = "INSERT INTO beginning (id, snapshot_at) VALUES (?, ?)";
    connection.execute(sql, params![id, snapshot.map(Timestamp::as_second)]).map(drop)
}

/// How the ledger began: now, if that is not written yet. It then notes what it has of each tenant.
pub fn begin(connection: &Connection, now: Timestamp) -> rusqlite::Result<Option<Beginning>> {
    let read = |row: &Row| {
        let at = |column| Ok::<_, rusqlite::Error>(row.get::<_, Option<i64>>(column)?.map(Timestamp::from_second));
        Ok((row.get::<_, String>(0)?, at(1)?, at(2)?, at(3)?))
    };
    let row = connection.query_row("SELECT id, at, snapshot_at, recounted_at FROM beginning", [], read).optional()?;
    let Some((id, at, snapshot, recounted)) = row else { return Ok(None) };
    if at.is_none() {
        connection.execute("UPDATE beginning SET at = ?", [now.as_second()])?;
        note_used(connection, &id, now)?;
    }
    Ok(Some(Beginning { id, began: Began { at: at.unwrap_or(now), snapshot }, recounted }))
}

/// Notes what each tenant has used in each of its periods, under the name under which it is counted again: the status of
/// a Tenant may still show an earlier one.
fn note_used(connection: &Connection, id: &str, now: Timestamp) -> rusqlite::Result<()> {
    let sql = format!(
        "SELECT tenant.id, account.period_start, account.period_end, {} FROM tenant
         JOIN account ON account.tenant = tenant.id AND account.period_start <> {LEVELS}",
        columns("used_")
    );
    let read = |row: &Row| Ok((row.get::<_, String>(0)?, period(row, 1)?, amounts(row, 3)?));
    let mut statement = connection.prepare(&sql)?;
    let had = statement.query_map([], read)?.collect::<rusqlite::Result<Vec<(String, Period, Amounts)>>>()?;
    for (tenant, period, used) in had {
        let name = used_before(id, &tenant, period.start);
        rows::put_operation(connection, &name, &had_used(&tenant, period, used), now)?;
    }
    Ok(())
}

/// Notes that all that was before a beginning is counted again.
pub fn recounted(connection: &Connection, beginning: &str, now: Timestamp) -> rusqlite::Result<()> {
    let sql = "UPDATE beginning SET recounted_at = ? WHERE id = ? AND recounted_at IS NULL";
    connection.execute(sql, params![now.as_second(), beginning]).map(drop)
}

/// Notes that what a tenant had stored before a beginning is counted again. Of another beginning it says nothing.
pub fn recounted_of(connection: &Connection, beginning: &str, tenant: &str) -> rusqlite::Result<()> {
    let sql = "INSERT OR IGNORE INTO recounted (tenant) SELECT ?2 FROM beginning WHERE id = ?1";
    connection.execute(sql, [beginning, tenant]).map(drop)
}

/// The tenants that were counted again since a beginning, in the order of their ids after one of them.
pub fn recounted_tenants(
    connection: &Connection,
    beginning: &str,
    after: &str,
    most: u32,
) -> rusqlite::Result<Vec<String>> {
    let sql = "SELECT tenant FROM recounted
         WHERE tenant > ?2 AND EXISTS (SELECT 1 FROM beginning WHERE id = ?1) ORDER BY tenant LIMIT ?3";
    connection.prepare_cached(sql)?.query_map(params![beginning, after, most], |row| row.get(0))?.collect()
}

/// Documents that were counted before the ledger began and not released.
pub fn old_documents(
    connection: &Connection,
    tenant: &str,
    after: &str,
    most: u32,
) -> rusqlite::Result<Vec<OldDocument>> {
    let begin = names::documents(tenant);
    // The character after the hyphen ends the names that begin so.
    let end = format!("{}.", &begin[..begin.len() - 1]);
    let documents = Unit::Documents;
    let sql = format!(
        "SELECT id, state = 'pending', {}, {} FROM operation AS upload
         WHERE id > ?1 AND id >= ?2 AND id < ?3 AND tenant = ?4 AND at < (SELECT at FROM beginning)
           AND (posted_{documents} > 0 OR (state = 'pending' AND reserved_{documents} > 0))
           AND NOT EXISTS (SELECT 1 FROM operation WHERE operation.id = 'gone-' || upload.id)
         ORDER BY id LIMIT ?5",
        columns("reserved_"),
        columns("posted_")
    );
    let read = |row: &Row| {
        let pending = row.get(1)?;
        let of = amounts(row, if pending { 2 } else { 2 + <Unit as strum::EnumCount>::COUNT })?;
        Ok(OldDocument { operation: row.get(0)?, amounts: of.only(true), pending })
    };
    connection.prepare_cached(&sql)?.query_map(params![after, begin, end, tenant, most], read)?.collect()
}
