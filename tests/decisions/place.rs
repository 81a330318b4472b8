//! Stripe's metadata names the place of the Tenant, and a Tenant that was moved corrects it.

use tenant_operator::api::Phase;
use tenant_operator::api::tenant::StripeRefs;
use tenant_operator::lifecycle::{Decision, Effect, ObservedSession, ObservedSubscription, SessionState};

use crate::case::{Case, does, failure, session, subscription};

fn elsewhere(word: &str) -> ObservedSubscription {
    ObservedSubscription { elsewhere: true, ..subscription(word) }
}

/// A Tenant as `kubectl tenant move` or `adopt` leaves it: the ids in the spec, and no status.
fn moved(subscription: ObservedSubscription) -> Case {
    let mut case = Case::new(None).billing(Some(subscription), Some(session(SessionState::Complete, 1)));
    case.view.spec.billing.stripe = Case::new(Some(Phase::Active)).view.spec.billing.stripe;
    case
}

#[test]
fn a_moved_tenant_tells_stripe_where_it_is_and_goes_on() {
    let mut case = moved(elsewhere("active"));
    assert_eq!(case.effects(), [Effect::UpdateCustomer]);
    case.perform(&Effect::UpdateCustomer);
    assert_eq!(case.recorded().phase, Some(Phase::Provisioning), "once in a reconcile");
    assert!(!does(&moved(subscription("active")).decide(), &Effect::UpdateCustomer));
    let failing = moved(elsewhere("active")).failed(&Effect::UpdateCustomer, failure("Billing", true));
    assert_eq!(failing.recorded().phase, Some(Phase::Provisioning), "provisioning does not wait if Stripe refuses it");
}

#[test]
fn a_move_is_told_to_stripe_in_every_phase_that_reads_it() {
    for phase in [Phase::Active, Phase::Suspended, Phase::Upgrading, Phase::Failed, Phase::Provisioning] {
        let case = Case::new(Some(phase)).billing(Some(elsewhere("active")), None);
        assert!(does(&case.decide(), &Effect::UpdateCustomer), "{phase}");
        let over = Case::new(Some(phase)).billing(Some(elsewhere("canceled")), None);
        assert!(!does(&over.decide(), &Effect::UpdateCustomer), "{phase}: nothing is read of one that is over");
    }
}

#[test]
fn a_link_that_would_note_the_old_place_is_replaced() {
    let open = ObservedSession { elsewhere: true, ..session(SessionState::Open, 1) };
    let mut case = Case::new(None).billing(None, Some(open));
    case.view.spec.billing.stripe = Some(StripeRefs { customer_id: Some("cus_1".into()), ..StripeRefs::default() });
    assert_eq!(case.effects(), [Effect::NextCheckout { attempt: 2 }]);
    case.view.spec.billing.stripe.as_mut().expect("ids").checkout_attempt = Some(2);
    assert_eq!(case.effects(), [Effect::OpenCheckout { attempt: 2 }]);
    let paid = case.billing(Some(elsewhere("active")), Some(session(SessionState::Complete, 1)));
    assert_eq!(paid.decide(), Decision::Act(vec![Effect::UpdateCustomer]), "paid at the last moment");
}
