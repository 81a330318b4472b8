//! What a tenant is, and what became of the attempts to set it up.

use super::Fact;
use crate::api::tenant::BillingMode;
use crate::api::{Phase, Tenant, TenantStatus, Timestamp, size};
use crate::plain::plain;

/// Name and value of what is known, apart from billing.
pub fn of(tenant: &Tenant, status: &TenantStatus) -> Vec<Fact> {
    let place = tenant.place();
    let (wanted, plan) = (&tenant.spec.plan, tenant.plan_in_force());
    let time = |at: Option<Timestamp>| at.map(|at| at.to_string());
    let export = status.export.as_ref();
    let facts = [
        ("E-mail", Some(plain(&tenant.spec.admin_email))),
        ("Plan", Some(plan.to_owned())),
        ("Wanted plan", (wanted != plan).then(|| wanted.clone())),
        ("Billing", Some(billing(tenant).to_owned())),
        ("Tenant id", Some(tenant.tenant_id().to_owned())),
        ("Object", Some(format!("{}/{}", place.namespace, place.name))),
        ("Region", status.region.as_ref().map(ToString::to_string)),
        ("Pinecone namespace", status.namespace.clone()),
        ("Wish", wish(tenant)),
        ("Active since", time(status.provisioned_at)),
        ("Erased from", time(status.erases_at.filter(|_| status.phase == Some(Phase::Deleting)))),
        (
            "Export",
            export.map(|export| format!("{:?} since {}, {}", export.state, export.started_at, bytes(export.bytes))),
        ),
    ];
    let set = facts.into_iter().filter_map(|(name, value)| Some(Fact::new(name, value?)));
    set.chain(attempts(status)).collect()
}

fn bytes(bytes: u64) -> String {
    size(i64::try_from(bytes).unwrap_or(i64::MAX))
}

const fn billing(tenant: &Tenant) -> &'static str {
    match tenant.spec.billing.mode {
        BillingMode::Stripe => "Stripe",
        BillingMode::Manual if tenant.spec.billing.approved => "By hand, approved",
        BillingMode::Manual => "By hand, not approved",
    }
}

/// What was asked for last, and who asked.
fn wish(tenant: &Tenant) -> Option<String> {
    let suspended = tenant.spec.suspension.as_ref().map(|wish| format!("Suspended by {wish} at {}", wish.at));
    let other = tenant.spec.wisher().map(|wish| format!("{} by {wish} at {}", wish.desired, wish.at));
    suspended.or(other).map(|text| plain(&text))
}

fn attempts(status: &TenantStatus) -> Vec<Fact> {
    let Some(run) = &status.provisioning else { return Vec::new() };
    let time = |at: Option<Timestamp>| at.map(|at| at.to_string());
    let facts = [
        ("Set up since", Some(run.started_at.to_string())),
        ("Attempts that failed", (run.attempts > 0).then(|| run.attempts.to_string())),
        ("Step that failed", run.failed_step.clone()),
        ("Reason", run.reason.clone()),
        ("Last error", run.last_error.as_deref().map(plain)),
        ("Next attempt", time(run.next_retry_at)),
        ("On hold since", time(run.held_since)),
    ];
    facts.into_iter().filter_map(|(name, value)| Some(Fact::new(name, value?))).collect()
}
