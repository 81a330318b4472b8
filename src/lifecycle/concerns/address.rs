//! Follows a changed `spec.adminEmail`: updates the customer at Stripe and sends a notice to the old address.

use sha2::{Digest, Sha256};

use super::notices;
use crate::api::Phase;
use crate::lifecycle::status::Draft;
use crate::lifecycle::{Decision, Effect, Input, Notice};

/// The next step for a changed address. The notice to the old address does not wait for Stripe, because an attacker may
/// have changed the address.
pub fn follow(input: &Input) -> Option<Decision> {
    let status = &input.tenant.status;
    let settled = matches!(status.phase, None | Some(Phase::PendingPayment | Phase::Deleting | Phase::Deleted));
    if settled {
        return None;
    }
    let told = notice(input)?;
    let known = input.tenant.spec.billing.stripe.as_ref().is_some_and(|refs| refs.customer_id.is_some());
    let unknown_there = known && input.by_stripe() && !input.observed.done.contains(&Effect::UpdateCustomer);
    let mut effects: Vec<_> = unknown_there.then_some(Effect::UpdateCustomer).into_iter().collect();
    // Before a tenant was set up, its address may have been a stranger's by mistake.
    let ours = status.provisioned_at.is_some();
    if let Some(Decision::Act(tell)) = notices::tell(input, std::slice::from_ref(&told)).filter(|_| ours) {
        effects.extend(tell);
    }
    if !effects.is_empty() {
        return Some(Decision::Act(effects));
    }
    // An old address that refuses mail does not hold up the rest. If the mail server is away, the notice is tried
    // again.
    if input.observed.unsent.get(&told).is_some_and(|failure| failure.retryable) {
        return Some(Decision::Wait(Some(input.policy.notice_retry)));
    }
    let mut draft = Draft::new(input);
    draft.status.admin_email = Some(input.tenant.spec.admin_email.clone());
    draft.changed()
}

/// To the address before, where it is another one.
fn notice(input: &Input) -> Option<Notice> {
    let (before, now) = (input.tenant.status.admin_email.as_deref()?, input.tenant.spec.admin_email.as_str());
    let change = Sha256::digest([before, "\n", now].concat());
    (before != now).then(|| Notice::AddressChanged(hex::encode(&change[..8])))
}
