//! Usage that was counted while a price billed it, and whose price is gone before it was sent: with another subscription
//! of the tenant, or taken off at Stripe. It waits until the subscription has a price for the unit, or a person drops it.

use super::decide::{self, Row, hour_of, record, taking_over, unsent};
use super::look::{Billed, Look};
use super::send::{Of, compare, differs};
use super::settle::{Carry, Settling};
use super::trouble::Trouble;
use crate::api::usage_prices::{KeptUsage, MeteredUsage, Unpriced, WaitingUsage};
use crate::api::{Timestamp, Unit, UsageBilling};
use crate::ledger::wire::HourUsage;
use crate::providers::biller::Biller;
use crate::providers::stripe::{MeteredItem, UsageSubscription};

/// What became of an item that takes over what was left of its unit.
pub enum Begun<'a> {
    /// It stands so.
    Item(Billed<'a>),
    /// The numbers before it differ. What is left waits until a person has decided, and the other units go on.
    Held(WaitingUsage, Trouble),
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

/// Where usage of an item stands that takes over what waited: the hours from the end of the wait until the price had
/// none that bills them.
fn taking_over_what_waited(waiting: &WaitingUsage, unit: Unit, item: &MeteredItem, theirs: i64) -> MeteredUsage {
    let usage = taking_over(unit, item, waiting.usage.through, theirs);
    MeteredUsage { unpriced: gap(waiting, usage.since).filter(|gap| gap.until > usage.through), ..usage }
}

/// What was left unbilled: what waits already, what is recorded of another subscription than this one, unless a person
/// was told to invoice it, and what is recorded of units of which no recorded item goes on: the price was taken off at
/// Stripe.
pub fn left(recorded: &UsageBilling, subscription: &str, goes_on: impl Fn(Unit) -> bool) -> Vec<WaitingUsage> {
    let other = *recorded.subscription != *subscription;
    let is_left = |usage: &&MeteredUsage| if other { !recorded.invoice_by_hand } else { !goes_on(usage.unit) };
    let meters = recorded.meters.iter().filter(is_left);
    let of = |usage: &MeteredUsage| WaitingUsage {
        subscription: recorded.subscription.clone(),
        until: usage.through,
        amount: 0,
        usage: usage.clone(),
    };
    recorded.waiting.iter().cloned().chain(meters.map(of)).collect()
}

/// What still waits of it, for lack of an item. `priced`: whether the plan in force has a price for the unit, so that
/// later usage waits, too. What a person has dropped is none of it, nor what comes to nothing.
fn wait(
    mut waiting: WaitingUsage,
    hours: &[HourUsage],
    closed_until: Timestamp,
    (known, priced): (bool, bool),
) -> Option<WaitingUsage> {
    if priced || !known {
        waiting.until = closed_until;
    }
    let rows = unsent(hours, &waiting.usage);
    waiting.amount = rows.iter().filter(|row| row.hour < waiting.until).map(|row| row.amount).sum();
    (priced || waiting.amount > 0).then_some(waiting)
}

/// That usage waits for a price, if any does.
pub fn shown(billing: &UsageBilling) -> Option<Trouble> {
    let amounts: Vec<_> = billing.waiting.iter().map(|w| (w.usage.unit, w.amount)).filter(|(_, n)| *n > 0).collect();
    let subscription = billing.subscription.to_string();
    (!amounts.is_empty()).then_some(Trouble::Waits { amounts, subscription })
}

impl Look<'_> {
    /// Begins an item of a subscription that was not looked at before. What was counted and not sent under the one before
    /// goes with it, once Stripe's sum says what was sent. `one` has the item and its meter.
    pub async fn begin<'a>(
        &self,
        there: &UsageSubscription,
        waiting: &WaitingUsage,
        mut one: Billed<'a>,
        settling: &mut Settling<'_>,
    ) -> Result<Begun<'a>, Trouble> {
        let (before, unit, stripe) = (&waiting.usage, one.usage.unit, &self.context.providers.stripe);
        one.begun = true;
        if !self.same_customer(there, waiting).await? {
            one.usage = decide::of_another_customer(before, unit, one.item);
            return Ok(Begun::Item(one));
        }
        let (closed_until, hours) = self.hours(before.through).await?;
        let until = self.until(there, one.item, closed_until);
        // What did not wait before is taken over up to the present.
        let waited = settling.recorded.waiting.contains(waiting);
        let begins = hour_of(one.item.created);
        let mut waiting = WaitingUsage { until: if waited { waiting.until } else { begins }, ..waiting.clone() };
        let rows = rows_to_take_over(&waiting, &hours, begins);
        let other = self.meters.meter(stripe, &before.meter).await?;
        let (tenant, subscription) = (self.tenant.tenant_id(), &*waiting.subscription);
        let of = Of { tenant, customer: &there.customer, subscription, meter: &other };
        let compared = compare(stripe, of, before, (&rows, until)).await;
        let theirs = stripe.reported(&one.meter, &there.customer, begins, until).await?;
        match compared {
            Ok(known) => {
                record(&mut waiting.usage, &rows, known);
                one.usage = taking_over_what_waited(&waiting, unit, one.item, theirs);
                if one.meter.id == *before.meter {
                    return Ok(Begun::Item(one));
                }
                self.begin_on_another_meter(there, waiting, (one, theirs, closed_until), &hours, settling).await
            }
            Err(differs @ Trouble::Differs { .. }) => {
                let differs = (differs, &*rows, &*hours);
                self.begin_as_decided(there, waiting, (one, theirs, closed_until), differs, settling).await
            }
            Err(error) => Err(error),
        }
    }

    /// Begins an item on a meter that had nothing to do with what was left. What that meter has since then is what was
    /// sent of these rows by a look whose status was lost or is restored: sent again, the customer would pay twice.
    async fn begin_on_another_meter<'a>(
        &self,
        there: &UsageSubscription,
        waiting: WaitingUsage,
        (mut one, theirs, closed_until): (Billed<'a>, i64, Timestamp),
        hours: &[HourUsage],
        settling: &mut Settling<'_>,
    ) -> Result<Begun<'a>, Trouble> {
        one.usage.sent = 0;
        let rows = unsent(hours, &one.usage);
        if let Some(known) = decide::delivered(0, theirs, &rows) {
            record(&mut one.usage, &rows, known);
            return Ok(Begun::Item(one));
        }
        let differs = differs(&one.usage, &rows, theirs);
        if self.settle(there, &mut one, (&rows, theirs), Carry::Send, settling).await? {
            return Ok(Begun::Item(one));
        }
        Ok(self.drop_or_hold(waiting, (one, theirs, closed_until), (differs, &rows), settling))
    }

    /// Begins an item although the numbers before it differ, if a person has decided what the customer pays. A
    /// difference goes to the item's own meter, since nothing may bill the one before any more. `theirs`: what Stripe
    /// has of the item.
    async fn begin_as_decided<'a>(
        &self,
        there: &UsageSubscription,
        mut waiting: WaitingUsage,
        (mut one, theirs, closed_until): (Billed<'a>, i64, Timestamp),
        (differs, rows, hours): (Trouble, &[Row], &[HourUsage]),
        settling: &mut Settling<'_>,
    ) -> Result<Begun<'a>, Trouble> {
        let Trouble::Differs { unit, theirs: before, .. } = differs else { return Err(differs) };
        let (difference, same_meter) = (waiting.usage.sent - before, one.meter.id == *waiting.usage.meter);
        let ledgers = taking_over_what_waited(&waiting, unit, one.item, difference);
        let sent = decide::delivered(difference, theirs, &unsent(hours, &ledgers)).filter(|_| difference != 0);
        let carry = match sent {
            _ if same_meter => Carry::Send,
            // A look whose status was lost has carried it out, and has sent so many rows after it.
            Some(_) => Carry::Sent,
            None if theirs == 0 => Carry::Send,
            None => Carry::Not,
        };
        one.usage = waiting.usage.clone();
        if !self.settle(there, &mut one, (rows, before), carry, settling).await? {
            return Ok(self.drop_or_hold(waiting, (one, theirs, closed_until), (differs, rows), settling));
        }
        let by_ledger = settling.decision.as_ref().is_some_and(|decision| decision.keep == KeptUsage::Ledger);
        // Rows that Stripe's number covers are not sent again. The rest of it is in no row: it is the difference, or none.
        waiting.usage = one.usage.clone();
        if same_meter {
            let more = if by_ledger { difference } else { 0 };
            one.usage = taking_over_what_waited(&waiting, unit, one.item, theirs + more);
            return Ok(Begun::Item(one));
        }
        if by_ledger {
            one.usage = ledgers;
            let rows = unsent(hours, &one.usage);
            record(&mut one.usage, &rows, sent.unwrap_or(0));
            return Ok(Begun::Item(one));
        }
        one.usage = taking_over_what_waited(&waiting, unit, one.item, 0);
        self.begin_on_another_meter(there, waiting, (one, theirs, closed_until), hours, settling).await
    }

    /// What becomes of an item whose numbers differ: a person drops what is left of its unit, or it waits until a person
    /// has decided.
    fn drop_or_hold<'a>(
        &self,
        waiting: WaitingUsage,
        (mut one, theirs, closed_until): (Billed<'a>, i64, Timestamp),
        (differs, rows): (Trouble, &[Row]),
        settling: &mut Settling<'_>,
    ) -> Begun<'a> {
        let (unit, unsent) = (waiting.usage.unit, rows.iter().map(|row| row.amount).sum());
        if self.drops(settling, unit, unsent) {
            settling.differences.retain(|difference| difference.unit != unit);
            one.usage = taking_over(unit, one.item, closed_until.max(waiting.usage.through), theirs);
            return Begun::Item(one);
        }
        Begun::Held(held(waiting, unsent, hour_of(one.item.created), closed_until), differs)
    }

    /// Whether a person drops what waits. Says so.
    fn drops(&self, settling: &mut Settling<'_>, unit: Unit, amount: i64) -> bool {
        let drops = settling.settle(KeptUsage::Nothing, (unit, amount, 0), self.now);
        if drops {
            let said = format!("A person has dropped {amount} {} that waited for a price", unit.in_plans());
            self.context.events.normal(self.tenant, "UsageSettled", said);
        }
        drops
    }

    /// Whether what was left is of the customer of this subscription.
    async fn same_customer(&self, there: &UsageSubscription, waiting: &WaitingUsage) -> Result<bool, Trouble> {
        if *waiting.subscription == *there.id {
            return Ok(true);
        }
        match self.context.providers.stripe.usage_subscription(&waiting.subscription).await {
            Err(error) if error.is_not_found() => Ok(false),
            before => Ok(before?.customer == there.customer),
        }
    }

    /// What waits for a price, without what a person drops.
    pub async fn wait(
        &self,
        there: &UsageSubscription,
        open: Vec<WaitingUsage>,
        (hours, closed_until): (&[HourUsage], Timestamp),
        settling: &mut Settling<'_>,
    ) -> Result<Vec<WaitingUsage>, Trouble> {
        let mut all = Vec::new();
        for waiting in open {
            let known = settling.recorded.waiting.contains(&waiting);
            // Another customer does not pay for it.
            if !known && !self.same_customer(there, &waiting).await? {
                continue;
            }
            let priced = self.wanted.iter().any(|price| price.unit == waiting.usage.unit);
            let Some(waiting) = wait(waiting, hours, closed_until, (known, priced)) else { continue };
            if !self.drops(settling, waiting.usage.unit, waiting.amount) {
                all.push(waiting);
            }
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::account::Period;
    use crate::ledger::units::Amounts;

    const HOUR: i64 = 3600;
    const NOON: i64 = 1_800_014_400;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second)
    }

    fn hour(number: i64, queries: i64) -> HourUsage {
        let period = Period { start: at(NOON - 100 * HOUR), end: at(NOON + 620 * HOUR) };
        HourUsage { hour: at(NOON + number * HOUR), period, counted: Amounts::of(Unit::Queries, queries) }
    }

    fn usage() -> MeteredUsage {
        let (price, meter, since) = ("price_1".into(), "mtr_1".into(), at(NOON));
        MeteredUsage { unit: Unit::Queries, price, meter, since, through: at(NOON + HOUR), sent: 5, unpriced: None }
    }

    fn item(created: i64) -> MeteredItem {
        let (price, meter) = ("price_2".into(), "mtr_2".into());
        MeteredItem { id: "si_1".into(), price, meter, created: at(created) }
    }

    fn amounts(hours: &[HourUsage], usage: &MeteredUsage) -> Vec<i64> {
        unsent(hours, usage).iter().map(|row| row.amount).collect()
    }

    #[test]
    fn usage_that_has_no_price_waits_until_it_has_one() {
        let hours = [hour(0, 5), hour(1, 7), hour(3, 2), hour(6, 4), hour(9, 8)];
        let recorded = UsageBilling { subscription: "sub_1".into(), meters: vec![usage()], ..UsageBilling::default() };
        let rest = |subscription, has_item| left(&recorded, subscription, move |_| has_item);
        assert_eq!(rest("sub_2", true), rest("sub_2", false), "another subscription begins with it either way");
        assert_eq!((rest("sub_1", true).len(), rest("sub_1", false).len()), (0, 1), "its item was taken off at Stripe");
        let by_hand = UsageBilling { invoice_by_hand: true, ..recorded.clone() };
        assert!(left(&by_hand, "sub_2", |_| true).is_empty(), "a person invoices it");

        let first = rest("sub_2", false).remove(0);
        let look = |waiting: WaitingUsage, known, priced| wait(waiting, &hours, at(NOON + 4 * HOUR), (known, priced));
        let now = look(first.clone(), false, false).expect("it waits");
        assert_eq!((now.until, now.amount), (at(NOON + 4 * HOUR), 9), "7 and 2, and not what was sent");
        let later = wait(now.clone(), &hours, at(NOON + 10 * HOUR), (true, false)).expect("it waits");
        assert_eq!(later, now, "the plan has no price for the unit: what comes is not charged");
        let later = wait(now.clone(), &hours, at(NOON + 10 * HOUR), (true, true)).expect("it waits");
        assert_eq!(later.amount, 21, "the plan has one, and the subscription does not yet");
        let sent = WaitingUsage { usage: MeteredUsage { through: at(NOON + 10 * HOUR), ..usage() }, ..first };
        assert!(look(sent.clone(), false, false).is_none() && look(sent, false, true).is_some());

        // A price that comes at last bills what waited, and what is used from its hour on.
        let next = item(NOON + 8 * HOUR + 90);
        let mut usage = taking_over_what_waited(&now, Unit::Queries, &next, 0);
        let rows = unsent(&hours, &usage);
        assert_eq!(amounts(&hours, &usage), [7, 2, 8], "hour 6 had no price");
        record(&mut usage, &rows, 1);
        assert_eq!(unsent(&hours, &usage), rows[1..], "also halfway");
        record(&mut usage, &rows[1..], 2);
        assert_eq!((usage.sent, usage.unpriced), (17, None));
        let soon = item(NOON + 4 * HOUR + 90);
        assert_eq!(taking_over_what_waited(&now, Unit::Queries, &soon, 0).unpriced, None);
    }

    #[test]
    fn hours_without_a_price_are_no_part_of_the_comparison_with_stripe() {
        let hours = [hour(0, 5), hour(1, 7), hour(3, 2), hour(6, 4), hour(9, 8)];
        let until = at(NOON + 4 * HOUR);
        let waiting = WaitingUsage { subscription: "sub_1".into(), until, amount: 9, usage: usage() };
        let rows = rows_to_take_over(&waiting, &hours, at(NOON + 8 * HOUR));
        assert_eq!(rows.iter().map(|row| row.amount).collect::<Vec<_>>(), [7, 2, 8]);
        assert_eq!(decide::delivered(5, 22, &rows), Some(3), "all of it was sent, and not recorded");
        assert_eq!(rows_to_take_over(&waiting, &hours, until).len(), 4, "no gap");
    }

    #[test]
    fn what_waits_for_a_decision_begins_where_it_would_have_begun() {
        let waiting =
            |until| WaitingUsage { subscription: "sub_1".into(), until: at(until), amount: 0, usage: usage() };
        let (begins, closed) = (NOON + 4 * HOUR, NOON + 10 * HOUR);
        let until = |until| held(waiting(until), 17, at(begins), at(closed)).until.as_second();
        assert_eq!(until(begins), closed, "its later usage is not lost if yet another item takes over");
        assert_eq!(until(NOON + 2 * HOUR), NOON + 2 * HOUR, "the gap stays");
        let (now, later) = (held(waiting(begins), 17, at(begins), at(closed)), item(begins + 90));
        let usage = taking_over_what_waited(&now, Unit::Queries, &later, 3);
        assert_eq!((usage.through, usage.sent, usage.unpriced), (at(NOON + HOUR), 3, None));
    }
}
