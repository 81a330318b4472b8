//! One tenant: reads the ledger and Stripe, sends what is due, and keeps the metered prices of the subscription.

use std::collections::HashMap;
use std::sync::Arc;

use super::decide::{self, Dates, Row, changes, hour_of, may_replace, replace_at, unsent, usage_of};
use super::meters::Meters;
use super::send::{Of, compare, send};
use super::trouble::Trouble;
use crate::api::usage_prices::MeteredUsage;
use crate::api::{Plan, Tenant, Timestamp, Unit, UsageBilling, UsagePrice};
use crate::controller::context::Context;
use crate::ledger::wire::HourUsage;
use crate::providers::biller::{Delivery, Meter};
use crate::providers::stripe::{MeteredItem, UsageSubscription};
use crate::telemetry::OutcomeLabel;

/// Hours of one answer of the ledger.
const PAGE: u32 = 500;

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

/// What a look works with.
pub struct Look<'a> {
    pub context: &'a Context,
    pub meters: &'a Meters,
    pub tenant: &'a Tenant,
    /// The prices of the plan in force.
    pub wanted: &'a [UsagePrice],
    pub plans: &'a [Arc<Plan>],
    pub now: Timestamp,
}

/// A metered item of ours, with what is known of it.
struct Billed<'a> {
    item: &'a MeteredItem,
    meter: Meter,
    usage: MeteredUsage,
    /// Whether something was sent in this look, also where it failed later.
    sent: bool,
}

