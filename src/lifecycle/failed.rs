//! Provisioning failed for good: the money back, somebody told, and a way to start over.

use super::status::Draft;
use super::{Decision, Effect, Input, Notice, ObservedRefund, notices, provisioning, verification};
use crate::api::ConditionStatus;
use crate::api::conditions::REFUNDED;
use crate::api::phase::TriggeredBy;
use crate::api::tenant::Refund;

pub fn decide(input: &Input) -> Decision {
    if let Some(decision) = provisioning::start_over(input, "A retry was requested") {
        return decision;
    }
    if verification::came_late(input) {
        return provisioning::begin_again(input, TriggeredBy::User, "The customer confirmed the e-mail address");
    }
    let run = input.tenant.run();
    let both = [Notice::FailedAlert(run.clone()), Notice::FailedMail(run)];
    // Nobody waits for Stripe to hear of the failure: ops are told first, the customer as soon as it is known whether
    // the money is on its way.
    let first = if settled(input) { &both[..] } else { &both[..1] };
    let next = notices::tell(input, first).or_else(|| refund(input)).or_else(|| notices::tell(input, &both));
    if let Some(decision) = next {
        return decision;
    }
    if let Some(decision) = Draft::new(input).changed() {
        return decision;
    }
    if input.observed.failure.is_some() {
        Decision::Wait(Some(input.backoff()))
    } else if notices::any_unsent(input, &both) {
        Decision::Wait(Some(input.notice_wait()))
    } else {
        Decision::Wait(None)
    }
}

/// Whether there is nothing left to refund.
fn settled(input: &Input) -> bool {
    !input.by_stripe() || input.tenant.status.refund.is_some()
}

/// Nobody is charged for a tenant that is not served. None when it is settled, or failed in this reconcile.
fn refund(input: &Input) -> Option<Decision> {
    if settled(input) {
        return None;
    }
    let observed = input.observed;
    let mut draft = Draft::new(input);
    if let Some(failure) = &observed.failure {
        let message = format!("The refund is not settled yet: {}. Retrying", failure.message);
        draft.condition(REFUNDED, ConditionStatus::False, &failure.reason, &message);
        return draft.changed();
    }
    let Some(billing) = &observed.billing else { return Some(Decision::Act(vec![Effect::ReadBilling])) };
    let paused = billing.subscription.as_ref().is_none_or(|s| s.paused);
    if !paused {
        return Some(Decision::Act(vec![Effect::PauseCollection]));
    }
    let Some(refund) = &observed.refund else { return Some(Decision::Act(vec![Effect::Refund])) };
    let ObservedRefund { amount, currency } = refund.clone();
    let (reason, message) = if amount == 0 {
        ("NothingPaid", "Nothing had been paid, so there is nothing to refund; collection is paused")
    } else {
        ("Refunded", "The payment was refunded; collection is paused")
    };
    draft.status.refund = Some(Refund { amount, currency, at: input.now });
    draft.condition(REFUNDED, ConditionStatus::True, reason, message);
    draft.changed()
}
