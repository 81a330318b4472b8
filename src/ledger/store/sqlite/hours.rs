//! Closed hours in `SQLite`: the one writer closes them, so no line of a closed hour is on its way.

use rusqlite::types::ToSql;
use rusqlite::{Connection, Row, params, params_from_iter};

use super::values;
use crate::api::Timestamp;
use crate::ledger::store::hours::{ClosedHour, ClosedHours, add, hour_of, listed};
use crate::ledger::units::Amounts;

/// Adds to an hour of a tenant.
pub fn put(
    connection: &Connection,
    tenant: &str,
    period_start: Timestamp,
    now: Timestamp,
    amounts: Amounts,
) -> rusqlite::Result<()> {
    let (start, hour) = (period_start.as_second(), hour_of(now));
    let values: Vec<_> = amounts.each().map(|(_, amount)| amount).collect();
    let fixed: [&dyn ToSql; 3] = [&tenant, &start, &hour];
    let bound = fixed.into_iter().chain(values.iter().map(|value| value as &dyn ToSql));
    let sql = add(|number| format!("?{number}"), "max");
    connection.prepare_cached(&sql)?.execute(params_from_iter(bound)).map(drop)
}

/// Up to when hours are closed.
pub fn closed(connection: &Connection) -> rusqlite::Result<i64> {
    connection.prepare_cached("SELECT until FROM closed")?.query_row([], |row| row.get(0))
}

/// Closes the hours before this one, and returns up to when hours are closed. One that is closed stays so.
pub fn close(connection: &Connection, now: Timestamp) -> rusqlite::Result<i64> {
    connection.prepare_cached("UPDATE closed SET until = max(until, ?)")?.execute([hour_of(now)])?;
    closed(connection)
}

/// Lists closed hours.
pub fn list(
    connection: &Connection,
    tenant: &str,
    from: Timestamp,
    (until, most): (i64, u32),
) -> rusqlite::Result<ClosedHours> {
    let read = |row: &Row| {
        let hour = Timestamp::from_second(row.get(0)?);
        Ok(ClosedHour { hour, period: values::period(row, 1)?, amounts: values::amounts(row, 3)? })
    };
    let mut statement = connection.prepare_cached(&listed(["?1", "?2", "?3", "?4"]))?;
    let hours = statement.query_map(params![tenant, from.as_second(), until, most], read)?;
    Ok(ClosedHours::page(until, most, hours.collect::<rusqlite::Result<_>>()?))
}
