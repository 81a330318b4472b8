//! Sends what tenants used to Stripe's meters: one event for each tenant, meter, closed hour and period, once. What the
//! ledger counted in an hour is closed when the hour is over, so an event never has to be corrected.
//!
//! How far it is stands in the Tenant's status, and Stripe's own sums are compared with it before anything is sent,
//! every hour. A status that is lost or older bills nothing twice: see [`decide`]. If the numbers do not agree, nothing
//! is sent, and a condition, a metric and an alert show them.
//!
//! What a plan includes is the first tier of its price at Stripe, and not taken off here: so Stripe's sums are the
//! ledger's to the unit, and it begins anew with Stripe's own periods, whatever the periods of the quota are.

mod decide;
mod look;
mod meters;
mod send;
mod shown;
mod trouble;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use kube::ResourceExt;
use kube::api::ListParams;

use crate::api::tenant::BillingMode;
use crate::api::{Phase, Tenant, Timestamp};
use crate::controller::Key;
use crate::controller::context::Context;
use crate::providers::{Party, Priority};

use decide::hour_of;
use look::Look;
use meters::Meters;
use trouble::Trouble;

/// Tenants whose usage is sent at the same time. Each is another customer.
const AT_ONCE: usize = 4;
/// Seconds for which Stripe's sums may lack what was sent.
const LAG: i64 = 15 * 60;
/// Seconds for which a trouble that goes by itself is not shown.
const PATIENCE: i64 = 15 * 60;
/// Seconds after which it is looked again whether a person has ended a trouble.
const RETRY: i64 = 10 * 60;
/// Passes after which all tenants are looked through, although no Plan has usage prices: one may have had them.
const ALL: u32 = 60;

/// What is remembered of a tenant between two looks.
#[derive(Clone, Debug)]
struct Known {
    looked_at: Timestamp,
    /// The plan in force, and its generation.
    plan: (String, Option<i64>),
    soon: bool,
    sent_at: Option<Timestamp>,
    failing_since: Option<Timestamp>,
    /// The reason of a trouble that is shown.
    trouble: Option<&'static str>,
}

impl Known {
    /// Of a tenant that this process has not looked at yet. The one before may have sent something just now.
    fn new(started: Timestamp) -> Self {
        Self {
            looked_at: started,
            plan: (String::new(), None),
            soon: true,
            sent_at: Some(started),
            failing_since: None,
            trouble: None,
        }
    }

    fn is_due(&self, plan: &(String, Option<i64>), now: Timestamp, again: i64) -> bool {
        let again = if self.trouble.is_some() { again.min(RETRY) } else { again };
        let another_hour = hour_of(self.looked_at) != hour_of(now);
        another_hour || self.soon || self.plan != *plan || now.since(self.looked_at) >= again
    }
}

/// Sends until the lease is lost: looks at each tenant once an hour, and again after `again`.
pub async fn send(context: Arc<Context>, every: Duration, again: Duration) {
    if !context.caches.filled().await {
        return;
    }
    let (meters, started) = (Meters::default(), context.clock.read().now);
    let again = i64::try_from(again.as_secs()).unwrap_or(i64::MAX);
    let (mut known, mut reasons): (HashMap<String, Known>, _) = (HashMap::new(), BTreeMap::new());
    for pass in 0_u32.. {
        let all = pass.is_multiple_of(ALL) || !known.is_empty();
        let tenants: HashMap<_, _> =
            billed(&context, all).into_iter().map(|tenant| (tenant.uid().unwrap_or_default(), tenant)).collect();
        known.retain(|uid, _| tenants.contains_key(uid));
        let now = context.clock.read().now;
        let due = tenants.iter().filter(|(uid, tenant)| {
            known.get(*uid).is_none_or(|known| known.is_due(&plan_of(&context, tenant), now, again))
        });
        let due: Vec<_> = due.map(|(uid, tenant)| (uid.clone(), tenant.clone())).collect();
        let looks = due.into_iter().map(|(uid, tenant)| {
            let before = known.get(&uid).cloned().unwrap_or_else(|| Known::new(started));
            let (context, meters) = (&context, &meters);
            async move {
                let id = tenant.tenant_id().to_owned();
                // On the heap: the future of a look is large.
                let look = Box::pin(Priority::Resync.scope(visit(context, meters, &tenant, before)));
                (uid, Party::scope(&id, look).await)
            }
        });
        let looked: Vec<_> = stream::iter(looks).buffer_unordered(AT_ONCE).collect().await;
        known.extend(looked);
        measure(&context, &known, &mut reasons);
        tokio::time::sleep(every).await;
    }
}

/// The tenants that have something to do with usage prices. Without `all`, none where no Plan has any.
fn billed(context: &Context, all: bool) -> Vec<Arc<Tenant>> {
    let priced: Vec<_> =
        context.caches.all_plans().into_iter().filter(|plan| !plan.spec.usage_prices.is_empty()).collect();
    if priced.is_empty() && !all {
        return Vec::new();
    }
    let has = |tenant: &Tenant| {
        let recorded = tenant.status.as_ref().is_some_and(|status| status.usage_billing.is_some());
        recorded || priced.iter().any(|plan| plan.name_any() == tenant.plan_in_force())
    };
    context.caches.each_tenant().filter(|tenant| has(tenant) && is_billed(context, tenant)).collect()
}

