//! A payment that the customer disputes at their bank. The controller shows it and alerts the platform team, and if the
//! admin has set it so, suspends the tenant until the dispute is over.

use super::dunning;
use crate::api::conditions::PAYMENT_DISPUTED;
use crate::api::facts::{DisputeState, SuspendedFor};
use crate::api::phase::TriggeredBy;
use crate::api::plan::Money;
use crate::api::{ACCEPT_DISPUTE_ANNOTATION, ConditionStatus};
use crate::lifecycle::status::Draft;
use crate::lifecycle::{Decision, Dispute, Input, Notice, ObservedDispute};

/// The message that people read.
pub const MESSAGE: &str = "A payment is disputed, and disputed tenants are not served";

/// Where a dispute stands.
pub fn state(dispute: &Dispute) -> DisputeState {
    if dispute.lost { DisputeState::Lost } else { DisputeState::Open }
}

/// The dispute that counts, as far as it is known.
fn counts<'a>(input: &Input<'a>) -> Option<&'a Dispute> {
    input.observed.dispute.counting(input.tenant.accepted_dispute.as_ref())
}

/// What is to be shown of it.
pub fn show(input: &Input) -> Option<Decision> {
    if !input.by_stripe() || input.observed.dispute == ObservedDispute::Unknown {
        return None;
    }
    let mut draft = Draft::new(input);
    let Some(dispute) = counts(input) else {
        draft.status.dispute.take()?;
        draft.condition(PAYMENT_DISPUTED, ConditionStatus::False, "Over", "No payment is disputed any more");
        return draft.changed();
    };
    draft.status.dispute = Some(state(dispute));
    draft.condition(PAYMENT_DISPUTED, ConditionStatus::True, state(dispute).reason(), &message(dispute));
    draft.changed()
}

/// The alert to the platform team.
pub fn alert(input: &Input) -> Option<Notice> {
    let dispute = counts(input).filter(|_| input.by_stripe())?;
    Some(Notice::DisputeAlert(format!("{}.{}", dispute.id, state(dispute).reason().to_lowercase())))
}

fn message(dispute: &Dispute) -> String {
    let id = &dispute.id;
    let money = Money { amount: dispute.amount, currency: dispute.currency.clone() };
    let what = format!("a payment of {money} ({id}, {})", dispute.cause);
    if dispute.lost {
        return format!(
            "The customer disputed {what}, and the bank gave it back to them. Settle it with the customer, then set the annotation \
             {ACCEPT_DISPUTE_ANNOTATION}={id}"
        );
    }
    let until = dispute.due_by.map(|at| format!(" by {at}")).unwrap_or_default();
    format!("The customer disputes {what}. Answer it in Stripe's dashboard{until}")
}

/// Whether the status shows a dispute, and disputes are not read yet.
pub fn is_unread(input: &Input) -> bool {
    input.observed.dispute == ObservedDispute::Unknown && input.tenant.status.dispute.is_some()
}

/// Whether a dispute keeps the tenant from being served. Before disputes are read, what was known last counts.
pub fn suspends(input: &Input) -> bool {
    let disputed = match &input.observed.dispute {
        ObservedDispute::Unknown => input.tenant.status.dispute.is_some(),
        ObservedDispute::None | ObservedDispute::Disputed(_) => counts(input).is_some(),
    };
    input.policy.suspend_disputed && input.by_stripe() && disputed
}

/// Of an Active tenant. What was known last keeps a tenant suspended and suspends none: the dispute may be over by now.
pub fn decide(input: &Input) -> Option<Decision> {
    if is_unread(input) {
        return None;
    }
    if let Some(decision) = show(input) {
        return Some(decision);
    }
    suspends(input).then(|| dunning::suspend(input, TriggeredBy::System, SuspendedFor::Dispute, MESSAGE)).flatten()
}
