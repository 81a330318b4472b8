//! Where the Tenant is, as Stripe's subscription says it: a webhook finds the Tenant by that, and so does
//! `tenant-operator recover`. A Tenant that was adopted or moved to another name or namespace corrects it.

use crate::lifecycle::{Decision, Effect, Input, ObservedSubscription};

/// Corrects the place of the Tenant in Stripe's metadata.
pub fn follow(input: &Input) -> Option<Decision> {
    let subscription = input.observed.billing.as_ref()?.subscription.as_ref()?;
    let told = input.observed.done.contains(&Effect::UpdateCustomer);
    (is_elsewhere(subscription) && input.by_stripe() && !told).then(|| Decision::Act(vec![Effect::UpdateCustomer]))
}

/// Nothing is read of a subscription that is over.
fn is_elsewhere(subscription: &ObservedSubscription) -> bool {
    subscription.elsewhere && !subscription.over()
}
