//! The customer's payment: opens Checkout sessions, reads Stripe back, and refunds.

use std::sync::Arc;

use kube::ResourceExt;
use serde_json::json;

use crate::api::{CUSTOMER_GONE_ANNOTATION, Phase, Plan, Tenant, Timestamp};
use crate::controller::kubernetes::Kubernetes;
use crate::lifecycle::{
    Credentials, Fault, Observed, ObservedBilling, ObservedRefund, ObservedSubscription, Outcome, Proration, View,
};
use crate::providers::ProviderError;
use crate::providers::stripe::{Payer, Sale, Stripe};

/// Who pays for a tenant.
pub fn payer(tenant: &Tenant) -> Payer<'_> {
    let refs = tenant.spec.billing.stripe.as_ref();
    let customer_id = refs.and_then(|s| s.customer_id.as_deref());
    let served =
        tenant.status.as_ref().is_some_and(|status| status.provisioned_at.is_some() || status.paid_at.is_some());
    let gone = tenant.annotations().get(CUSTOMER_GONE_ANNOTATION);
    Payer {
        tenant_id: tenant.tenant_id(),
        place: tenant.place(),
        email: &tenant.spec.admin_email,
        company: &tenant.spec.company_name,
        customer_id,
        known: served || refs.is_some_and(|s| s.subscription_id.is_some()),
        gone: customer_id.is_some() && gone.map(String::as_str) == customer_id,
        leaving: tenant.metadata.deletion_timestamp.is_some()
            && tenant.status.as_ref().is_some_and(|status| status.phase == Some(Phase::Deleting)),
    }
}

/// What Stripe says, with the plan that has the price it bills.
pub async fn read(stripe: &Stripe, tenant: &Tenant, plans: &[Arc<Plan>]) -> Result<Outcome, ProviderError> {
    let mut billing = after_erasure(tenant, stripe.read(&payer(tenant)).await)?;
    if let Some(subscription) = &mut billing.subscription {
        subscription.billed_plan = priced(plans, subscription.price.as_deref(), tenant.plan_in_force());
    }
    Ok(Outcome::Billing(billing.into()))
}

/// A customer who pays for others, too, is kept by the erasure and no longer names the tenant. So during an erasure, a
/// customer that is not the tenant's has nothing of it: an erasure that was interrupted goes on.
fn after_erasure(
    tenant: &Tenant,
    read: Result<ObservedBilling, ProviderError>,
) -> Result<ObservedBilling, ProviderError> {
    let erasing = tenant.status.as_ref().is_some_and(|status| status.erasure.is_some());
    match read {
        Err(error) if erasing && error.reason == Fault::ForeignCustomer => Ok(ObservedBilling::default()),
        read => read,
    }
}

/// The Plan that has a price. Of several, the one in force, otherwise the first by name.
fn priced(plans: &[Arc<Plan>], price: Option<&str>, in_force: &str) -> Option<String> {
    let has = |plan: &&Arc<Plan>| price.is_some() && plan.spec.stripe_price_id.as_deref() == price;
    plans.iter().filter(has).map(|plan| plan.name_any()).min_by_key(|name| (name != in_force, name.clone()))
}

pub async fn open_checkout(
    stripe: &Stripe,
    tenant: &Tenant,
    plan: Option<&Plan>,
    attempt: u32,
) -> Result<Outcome, ProviderError> {
    let price = plan.and_then(|p| p.spec.stripe_price_id.as_deref()).unwrap_or_default();
    // One trial for each customer: a customer who comes back pays at once.
    let before = tenant.spec.billing.stripe.as_ref().is_some_and(|refs| refs.subscription_id.is_some());
    let trial_days = plan.map_or(0, |p| if before { 0 } else { p.spec.trial_days });
    let usage_prices = plan.map_or(&[][..], |p| &p.spec.usage_prices);
    let sale = Sale { price, usage_prices, plan: &tenant.spec.plan, trial_days, attempt };
    let opened = stripe.open_checkout(&payer(tenant), &sale).await;
    opened.map(|billing| Outcome::Billing(billing.into()))
}

