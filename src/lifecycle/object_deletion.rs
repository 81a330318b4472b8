//! A Tenant object that is deleted. Unless the customer is meant to be erased, the controller keeps everything and lets
//! the object go; otherwise it erases the tenant at every provider first.

use super::concerns::{erasure, notices};
use super::phases::{deleting, failed};
use super::status::{Draft, Summary};
use super::{Decision, Effect, Input, Notice, Provider};
use crate::api::conditions::CLEANED_UP;
use crate::api::phase::{EventType, TriggeredBy};
use crate::api::plan::DeletionPolicy;
use crate::api::{ConditionStatus, ERASE_ANNOTATION, FORCE_DELETE_ANNOTATION, LEGAL_HOLD_ANNOTATION, Phase};

pub fn decide(input: &Input) -> Decision {
    if !input.tenant.finalizer {
        return Decision::Wait(None);
    }
    if input.tenant.keep_data {
        let mut draft = Draft::new(input);
        let message = "The object is deleted; the tenant's data, Secrets and subscription are kept";
        draft.status.customer_kept = true;
        draft.condition(CLEANED_UP, ConditionStatus::False, "Kept", message);
        return draft.changed().unwrap_or(Decision::Act(vec![Effect::RemoveFinalizer]));
    }
    if input.tenant.status.phase == Some(Phase::Deleted) {
        return Decision::Act(vec![Effect::RemoveFinalizer]);
    }
    // An erasure that is due or has begun is no accident, and ends with its certificate.
    if erasure::is_erasing(input) && !input.tenant.force_delete {
        return erasure::finish(input).unwrap_or_else(|| deleting::decide(input));
    }
    if by_accident(input) {
        return keep(input);
    }
    if let Some(why) = &input.tenant.legal_hold {
        return hold(input, why);
    }
    // What a failed tenant is owed is known by its phase.
    let owed = input.tenant.status.phase == Some(Phase::Failed) && !input.tenant.force_delete;
    if owed && let Some(decision) = refund_first(input) {
        return decision;
    }
    // A refund that failed keeps the phase, because in Deleting nothing says any more that it is owed.
    let refund_failed = owed && failed::is_owed(input) && input.observed.failure.is_some();
    if input.tenant.status.phase != Some(Phase::Deleting) && !refund_failed {
        return begin(input);
    }
    refund_first(input).unwrap_or_else(|| clean_up(input))
}

/// Gives back what is owed before anything is deleted, and says so while that takes: the customer at Stripe leads to
/// the payment, so it stays until then.
fn refund_first(input: &Input) -> Option<Decision> {
    let decision = failed::give_back(input)?;
    let Decision::Wait(_) = decision else { return Some(decision) };
    let message = format!(
        "Nothing is deleted while the refund is open. To settle the refund yourself and let the deletion go on, set the annotation {}",
        failed::waiver(input)
    );
    let mut draft = Draft::new(input);
    draft.condition(CLEANED_UP, ConditionStatus::False, "RefundOpen", &message);
    draft.summary(Summary::Waiting, "RefundOpen", &message);
    draft.changed().or(Some(decision))
}

/// A legal hold keeps everything.
fn hold(input: &Input, why: &str) -> Decision {
    let message = format!("Nothing is erased: {why}. Remove the annotation {LEGAL_HOLD_ANNOTATION} to continue");
    let mut draft = Draft::new(input);
    draft.condition(CLEANED_UP, ConditionStatus::False, "LegalHold", &message);
    draft.summary(Summary::Waiting, "LegalHold", &message);
    draft.changed().unwrap_or(Decision::Wait(None))
}

fn begin(input: &Input) -> Decision {
    let mut draft = Draft::new(input);
    draft.enter(Phase::Deleting, EventType::Delete, TriggeredBy::Admin, "Deletion of the object was requested");
    draft.status.checkout = None;
    let message = &format!("Deleting the subscription, the {} namespace and the Secrets", Provider::VectorStore);
    draft.summary(Summary::Reconciling, "Deleting", message);
    draft.changed().unwrap_or(Decision::Wait(None))
}

