//! Provisioning failed for good: refunds the payment, tells the platform team and the customer, and lets them start
//! over.

use super::provisioning;
use crate::api::conditions::REFUNDED;
use crate::api::phase::TriggeredBy;
use crate::api::plan::Money;
use crate::api::status::Refund;
use crate::api::{ConditionStatus, Phase, Timestamp, WAIVE_REFUND_ANNOTATION};
use crate::lifecycle::agenda::first_due;
use crate::lifecycle::concerns::{billed, erasure, notices, verification};
use crate::lifecycle::status::Draft;
use crate::lifecycle::{Decision, Effect, Failure, Input, Notice, ObservedRefund, Step};

/// What is done and shown while nothing starts over.
const REST: [fn(&Input) -> Option<Decision>; 6] = [alert, refund, surplus, tell, facts, look_again];

pub fn decide(input: &Input) -> Decision {
    // A retry begins once Stripe's record says who settles the refund: to Stripe, the payment still stands.
    if waived(input) {
        return first_due(input, &REST);
    }
    if let Some(decision) = provisioning::start_over(input, "A retry was requested") {
        return decision;
    }
    if verification::came_late(input) {
        return provisioning::begin_again(input, TriggeredBy::User, "The customer confirmed the e-mail address");
    }
    // The platform team hears of the failure first, without waiting for Stripe. The customer hears of it once the
    // refund is settled or was tried.
    first_due(input, &REST)
}

fn alert(input: &Input) -> Option<Decision> {
    let both = both(input);
    notices::tell(input, if settled(input) { &both } else { &both[..1] })
}

/// The alert to the platform team, and the e-mail to the customer.
fn both(input: &Input) -> [Notice; 2] {
    let run = input.tenant.run();
    [Notice::FailedAlert(run.clone()), Notice::FailedMail(run)]
}

fn tell(input: &Input) -> Option<Decision> {
    notices::tell(input, &both(input))
}

fn facts(input: &Input) -> Option<Decision> {
    Draft::new(input).changed()
}

fn look_again(input: &Input) -> Option<Decision> {
    let pending = input.observed.refund.as_ref().is_some_and(|refund| refund.pending > 0);
    let waits = [
        input.observed.failure.is_some().then(|| input.backoff()),
        pending.then_some(input.policy.resync),
        notices::any_unsent(input, &both(input)).then(|| input.notice_wait()),
    ];
    waits.into_iter().flatten().min().map(|wait| Decision::Wait(Some(wait)))
}

/// Other subscriptions of the tenant: not collected, shown and told to the platform team. Their refund is for a person
/// to decide.
fn surplus(input: &Input) -> Option<Decision> {
    if !input.by_stripe() || input.observed.failure.is_some() {
        return None;
    }
    let Some(billing) = &input.observed.billing else {
        return input.observed.resync.then(|| Decision::Act(vec![Effect::ReadBilling]));
    };
    if !billing.surplus_collected.is_empty() {
        return Some(Decision::Act(vec![Effect::PauseCollection]));
    }
    let alert: Vec<_> = billed::surplus_alert(billing).into_iter().collect();
    billed::surplus(input, billing).or_else(|| notices::tell(input, &alert))
}

/// Whether there is nothing left to refund.
fn settled(input: &Input) -> bool {
    !input.by_stripe() || input.tenant.refund_waived() || (input.tenant.status.refund.is_some() && !doubted(input))
}

/// A refund that succeeded can fail later (<https://docs.stripe.com/refunds#failed-refunds>): an event at Stripe is a
/// reason to look again.
fn doubted(input: &Input) -> bool {
    let paid_back = input.tenant.status.refund.as_ref().is_some_and(|refund| refund.amount > 0);
    // Once the customer is deleted at Stripe, nothing leads to the refund any more. It is looked at before, whether or
    // not an event was seen.
    paid_back && (input.observed.resync || input.tenant.deleting || erasure::is_erasing(input))
}

/// Whether the controller owes a tenant what was paid for it. A person can settle that outside of the operator.
pub fn is_owed(input: &Input) -> bool {
    is_unsettled(input) && !input.tenant.refund_waived()
}

/// Whether the payment of a tenant is to go back, by the controller or by a person: the tenant failed and nothing is
/// settled, it was never served at all, or its refund came back.
fn is_unsettled(input: &Input) -> bool {
    let status = &input.tenant.status;
    let owed =
        status.phase == Some(Phase::Failed) || !input.tenant.served_before() || status.refund_owed_since.is_some();
    input.by_stripe() && status.refund.is_none() && owed
}

/// How a person takes over a refund that the controller would make. Where something was paid, the controller then names the
/// payment, which belongs to the value too.
pub fn waiver(input: &Input) -> String {
    format!("{WAIVE_REFUND_ANNOTATION}={}", input.tenant.refund_name())
}

/// Whether a person has taken over the refund, and the status does not say so yet.
pub fn waived(input: &Input) -> bool {
    is_unsettled(input) && input.tenant.refund_waived()
}

/// Whether that is to be noted now. A tenant that is erased has no later run, and waits for nothing more.
pub fn waiver_due(input: &Input) -> bool {
    let leaves = input.tenant.deleting || erasure::is_erasing(input);
    waived(input) && !leaves && input.observed.failure.is_none()
}

