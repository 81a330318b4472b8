//! Creates the tenant's parts, in parallel if they do not need each other.

use crate::api::conditions::{API_KEY_READY, PLAN_FOUND, REFUNDED, SAMPLE_DATA_READY, SLOW, WELCOME_EMAIL_SENT};
use crate::api::facts::SuspendedFor;
use crate::api::phase::{EventType, TriggeredBy};
use crate::api::status::{PlanConfig, Provisioning};
use crate::api::usage::Quota;
use crate::api::{ConditionStatus, Phase, PlanSpec, SampleData, Timestamp};
use crate::lifecycle::concerns::dunning::{self, Standing};
use crate::lifecycle::concerns::plan_obstacles::PLAN_NOT_FOUND;
use crate::lifecycle::concerns::{generations, notices, renewal, verification};
use crate::lifecycle::policy::CARD_RETRY;
use crate::lifecycle::status::{Draft, Summary};
use crate::lifecycle::{
    Blame, Decision, Effect, Failure, Input, Notice, ObservedSubscription, Provider, Reason, Samples, Step,
};

/// How soon a write that is not visible yet is looked for again, in seconds.
const POLL: i64 = 1;
/// The note in the message of a tenant that was served before and cannot be set up again.
const UNLIMITED: &str =
    "The tenant was served before, so the controller tries again without a limit and refunds nothing";

pub fn decide(input: &Input) -> Decision {
    let Some(plan) = input.plan else { return plan_missing(input) };
    if let Some(failure) = input.observed.new_failure() {
        let optional = plan.sample_data == SampleData::BestEffort && failure.step == Step::SampleData;
        return match failure.blame {
            _ if optional => complete(input, plan, Some(failure)),
            Blame::Call => failed_attempt(input, failure),
            Blame::Admin | Blame::Outage | Blame::Mismatch => hold(input, failure),
        };
    }
    if let Some(decision) = slow(input) {
        return decision;
    }
    if let Some(decision) = hurry(input) {
        return decision;
    }
    if let Some(wait) = until_next_attempt(input) {
        return Decision::Wait(Some(until_slow(input).map_or(wait, |slow| slow.min(wait))));
    }
    if let Some(decision) = generations::before_making(input) {
        return decision;
    }
    let effects = missing(input);
    if input.observed.pending {
        return poll(input);
    }
    if !effects.is_empty() {
        return Decision::Act(effects);
    }
    let subscription = input.observed.billing.as_ref().and_then(|b| b.subscription.as_ref());
    // A tenant that is suspended as soon as it is set up is not charged, and its subscription is not renewed.
    let wanted = input.tenant.spec.is_wanted();
    if wanted && subscription.is_some_and(ObservedSubscription::resumable) {
        return Decision::Act(vec![Effect::CollectAnew]);
    }
    // Closed and taken back, of which a lost status knows nothing.
    if let Some(renew) = renewal::reopen(input) {
        return Decision::Act(vec![renew]);
    }
    complete(input, plan, None)
}

/// A new value of the retry annotation starts a new run of attempts.
pub fn start_over(input: &Input, reason: &str) -> Option<Decision> {
    input.retry_asked().then(|| begin_again(input, TriggeredBy::Admin, reason))
}

/// A new run of attempts.
pub fn begin_again(input: &Input, by: TriggeredBy, reason: &str) -> Decision {
    let mut draft = Draft::new(input);
    draft.status.provisioning = Some(input.fresh_run());
    // What this run charges is given back by itself if it fails; the condition keeps what was.
    (draft.status.refund, draft.status.refund_owed_since) = (None, None);
    draft.enter(Phase::Provisioning, EventType::Provision, by, reason);
    verification::show(input, &mut draft);
    draft.summary(Summary::Reconciling, "Provisioning", reason);
    draft.changed().unwrap_or(Decision::Wait(None))
}

