//! Writes the status, and reports what changed in logs, Events and metrics.

use kube::ResourceExt;

use crate::api::conditions::{
    self, API_KEY_READY, BILLING_READY, CLEANED_UP, HELD, IDENTITY_VERIFIED, NAMESPACE_READY, PLAN_FOUND,
    PLAN_IN_FORCE, PRICE_AS_PLANNED, REFUNDED, SINGLE_SUBSCRIPTION, SLOW, WELCOME_EMAIL_SENT,
};
use crate::api::status::PlanChangeState;
use crate::api::{Condition, ConditionStatus, Phase, Tenant, TenantStatus};
use crate::controller::context::Context;
use crate::events::Event;
use crate::lifecycle::{Blame, Failure, Observed, Outcome, Reason, Step, shipped};
use crate::telemetry::Span;

/// Replaces the status. The resource version guards it: a decision that rests on an old object is refused. `last` is
/// the tenant as it was last written, where a status between that one and this was held back.
pub async fn status(
    context: &Context,
    last: Option<&Tenant>,
    tenant: &Tenant,
    status: TenantStatus,
) -> Result<Tenant, kube::Error> {
    let moved = last.unwrap_or(tenant).status.as_ref().and_then(|s| s.phase) != status.phase;
    let kind = if moved { "phase" } else { "condition" };
    let written = context.kubernetes.replace_status(tenant, kind, status).await?;
    if let Some(last) = last {
        tell(context, last, tenant);
    }
    tell(context, tenant, &written);
    Ok(written)
}

fn tell(context: &Context, before: &Tenant, after: &Tenant) {
    let Some(new) = &after.status else { return };
    let old = before.status.as_ref();
    let attempts = |s: Option<&TenantStatus>| s.and_then(|s| s.provisioning.as_ref()).map_or(0, |p| p.attempts);
    let message = new.message.as_deref().unwrap_or_default().to_owned();
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
        Phase::PendingPayment
        | Phase::Provisioning
        | Phase::Active
        | Phase::Upgrading
        | Phase::Downgrading
        | Phase::Suspended
        | Phase::Deleting
        | Phase::Deleted => context.events.normal(after, &phase.to_string(), message),
        Phase::Failed => {
            let step = new.provisioning.as_ref().and_then(|p| p.failed_step.clone()).unwrap_or_default();
            context.metrics.provisioning_failures.get_or_create(&step.as_str().into()).inc();
            context.events.warn(after, "Failed", message);
        }
    }
    let before = old.and_then(|s| s.phase);
    if matches!(phase, Phase::Active | Phase::Failed) && before == Some(Phase::Provisioning) {
        trace(after, phase);
    }
    if let (Some(Phase::Provisioning), Phase::Active, Some(paid), Some(done)) =
        (before, phase, new.paid_at, new.provisioned_at)
    {
        #[allow(clippy::cast_precision_loss)]
        context.metrics.provisioning_duration.observe(done.since(paid) as f64);
    }
}

/// The tenant's whole way, in its trace.
fn trace(tenant: &Tenant, phase: Phase) {
    let created = tenant.metadata.creation_timestamp.as_ref().map(|at| at.0.into());
    let Some((uid, created)) = tenant.metadata.uid.as_deref().zip(created) else { return };
    let span = Span::whole(uid, created);
    span.set("tenant.name", tenant.name_any());
    span.set("tenant.phase", phase.to_string());
    span.set("tenant.plan", tenant.spec.plan.as_str());
    if phase == Phase::Failed {
        span.fail("provisioning failed");
    }
}

/// The conditions that get a warning when they turn to this status, so that the admin on call sees them.
const TOLD: [(&str, ConditionStatus); 13] = [
    (HELD, ConditionStatus::True),
    (SLOW, ConditionStatus::True),
    (WELCOME_EMAIL_SENT, ConditionStatus::False),
    (PLAN_FOUND, ConditionStatus::False),
    (PLAN_IN_FORCE, ConditionStatus::False),
    (PRICE_AS_PLANNED, ConditionStatus::False),
    (SINGLE_SUBSCRIPTION, ConditionStatus::False),
    (CLEANED_UP, ConditionStatus::False),
    (IDENTITY_VERIFIED, ConditionStatus::False),
    (API_KEY_READY, ConditionStatus::False),
    (NAMESPACE_READY, ConditionStatus::False),
    (BILLING_READY, ConditionStatus::False),
    (REFUNDED, ConditionStatus::False),
];

/// Whether the condition is worth a warning.
fn told(condition: &Condition, status: &TenantStatus, claimed_elsewhere: bool) -> bool {
    use PlanChangeState::{Preparing, Running, Scheduled};
    // A plan change that makes progress is no reason to warn.
    let progress = status.plan_change.as_ref().is_some_and(|c| matches!(c.state, Preparing | Scheduled | Running));
    if condition.type_ == PLAN_IN_FORCE && progress {
        return false;
    }
    let bad = TOLD.iter().any(|(type_, bad)| condition.type_ == *type_ && condition.status == *bad);
    bad || (condition.type_ == IDENTITY_VERIFIED && claimed_elsewhere)
}

fn tell_conditions(context: &Context, old: Option<&TenantStatus>, tenant: &Tenant, new: &TenantStatus) {
    let claimed_elsewhere = !context.claims.rivals(tenant).named.is_empty();
    for condition in new.conditions.iter().filter(|c| told(c, new, claimed_elsewhere)) {
        let before = old.and_then(|s| conditions::get(&s.conditions, &condition.type_));
        if before.is_none_or(|before| !before.says_what(condition)) {
            context.events.warn(tenant, &condition.reason, condition.message.to_string());
        }
    }
}

/// Ships the transitions that are not shipped yet to the transition log, and the milestones among them to the stream of
/// activation events. A transition leaves the status only after that.
pub async fn ship(context: &Context, tenant: &Tenant, observed: &Observed) -> Outcome {
    let status = tenant.status.clone().unwrap_or_default();
    let shipped = shipped(&status, observed);
    let new: Vec<_> = status.transitions.into_iter().filter(|t| t.seq > shipped).collect();
    let last = new.last().map_or(shipped, |t| t.seq);
    let milestones: Vec<_> = new.iter().filter_map(|transition| Event::of_transition(tenant, transition)).collect();
    let failed = if !context.transitions.keep(&new).await {
        Some("Changes of phase cannot be written to their file (TRANSITIONS_FILE)")
    } else if !context.activation.ship(&context.metrics, &milestones).await {
        Some("Activation events cannot be written to their file (EVENTS_FILE)")
    } else {
        None
    };
    if let Some(message) = failed {
        let failure = Failure::new(Step::Outbox, Reason::OutboxNotWritten, message, Blame::Admin);
        context.metrics.step_failures.get_or_create(&failure.reason.to_string().as_str().into()).inc();
        context.incidents.raise(&failure).await;
        return Outcome::Failed(failure);
    }
    context.incidents.clear(|reason| *reason == Reason::OutboxNotWritten);
    context.memory.remember(&tenant.uid().unwrap_or_default(), |m| m.shipped = m.shipped.max(last));
    Outcome::Shipped(last)
}