impl Look<'_> {
    /// Looks at a tenant with a subscription.
    pub async fn run(&self, subscription: &str) -> Result<Looked, Trouble> {
        let recorded = self.tenant.status.as_ref().and_then(|status| status.usage_billing.as_deref());
        let recorded = recorded.filter(|there| there.subscription == subscription).cloned().unwrap_or_default();
        let there = self.subscription(subscription).await?;
        let units = self.units(&recorded);
        let ours: Vec<_> = there.items.iter().filter(|item| units.contains_key(item.price.as_str())).collect();
        let mut billed = self.billed(&there, &ours, &units, &recorded).await?;
        let from = billed.iter().map(|one| one.usage.through).min().unwrap_or_else(|| hour_of(self.now));
        let (closed_until, hours) = self.hours(from).await?;
        let (mut sent, mut trouble) = (false, None);
        for one in &mut billed {
            if let Err(error) = self.bring_up(&there, one, &hours, closed_until).await {
                trouble = Some(Trouble::both(trouble, error));
            }
            sent |= one.sent;
        }
        let usages = billed.into_iter().map(|one| one.usage).collect();
        let mut billing =
            UsageBilling { subscription: subscription.into(), meters: usages, replace_at: recorded.replace_at };
        let mut soon = sent;
        if trouble.is_none() {
            match self.follow_plan(&there, &ours, &mut billing, closed_until, sent).await {
                Ok(due) => soon = due,
                Err(error) => trouble = Some(error),
            }
        }
        Ok(Looked { billing, soon, sent, trouble })
    }

    /// The subscription, if it is this tenant's.
    async fn subscription(&self, id: &str) -> Result<UsageSubscription, Trouble> {
        let there = match self.context.providers.stripe.usage_subscription(id).await {
            Err(error) if error.is_not_found() => return Err(Trouble::Unknown(id.to_owned())),
            there => there?,
        };
        let refs = self.tenant.spec.billing.stripe.as_ref();
        let customer = refs.and_then(|refs| refs.customer_id.as_deref());
        let same = there.tenant_id.as_deref() == Some(self.tenant.tenant_id());
        if !same || customer.is_some_and(|customer| customer != there.customer) {
            return Err(Trouble::Foreign(id.to_owned()));
        }
        Ok(there)
    }

    /// The units of the prices that are ours: those of any Plan, first of the one in force, and those that were
    /// recorded.
    fn units(&self, recorded: &UsageBilling) -> HashMap<String, Unit> {
        let known = recorded.meters.iter().map(|usage| (usage.price.to_string(), usage.unit));
        let of_plans = self.plans.iter().flat_map(|plan| &plan.spec.usage_prices);
        let priced = of_plans.chain(self.wanted).map(|price| (price.stripe_price_id.to_string(), price.unit));
        // The later ones replace the earlier ones.
        known.chain(priced).collect()
    }

    async fn billed<'a>(
        &self,
        there: &UsageSubscription,
        ours: &[&'a MeteredItem],
        units: &HashMap<String, Unit>,
        recorded: &UsageBilling,
    ) -> Result<Vec<Billed<'a>>, Trouble> {
        let stripe = &self.context.providers.stripe;
        let mut billed: Vec<Billed<'a>> = Vec::new();
        for item in ours.iter().copied() {
            let Some(unit) = units.get(&item.price) else { continue };
            if billed.iter().any(|one| one.item.meter == item.meter) {
                return Err(Trouble::Shared { subscription: there.id.clone(), meter: item.meter.clone() });
            }
            let meter = match self.wanted.iter().find(|price| price.stripe_price_id == *item.price) {
                Some(price) => self.meters.of_price(stripe, price).await?,
                None => self.meters.meter(stripe, &item.meter).await?,
            };
            billed.push(Billed { item, meter, usage: usage_of(&recorded.meters, *unit, item), sent: false });
        }
        Ok(billed)
    }

    /// Closed hours from a moment on, and up to when hours are closed.
    async fn hours(&self, mut from: Timestamp) -> Result<(Timestamp, Vec<HourUsage>), Trouble> {
        let mut all = Vec::new();
        loop {
            let page = self.context.ledger.hours(self.tenant.tenant_id(), from, PAGE).await?;
            all.extend(page.hours);
            if page.listed_until >= page.closed_until || page.listed_until <= from {
                return Ok((page.closed_until, all));
            }
            from = page.listed_until;
        }
    }

    /// Compares one unit with Stripe, and sends what Stripe lacks.
    async fn bring_up(
        &self,
        there: &UsageSubscription,
        one: &mut Billed<'_>,
        hours: &[HourUsage],
        closed_until: Timestamp,
    ) -> Result<(), Trouble> {
        let stripe = &self.context.providers.stripe;
        let of = Of {
            tenant: self.tenant.tenant_id(),
            customer: &there.customer,
            subscription: &there.id,
            meter: &one.meter,
        };
        let rows = unsent(hours, &one.usage);
        let (created, period_start) = (one.item.created, there.period_start);
        // After everything that was sent.
        let until = [closed_until, self.now, created, period_start].into_iter().max().unwrap_or(self.now);
        let until = Timestamp::from_second((until.as_second() / 60 + 1) * 60);
        let known = compare(stripe, of, &one.usage, (&rows, until)).await?;
        let dates = Dates { now: self.now, created, period_start, drafts: Vec::new(), ended_at: there.ended_at };
        let dates = self.with_drafts(there, &rows[known..], dates).await?;
        let metrics = &self.context.metrics;
        let tell = |delivery| {
            let outcome = match delivery {
                Delivery::New => "new",
                Delivery::Before => "before",
            };
            metrics.usage_events.get_or_create_owned(&OutcomeLabel { outcome }).inc();
        };
        let (sent, outcome) = send(stripe, of, &mut one.usage, (&rows, known), &dates, tell).await;
        one.sent = sent;
        outcome
    }

    /// Reads which invoices are drafts, if the time of a row depends on them.
    async fn with_drafts(&self, there: &UsageSubscription, rows: &[Row], dates: Dates) -> Result<Dates, Trouble> {
        if !rows.iter().any(|row| dates.depends(row)) {
            return Ok(dates);
        }
        let drafts = self.context.providers.stripe.open_drafts(&there.id, self.now).await?;
        Ok(Dates { drafts, ..dates })
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
        let stripe = &self.context.providers.stripe;
        for price in &new {
            self.meters.of_price(stripe, price).await?;
        }
        let at = replace_at(billing.replace_at, closed_until);
        billing.replace_at = Some(at);
        if sent || there.pending || !may_replace(at, closed_until, self.now) {
            return Ok(at <= closed_until);
        }
        let prices: Vec<_> = new.iter().map(|price| &*price.stripe_price_id).collect();
        let after = stripe.replace_metered(there, &gone, &prices).await?;
        billing.replace_at = None;
        let kept: Vec<_> = billing
            .meters
            .iter()
            .filter(|usage| !gone.iter().any(|item| *item.price == *usage.price))
            .cloned()
            .collect();
        let begun = after.items.iter().filter_map(|item| {
            let price = new.iter().find(|price| price.stripe_price_id == *item.price)?;
            Some(decide::usage_of(&[], price.unit, item))
        });
        billing.meters = kept.into_iter().chain(begun).collect();
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
