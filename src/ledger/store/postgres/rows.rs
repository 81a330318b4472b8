//! Facts as rows, and back.

use deadpool_postgres::{Client, GenericClient, Transaction};
use strum::{EnumCount, IntoEnumIterator};
use tokio_postgres::Row;

use super::connection::begin;
use super::schema::LINE_LOCK;
use super::values::{Bound, amounts, period};
use super::{Interrupted, hours, lines};
use crate::api::Timestamp;
use crate::ledger::account::{Account, Line, Operation, Period};
use crate::ledger::decision::{Answer, Changes, Command, Facts, decide, ended_at, period_of};
use crate::ledger::store::columns::{changed as changed_since, columns, replaced, summed};
use crate::ledger::store::{AccountRow, Changed, Day, LEVELS, Pending, StoreError};
use crate::ledger::units::{Amounts, Unit};

/// The rows that a day of the site is spread over, so that tenants do not wait for each other. They are summed where
/// they are read.
const PARTS: i64 = 16;

/// Locks the tenant, reads the facts, decides, and writes the changes: all in one transaction.
pub async fn apply(client: &mut Client, command: &Command, now: Timestamp) -> Result<Answer, Interrupted> {
    let transaction = begin(client).await?;
    let latest = lock(&transaction, &command.tenant).await?;
    let operation = operation(&transaction, &command.operation).await?;
    let period = period_of(command, operation.as_ref(), latest);
    let account = match period {
        Some(period) => account(&transaction, &command.tenant, period).await?,
        None => Account::default(),
    };
    let (answer, changes) = decide(command, &Facts { now, operation, latest, account });
    match period {
        Some(period) if changes != Changes::default() => {
            write(&transaction, command, (period, account), &changes, now).await?;
            transaction.commit().await?;
        }
        _ => transaction.rollback().await?,
    }
    Ok(answer)
}

/// Locks the tenant's row, which is made if it is missing, and reads its latest period.
pub async fn lock(transaction: &Transaction<'_>, tenant: &str) -> Result<Option<Period>, tokio_postgres::Error> {
    let make = "INSERT INTO tenant (id, period_start, period_end) VALUES ($1, $2, $2) ON CONFLICT (id) DO NOTHING";
    let sql = "SELECT period_start, period_end FROM tenant WHERE id = $1 FOR UPDATE";
    let select = transaction.prepare_cached(sql).await?;
    if let Some(row) = transaction.query_opt(&select, &[&tenant]).await? {
        return Ok(known(&row));
    }
    transaction.execute(&transaction.prepare_cached(make).await?, &[&tenant, &LEVELS]).await?;
    Ok(known(&transaction.query_one(&select, &[&tenant]).await?))
}

/// The period of a tenant's row. None for one that was made to be locked.
fn known(row: &Row) -> Option<Period> {
    Some(period(row, 0)).filter(|period| period.start.as_second() != LEVELS)
}

async fn write(
    transaction: &Transaction<'_>,
    command: &Command,
    (period, before): (Period, Account),
    changes: &Changes,
    now: Timestamp,
) -> Result<(), Interrupted> {
    let tenant = command.tenant.as_str();
    if let Some(operation) = &changes.operation {
        put_operation(transaction, &command.operation, operation, now).await?;
    }
    if let Some(latest) = changes.latest {
        put_latest(transaction, tenant, latest).await?;
    }
    for row in changes.rows(&before, period) {
        put_row(transaction, tenant, row).await?;
    }
    if let Some(line) = &changes.line {
        put_line(transaction, (&command.operation, tenant), period, line, now).await?;
        put_seq(transaction, tenant).await?;
        if line.kind.is_in_hour() {
            hours::put(transaction, tenant, period.start, now, line.amounts).await?;
        }
        put_days(transaction, tenant, Day::of(now), line.amounts).await?;
    }
    Ok(())
}

/// Writes a tenant's latest period. An event may have named it before with another end: the tenant's own is right.
pub async fn put_latest(
    transaction: &Transaction<'_>,
    tenant: &str,
    latest: Period,
) -> Result<(), tokio_postgres::Error> {
    let sql = "UPDATE tenant SET period_start = $2, period_end = $3 WHERE id = $1";
    let bound: [Bound; 3] = [&tenant, &latest.start.as_second(), &latest.end.as_second()];
    transaction.execute(&transaction.prepare_cached(sql).await?, &bound).await?;
    let sql = "UPDATE account SET period_end = $3 WHERE tenant = $1 AND period_start = $2";
    transaction.execute(&transaction.prepare_cached(sql).await?, &bound).await.map(drop)
}

