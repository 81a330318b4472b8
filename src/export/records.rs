//! What is known of a tenant beside its documents, as it is exported: nothing of it depends on the time of the export.

use kube::ResourceExt;
use serde_json::{Map, Value, json};

use crate::api::{
    MILESTONES, SIGNUP_ANNOTATION, Tenant, UNSUBSCRIBED_ANNOTATION, Usage, VERIFIED_ANNOTATION, reached_at,
};

/// Who the customer is, and what they bought.
pub fn profile(tenant: &Tenant) -> Value {
    let status = tenant.status.clone().unwrap_or_default();
    let config = status.config.as_ref();
    json!({
        "tenant_id": tenant.tenant_id(),
        "name": tenant.name_any(),
        "company_name": tenant.spec.company_name,
        "admin_email": tenant.spec.admin_email,
        "email_verified": tenant.annotations().contains_key(VERIFIED_ANNOTATION),
        "plan": tenant.plan_in_force(),
        "limits": config.map(|c| &c.limits),
        "models": config.map(|c| &c.models),
        "settings": tenant.spec.settings,
        "region": status.region,
        "billing_mode": tenant.spec.billing.mode,
        "stripe_customer": tenant.spec.billing.stripe.as_ref().and_then(|refs| refs.customer_id.as_ref()),
        "created_at": tenant.creation_timestamp().map(|at| crate::api::Timestamp::from(at.0)),
        "paid_at": status.paid_at,
        "active_since": status.provisioned_at,
        "trial_ends_at": status.trial_ends_at,
    })
}

/// What the customer agreed to, when and from where; and what they reached.
pub fn consent(tenant: &Tenant) -> Value {
    let annotations = tenant.annotations();
    let signup = annotations.get(SIGNUP_ANNOTATION).and_then(|text| serde_json::from_str::<Value>(text).ok());
    let reached: Map<String, Value> =
        MILESTONES.iter().filter_map(|name| Some(((*name).to_owned(), json!(reached_at(tenant, name)?)))).collect();
    json!({
        "signup": signup,
        "terms": tenant.spec.terms,
        "unsubscribed": annotations.get(UNSUBSCRIBED_ANNOTATION).is_some_and(|v| v == "true"),
        "milestones": reached,
    })
}

/// What was used of the plan.
pub fn usage(tenant: &Tenant) -> Value {
    let used = Usage::shown(tenant);
    json!({"period": used.period, "queries": used.queries, "documents": used.documents, "bytes": used.bytes})
}

/// Every change of phase that is known, a line each.
pub fn transitions(tenant: &Tenant) -> serde_json::Result<String> {
    let status = tenant.status.clone().unwrap_or_default();
    let lines: serde_json::Result<Vec<_>> = status.transitions.iter().map(serde_json::to_string).collect();
    Ok(lines?.into_iter().map(|line| line + "\n").collect())
}
