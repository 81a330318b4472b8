//! Facts as rows, and back.

use std::sync::LazyLock;

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};
use strum::EnumCount;

use super::hours;
use super::values::{Sql, amounts, insert, insertion, period};
use crate::api::Timestamp;
use crate::ledger::account::{Account, Line, LineKind, Operation, Period, State};
use crate::ledger::decision::{Answer, Changes, Command, Facts, decide, ended_at, period_of};
use crate::ledger::store::columns::{changed as changed_since, columns, replaced, summed, waiting as waiting_after};
use crate::ledger::store::hours::of_line;
use crate::ledger::store::{AccountRow, Changed, Day, LEVELS, Pending, StoredLine, Waiting};
use crate::ledger::units::{Amounts, Unit};

/// Reads the facts, decides, and writes the changes: all in the transaction that the connection is in.
pub fn apply(connection: &Connection, command: &Command, now: Timestamp) -> rusqlite::Result<Answer> {
    let operation = operation(connection, &command.operation)?;
    let latest = latest(connection, &command.tenant)?;
    let period = period_of(command, operation.as_ref(), latest);
    let account = match period {
        Some(period) => account(connection, &command.tenant, period)?,
        None => Account::default(),
    };
    let (answer, changes) = decide(command, &Facts { now, operation, latest, account });
    if let Some(period) = period {
        write(connection, command, (period, account), &changes, now)?;
    }
    Ok(answer)
}

fn write(
    connection: &Connection,
    command: &Command,
    (period, before): (Period, Account),
    changes: &Changes,
    now: Timestamp,
) -> rusqlite::Result<()> {
    let tenant = command.tenant.as_str();
    if let Some(operation) = &changes.operation {
        put_operation(connection, &command.operation, operation, now)?;
    }
    if let Some(latest) = changes.latest {
        put_latest(connection, tenant, latest)?;
    }
    for row in changes.rows(&before, period) {
        put_row(connection, tenant, row)?;
    }
    if let Some(line) = &changes.line {
        let seq = put_line(connection, (&command.operation, tenant), period, line, now)?;
        put_seq(connection, tenant, seq)?;
        if line.kind.is_in_hour() {
            hours::put(connection, tenant, period.start, now, line.amounts)?;
        }
        put_day(connection, tenant, Day::of(now), line.amounts)?;
        put_site_day(connection, Day::of(now), line.amounts)?;
    }
    Ok(())
}

/// Writes a tenant's latest period. An event may have named it before with another end: the tenant's own is right.
pub fn put_latest(connection: &Connection, tenant: &str, latest: Period) -> rusqlite::Result<()> {
    let sql = "INSERT INTO tenant (id, period_start, period_end) VALUES (?, ?, ?)
        ON CONFLICT (id) DO UPDATE SET period_start = excluded.period_start, period_end = excluded.period_end";
    let (start, end) = (latest.start.as_second(), latest.end.as_second());
    connection.prepare_cached(sql)?.execute(params![tenant, start, end])?;
    let sql = "UPDATE account SET period_end = ? WHERE tenant = ? AND period_start = ?";
    connection.prepare_cached(sql)?.execute(params![end, tenant, start]).map(drop)
}

/// Writes the number of a tenant's latest line.
pub fn put_seq(connection: &Connection, tenant: &str, seq: i64) -> rusqlite::Result<()> {
    connection.prepare_cached("UPDATE tenant SET seq = ? WHERE id = ?")?.execute(params![seq, tenant]).map(drop)
}

/// Writes a line of an operation of a tenant, and returns its number.
pub fn put_line(
    connection: &Connection,
    (operation, tenant): (&str, &str),
    period: Period,
    Line { kind, amounts }: &Line,
    now: Timestamp,
) -> rusqlite::Result<i64> {
    static SQL: Sql =
        LazyLock::new(|| insertion("line", &["operation", "tenant", "period_start", "at", "kind", "hour"], &[""], ""));
    // Its hour is noted only where that of the moment is closed.
    let hour = Some(hours::closed(connection)?).filter(|until| now.as_second() < *until);
    let fixed: [&dyn ToSql; 6] = [&operation, &tenant, &period.start.as_second(), &now.as_second(), kind, &hour];
    insert(connection, &SQL, &fixed, &[*amounts])?;
    Ok(connection.last_insert_rowid())
}

/// Adds to a tenant's day.
pub fn put_day(connection: &Connection, tenant: &str, day: Day, amounts: Amounts) -> rusqlite::Result<()> {
    static SQL: Sql = LazyLock::new(|| {
        let conflict = format!("ON CONFLICT (tenant, day) DO UPDATE SET {}", summed("tenant_day"));
        insertion("tenant_day", &["tenant", "day"], &[""], &conflict)
    });
    insert(connection, &SQL, &[&tenant, &day.0], &[amounts])
}

