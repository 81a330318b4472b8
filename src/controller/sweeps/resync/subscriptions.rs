//! All subscriptions at Stripe: compared with the tenants that they are of, and counted where they are of none.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicI64, Ordering};

use super::billing::{price_differs, refund_may_fail, subscription_differs, surplus_differs};
use super::hints::{hint_all, phase};
use crate::api::Phase;
use crate::controller::Key;
use crate::controller::context::Context;
use crate::controller::watch::Scope;
use crate::lifecycle::ObservedSubscription;
use crate::providers::stripe::OwnedSubscription;
use crate::providers::{Priority, ProviderError};

/// Compares all subscriptions.
pub async fn compare(context: &Context, scopes: &[Scope]) -> Result<(), ProviderError> {
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

/// Whether a subscription is paid for and its tenant has no object. Those of namespaces that another controller watches
/// are its own to count.
fn is_orphan(owned: &OwnedSubscription, scopes: &[Scope], has_object: impl Fn(&str) -> bool) -> bool {
    let watched = scopes.iter().any(|scope| scope.is_none() || *scope == owned.namespace);
    owned.subscription.served() && watched && !has_object(&owned.tenant_id)
}

/// Whether Stripe keeps another place with a subscription than the one where its Tenant is.
fn is_elsewhere(owned: &OwnedSubscription, holder: Option<&Key>) -> bool {
    let (Some(namespace), Some(name), Some(holder)) = (&owned.namespace, &owned.name, holder) else { return false };
    (namespace, name) != (&holder.namespace, &holder.name)
}

#[cfg(test)]
mod tests {
    use super::super::tests::subscription;
    use super::*;

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
}
