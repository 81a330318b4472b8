//! Keeping an Active tenant right, and its welcome.

use super::status::{Draft, Summary};
use super::{
    Decision, Effect, Failure, Input, Notice, courtesies, dispute, dunning, migration, notices, plan_change,
    provisioning,
};
use crate::api::ConditionStatus;
use crate::api::conditions::{self, API_KEY_READY, BILLING_READY, NAMESPACE_READY, PLAN_FOUND, WELCOME_EMAIL_SENT};
use crate::api::plan::LimitChanges;

pub fn decide(input: &Input) -> Decision {
    if let Some(failure) = &input.observed.failure {
        let told = failed(input, failure).or_else(|| welcome(input)).or_else(|| plan_change::tell(input));
        return told.unwrap_or(Decision::Wait(Some(input.backoff())));
    }
    // Somebody decided that an empty namespace is better than none.
    if namespace_missing(input)
        && let Some(decision) =
            provisioning::start_over(input, "A retry was requested to recreate the Pinecone namespace")
    {
        return decision;
    }
    let effects = repairs(input);
    if !effects.is_empty() {
        return Decision::Act(effects);
    }
    if let Some(decision) = dunning::decide(input) {
        return decision;
    }
    if let Some(decision) = dispute::decide(input) {
        return decision;
    }
    if let Some(decision) = plan_change::decide(input) {
        return decision;
    }
    // After what needs Stripe alone: a Pinecone that is away holds up no payment and no plan.
    if input.observed.resync && !input.observed.namespace && !input.observed.namespace_missing {
        return Decision::Act(vec![Effect::CheckNamespace]);
    }
    if let Some(decision) = migration::follow(input) {
        return decision;
    }
    let urgent = welcome(input).or_else(|| missing(input)).or_else(|| plan_change::tell(input));
    let urgent = urgent.or_else(|| courtesies::send(input));
    urgent.unwrap_or_else(|| notices::wait_at_most(observe(input), next(input)))
}

/// Seconds until something is due by itself.
fn next(input: &Input) -> Option<i64> {
    [
        courtesies::wait(input),
        dunning::wait(input),
        plan_change::wait(input),
        migration::wait(input),
        dispute::wait(input),
    ]
    .into_iter()
    .flatten()
    .min()
}

fn repairs(input: &Input) -> Vec<Effect> {
    let observed = input.observed;
    let mut effects = Vec::new();
    if observed.api_key != Some(true) {
        effects.push(Effect::EnsureApiKey);
    }
    if observed.resync && input.by_stripe() && observed.billing.is_none() {
        effects.push(Effect::ReadBilling);
    }
    let subscription = observed.billing.as_ref().and_then(|b| b.subscription.as_ref());
    if subscription.is_some_and(|s| s.paused) {
        effects.push(Effect::ResumeCollection);
    }
    if subscription.is_some_and(|s| s.ends) {
        effects.push(Effect::RenewAgain);
    }
    effects
}

/// Shows a provider that fails. The tenant stays Ready unless its own key is missing.
fn failed(input: &Input, failure: &Failure) -> Option<Decision> {
    let mut draft = Draft::new(input);
    draft.failure(failure);
    if failure.step == "ApiKey" && input.observed.api_key != Some(true) {
        draft.summary(Summary::Reconciling, &failure.reason, &failure.message);
    }
    draft.changed()
}

/// Whether the namespace was seen to be gone: now, or before and not found since.
fn namespace_missing(input: &Input) -> bool {
    let shown = conditions::get(&input.tenant.status.conditions, NAMESPACE_READY);
    let before = shown.is_some_and(|c| c.reason == "NamespaceMissing");
    input.observed.namespace_missing || (before && !input.observed.namespace)
}

