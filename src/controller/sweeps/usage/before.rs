//! Tells a ledger that lost its data what tenants had used in their period, as the statuses show it. It counts that
//! under one name for each tenant and period, and only what is more than it has, so that a retry, a crash or another
//! controller counts nothing twice.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::{StreamExt, stream};
use kube::ResourceExt;
use strum::IntoEnumIterator;

use super::Told;
use crate::api::{Tenant, Timestamp, Unit};
use crate::controller::Key;
use crate::controller::context::Context;
use crate::ledger::account::Period;
use crate::ledger::beginning::{Beginning, used_before};
use crate::ledger::client::CallError;
use crate::ledger::units::Amounts;
use crate::ledger::wire::{Dated, TenantUsage};

/// Tenants whose usage the controller reports at the same time.
const AT_ONCE: usize = 16;

/// Whether the status of a tenant shows what an earlier ledger counted.
pub fn is_to_be_told(tenant: &Tenant, beginning: &Beginning) -> bool {
    let Some(status) = &tenant.status else { return false };
    let of_this = status.usage_source.as_ref().is_some_and(|source| *source.ledger == *beginning.id);
    // What was observed later, it told itself: a version before this one does not note which ledger told it. In the same
    // second, it had nothing to tell yet.
    !of_this && status.usage.is_some_and(|usage| usage.observed_at <= beginning.began.at)
}

/// Reports to the ledger what tenants had used before it began, as far as it does not have that yet.
pub async fn tell(context: &Context, told: &mut Told) -> Result<(), CallError> {
    let Some(beginning) = told.beginning.clone() else { return Ok(()) };
    let open = |tenant: &Arc<Tenant>| {
        is_to_be_told(tenant, &beginning)
            && !told.known.contains(tenant.tenant_id())
            && context.claims.is_holder(tenant)
    };
    // Their keys: unpacked, ten thousand would take much memory.
    let tenants: Vec<_> = context.caches.each_tenant().filter(open).map(|tenant| Key::of(&tenant)).collect();
    if tenants.is_empty() {
        return Ok(());
    }
    context.metrics.ledger_lost.set(beginning.began.at.as_second());
    tracing::warn!(
        tenants = tenants.len(),
        began = %beginning.began.at,
        snapshot = beginning.began.snapshot.map(|taken| taken.to_string()),
        "the ledger lost its data: the controller reports what the statuses show; what was used after that is not known"
    );
    let lost = &told.lost;
    let tenants = tenants.into_iter().filter_map(|key| context.caches.tenant(&key));
    let calls = tenants.map(|tenant| tell_of(context, &beginning, lost, tenant));
    let mut told_of = stream::iter(calls).buffer_unordered(AT_ONCE);
    let mut failed = None;
    while let Some(one) = told_of.next().await {
        match one {
            Ok(id) => drop(told.known.insert(id)),
            Err(error) => failed = Some(error),
        }
    }
    failed.map_or(Ok(()), Err)
}

async fn tell_of(
    context: &Context,
    beginning: &Beginning,
    lost: &BTreeMap<String, TenantUsage>,
    tenant: Arc<Tenant>,
) -> Result<String, CallError> {
    let id = tenant.tenant_id().to_owned();
    let shown = tenant.status.as_ref().and_then(|status| status.usage).map(|usage| {
        let period = Period { start: usage.period_start, end: usage.period_end };
        (period, Unit::iter().fold(Amounts::ZERO, |all, unit| all.with(unit, usage.of(unit).used.max(0))))
    });
    let unshown = lost.get(&id).map(|usage| (usage.period, usage.used));
    for (period, used) in shown.into_iter().chain(unshown) {
        match count(context, beginning, &id, period, used.only(false)).await {
            Ok(()) => {}
            Err(error @ CallError::Unavailable(_)) => return Err(error),
            Err(error) => tracing::warn!(%error, tenant = tenant.name_any(), "what the status shows is not counted"),
        }
    }
    Ok(id)
}

async fn count(
    context: &Context,
    beginning: &Beginning,
    id: &str,
    period: Period,
    amounts: Amounts,
) -> Result<(), CallError> {
    let unusable = |detail: String| CallError::Refused { code: "malformed".into(), detail };
    let body = Dated {
        tenant: id.to_owned().try_into().map_err(unusable)?,
        period: period.try_into().map_err(unusable)?,
        amounts,
        at: None::<Timestamp>,
    };
    context.ledger.recount(&used_before(&beginning.id, id, period.start), &body).await.map(drop)
}
