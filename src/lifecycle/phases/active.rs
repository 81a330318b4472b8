//! Keeps an Active tenant as its spec says, and welcomes its customer.

use super::provisioning;
use crate::api::ConditionStatus;
use crate::api::conditions::{API_KEY_READY, NAMESPACE_READY, PLAN_FOUND, WELCOME_EMAIL_SENT};
use crate::api::plan::LimitChanges;
use crate::lifecycle::agenda::{Concern, first_due};
use crate::lifecycle::concerns::dispute;
use crate::lifecycle::concerns::plan_change;
use crate::lifecycle::concerns::plan_obstacles::PLAN_NOT_FOUND;
use crate::lifecycle::concerns::{billed, courtesies, dunning, migration, notices, renewal, usage_notices};
use crate::lifecycle::status::{Draft, Summary};
use crate::lifecycle::{Decision, Effect, Failure, Input, Notice, Provider};

/// The most urgent first: what ends or begins the service, then what the status says, then e-mails to customers and
/// alerts to the platform team. So a mail server that hangs delays only e-mails.
const CONCERNS: [Concern; 13] = [
    start_over,
    key,
    billing,
    dunning::decide,
    dispute::decide,
    plan_change::decide,
    billed::decide,
    renewal::show,
    // After the concerns that need Stripe alone, so that an outage of the vector store delays no payment and no plan.
    namespace,
    migration::follow,
    facts,
    tell,
    |input| Some(next(input)),
];

pub fn decide(input: &Input) -> Decision {
    first_due(input, &CONCERNS)
}

/// An admin decided that an empty namespace is better than none.
fn start_over(input: &Input) -> Option<Decision> {
    let reason = format!("A retry was requested to recreate the {} namespace", Provider::VectorStore);
    namespace_missing(input).then(|| provisioning::start_over(input, &reason)).flatten()
}

/// The key that the spec asks for is in its Secret, and the status says so at once: web refuses the one before by it.
pub fn key(input: &Input) -> Option<Decision> {
    if input.observed.api_key != Some(true) {
        return Some(Decision::Act(vec![Effect::EnsureApiKey]));
    }
    // After a lost status, and of a tenant that is new, it is written with everything else.
    let replaced =
        input.tenant.status.api_key_generation.is_some_and(|there| there != input.tenant.spec.api_key_generation);
    if !replaced {
        return None;
    }
    let mut draft = Draft::new(input);
    show_key(&mut draft);
    draft.changed()
}

fn show_key(draft: &mut Draft) {
    draft.condition(API_KEY_READY, ConditionStatus::True, "Present", "The API key is in its Secret");
    draft.key_in_force();
}

/// Reads Stripe when something may have changed there, and resumes collection for a tenant that is served.
fn billing(input: &Input) -> Option<Decision> {
    let observed = input.observed;
    if observed.resync && input.by_stripe() && observed.billing.is_none() {
        return Some(Decision::Act(vec![Effect::ReadBilling]));
    }
    // A tenant that is to be suspended next stays as it is at Stripe.
    let wanted = input.tenant.spec.is_wanted();
    let subscription = observed.billing.as_ref()?.subscription.as_ref().filter(|_| wanted)?;
    let paused = subscription.resumable().then_some(Effect::ResumeCollection);
    let effects: Vec<_> = paused.into_iter().chain(renewal::reopen(input)).collect();
    (!effects.is_empty()).then_some(Decision::Act(effects))
}

fn namespace(input: &Input) -> Option<Decision> {
    let observed = input.observed;
    let unknown = observed.resync && !observed.namespace && !observed.namespace_missing;
    unknown.then(|| Decision::Act(vec![Effect::CheckNamespace]))
}

/// Waits until something is due by itself.
fn next(input: &Input) -> Decision {
    let waits = [
        courtesies::wait(input),
        dunning::wait(input),
        plan_change::wait(input),
        migration::wait(input),
        usage_notices::wait(input),
        namespace_missing(input).then_some(input.policy.resync),
        input.observed.failure.as_ref().map(|_| input.backoff()),
    ];
    Decision::Wait(waits.into_iter().flatten().min())
}

/// Whether the namespace was seen to be gone: now, or before and not found since.
fn namespace_missing(input: &Input) -> bool {
    let before = input.tenant.status.namespace_missing_since.is_some();
    input.observed.namespace_missing || (before && !input.observed.namespace)
}

/// How often a held welcome checks whether the overload is over, in seconds.
const HOLD_STEP: i64 = 2;

/// Tenants that still wait for their parts go before the e-mails of those that have them, within limits: payment to
/// welcome is promised within a minute.
fn held(input: &Input) -> bool {
    let since = input.tenant.status.provisioned_at.map(|at| input.now.since(at));
    let unwelcomed = !input.tenant.noted(&Notice::Welcome) && !input.observed.sent.contains(&Notice::Welcome);
    unwelcomed && input.observed.overloaded && since.is_some_and(|s| (0..input.policy.welcome_hold).contains(&s))
}