/// A retry that is asked for while the next attempt is still to come: it begins now, and counts as it would have.
fn hurry(input: &Input) -> Option<Decision> {
    if !input.retry_asked() {
        return None;
    }
    let mut draft = Draft::new(input);
    let run = draft.status.provisioning.get_or_insert_with(|| input.fresh_run());
    (run.next_retry_at, run.retry_token) = (None, input.tenant.retry_token.clone());
    draft.changed()
}

/// What is still to be made or seen.
fn missing(input: &Input) -> Vec<Effect> {
    let observed = input.observed;
    let mut effects = Vec::new();
    if observed.api_key != Some(true) {
        effects.push(Effect::EnsureApiKey);
    }
    if input.by_stripe() && observed.billing.is_none() {
        effects.push(Effect::ReadBilling);
    }
    if !observed.namespace {
        effects.push(Effect::EnsureNamespace);
    } else if input.wants_samples() && observed.samples == Samples::Unknown {
        effects.push(Effect::StoreSamples);
    } else if input.wants_samples() && observed.samples == Samples::Stored {
        effects.push(Effect::VerifySamples);
    }
    effects
}

/// Seconds until the next attempt, while it is still to come.
fn until_next_attempt(input: &Input) -> Option<i64> {
    if let Some(failure) = &input.observed.failure
        && failure.blame != Blame::Call
    {
        return Some(hold_wait(input, failure));
    }
    let at = input.tenant.status.provisioning.as_ref().and_then(|p| p.next_retry_at)?;
    Some(at.since(input.now)).filter(|wait| *wait > 0)
}

/// A write that is not visible yet is looked for again, in a reconcile of its own, until the attempt's time is up.
fn poll(input: &Input) -> Decision {
    if input.observed.attempt_age <= input.policy.attempt_limit {
        return Decision::Wait(Some(POLL));
    }
    let step = if input.observed.namespace { Step::SampleData } else { Step::Namespace };
    let store = Provider::VectorStore;
    let message = format!("{store} did not show what was written within {} s", input.policy.attempt_limit);
    failed_attempt(input, &Failure::new(step, Reason::Timeout, message, Blame::Call))
}

/// Whether the subscription was cancelled at Stripe meanwhile. Without one the tenant is not served; the customer can
/// subscribe again.
fn ended(input: &Input) -> bool {
    let subscription = input.observed.billing.as_ref().and_then(|b| b.subscription.as_ref());
    input.by_stripe() && subscription.is_some_and(ObservedSubscription::over)
}

/// Everything is made. The tenant is served from now on, unless there is a reason to suspend it at once.
fn complete(input: &Input, plan: &PlanSpec, sample_failure: Option<&Failure>) -> Decision {
    let mut draft = Draft::new(input);
    show_parts(input, &mut draft, plan, sample_failure);
    draft.billing_answers();
    if !suspend(input, &mut draft) {
        draft.status.provisioned_at.get_or_insert(input.now);
        draft.enter(Phase::Active, EventType::Activate, TriggeredBy::System, "All steps are complete");
        draft.summary(Summary::Ready, "Active", "The tenant is ready for use");
    }
    draft.changed().unwrap_or(Decision::Wait(None))
}

/// Shows what was made, and what is in force.
fn show_parts(input: &Input, draft: &mut Draft, plan: &PlanSpec, sample_failure: Option<&Failure>) {
    draft.namespace_usable();
    draft.condition(API_KEY_READY, ConditionStatus::True, "Present", "The API key is in its Secret");
    match (plan.sample_data, sample_failure) {
        (SampleData::None, _) => {
            draft.condition(SAMPLE_DATA_READY, ConditionStatus::True, "NotWanted", "The plan has no sample documents");
        }
        (_, Some(f)) => draft.condition(SAMPLE_DATA_READY, ConditionStatus::False, &f.reason, &f.message),
        _ => draft.condition(SAMPLE_DATA_READY, ConditionStatus::True, "Seen", "A query found the sample documents"),
    }
    draft.condition(PLAN_FOUND, ConditionStatus::True, "Found", "The plan exists");
    if !input.tenant.noted(&Notice::Welcome) {
        draft.condition(WELCOME_EMAIL_SENT, ConditionStatus::Unknown, "Pending", "The welcome e-mail is next");
    }
    if draft.status.slow_since.take().is_some() {
        draft.condition(SLOW, ConditionStatus::False, "Active", "The tenant is Active");
    }
    draft.status.namespace = Some(input.tenant.data_namespace());
    draft.status.api_key_secret = Some(input.tenant.api_key_secret());
    draft.status.config = Some(PlanConfig::of(input.tenant.plan_in_force(), plan));
    draft.status.quota.get_or_insert_with(|| Quota {
        queries_limit: plan.limits.queries_per_month,
        documents_limit: plan.limits.documents,
        ..Quota::begin(input.cycle(), input.now)
    });
    draft.key_in_force();
    (draft.status.refund, draft.status.refund_owed_since) = (None, None);
    // What an earlier run left behind is over.
    draft.forget(REFUNDED);
    if let Some(p) = &mut draft.status.provisioning {
        (p.next_retry_at, p.held_since) = (None, None);
    }
}

