//! One tenant: what is read of the ledger and of Stripe.

use std::sync::Arc;

use super::decide::{self, Dates, Row};
use super::meters::Meters;
use super::trouble::Trouble;
use crate::api::usage_prices::MeteredUsage;
use crate::api::{Plan, Tenant, Timestamp, UsagePrice};
use crate::controller::context::Context;
use crate::ledger::wire::HourUsage;
use crate::providers::biller::Meter;
use crate::providers::stripe::{MeteredItem, UsageSubscription};

/// What a look works with.
pub struct Look<'a> {
    pub context: &'a Context,
    pub meters: &'a Meters,
    pub tenant: &'a Tenant,
    /// The prices of the plan in force.
    pub wanted: &'a [UsagePrice],
    pub plans: &'a [Arc<Plan>],
    pub now: Timestamp,
    /// Whether Stripe's sums may lack what was sent, also by a controller that was killed since.
    pub lags: bool,
}

/// A metered item of ours, with what is known of it.
pub struct Billed<'a> {
    pub item: &'a MeteredItem,
    pub meter: Meter,
    pub usage: MeteredUsage,
    /// Whether it takes over in this look what was left of its unit.
    pub begun: bool,
    /// Whether something was sent in this look, also where it failed later.
    pub sent: bool,
}

impl Look<'_> {
    /// The subscription, if it is this tenant's.
    pub async fn subscription(&self, id: &str) -> Result<UsageSubscription, Trouble> {
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

    /// The meters of the prices of the plan in force, and why a price cannot be put on the subscription.
    pub async fn wanted_meters(&self, subscription: &str) -> (Vec<(&UsagePrice, Meter)>, Option<Trouble>) {
        let (mut meters, mut unready) = (Vec::new(), None);
        for price in self.wanted {
            match self.meters.of_price(&self.context.providers.stripe, price).await {
                Ok(meter) => meters.push((price, meter)),
                Err(error) => unready = unready.or(Some(error.into())),
            }
        }
        if let Some(meter) = decide::twice(meters.iter().map(|(_, meter)| &*meter.id)) {
            let (subscription, meter) = (subscription.to_owned(), meter.to_owned());
            unready = unready.or(Some(Trouble::Shared { subscription, meter }));
        }
        (meters, unready)
    }

    /// A full minute after everything that was sent.
    pub fn until(&self, there: &UsageSubscription, item: &MeteredItem, closed_until: Timestamp) -> Timestamp {
        let latest = self.now.max(closed_until).max(item.created).max(there.period_start);
        Timestamp::from_second((latest.as_second() / 60 + 1) * 60)
    }

    /// Closed hours from a moment on, and up to when hours are closed.
    pub async fn hours(&self, from: Timestamp) -> Result<(Timestamp, Vec<HourUsage>), Trouble> {
        Ok(self.context.ledger.all_hours(self.tenant.tenant_id(), from).await?)
    }

    /// Reads which invoices are drafts, if the time of a row depends on them.
    pub async fn with_drafts(&self, there: &UsageSubscription, rows: &[Row], dates: Dates) -> Result<Dates, Trouble> {
        if !rows.iter().any(|row| dates.depends(row)) {
            return Ok(dates);
        }
        let drafts = self.context.providers.stripe.open_drafts(&there.id, self.now).await?;
        Ok(Dates { drafts, ..dates })
    }
}
