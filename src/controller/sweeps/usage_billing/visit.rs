//! Looks at one tenant, and writes down what was found.

use kube::ResourceExt;
use kube::api::ListParams;

use super::look::Look;
use super::meters::Meters;
use super::queue::{Known, Seen};
use super::trouble::Trouble;
use super::{is_billed, shown};
use crate::api::{Tenant, Timestamp, UsageBilling};
use crate::controller::context::Context;

/// Seconds for which a trouble that goes by itself is not shown.
const PATIENCE: i64 = 15 * 60;

/// Looks at a tenant, and writes down what was found. For `lag` seconds, Stripe's sums may lack what was sent.
pub async fn visit(context: &Context, meters: &Meters, tenant: &Tenant, before: Known, lag: i64) -> Known {
    let now = context.clock.read().now;
    let mut known = Known { looked_at: now, seen: Seen::of(context, tenant), soon: false, ..before };
    let found = look(context, meters, tenant, (now, lag), &mut known).await;
    let trouble = match found {
        Ok(trouble) => trouble,
        Err(error) => Some(error),
    };
    let Some(trouble) = trouble else {
        (known.passing_since, known.trouble) = (None, None);
        return known;
    };
    known.soon |= trouble.passes();
    // What goes by itself gets its patience whole, also after a trouble that a person has ended.
    known.passing_since = trouble.passes().then(|| known.passing_since.unwrap_or(now));
    if trouble.passes() && !lasts(&known, now) {
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

/// Whether troubles that go by themselves have lasted too long for that.
fn lasts(known: &Known, now: Timestamp) -> bool {
    known.passing_since.is_some_and(|since| now.since(since) >= PATIENCE)
}

/// What keeps the usage of a tenant from being sent, if anything does.
async fn look(
    context: &Context,
    meters: &Meters,
    seen: &Tenant,
    (now, lag): (Timestamp, i64),
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
    let lags = |known: &Known| known.sent_at.is_some_and(|at| now.since(at) < lag);
    let look = Look { context, meters, tenant: &live, wanted, plans: &plans, now, lags: lags(known) };
    let looked = look.run(subscription).await;
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
    let settling = lags(known);
    let trouble = trouble.map(|trouble| match trouble {
        Trouble::Differs { .. } if settling => Trouble::Settling,
        trouble => trouble,
    });
    let trouble = match trouble {
        Some(trouble) => Some(with_the_third_number(context, &live, billing.as_ref(), trouble).await),
        None => None,
    };
    // Numbers that may lag are not shown, and are nothing to decide by.
    let hidden = matches!(trouble, Some(Trouble::Settling));
    let billing = billing.map(|mut billing| {
        let before = live.status.as_ref().and_then(|status| status.usage_billing.as_ref()).filter(|_| hidden);
        if let Some(before) = before {
            billing.differences.clone_from(&before.differences);
        }
        billing
    });
    let told = trouble.as_ref().filter(|trouble| !trouble.passes() || lasts(known, now));
    let quiet = trouble.is_some() && told.is_none();
    if let Some(status) = shown::status(&live, billing, told, quiet, now) {
        context.kubernetes.replace_status(&live, "usage_billing", status).await?;
    }
    Ok(trouble)
}

/// A difference with what the events store has, and whose it is: a person compares three numbers.
async fn with_the_third_number(
    context: &Context,
    tenant: &Tenant,
    billing: Option<&UsageBilling>,
    trouble: Trouble,
) -> Trouble {
    let Trouble::Differs { unit, meters, since, sent, unsent, theirs, .. } = trouble else { return trouble };
    let usage = billing.into_iter().flat_map(|billing| &billing.meters).find(|usage| usage.unit == unit);
    // After a takeover, what was sent includes hours from before `since`, which other meters have as well.
    let hours = match usage.filter(|usage| usage.since == since && usage.through > since) {
        Some(usage) => context.ledger.all_events_hours(tenant.tenant_id(), since, usage.through).await.ok().flatten(),
        None => None,
    };
    let events = hours.map(|hours| hours.iter().map(|row| row.counted[unit]).sum());
    let tenant = Some((tenant.namespace().unwrap_or_default(), tenant.name_any()));
    Trouble::Differs { unit, meters, since, sent, unsent, theirs, events, tenant }
}
