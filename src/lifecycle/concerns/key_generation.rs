//! A replaced API key is noted at Stripe, so that `tenant-operator recover` gives a customer back the key that is in
//! use.

use crate::api::Phase;
use crate::lifecycle::status::Draft;
use crate::lifecycle::{Decision, Effect, Input};

/// What is still to be noted. The key itself waits for none of this.
pub fn note(input: &Input) -> Option<Decision> {
    let (tenant, status) = (input.tenant, &input.tenant.status);
    let known = tenant.spec.billing.stripe.as_ref().is_some_and(|refs| refs.customer_id.is_some());
    if status.phase != Some(Phase::Active) || !known || !input.by_stripe() {
        return None;
    }
    let generation = status.api_key_generation?;
    // Without a note it is the first one.
    if status.key_generation_at_stripe.unwrap_or(1) == generation {
        return None;
    }
    if !input.observed.done.contains(&Effect::UpdateCustomer) {
        return Some(Decision::Act(vec![Effect::UpdateCustomer]));
    }
    let mut draft = Draft::new(input);
    draft.status.key_generation_at_stripe = Some(generation);
    draft.changed()
}
