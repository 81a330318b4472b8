//! What the conditions of a tenant say.

use tenant_operator::api::TenantStatus;
use tenant_operator::api::conditions::{ConditionStatus, get};

/// Whether a status has this condition, for `World::wait`.
pub fn shows(condition: &'static str, status: ConditionStatus, reason: &'static str) -> impl Fn(&TenantStatus) -> bool {
    move |s| get(&s.conditions, condition).is_some_and(|c| c.status == status && c.reason == reason)
}

/// The reason of a condition. Empty if the status has no such condition.
pub fn reason(status: &TenantStatus, type_: &str) -> String {
    get(&status.conditions, type_).map(|c| c.reason.to_string()).unwrap_or_default()
}
