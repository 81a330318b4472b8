//! Usage that was counted while a price billed it, and whose price is gone before it was sent: with another subscription
//! of the tenant, or taken off at Stripe. It waits until the subscription has a price for the unit, or a person drops it.

use super::decide::{self, hour_of, record, taking_over, unsent};
use super::look::Look;
use super::send::{Of, compare};
use super::settle::Settling;
use super::trouble::Trouble;
use crate::api::usage_prices::{KeptUsage, MeteredUsage, Unpriced, WaitingUsage};
use crate::api::{Timestamp, Unit, UsageBilling};
use crate::ledger::wire::HourUsage;
use crate::providers::biller::{Biller, Meter};
use crate::providers::stripe::{MeteredItem, UsageSubscription};

/// Where usage of an item stands that takes over what waited: the hours from the end of the wait until the price had
/// none that bills them.
fn taking_over_what_waited(waiting: &WaitingUsage, unit: Unit, item: &MeteredItem, theirs: i64) -> MeteredUsage {
    let usage = taking_over(unit, item, waiting.usage.through, theirs);
    let gap = Unpriced { from: waiting.until, until: usage.since };
    MeteredUsage { unpriced: Some(gap).filter(|gap| gap.from < gap.until), ..usage }
}

/// What was left unbilled: what waits already, what is recorded of another subscription than this one, unless a person
/// was told to invoice it, and what is recorded of units whose price was taken off this one at Stripe.
pub fn left(recorded: &UsageBilling, subscription: &str, has_item: impl Fn(Unit) -> bool) -> Vec<WaitingUsage> {
    let other = *recorded.subscription != *subscription;
    let is_left = |usage: &&MeteredUsage| if other { !recorded.invoice_by_hand } else { !has_item(usage.unit) };
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
    /// Where usage of an item of a subscription stands that was not looked at before. What was counted and not sent
    /// under the one before goes with it, once Stripe's sum says what was sent.
    pub async fn begin(
        &self,
        there: &UsageSubscription,
        waiting: &WaitingUsage,
        (item, unit, meter): (&MeteredItem, Unit, &Meter),
    ) -> Result<MeteredUsage, Trouble> {
        let (before, stripe) = (&waiting.usage, &self.context.providers.stripe);
        if !self.same_customer(there, waiting).await? {
            return Ok(decide::of_another_customer(before, unit, item));
        }
        let (closed_until, hours) = self.hours(before.through).await?;
        let until = self.until(there, item, closed_until);
        let (mut before, rows) = (before.clone(), unsent(&hours, before));
        let other = self.meters.meter(stripe, &before.meter).await?;
        let (tenant, subscription) = (self.tenant.tenant_id(), &*waiting.subscription);
        let of = Of { tenant, customer: &there.customer, subscription, meter: &other };
        let known = compare(stripe, of, &before, (&rows, until)).await?;
        record(&mut before, &rows, known);
        let theirs = stripe.reported(meter, &there.customer, hour_of(item.created), until).await?;
        let recorded = self.tenant.status.as_ref().and_then(|status| status.usage_billing.as_deref());
        let waited = recorded.is_some_and(|billing| billing.waiting.contains(waiting));
        let waiting = WaitingUsage { usage: before, ..waiting.clone() };
        // What did not wait before is taken over up to the present.
        let waiting = if waited { waiting } else { WaitingUsage { until: hour_of(item.created), ..waiting } };
        Ok(taking_over_what_waited(&waiting, unit, item, theirs))
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
            let (unit, amount) = (waiting.usage.unit, waiting.amount);
            if settling.settle(KeptUsage::Nothing, (unit, amount, 0), self.now) {
                let said = format!("A person has dropped {amount} {} that waited for a price", unit.in_plans());
                self.context.events.normal(self.tenant, "UsageSettled", said);
                continue;
            }
            all.push(waiting);
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
}
