//! Many events in one transaction, with each account read and written once.

use std::collections::HashMap;

use rusqlite::Connection;

use super::{hours, rows};
use crate::api::Timestamp;
use crate::ledger::decision::{Answer, Command};
use crate::ledger::store::Day;
use crate::ledger::store::batch::{Batch, Tenant};

/// Reads what the events rest on, decides, and writes the changes: all in the transaction that the connection is in.
pub fn count(connection: &Connection, events: &[Command], now: Timestamp) -> rusqlite::Result<Vec<Answer>> {
    let mut batch = Batch::default();
    for event in events {
        if !batch.known.contains_key(&event.operation)
            && let Some(operation) = rows::operation(connection, &event.operation)?
        {
            batch.known.insert(event.operation.clone(), operation);
        }
        if !batch.tenants.contains_key(&event.tenant) {
            let tenant = Tenant::known(rows::latest(connection, &event.tenant)?);
            batch.tenants.insert(event.tenant.clone(), tenant);
        }
        let Some(tenant) = batch.tenants.get_mut(&event.tenant) else { continue };
        for start in Batch::rows_of(event).into_iter().flatten() {
            if !tenant.has(start) {
                tenant.read(start, rows::row(connection, &event.tenant, start)?);
            }
        }
    }
    let answers = batch.decide(events, now);
    write(connection, &batch, now)?;
    Ok(answers)
}

fn write(connection: &Connection, batch: &Batch, now: Timestamp) -> rusqlite::Result<()> {
    for (name, operation) in &batch.operations {
        rows::put_operation(connection, name, operation, now)?;
    }
    let mut last = HashMap::new();
    for (operation, tenant, period, line) in &batch.lines {
        last.insert(tenant, rows::put_line(connection, (operation, tenant), *period, line, now)?);
    }
    for ((tenant, period), amounts) in batch.by_period() {
        hours::put(connection, tenant, period, now, amounts)?;
    }
    let day = Day::of(now);
    for (id, tenant) in &batch.tenants {
        if let Some(latest) = tenant.later() {
            rows::put_latest(connection, id, latest)?;
        }
        for row in tenant.rows() {
            rows::put_row(connection, id, row)?;
        }
        if let Some(seq) = last.get(id) {
            rows::put_seq(connection, id, *seq)?;
            rows::put_day(connection, id, day, tenant.counted)?;
        }
    }
    if batch.lines.is_empty() { Ok(()) } else { rows::put_site_day(connection, day, batch.counted()) }
}
