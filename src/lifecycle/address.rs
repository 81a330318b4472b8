//! A changed `spec.adminEmail` is followed: at Stripe, and with a notice to the address before.

use sha2::{Digest, Sha256};

use super::status::Draft;
use super::{Decision, Effect, Input, Notice, notices};
use crate::api::Phase;

/// What is still to be done about a changed address.
pub fn follow(input: &Input) -> Option<Decision> {
    let status = &input.tenant.status;
    let settled = matches!(status.phase, None | Some(Phase::PendingPayment | Phase::Deleting | Phase::Deleted));
    if settled || input.observed.failure.is_some() {
        return None;
    }
    let told = notice(input)?;
    let known = input.tenant.spec.billing.stripe.as_ref().is_some_and(|refs| refs.customer_id.is_some());
    if known && input.by_stripe() && !input.observed.done.contains(&Effect::UpdateCustomer) {
        return Some(Decision::Act(vec![Effect::UpdateCustomer]));
    }
    // Before a tenant was set up, its address may have been a stranger's by mistake.
    let ours = status.provisioned_at.is_some();
    if let Some(decision) = notices::tell(input, std::slice::from_ref(&told)).filter(|_| ours) {
        return Some(decision);
    }
    // An old address that takes no mail any more holds up nothing; a mail server that is away is waited for.
    if input.observed.unsent.get(&told).is_some_and(|failure| failure.retryable) {
        return None;
    }
    let mut draft = Draft::new(input);
    draft.status.admin_email = Some(input.tenant.spec.admin_email.clone());
    draft.changed()
}

/// The decision, with no longer a wait than until the notice is tried again.
pub fn retry(input: &Input, decision: Decision) -> Decision {
    let unsent = notice(input).is_some_and(|told| notices::any_unsent(input, &[told]));
    notices::wait_at_most(decision, unsent.then_some(input.policy.notice_retry))
}

/// To the address before, where it is another one.
fn notice(input: &Input) -> Option<Notice> {
    let (before, now) = (input.tenant.status.admin_email.as_deref()?, input.tenant.spec.admin_email.as_str());
    let change = Sha256::digest([before, "\n", now].concat());
    (before != now).then(|| Notice::AddressChanged(hex::encode(&change[..8])))
}