pub async fn next_checkout(kubernetes: &Kubernetes, tenant: &Tenant, attempt: u32) -> Result<Tenant, kube::Error> {
    kubernetes.patch(tenant, json!({"spec": {"billing": {"stripe": {"checkoutAttempt": attempt}}}})).await
}

pub async fn follow_plan(kubernetes: &Kubernetes, tenant: &Tenant, plan: &str) -> Result<Tenant, kube::Error> {
    kubernetes.patch(tenant, json!({"spec": {"plan": plan}})).await
}

pub async fn record_plan(kubernetes: &Kubernetes, tenant: &Tenant, plan: &str) -> Result<Tenant, kube::Error> {
    kubernetes.patch(tenant, json!({"spec": {"planInForce": plan}})).await
}

/// With a subscription the plan is settled too.
pub async fn store_ids(
    kubernetes: &Kubernetes,
    tenant: &Tenant,
    customer: &str,
    subscription: Option<&str>,
) -> Result<Tenant, kube::Error> {
    let ids = json!({"customerId": customer, "subscriptionId": subscription});
    let mut spec = json!({"billing": {"stripe": ids}});
    if subscription.is_some() {
        spec["planInForce"] = tenant.plan_in_force().into();
    }
    kubernetes.patch(tenant, json!({"spec": spec})).await
}

/// Bills a plan on the tenant's subscription.
pub async fn switch_price(
    stripe: &Stripe,
    observed: &Observed,
    plan: &Plan,
    proration: Proration,
) -> Result<Outcome, ProviderError> {
    let price = plan.spec.stripe_price_id.as_deref().unwrap_or_default();
    let Some(mut billing) = observed.billing.clone() else { return Ok(Outcome::Done) };
    let Some(before) = &billing.subscription else { return Ok(Outcome::Done) };
    let after = stripe.switch_price(&before.id, (price, &plan.name_any()), proration).await?;
    // Whether the customer has a payment method was seen with the customer.
    billing.subscription = Some(ObservedSubscription {
        payment_method: before.payment_method,
        billed_plan: Some(plan.name_any()),
        ..after
    });
    Ok(Outcome::Billing(billing.into()))
}

fn subscription(observed: &Observed) -> Option<&str> {
    observed.billing.as_ref()?.subscription.as_ref().map(|s| s.id.as_str())
}

/// Stops collecting on every subscription of the tenant. Stripe refuses a pause of one that is over.
pub async fn pause(stripe: &Stripe, observed: &Observed) -> Result<Outcome, ProviderError> {
    let Some(billing) = &observed.billing else { return Ok(Outcome::Done) };
    let own = billing.subscription.as_ref().filter(|s| !s.paused && !s.over()).map(|s| &s.id);
    for id in own.into_iter().chain(&billing.surplus_collected) {
        stripe.set_collection(id, true).await?;
    }
    Ok(Outcome::Done)
}

/// Collects again on the subscription that counts. Another one stays paused until a person ends it.
pub async fn resume(stripe: &Stripe, observed: &Observed) -> Result<Outcome, ProviderError> {
    if let Some(id) = subscription(observed) {
        stripe.set_collection(id, false).await?;
    }
    Ok(Outcome::Done)
}

pub async fn refund(stripe: &Stripe, tenant: &Tenant, observed: &Observed) -> Result<Outcome, ProviderError> {
    let Some(subscription) = subscription(observed) else {
        return Ok(Outcome::Refunded(ObservedRefund::default()));
    };
    stripe.refund(tenant.tenant_id(), subscription).await.map(Outcome::Refunded)
}

/// Notes at Stripe that a person settles the refund of the payment that they name. A restored status may be that of a
/// tenant that was paid for anew since. Where nothing was paid, there is nothing to note.
pub async fn waive_refund(stripe: &Stripe, tenant: &Tenant, observed: &Observed) -> Result<Outcome, ProviderError> {
    let view = View::of(tenant, Credentials::default());
    let Some(subscription) = subscription(observed) else { return Ok(Outcome::Done) };
    let unnamed = stripe.waive_refund(subscription, view.waived_invoice()).await?;
    Ok(unnamed.map_or(Outcome::Done, Outcome::PaymentNotNamed))
}

