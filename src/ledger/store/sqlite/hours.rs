//! Closed hours in `SQLite`: the one writer closes them, so no line of a closed hour is on its way.

use std::sync::LazyLock;

use rusqlite::{Connection, Row, params};

use super::values::{self, Sql};
use crate::api::Timestamp;
use crate::ledger::store::hours::{ClosedHour, ClosedHours, add, listed};
use crate::ledger::units::Amounts;

/// Adds to an hour of a tenant.
pub fn put(
    connection: &Connection,
    tenant: &str,
    period_start: Timestamp,
    now: Timestamp,
    amounts: Amounts,
) -> rusqlite::Result<()> {
    static SQL: Sql = LazyLock::new(|| add(|number| format!("?{number}"), "max"));
    values::insert(connection, &SQL, &[&tenant, &period_start.as_second(), &now.hour().as_second()], &[amounts])
}

/// Up to when hours are closed.
pub fn closed(connection: &Connection) -> rusqlite::Result<i64> {
    connection.prepare_cached("SELECT until FROM closed")?.query_row([], |row| row.get(0))
}

/// Closes the hours before this one, and returns up to when hours are closed. One that is closed stays so.
pub fn close(connection: &Connection, now: Timestamp) -> rusqlite::Result<i64> {
    connection.prepare_cached("UPDATE closed SET until = max(until, ?)")?.execute([now.hour().as_second()])?;
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