/// A namespace that vanished took the customer's documents along. It is shown; an empty one in its place would hide it.
fn missing(input: &Input) -> Option<Decision> {
    if !namespace_missing(input) {
        return None;
    }
    let alert = [Notice::NamespaceMissingAlert(input.tenant.run())];
    if let Some(decision) = notices::tell(input, &alert) {
        return Some(decision);
    }
    let message = format!(
        "The Pinecone namespace {} no longer exists, and the customer's documents with it. Restore it from a backup, or \
         run `kubectl tenant retry {}` to create an empty one with the sample documents.",
        input.tenant.pinecone_namespace(),
        input.tenant.name
    );
    let mut draft = Draft::new(input);
    draft.condition(NAMESPACE_READY, ConditionStatus::False, "NamespaceMissing", &message);
    draft.summary(Summary::Stalled, "NamespaceMissing", &message);
    let again = if notices::any_unsent(input, &alert) { input.notice_wait() } else { input.policy.resync };
    Some(draft.changed().unwrap_or(Decision::Wait(Some(again))))
}

/// How often a held welcome checks whether the overload is over, in seconds.
const HOLD_STEP: i64 = 2;

/// Tenants that still wait for their parts go before the e-mails of those that have them, within limits: payment to
/// welcome is promised within a minute.
fn held(input: &Input) -> bool {
    let since = input.tenant.status.provisioned_at.map(|at| input.now.since(at));
    input.observed.overloaded && since.is_some_and(|s| (0..input.policy.welcome_hold).contains(&s))
}

/// The welcome e-mail: once, after Active, and never a reason to fail.
fn welcome(input: &Input) -> Option<Decision> {
    let (observed, tenant) = (input.observed, input.tenant);
    if tenant.noted(&Notice::Welcome) {
        return None;
    }
    let Some(failure) = observed.unsent.get(&Notice::Welcome) else {
        if held(input) && !observed.sent.contains(&Notice::Welcome) {
            return Some(Decision::Wait(Some(HOLD_STEP)));
        }
        return notices::tell(input, &[Notice::Welcome]);
    };
    if let Some(decision) = notices::tell(input, &[Notice::WelcomeFailedAlert]) {
        return Some(decision);
    }
    let mut draft = Draft::new(input);
    draft.condition(WELCOME_EMAIL_SENT, ConditionStatus::False, &failure.reason, &failure.message);
    Some(draft.changed().unwrap_or(Decision::Wait(Some(input.notice_wait()))))
}

fn observe(input: &Input) -> Decision {
    let mut draft = Draft::new(input);
    draft.condition(WELCOME_EMAIL_SENT, ConditionStatus::True, "Sent", "The mail server accepted the welcome e-mail");
    draft.condition(API_KEY_READY, ConditionStatus::True, "Present", "The API key is in its Secret");
    draft.key_in_force();
    if let Some(quota) = &mut draft.status.quota {
        (quota.period_start, quota.period_end) = quota.period_at(input.now);
    }
    if input.observed.namespace {
        draft.condition(NAMESPACE_READY, ConditionStatus::True, "Usable", "The Pinecone namespace is usable");
    }
    follow_plan(input, &mut draft);
    if let Some(billing) = &input.observed.billing {
        draft.recovered(BILLING_READY, "Stripe answers");
        if let Some(subscription) = &billing.subscription {
            draft.subscribed(subscription);
        }
    }
    dunning::show(input, &mut draft);
    dunning::summarize(input, &mut draft);
    // What changes at a provider is found by the bulk resync.
    draft.changed().unwrap_or(Decision::Wait(None))
}

/// Edited limits and features of the plan reach its tenants; models do not, since vectors of another model would have
/// to be made anew.
fn follow_plan(input: &Input, draft: &mut Draft) {
    let Some(plan) = input.plan else {
        let message =
            format!("Plan {:?} was deleted; the tenant's current limits stay in force", input.tenant.plan_in_force());
        draft.condition(PLAN_FOUND, ConditionStatus::False, "PlanNotFound", &message);
        return;
    };
    draft.condition(PLAN_FOUND, ConditionStatus::True, "Found", "The plan exists");
    if plan.limit_changes == LimitChanges::NewTenants {
        return;
    }
    if let Some(config) = &mut draft.status.config {
        config.limits.clone_from(&plan.limits);
        config.features.clone_from(&plan.features);
        config.sample_question.clone_from(&plan.sample_question);
    }
    if let Some(quota) = &mut draft.status.quota {
        quota.queries_limit = plan.limits.queries_per_month;
        quota.documents_limit = plan.limits.documents;
    }
}
