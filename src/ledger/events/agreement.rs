//! Whether the events store agrees with the ledger: what the ledger counted in closed hours, which is what bills rest
//! on, and the sums of the store's lines are made in two ways, and must be the same.
//!
//! The hours of the latest days are compared every hour, and each earlier day about once a day, up to [`EARLIEST`]: the
//! present billing period and the one before it. Stripe takes usage for 35 days, and does not change an invoice that is final.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::error::FeedError;
use super::{Asked, EventsStore, Span};
use crate::api::Timestamp;
use crate::ledger::store::{Changed, Store, StoreError};
use crate::ledger::units::{Amounts, Unit};

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;
/// Tenants and hours of one page.
const PAGE: u32 = 1000;
/// Seconds of the closed hours that are compared every hour.
const LATEST: i64 = 3 * DAY;
/// The days before them are compared in turns of so many, one turn an hour. 23 turns come at another hour each day, so
/// a store that is away at the same time every day leaves none out.
const TURN: i64 = 3;
const TURNS: i64 = 23;
/// Seconds that are compared in all.
const EARLIEST: i64 = LATEST + TURNS * TURN * DAY;

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

/// By tenant, and by hour or day.
type Sums = BTreeMap<(String, Timestamp), Amounts>;

/// What is known to differ.
#[derive(Clone, Debug, Default)]
pub struct Found(Vec<Difference>);

impl Found {
    /// All of it, the latest comparison of each hour, the earliest hour first.
    pub fn all(&self) -> &[Difference] {
        &self.0
    }

    /// What differs within a span now. Earlier findings about it are over.
    pub fn add(&mut self, span: Span, differences: Vec<Difference>) {
        self.0.retain(|known| !(span.from..span.to).contains(&known.hour));
        self.0.extend(differences);
        self.0.sort_by_key(|known| known.hour);
    }

    /// Forgets what is too old to be compared again.
    pub fn forget(&mut self, until: Timestamp) {
        self.0.retain(|known| known.hour >= until.plus(-EARLIEST));
    }
}

/// The hours that are compared every hour, before a moment.
pub fn latest(until: Timestamp) -> Span {
    Span { from: until.plus(-LATEST), to: until }
}

/// The days whose turn it is in the hour that begins at a moment. Whole days of UTC that are over.
pub fn turn(until: Timestamp) -> Span {
    let newest = (until.as_second() - LATEST).div_euclid(TURN * DAY);
    let hour = until.as_second().div_euclid(HOUR);
    let number = newest - (newest - hour).rem_euclid(TURNS);
    let (from, today) = (number * TURN * DAY, until.as_second().div_euclid(DAY) * DAY);
    Span { from: Timestamp::from_second(from), to: Timestamp::from_second((from + TURN * DAY).min(today)) }
}

/// Compares closed hours of all tenants with the store, which is that of the ledger with this id. The store must hold all
/// lines of them.
pub async fn compare(
    ledger: &dyn Store,
    store: (&dyn EventsStore, &str),
    span: Span,
    now: Timestamp,
) -> Result<Vec<Difference>, FeedError> {
    let sums = told(store, Asked::EveryTenantsHours, span).await?;
    let counted = counted(ledger, span, (HOUR, now)).await?;
    Ok(differing(&counted, &sums))
}

/// The same of whole days: only the hours of days and tenants that differ are looked at one by one.
pub async fn compare_days(
    ledger: &dyn Store,
    store: (&dyn EventsStore, &str),
    span: Span,
    now: Timestamp,
) -> Result<Vec<Difference>, FeedError> {
    let sums = told(store, Asked::EveryTenantsDays, span).await?;
    let counted = counted(ledger, span, (DAY, now)).await?;
    let mut days: BTreeMap<Timestamp, BTreeSet<String>> = BTreeMap::new();
    for day in differing(&counted, &sums) {
        days.entry(day.hour).or_default().insert(day.tenant);
    }
    let mut all = Vec::new();
    for (day, tenants) in days {
        let span = Span { from: day, to: day.plus(DAY) };
        let mut sums = told(store, Asked::EveryTenantsHours, span).await?;
        sums.retain(|(tenant, _), _| tenants.contains(tenant));
        let mut counted = Sums::new();
        for tenant in &tenants {
            add(ledger, tenant, span, (HOUR, now), &mut counted).await?;
        }
        all.extend(differing(&counted, &sums));
    }
    Ok(all)
}