/// Writes a row of a tenant's account. A period keeps the end that it was first known with.
pub async fn put_row(
    transaction: &Transaction<'_>,
    tenant: &str,
    (start, end, row): AccountRow,
) -> Result<(), tokio_postgres::Error> {
    let into = "account (tenant, period_start, period_end";
    let conflict = format!("ON CONFLICT (tenant, period_start) DO UPDATE SET {}", replaced(&["used_", "reserved_"]));
    let amounts = [("used_", row.used), ("reserved_", row.reserved)];
    insert(transaction, into, &[&tenant, &start, &end], &amounts, &conflict).await.map(drop)
}

/// Writes the first line of a transaction. A reader of lines waits for the commit.
pub async fn put_line(
    transaction: &Transaction<'_>,
    names: (&str, &str),
    period: Period,
    line: &Line,
    now: Timestamp,
) -> Result<(), tokio_postgres::Error> {
    let shared = transaction.prepare_cached("SELECT pg_advisory_xact_lock_shared($1)").await?;
    transaction.execute(&shared, &[&LINE_LOCK]).await?;
    insert_line(transaction, names, period, line, now).await
}

/// Writes one more line of an operation of a tenant.
pub async fn insert_line(
    transaction: &Transaction<'_>,
    (operation, tenant): (&str, &str),
    period: Period,
    Line { kind, amounts }: &Line,
    now: Timestamp,
) -> Result<(), tokio_postgres::Error> {
    let kind: &'static str = (*kind).into();
    let (start, at) = (period.start.as_second(), now.as_second());
    let values: Vec<_> = amounts.each().map(|(_, amount)| amount).collect();
    let fixed: [Bound; 5] = [&operation, &tenant, &start, &at, &kind];
    let bound: Vec<Bound> = fixed.into_iter().chain(values.iter().map(|value| value as Bound)).collect();
    let marks: Vec<_> = (6..6 + Unit::COUNT).map(|n| format!("CAST(${n} AS BIGINT)")).collect();
    // Its hour is noted only where that of the moment is closed.
    let sql = format!(
        "INSERT INTO line (operation, tenant, period_start, at, kind, hour, {})
             SELECT CAST($1 AS TEXT), CAST($2 AS TEXT), CAST($3 AS BIGINT), CAST($4 AS BIGINT), CAST($5 AS TEXT),
                 CASE WHEN until > CAST($4 AS BIGINT) THEN until END, {} FROM closed",
        columns(""),
        marks.join(", ")
    );
    transaction.execute(&transaction.prepare_cached(&sql).await?, &bound).await.map(drop)
}

/// Writes the number of a tenant's latest line: that of the last one that this session has inserted.
pub async fn put_seq(transaction: &Transaction<'_>, tenant: &str) -> Result<(), tokio_postgres::Error> {
    let sql = "UPDATE tenant SET seq = currval('line_seq_seq') WHERE id = $1";
    transaction.execute(&transaction.prepare_cached(sql).await?, &[&tenant]).await.map(drop)
}

/// Adds to a day of a tenant and of the site.
pub async fn put_days(
    transaction: &Transaction<'_>,
    tenant: &str,
    Day(day): Day,
    amounts: Amounts,
) -> Result<(), tokio_postgres::Error> {
    let amounts = [("", amounts)];
    let conflict = format!("ON CONFLICT (tenant, day) DO UPDATE SET {}", summed("tenant_day"));
    insert(transaction, "tenant_day (tenant, day", &[&tenant, &day], &amounts, &conflict).await?;
    // Last, because other tenants use the same row: it is locked until the commit, which is next.
    let part = tenant.bytes().map(i64::from).sum::<i64>() % PARTS;
    let conflict = format!("ON CONFLICT (day, part) DO UPDATE SET {}", summed("site_day"));
    insert(transaction, "site_day (day, part", &[&day, &part], &amounts, &conflict).await.map(drop)
}

