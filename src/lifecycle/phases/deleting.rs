//! Deleting: a customer leaves. The tenant is closed at once, kept for the retention of the plan, taken back until
//! then, and erased after it (`concerns/erasure.rs`). `object_deletion.rs` is about Tenant objects that are deleted;
//! this is about `spec.desired: Deleted`.

use super::failed;
use crate::api::conditions::{COLLECTION_PAUSED, ERASED, RENEWAL_STOPPED};
use crate::api::facts::{Awaited, Awaiting, SuspendedFor};
use crate::api::phase::EventType;
use crate::api::tenant::Desired;
use crate::api::{ConditionStatus, Phase, Timestamp};
use crate::lifecycle::concerns::dunning::{self, Standing};
use crate::lifecycle::concerns::erasure::{self, since};
use crate::lifecycle::concerns::{notices, renewal};
use crate::lifecycle::status::{Draft, Summary};
use crate::lifecycle::{Decision, Effect, Input, Notice, brake};

const DAY: i64 = 24 * 3600;
/// The retention if the Plan is gone, in days.
const RETENTION: i64 = 30;

/// Closes a tenant whose spec asks for deletion. A plan change that runs finishes first, and so does a refund.
pub fn begin(input: &Input) -> Option<Decision> {
    let status = &input.tenant.status;
    // A refund that is owed goes first.
    let owed = status.phase == Some(Phase::Failed) && failed::is_owed(input);
    let busy =
        owed || matches!(status.phase, Some(Phase::Deleting | Phase::Deleted | Phase::Upgrading | Phase::Downgrading));
    if let Some(decision) = erasure::finish(input) {
        return Some(decision);
    }
    if input.tenant.spec.desired != Desired::Deleted || busy {
        return None;
    }
    // A tenant that was never paid for or served has nothing to retain, so its erasure does not wait for the retention
    // period.
    let empty = matches!(status.phase, None | Some(Phase::PendingPayment))
        && status.paid_at.is_none()
        && !input.tenant.served_before()
        && input.tenant.spec.plan_in_force.is_none()
        && input.tenant.spec.billing.stripe.as_ref().is_none_or(|refs| refs.subscription_id.is_none());
    let erases_at = if empty { input.earliest } else { end_of_retention(input) };
    let message = closed(input, erases_at);
    let mut draft = Draft::new(input);
    draft.status.checkout = None;
    draft.status.erases_at = Some(erases_at);
    draft.status.renewal_stopped_at = None;
    draft.forget(RENEWAL_STOPPED);
    draft.enter(Phase::Deleting, EventType::Delete, input.wished_by(), &message);
    draft.summary(Summary::Waiting, "Closed", &message);
    draft.changed().and_then(|decision| brake::permit(input, decision))
}

/// When the retention of the plan ends, if it begins now.
fn end_of_retention(input: &Input) -> Timestamp {
    input.now.plus(input.plan.map_or(RETENTION, |plan| i64::from(plan.retention_days)) * DAY)
}

fn closed(input: &Input, erases_at: Timestamp) -> String {
    let by = input.tenant.spec.wisher().map(|wish| format!(" by {wish}")).unwrap_or_default();
    format!("Closed{by}. Its data is erased at {erases_at}, unless it is reactivated before")
}

