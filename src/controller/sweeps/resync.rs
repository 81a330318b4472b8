//! The bulk resync: reads the state of all tenants at Stripe and the vector store page by page, and reconciles only tenants that differ. Ten
//! thousand tenants cost some hundred calls.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use kube::ResourceExt;

use crate::api::plan::{PlanSpec, PriceChanges};
use crate::api::tenant::BillingMode;
use crate::api::{Phase, Tenant, TenantStatus, Timestamp, data_of};
use crate::controller::Key;
use crate::controller::context::Context;
use crate::controller::watch::Scope;
use crate::lifecycle::{ObservedSubscription, Provider, bills_another, next_period_begun, shows_price, shows_surplus};
use crate::providers::stripe::{EventCursor, OwnedSubscription, StripeEvent};
use crate::providers::{Priority, ProviderError};

/// Tenants that are compared in a row.
const IN_A_ROW: usize = 64;

/// Compares forever. Stripe and the vector store are independent: during an outage of one, the other is still compared.
pub async fn run(context: Arc<Context>, scopes: Vec<Scope>) {
    if context.caches.filled().await {
        let both = futures::future::join(stripe(&context, &scopes), vector_store(&context));
        Priority::Resync.scope(both).await;
    }
}

fn seconds(seconds: i64) -> Duration {
    Duration::from_secs(seconds.max(1).unsigned_abs())
}

/// Reads what is new at Stripe each `resync`, and everything each `full_resync`. If the full pass fails, the events are read all the same.
async fn stripe(context: &Context, scopes: &[Scope]) {
    let mut cursor: Option<EventCursor> = None;
    let mut full_at: Option<Instant> = None;
    loop {
        // The events come before the pages, so that the next read of the events finds what happens while the pages are read.
        note(context, "events", &events(context, &mut cursor).await);
        if full_at.is_none_or(|at| at.elapsed() >= seconds(context.policy.full_resync)) {
            let started = Instant::now();
            if note(context, "subscriptions", &subscriptions(context, scopes).await) {
                full_at = Some(started);
            }
        }
        note(context, "disputes", &disputes(context).await);
        pause(context.policy.resync).await;
    }
}

/// All namespaces each `full_resync`, or each `resync` until it works.
async fn vector_store(context: &Context) {
    loop {
        let done = note(context, "namespaces", &namespaces(context).await);
        pause(if done { context.policy.full_resync } else { context.policy.resync }).await;
    }
}

/// Counts an outcome. True when it worked.
fn note(context: &Context, kind: &str, outcome: &Result<(), ProviderError>) -> bool {
    let result = if outcome.is_ok() { "ok" } else { "failed" };
    context.metrics.resyncs.get_or_create(&format!("{kind}_{result}").as_str().into()).inc();
    if let Err(error) = outcome {
        tracing::warn!(%error, kind, "resync failed; retrying");
    }
    outcome.is_ok()
}

/// Not in step with others that were started at the same moment.
async fn pause(wanted: i64) {
    tokio::time::sleep(seconds(wanted).mul_f64(rand::random_range(0.9..1.1))).await;
}