/// Whether usage of a tenant may be billed: it is or was served, and is not erased.
fn is_billed(context: &Context, tenant: &Tenant) -> bool {
    let Some(status) = &tenant.status else { return false };
    let served = matches!(
        status.phase,
        Some(Phase::Active | Phase::Upgrading | Phase::Downgrading | Phase::Suspended | Phase::Deleting)
    );
    served
        && tenant.spec.billing.mode == BillingMode::Stripe
        && tenant.metadata.deletion_timestamp.is_none()
        && status.erasure.is_none()
        && context.claims.holder(tenant.tenant_id()).as_ref() == Some(&Key::of(tenant))
}

fn plan_of(context: &Context, tenant: &Tenant) -> (String, Option<i64>) {
    let name = tenant.plan_in_force().to_owned();
    let generation = context.caches.plan(&name).and_then(|plan| plan.metadata.generation);
    (name, generation)
}

/// Looks at a tenant, and writes down what was found.
async fn visit(context: &Context, meters: &Meters, tenant: &Tenant, before: Known) -> Known {
    let now = context.clock.read().now;
    let plan = plan_of(context, tenant);
    let mut known = Known { looked_at: now, plan, soon: false, ..before };
    let found = look(context, meters, tenant, now, &mut known).await;
    let trouble = match found {
        Ok(trouble) => trouble,
        Err(error) => Some(error),
    };
    let Some(trouble) = trouble else {
        (known.failing_since, known.trouble) = (None, None);
        return known;
    };
    known.soon = trouble.passes();
    let since = *known.failing_since.get_or_insert(now);
    if trouble.passes() && now.since(since) < PATIENCE {
        tracing::debug!(tenant = %tenant.name_any(), error = %trouble, "usage is not sent yet");
        return known;
    }
    if known.trouble != Some(trouble.reason()) {
        tracing::warn!(tenant = %tenant.name_any(), reason = trouble.reason(), error = %trouble, "usage is not sent");
        context.events.warn(tenant, "UsageNotBilled", trouble.to_string());
    }
    known.trouble = Some(trouble.reason());
    known
}

/// What keeps the usage of a tenant from being sent, if anything does.
async fn look(
    context: &Context,
    meters: &Meters,
    seen: &Tenant,
    now: Timestamp,
    known: &mut Known,
) -> Result<Option<Trouble>, Trouble> {
    // Nothing is sent by what a cache says. The controller may list Tenants and not get one.
    let only = ListParams::default().fields(&format!("metadata.name={}", seen.name_any()));
    let Some(live) = context.kubernetes.tenants(seen).list(&only).await?.items.into_iter().next() else {
        return Ok(None);
    };
    let subscription = live.spec.billing.stripe.as_ref().and_then(|refs| refs.subscription_id.as_deref());
    let (Some(subscription), true) = (subscription, live.uid() == seen.uid() && is_billed(context, &live)) else {
        return Ok(None);
    };
    let plans = context.caches.all_plans();
    let Some(plan) = plans.iter().find(|plan| plan.name_any() == live.plan_in_force()) else { return Ok(None) };
    let wanted = &plan.spec.usage_prices;
    let looked = Look { context, meters, tenant: &live, wanted, plans: &plans, now }.run(subscription).await;
    let (billing, trouble) = match looked {
        Ok(looked) => {
            known.soon = looked.soon;
            if looked.sent {
                known.sent_at = Some(now);
            }
            (Some(looked.billing), looked.trouble)
        }
        Err(trouble) => (None, Some(trouble)),
    };
    let settling = known.sent_at.is_some_and(|at| now.since(at) < LAG);
    let trouble = trouble.map(|trouble| match trouble {
        Trouble::Differs { .. } if settling => Trouble::Settling,
        trouble => trouble,
    });
    let lasting = known.failing_since.is_some_and(|since| now.since(since) >= PATIENCE);
    let told = trouble.as_ref().filter(|trouble| !trouble.passes() || lasting);
    let quiet = trouble.is_some() && told.is_none();
    if let Some(status) = shown::status(&live, billing, told, quiet, now) {
        context.kubernetes.replace_status(&live, "usage_billing", status).await?;
    }
    Ok(trouble)
}

/// Sets the metric of tenants whose usage is not sent.
fn measure(context: &Context, known: &HashMap<String, Known>, reasons: &mut BTreeMap<&'static str, i64>) {
    // A reason that was shown once goes back to 0.
    for tenants in reasons.values_mut() {
        *tenants = 0;
    }
    for reason in known.values().filter_map(|known| known.trouble) {
        *reasons.entry(reason).or_default() += 1;
    }
    for (reason, tenants) in reasons {
        context.metrics.usage_not_billed.get_or_create_owned(&(*reason).into()).set(*tenants);
    }
}