/// Collects again, in a new period if Stripe says that the last one was refunded. Stripe's record decides, not the
/// status.
pub async fn collect_anew(stripe: &Stripe, observed: &Observed) -> Result<Outcome, ProviderError> {
    if let Some(id) = subscription(observed) {
        match stripe.refunded_period(id).await? {
            Some(invoice) => stripe.begin_period(id, &invoice).await?,
            None => stripe.set_collection(id, false).await?,
        }
    }
    Ok(Outcome::Done)
}

pub async fn update_customer(stripe: &Stripe, tenant: &Tenant) -> Result<Outcome, ProviderError> {
    stripe.update_customer(&payer(tenant), tenant.spec.api_key_generation).await.map(|()| Outcome::Done)
}

pub async fn expire_checkout(stripe: &Stripe, tenant: &Tenant) -> Result<Outcome, ProviderError> {
    stripe.expire_checkout(&payer(tenant)).await.map(|()| Outcome::Done)
}

pub async fn stop_renewal(stripe: &Stripe, tenant: &Tenant) -> Result<Outcome, ProviderError> {
    stripe.stop_renewal(&payer(tenant), closed_at(tenant)).await.map(|()| Outcome::Done)
}

/// When the tenant was closed: when that was wished, or else when the controller saw it.
fn closed_at(tenant: &Tenant) -> Timestamp {
    let seen =
        || tenant.status.as_ref()?.transitions.iter().rfind(|t| t.to_state == Phase::Deleting).map(|t| t.timestamp);
    tenant.spec.wisher().map(|wish| wish.at).or_else(seen).unwrap_or_else(Timestamp::now)
}

pub async fn renew_again(stripe: &Stripe, observed: &Observed) -> Result<Outcome, ProviderError> {
    if let Some(id) = subscription(observed) {
        stripe.renew(id).await?;
    }
    Ok(Outcome::Done)
}

pub async fn forget_closing(stripe: &Stripe, observed: &Observed) -> Result<Outcome, ProviderError> {
    if let Some(id) = subscription(observed) {
        stripe.forget_closing(id).await?;
    }
    Ok(Outcome::Done)
}

pub async fn erase(stripe: &Stripe, tenant: &Tenant) -> Result<Outcome, ProviderError> {
    stripe.erase(&payer(tenant)).await.map(|()| Outcome::Done)
}

pub async fn cancel(stripe: &Stripe, tenant: &Tenant) -> Result<Outcome, ProviderError> {
    stripe.cancel(&payer(tenant)).await.map(|()| Outcome::Done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lifecycle::Provider;

    #[test]
    fn an_erasure_that_was_interrupted_has_nothing_of_a_customer_that_it_has_left() {
        let tenant = |status: serde_json::Value| -> Tenant {
            let spec = json!({"companyName": "A", "adminEmail": "a@example.com", "plan": "p"});
            let tenant = json!({"apiVersion": "tenant-operator.dev/v1alpha1", "kind": "Tenant",
                "metadata": {"name": "acme"}, "spec": spec, "status": status});
            serde_json::from_value(tenant).expect("a tenant")
        };
        let erasing = tenant(json!({"erasure": {"startedAt": Timestamp::from_second(0), "lines": []}}));
        let failed = |reason| Err(ProviderError { reason, ..ProviderError::garbage(Provider::Stripe, "no") });
        let read = after_erasure(&erasing, failed(Fault::ForeignCustomer));
        assert!(read.is_ok_and(|billing| billing == ObservedBilling::default()));
        assert!(after_erasure(&erasing, failed(Fault::Unreachable)).is_err());
        assert!(after_erasure(&tenant(json!({})), failed(Fault::ForeignCustomer)).is_err());
    }
}