/// Compares all subscriptions.
async fn subscriptions(context: &Context, scopes: &[Scope]) -> Result<(), ProviderError> {
    let started = context.clock.read().now;
    let mut best: HashMap<String, ObservedSubscription> = HashMap::new();
    let (mut several, mut renewing) = (HashSet::<String>::new(), HashSet::<String>::new());
    let mut orphaned: HashSet<String> = HashSet::new();
    let mut elsewhere: HashSet<String> = HashSet::new();
    let mut read = 0;
    context
        .providers
        .stripe
        .subscriptions(|owned| {
            read += 1;
            if is_orphan(&owned, scopes, |id| context.claims.holder(id).is_some()) {
                orphaned.insert(owned.tenant_id.clone());
            }
            if is_elsewhere(&owned, context.claims.holder(&owned.tenant_id).as_ref()) {
                elsewhere.insert(owned.tenant_id.clone());
            }
            let OwnedSubscription { tenant_id, subscription, .. } = owned;
            let another = subscription.billed() && best.get(&tenant_id).is_some_and(ObservedSubscription::billed);
            if another {
                several.insert(tenant_id.clone());
            }
            if subscription.bills_again() {
                renewing.insert(tenant_id.clone());
            }
            if best.get(&tenant_id).is_none_or(|there| subscription.worth() > there.worth()) {
                best.insert(tenant_id, subscription);
            }
        })
        .await?;
    let orphaned = orphaned.len();
    context.metrics.orphaned_subscriptions.set(i64::try_from(orphaned).unwrap_or(i64::MAX));
    if orphaned > 0 {
        tracing::warn!(orphaned, "paid subscriptions at Stripe belong to no Tenant");
    }
    let of_tenants = several.iter().filter(|id| context.claims.holder(id).is_some()).count();
    context.metrics.surplus_subscriptions.set(i64::try_from(of_tenants).unwrap_or(i64::MAX));
    let other_prices = AtomicI64::new(0);
    hint_all(context, "subscriptions", read, |tenant| {
        let subscription = best.get(tenant.tenant_id());
        let plan = context.caches.plan(tenant.plan_in_force());
        let price = subscription.and_then(|s| price_differs(tenant, plan.as_ref().map(|plan| &plan.spec), s));
        other_prices.fetch_add(price.as_ref().is_some_and(|price| price.differs).into(), Ordering::Relaxed);
        let surplus = surplus_differs(tenant, several.contains(tenant.tenant_id()));
        let moved = elsewhere.contains(tenant.tenant_id());
        let renewed = phase(tenant) == Some(Phase::Deleting) && renewing.contains(tenant.tenant_id());
        let refund = refund_may_fail(tenant, started);
        let other = surplus || moved || renewed || refund || price.is_some_and(|price| price.look);
        subscription_differs(tenant, subscription, started).or(other.then_some(Priority::Resync))
    })
    .await;
    context.metrics.other_prices.set(other_prices.into_inner());
    Ok(())
}

/// Whether a subscription is paid for and its tenant has no object. Those of namespaces that another controller watches are its own
/// to count.
fn is_orphan(owned: &OwnedSubscription, scopes: &[Scope], has_object: impl Fn(&str) -> bool) -> bool {
    let watched = scopes.iter().any(|scope| scope.is_none() || *scope == owned.namespace);
    owned.subscription.served() && watched && !has_object(&owned.tenant_id)
}

/// Whether Stripe keeps another place with a subscription than the one where its Tenant is.
fn is_elsewhere(owned: &OwnedSubscription, holder: Option<&Key>) -> bool {
    let (Some(namespace), Some(name), Some(holder)) = (&owned.namespace, &owned.name, holder) else { return false };
    (namespace, name) != (&holder.namespace, &holder.name)
}

/// Compares what customers dispute.
async fn disputes(context: &Context) -> Result<(), ProviderError> {
    let disputes = context.providers.stripe.disputes().await?;
    let read = disputes.len();
    let open = disputes.values().filter(|dispute| !dispute.lost).count();
    context.metrics.open_disputes.set(i64::try_from(open).unwrap_or(i64::MAX));
    context.disputes.replace(disputes);
    let suspend = context.policy.suspend_disputed;
    hint_all(context, "disputes", read, |tenant| context.disputes.differ(tenant, suspend)).await;
    Ok(())
}

