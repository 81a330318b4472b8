//! One tenant: compares the ledger with Stripe, sends what is due, and keeps the metered prices of the subscription.

use super::decide::{self, Dates, Ours, changes, may_replace, replace_at, unsent, usage_of};
use super::look::{Billed, Look};
use super::send::{Of, compare, send};
use super::settle::Settling;
use super::takeover::Begun;
use super::trouble::Trouble;
use super::waiting;
use crate::api::usage_prices::WaitingUsage;
use crate::api::{Timestamp, Unit, UsageBilling};
use crate::ledger::wire::HourUsage;
use crate::providers::biller::{Biller, Delivery};
use crate::providers::stripe::{MeteredItem, UsageSubscription};
use crate::telemetry::OutcomeLabel;

/// What a look found.
pub struct Looked {
    /// What is to be recorded, whether or not all went well.
    pub billing: UsageBilling,
    /// Whether it is worth to look again soon.
    pub soon: bool,
    /// Whether something was sent, so that Stripe's sums may lag.
    pub sent: bool,
    /// Why not all was sent.
    pub trouble: Option<Trouble>,
}

/// The units that the subscription has an item for.
struct Units<'a> {
    billed: Vec<Billed<'a>>,
    /// Those whose item cannot begin, as the numbers before it differ.
    held: Vec<WaitingUsage>,
    /// Why not.
    trouble: Option<Trouble>,
}

