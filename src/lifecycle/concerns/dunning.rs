//! Handles an Active tenant whose payments stop: a notice and a grace period while Stripe tries again, then the
//! suspension. If the subscription has ended, the suspension comes at once. Data is kept.

use crate::api::conditions::PAYMENT_RECEIVED;
use crate::api::facts::SuspendedFor;
use crate::api::phase::{EventType, TriggeredBy};
use crate::api::{ConditionStatus, Phase};
use crate::lifecycle::status::{Draft, Summary};
use crate::lifecycle::{Decision, Effect, Input, Notice, ObservedBilling, brake};

/// The reason of a payment that is late.
pub const PAST_DUE: &str = "PaymentPastDue";

/// The reason of a suspension by an admin.
pub const BY_ADMIN: &str = SuspendedFor::Admin.reason();
/// The reason of a suspension because there is no subscription any more.
pub const ENDED: &str = SuspendedFor::End.reason();
/// The reason of a suspension, and of a refused plan change, because a payment is late.
pub const MISSING: &str = SuspendedFor::Payment.reason();

/// How a tenant stands with its payments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Paid, or in trial.
    Good,
    /// A payment failed, and Stripe tries again.
    PastDue,
    /// Stripe tries no more, and the open invoice can still be paid.
    Unpaid,
    /// The subscription is over. Only a new one brings the tenant back.
    Ended,
}

impl Standing {
    /// What Stripe's word for a subscription means:
    /// <https://docs.stripe.com/api/subscriptions/object#subscription_object-status>
    pub fn of(billing: &ObservedBilling) -> Self {
        match billing.subscription.as_ref().map(|s| s.status.as_str()) {
            Some("trialing" | "active") => Self::Good,
            Some("past_due" | "incomplete") => Self::PastDue,
            Some("unpaid" | "paused") => Self::Unpaid,
            // `canceled`, `incomplete_expired`, and a customer that was deleted in the dashboard.
            _ => Self::Ended,
        }
    }
}

fn standing(input: &Input) -> Option<Standing> {
    input.observed.billing.as_ref().filter(|_| input.by_stripe()).map(Standing::of)
}

/// The suspension.
pub fn decide(input: &Input) -> Option<Decision> {
    if input.tenant.spec.is_suspended() {
        return suspend(input, TriggeredBy::Admin, SuspendedFor::Admin, &suspended_by(input));
    }
    match standing(input) {
        Some(Standing::Ended) => {
            return suspend(input, TriggeredBy::System, SuspendedFor::End, "The subscription has ended");
        }
        Some(Standing::Unpaid) => {
            return suspend(input, TriggeredBy::System, SuspendedFor::Payment, "The invoices were not paid");
        }
        Some(Standing::Good) => return None,
        Some(Standing::PastDue) | None => {}
    }
    let since = input.tenant.status.payment_late_since?;
    if input.until(since.plus(input.policy.payment_grace)) > 0 {
        return None;
    }
    match standing(input) {
        // What Stripe says now counts, not what was last written down.
        None => Some(Decision::Act(vec![Effect::ReadBilling])),
        Some(_) => suspend(
            input,
            TriggeredBy::System,
            SuspendedFor::Payment,
            "The payment did not arrive within the grace period",
        ),
    }
}

/// Who suspended the tenant, as a sentence.
pub fn suspended_by(input: &Input) -> String {
    let spec = &input.tenant.spec;
    match spec.suspension.as_ref().or(spec.wisher()) {
        Some(wish) => format!("Suspended by {wish}"),
        None => "An admin suspended the tenant".into(),
    }
}

/// Ends the service.
pub fn suspend(input: &Input, by: TriggeredBy, why: SuspendedFor, message: &str) -> Option<Decision> {
    let mut draft = Draft::new(input);
    show(input, &mut draft);
    draft.enter(Phase::Suspended, EventType::Suspend, by, message);
    draft.suspended(why, message);
    draft.changed().and_then(|decision| brake::permit(input, decision))
}

/// The notices on the way to a suspension whose time has come.
pub fn due(input: &Input) -> Vec<Notice> {
    let standing = standing(input);
    let Some(since) = input.tenant.status.payment_late_since.filter(|_| standing != Some(Standing::Good)) else {
        return Vec::new();
    };
    let half = since.plus(input.policy.payment_grace / 2);
    let mut due = vec![Notice::PaymentFailed(since)];
    if input.now >= half {
        due.push(Notice::PaymentReminder(since));
    }
    due
}

/// A payment is late. The grace period begins, unless it has begun.
pub fn note_late(input: &Input, draft: &mut Draft, message: &str) {
    draft.status.payment_late_since.get_or_insert(input.now);
    draft.condition(PAYMENT_RECEIVED, ConditionStatus::False, PAST_DUE, message);
}

/// How the tenant stands with its payments, where Stripe was asked.
pub fn show(input: &Input, draft: &mut Draft) {
    let Some(standing) = standing(input) else { return };
    draft.status.awaiting = None;
    if standing != Standing::PastDue {
        draft.status.payment_late_since = None;
    }
    match standing {
        Standing::Good => draft.recovered(PAYMENT_RECEIVED, "The subscription is paid"),
        Standing::PastDue => note_late(input, draft, "A payment failed; Stripe tries again"),
        Standing::Unpaid => {
            let message = "The invoices were not paid; the customer can pay them in Stripe's customer portal";
            draft.condition(PAYMENT_RECEIVED, ConditionStatus::False, "Unpaid", message);
        }
        Standing::Ended => {
            let message = "The subscription has ended";
            draft.condition(PAYMENT_RECEIVED, ConditionStatus::False, ENDED, message);
        }
    }
}

/// What an Active tenant is ready for, and until when.
pub fn summarize(input: &Input, draft: &mut Draft) {
    let Some(since) = draft.status.payment_late_since else {
        return draft.summary(Summary::Ready, "Active", "The tenant is ready for use");
    };
    let end = since.plus(input.policy.payment_grace);
    let message =
        format!("A payment failed on {since}. The tenant is served until {end}, and suspended then if it is not paid");
    draft.summary(Summary::Ready, PAST_DUE, &message);
}

/// Seconds until the next notice, or until the grace period is over.
pub fn wait(input: &Input) -> Option<i64> {
    let since = input.tenant.status.payment_late_since?;
    let reminder = since.plus(input.policy.payment_grace / 2).since(input.now);
    let end = input.until(since.plus(input.policy.payment_grace));
    [reminder, end].into_iter().filter(|left| *left > 0).min()
}