/// Compares all namespaces.
async fn namespaces(context: &Context) -> Result<(), ProviderError> {
    let started = context.clock.read().now;
    // An index that was created again since is empty, which proves nothing about the tenants.
    context.keeper.check_indexes(&context.providers.indexes).await;
    let mut namespaces = HashSet::new();
    for index in context.providers.indexes.all() {
        namespaces.extend(index.namespaces("").await?.into_keys());
    }
    let generations = generations(&namespaces);
    let unowned: Vec<_> = generations.keys().filter(|id| !is_owned(context, id)).collect();
    context.metrics.unowned_namespaces.set(i64::try_from(unowned.len()).unwrap_or(i64::MAX));
    if let Some(one) = unowned.first() {
        let (count, store) = (unowned.len(), Provider::VectorStore);
        tracing::warn!(count, one = %one, "namespaces at {store} belong to no Tenant: `kubectl tenant data unowned` lists them");
    }
    hint_all(context, "namespaces", namespaces.len(), |tenant| {
        let leftover = left_behind(tenant, &generations);
        if leftover.is_some() {
            context.memory.remember(&tenant.uid().unwrap_or_default(), |m| m.leftover = leftover);
        }
        namespace_differs(tenant, &namespaces, started).or(leftover.map(|_| Priority::Resync))
    })
    .await;
    Ok(())
}

/// Queues the tenants that differ.
async fn hint_all(context: &Context, kind: &str, read: usize, differs: impl Fn(&Tenant) -> Option<Priority>) {
    let mut hints = 0;
    for (i, tenant) in context.caches.each_tenant().enumerate() {
        if let Some(priority) = differs(&tenant) {
            hint(context, &tenant, priority);
            hints += 1;
        }
        // A customer who waits must not wait until ten thousand tenants are compared.
        if i % IN_A_ROW == 0 {
            tokio::task::yield_now().await;
        }
    }
    tracing::info!(kind, read, hints, "everything compared");
}

/// Reads what is new at Stripe.
async fn events(context: &Context, cursor: &mut Option<EventCursor>) -> Result<(), ProviderError> {
    let Some(known) = cursor.as_ref() else {
        *cursor = Some(context.providers.stripe.newest_event().await?);
        return Ok(());
    };
    let (events, next) = context.providers.stripe.events(known).await?;
    *cursor = Some(next);
    for event in events {
        let Some(key) = context.claims.holder(event.tenant_id()) else { continue };
        let Some(tenant) = context.caches.tenant(&key) else { continue };
        if let Some(priority) = event_differs(&tenant, &event, context.clock.read().now) {
            hint(context, &tenant, priority);
        }
    }
    Ok(())
}

fn hint(context: &Context, tenant: &Tenant, priority: Priority) {
    context.memory.hint(&tenant.uid().unwrap_or_default());
    context.queue.add(Key::of(tenant), priority);
}

fn phase(tenant: &Tenant) -> Option<Phase> {
    tenant.status.as_ref().and_then(|s| s.phase)
}

fn event_differs(tenant: &Tenant, event: &StripeEvent, now: Timestamp) -> Option<Priority> {
    match event {
        StripeEvent::Subscription { subscription, .. } => {
            subscription_differs(tenant, Some(subscription.as_ref()), now)
        }
        StripeEvent::Refund { .. } => {
            matches!(phase(tenant), Some(Phase::Failed | Phase::Deleting)).then_some(Priority::Repair)
        }
        StripeEvent::Session { .. } => {
            matches!(phase(tenant), None | Some(Phase::PendingPayment | Phase::Suspended)).then_some(Priority::Person)
        }
    }
}

