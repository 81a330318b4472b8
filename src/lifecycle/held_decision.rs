//! What the operator holds for a tenant until a person confirms it with `kubectl tenant confirm`.

use super::{Fault, Provider, Reason, held};
use crate::api::{CONFIRM_ANNOTATION, CUSTOMER_GONE_ANNOTATION, Condition, ConditionStatus, Tenant};

/// The held decision of a tenant, as a sentence, and the annotation that confirms it.
#[derive(Debug, PartialEq, Eq)]
pub struct HeldDecision {
    /// What is held.
    pub why: String,
    /// The annotation that confirms it.
    pub annotation: &'static str,
    /// The value of the annotation, which confirms nothing else.
    pub value: String,
}

impl HeldDecision {
    /// The decision that is held for a tenant, if one is.
    pub fn of(tenant: &Tenant) -> Option<Self> {
        let status = tenant.status.as_ref()?;
        if let Some((harm, token)) = held(status) {
            return Some(Self { why: harm.reason().into(), annotation: CONFIRM_ANNOTATION, value: token });
        }
        let customer = tenant.spec.billing.stripe.as_ref()?.customer_id.clone()?;
        // Each phase shows it in the condition of what Stripe was asked for: a payment, a refund, the cleanup.
        let unknown = Reason::Provider(Provider::Stripe, Fault::CustomerUnknown).to_string();
        let asks = |c: &Condition| c.status != ConditionStatus::True && *c.reason == *unknown;
        status.conditions.iter().any(asks).then(|| Self {
            why: format!("Stripe does not know customer {customer}"),
            annotation: CUSTOMER_GONE_ANNOTATION,
            value: customer,
        })
    }
}
