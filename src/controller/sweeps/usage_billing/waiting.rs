//! Usage that was counted while a price billed it, and whose price is gone before it was sent: with another subscription
//! of the tenant, or taken off at Stripe. It waits until the subscription has a price for the unit, or a person drops it.

use super::decide::unsent;
use super::look::Look;
use super::settle::Settling;
use super::trouble::Trouble;
use crate::api::usage_prices::{MeteredUsage, WaitingUsage};
use crate::api::{Timestamp, Unit, UsageBilling};
use crate::ledger::wire::HourUsage;
use crate::providers::stripe::UsageSubscription;

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
    use super::super::fixtures::{HOUR, NOON, at, hour, usage};
    use super::*;

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
    }
}
