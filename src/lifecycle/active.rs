//! Keeping an Active tenant right, and its welcome.

use super::status::{Draft, Summary};
use super::{Decision, Effect, Input, Notice};
use crate::api::ConditionStatus;
use crate::api::conditions::{API_KEY_READY, PLAN_FOUND, WELCOME_EMAIL_SENT};

pub fn decide(input: &Input) -> Decision {
    let facts = input.facts;
    if let Some(failure) = &facts.failure {
        let mut draft = Draft::new(input);
        if facts.api_key != Some(true) {
            draft.condition(API_KEY_READY, ConditionStatus::False, &failure.reason, &failure.message);
            draft.summary(Summary::Reconciling, &failure.reason, &failure.message);
        }
        return draft.changed().unwrap_or(Decision::Wait(Some(input.policy.notice_retry)));
    }
    let mut effects = Vec::new();
    if facts.api_key != Some(true) {
        effects.push(Effect::EnsureApiKey);
    }
    if facts.resync && !facts.namespace {
        effects.push(Effect::EnsureNamespace);
    }
    if facts.resync && input.by_stripe() && facts.billing.is_none() {
        effects.push(Effect::ReadBilling);
    }
    let subscription = facts.billing.as_ref().and_then(|b| b.subscription.as_ref());
    if subscription.is_some_and(|s| s.paused) {
        effects.push(Effect::ResumeCollection);
    }
    if !effects.is_empty() {
        return Decision::Act(effects);
    }
    welcome(input).unwrap_or_else(|| observe(input))
}

/// How often a held welcome looks whether the rush is over, in seconds.
const HOLD_STEP: i64 = 2;

/// Tenants that still wait for their parts go before the e-mails of those that have them, within limits: payment to
/// welcome is promised within a minute.
fn held(input: &Input) -> bool {
    let since = input.tenant.status.provisioned_at.map(|at| input.now.since(at));
    input.facts.busy && since.is_some_and(|s| (0..input.policy.welcome_hold).contains(&s))
}

/// The welcome e-mail: once, after Active, and never a reason to fail.
fn welcome(input: &Input) -> Option<Decision> {
    let (facts, tenant) = (input.facts, input.tenant);
    if tenant.noted(&Notice::Welcome) {
        return None;
    }
    if facts.sent.contains(&Notice::Welcome) {
        return Some(Decision::Act(vec![Effect::MarkSent(vec![Notice::Welcome])]));
    }
    let Some(failure) = facts.unsent.get(&Notice::Welcome) else {
        if held(input) {
            return Some(Decision::Wait(Some(HOLD_STEP)));
        }
        return Some(Decision::Act(vec![Effect::Notify(Notice::Welcome)]));
    };
    let alert = Notice::WelcomeFailedAlert;
    if !tenant.noted(&alert) && facts.sent.contains(&alert) {
        return Some(Decision::Act(vec![Effect::MarkSent(vec![alert])]));
    }
    if !tenant.noted(&alert) && !facts.unsent.contains_key(&alert) {
        return Some(Decision::Act(vec![Effect::Notify(alert)]));
    }
    let mut draft = Draft::new(input);
    draft.condition(WELCOME_EMAIL_SENT, ConditionStatus::False, &failure.reason, &failure.message);
    Some(draft.changed().unwrap_or(Decision::Wait(Some(input.notice_wait()))))
}

fn observe(input: &Input) -> Decision {
    let mut draft = Draft::new(input);
    draft.condition(
        WELCOME_EMAIL_SENT,
        ConditionStatus::True,
        "Sent",
        "the welcome e-mail was handed to the mail server",
    );
    draft.condition(API_KEY_READY, ConditionStatus::True, "Present", "the API key is in its Secret");
    if input.plan.is_some() {
        draft.condition(PLAN_FOUND, ConditionStatus::True, "Found", "the plan exists");
    } else {
        let message = format!(
            "there is no Plan named {:?} any more; the tenant goes on with the limits it was given",
            input.tenant.spec.plan
        );
        draft.condition(PLAN_FOUND, ConditionStatus::False, "PlanNotFound", &message);
    }
    if let Some(subscription) = input.facts.billing.as_ref().and_then(|b| b.subscription.as_ref()) {
        draft.status.subscription = Some(subscription.status.clone());
        draft.status.trial_ends_at = subscription.trial_ends_at;
    }
    draft.summary(Summary::Ready, "Active", "the tenant is ready for use");
    draft.changed().unwrap_or(Decision::Wait(Some(input.policy.resync)))
}
