//! What Stripe has of a tenant: subscription, refund, dispute, and usage that was sent. The page only links there.

use super::Fact;
use crate::admin::attention::refund;
use crate::api::money::thousands;
use crate::api::tenant::BillingMode;
use crate::api::{Phase, Tenant, TenantStatus, Timestamp, UsageBilling};

const DASHBOARD: &str = "https://dashboard.stripe.com/";

/// Name and value of what is known. Nothing of a tenant that is billed by hand.
pub fn of(tenant: &Tenant, status: &TenantStatus) -> Vec<Fact> {
    if tenant.spec.billing.mode == BillingMode::Manual {
        return Vec::new();
    }
    let refs = tenant.spec.billing.stripe.clone().unwrap_or_default();
    let test = in_test_mode(status);
    let linked = |name, folder: &str, id: Option<String>| {
        id.map(|id| Fact { name, href: dashboard(test, folder, &id), value: id })
    };
    let fact = |name, value: Option<String>| value.map(|value| Fact::new(name, value));
    let time = |at: Option<Timestamp>| at.map(|at| at.to_string());
    let concerns_refund =
        status.phase == Some(Phase::Failed) || status.refund.is_some() || status.refund_owed_since.is_some();
    let facts = [
        fact("Subscription is", status.subscription.as_ref().map(ToString::to_string)),
        linked("Customer", "customers", refs.customer_id),
        linked("Subscription", "subscriptions", refs.subscription_id),
        fact("Payment or trial confirmed", time(status.paid_at)),
        fact("Trial ends", time(status.trial_ends_at)),
        fact("Payment late since", time(status.payment_late_since)),
        fact("Payment link ends", status.checkout.as_ref().map(|checkout| checkout.expires_at.to_string())),
        fact("Refund", concerns_refund.then(|| refund(tenant))),
        fact("Refund owed since", time(status.refund_owed_since)),
        fact("Dispute", status.dispute.map(|state| state.reason().to_owned())),
    ];
    let usage = status.usage_billing.as_deref().map(usage).unwrap_or_default();
    facts.into_iter().flatten().chain(usage).collect()
}

/// What was sent of usage, what waits, and what differs.
fn usage(billing: &UsageBilling) -> Vec<Fact> {
    let sent = billing.meters.iter().map(|meter| {
        let (amount, unit) = (thousands(meter.sent), meter.unit.in_plans());
        Fact::new("Usage sent", format!("{amount} {unit} from {} to {}", meter.since, meter.through))
    });
    let waiting = billing.waiting.iter().map(|waiting| {
        let (amount, unit) = (thousands(waiting.amount), waiting.usage.unit.in_plans());
        Fact::new("Usage waits", format!("{amount} {unit} until {} have no price", waiting.until))
    });
    let differing = billing.differences.iter().map(|difference| {
        let unit = difference.unit.in_plans();
        let [sent, stripe] = [difference.sent, difference.at_stripe].map(thousands);
        Fact::new("Usage differs", format!("{sent} {unit} were sent, and Stripe has {stripe}"))
    });
    let by_hand =
        billing.invoice_by_hand.then(|| Fact::new("Usage to invoice by hand", "see the condition UsageBilled"));
    sent.chain(waiting).chain(differing).chain(by_hand).collect()
}

/// Whether the account is in test mode, as far as the tenant shows it: only a payment link says so.
fn in_test_mode(status: &TenantStatus) -> bool {
    status.checkout.as_ref().is_some_and(|checkout| checkout.session_id.starts_with("cs_test_"))
}

/// Where an object is in Stripe's dashboard. None for what is no id of Stripe's: a manifest may say anything.
fn dashboard(test: bool, folder: &str, id: &str) -> Option<String> {
    let is_id = !id.is_empty() && id.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let mode = if test { "test/" } else { "" };
    is_id.then(|| format!("{DASHBOARD}{mode}{folder}/{id}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_id_becomes_a_link() {
        let link = |id| dashboard(false, "customers", id);
        assert_eq!(link("cus_1PgafmB7"), Some("https://dashboard.stripe.com/customers/cus_1PgafmB7".into()));
        for wrong in ["", "../../evil", "cus_1?x=1", "cus 1", "cus_1\u{202e}", "cus_1\"onclick=\""] {
            assert_eq!(link(wrong), None, "{wrong}");
        }
        let test = dashboard(true, "subscriptions", "sub_1");
        assert_eq!(test, Some("https://dashboard.stripe.com/test/subscriptions/sub_1".into()));
    }
}