/// What is still to be deleted, each with its name in messages.
fn remaining(input: &Input) -> Vec<(Effect, String)> {
    let mut wanted = vec![
        (Effect::DeleteNamespace, format!("the {} namespace {}", Provider::VectorStore, input.tenant.data_namespace())),
        (Effect::DeleteSecrets, format!("the Secret {}", input.tenant.api_key_secret())),
    ];
    // An explicit wish to erase covers the customer at Stripe. A signup that expired only loses its subscription.
    let meant = input.tenant.erase || said(input) == Some(DeletionPolicy::Erase);
    if input.by_stripe() && meant {
        wanted.push((Effect::EraseBilling, "the Stripe subscription and customer".into()));
    } else if input.by_stripe() {
        wanted.push((Effect::CancelBilling, "the Stripe subscription".into()));
    }
    if input.policy.exports_kept.is_some() {
        wanted.push((Effect::DeleteExports, "the files of its exports".into()));
    }
    wanted.retain(|(effect, _)| !input.observed.done.contains(effect));
    wanted
}

/// Deletes what remains, and lets the object go once nothing does.
fn clean_up(input: &Input) -> Decision {
    let (wanted, left): (Vec<_>, Vec<_>) = remaining(input).into_iter().unzip();
    let Some(failure) = &input.observed.failure else {
        if !wanted.is_empty() {
            return Decision::Act(wanted);
        }
        // An upload that was under way can create the namespace again. After the wait the controller deletes everything
        // once more.
        return erasure::wait_for_uploads(input).unwrap_or(Decision::Act(vec![Effect::RemoveFinalizer]));
    };
    let left = left.join(", ");
    let mut draft = Draft::new(input);
    if input.tenant.force_delete {
        let message = format!("Forced deletion leaves these behind: {left}");
        draft.condition(CLEANED_UP, ConditionStatus::False, "Forced", &message);
        draft.status.message = Some(message.into());
        return draft.changed().unwrap_or(Decision::Act(vec![Effect::RemoveFinalizer]));
    }
    let message = format!(
        "Cleanup incomplete: {}. Still to delete: {left}. Retrying; to give up on them, set the annotation \
         {FORCE_DELETE_ANNOTATION}=true",
        failure.message
    );
    if failed::refund_fails(input, failure) {
        failed::show_failure(&mut draft, failure, input);
    }
    draft.condition(CLEANED_UP, ConditionStatus::False, &failure.reason, &message);
    draft.summary(Summary::Reconciling, &failure.reason, &message);
    draft.changed().unwrap_or(Decision::Wait(Some(input.backoff())))
}

/// Whether the object is deleted without the wish to erase the customer.
fn by_accident(input: &Input) -> bool {
    let status = &input.tenant.status;
    // A tenant in Deleting is meant to be erased, unless its retention still runs.
    let meant = (status.phase == Some(Phase::Deleting) && status.erases_at.is_none()) || erasure::is_erasing(input);
    policy(input) == DeletionPolicy::Retain && !input.tenant.erase && !meant
}

/// The policy of the Tenant or its Plan. If neither sets one, a tenant that was paid for, approved or served is
/// retained, and any other is erased.
fn policy(input: &Input) -> DeletionPolicy {
    let (spec, status) = (&input.tenant.spec, &input.tenant.status);
    let paid =
        spec.billing.stripe.as_ref().is_some_and(|refs| refs.subscription_id.is_some()) || status.paid_at.is_some();
    let approved = !input.by_stripe() && spec.billing.approved;
    let served = input.tenant.served_before() || spec.plan_in_force.is_some() || approved;
    let by_history = if paid || served { DeletionPolicy::Retain } else { DeletionPolicy::Erase };
    said(input).unwrap_or(by_history)
}

/// What the Tenant or its Plan says of deletions.
fn said(input: &Input) -> Option<DeletionPolicy> {
    input.tenant.spec.deletion_policy.or(input.plan.and_then(|plan| plan.deletion_policy))
}

/// Lets the object go, deletes nothing at the providers, and alerts the platform team. The object goes even if the
/// alert fails.
fn keep(input: &Input) -> Decision {
    if let Some(decision) = notices::tell(input, &[Notice::KeptAlert]) {
        return decision;
    }
    let id = input.tenant.tenant_id();
    let message = format!(
        "The object was deleted without the annotation {ERASE_ANNOTATION}={id}, so the customer's data and \
         subscription are kept. Apply the Tenant again from a backup to serve the customer, or erase it with `kubectl \
         tenant erase`"
    );
    let mut draft = Draft::new(input);
    draft.status.customer_kept = true;
    draft.condition(CLEANED_UP, ConditionStatus::False, "Kept", &message);
    draft.status.message = Some(message.into());
    draft.changed().unwrap_or(Decision::Act(vec![Effect::RemoveFinalizer]))
}