/// Whether Stripe says something else of the subscription than the status does, and how urgent that is.
fn subscription_differs(
    tenant: &Tenant,
    subscription: Option<&ObservedSubscription>,
    as_of: Timestamp,
) -> Option<Priority> {
    if tenant.spec.billing.mode != BillingMode::Stripe {
        return None;
    }
    let status = tenant.status.as_ref();
    match (phase(tenant), subscription) {
        // A customer who has paid waits.
        (None | Some(Phase::PendingPayment), Some(s)) => s.served().then_some(Priority::Person),
        (Some(Phase::Active), Some(s)) => {
            let status = status?;
            let same =
                status.subscription.as_deref() == Some(s.status.as_str()) && status.trial_ends_at == s.trial_ends_at;
            let due = status.plan_change.as_ref().is_some_and(|change| next_period_begun(change, s));
            // Such as one whom another account did not know: Stripe's word for the subscription is what it was.
            let failing = status.billing_failing_since.is_some();
            (!same || due || failing || s.paused || s.closed_at.is_some()).then_some(Priority::Resync)
        }
        // A customer who has paid waits.
        (Some(Phase::Suspended), Some(s)) => {
            let same = status?.subscription.as_deref() == Some(s.status.as_str());
            (!same || s.served()).then_some(Priority::Person).filter(|_| tenant.spec.is_wanted())
        }
        // It ended, and no event told of it.
        (Some(Phase::Suspended), None) => {
            let over = matches!(status?.subscription.as_deref(), None | Some("canceled" | "incomplete_expired"));
            (!over && tenant.spec.is_wanted()).then_some(Priority::Resync)
        }
        // Made after the pages were read.
        (Some(Phase::Active), None) => {
            let before = status?.provisioned_at.is_some_and(|at| at < as_of);
            before.then_some(Priority::Resync)
        }
        // Paid for at a link that was still open when the account was closed.
        (Some(Phase::Deleting), Some(s)) => s.bills_again().then_some(Priority::Repair),
        (
            None
            | Some(
                Phase::PendingPayment
                | Phase::Provisioning
                | Phase::Upgrading
                | Phase::Downgrading
                | Phase::Failed
                | Phase::Deleting
                | Phase::Deleted,
            ),
            _,
        ) => None,
    }
}

/// How the price that is billed for a tenant compares with its plan's.
struct PriceDiffers {
    /// Whether another one is billed.
    differs: bool,
    /// Whether the status does not say so yet, or the tenant is to follow.
    look: bool,
}

/// None for a tenant that is not served, or not by Stripe.
fn price_differs(
    tenant: &Tenant,
    plan: Option<&PlanSpec>,
    subscription: &ObservedSubscription,
) -> Option<PriceDiffers> {
    let status = tenant.status.as_ref().filter(|s| s.phase == Some(Phase::Active))?;
    if tenant.spec.billing.mode != BillingMode::Stripe {
        return None;
    }
    let differs = bills_another(status, plan, subscription);
    let shown = shows_price(status, subscription.price.as_deref());
    let follow = plan.is_some_and(|plan| plan.price_changes == PriceChanges::Follow);
    let undecided = tenant.spec.plan == tenant.plan_in_force();
    let look = if differs { shown != Some(true) || (follow && undecided) } else { shown.is_some() };
    Some(PriceDiffers { differs, look })
}

/// Whether a second subscription is there without the status saying so, or gone.
fn surplus_differs(tenant: &Tenant, several: bool) -> bool {
    let shown = |status: &&TenantStatus| matches!(status.phase, Some(Phase::Active | Phase::Suspended | Phase::Failed));
    let status = tenant.status.as_ref().filter(shown);
    tenant.spec.billing.mode == BillingMode::Stripe && status.is_some_and(|status| shows_surplus(status) != several)
}

/// For how many seconds after it succeeded a refund may still fail: a bank can take a month to return it
/// (<https://docs.stripe.com/refunds#failed-refunds>).
const REFUND_SETTLES: i64 = 30 * 24 * 3600;

/// Whether a refund of a tenant that is not served may have failed since, in an event that no controller saw.
fn refund_may_fail(tenant: &Tenant, now: Timestamp) -> bool {
    let left = matches!(phase(tenant), Some(Phase::Failed | Phase::Deleting));
    let refund = tenant.status.as_ref().filter(|_| left).and_then(|status| status.refund.as_ref());
    refund.is_some_and(|refund| refund.amount > 0 && now.since(refund.at) < REFUND_SETTLES)
}

