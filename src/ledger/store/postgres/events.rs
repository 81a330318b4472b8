//! Many events of one tenant in one transaction. What does not wait for an answer is sent without waiting.

use std::collections::HashMap;

use deadpool_postgres::{Client, Transaction};
use futures::future::try_join_all;
use tokio_postgres::Row;

use super::{Interrupted, connection, hours, rows};
use crate::api::Timestamp;
use crate::ledger::account::Operation;
use crate::ledger::decision::{Answer, Command};
use crate::ledger::store::Day;
use crate::ledger::store::batch::{Batch, Tenant};

/// Locks the tenant, reads what its events rest on, decides, and writes the changes.
pub async fn count(
    client: &mut Client,
    tenant: &str,
    events: &[Command],
    now: Timestamp,
) -> Result<Vec<Answer>, Interrupted> {
    let transaction = connection::begin(client).await?;
    let mut known = Tenant::known(rows::lock(&transaction, tenant).await?);
    for start in events.iter().filter_map(Batch::rows_of).flatten() {
        if !known.has(start) {
            known.read(start, rows::row(&transaction, tenant, start).await?);
        }
    }
    let operations = operations(&transaction, events).await?;
    let mut batch =
        Batch { tenants: HashMap::from([(tenant.to_owned(), known)]), known: operations, ..Batch::default() };
    let answers = batch.decide(events, now);
    write(&transaction, tenant, &batch, now).await?;
    transaction.commit().await?;
    Ok(answers)
}

/// The operations that are known.
async fn operations(
    transaction: &Transaction<'_>,
    events: &[Command],
) -> Result<HashMap<String, Operation>, Interrupted> {
    let names: Vec<_> = events.iter().map(|event| event.operation.as_str()).collect();
    let sql = format!("SELECT {}, id FROM operation WHERE id = ANY($1)", rows::operation_columns());
    let found = transaction.query(&transaction.prepare_cached(&sql).await?, &[&names]).await?;
    let read = |row: &Row| -> Result<_, Interrupted> { Ok((rows::operation_name(row), rows::operation_of(row)?)) };
    found.iter().map(read).collect()
}

async fn write(transaction: &Transaction<'_>, tenant: &str, batch: &Batch, now: Timestamp) -> Result<(), Interrupted> {
    // The first of many prepares the statement for the others.
    if let Some(((name, operation), others)) = batch.operations.split_first() {
        rows::put_operation(transaction, name, operation, now).await?;
        try_join_all(others.iter().map(|(name, operation)| rows::put_operation(transaction, name, operation, now)))
            .await?;
    }
    let Some(account) = batch.tenants.get(tenant) else { return Ok(()) };
    if let Some(latest) = account.later() {
        rows::put_latest(transaction, tenant, latest).await?;
    }
    for row in account.rows() {
        rows::put_row(transaction, tenant, row).await?;
    }
    let Some(((name, _, period, line), others)) = batch.lines.split_first() else { return Ok(()) };
    rows::put_line(transaction, (name, tenant), *period, line, now).await?;
    let others =
        others.iter().map(|(name, _, period, line)| rows::insert_line(transaction, (name, tenant), *period, line, now));
    try_join_all(others).await?;
    for ((tenant, period), amounts) in batch.by_period() {
        hours::put(transaction, tenant, period, now, amounts).await?;
    }
    rows::put_seq(transaction, tenant).await?;
    Ok(rows::put_days(transaction, tenant, Day::of(now), account.counted).await?)
}