/// Decides for a tenant in `Deleting`: closed until the retention ends, then erased.
pub fn decide(input: &Input) -> Decision {
    let status = &input.tenant.status;
    if let Some(failure) = &input.observed.failure {
        let mut draft = Draft::new(input);
        draft.failure(failure);
        let refund = failed::refund_fails(input, failure);
        if refund {
            failed::show_failure(&mut draft, failure, input);
        }
        let refund = refund && erasure::is_erasing(input);
        if refund || status.erasure.is_some() {
            let instead = if refund { format!(". {}", waiver(input)) } else { String::new() };
            let message = format!("{}. Retrying{instead}", failure.message);
            draft.condition(ERASED, ConditionStatus::False, &failure.reason, &message);
        }
        return draft.changed().unwrap_or(Decision::Wait(Some(input.backoff())));
    }
    if let Some(erasure) = &status.erasure {
        let open = erasure.erased_at.is_none();
        if let Some(decision) = refund_first(input).filter(|_| open) {
            return decision;
        }
        return erasure::on_hold(input).filter(|_| open).unwrap_or_else(|| erasure::proceed(input, erasure));
    }
    if input.tenant.spec.desired != Desired::Deleted {
        return take_back(input);
    }
    // An earlier version did not write the end of the retention, or it was lost: the retention begins now.
    let Some(erases_at) = status.erases_at else {
        let mut draft = Draft::new(input);
        draft.status.erases_at = Some(end_of_retention(input));
        return draft.changed().unwrap_or(Decision::Wait(None));
    };
    if let Some(decision) = renewed_meanwhile(input) {
        return decision;
    }
    if input.until(erases_at) <= 0 {
        return due(input);
    }
    if let Some(decision) = stop_renewal(input) {
        return decision;
    }
    let told: Vec<_> = [Notice::DeletionRequested(since(input))].into_iter().chain(offer(input)).collect();
    if let Some(decision) = notices::tell(input, &told) {
        return decision;
    }
    let mut draft = Draft::new(input);
    draft.forget(ERASED);
    draft.billing_answers();
    draft.summary(Summary::Waiting, "Closed", &closed(input, erases_at));
    let again = notices::any_unsent(input, &told).then(|| input.notice_wait());
    let until = [Some(input.until(erases_at)), offered_in(input)].into_iter().flatten().min();
    let until = Decision::Wait(until);
    draft.changed().unwrap_or_else(|| notices::wait_at_most(until, again))
}

/// The one offer to come back, for a customer who agreed to marketing e-mails.
fn offer(input: &Input) -> Option<Notice> {
    (wants_offers(input) && input.now >= offered_at(input)).then_some(Notice::WinBack)
}

/// Seconds until it is made.
fn offered_in(input: &Input) -> Option<i64> {
    let open = wants_offers(input) && !input.tenant.noted(&Notice::WinBack);
    Some(offered_at(input).since(input.now)).filter(|left| open && *left > 0)
}

fn wants_offers(input: &Input) -> bool {
    let tenant = input.tenant;
    let customer = tenant.spec.login.is_some() && tenant.status.provisioned_at.is_some();
    input.policy.win_back_after > 0 && customer && tenant.marketing && !tenant.unsubscribed
}

fn offered_at(input: &Input) -> Timestamp {
    since(input).plus(input.policy.win_back_after)
}

/// Ends the subscription with its period and closes open payment links, so a customer who leaves is not charged again.
fn stop_renewal(input: &Input) -> Option<Decision> {
    let stopped = input.tenant.status.renewal_stopped_at.is_some();
    if !input.by_stripe() {
        return None;
    }
    // A refund that failed after it had succeeded is owed again.
    if stopped && !failed::concerns_refund(input) && !failed::waiver_due(input) {
        // A subscription that renews again is shown. The controller does not end it a second time.
        let unread = input.observed.resync && input.observed.billing.is_none();
        return unread.then(|| Decision::Act(vec![Effect::ReadBilling]));
    }
    if let Some(decision) = failed::give_back(input) {
        return Some(decision);
    }
    if !input.observed.done.contains(&Effect::StopRenewal) {
        return Some(Decision::Act(vec![Effect::StopRenewal]));
    }
    let mut draft = Draft::new(input);
    draft.status.renewal_stopped_at.get_or_insert(input.now);
    let message = "The subscription is not renewed";
    draft.condition(RENEWAL_STOPPED, ConditionStatus::True, "Stopped", message);
    draft.changed()
}

/// The subscription did not renew, and now one does: the customer came back at Stripe, or the object is older than
/// their return, as after a restore. The wish to leave and the payments do not agree, so nothing is erased before a
/// person has decided.
fn renewed_meanwhile(input: &Input) -> Option<Decision> {
    let billing = input.observed.billing.as_ref().filter(|_| input.by_stripe())?;
    input.tenant.status.renewal_stopped_at?;
    let own = billing.subscription.as_ref().filter(|s| s.bills_again()).map(|s| &s.id);
    let (id, name) = (own.or(billing.surplus_renewing.first())?, &input.tenant.name);
    let message = format!(
        "The tenant is closed, and Stripe renews its subscription {id}, so nothing is erased. To keep the customer, run `kubectl \
         tenant reactivate {name}`. To erase the data, cancel the subscription at Stripe"
    );
    let mut draft = Draft::new(input);
    draft.condition(ERASED, ConditionStatus::False, "SubscriptionRenews", &message);
    draft.summary(Summary::Waiting, "SubscriptionRenews", &message);
    let told = [Notice::RenewedAlert(id.clone())];
    let shown = draft.changed().or_else(|| notices::tell(input, &told));
    let again = notices::any_unsent(input, &told).then(|| input.notice_wait());
    Some(shown.unwrap_or_else(|| notices::wait_at_most(Decision::Wait(Some(input.policy.resync)), again)))
}

