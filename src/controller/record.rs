//! Writing the status, and telling of what changed.

use kube::api::PostParams;
use kube::{Api, ResourceExt};

use super::context::Context;
use crate::api::conditions::{self, CLEANED_UP, PLAN_FOUND, SLOW, WELCOME_EMAIL_SENT};
use crate::api::{ConditionStatus, Phase, Tenant, TenantStatus};

/// Replaces the status. The resource version guards it: a decision that rests on an old object is refused.
pub async fn status(context: &Context, tenant: &Tenant, status: TenantStatus) -> Result<Tenant, kube::Error> {
    let api: Api<Tenant> = Api::namespaced(context.client.clone(), &tenant.namespace().unwrap_or_default());
    let moved = tenant.status.as_ref().and_then(|s| s.phase) != status.phase;
    let mut wanted = tenant.clone();
    wanted.status = Some(status);
    let params = PostParams { field_manager: Some("tenant-operator-controller".into()), ..PostParams::default() };
    context.metrics.api_writes.get_or_create(&if moved { "phase" } else { "condition" }.into()).inc();
    let mut written = api.replace_status(&tenant.name_any(), &params, &wanted).await?;
    written.managed_fields_mut().clear();
    tell(context, tenant, &written);
    Ok(written)
}

fn tell(context: &Context, before: &Tenant, after: &Tenant) {
    let Some(new) = &after.status else { return };
    let old = before.status.as_ref();
    let attempts = |s: Option<&TenantStatus>| s.and_then(|s| s.provisioning.as_ref()).map_or(0, |p| p.attempts);
    let message = new.message.clone().unwrap_or_default();
    tell_conditions(context, old, after, new);
    if old.and_then(|s| s.phase) == new.phase {
        if attempts(Some(new)) > attempts(old) {
            context.events.warn(after, "AttemptFailed", message);
        }
        return;
    }
    let Some(phase) = new.phase else { return };
    tracing::info!(tenant = %after.name_any(), %phase, %message, "phase changed");
    match phase {
        Phase::Failed => {
            let step = new.provisioning.as_ref().and_then(|p| p.failed_step.clone()).unwrap_or_default();
            context.metrics.provisioning_failures.get_or_create(&step.as_str().into()).inc();
            context.events.warn(after, "Failed", message);
        }
        _ => context.events.normal(after, &phase.to_string(), message),
    }
    if let (Phase::Active, Some(paid), Some(done)) = (phase, new.paid_at, new.provisioned_at) {
        #[allow(clippy::cast_precision_loss)]
        context.metrics.provisioning_duration.observe(done.since(paid) as f64);
    }
}

/// The conditions that somebody on call wants to hear of, when they turn to this status.
const TOLD: [(&str, ConditionStatus); 4] = [
    (SLOW, ConditionStatus::True),
    (WELCOME_EMAIL_SENT, ConditionStatus::False),
    (PLAN_FOUND, ConditionStatus::False),
    (CLEANED_UP, ConditionStatus::False),
];

fn tell_conditions(context: &Context, old: Option<&TenantStatus>, tenant: &Tenant, new: &TenantStatus) {
    for (type_, bad) in TOLD {
        let now = conditions::get(&new.conditions, type_).filter(|c| c.status == bad);
        let before = old.and_then(|s| conditions::get(&s.conditions, type_)).map(|c| c.status);
        if let Some(condition) = now.filter(|_| before != Some(bad)) {
            context.events.warn(tenant, &condition.reason, condition.message.clone());
        }
    }
}
