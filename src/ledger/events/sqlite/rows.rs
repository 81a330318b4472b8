//! Lines and marks as rows, and back.

use rusqlite::types::ToSql;
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};
use strum::{EnumCount, IntoEnumIterator};

use super::schema;
use crate::api::Timestamp;
use crate::ledger::events::error::belongs;
use crate::ledger::events::reading::Shape;
use crate::ledger::events::{Batch, EventsError, Mark, Page, Position, Span, Sum};
use crate::ledger::store::StoredLine;
use crate::ledger::store::columns::columns;
use crate::ledger::units::{Amounts, Unit};

/// Lines that one call forgets, at most.
pub const FORGOTTEN: usize = 20_000;

/// How far the lines go, and whose they are.
fn fed(connection: &Connection) -> rusqlite::Result<Option<(String, Position)>> {
    let read = |row: &Row| {
        let mark = Mark { seq: row.get(2)?, digest: row.get(3)? };
        Ok((row.get(0)?, Position { generation: row.get(1)?, mark, begun: None }))
    };
    connection.prepare_cached("SELECT ledger, generation, seq, digest FROM fed")?.query_row([], read).optional()
}

fn put(connection: &Connection, ledger: &str, generation: i64, mark: &Mark) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO fed (one, ledger, generation, seq, digest) VALUES (1, ?, ?, ?, ?)";
    connection.prepare_cached(sql)?.execute(params![ledger, generation, mark.seq, mark.digest]).map(drop)
}

/// How far it is fed, if it is this ledger's.
pub fn position(connection: &Connection, ledger: &str) -> Result<Position, EventsError> {
    if let Some((found, position)) = fed(connection)? {
        belongs(&found, ledger)?;
        return Ok(position);
    }
    put(connection, ledger, 1, &Mark::default())?;
    Ok(Position { generation: 1, mark: Mark::default(), begun: None })
}

/// Fails if the store belongs to another ledger, or if no ledger has fed it yet.
pub fn owned(connection: &Connection, ledger: &str) -> Result<(), EventsError> {
    let (found, _) = fed(connection)?.ok_or_else(|| EventsError::Away("it is not fed yet".into()))?;
    belongs(&found, ledger)
}

/// Appends a batch, unless it is there already, or belongs to another generation.
pub fn append(connection: &Connection, ledger: &str, batch: &Batch) -> Result<(), EventsError> {
    let position = position(connection, ledger)?;
    let last = batch.last();
    if position.generation == batch.generation && position.mark == last {
        return Ok(());
    }
    if position.generation != batch.generation || position.mark != batch.after {
        return Err(EventsError::Superseded);
    }
    let marks = vec!["?"; 7 + Unit::COUNT].join(", ");
    let sql = format!(
        "INSERT OR REPLACE INTO line (seq, tenant, at, hour, operation, period_start, kind, {}) VALUES ({marks})",
        columns("")
    );
    let mut insert = connection.prepare_cached(&sql)?;
    for StoredLine { seq, operation, tenant, period_start, at, hour, kind, amounts } in &batch.lines {
        let [at, hour, start] = [at, hour, period_start].map(|time| time.as_second());
        let fixed: [&dyn ToSql; 7] = [seq, tenant, &at, &hour, operation, &start, kind];
        let values: Vec<_> = amounts.each().map(|(_, amount)| amount).collect();
        insert.execute(params_from_iter(fixed.into_iter().chain(values.iter().map(|value| value as &dyn ToSql))))?;
    }
    Ok(put(connection, ledger, batch.generation, &last)?)
}

/// Empties it, and begins the next generation.
pub fn wipe(connection: &Connection, ledger: &str, take_over: bool) -> Result<i64, EventsError> {
    let known = fed(connection)?;
    if let Some((found, _)) = &known
        && !take_over
    {
        belongs(found, ledger)?;
    }
    let generation = known.map_or(0, |(_, position)| position.generation) + 1;
    connection.execute_batch("DROP TABLE line")?;
    connection.execute_batch(&schema::lines())?;
    put(connection, ledger, generation, &Mark::default())?;
    Ok(generation)
}

fn amounts(row: &Row, first: usize) -> rusqlite::Result<Amounts> {
    let mut result = Amounts::ZERO;
    for (at, unit) in Unit::iter().enumerate() {
        result[unit] = row.get(first + at)?;
    }
    Ok(result)
}

/// Sums of lines, by tenant and moment.
pub fn sums(connection: &Connection, shape: &Shape, tenant: Option<&str>, span: Span) -> rusqlite::Result<Vec<Sum>> {
    let Shape { tenant: of, start, moment, only } = shape;
    let each: Vec<_> = Unit::iter().map(|unit| format!("sum({unit})")).collect();
    let sql = format!(
        "SELECT {of}, {start}, {} FROM line WHERE (?1 IS NULL OR tenant = ?1) AND {moment} >= ?2 AND {moment} < ?3
             AND {only} GROUP BY 1, 2 ORDER BY 1, 2",
        each.join(", ")
    );
    // Two plans: of one tenant, its lines are beside each other.
    let sql = if tenant.is_some() { sql.replace("(?1 IS NULL OR tenant = ?1)", "tenant = ?1") } else { sql };
    let read = |row: &Row| {
        Ok(Sum { tenant: row.get(0)?, start: Timestamp::from_second(row.get(1)?), amounts: amounts(row, 2)? })
    };
    let bound = params![tenant, span.from.as_second(), span.to.as_second()];
    connection.prepare_cached(&sql)?.query_map(bound, read)?.collect()
}

/// Lines of a tenant.
pub fn lines(
    connection: &Connection,
    tenant: &str,
    span: Span,
    Page { after, most }: Page,
) -> rusqlite::Result<Vec<StoredLine>> {
    let sql = format!(
        "SELECT seq, operation, tenant, period_start, at, hour, kind, {} FROM line
         WHERE tenant = ? AND at >= ? AND at < ? AND seq > ? ORDER BY seq LIMIT ?",
        columns("")
    );
    let read = |row: &Row| {
        let moment = |at: usize| row.get(at).map(Timestamp::from_second);
        let (seq, operation, tenant, kind) = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(6)?);
        let (period_start, at, hour) = (moment(3)?, moment(4)?, moment(5)?);
        Ok(StoredLine { seq, operation, tenant, period_start, at, hour, kind, amounts: amounts(row, 7)? })
    };
    let bound = params![tenant, span.from.as_second(), span.to.as_second(), after, most];
    connection.prepare_cached(&sql)?.query_map(bound, read)?.collect()
}

/// Forgets lines that are part of hours before a moment, those of the earliest first.
pub fn expire(connection: &Connection, before: Timestamp) -> rusqlite::Result<usize> {
    let sql = "DELETE FROM line WHERE (tenant, at, seq) IN
        (SELECT tenant, at, seq FROM line INDEXED BY line_hour WHERE hour < ? ORDER BY hour LIMIT ?)";
    connection.prepare_cached(sql)?.execute(params![before.as_second(), i64::try_from(FORGOTTEN).unwrap_or(i64::MAX)])
}
