use tenant_operator::api::Phase;
use tenant_operator::lifecycle::{Decision, Effect, Notice};

use crate::case::{Case, failure};

/// Active, with a key of that generation, and one that is noted at Stripe.
fn replaced(generation: u32, noted: Option<u32>) -> Case {
    let mut case = Case::new(Some(Phase::Active)).sent(&Notice::Welcome);
    case.observed.api_key = Some(true);
    case.view.spec.api_key_generation = generation;
    case.view.status.api_key_generation = Some(generation);
    case.view.status.key_generation_at_stripe = Some(generation);
    case = case.at_rest();
    case.view.status.key_generation_at_stripe = noted;
    case
}

#[test]
fn a_replaced_key_is_noted_at_stripe_once_it_is_in_use() {
    let update = Decision::Act(vec![Effect::UpdateCustomer]);
    let mut case = replaced(2, None);
    assert_eq!(case.decide(), update);
    case.observed.done.insert(Effect::UpdateCustomer);
    assert_eq!(case.recorded().key_generation_at_stripe, Some(2));
    assert_eq!(replaced(1, Some(2)).decide(), update, "also back to the first");
    for settled in [replaced(1, None), replaced(2, Some(2)), replaced(2, None).manual(true)] {
        assert_ne!(settled.decide(), update);
    }
    let mut waiting = replaced(2, Some(2));
    waiting.view.spec.api_key_generation = 3;
    waiting.observed.api_key = Some(false);
    assert_eq!(waiting.effects(), [Effect::EnsureApiKey], "the key does not wait for Stripe");
    let mut unnoted = waiting;
    unnoted.view.status.key_generation_at_stripe = None;
    assert_eq!(unnoted.effects(), [Effect::EnsureApiKey], "nor for the note of the one before");
    let mut unknown = replaced(2, None);
    unknown.view.spec.billing.stripe = None;
    assert_ne!(unknown.decide(), update);
    let away = replaced(2, None).failed(&Effect::UpdateCustomer, failure("Billing", true));
    assert!(matches!(away.after_record_or_wait(), Decision::Wait(Some(_))), "Stripe is asked again later");
    let mut suspended = replaced(2, None);
    suspended.view.status.phase = Some(Phase::Suspended);
    assert_ne!(suspended.decide(), update, "once it is served again");
}