/// Notes at Stripe, then in the status, that a person settles the refund. Shows why if that failed in this reconcile.
fn note_waiver(input: &Input) -> Option<Decision> {
    if let Some(failure) = &input.observed.failure {
        let message = format!(
            "A person settles the refund, and Stripe's record does not say so yet: {}. Retrying; a new start waits for it",
            failure.message
        );
        let mut draft = Draft::new(input);
        draft.condition(REFUNDED, ConditionStatus::False, &failure.reason, &message);
        return draft.changed();
    }
    let mut draft = Draft::new(input);
    // The present payment may be a later one than that of a status that a backup brought back.
    if let Some(invoice) = &input.observed.payment_not_named {
        let message = format!(
            "A person settles the refund, and the annotation names no payment of the last paid period: set {}.{invoice}. Nothing is \
             refunded, and a new start waits for it",
            waiver(input)
        );
        draft.condition(REFUNDED, ConditionStatus::False, "PaymentNotNamed", &message);
        return draft.changed();
    }
    if !input.observed.done.contains(&Effect::WaiveRefund) {
        return Some(Decision::Act(vec![Effect::WaiveRefund]));
    }
    let said = input.tenant.waived_refund.as_deref().unwrap_or_default();
    let message = format!(
        "A person settles the refund: the annotation {WAIVE_REFUND_ANNOTATION}={said} says so. Collection is paused"
    );
    show_waived(&mut draft, &message, input.now);
    draft.changed()
}

fn show_waived(draft: &mut Draft, message: &str, now: Timestamp) {
    draft.status.refund_owed_since = None;
    draft.status.refund = Some(Refund { amount: 0, currency: None, at: now, waived: true });
    draft.condition(REFUNDED, ConditionStatus::False, "Waived", message);
}

/// Whether the money goes back, or what became of it is to be looked at again.
pub fn concerns_refund(input: &Input) -> bool {
    is_owed(input) || (input.by_stripe() && !input.tenant.refund_waived() && doubted(input))
}

/// Whether this failure leaves it open what became of the refund.
pub fn refund_fails(input: &Input, failure: &Failure) -> bool {
    failure.step == Step::Billing && input.observed.refund.is_none() && concerns_refund(input)
}

/// Shows that the refund fails.
pub fn show_failure(draft: &mut Draft, failure: &Failure, input: &Input) {
    let message = format!(
        "The refund is not settled yet: {}. Retrying. To settle it yourself, set the annotation {}",
        failure.message,
        waiver(input)
    );
    draft.condition(REFUNDED, ConditionStatus::False, &failure.reason, &message);
    owe_again(draft, input.now);
}

/// A refund that was settled is owed until Stripe has said otherwise, whatever phase the tenant is in.
fn owe_again(draft: &mut Draft, now: Timestamp) {
    if draft.status.refund.take().is_some_and(|refund| refund.amount > 0) {
        draft.status.refund_owed_since.get_or_insert(now);
    }
}

/// Refunds what is owed before the tenant goes. Closes the open payment links first, so that no payment arrives after
/// the check. None if nothing is owed any more.
pub fn give_back(input: &Input) -> Option<Decision> {
    if waiver_due(input) {
        return refund(input);
    }
    if !concerns_refund(input) || input.observed.failure.is_some() {
        return None;
    }
    if !input.observed.done.contains(&Effect::StopRenewal) {
        return Some(Decision::Act(vec![Effect::StopRenewal]));
    }
    let nothing = input.observed.refund.as_ref().is_some_and(|refund| refund.amount == 0 && refund.pending == 0);
    if nothing {
        return None;
    }
    let pending = input.observed.refund.as_ref().is_some_and(|refund| refund.pending > 0);
    refund(input).or_else(|| pending.then_some(Decision::Wait(Some(input.policy.resync))))
}

/// Refunds the payment, because a customer is not charged for a tenant that is not served. None if the refund is
/// settled, or failed in this reconcile. One that a person settles is not made, and collection is paused all the same.
pub fn refund(input: &Input) -> Option<Decision> {
    let waived = waived(input);
    if !waived && settled(input) {
        return None;
    }
    let (observed, mut draft) = (input.observed, Draft::new(input));
    if let Some(failure) = &observed.failure {
        if waived {
            return note_waiver(input);
        }
        show_failure(&mut draft, failure, input);
        return draft.changed();
    }
    let Some(billing) = &observed.billing else { return Some(Decision::Act(vec![Effect::ReadBilling])) };
    // Stripe refuses to pause a subscription that is over, and collects nothing on it.
    let own = billing.subscription.as_ref().is_some_and(|s| !s.paused && !s.over());
    if own || !billing.surplus_collected.is_empty() {
        return Some(Decision::Act(vec![Effect::PauseCollection]));
    }
    if waived {
        return note_waiver(input);
    }
    let Some(refund) = &observed.refund else { return Some(Decision::Act(vec![Effect::Refund])) };
    let ObservedRefund { amount, pending, currency, waived } = refund.clone();
    if pending > 0 {
        owe_again(&mut draft, input.now);
        let message = format!(
            "Stripe has accepted the refund and not completed it: {}. The controller looks again every {} s",
            Money { amount: pending, currency: currency.unwrap_or_default() },
            input.policy.resync
        );
        draft.condition(REFUNDED, ConditionStatus::False, "Pending", &message);
        return draft.changed();
    }
    if amount == 0 && waived > 0 {
        let message = "A person settles the refund of this payment: the metadata waived_refund of the subscription at Stripe says so";
        show_waived(&mut draft, &format!("{message}. Collection is paused"), input.now);
        return draft.changed();
    }
    let (reason, message) = if amount == 0 {
        ("NothingPaid", "Nothing had been paid, so there is nothing to refund; collection is paused")
    } else {
        ("Refunded", "The payment was refunded; collection is paused")
    };
    let known = draft.status.refund.as_ref().filter(|refund| refund.amount == amount).map(|refund| refund.at);
    draft.status.refund_owed_since = None;
    draft.status.refund = Some(Refund { amount, currency, at: known.unwrap_or(input.now), waived: false });
    draft.condition(REFUNDED, ConditionStatus::True, reason, message);
    draft.changed()
}
