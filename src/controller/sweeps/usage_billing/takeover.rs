//! An item that takes over usage of its unit: the price before it is gone, with the subscription or from it. Whatever meter
//! Stripe has that usage on is asked first, because the status may be that of a backup. What any of them has is not sent
//! again: the customer would pay twice.

use std::collections::BTreeSet;

use super::decide::{self, Row, record, taking_over, unsent};
use super::look::{Billed, Look};
use super::settle::Settling;
use super::trouble::Trouble;
use crate::api::usage_prices::{KeptUsage, MeteredUsage, Unpriced, WaitingUsage};
use crate::api::{Timestamp, Unit};
use crate::ledger::wire::HourUsage;
use crate::providers::biller::Biller;
use crate::providers::stripe::{MeteredItem, UsageSubscription};

/// What became of an item that takes over what was left of its unit.
pub enum Begun<'a> {
    /// It stands so.
    Item(Billed<'a>),
    /// Stripe may not show yet what was sent, or the numbers before it differ. What is left waits until Stripe shows it, or
    /// until a person has decided, and the other units go on.
    Held(WaitingUsage, Trouble),
}

/// What Stripe has of the hours that an item takes over.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Had {
    /// The meter that billed the unit before, since its price began.
    before: i64,
    /// The other meters of the unit together, from the first hour on that is not recorded as sent.
    elsewhere: i64,
    /// The meter of the item, since the item began.
    since: i64,
    /// Whether the meter before is that of the item.
    same: bool,
}

/// Numbers that cannot be told apart from rows.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Unclear {
    /// How many of the rows were sent for sure.
    known: usize,
    /// What was sent before the others of them.
    sent: i64,
    /// What Stripe has.
    theirs: i64,
}

/// How many of the rows Stripe has, on whichever of the meters. Each is brought up to date before another one takes over,
/// so what they have together are the first rows.
fn known_rows(sent: i64, rows: &[Row], had: &Had) -> Result<usize, Unclear> {
    // What the meter before has of its own is billed at its price, whatever the others have. That of the item may hold
    // both what was sent before the others and after them.
    if !had.same
        && let Some(known) = decide::delivered(sent, had.before, rows)
    {
        let more = decide::delivered(0, had.elsewhere, &rows[known..]);
        return more.map(|more| known + more).ok_or(Unclear { known, sent: 0, theirs: had.elsewhere });
    }
    let theirs = had.before + had.elsewhere;
    decide::delivered(sent, theirs, rows).ok_or(Unclear { known: 0, sent, theirs })
}

/// The hours that nothing bills: from the end of the wait until an item begins.
fn gap(waiting: &WaitingUsage, begins: Timestamp) -> Option<Unpriced> {
    Some(Unpriced { from: waiting.until, until: begins }).filter(|gap| gap.from < gap.until)
}

/// The rows that an item takes over: without those of the gap, which are sent to no meter.
fn rows_to_take_over(waiting: &WaitingUsage, hours: &[HourUsage], begins: Timestamp) -> Vec<Row> {
    let gap = gap(waiting, begins);
    let mut rows = unsent(hours, &waiting.usage);
    rows.retain(|row| !gap.is_some_and(|gap| gap.holds(row.hour)));
    rows
}

/// What waits for a decision, with an item that could bill it: later usage waits, too, unless there is a gap that
/// nothing bills.
fn held(waiting: WaitingUsage, amount: i64, begins: Timestamp, closed_until: Timestamp) -> WaitingUsage {
    let until = if gap(&waiting, begins).is_some() { waiting.until } else { closed_until.max(waiting.until) };
    WaitingUsage { until, amount, ..waiting }
}

/// Where usage of an item stands that takes over what waited, of which Stripe has so many rows: the hours from the end of
/// the wait until the price had none that bills them. `theirs`: what its meter has since it began.
fn taking_over_what_waited(
    waiting: &WaitingUsage,
    (unit, item): (Unit, &MeteredItem),
    (rows, known): (&[Row], usize),
    theirs: i64,
) -> MeteredUsage {
    let mut before = waiting.usage.clone();
    record(&mut before, rows, known);
    // Rows of an hour of which others are still to be sent come once more with it, so they are no part of what was sent.
    let open = rows[..known].iter().filter(|row| row.hour >= before.through).map(|row| row.amount).sum::<i64>();
    let usage = taking_over(unit, item, before.through, theirs - open);
    let unpriced = gap(waiting, usage.since).or(before.unpriced).filter(|gap| gap.until > usage.through);
    MeteredUsage { unpriced, ..usage }
}

