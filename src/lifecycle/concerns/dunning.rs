//! Handles an Active tenant whose payments stop: a notice and a grace period while Stripe tries again, then the suspension. If the
//! subscription has ended, the suspension comes at once. Data is kept.

use crate::api::conditions::{self, PAYMENT_RECEIVED};
use crate::api::phase::{EventType, TriggeredBy};
use crate::api::{ConditionStatus, Phase, TenantStatus, Timestamp};
use crate::lifecycle::status::{Draft, Summary};
use crate::lifecycle::{Decision, Effect, Input, Notice, ObservedBilling, brake};

/// The reason of a payment that is late.
pub const PAST_DUE: &str = "PaymentPastDue";

/// The reason of a suspension by an admin.
pub const BY_ADMIN: &str = "SuspendedByAdmin";
/// The reason of a suspension because there is no subscription any more.
pub const ENDED: &str = "SubscriptionEnded";
/// The reason of a suspension, and of a refused plan change, because a payment is late.
pub const MISSING: &str = "PaymentMissing";

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
    /// What Stripe's word for a subscription means: <https://docs.stripe.com/api/subscriptions/object#subscription_object-status>
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
        return suspend(input, TriggeredBy::Admin, BY_ADMIN, &suspended_by(input));
    }
    match standing(input) {
        Some(Standing::Ended) => {
            return suspend(input, TriggeredBy::System, ENDED, "The subscription has ended");
        }
        Some(Standing::Unpaid) => {
            return suspend(input, TriggeredBy::System, MISSING, "The invoices were not paid");
        }
        Some(Standing::Good) => return None,
        Some(Standing::PastDue) | None => {}
    }
    let since = past_due_since(&input.tenant.status)?;
    if input.until(since.plus(input.policy.payment_grace)) > 0 {
        return None;
    }
    match standing(input) {
        // What Stripe says now counts, not what was last written down.
        None => Some(Decision::Act(vec![Effect::ReadBilling])),
        Some(_) => suspend(input, TriggeredBy::System, MISSING, "The payment did not arrive within the grace period"),
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
pub fn suspend(input: &Input, by: TriggeredBy, reason: &str, message: &str) -> Option<Decision> {
    let mut draft = Draft::new(input);
    show(input, &mut draft);
    draft.enter(Phase::Suspended, EventType::Suspend, by, message);
    draft.summary(Summary::Waiting, reason, message);
    draft.changed().and_then(|decision| brake::permit(input, decision))
}

/// The notices on the way to a suspension whose time has come.
pub fn due(input: &Input) -> Vec<Notice> {
    let standing = standing(input);
    let Some(since) = past_due_since(&input.tenant.status).filter(|_| standing != Some(Standing::Good)) else {
        return Vec::new();
    };
    let half = since.plus(input.policy.payment_grace / 2);
    let mut due = vec![Notice::PaymentFailed(since)];
    if input.now >= half {
        due.push(Notice::PaymentReminder(since));
    }
    due
}

/// Since when a payment is late, as far as the status says so.
pub fn past_due_since(status: &TenantStatus) -> Option<Timestamp> {
    let condition = conditions::get(&status.conditions, PAYMENT_RECEIVED)?;
    let late = condition.status == ConditionStatus::False && condition.reason == PAST_DUE;
    late.then_some(condition.last_transition_time)
}

/// The condition, where Stripe was asked.
pub fn show(input: &Input, draft: &mut Draft) {
    match standing(input) {
        None => {}
        Some(Standing::Good) => draft.recovered(PAYMENT_RECEIVED, "The subscription is paid"),
        Some(Standing::PastDue) => {
            let message = "A payment failed; Stripe tries again";
            draft.condition(PAYMENT_RECEIVED, ConditionStatus::False, PAST_DUE, message);
        }
        Some(Standing::Unpaid) => {
            let message = "The invoices were not paid; the customer can pay them in Stripe's customer portal";
            draft.condition(PAYMENT_RECEIVED, ConditionStatus::False, "Unpaid", message);
        }
        Some(Standing::Ended) => {
            let message = "The subscription has ended";
            draft.condition(PAYMENT_RECEIVED, ConditionStatus::False, ENDED, message);
        }
    }
}

/// What an Active tenant is ready for, and until when.
pub fn summarize(input: &Input, draft: &mut Draft) {
    let Some(since) = past_due_since(&draft.status) else {
        return draft.summary(Summary::Ready, "Active", "The tenant is ready for use");
    };
    let end = since.plus(input.policy.payment_grace);
    let message =
        format!("A payment failed on {since}. The tenant is served until {end}, and suspended then if it is not paid");
    draft.summary(Summary::Ready, PAST_DUE, &message);
}

/// Seconds until the next notice, or until the grace period is over.
pub fn wait(input: &Input) -> Option<i64> {
    let since = past_due_since(&input.tenant.status)?;
    let reminder = since.plus(input.policy.payment_grace / 2).since(input.now);
    let end = input.until(since.plus(input.policy.payment_grace));
    [reminder, end].into_iter().filter(|left| *left > 0).min()
}
