//! How long the controller replaces expired payment links. After that it creates one only on request; otherwise each
//! customer who left would cost one Checkout session a day.

use crate::api::facts::Awaited;
use crate::api::{Phase, TenantStatus, Timestamp};
use crate::lifecycle::{Decision, Input};

/// Whether a tenant waits for its payment, and gets a link only when the customer asks for one.
pub fn link_on_request(status: &TenantStatus) -> bool {
    let waits = matches!(status.phase, Some(Phase::PendingPayment | Phase::Suspended)) && status.checkout.is_none();
    waits && status.awaiting.is_some_and(|awaiting| awaiting.what == Awaited::LinkRequest)
}

/// Waits until the shown link expires, or until the customer asks for a new one. None if Stripe has to be asked,
/// because something may have changed there.
pub fn rest(input: &Input) -> Option<Decision> {
    let status = &input.tenant.status;
    // A changed spec may ask for another plan.
    if status.observed_generation != input.tenant.generation || input.observed.resync {
        return None;
    }
    let Some(checkout) = &status.checkout else {
        return (link_on_request(status) && !is_renewed(input)).then_some(Decision::Wait(None));
    };
    let left = wait(input, checkout.expires_at);
    (left > 0).then_some(Decision::Wait(Some(left)))
}

/// Whether a link that has expired is replaced now.
pub fn is_renewed(input: &Input) -> bool {
    let asked = input.tenant.link_asked == Some(input.tenant.spec.billing.checkout_attempt().saturating_add(1));
    // A signup that is never paid for is removed, and its link with it.
    asked || ends_unpaid(input) || input.now.since(waits_since(input)) < renewed_for(input)
}

fn suspended(input: &Input) -> bool {
    input.tenant.status.phase == Some(Phase::Suspended)
}

fn renewed_for(input: &Input) -> i64 {
    if suspended(input) { input.policy.link_renewal } else { input.policy.signup_ttl }
}

/// Since when the tenant waits for its payment.
fn waits_since(input: &Input) -> Timestamp {
    let phase = if suspended(input) { Phase::Suspended } else { Phase::PendingPayment };
    let entered = input.tenant.status.transitions.iter().rfind(|t| t.to_state == phase);
    entered.map_or(input.tenant.created_at, |t| t.timestamp)
}

/// Seconds until a link expires, or the signup does.
pub fn wait(input: &Input, expires_at: Timestamp) -> i64 {
    let left = expires_at.since(input.now);
    if ends_unpaid(input) { left.min(until_signup_ends(input)) } else { left }
}

/// Whether this is a signup that is removed unless it is paid for. One that has a subscription, and was closed and
/// taken back, stays, and so does a restored one, which may be older than the service of its customer.
pub fn ends_unpaid(input: &Input) -> bool {
    let spec = &input.tenant.spec;
    let unpaid = spec.billing.stripe.as_ref().is_none_or(|refs| refs.subscription_id.is_none());
    spec.login.is_some() && unpaid && !suspended(input) && !input.tenant.served_before()
}

/// Seconds until a signup that is not paid for is removed.
pub fn until_signup_ends(input: &Input) -> i64 {
    input.until(input.tenant.created_at.plus(input.policy.signup_ttl)) + 1
}
