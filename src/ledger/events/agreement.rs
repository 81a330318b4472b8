//! Whether the events store agrees with the ledger: what the ledger counted in closed hours, which is what bills rest
//! on, and the sums of the store's lines are made in two ways, and must be the same.

use std::collections::{BTreeMap, HashSet};

use super::error::FeedError;
use super::{Asked, EventsStore, Span};
use crate::api::Timestamp;
use crate::ledger::store::{Changed, Store, StoreError};
use crate::ledger::units::{Amounts, Unit};

/// Tenants and hours of one page.
const PAGE: u32 = 1000;

/// A sum that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Whose.
    pub tenant: String,
    /// Of which hour.
    pub hour: Timestamp,
    /// Of which unit.
    pub unit: Unit,
    /// What the ledger counted.
    pub ledger: i64,
    /// What the store's lines add up to.
    pub events: i64,
}

type Hours = BTreeMap<(String, Timestamp), Amounts>;

/// Compares closed hours of all tenants with the store, which is that of the ledger with this id. The store must hold all
/// lines of them.
pub async fn compare(
    ledger: &dyn Store,
    (events, id): (&dyn EventsStore, &str),
    span: Span,
    now: Timestamp,
) -> Result<Vec<Difference>, FeedError> {
    let mut sums = Hours::new();
    for sum in events.sums(id, Asked::EveryTenantsHours, span).await? {
        sums.insert((sum.tenant, sum.start), sum.amounts);
    }
    let counted = counted(ledger, span, now).await?;
    let keys: std::collections::BTreeSet<_> = sums.keys().chain(counted.keys()).collect();
    let of = |hours: &Hours, key| hours.get(key).copied().unwrap_or_default();
    let differing = keys.into_iter().flat_map(|key| {
        let (ledger, events) = (of(&counted, key), of(&sums, key));
        let units = ledger.each().filter(move |(unit, amount)| *amount != events[*unit]);
        units.map(move |(unit, amount)| {
            let (tenant, hour) = key.clone();
            Difference { tenant, hour, unit, ledger: amount, events: events[unit] }
        })
    });
    Ok(differing.collect())
}

/// What the ledger counted in closed hours. A tenant for which something is counted meanwhile is listed again with its
/// latest line, so each is added once, and the last page ends the list: under load, there is always a later line.
async fn counted(ledger: &dyn Store, span: Span, now: Timestamp) -> Result<Hours, StoreError> {
    let (mut all, mut added, mut after) = (Hours::new(), HashSet::new(), 0);
    loop {
        let tenants = ledger.changed(after, PAGE).await?;
        let full = tenants.len() >= PAGE as usize;
        after = tenants.last().map_or(after, |last| last.seq);
        for Changed { tenant, .. } in tenants {
            if added.insert(tenant.clone()) {
                add(ledger, &tenant, span, now, &mut all).await?;
            }
        }
        if !full {
            return Ok(all);
        }
    }
}

/// Adds those of a tenant.
async fn add(ledger: &dyn Store, tenant: &str, span: Span, now: Timestamp, all: &mut Hours) -> Result<(), StoreError> {
    let mut from = span.from;
    while from < span.to {
        let page = ledger.hours(tenant, from, PAGE, now).await?;
        for row in page.hours.iter().filter(|row| row.hour < span.to) {
            let sum = all.entry((tenant.to_owned(), row.hour)).or_default();
            *sum = sum.plus(row.amounts);
        }
        from = if page.listed_until >= page.closed_until { span.to } else { page.listed_until };
    }
    Ok(())
}