/// Suspends a tenant that is not to be served for a moment; false when there is no reason.
fn suspend(input: &Input, draft: &mut Draft) -> bool {
    if ended(input) {
        let message = "The subscription ended before all steps were complete";
        draft.enter(Phase::Suspended, EventType::Suspend, TriggeredBy::System, message);
        draft.suspended(SuspendedFor::End, message);
        return true;
    }
    // Such as one that was served before and lost its status: one that pays nothing is not served for a moment either.
    let unpaid = input.by_stripe() && input.observed.billing.as_ref().map(Standing::of) == Some(Standing::Unpaid);
    if unpaid && input.tenant.spec.is_wanted() {
        let message = "The invoices were not paid";
        dunning::show(input, draft);
        // One that was never served keeps its claim to the money.
        if input.tenant.served_before() {
            draft.status.provisioned_at.get_or_insert(input.now);
        }
        draft.enter(Phase::Suspended, EventType::Suspend, TriggeredBy::System, message);
        draft.suspended(SuspendedFor::Payment, message);
        return true;
    }
    // A suspended tenant is not served for a moment. `provisionedAt` stays empty, so that the customer gets the money
    // back when the tenant is closed.
    if input.tenant.spec.is_suspended() {
        let message = dunning::suspended_by(input);
        draft.enter(Phase::Suspended, EventType::Suspend, TriggeredBy::Admin, &message);
        draft.suspended(SuspendedFor::Admin, &message);
        return true;
    }
    false
}

fn failed_attempt(input: &Input, failure: &Failure) -> Decision {
    let mut draft = Draft::new(input);
    let mut run = attempted(input, failure);
    run.attempts += 1;
    run.held_since = None;
    let wait = input
        .policy
        .wait_after(run.attempts, input.tenant.tenant_id())
        .filter(|_| failure.retryable)
        .map(|wait| wait.max(failure.retry_after.unwrap_or(0)));
    run.next_retry_at = wait.map(|wait| input.now.plus(wait));
    draft.failure(failure);
    let attempts = run.attempts;
    let unlimited = wait.is_none() && input.tenant.served_before();
    if unlimited {
        let declined = input.observed.declined_card().is_some();
        let wait = if declined { CARD_RETRY } else { input.policy.longest_wait() };
        let wait = wait.max(failure.retry_after.unwrap_or(0));
        run.next_retry_at = Some(input.now.plus(wait));
    }
    draft.status.provisioning = Some(run);
    if unlimited {
        let message = format!("Attempt {attempts} failed at {}: {}. {UNLIMITED}", failure.step, failure.message);
        draft.summary(Summary::Stalled, &failure.reason, &message);
    } else if let Some(wait) = wait {
        let message =
            format!("Attempt {attempts} failed at {}: {}. Retrying in {wait} s", failure.step, failure.message);
        draft.summary(Summary::Reconciling, "Retrying", &message);
    } else {
        let tries = if attempts == 1 { "1 attempt".into() } else { format!("{attempts} attempts") };
        fail(
            &mut draft,
            failure,
            &format!("Provisioning failed at {} after {tries}: {}", failure.step, failure.message),
        );
    }
    draft.changed().unwrap_or(Decision::Wait(None))
}