impl Look<'_> {
    /// Looks at a tenant with a subscription.
    pub async fn run(&self, subscription: &str) -> Result<Looked, Trouble> {
        let recorded = self.tenant.status.as_ref().and_then(|status| status.usage_billing.as_deref());
        let recorded = recorded.cloned().unwrap_or_default();
        let there = self.subscription(subscription).await?;
        let (wanted, unready) = self.wanted_meters(subscription).await;
        let plans = self.plans.iter().flat_map(|plan| &plan.spec.usage_prices).chain(self.wanted);
        // What waits was recorded once: a unit whose numbers differ as its item begins is only there.
        let known: Vec<_> = recorded.meters.iter().chain(recorded.waiting.iter().map(|w| &w.usage)).cloned().collect();
        let kept = Ours::new(&known, plans);
        let kept = kept.with_meters(&there.items, wanted.iter().map(|(price, meter)| (price.unit, &*meter.id)));
        let ours: Vec<_> = there.items.iter().filter_map(|item| Some((item, kept.unit(item)?))).collect();
        // An item that is not recorded begins with what was left of its unit, also where it was taken off and put on again.
        let goes_on = |unit| {
            ours.iter().any(|(item, of)| *of == unit && decide::recorded_of(&recorded.meters, unit, item).is_some())
        };
        let left = waiting::left(&recorded, subscription, goes_on);
        let mut settling = Settling { choice: self.choice(), recorded: &recorded, differences: vec![], decision: None };
        let Units { mut billed, held, mut trouble } = self.units(&there, &ours, &left, &mut settling).await?;
        let has_item = |waiting: &WaitingUsage| ours.iter().any(|(_, unit)| *unit == waiting.usage.unit);
        let open: Vec<_> = left.into_iter().filter(|waiting| !has_item(waiting)).collect();
        let throughs = billed.iter().map(|one| &one.usage).chain(open.iter().map(|waiting| &waiting.usage));
        let from = throughs.map(|usage| usage.through).min().unwrap_or_else(|| self.now.hour());
        let (closed_until, hours) = self.hours(from).await?;
        let mut waiting = self.wait(&there, open, (&hours, closed_until), &mut settling).await?;
        waiting.extend(held);
        let (mut sent, mut over) = (false, false);
        for one in &mut billed {
            if let Err(error) = self.bring_up(&there, one, (&hours, closed_until), &mut settling).await {
                over |= matches!(error, Trouble::Over { .. });
                trouble = Some(Trouble::both(trouble, error));
            }
            sent |= one.sent;
        }
        // What has begun or was decided is sent next, whatever became of the other units.
        let mut soon = sent || settling.decision.is_some() || billed.iter().any(|one| one.begun);
        let same = *recorded.subscription == *subscription;
        let mut billing = UsageBilling {
            subscription: subscription.into(),
            meters: billed.into_iter().map(|one| one.usage).collect(),
            replace_at: recorded.replace_at.filter(|_| same),
            invoice_by_hand: false,
            waiting,
            differences: settling.differences,
            decision: settling.decision.or_else(|| recorded.decision.clone()),
        };
        if there.ended_at.is_none() {
            trouble = trouble.or(unready);
        }
        if trouble.is_none() {
            let ours: Vec<_> = ours.iter().map(|(item, _)| *item).collect();
            match self.follow_plan(&there, &ours, &mut billing, closed_until, sent).await {
                Ok(due) => soon = due,
                Err(error) => trouble = Some(error),
            }
        }
        // Last, because a price that is put on the subscription ends it.
        let trouble = trouble.or_else(|| waiting::shown(&billing));
        // What a person was told to invoice stays theirs until nothing is wrong any more: this look may not have come to it.
        billing.invoice_by_hand = over || (same && recorded.invoice_by_hand && trouble.is_some());
        Ok(Looked { billing, soon, sent, trouble })
    }

    async fn units<'a>(
        &self,
        there: &UsageSubscription,
        ours: &[(&'a MeteredItem, Unit)],
        left: &[WaitingUsage],
        settling: &mut Settling<'_>,
    ) -> Result<Units<'a>, Trouble> {
        if let Some(meter) = decide::twice(ours.iter().map(|(item, _)| &*item.meter)) {
            return Err(Trouble::Shared { subscription: there.id.clone(), meter: meter.to_owned() });
        }
        // Also with two meters: each of them would be sent all usage of the unit.
        if let Some(unit) = decide::twice(ours.iter().map(|(_, unit)| *unit)) {
            return Err(Trouble::PricedTwice { subscription: there.id.clone(), unit });
        }
        let (stripe, recorded) = (&self.context.providers.stripe, settling.recorded);
        let mut units = Units { billed: Vec::new(), held: Vec::new(), trouble: None };
        for (item, unit) in ours.iter().copied() {
            let meter = match self.wanted.iter().find(|price| price.stripe_price_id == *item.price) {
                Some(price) => self.meters.of_price(stripe, price).await?,
                None => self.meters.meter(stripe, &item.meter).await?,
            };
            let known = if *recorded.subscription == *there.id { &*recorded.meters } else { &[] };
            let one = Billed { item, meter, usage: usage_of(known, unit, item), begun: false, sent: false };
            let Some(waiting) = left.iter().find(|waiting| waiting.usage.unit == unit) else {
                units.billed.push(one);
                continue;
            };
            match self.begin(there, waiting, one, settling).await? {
                Begun::Item(one) => units.billed.push(one),
                Begun::Held(waiting, differs) => {
                    units.held.push(waiting);
                    units.trouble = Some(Trouble::both(units.trouble, differs));
                }
            }
        }
        Ok(units)
    }

    /// Compares one unit with Stripe, and sends what Stripe lacks.
    async fn bring_up(
        &self,
        there: &UsageSubscription,
        one: &mut Billed<'_>,
        (hours, closed_until): (&[HourUsage], Timestamp),
        settling: &mut Settling<'_>,
    ) -> Result<(), Trouble> {
        // What begins is recorded before anything of it is sent: a look whose status is not written begins it again, and
        // the meter before this one does not tell what was sent to this one. The next look sends.
        if one.begun {
            return Err(Trouble::Settling);
        }
        let (stripe, meter) = (&self.context.providers.stripe, one.meter.clone());
        let tenant = self.tenant.tenant_id();
        let of = Of { tenant, customer: &there.customer, subscription: &there.id, meter: &meter };
        let rows = unsent(hours, &one.usage);
        let (created, period_start) = (one.item.created, there.period_start);
        let until = self.until(there, one.item, closed_until);
        let compared = compare(stripe, of, &one.usage, (&rows, until)).await;
        if let Err(Trouble::Differs { theirs, .. }) = compared
            && self.settle(there, one, (&rows, theirs), settling).await?
        {
            return Err(Trouble::Settling);
        }
        let known = compared?;
        let dates = Dates { now: self.now, created, period_start, drafts: Vec::new(), ended_at: there.ended_at };
        let dates = self.with_drafts(there, &rows[known..], dates).await?;
        if known < rows.len() {
            stripe.note_meter(&there.id, &there.notes, (one.usage.unit, &meter.id)).await?;
        }
        let metrics = &self.context.metrics;
        let tell = |delivery: Delivery| {
            let outcome = delivery.into();
            metrics.usage_events.get_or_create_owned(&OutcomeLabel { outcome }).inc();
        };
        let (sent, outcome) = send(stripe, of, &mut one.usage, (&rows, known), &dates, tell).await;
        one.sent = sent;
        outcome
    }

    /// Gives the subscription the metered prices of the plan in force, once a full hour is over and Stripe shows all
    /// that was sent. Says whether it is worth to look again soon.
    async fn follow_plan(
        &self,
        there: &UsageSubscription,
        ours: &[&MeteredItem],
        billing: &mut UsageBilling,
        closed_until: Timestamp,
        sent: bool,
    ) -> Result<bool, Trouble> {
        let (gone, new) = changes(self.wanted, ours);
        if (gone.is_empty() && new.is_empty()) || there.ended_at.is_some() {
            billing.replace_at = None;
            return Ok(sent);
        }
        let at = replace_at(billing.replace_at, closed_until);
        billing.replace_at = Some(at);
        if sent || there.pending || !may_replace(at, closed_until, self.now) {
            return Ok(at <= closed_until);
        }
        let stripe = &self.context.providers.stripe;
        stripe.make_flexible(there).await?;
        // Calls to Stripe may have taken long. The next hour is as good.
        if !may_replace(at, closed_until, self.context.clock.read().now) {
            return Ok(true);
        }
        let prices: Vec<_> = new.iter().map(|price| &*price.stripe_price_id).collect();
        let after = stripe.replace_metered(there, &gone, &prices).await?;
        billing.replace_at = None;
        let mut meters: Vec<_> = billing
            .meters
            .iter()
            .filter(|usage| !gone.iter().any(|item| *item.price == *usage.price))
            .cloned()
            .collect();
        for item in &after.items {
            let Some(price) = new.iter().find(|price| price.stripe_price_id == *item.price) else { continue };
            // The next look begins with what waited for this price.
            if billing.waiting.iter().any(|waiting| waiting.usage.unit == price.unit) {
                continue;
            }
            // By Stripe's clock, an hour that was sent is not over: its meter may have what the price before was sent.
            let theirs = if item.created.hour() < closed_until {
                let meter = self.meters.of_price(stripe, price).await?;
                let until = self.until(there, item, closed_until);
                stripe.reported(&meter.id, &there.customer, item.created.hour(), until).await?
            } else {
                0
            };
            meters.push(decide::taking_over(price.unit, item, closed_until, theirs));
        }
        billing.meters = meters;
        tracing::info!(
            tenant = self.tenant.tenant_id(),
            subscription = there.id,
            gone = gone.len(),
            new = new.len(),
            "the usage prices of the subscription follow the plan"
        );
        Ok(true)
    }
}