/// Whether the namespace is gone without the status saying so, or back.
fn namespace_differs(tenant: &Tenant, namespaces: &HashSet<String>, as_of: Timestamp) -> Option<Priority> {
    let status = tenant.status.as_ref().filter(|s| s.phase == Some(Phase::Active))?;
    if status.provisioned_at.is_none_or(|at| at >= as_of) {
        return None;
    }
    let missing = status.namespace_missing_since.is_some();
    let there = namespaces.contains(&tenant.data_namespace());
    (there == missing).then_some(Priority::Repair)
}

/// Whether an object claims the tenant id. The record of a tenant that was erased owns nothing.
fn is_owned(context: &Context, tenant_id: &str) -> bool {
    let holder = context.claims.holder(tenant_id).and_then(|key| context.caches.tenant(&key));
    holder.is_some_and(|tenant| phase(&tenant) != Some(Phase::Deleted))
}

/// The generations of each tenant's data that have a namespace, by the tenants' ids.
fn generations(namespaces: &HashSet<String>) -> HashMap<&str, Vec<u32>> {
    let mut all: HashMap<&str, Vec<u32>> = HashMap::new();
    for (id, generation) in namespaces.iter().filter_map(|name| data_of(name)) {
        all.entry(id).or_default().push(generation);
    }
    all
}

