//! Tells a ledger that lost its data what tenants had used in their period, as the statuses show it. It counts that
//! under one name for each tenant and period, and only what is more than it has, so that a retry, a crash or another
//! controller counts nothing twice.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use futures::{StreamExt, stream};
use kube::ResourceExt;
use strum::IntoEnumIterator;

use super::Told;
use crate::api::usage::{CountedUsage, UsageSource};
use crate::api::{Tenant, Timestamp, Unit};
use crate::controller::context::Context;
use crate::ledger::account::Period;
use crate::ledger::beginning::{Beginning, used_before};
use crate::ledger::client::CallError;
use crate::ledger::units::Amounts;
use crate::ledger::wire::{Dated, TenantUsage};

/// Tenants whose usage the controller reports at the same time.
const AT_ONCE: usize = 16;

/// What a status shows that a tenant had used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Before {
    period: Period,
    used: Amounts,
}

impl Before {
    fn of(usage: &CountedUsage) -> Self {
        let period = Period { start: usage.period_start, end: usage.period_end };
        let used = Unit::iter().fold(Amounts::ZERO, |all, unit| all.with(unit, usage.of(unit).used.max(0)));
        Self { period, used: used.only(false) }
    }
}

/// What the status of a tenant shows that an earlier ledger counted.
fn of_earlier_ledger(tenant: &Tenant, began: &Beginning) -> Option<Before> {
    let status = tenant.status.as_ref()?;
    let usage = status.usage.as_ref()?;
    let earlier = match status.usage_source.as_deref() {
        Some(source) if *source.ledger == *began.id => false,
        // One that began later may have counted what this one did: this one's volume was set back.
        Some(UsageSource { began: Some(its), .. }) => *its <= began.began.at,
        // A version before this one notes no beginning. What it observed later, this ledger told. In the same second, it
        // had nothing to tell yet.
        _ => usage.observed_at <= began.began.at,
    };
    earlier.then(|| Before::of(usage))
}

/// Whether the ledger is still to be told what the status of a tenant shows of before.
pub fn is_to_be_told(tenant: &Tenant, beginning: &Beginning, known: &HashMap<String, Before>) -> bool {
    of_earlier_ledger(tenant, beginning).is_some_and(|before| known.get(tenant.tenant_id()) != Some(&before))
}

/// Reports to the ledger what tenants had used before it began, as far as it does not have that yet.
pub async fn tell(context: &Context, told: &mut Told) -> Result<(), CallError> {
    let Some(beginning) = told.beginning.clone() else { return Ok(()) };
    let keys = context
        .caches
        .keys_where(|tenant| is_to_be_told(tenant, &beginning, &told.known) && context.claims.is_holder(tenant));
    if keys.is_empty() {
        return Ok(());
    }
    context.metrics.ledger_lost.set(beginning.began.at.as_second());
    tracing::warn!(
        tenants = keys.len(),
        began = %beginning.began.at,
        snapshot = beginning.began.snapshot.map(|taken| taken.to_string()),
        "the ledger lost its data: the controller reports what the statuses show; what was used after that is not known"
    );
    let lost = &told.lost;
    let calls = context.caches.each_of(keys).filter_map(|tenant| {
        let before = of_earlier_ledger(&tenant, &beginning)?;
        Some(tell_of(context, &beginning, lost, (tenant, before)))
    });
    let mut told_of = stream::iter(calls).buffer_unordered(AT_ONCE);
    let (mut known, mut failed) = (Vec::new(), None);
    while let Some(one) = told_of.next().await {
        match one {
            Ok(one) => known.push(one),
            Err(error) => failed = Some(error),
        }
    }
    drop(told_of);
    told.known.extend(known);
    // Where the ledger has more than such a status shows, it lists no new line, and the status is written all the same.
    told.after = 0;
    failed.map_or(Ok(()), Err)
}

async fn tell_of(
    context: &Context,
    beginning: &Beginning,
    lost: &BTreeMap<String, TenantUsage>,
    (tenant, before): (Arc<Tenant>, Before),
) -> Result<(String, Before), CallError> {
    let id = tenant.tenant_id().to_owned();
    let unshown = lost.get(&id).map(|usage| Before { period: usage.period, used: usage.used.only(false) });
    for Before { period, used } in std::iter::once(before).chain(unshown) {
        match count(context, beginning, &id, period, used).await {
            Ok(()) => {}
            Err(error @ CallError::Unavailable(_)) => return Err(error),
            Err(error) => tracing::warn!(%error, tenant = tenant.name_any(), "what the status shows is not counted"),
        }
    }
    Ok((id, before))
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::ledger::beginning::Began;

    const BEGAN: i64 = 1_800_000_000;

    /// A tenant whose status shows usage, observed so many seconds after the ledger began.
    fn tenant(observed: i64, source: &serde_json::Value) -> Tenant {
        let spec = json!({"companyName": "A", "adminEmail": "a@b.example", "tenantId": "t1"});
        let mut tenant = Tenant::new("a", serde_json::from_value(spec).expect("a spec"));
        let at = |seconds| Timestamp::from_second(BEGAN + seconds);
        let usage = json!({"observedAt": at(observed), "periodStart": at(-99), "periodEnd": at(999),
            "queries": {"used": 7}, "documents": {"used": 2}});
        tenant.status = Some(serde_json::from_value(json!({"usage": usage, "usageSource": source})).expect("a status"));
        tenant
    }

    #[test]
    fn the_ledger_that_told_the_usage_decides_and_the_time_only_where_no_ledger_is_named() {
        let began = Began { at: Timestamp::from_second(BEGAN), snapshot: None };
        let beginning = Beginning { id: "this".into(), began, recounted: None };
        let at = |seconds| Timestamp::from_second(BEGAN + seconds);
        for (observed, source, told) in [
            (-5, json!({"ledger": "this", "began": at(0)}), false),
            (-5, json!({"ledger": "before", "began": at(-50)}), true),
            (5, json!({"ledger": "before", "began": at(-50)}), true),
            (-5, json!({"ledger": "later", "began": at(50)}), false),
            (-5, json!({"ledger": "before"}), true),
            (5, json!({"ledger": "before"}), false),
            (0, json!(null), true),
            (5, json!(null), false),
        ] {
            let tenant = tenant(observed, &source);
            assert_eq!(is_to_be_told(&tenant, &beginning, &HashMap::new()), told, "{observed} {source}");
        }
    }

    #[test]
    fn a_status_that_shows_something_else_than_was_told_is_told_again() {
        let began = Began { at: Timestamp::from_second(BEGAN), snapshot: None };
        let beginning = Beginning { id: "this".into(), began, recounted: None };
        let mut tenant = tenant(-5, &json!(null));
        let before = of_earlier_ledger(&tenant, &beginning).expect("usage");
        assert_eq!(before.used, Amounts::of(Unit::Queries, 7), "levels are counted from the vector store");
        let known = HashMap::from([("t1".to_owned(), before)]);
        assert!(!is_to_be_told(&tenant, &beginning, &known));
        tenant.status.as_mut().and_then(|status| status.usage.as_mut()).expect("usage").queries.used = 9;
        assert!(is_to_be_told(&tenant, &beginning, &known));
    }
}