/// Adds to a day of the site.
pub fn put_site_day(connection: &Connection, day: Day, amounts: Amounts) -> rusqlite::Result<()> {
    static SQL: Sql = LazyLock::new(|| {
        let conflict = format!("ON CONFLICT (day) DO UPDATE SET {}", summed("site_day"));
        insertion("site_day", &["day"], &[""], &conflict)
    });
    insert(connection, &SQL, &[&day.0], &[amounts])
}

/// An operation, if it is known.
pub fn operation(connection: &Connection, id: &str) -> rusqlite::Result<Option<Operation>> {
    static SQL: Sql = LazyLock::new(|| {
        format!(
            "SELECT tenant, period_start, period_end, state, expires_after, {}, {} FROM operation WHERE id = ?",
            columns("reserved_"),
            columns("posted_")
        )
    });
    let read = |row: &Row| {
        Ok(Operation {
            tenant: row.get(0)?,
            period: period(row, 1)?,
            state: row.get(3)?,
            expires_after: row.get(4)?,
            reserved: amounts(row, 5)?,
            posted: amounts(row, 5 + Unit::COUNT)?,
        })
    };
    connection.prepare_cached(&SQL)?.query_row([id], read).optional()
}

/// Writes an operation.
pub fn put_operation(connection: &Connection, id: &str, operation: &Operation, now: Timestamp) -> rusqlite::Result<()> {
    static SQL: Sql = LazyLock::new(|| {
        let fixed = ["id", "tenant", "period_start", "period_end", "state", "expires_after", "at", "ended_at"];
        let set = replaced(&["posted_"]);
        let conflict =
            format!("ON CONFLICT (id) DO UPDATE SET state = excluded.state, ended_at = excluded.ended_at, {set}");
        insertion("operation", &fixed, &["reserved_", "posted_"], &conflict)
    });
    let Operation { tenant, period, reserved, posted, state, expires_after } = operation;
    let (start, end, at) = (period.start.as_second(), period.end.as_second(), now.as_second());
    let ended = ended_at(operation, now).map(Timestamp::as_second);
    let fixed: [&dyn ToSql; 8] = [&id, tenant, &start, &end, state, expires_after, &at, &ended];
    insert(connection, &SQL, &fixed, &[*reserved, *posted])
}

/// A tenant's latest period.
pub fn latest(connection: &Connection, tenant: &str) -> rusqlite::Result<Option<Period>> {
    let sql = "SELECT period_start, period_end FROM tenant WHERE id = ?";
    connection.prepare_cached(sql)?.query_row([tenant], |row| period(row, 0)).optional()
}

/// Levels, and the flows of a period.
fn account(connection: &Connection, tenant: &str, period: Period) -> rusqlite::Result<Account> {
    static SQL: Sql = LazyLock::new(|| {
        format!(
            "SELECT {}, {} FROM account WHERE tenant = ? AND period_start IN (?, {LEVELS})",
            columns("used_"),
            columns("reserved_")
        )
    });
    let mut statement = connection.prepare_cached(&SQL)?;
    let mut rows = statement.query_map(params![tenant, period.start.as_second()], |row| balance(row, 0))?;
    // The units of the two rows are different ones.
    rows.try_fold(Account::default(), |sum, row| Ok(sum.plus(row?)))
}

fn balance(row: &Row, first: usize) -> rusqlite::Result<Account> {
    Ok(Account { used: amounts(row, first)?, reserved: amounts(row, first + Unit::COUNT)? })
}

/// One row of a tenant's account: the flows of a period, or the levels.
pub fn row(connection: &Connection, tenant: &str, start: i64) -> rusqlite::Result<Account> {
    static SQL: Sql = LazyLock::new(|| {
        format!(
            "SELECT {}, {} FROM account WHERE tenant = ? AND period_start = ?",
            columns("used_"),
            columns("reserved_")
        )
    });
    let read = connection.prepare_cached(&SQL)?.query_row(params![tenant, start], |row| balance(row, 0)).optional()?;
    Ok(read.unwrap_or_default())
}

/// Writes a row of a tenant's account. A period keeps the end that it was first known with.
pub fn put_row(connection: &Connection, tenant: &str, (start, end, row): AccountRow) -> rusqlite::Result<()> {
    static SQL: Sql = LazyLock::new(|| {
        let set = replaced(&["used_", "reserved_"]);
        let conflict = format!("ON CONFLICT (tenant, period_start) DO UPDATE SET {set}");
        insertion("account", &["tenant", "period_start", "period_end"], &["used_", "reserved_"], &conflict)
    });
    insert(connection, &SQL, &[&tenant, &start, &end], &[row.used, row.reserved])
}

/// What a tenant has used in its latest period, and its levels.
pub fn usage(connection: &Connection, tenant: &str) -> rusqlite::Result<Option<(Period, Account)>> {
    let Some(period) = latest(connection, tenant)? else { return Ok(None) };
    Ok(Some((period, account(connection, tenant, period)?)))
}