/// A generation of the tenant's data that is not the one in use, and of which no move tells: the status of the move was lost, or
/// the object is older than its data.
fn left_behind(tenant: &Tenant, generations: &HashMap<&str, Vec<u32>>) -> Option<u32> {
    let status = tenant.status.as_ref().filter(|s| s.phase == Some(Phase::Active))?;
    if status.migration.is_some() {
        return None;
    }
    let in_use = tenant.data_generation();
    generations.get(tenant.tenant_id())?.iter().copied().filter(|generation| *generation != in_use).max()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::data_namespace;
    use crate::api::status::PlanChangeState;
    use crate::api::tenant::Desired;

    fn tenant(phase: Option<Phase>) -> Tenant {
        let spec = serde_json::json!({"companyName": "A", "adminEmail": "a@b.cd", "tenantId": "t"});
        let mut tenant = Tenant::new("t", serde_json::from_value(spec).expect("a spec"));
        tenant.status = Some(TenantStatus {
            phase,
            subscription: Some("active".into()),
            provisioned_at: Some(Timestamp::from_second(100)),
            ..TenantStatus::default()
        });
        tenant
    }

    fn subscription(status: &str) -> ObservedSubscription {
        ObservedSubscription {
            id: "sub_1".into(),
            status: status.into(),
            renews: true,
            ..ObservedSubscription::default()
        }
    }

    const NOW: Timestamp = Timestamp::from_second(1000);

    #[test]
    fn only_what_differs_is_looked_at() {
        let active = tenant(Some(Phase::Active));
        let differs = |s: &ObservedSubscription| subscription_differs(&active, Some(s), NOW);
        assert_eq!(differs(&subscription("active")), None);
        assert_eq!(differs(&subscription("past_due")), Some(Priority::Resync));
        assert_eq!(differs(&ObservedSubscription { paused: true, ..subscription("active") }), Some(Priority::Resync));
        let trial = ObservedSubscription { trial_ends_at: Some(NOW), ..subscription("active") };
        assert_eq!(differs(&trial), Some(Priority::Resync));
        assert_eq!(subscription_differs(&active, None, NOW), Some(Priority::Resync), "it vanished");
        let before = Timestamp::from_second(50);
        assert_eq!(subscription_differs(&active, None, before), None, "made after the pages were read");
    }

    #[test]
    fn a_closed_tenant_that_is_billed_again_is_looked_at() {
        let closed = tenant(Some(Phase::Deleting));
        let differs = |s: &ObservedSubscription| subscription_differs(&closed, Some(s), NOW);
        assert_eq!(differs(&subscription("active")), Some(Priority::Repair));
        assert_eq!(differs(&ObservedSubscription { renews: false, ..subscription("active") }), None);
        assert_eq!(differs(&subscription("canceled")), None);
    }

    #[test]
    fn a_refund_that_may_have_failed_is_looked_at_for_a_month() {
        let refunded = |phase, amount, at| {
            let mut tenant = tenant(Some(phase));
            let refund = serde_json::json!({"amount": amount, "at": Timestamp::from_second(at)});
            let status = tenant.status.as_mut().expect("a status");
            status.refund = Some(serde_json::from_value(refund).expect("a refund"));
            refund_may_fail(&tenant, Timestamp::from_second(REFUND_SETTLES))
        };
        for phase in [Phase::Failed, Phase::Deleting] {
            assert!(refunded(phase, 4900, 1), "{phase}");
            assert!(!refunded(phase, 4900, 0) && !refunded(phase, 0, 1), "{phase}");
        }
        assert!(!refunded(Phase::Active, 4900, 1) && !refund_may_fail(&tenant(Some(Phase::Failed)), NOW));
    }

    #[test]
    fn a_second_subscription_is_seen_whether_the_tenant_is_served_or_not() {
        for phase in [Phase::Active, Phase::Suspended, Phase::Failed] {
            assert!(surplus_differs(&tenant(Some(phase)), true), "{phase}");
            assert!(!surplus_differs(&tenant(Some(phase)), false), "{phase}");
        }
        assert!(!surplus_differs(&tenant(Some(Phase::Deleting)), true), "all of them are stopped");
    }

    #[test]
    fn a_suspended_tenant_whose_subscription_ended_is_looked_at_once() {
        let mut suspended = tenant(Some(Phase::Suspended));
        let known_as = |tenant: &mut Tenant, word: &str| {
            tenant.status.as_mut().expect("a status").subscription = Some(word.into());
            subscription_differs(tenant, None, NOW)
        };
        assert_eq!(known_as(&mut suspended, "past_due"), Some(Priority::Resync));
        assert_eq!(known_as(&mut suspended, "canceled"), None);
        suspended.spec.desired = Desired::Suspended;
        assert_eq!(known_as(&mut suspended, "past_due"), None);
    }

    #[test]
    fn a_scheduled_change_is_due_once_stripe_has_begun_the_next_period() {
        let mut active = tenant(Some(Phase::Active));
        let change = serde_json::json!({"from": "large", "plan": "small", "state": "Scheduled",
            "since": Timestamp::from_second(100), "effectiveAt": NOW});
        let status = active.status.as_mut().expect("a status");
        status.plan_change = Some(serde_json::from_value(change).expect("a change"));
        let until = |second| {
            let period_ends_at = Some(Timestamp::from_second(second));
            ObservedSubscription { period_ends_at, ..subscription("active") }
        };
        assert_eq!(subscription_differs(&active, Some(&until(1000)), NOW), None, "the period it was scheduled in");
        assert_eq!(subscription_differs(&active, Some(&until(2000)), NOW), Some(Priority::Resync));
        let status = active.status.as_mut().expect("a status");
        status.plan_change.as_mut().expect("a change").state = PlanChangeState::Applied;
        assert_eq!(subscription_differs(&active, Some(&until(2000)), NOW), None, "done long ago");
    }

    #[test]
    fn subscriptions_of_namespaces_that_are_not_watched_are_not_orphaned() {
        let of = |tenant_id: &str, namespace: &str, status: &str| OwnedSubscription {
            tenant_id: tenant_id.into(),
            namespace: Some(namespace.into()),
            name: Some(tenant_id.into()),
            subscription: subscription(status),
        };
        let orphan = |owned: &OwnedSubscription, scopes: &[Scope]| is_orphan(owned, scopes, |id| id == "ours");
        let (a, b) = (Some("a".to_owned()), Some("b".to_owned()));
        assert!(!orphan(&of("ours", "a", "active"), std::slice::from_ref(&a)));
        assert!(orphan(&of("lost", "a", "trialing"), std::slice::from_ref(&a)));
        assert!(!orphan(&of("theirs", "b", "active"), std::slice::from_ref(&a)), "another controller's");
        assert!(orphan(&of("theirs", "b", "active"), &[a, b]));
        assert!(orphan(&of("theirs", "b", "active"), &[None]), "all namespaces");
        assert!(!orphan(&of("over", "a", "canceled"), &[None]));
    }

    #[test]
    fn a_subscription_that_names_another_place_than_its_tenants_is_looked_at() {
        let owned = OwnedSubscription {
            tenant_id: "t".into(),
            namespace: Some("shop".into()),
            name: Some("acme".into()),
            subscription: subscription("active"),
        };
        let at = |namespace: &str, name: &str| Key { namespace: namespace.into(), name: name.into() };
        assert!(!is_elsewhere(&owned, Some(&at("shop", "acme"))));
        assert!(is_elsewhere(&owned, Some(&at("other", "acme"))) && is_elsewhere(&owned, Some(&at("shop", "moved"))));
        assert!(!is_elsewhere(&owned, None), "it has no Tenant");
        assert!(!is_elsewhere(&OwnedSubscription { name: None, ..owned }, Some(&at("other", "acme"))));
    }

    #[test]
    fn a_payment_whose_webhook_was_lost_is_urgent() {
        let pending = tenant(Some(Phase::PendingPayment));
        let differs = |s: &str| subscription_differs(&pending, Some(&subscription(s)), NOW);
        assert_eq!(differs("trialing"), Some(Priority::Person));
        assert_eq!(differs("incomplete"), None);
        let mut manual = pending.clone();
        manual.spec.billing.mode = BillingMode::Manual;
        assert_eq!(subscription_differs(&manual, Some(&subscription("active")), NOW), None);
    }

    #[test]
    fn a_namespace_that_no_move_tells_of_is_left_behind() {
        let all: HashSet<_> = [data_namespace("t", 1), data_namespace("t", 2), data_namespace("other", 3)].into();
        let left_behind = |tenant: &Tenant, all: &HashSet<String>| super::left_behind(tenant, &generations(all));
        let mut active = tenant(Some(Phase::Active));
        assert_eq!(left_behind(&active, &all), Some(2), "a copy that was never finished");
        active.spec.data =
            Some(serde_json::from_value(serde_json::json!({"generation": 2, "embedding": "m"})).expect("data"));
        assert_eq!(left_behind(&active, &all), Some(1), "the one before");
        assert_eq!(left_behind(&active, &[data_namespace("t", 2)].into()), None, "the one in use");
        let migration = serde_json::json!({"generation": 2, "embedding": "m", "state": "Switched", "vectors": 1,
            "startedAt": NOW, "since": NOW});
        let status = active.status.as_mut().expect("a status");
        status.migration = Some(serde_json::from_value(migration).expect("a move"));
        assert_eq!(left_behind(&active, &all), None, "it goes when its time is up");
        assert_eq!(left_behind(&tenant(Some(Phase::Provisioning)), &all), None);
        let older = tenant(Some(Phase::Active));
        assert_eq!(
            left_behind(&older, &[data_namespace("t", 5)].into()),
            Some(5),
            "an object much older than its data"
        );
    }

    #[test]
    fn a_namespace_that_is_gone_or_back_is_seen_once() {
        let there: HashSet<_> = [data_namespace("t", 1)].into();
        let mut active = tenant(Some(Phase::Active));
        assert_eq!(namespace_differs(&active, &there, NOW), None);
        assert_eq!(namespace_differs(&active, &HashSet::new(), NOW), Some(Priority::Repair));
        assert_eq!(namespace_differs(&active, &HashSet::new(), Timestamp::from_second(50)), None);
        active.status.as_mut().expect("a status").namespace_missing_since = Some(NOW);
        assert_eq!(namespace_differs(&active, &HashSet::new(), NOW), None, "it is shown already");
        assert_eq!(namespace_differs(&active, &there, NOW), Some(Priority::Repair));
        assert_eq!(namespace_differs(&tenant(Some(Phase::Failed)), &HashSet::new(), NOW), None);
    }
}
