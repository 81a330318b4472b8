//! Making the tenant's parts, side by side where they do not need each other.

use super::facts::Samples;
use super::status::{Draft, Summary};
use super::{Decision, Effect, Failure, Input, Notice};
use crate::api::conditions::{API_KEY_READY, NAMESPACE_READY, PLAN_FOUND, SAMPLE_DATA_READY, SLOW, WELCOME_EMAIL_SENT};
use crate::api::phase::{EventType, TriggeredBy};
use crate::api::tenant::{PlanConfig, Quota};
use crate::api::{ConditionStatus, Phase, PlanSpec, SampleData, Timestamp};

/// A quota period, in seconds: 30 days.
const QUOTA_PERIOD: i64 = 30 * 24 * 3600;

pub fn decide(input: &Input) -> Decision {
    let Some(plan) = input.plan else { return plan_missing(input) };
    if let Some(failure) = &input.facts.failure {
        let optional = plan.sample_data == SampleData::BestEffort && failure.step == "SampleData";
        return if optional { complete(input, plan, Some(failure)) } else { failed_attempt(input, failure) };
    }
    if let Some(decision) = slow(input) {
        return decision;
    }
    if let Some(at) = input.tenant.status.provisioning.as_ref().and_then(|p| p.next_retry_at)
        && at > input.now
    {
        let wait = at.since(input.now);
        return Decision::Wait(Some(until_slow(input).map_or(wait, |slow| slow.min(wait))));
    }
    let facts = input.facts;
    let mut effects = Vec::new();
    if facts.api_key != Some(true) {
        effects.push(Effect::EnsureApiKey);
    }
    if input.by_stripe() && facts.billing.is_none() {
        effects.push(Effect::ReadBilling);
    }
    if !facts.namespace {
        effects.push(Effect::EnsureNamespace);
    } else if input.wants_samples() && facts.samples == Samples::Unknown {
        effects.push(Effect::StoreSamples);
    } else if input.wants_samples() && facts.samples == Samples::Stored {
        effects.push(Effect::VerifySamples);
    }
    if !effects.is_empty() {
        return Decision::Act(effects);
    }
    let subscription = facts.billing.as_ref().and_then(|b| b.subscription.as_ref());
    if subscription.is_some_and(|s| s.paused) {
        return Decision::Act(vec![Effect::ResumeCollection]);
    }
    complete(input, plan, None)
}

fn complete(input: &Input, plan: &PlanSpec, sample_failure: Option<&Failure>) -> Decision {
    let mut draft = Draft::new(input);
    let namespace = input.tenant.pinecone_namespace();
    draft.condition(NAMESPACE_READY, ConditionStatus::True, "Usable", "the Pinecone namespace is usable");
    draft.condition(API_KEY_READY, ConditionStatus::True, "Present", "the API key is in its Secret");
    match (plan.sample_data, sample_failure) {
        (SampleData::None, _) => {
            draft.condition(SAMPLE_DATA_READY, ConditionStatus::True, "NotWanted", "the plan has no sample documents");
        }
        (_, Some(f)) => draft.condition(SAMPLE_DATA_READY, ConditionStatus::False, &f.reason, &f.message),
        _ => draft.condition(
            SAMPLE_DATA_READY,
            ConditionStatus::True,
            "Seen",
            "the sample documents were seen by a query",
        ),
    }
    draft.condition(PLAN_FOUND, ConditionStatus::True, "Found", "the plan exists");
    if !input.tenant.noted(&Notice::Welcome) {
        draft.condition(WELCOME_EMAIL_SENT, ConditionStatus::Unknown, "Pending", "the welcome e-mail follows");
    }
    if crate::api::conditions::is_true(&draft.status.conditions, SLOW) {
        draft.condition(SLOW, ConditionStatus::False, "Active", "the tenant is Active");
    }
    draft.status.namespace = Some(namespace);
    draft.status.api_key_secret = Some(input.tenant.api_key_secret());
    draft.status.config = Some(PlanConfig {
        plan: input.tenant.spec.plan.clone(),
        limits: plan.limits.clone(),
        models: plan.models.clone(),
        features: plan.features.clone(),
    });
    draft.status.quota.get_or_insert(Quota {
        period_start: input.now,
        period_end: input.now.plus(QUOTA_PERIOD),
        queries_limit: plan.limits.queries_per_month,
        documents_limit: plan.limits.documents,
    });
    draft.status.api_key_created_at.get_or_insert(input.now);
    draft.status.provisioned_at.get_or_insert(input.now);
    draft.status.refund = None;
    if let Some(p) = &mut draft.status.provisioning {
        p.next_retry_at = None;
    }
    draft.enter(Phase::Active, EventType::Activate, TriggeredBy::System, "every step is done");
    draft.summary(Summary::Ready, "Active", "the tenant is ready for use");
    draft.changed().unwrap_or(Decision::Wait(None))
}

