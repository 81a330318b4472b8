//! What is sent, and how it is named and dated. Pure: the sums and the rows go in, what is to be done comes out.
//!
//! Stripe's sum of a meter is compared with what was sent before anything more is sent. The rows of the ledger come in
//! one order and each is above zero, so the sum tells which of them Stripe has: what a controller sent before it was
//! killed, or before an older Tenant was restored, is found there, however long ago. Stripe shows an event in its sums
//! with a delay; until then, within a day, the event's identifier makes the repetition harmless.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;

use sha2::{Digest, Sha256};

use crate::api::usage_prices::MeteredUsage;
use crate::api::{Timestamp, Unit, UsagePrice};
use crate::ledger::account::Period;
use crate::ledger::wire::HourUsage;
use crate::providers::stripe::MeteredItem;

const HOUR: i64 = 3600;
/// Stripe takes what was used within 35 days. A day less, so that it is not refused while it is on its way.
const BACK: i64 = 34 * 24 * HOUR;
/// Seconds around the beginning of an hour, and after it, in which no price is replaced: the clocks of Stripe and of
/// the cluster may differ, and the new price must begin in this hour.
const NOT_BEFORE: i64 = 60;
const NOT_AFTER: i64 = 55 * 60;

/// What a tenant used of one unit in a closed hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// When the hour begins.
    pub hour: Timestamp,
    /// The period of the ledger that it counts in.
    pub period: Period,
    /// How much.
    pub amount: i64,
}

/// The rows of a unit that were not recorded as sent.
pub fn unsent(hours: &[HourUsage], usage: &MeteredUsage) -> Vec<Row> {
    let unpriced = |hour| usage.unpriced.is_some_and(|gap| gap.holds(hour));
    let due = hours.iter().filter(|row| row.hour >= usage.through && !unpriced(row.hour));
    let row = |row: &HourUsage| Row { hour: row.hour, period: row.period, amount: row.counted[usage.unit] };
    due.map(row).filter(|row| row.amount > 0).collect()
}

/// How many of the rows Stripe has, if it has `theirs` in all and `sent` was recorded. None if no number of them comes
/// to that.
pub fn delivered(sent: i64, theirs: i64, rows: &[Row]) -> Option<usize> {
    std::iter::once(sent).chain(sums(sent, rows)).position(|sum| sum == theirs)
}

/// What was sent after each of these rows.
fn sums(sent: i64, rows: &[Row]) -> impl Iterator<Item = i64> {
    rows.iter().scan(sent, |sum, row| {
        *sum += row.amount;
        Some(*sum)
    })
}

/// Records that Stripe has the first of these rows. An hour counts once all its rows are there.
pub fn record(usage: &mut MeteredUsage, rows: &[Row], delivered: usize) {
    let (done, rest) = rows.split_at(delivered);
    let open = rest.first().map(|row| row.hour);
    for row in done.iter().filter(|row| Some(row.hour) != open) {
        usage.sent += row.amount;
        usage.through = row.hour.plus(HOUR);
        usage.unpriced = usage.unpriced.filter(|gap| gap.until > usage.through);
    }
}

/// How many of the rows a number of Stripe's covers.
pub fn covered(sent: i64, theirs: i64, rows: &[Row]) -> usize {
    sums(sent, rows).take_while(|sum| *sum <= theirs).count()
}

/// Stripe's number stands. The rows that it covers are not sent again: a status that was lost begins before all of them.
pub fn stand(usage: &mut MeteredUsage, rows: &[Row], theirs: i64) {
    let before = usage.sent;
    let covered = covered(before, theirs, rows);
    let amount: i64 = rows[..covered].iter().map(|row| row.amount).sum();
    record(usage, rows, covered);
    // Rows of an hour that is not covered as a whole are Stripe's beyond what is recorded.
    let open = amount - (usage.sent - before);
    usage.sent = theirs - open;
}

/// The name of the event of a row: the same for each attempt, and another one for each tenant, meter, hour and period.
pub fn identifier(tenant: &str, meter: &str, row: &Row) -> String {
    let mut hash = Sha256::new();
    for part in [tenant, meter, &row.hour.to_string(), &row.period.start.to_string()] {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    format!("usage-{}", hex::encode(hash.finalize()))
}

/// What decides the time that the event of a row gets.
#[derive(Clone, Debug)]
pub struct Dates {
    /// The present.
    pub now: Timestamp,
    /// Since when the price is on the subscription.
    pub created: Timestamp,
    /// When Stripe's present period began.
    pub period_start: Timestamp,
    /// Times before it whose invoice is a draft, so that it still takes usage.
    pub drafts: Vec<(Timestamp, Timestamp)>,
    /// When the subscription ended.
    pub ended_at: Option<Timestamp>,
}

impl Dates {
    /// The last second of the hour, within the period that the usage counts in, and not before its price.
    fn wanted(&self, row: &Row) -> Timestamp {
        let within = row.hour.plus(HOUR - 1).min(row.period.end.plus(-1)).max(row.period.start);
        let within = within.max(self.created).max(self.now.plus(-BACK));
        self.ended_at.map_or(within, |end| within.min(end.plus(-1)))
    }

    /// Whether the time depends on drafts.
    pub fn depends(&self, row: &Row) -> bool {
        self.ended_at.is_some() || self.wanted(row) < self.period_start
    }

    /// The time. What comes too late for the invoice of its period is on the next one, so that none is lost; None if
    /// there is no next one.
    pub fn of(&self, row: &Row) -> Option<Timestamp> {
        let wanted = self.wanted(row);
        let billed = |(from, until): &(Timestamp, Timestamp)| (*from..*until).contains(&wanted);
        match self.ended_at {
            _ if self.drafts.iter().any(billed) => Some(wanted),
            Some(_) => None,
            None => Some(wanted.max(self.period_start)),
        }
    }
}

/// What is recorded of an item.
pub fn recorded_of<'a>(recorded: &'a [MeteredUsage], unit: Unit, item: &MeteredItem) -> Option<&'a MeteredUsage> {
    let since = item.created.hour();
    recorded.iter().find(|usage| usage.price == *item.price && usage.since == since && usage.unit == unit)
}

