//! The customer's payment: the Checkout session, the truth read back, refunds.

use serde_json::json;

use crate::api::{Plan, Tenant};
use crate::controller::kubernetes::Kubernetes;
use crate::lifecycle::{Observed, ObservedRefund, Outcome};
use crate::providers::ProviderError;
use crate::providers::stripe::{Payer, Stripe};

fn payer(tenant: &Tenant) -> Payer<'_> {
    Payer {
        tenant_id: tenant.tenant_id(),
        place: tenant.place(),
        email: &tenant.spec.admin_email,
        company: &tenant.spec.company_name,
        customer_id: tenant.spec.billing.stripe.as_ref().and_then(|s| s.customer_id.as_deref()),
    }
}

pub async fn read(stripe: &Stripe, tenant: &Tenant) -> Result<Outcome, ProviderError> {
    stripe.read(&payer(tenant)).await.map(Outcome::Billing)
}

pub async fn open_checkout(
    stripe: &Stripe,
    tenant: &Tenant,
    plan: Option<&Plan>,
    attempt: u32,
) -> Result<Outcome, ProviderError> {
    let price = plan.and_then(|p| p.spec.stripe_price_id.as_deref()).unwrap_or_default();
    // One trial for a customer: whoever comes back pays.
    let before = tenant.spec.billing.stripe.as_ref().is_some_and(|refs| refs.subscription_id.is_some());
    let trial_days = plan.map_or(0, |p| if before { 0 } else { p.spec.trial_days });
    let opened = stripe.open_checkout(&payer(tenant), price, &tenant.spec.plan, trial_days, attempt).await;
    opened.map(Outcome::Billing)
}

pub async fn next_checkout(kubernetes: &Kubernetes, tenant: &Tenant, attempt: u32) -> Result<Tenant, kube::Error> {
    kubernetes.patch(tenant, json!({"spec": {"billing": {"stripe": {"checkoutAttempt": attempt}}}})).await
}

pub async fn follow_plan(kubernetes: &Kubernetes, tenant: &Tenant, plan: &str) -> Result<Tenant, kube::Error> {
    kubernetes.patch(tenant, json!({"spec": {"plan": plan}})).await
}

pub async fn store_ids(
    kubernetes: &Kubernetes,
    tenant: &Tenant,
    customer: &str,
    subscription: Option<&str>,
) -> Result<Tenant, kube::Error> {
    let ids = json!({"customerId": customer, "subscriptionId": subscription});
    kubernetes.patch(tenant, json!({"spec": {"billing": {"stripe": ids}}})).await
}

fn subscription(observed: &Observed) -> Option<&str> {
    observed.billing.as_ref()?.subscription.as_ref().map(|s| s.id.as_str())
}

pub async fn collect(stripe: &Stripe, observed: &Observed, on: bool) -> Result<Outcome, ProviderError> {
    if let Some(id) = subscription(observed) {
        stripe.set_collection(id, !on).await?;
    }
    Ok(Outcome::Done)
}

pub async fn refund(stripe: &Stripe, tenant: &Tenant, observed: &Observed) -> Result<Outcome, ProviderError> {
    let Some(subscription) = subscription(observed) else {
        return Ok(Outcome::Refunded(ObservedRefund { amount: 0, currency: None }));
    };
    stripe.refund(tenant.tenant_id(), subscription).await.map(Outcome::Refunded)
}

pub async fn cancel(stripe: &Stripe, tenant: &Tenant) -> Result<Outcome, ProviderError> {
    stripe.cancel(&payer(tenant)).await.map(|()| Outcome::Done)
}
