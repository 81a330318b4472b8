//! Closed hours in Postgres. Each transaction that writes a line holds a lock that closing waits for, and reads after
//! it has the lock up to when hours are closed.

use deadpool_postgres::{Client, Transaction};
use tokio_postgres::Row;

use super::connection::begin;
use super::schema::LINE_LOCK;
use super::values::{self, Bound};
use crate::api::Timestamp;
use crate::ledger::store::hours::{ClosedHour, ClosedHours, add, listed};
use crate::ledger::units::Amounts;

/// Adds to an hour of a tenant. The transaction has written a line before.
pub async fn put(
    transaction: &Transaction<'_>,
    tenant: &str,
    period_start: Timestamp,
    now: Timestamp,
    amounts: Amounts,
) -> Result<(), tokio_postgres::Error> {
    let (start, hour) = (period_start.as_second(), now.hour().as_second());
    let values: Vec<_> = amounts.each().map(|(_, amount)| amount).collect();
    let fixed: [Bound; 3] = [&tenant, &start, &hour];
    let bound: Vec<Bound> = fixed.into_iter().chain(values.iter().map(|value| value as Bound)).collect();
    let sql = add(|number| format!("${number}"), "GREATEST");
    transaction.execute(&transaction.prepare_cached(&sql).await?, &bound).await.map(drop)
}

/// Closes the hours before this one, and lists closed hours.
pub async fn list(
    client: &mut Client,
    tenant: &str,
    (from, most): (Timestamp, u32),
    now: Timestamp,
) -> Result<ClosedHours, tokio_postgres::Error> {
    let until = close(client, now).await?;
    let statement = client.prepare_cached(&listed(["$1", "$2", "$3", "$4"])).await?;
    let rows = client.query(&statement, &[&tenant, &from.as_second(), &until, &i64::from(most)]).await?;
    let read = |row: &Row| ClosedHour {
        hour: Timestamp::from_second(row.get(0)),
        period: values::period(row, 1),
        amounts: values::amounts(row, 3),
    };
    Ok(ClosedHours::page(until, most, rows.iter().map(read).collect()))
}

/// One that is closed stays so. Writers wait only where an hour is closed, which is once.
async fn close(client: &mut Client, now: Timestamp) -> Result<i64, tokio_postgres::Error> {
    let known: i64 = client.query_one("SELECT until FROM closed", &[]).await?.get(0);
    let wanted = now.hour().as_second();
    if known >= wanted {
        return Ok(known);
    }
    let transaction = begin(client).await?;
    transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&LINE_LOCK]).await?;
    let sql = "UPDATE closed SET until = GREATEST(until, $1) RETURNING until";
    let until = transaction.query_one(sql, &[&wanted]).await?.get(0);
    transaction.commit().await?;
    Ok(until)
}