/// What a tenant used in its latest periods.
pub fn periods(connection: &Connection, tenant: &str, most: u32) -> rusqlite::Result<Vec<(Period, Account)>> {
    let sql = format!(
        "SELECT period_start, period_end, {}, {} FROM account WHERE tenant = ? AND period_start <> {LEVELS}
         ORDER BY period_start DESC LIMIT ?",
        columns("used_"),
        columns("reserved_")
    );
    let mut statement = connection.prepare_cached(&sql)?;
    statement.query_map(params![tenant, most], |row| Ok((period(row, 0)?, balance(row, 2)?)))?.collect()
}

/// What was counted on each day.
pub fn days(
    connection: &Connection,
    tenant: Option<&str>,
    first: Day,
    last: Day,
) -> rusqlite::Result<Vec<(Day, Amounts)>> {
    let table = if tenant.is_some() { "tenant_day WHERE tenant = ? AND" } else { "site_day WHERE" };
    let sql = format!("SELECT day, {} FROM {table} day BETWEEN ? AND ? ORDER BY day", columns(""));
    let mut statement = connection.prepare_cached(&sql)?;
    let bounds: [&dyn ToSql; 2] = [&first.0, &last.0];
    let bound = tenant.iter().map(|tenant| tenant as &dyn ToSql).chain(bounds);
    statement.query_map(params_from_iter(bound), |row| Ok((Day(row.get(0)?), amounts(row, 1)?)))?.collect()
}

/// The lines after a sequence number.
pub fn lines(connection: &Connection, after: i64, most: u32) -> rusqlite::Result<Vec<StoredLine>> {
    let sql = format!(
        "SELECT seq, operation, tenant, period_start, at, kind, {}, {} FROM line WHERE seq > ? ORDER BY seq LIMIT ?",
        of_line(),
        columns("")
    );
    let read = |row: &Row| {
        Ok(StoredLine {
            seq: row.get(0)?,
            operation: row.get(1)?,
            tenant: row.get(2)?,
            period_start: row.get(3).map(Timestamp::from_second)?,
            at: row.get(4).map(Timestamp::from_second)?,
            kind: row.get(5)?,
            hour: row.get(6).map(Timestamp::from_second)?,
            amounts: amounts(row, 7)?,
        })
    };
    connection.prepare_cached(&sql)?.query_map(params![after, most], read)?.collect()
}

/// What lies after a sequence number.
pub fn waiting(connection: &Connection, after: i64, most: u32) -> rusqlite::Result<Waiting> {
    let read = |row: &Row| {
        Ok(Waiting { lines: row.get(0)?, since: row.get::<_, Option<i64>>(1)?.map(Timestamp::from_second) })
    };
    connection.prepare_cached(&waiting_after(["?1", "?2"]))?.query_row(params![after, most], read)
}

/// Deletes operations whose `ended_at` is before a moment, those that ended first, at most so many of them.
pub fn forget(connection: &Connection, before: Timestamp, most: u32) -> rusqlite::Result<usize> {
    let sql = "DELETE FROM operation WHERE id IN
        (SELECT id FROM operation INDEXED BY ended WHERE ended_at < ? ORDER BY ended_at LIMIT ?)";
    connection.prepare_cached(sql)?.execute(params![before.as_second(), most])
}

/// Writes so many bytes in the place of those that were written before: fails as a command would.
pub fn probe(connection: &Connection, bytes: u32) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO probe (id, filling) VALUES (1, zeroblob(?))";
    connection.prepare_cached(sql)?.execute([bytes]).map(drop)
}

/// The tenants with a line after a sequence number.
pub fn changed(connection: &Connection, after: i64, most: u32) -> rusqlite::Result<Vec<Changed>> {
    let read = |row: &Row| {
        Ok(Changed { tenant: row.get(0)?, period: period(row, 1)?, seq: row.get(3)?, account: balance(row, 4)? })
    };
    let mut statement = connection.prepare_cached(&changed_since(["?", "?", "?"]))?;
    statement.query_map(params![after, i64::MAX, most], read)?.collect()
}

/// The pending operations.
pub fn pending(connection: &Connection) -> rusqlite::Result<Vec<Pending>> {
    let sql = "SELECT id, tenant, expires_after FROM operation INDEXED BY pending WHERE state = 'pending'";
    let read = |row: &Row| Ok(Pending { operation: row.get(0)?, tenant: row.get(1)?, expires_after: row.get(2)? });
    connection.prepare_cached(sql)?.query_map([], read)?.collect()
}

impl ToSql for State {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(<&'static str>::from(*self).into())
    }
}

impl FromSql for State {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        value.as_str()?.parse().map_err(FromSqlError::other)
    }
}

impl ToSql for LineKind {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(<&'static str>::from(*self).into())
    }
}

impl FromSql for LineKind {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        value.as_str()?.parse().map_err(FromSqlError::other)
    }
}