/// Takes a tenant back before it is erased: to service if that is paid for, otherwise to a phase in which the customer
/// can pay.
fn take_back(input: &Input) -> Decision {
    let tenant = input.tenant;
    // The next start reads at Stripe whether to charge.
    if failed::waived(input) {
        return failed::refund(input).unwrap_or(Decision::Wait(Some(input.backoff())));
    }
    let served = tenant.status.provisioned_at.is_some();
    let suspended = tenant.spec.is_suspended();
    let mut good = !input.by_stripe();
    if input.by_stripe() {
        let Some(billing) = &input.observed.billing else { return Decision::Act(vec![Effect::ReadBilling]) };
        good = Standing::of(billing) == Standing::Good;
        if let Some(effect) = renewal::take_back(input) {
            return Decision::Act(vec![effect]);
        }
    }
    let mut draft = Draft::new(input);
    draft.status.erases_at = None;
    draft.status.renewal_stopped_at = None;
    // The period that is paid for next is served.
    draft.status.refund_owed_since = None;
    draft.forget(RENEWAL_STOPPED);
    draft.forget(ERASED);
    let by = tenant.spec.wisher().map(|wish| format!(" by {wish}")).unwrap_or_default();
    let message = &format!("Taken back{by} before its data was erased");
    let asked_by = input.wished_by();
    if !served {
        draft.enter(Phase::PendingPayment, EventType::Reactivate, asked_by, message);
        draft.ask_again();
        draft.status.awaiting.get_or_insert(Awaiting { what: Awaited::Payment, since: input.now });
        draft.summary(Summary::Waiting, Awaited::Payment.reason(), message);
    } else if good && !suspended {
        draft.status.collection_paused_since = None;
        draft.forget(COLLECTION_PAUSED);
        draft.enter(Phase::Active, EventType::Reactivate, asked_by, message);
        draft.summary(Summary::Ready, "Active", "The tenant is ready for use");
    } else if suspended {
        draft.enter(Phase::Suspended, EventType::Reactivate, asked_by, message);
        draft.suspended(SuspendedFor::Admin, &dunning::suspended_by(input));
    } else {
        draft.enter(Phase::Suspended, EventType::Reactivate, asked_by, message);
        draft.suspended(SuspendedFor::End, message);
    }
    draft.changed().unwrap_or(Decision::Wait(None))
}

/// Gives back what is owed before anything is erased, and says so while that takes: the customer at Stripe leads to the
/// payment, so it stays until then.
fn refund_first(input: &Input) -> Option<Decision> {
    let decision = failed::give_back(input)?;
    let Decision::Wait(_) = decision else { return Some(decision) };
    let message = format!("Nothing is erased while the refund is open. {}", waiver(input));
    let mut draft = Draft::new(input);
    draft.condition(ERASED, ConditionStatus::False, "RefundOpen", &message);
    draft.summary(Summary::Waiting, "RefundOpen", &message);
    draft.changed().or(Some(decision))
}

/// How a person ends the wait for a refund.
fn waiver(input: &Input) -> String {
    format!("To settle the refund yourself and let the erasure go on, set the annotation {}", failed::waiver(input))
}

/// The erasure is due. Unless a hold stops it, the controller counts what the providers hold before it deletes
/// anything.
fn due(input: &Input) -> Decision {
    // A hold keeps the data. It does not keep the customer paying.
    if let Some(held) = erasure::on_hold(input) {
        return stop_renewal(input).unwrap_or(held);
    }
    // A payment may have arrived that the status does not know of, or a refund come back.
    if let Some(decision) = refund_first(input) {
        return decision;
    }
    // The day of the erasure comes from the object, which may be restored from a backup, so Stripe is read as well.
    if input.by_stripe() && input.observed.billing.is_none() {
        return Decision::Act(vec![Effect::ReadBilling]);
    }
    erasure::begin(input)
}
