//! What the status of a tenant shows of its usage at Stripe.

use super::trouble::Trouble;
use crate::api::conditions::{self, USAGE_BILLED};
use crate::api::{Condition, ConditionStatus, Tenant, TenantStatus, Timestamp, UsageBilling};

/// The status that is to be written, if it differs. `quiet`: a trouble is there that is not worth to be shown yet.
pub fn status(
    tenant: &Tenant,
    billing: Option<UsageBilling>,
    trouble: Option<&Trouble>,
    quiet: bool,
    now: Timestamp,
) -> Option<TenantStatus> {
    let before = tenant.status.as_ref()?;
    let mut status = before.clone();
    if let Some(billing) = billing {
        // A tenant that never had a price by use shows nothing.
        let nothing = billing.meters.is_empty() && billing.replace_at.is_none() && billing.waiting.is_empty();
        status.usage_billing = Some(Box::new(billing)).filter(|_| !nothing);
    }
    let shown = conditions::get(&status.conditions, USAGE_BILLED);
    let (value, reason, message) = match trouble {
        Some(trouble) => (ConditionStatus::False, trouble.reason(), trouble.to_string()),
        None if quiet => return (status != *before).then_some(status),
        None => (ConditionStatus::True, "Sent", "Stripe has all usage of the hours that are over".to_owned()),
    };
    if trouble.is_some() || status.usage_billing.is_some() || shown.is_some() {
        let condition = Condition {
            type_: USAGE_BILLED.into(),
            status: value,
            reason: reason.into(),
            message: message.into(),
            last_transition_time: now,
            observed_generation: tenant.metadata.generation,
        };
        conditions::show(&mut status.conditions, condition);
    }
    (status != *before).then_some(status)
}
