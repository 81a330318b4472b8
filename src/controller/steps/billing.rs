//! The customer's payment: the Checkout session, the truth read back, refunds.

use kube::ResourceExt;
use serde_json::json;

use super::identity::patch;
use crate::api::{Plan, Tenant};
use crate::controller::context::Context;
use crate::lifecycle::{Facts, Outcome, RefundFact};
use crate::providers::ProviderError;
use crate::providers::stripe::Payer;

async fn with_payer<T>(
    tenant: &Tenant,
    call: impl AsyncFnOnce(&Payer) -> Result<T, ProviderError>,
) -> Result<T, ProviderError> {
    let (namespace, name) = (tenant.namespace().unwrap_or_default(), tenant.name_any());
    let payer = Payer {
        tenant_id: tenant.spec.tenant_id.as_deref().unwrap_or_default(),
        namespace: &namespace,
        name: &name,
        email: &tenant.spec.admin_email,
        company: &tenant.spec.company_name,
        customer_id: tenant.spec.billing.stripe.as_ref().and_then(|s| s.customer_id.as_deref()),
    };
    call(&payer).await
}

pub async fn read(context: &Context, tenant: &Tenant) -> Result<Outcome, ProviderError> {
    with_payer(tenant, async |payer| context.providers.stripe.read(payer).await).await.map(Outcome::Billing)
}

pub async fn open_checkout(
    context: &Context,
    tenant: &Tenant,
    plan: Option<&Plan>,
    attempt: u32,
) -> Result<Outcome, ProviderError> {
    let price = plan.and_then(|p| p.spec.stripe_price_id.as_deref()).unwrap_or_default();
    let trial_days = plan.map_or(0, |p| p.spec.trial_days);
    let open = async |payer: &Payer| {
        context.providers.stripe.open_checkout(payer, price, &tenant.spec.plan, trial_days, attempt).await
    };
    with_payer(tenant, open).await.map(Outcome::Billing)
}

pub async fn next_checkout(context: &Context, tenant: &Tenant, attempt: u32) -> Result<Tenant, kube::Error> {
    patch(context, tenant, json!({"spec": {"billing": {"stripe": {"checkoutAttempt": attempt}}}})).await
}

pub async fn store_ids(
    context: &Context,
    tenant: &Tenant,
    customer: &str,
    subscription: &str,
) -> Result<Tenant, kube::Error> {
    let ids = json!({"customerId": customer, "subscriptionId": subscription});
    patch(context, tenant, json!({"spec": {"billing": {"stripe": ids}}})).await
}

fn subscription(facts: &Facts) -> Option<&str> {
    facts.billing.as_ref()?.subscription.as_ref().map(|s| s.id.as_str())
}

pub async fn collect(context: &Context, facts: &Facts, on: bool) -> Result<Outcome, ProviderError> {
    if let Some(id) = subscription(facts) {
        context.providers.stripe.set_collection(id, !on).await?;
    }
    Ok(Outcome::Done)
}

pub async fn refund(context: &Context, tenant: &Tenant, facts: &Facts) -> Result<Outcome, ProviderError> {
    let id = tenant.spec.tenant_id.as_deref().unwrap_or_default();
    let Some(subscription) = subscription(facts) else {
        return Ok(Outcome::Refunded(RefundFact { amount: 0, currency: None }));
    };
    context.providers.stripe.refund(id, subscription).await.map(Outcome::Refunded)
}

pub async fn cancel(context: &Context, tenant: &Tenant) -> Result<Outcome, ProviderError> {
    with_payer(tenant, async |payer| context.providers.stripe.cancel(payer).await).await?;
    Ok(Outcome::Done)
}