/// Where usage of an item stands. Nothing was sent for an item that is not recorded.
pub fn usage_of(recorded: &[MeteredUsage], unit: Unit, item: &MeteredItem) -> MeteredUsage {
    let since = item.created.hour();
    recorded_of(recorded, unit, item).cloned().unwrap_or_else(|| MeteredUsage {
        unit,
        price: item.price.as_str().into(),
        meter: item.meter.as_str().into(),
        since,
        through: since,
        sent: 0,
        unpriced: None,
    })
}

/// Where usage of an item stands that takes over from another one, of this subscription or of the one before: the rows
/// from `through` on are its, whatever time Stripe took, and dated when it began. `theirs`: what Stripe has from
/// `since` on. Events belong to customer and meter, so the sum may hold what was sent for the other item.
pub fn taking_over(unit: Unit, item: &MeteredItem, through: Timestamp, theirs: i64) -> MeteredUsage {
    MeteredUsage { through, sent: theirs, ..usage_of(&[], unit, item) }
}

/// Where usage of an item stands whose customer is another one than before. Nothing of the one before is sent to it.
pub fn of_another_customer(before: &MeteredUsage, unit: Unit, item: &MeteredItem) -> MeteredUsage {
    let usage = usage_of(&[], unit, item);
    MeteredUsage { through: usage.through.max(before.through), ..usage }
}

/// What tells the metered items that are ours, and their units: by their prices, and by their meters. An item whose
/// price no Plan names any more bills its meter all the same, beside the price that is to come.
#[derive(Debug, Default)]
pub struct Ours {
    prices: HashMap<String, Unit>,
    meters: HashMap<String, Unit>,
}

impl Ours {
    /// With the prices of the Plans, the later ones before the earlier ones.
    pub fn new<'a>(recorded: &[MeteredUsage], plans: impl Iterator<Item = &'a UsagePrice>) -> Self {
        let known = recorded.iter().map(|usage| (usage.price.to_string(), usage.unit));
        let priced = plans.map(|price| (price.stripe_price_id.to_string(), price.unit));
        let meters = recorded.iter().map(|usage| (usage.meter.to_string(), usage.unit));
        Self { prices: known.chain(priced).collect(), meters: meters.collect() }
    }

    /// With the meters of the items whose prices are known, and of the prices that are wanted.
    #[must_use]
    pub fn with_meters<'a>(mut self, items: &[MeteredItem], wanted: impl Iterator<Item = (Unit, &'a str)>) -> Self {
        let priced = items.iter().filter_map(|item| Some((item.meter.clone(), *self.prices.get(&item.price)?)));
        self.meters.extend(priced.collect::<Vec<_>>());
        self.meters.extend(wanted.map(|(unit, meter)| (meter.to_owned(), unit)));
        self
    }

    /// The unit of an item, if it is ours.
    pub fn unit(&self, item: &MeteredItem) -> Option<Unit> {
        self.prices.get(&item.price).or_else(|| self.meters.get(&item.meter)).copied()
    }
}

/// The first meter or unit that is listed twice. Two prices would bill the same usage.
pub fn twice<T: Copy + Eq + Hash>(mut listed: impl Iterator<Item = T>) -> Option<T> {
    let mut seen = HashSet::new();
    listed.find(|one| !seen.insert(*one))
}

/// The items that are to go, and the prices that are to come.
pub fn changes<'a>(wanted: &'a [UsagePrice], ours: &[&'a MeteredItem]) -> (Vec<&'a MeteredItem>, Vec<&'a UsagePrice>) {
    let gone = ours.iter().copied().filter(|item| !wanted.iter().any(|price| price.stripe_price_id == *item.price));
    let new = wanted.iter().filter(|price| !ours.iter().any(|item| price.stripe_price_id == *item.price));
    (gone.collect(), new.collect())
}

/// When prices are replaced: once the hour in which this was first seen is over and was sent. So the hour of a plan
/// change is billed by the prices before it, and no hour has two prices.
pub fn replace_at(before: Option<Timestamp>, closed_until: Timestamp) -> Timestamp {
    before.unwrap_or_else(|| closed_until.plus(HOUR))
}

/// Whether this is the time to replace prices.
pub fn may_replace(at: Timestamp, closed_until: Timestamp, now: Timestamp) -> bool {
    // Negative if the ledger is ahead. A little: the new price may begin in an hour that was sent. Much, because its
    // clock was wrong once: no hour ends soon, and waiting would not help.
    let into = now.since(closed_until);
    at <= closed_until && !(-NOT_BEFORE..NOT_BEFORE).contains(&into) && into < NOT_AFTER
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