/// What differs of two sides.
fn differing(counted: &Sums, sums: &Sums) -> Vec<Difference> {
    let keys: BTreeSet<_> = sums.keys().chain(counted.keys()).collect();
    let of = |sums: &Sums, key| sums.get(key).copied().unwrap_or_default();
    let differing = keys.into_iter().flat_map(|key| {
        let (ledger, events) = (of(counted, key), of(sums, key));
        let units = ledger.each().filter(move |(unit, amount)| *amount != events[*unit]);
        units.map(move |(unit, amount)| {
            let (tenant, hour) = key.clone();
            Difference { tenant, hour, unit, ledger: amount, events: events[unit] }
        })
    });
    differing.collect()
}

/// What the store's lines add up to.
async fn told((events, id): (&dyn EventsStore, &str), asked: Asked<'_>, span: Span) -> Result<Sums, FeedError> {
    let sums = events.sums(id, asked, span).await?;
    Ok(sums.into_iter().map(|sum| ((sum.tenant, sum.start), sum.amounts)).collect())
}

/// What the ledger counted in closed hours, by steps of so many seconds. A tenant for which something is counted
/// meanwhile is listed again with its latest line, so each is added once, and the last page ends the list: under load,
/// there is always a later line.
async fn counted(ledger: &dyn Store, span: Span, step: (i64, Timestamp)) -> Result<Sums, StoreError> {
    let (mut all, mut added, mut after) = (Sums::new(), HashSet::new(), 0);
    loop {
        let tenants = ledger.changed(after, PAGE).await?;
        let full = tenants.len() >= PAGE as usize;
        after = tenants.last().map_or(after, |last| last.seq);
        for Changed { tenant, .. } in tenants {
            if added.insert(tenant.clone()) {
                add(ledger, &tenant, span, step, &mut all).await?;
            }
        }
        if !full {
            return Ok(all);
        }
    }
}

/// Adds those of a tenant.
async fn add(
    ledger: &dyn Store,
    tenant: &str,
    span: Span,
    (step, now): (i64, Timestamp),
    all: &mut Sums,
) -> Result<(), StoreError> {
    let mut from = span.from;
    while from < span.to {
        // No more than the span has: what comes after it was not asked for.
        let hours = u32::try_from(span.to.since(from).div_euclid(HOUR)).unwrap_or(PAGE).clamp(1, PAGE);
        let page = ledger.hours(tenant, from, hours, now).await?;
        for row in page.hours.iter().filter(|row| row.hour < span.to) {
            let start = Timestamp::from_second(row.hour.as_second().div_euclid(step) * step);
            let sum = all.entry((tenant.to_owned(), start)).or_default();
            *sum = sum.plus(row.amounts);
        }
        from = if page.listed_until >= page.closed_until { span.to } else { page.listed_until };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: i64 = 1_800_014_400;

    #[test]
    fn each_earlier_day_has_its_turn_and_a_difference_stays_until_then() {
        let until = |hour: i64| Timestamp::from_second(NOON + hour * HOUR);
        let mut days = BTreeSet::new();
        for hour in 0..TURNS {
            let Span { from, to } = turn(until(hour));
            assert_eq!((from.as_second() % DAY, to.since(from) % DAY), (0, 0), "whole days");
            assert!(from < to && to <= until(hour), "they are over");
            days.extend((0..to.since(from) / DAY).map(|day| from.plus(day * DAY)));
        }
        let first = *days.first().expect("days");
        assert!(until(0).since(first) >= 62 * DAY, "this period and the one before");
        let last = *days.last().expect("days");
        assert!(last.plus(DAY) >= latest(until(0)).from, "no day is between them and the latest ones");
        assert_eq!(i64::try_from(days.len()), Ok(last.since(first) / DAY + 1), "and none is left out");
        // At the same time of each day, it is another turn.
        let turns = (0..TURNS).map(|day| turn(until(day * 24)).from.as_second() / (TURN * DAY) % TURNS);
        assert_eq!(turns.collect::<BTreeSet<_>>().len(), 23);

        let of =
            |hour: i64| Difference { tenant: "a".into(), hour: until(hour), unit: Unit::Queries, ledger: 1, events: 2 };
        let mut found = Found::default();
        found.add(latest(until(0)), vec![of(-70)]);
        found.add(latest(until(24)), vec![of(-1)]);
        assert_eq!(found.all(), [of(-70), of(-1)], "its day has not had its turn yet");
        found.add(Span { from: until(-80), to: until(-60) }, vec![]);
        assert_eq!(found.all(), [of(-1)]);
        found.forget(until(80 * 24));
        assert_eq!(found.all(), []);
    }
}