fn failed_attempt(input: &Input, failure: &Failure) -> Decision {
    let mut draft = Draft::new(input);
    let now = input.now;
    let mut p = draft.status.provisioning.clone().unwrap_or_else(|| input.fresh_run());
    p.attempts += 1;
    p.failed_step = Some(failure.step.clone());
    p.reason = Some(failure.reason.clone());
    p.last_error = Some(failure.message.clone());
    let wait = input
        .policy
        .wait_after(p.attempts, input.tenant.tenant_id())
        .filter(|_| failure.retryable)
        .map(|wait| wait.max(failure.retry_after.unwrap_or(0)));
    p.next_retry_at = wait.map(|wait| now.plus(wait));
    let condition = format!("{}Ready", failure.step);
    draft.condition(&condition, ConditionStatus::False, &failure.reason, &failure.message);
    let attempts = p.attempts;
    draft.status.provisioning = Some(p);
    if let Some(wait) = wait {
        let message = format!(
            "attempt {attempts} failed at {}: {}; the next attempt is in {wait} s",
            failure.step, failure.message
        );
        draft.summary(Summary::Reconciling, "Retrying", &message);
    } else {
        let message = format!("given up at {} after {attempts} attempt(s): {}", failure.step, failure.message);
        draft.enter(Phase::Failed, EventType::Fail, TriggeredBy::System, &message);
        draft.summary(Summary::Stalled, &failure.reason, &message);
    }
    draft.changed().unwrap_or(Decision::Wait(None))
}

fn plan_missing(input: &Input) -> Decision {
    let message = format!("there is no Plan named {:?} any more: create it again to go on", input.tenant.spec.plan);
    let mut draft = Draft::new(input);
    draft.condition(PLAN_FOUND, ConditionStatus::False, "PlanNotFound", &message);
    draft.summary(Summary::Stalled, "PlanNotFound", &message);
    draft.changed().or_else(|| slow(input)).unwrap_or_else(|| {
        let alert_again = input.facts.unsent.contains_key(&Notice::SlowAlert).then_some(input.policy.notice_retry);
        Decision::Wait(until_slow(input).or(alert_again))
    })
}

/// When the tenant counts as slow; None when it has not paid. A retry begins anew.
fn slow_at(input: &Input) -> Option<Timestamp> {
    let status = &input.tenant.status;
    Some(status.paid_at?.max(status.provisioning.as_ref()?.started_at).plus(input.policy.slow_after))
}

/// Seconds until then, while it is still to come.
fn until_slow(input: &Input) -> Option<i64> {
    slow_at(input).map(|at| at.since(input.now)).filter(|left| *left > 0)
}

/// Paid, and not Active after the normal time: a condition and an alert, long before it is Failed.
fn slow(input: &Input) -> Option<Decision> {
    if input.now < slow_at(input)? {
        return None;
    }
    let notice = Notice::SlowAlert;
    if input.facts.sent.contains(&notice) && !input.tenant.noted(&notice) {
        return Some(Decision::Act(vec![Effect::MarkSent(vec![notice])]));
    }
    if !input.tenant.noted(&notice) && !input.facts.unsent.contains_key(&notice) {
        return Some(Decision::Act(vec![Effect::Notify(notice)]));
    }
    let mut draft = Draft::new(input);
    draft.condition(SLOW, ConditionStatus::True, "SlowProvisioning", "paid, and not Active within the normal time");
    draft.changed()
}