/// Inserts a row: some fixed columns, and sets of amounts by their prefixes. Says how many rows are new or changed.
async fn insert(
    transaction: &Transaction<'_>,
    into: &str,
    fixed: &[Bound<'_>],
    amounts: &[(&str, Amounts)],
    conflict: &str,
) -> Result<u64, tokio_postgres::Error> {
    let sets: Vec<_> = amounts.iter().map(|(prefix, _)| columns(prefix)).collect();
    let marks: Vec<_> = (1..=fixed.len() + amounts.len() * Unit::COUNT).map(|n| format!("${n}")).collect();
    let sql = format!("INSERT INTO {into}, {}) VALUES ({}) {conflict}", sets.join(", "), marks.join(", "));
    let values: Vec<_> = amounts.iter().flat_map(|(_, amounts)| amounts.each()).map(|(_, amount)| amount).collect();
    let bound: Vec<Bound> = fixed.iter().copied().chain(values.iter().map(|value| value as Bound)).collect();
    transaction.execute(&transaction.prepare_cached(&sql).await?, &bound).await
}

/// Writes an operation. One of another tenant that took the name at the same moment stays: then the command begins
/// again and sees it.
pub async fn put_operation(
    transaction: &Transaction<'_>,
    id: &str,
    operation: &Operation,
    now: Timestamp,
) -> Result<(), Interrupted> {
    let Operation { tenant, period, reserved, posted, state, expires_after } = operation;
    let ended = ended_at(operation, now).map(Timestamp::as_second);
    let state: &'static str = (*state).into();
    let (start, end, at) = (period.start.as_second(), period.end.as_second(), now.as_second());
    let fixed: [Bound; 8] = [&id, tenant, &start, &end, &state, &i64::from(*expires_after), &at, &ended];
    let into = "operation (id, tenant, period_start, period_end, state, expires_after, at, ended_at";
    let conflict = format!(
        "ON CONFLICT (id) DO UPDATE SET state = excluded.state, ended_at = excluded.ended_at, {} WHERE operation.tenant = excluded.tenant",
        replaced(&["posted_"])
    );
    let amounts = [("reserved_", *reserved), ("posted_", *posted)];
    match insert(transaction, into, &fixed, &amounts, &conflict).await? {
        0 => Err(Interrupted::Again),
        _ => Ok(()),
    }
}

fn balance(row: &Row, first: usize) -> Account {
    Account { used: amounts(row, first), reserved: amounts(row, first + Unit::COUNT) }
}

/// The columns that [`operation_of`] reads.
pub fn operation_columns() -> String {
    let (reserved, posted) = (columns("reserved_"), columns("posted_"));
    format!("tenant, period_start, period_end, state, expires_after, {reserved}, {posted}")
}

/// The operation of a row.
pub fn operation_of(row: &Row) -> Result<Operation, Interrupted> {
    let state = row.get::<_, &str>(3).parse();
    let expires_after = u32::try_from(row.get::<_, i64>(4));
    let (Ok(state), Ok(expires_after)) = (state, expires_after) else {
        return Err(Interrupted::Failed(StoreError::Corrupt));
    };
    Ok(Operation {
        tenant: row.get(0),
        period: period(row, 1),
        state,
        expires_after,
        reserved: amounts(row, 5),
        posted: amounts(row, 5 + Unit::COUNT),
    })
}

/// The name of an operation, in the column after those.
pub fn operation_name(row: &Row) -> String {
    row.get(5 + 2 * Unit::COUNT)
}

async fn operation(client: &impl GenericClient, id: &str) -> Result<Option<Operation>, Interrupted> {
    let sql = format!("SELECT {} FROM operation WHERE id = $1", operation_columns());
    let row = client.query_opt(&client.prepare_cached(&sql).await?, &[&id]).await?;
    row.as_ref().map(operation_of).transpose()
}

/// One row of a tenant's account: the flows of a period, or the levels.
pub async fn row(client: &impl GenericClient, tenant: &str, start: i64) -> Result<Account, tokio_postgres::Error> {
    let sql = format!(
        "SELECT {}, {} FROM account WHERE tenant = $1 AND period_start = $2",
        columns("used_"),
        columns("reserved_")
    );
    let found = client.query_opt(&client.prepare_cached(&sql).await?, &[&tenant, &start]).await?;
    Ok(found.map(|row| balance(&row, 0)).unwrap_or_default())
}

/// Levels, and the flows of a period.
async fn account(client: &impl GenericClient, tenant: &str, period: Period) -> Result<Account, tokio_postgres::Error> {
    let sql = format!(
        "SELECT {}, {} FROM account WHERE tenant = $1 AND period_start IN ($2, $3)",
        columns("used_"),
        columns("reserved_")
    );
    let statement = client.prepare_cached(&sql).await?;
    let rows = client.query(&statement, &[&tenant, &period.start.as_second(), &LEVELS]).await?;
    // The units of the two rows are different ones.
    Ok(rows.iter().map(|row| balance(row, 0)).fold(Account::default(), Account::plus))
}

/// What a tenant has used in its latest period, and its levels.
pub async fn usage(
    client: &impl GenericClient,
    tenant: &str,
) -> Result<Option<(Period, Account)>, tokio_postgres::Error> {
    let sql = "SELECT period_start, period_end FROM tenant WHERE id = $1";
    let row = client.query_opt(&client.prepare_cached(sql).await?, &[&tenant]).await?;
    let Some(period) = row.as_ref().and_then(known) else { return Ok(None) };
    Ok(Some((period, account(client, tenant, period).await?)))
}

/// What a tenant used in its latest periods.
pub async fn periods(
    client: &impl GenericClient,
    tenant: &str,
    most: u32,
) -> Result<Vec<(Period, Account)>, tokio_postgres::Error> {
    let sql = format!(
        "SELECT period_start, period_end, {}, {} FROM account WHERE tenant = $1 AND period_start <> $2
         ORDER BY period_start DESC LIMIT $3",
        columns("used_"),
        columns("reserved_")
    );
    let statement = client.prepare_cached(&sql).await?;
    let rows = client.query(&statement, &[&tenant, &LEVELS, &i64::from(most)]).await?;
    Ok(rows.iter().map(|row| (period(row, 0), balance(row, 2))).collect())
}

/// What was counted on each day.
pub async fn days(
    client: &impl GenericClient,
    tenant: Option<&str>,
    first: Day,
    last: Day,
) -> Result<Vec<(Day, Amounts)>, tokio_postgres::Error> {
    let rows = if let Some(tenant) = tenant {
        let sql = format!(
            "SELECT day, {} FROM tenant_day WHERE tenant = $1 AND day BETWEEN $2 AND $3 ORDER BY day",
            columns("")
        );
        client.query(&client.prepare_cached(&sql).await?, &[&tenant, &first.0, &last.0]).await?
    } else {
        let sums: Vec<_> = Unit::iter().map(|unit| format!("sum({unit})::BIGINT")).collect();
        let sql = format!(
            "SELECT day, {} FROM site_day WHERE day BETWEEN $1 AND $2 GROUP BY day ORDER BY day",
            sums.join(", ")
        );
        client.query(&client.prepare_cached(&sql).await?, &[&first.0, &last.0]).await?
    };
    Ok(rows.iter().map(|row| (Day(row.get(0)), amounts(row, 1))).collect())
}

/// The tenants with a line after a sequence number.
pub async fn changed(client: &mut Client, after: i64, most: u32) -> Result<Vec<Changed>, tokio_postgres::Error> {
    let last = lines::last(client).await?;
    let statement = client.prepare_cached(&changed_since(["$1", "$2", "$3"])).await?;
    let rows = client.query(&statement, &[&after, &last, &i64::from(most)]).await?;
    let read =
        |row: &Row| Changed { tenant: row.get(0), period: period(row, 1), seq: row.get(3), account: balance(row, 4) };
    Ok(rows.iter().map(read).collect())
}

/// Deletes operations whose `ended_at` is before a moment. Those that another replica deletes at the same time are
/// passed over.
pub async fn forget(client: &impl GenericClient, before: Timestamp, most: u32) -> Result<u64, tokio_postgres::Error> {
    let sql = "DELETE FROM operation WHERE id IN
        (SELECT id FROM operation WHERE ended_at < $1 ORDER BY ended_at LIMIT $2 FOR UPDATE SKIP LOCKED)";
    client.execute(&client.prepare_cached(sql).await?, &[&before.as_second(), &i64::from(most)]).await
}

/// Writes what is there already: fails where the database takes no writes.
pub async fn probe(client: &impl GenericClient) -> Result<(), tokio_postgres::Error> {
    client.execute("UPDATE ledger SET version = version", &[]).await.map(drop)
}

/// The pending operations.
pub async fn pending(client: &impl GenericClient) -> Result<Vec<Pending>, StoreError> {
    let sql = "SELECT id, tenant, expires_after FROM operation WHERE state = 'pending'";
    let rows = client.query(&client.prepare_cached(sql).await?, &[]).await?;
    let read = |row: &Row| {
        let expires_after = u32::try_from(row.get::<_, i64>(2)).map_err(|_| StoreError::Corrupt)?;
        Ok(Pending { operation: row.get(0), tenant: row.get(1), expires_after })
    };
    rows.iter().map(read).collect()
}