/// All e-mails and alerts of a tenant that is served, side by side. One that cannot be sent holds up no other.
pub fn tell(input: &Input) -> Option<Decision> {
    let mut due = dunning::due(input);
    due.extend(dispute::alert(input));
    due.extend(plan_change::news(input));
    due.extend(billed::alerts(input));
    due.extend(renewal::alert(input));
    due.extend(usage_notices::due(input));
    if namespace_missing(input) {
        due.push(Notice::NamespaceMissingAlert(input.tenant.run()));
    }
    let held = held(input);
    if !held {
        if !input.tenant.noted(&Notice::Welcome) {
            due.push(Notice::Welcome);
        }
        due.extend(courtesies::due(input));
    }
    // The welcome is never a reason to fail.
    if input.observed.unsent.contains_key(&Notice::Welcome) {
        due.push(Notice::WelcomeFailedAlert);
    }
    let again = notices::any_unsent(input, &due).then(|| input.notice_wait());
    let waits = [again, held.then_some(HOLD_STEP)];
    notices::tell(input, &due).or_else(|| waits.into_iter().flatten().min().map(|wait| Decision::Wait(Some(wait))))
}

/// Writes the status. A failure in this reconcile overrides what was recorded as ready.
fn facts(input: &Input) -> Option<Decision> {
    let observed = input.observed;
    let mut draft = Draft::new(input);
    if input.tenant.noted(&Notice::Welcome) {
        let message = "The mail server accepted the welcome e-mail";
        draft.condition(WELCOME_EMAIL_SENT, ConditionStatus::True, "Sent", message);
    } else if let Some(failure) = observed.unsent.get(&Notice::Welcome) {
        draft.condition(WELCOME_EMAIL_SENT, ConditionStatus::False, &failure.reason, &failure.message);
    }
    if observed.api_key == Some(true) {
        show_key(&mut draft);
    }
    if let Some(quota) = &mut draft.status.quota {
        quota.move_on(input.now);
    }
    if observed.namespace {
        draft.namespace_usable();
    }
    follow_plan(input, &mut draft);
    usage_notices::note(input, &mut draft);
    if let Some(billing) = &observed.billing {
        draft.billing_answers();
        if let Some(subscription) = &billing.subscription {
            draft.subscribed(subscription);
        }
    }
    dunning::show(input, &mut draft);
    for failure in observed.failed.values() {
        draft.failure(failure);
    }
    summarize(input, &mut draft);
    draft.changed()
}

/// The tenant is Ready even if a step fails, unless its own key or its namespace is missing.
fn summarize(input: &Input, draft: &mut Draft) {
    if namespace_missing(input) {
        // A namespace that vanished took the customer's documents along. An empty one in its place would hide it.
        let message = format!(
            "The {} namespace {} no longer exists, and the customer's documents with it. Restore it from a backup, or \
             run `kubectl tenant retry {}` to create an empty one with the sample documents.",
            Provider::VectorStore,
            input.tenant.data_namespace(),
            input.tenant.name
        );
        draft.status.namespace_missing_since.get_or_insert(input.now);
        draft.condition(NAMESPACE_READY, ConditionStatus::False, "NamespaceMissing", &message);
        return draft.summary(Summary::Stalled, "NamespaceMissing", &message);
    }
    let key = input.observed.failed.get(&Effect::EnsureApiKey).filter(|_| input.observed.api_key != Some(true));
    match key {
        Some(Failure { reason, message, .. }) => draft.summary(Summary::Reconciling, reason, message),
        None => dunning::summarize(input, draft),
    }
}

/// Edited limits, quota rules and features of the plan reach its tenants; models do not, since vectors of another model
/// would have to be made anew.
fn follow_plan(input: &Input, draft: &mut Draft) {
    let Some(plan) = input.plan else {
        let message =
            format!("Plan {:?} was deleted; the tenant's current limits stay in force", input.tenant.plan_in_force());
        draft.condition(PLAN_FOUND, ConditionStatus::False, PLAN_NOT_FOUND, &message);
        return;
    };
    draft.condition(PLAN_FOUND, ConditionStatus::True, "Found", "The plan exists");
    if plan.limit_changes == LimitChanges::NewTenants {
        return;
    }
    if let Some(config) = &mut draft.status.config {
        config.limits.clone_from(&plan.limits);
        config.quota.clone_from(&plan.quota);
        config.features.clone_from(&plan.features);
        config.api_access = Some(plan.has_api_access());
        config.sample_question.clone_from(&plan.sample_question);
    }
    if let Some(quota) = &mut draft.status.quota {
        quota.queries_limit = plan.limits.queries_per_month;
        quota.documents_limit = plan.limits.documents;
    }
}
