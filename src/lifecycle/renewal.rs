//! A subscription whose tenant was closed, of a Tenant that is open: it goes on where the tenant was taken back since, and is shown
//! where the Tenant does not say so, as after the restore of an object from before the closing.

use super::status::Draft;
use super::{Decision, Effect, Input, Notice, ObservedSubscription};
use crate::api::ConditionStatus;
use crate::api::conditions::{self, RENEWAL_STOPPED};
use crate::api::tenant::Desired;

/// Whether the subscription goes on: the customer or an admin took the tenant back after it was closed.
pub fn goes_on(input: &Input) -> Option<Effect> {
    let subscription = ended(input)?;
    let wish = input.tenant.spec.wisher().filter(|wish| wish.desired == Desired::Active)?;
    (Some(wish.at) > subscription.closed_at).then_some(Effect::RenewAgain)
}

/// Shows a subscription that ends although the Tenant is open.
pub fn show(input: &Input) -> Option<Decision> {
    input.observed.billing.as_ref().filter(|_| input.by_stripe())?;
    let mut draft = Draft::new(input);
    let Some((subscription, closed_at)) = contradicted(input) else {
        let shown = conditions::get(&draft.status.conditions, RENEWAL_STOPPED).is_some();
        draft.forget(RENEWAL_STOPPED);
        return shown.then(|| draft.changed()).flatten();
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

/// What ops are told of it.
pub fn alert(input: &Input) -> Option<Notice> {
    contradicted(input).map(|(subscription, _)| Notice::EndsAlert(subscription.id.clone()))
}

/// The subscription that ends, and when its tenant was closed, where the Tenant knows nothing of it.
fn contradicted<'a>(input: &'a Input) -> Option<(&'a ObservedSubscription, crate::api::Timestamp)> {
    let subscription = ended(input).filter(|s| s.ends && goes_on(input).is_none())?;
    Some((subscription, subscription.closed_at?))
}

/// The subscription that counts, if its tenant was closed. While another one renews, none is renewed beside it.
fn ended<'a>(input: &'a Input) -> Option<&'a ObservedSubscription> {
    let billing = input.observed.billing.as_ref().filter(|_| input.by_stripe() && input.tenant.spec.is_wanted())?;
    billing.subscription.as_ref().filter(|s| s.renewable() && billing.surplus_renewing.is_empty())
}
