//! An open Tenant whose subscription was ended by a closing. If the tenant was taken back since, the subscription goes
//! on. If the Tenant knows nothing of the closing, as after a restore of an older object, the controller shows it.

use crate::api::conditions::RENEWAL_STOPPED;
use crate::api::{ConditionStatus, Timestamp};
use crate::lifecycle::status::Draft;
use crate::lifecycle::{Decision, Effect, Input, Notice, ObservedSubscription};

/// The change at Stripe that is due because the tenant is open again.
pub fn reopen(input: &Input) -> Option<Effect> {
    let subscription = closed(input)?;
    // The customer has undone the end at Stripe. What is kept of the closing would undo a later cancellation.
    if !subscription.ends {
        return Some(Effect::ForgetClosing);
    }
    let wish = input.tenant.spec.wisher()?;
    (Some(wish.at) > subscription.closed_at).then(|| take_back(input)).flatten()
}

/// The change at Stripe that is due when a closed tenant is taken back.
pub fn take_back(input: &Input) -> Option<Effect> {
    let billing = input.observed.billing.as_ref()?;
    let subscription = billing.subscription.as_ref().filter(|s| s.renewable())?;
    // Where another one renews, this one ends, or both would be billed.
    let goes_on = subscription.ends && billing.surplus_renewing.is_empty();
    Some(if goes_on { Effect::RenewAgain } else { Effect::ForgetClosing })
}

/// Shows a subscription that ends although the Tenant is open.
pub fn show(input: &Input) -> Option<Decision> {
    input.observed.billing.as_ref().filter(|_| input.by_stripe())?;
    let mut draft = Draft::new(input);
    let Some((subscription, closed_at)) = contradicted(input) else {
        return draft.forget(RENEWAL_STOPPED).then(|| draft.changed()).flatten();
    };
    let (id, name) = (&subscription.id, &input.tenant.name);
    let end = subscription.period_ends_at.map(|end| format!(" at {end}")).unwrap_or_default();
    let message = format!(
        "The tenant was closed at {closed_at}, so Stripe ends its subscription {id}{end}; the Tenant says Active and may come from an \
         older backup. Nothing is renewed. To keep the customer, run `kubectl tenant reactivate {name}`; to close it, run `kubectl \
         tenant delete {name}`"
    );
    draft.condition(RENEWAL_STOPPED, ConditionStatus::True, "ClosedBefore", &message);
    draft.changed()
}

/// The alert about it.
pub fn alert(input: &Input) -> Option<Notice> {
    contradicted(input).map(|(subscription, _)| Notice::EndsAlert(subscription.id.clone()))
}

/// The subscription that ends, and when its tenant was closed, where the Tenant knows nothing of it.
fn contradicted<'a>(input: &'a Input) -> Option<(&'a ObservedSubscription, Timestamp)> {
    let alone = input.observed.billing.as_ref()?.surplus_renewing.is_empty();
    let subscription = closed(input).filter(|s| alone && s.ends && reopen(input).is_none())?;
    Some((subscription, subscription.closed_at?))
}

/// The subscription that counts, if Stripe says that its tenant is closed, and the tenant is to be served.
fn closed<'a>(input: &'a Input) -> Option<&'a ObservedSubscription> {
    let billing = input.observed.billing.as_ref().filter(|_| input.by_stripe() && input.tenant.spec.is_wanted())?;
    billing.subscription.as_ref().filter(|s| s.renewable())
}