impl Look<'_> {
    /// Begins an item of which nothing is recorded. What was counted and not sent under the price before goes with it, once
    /// Stripe's sums say what was sent. `one` has the item and its meter.
    pub async fn begin<'a>(
        &self,
        there: &UsageSubscription,
        waiting: &WaitingUsage,
        mut one: Billed<'a>,
        settling: &mut Settling<'_>,
    ) -> Result<Begun<'a>, Trouble> {
        let (before, unit) = (&waiting.usage, one.usage.unit);
        one.begun = true;
        if !self.same_customer(there, waiting).await? {
            one.usage = decide::of_another_customer(before, unit, one.item);
            return Ok(Begun::Item(one));
        }
        let (closed_until, hours) = self.hours(before.through).await?;
        // What did not wait before is taken over up to the present.
        let waited = settling.recorded.waiting.contains(waiting);
        let begins = one.item.created.hour();
        let mut waiting = WaitingUsage { until: if waited { waiting.until } else { begins }, ..waiting.clone() };
        let rows = rows_to_take_over(&waiting, &hours, begins);
        // What Stripe does not show yet would be sent a second time, to another meter, where its identifier is new.
        if self.lags {
            let amount = rows.iter().map(|row| row.amount).sum();
            return Ok(Begun::Held(held(waiting, amount, begins, closed_until), Trouble::Settling));
        }
        let until = self.until(there, one.item, closed_until);
        let (had, meters) = self.had(there, &waiting, &one, until).await?;
        let item = (unit, one.item);
        let Unclear { known, sent, theirs } = match known_rows(before.sent, &rows, &had) {
            Ok(known) => {
                one.usage = taking_over_what_waited(&waiting, item, (&rows, known), had.since);
                return Ok(Begun::Item(one));
            }
            Err(unclear) => unclear,
        };
        let left = &rows[known..];
        one.usage = MeteredUsage { sent, ..waiting.usage.clone() };
        if self.settle(there, &mut one, (left, theirs), settling).await? {
            let by_ledger = settling.decision.as_ref().is_some_and(|decision| decision.keep == KeptUsage::Ledger);
            // The difference was sent to the meter of the item. Or else rows that Stripe's number covers are not sent again.
            let (more, now) = if by_ledger { (0, sent - theirs) } else { (decide::covered(sent, theirs, left), 0) };
            one.usage = taking_over_what_waited(&waiting, item, (&rows, known + more), had.since + now);
            return Ok(Begun::Item(one));
        }
        record(&mut waiting.usage, &rows, known);
        let amount = left.iter().map(|row| row.amount).sum();
        if self.drops(settling, unit, amount) {
            settling.differences.retain(|difference| difference.unit != unit);
            one.usage = taking_over(unit, one.item, closed_until.max(waiting.usage.through), had.since);
            return Ok(Begun::Item(one));
        }
        let since = if sent == before.sent { before.since } else { waiting.usage.through };
        let differs =
            Trouble::Differs { unit, meters, since, sent, unsent: amount, theirs, events: None, tenant: None };
        Ok(Begun::Held(held(waiting, amount, begins, closed_until), differs))
    }

    /// What Stripe has of what an item takes over, and on which meters.
    async fn had(
        &self,
        there: &UsageSubscription,
        waiting: &WaitingUsage,
        one: &Billed<'_>,
        until: Timestamp,
    ) -> Result<(Had, Vec<String>), Trouble> {
        let (stripe, customer, usage) = (&self.context.providers.stripe, &*there.customer, &waiting.usage);
        let mut meters = vec![usage.meter.to_string()];
        let before = stripe.reported(&usage.meter, customer, usage.since, until).await?;
        let mut elsewhere = 0;
        for meter in self.meters_of(there, usage.unit, &one.meter.id).await? {
            if *meter == *usage.meter || usage.through >= until {
                continue;
            }
            let has = match stripe.reported(&meter, customer, usage.through, until).await {
                // A meter that this account does not have: the note is of another one.
                Err(error) if error.is_not_found() => 0,
                has => has?,
            };
            elsewhere += has;
            if has != 0 {
                meters.push(meter);
            }
        }
        let since = stripe.reported(&one.meter.id, customer, one.item.created.hour(), until).await?;
        Ok((Had { before, elsewhere, since, same: *usage.meter == *one.meter.id }, meters))
    }

    /// The meters that usage of a unit may be on: those that the customer's subscriptions note, those of the prices of all
    /// Plans, and that of the item.
    async fn meters_of(
        &self,
        there: &UsageSubscription,
        unit: Unit,
        of_item: &str,
    ) -> Result<BTreeSet<String>, Trouble> {
        let stripe = &self.context.providers.stripe;
        let mut all = stripe.noted_meters(&there.customer, self.tenant.tenant_id(), unit).await?;
        all.insert(of_item.to_owned());
        for price in self.plans.iter().flat_map(|plan| &plan.spec.usage_prices).filter(|price| price.unit == unit) {
            all.extend(self.meters.any_of_price(stripe, &price.stripe_price_id).await?);
        }
        Ok(all)
    }

    /// Whether a person drops what waits. Says so.
    pub fn drops(&self, settling: &mut Settling<'_>, unit: Unit, amount: i64) -> bool {
        let drops = settling.settle(KeptUsage::Nothing, (unit, amount, 0), self.now);
        if drops {
            let said = format!("A person has dropped {amount} {} that waited for a price", unit.in_plans());
            self.context.events.normal(self.tenant, "UsageSettled", said);
        }
        drops
    }

    /// Whether what was left is of the customer of this subscription.
    pub async fn same_customer(&self, there: &UsageSubscription, waiting: &WaitingUsage) -> Result<bool, Trouble> {
        if *waiting.subscription == *there.id {
            return Ok(true);
        }
        match self.context.providers.stripe.usage_subscription(&waiting.subscription).await {
            Err(error) if error.is_not_found() => Ok(false),
            before => Ok(before?.customer == there.customer),
        }
    }
}

#[cfg(test)]
#[path = "takeover_tests.rs"]
mod tests;