/// Neither the customer's fault nor a failed attempt: a provider is away, or something only an admin can fix. A new
/// tenant waits for it with a limit, one that was served before without: an outage must not end a customer.
fn hold(input: &Input, failure: &Failure) -> Decision {
    let mut draft = Draft::new(input);
    let mut run = attempted(input, failure);
    let since = *run.held_since.get_or_insert(input.now);
    draft.failure(failure);
    draft.status.provisioning = Some(run);
    let limited = failure.blame != Blame::Mismatch;
    let late = input.until(since.plus(input.policy.hold_limit)) <= 0;
    let served = input.tenant.served_before();
    if limited && late && !served {
        let limit = input.policy.hold_limit;
        let message = format!("Provisioning failed at {} after {limit} s on hold: {}", failure.step, failure.message);
        fail(&mut draft, failure, &message);
        return draft.changed().unwrap_or(Decision::Wait(None));
    }
    let message = match failure.blame {
        Blame::Outage => format!("Waiting since {since}: {}", failure.message),
        Blame::Admin | Blame::Mismatch | Blame::Call => {
            format!("On hold since {since}, until an admin fixes it: {}", failure.message)
        }
    };
    let message = if served { format!("{message}. {UNLIMITED}") } else { message };
    let summary = if late { Summary::Stalled } else { Summary::Reconciling };
    draft.summary(summary, &failure.reason, &message);
    let wait = hold_wait(input, failure);
    let wait = until_slow(input).map_or(wait, |slow| slow.min(wait));
    draft.changed().or_else(|| slow(input)).unwrap_or(Decision::Wait(Some(wait)))
}

fn hold_wait(input: &Input, failure: &Failure) -> i64 {
    failure.retry_after.unwrap_or(input.policy.hold_retry).max(1)
}

/// The run of attempts, with what went wrong last.
fn attempted(input: &Input, failure: &Failure) -> Provisioning {
    let mut run = input.tenant.status.provisioning.clone().unwrap_or_else(|| input.fresh_run());
    run.failed_step = Some(failure.step.to_string());
    run.reason = Some(failure.reason.to_string());
    run.last_error = Some(failure.message.clone());
    run
}

fn fail(draft: &mut Draft, failure: &Failure, message: &str) {
    draft.enter(Phase::Failed, EventType::Fail, TriggeredBy::System, message);
    draft.summary(Summary::Stalled, &failure.reason, message);
}

fn plan_missing(input: &Input) -> Decision {
    let message =
        format!("Plan {:?} was deleted. Create it again to continue provisioning", input.tenant.plan_in_force());
    let mut draft = Draft::new(input);
    draft.condition(PLAN_FOUND, ConditionStatus::False, PLAN_NOT_FOUND, &message);
    draft.summary(Summary::Stalled, PLAN_NOT_FOUND, &message);
    draft.changed().or_else(|| slow(input)).unwrap_or_else(|| {
        let unsent = notices::any_unsent(input, &[slow_alert(input)]);
        let alert_again = unsent.then_some(input.policy.notice_retry);
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

/// Shows a tenant that is paid and not Active after the normal time: a condition and an alert, long before it is
/// Failed.
fn slow(input: &Input) -> Option<Decision> {
    if input.now < slow_at(input)? {
        return None;
    }
    if let Some(decision) = notices::tell(input, &[slow_alert(input)]) {
        return Some(decision);
    }
    let mut draft = Draft::new(input);
    let (reason, message) = if input.tenant.served_before() {
        ("WaitsWithoutLimit", UNLIMITED)
    } else {
        ("SlowProvisioning", "Paid, and not Active within the normal time")
    };
    draft.status.slow_since.get_or_insert(input.now);
    draft.condition(SLOW, ConditionStatus::True, reason, message);
    draft.changed()
}

/// One in each run of attempts.
fn slow_alert(input: &Input) -> Notice {
    Notice::SlowAlert(input.tenant.run())
}
