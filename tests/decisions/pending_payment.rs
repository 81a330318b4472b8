use tenant_operator::api::phase::TriggeredBy;
use tenant_operator::api::tenant::{Desired, StripeRefs, Wish};
use tenant_operator::api::{Phase, Timestamp};
use tenant_operator::lifecycle::{Decision, Effect, SessionState};

use crate::case::{Case, NOW, fails, failure, holds, session, subscription};

fn new() -> Case {
    known(Case::new(None))
}

fn waiting() -> Case {
    known(Case::new(Some(Phase::PendingPayment)))
}

/// The customer's id is in the spec.
fn known(mut case: Case) -> Case {
    case.view.spec.billing.stripe = Some(StripeRefs { customer_id: Some("cus_1".into()), ..StripeRefs::default() });
    case
}

#[test]
fn a_tenant_that_was_never_seen_gets_its_identity_first() {
    let mut case = new();
    (case.view.finalizer, case.view.credentials, case.view.spec.tenant_id) = (false, Default::default(), None);
    assert_eq!(case.effects(), [Effect::AssignIdentity { plan: None }]);
}

#[test]
fn stripe_is_asked_before_anything_is_made_there() {
    assert_eq!(new().effects(), [Effect::ReadBilling]);
    assert_eq!(new().billing(None, None).effects(), [Effect::OpenCheckout { attempt: 1 }]);
}

/// An address that is edited before the payment must not make a second customer.
#[test]
fn the_customers_id_is_kept_as_soon_as_there_is_one() {
    let mut case = waiting().billing(None, Some(session(SessionState::Open, 1)));
    case.view.spec.billing.stripe = None;
    assert_eq!(case.effects(), [Effect::StoreStripeIds { customer: "cus_1".into(), subscription: None }]);
}

#[test]
fn no_link_is_made_while_there_is_no_room_for_a_tenant() {
    let mut case = waiting().billing(None, None);
    case.observed.capacity_missing = Some("Pinecone: the index is full".into());
    let status = case.recorded();
    assert!(fails(&status, "PaymentReceived", "CapacityMissing"));
    assert_eq!(case.clone().after_record(), Decision::Wait(Some(case.policy.hold_retry)));
    let mut open = waiting().billing(None, Some(session(SessionState::Open, 1)));
    open.observed.capacity_missing.clone_from(&case.observed.capacity_missing);
    assert!(open.recorded().checkout.is_some(), "a link that exists is not taken away");
}

#[test]
fn a_subscription_that_came_to_nothing_gets_a_new_link() {
    for status in ["canceled", "incomplete_expired"] {
        let case = waiting().billing(Some(subscription(status)), Some(session(SessionState::Complete, 1)));
        assert_eq!(case.effects(), [Effect::NextCheckout { attempt: 2 }], "{status}");
    }
}

#[test]
fn an_open_session_is_shown_as_the_link() {
    let case = new().billing(None, Some(session(SessionState::Open, 1)));
    let status = case.recorded();
    assert_eq!(status.phase, Some(Phase::PendingPayment));
    assert_eq!(status.checkout.as_ref().map(|c| c.url.as_str()), Some("https://pay.example/cs_1"));
    assert!(fails(&status, "PaymentReceived", "AwaitingPayment"));
    let (ready, reconciling) =
        (fails(&status, "Ready", "AwaitingPayment"), fails(&status, "Stalled", "AwaitingPayment"));
    assert!(ready && reconciling, "waiting for a customer is neither progress nor a fault");
    assert_eq!(case.clone().after_record(), Decision::Wait(Some(3600)), "until the link expires");
    let mut shown = waiting();
    shown.view.status.checkout = status.checkout;
    assert_eq!(shown.decide(), Decision::Wait(Some(3600)), "nothing is asked of Stripe meanwhile");
    shown.observed.resync = true;
    assert_eq!(shown.effects(), [Effect::ReadBilling], "unless something changed there");
    shown.observed.resync = false;
    shown.view.status.checkout.as_mut().expect("a link").expires_at = Timestamp::from_second(NOW);
    assert_eq!(shown.effects(), [Effect::ReadBilling], "or the link has expired");
}

#[test]
fn an_expired_session_is_numbered_on_in_the_spec_before_a_new_one_is_made() {
    let mut case = waiting().billing(None, Some(session(SessionState::Expired, 1)));
    assert_eq!(case.effects(), [Effect::NextCheckout { attempt: 2 }]);
    case.view.spec.billing.stripe.as_mut().expect("set").checkout_attempt = Some(2);
    assert_eq!(case.effects(), [Effect::OpenCheckout { attempt: 2 }]);
}

#[test]
fn a_complete_session_whose_payment_is_not_through_is_waited_for() {
    let status =
        waiting().billing(Some(subscription("incomplete")), Some(session(SessionState::Complete, 1))).recorded();
    assert_eq!(status.phase, Some(Phase::PendingPayment));
    assert!(fails(&status, "PaymentReceived", "PaymentProcessing"));
    assert!(status.checkout.is_none());
}

#[test]
fn the_ids_are_kept_in_the_spec_before_provisioning_begins() {
    let mut case = waiting().billing(Some(subscription("trialing")), Some(session(SessionState::Complete, 1)));
    let ids = Effect::StoreStripeIds { customer: "cus_1".into(), subscription: Some("sub_1".into()) };
    assert_eq!(case.effects(), [ids]);
    case.view.spec.billing.stripe = Case::new(Some(Phase::Active)).view.spec.billing.stripe;
    let status = case.recorded();
    assert_eq!(status.phase, Some(Phase::Provisioning));
    assert!(holds(&status, "PaymentReceived", "TrialStarted"));
    assert_eq!(status.paid_at.map(Timestamp::as_second), Some(NOW));
    let last = status.transitions.last().expect("a transition");
    assert_eq!(
        (last.from_state, last.to_state, last.triggered_by),
        (Some(Phase::PendingPayment), Phase::Provisioning, TriggeredBy::User)
    );
}

#[test]
fn a_trial_without_a_payment_method_does_not_begin() {
    let mut paid = subscription("trialing");
    paid.payment_method = false;
    let status = waiting().billing(Some(paid), Some(session(SessionState::Complete, 1))).recorded();
    assert_eq!(status.phase, Some(Phase::PendingPayment));
}

#[test]
fn a_contract_waits_for_its_approval_and_then_begins_in_one_write() {
    let status = new().manual(false).recorded();
    assert!(fails(&status, "PaymentReceived", "AwaitingApproval"));
    assert_eq!(new().manual(false).after_record(), Decision::Wait(None));
    let status = new().manual(true).recorded();
    let seen: Vec<_> = status.transitions.iter().map(|t| t.to_state).collect();
    assert_eq!(seen, [Phase::PendingPayment, Phase::Provisioning]);
    assert!(holds(&status, "PaymentReceived", "Approved"));
}

#[test]
fn a_plan_that_is_not_there_or_has_no_price_is_named() {
    let mut case = new();
    case.plan = None;
    let status = case.recorded();
    assert!(
        holds(&status, "Stalled", "PlanNotFound") && status.message.as_deref().is_some_and(|m| m.contains("starter"))
    );
    assert_eq!(case.after_record(), Decision::Wait(None));
    let mut case = new();
    case.plan.as_mut().expect("a plan").stripe_price_id = None;
    assert!(holds(&case.recorded(), "Stalled", "PlanHasNoPrice"));
}

#[test]
fn a_failure_of_stripe_is_said_and_tried_again() {
    let mut case = waiting();
    case.observed.failure = Some(failure("Billing", true));
    let status = case.recorded();
    assert!(holds(&status, "Reconciling", "PineconeProviderError"));
    assert_eq!(status.phase, Some(Phase::PendingPayment));
    // Not at once: the next reconcile asks Stripe again.
    assert_eq!(case.clone().after_record(), Decision::Wait(Some(case.policy.notice_retry)));
}

#[test]
fn only_a_signup_expires_and_only_by_stripes_present_word() {
    let old = |case: Case| {
        let mut case = case;
        case.policy.signup_ttl = 30;
        case
    };
    let unpaid = || old(waiting().billing(None, Some(session(SessionState::Open, 1))));
    assert_eq!(unpaid().signed_up().effects(), [Effect::DeleteTenant]);
    assert_eq!(unpaid().recorded().phase, Some(Phase::PendingPayment), "a manifest is its owner's to delete");
    assert_eq!(old(waiting().signed_up()).effects(), [Effect::ReadBilling], "not before Stripe was asked");
    let paid = old(waiting().signed_up().billing(Some(subscription("active")), None));
    assert!(matches!(paid.effects()[..], [Effect::StoreStripeIds { .. }]), "paid at the last moment");
    for alive in ["past_due", "unpaid", "incomplete"] {
        let case = old(waiting().signed_up().billing(Some(subscription(alive)), None));
        assert!(!case.effects_or_none().contains(&Effect::DeleteTenant), "{alive}");
    }
    let over = old(waiting().signed_up().billing(Some(subscription("incomplete_expired")), None));
    assert_eq!(over.effects(), [Effect::DeleteTenant]);
    // An object that was saved before the payment, and restored after it.
    let mut restored = unpaid().signed_up();
    restored.view.uid = "another".into();
    let status = restored.recorded();
    assert_eq!(status.phase, Some(Phase::PendingPayment));
    restored.view.status = status;
    assert!(matches!(restored.decide(), Decision::Wait(Some(60..))), "{:?}", restored.decide());
}

#[test]
fn a_signup_that_an_admin_suspends_is_not_sold() {
    let mut case = waiting().billing(None, Some(session(SessionState::Open, 1)));
    case.view.spec.suspension = Some(Wish::of_admin(Desired::Suspended, None, None, Timestamp::from_second(NOW)));
    assert_eq!(case.effects(), [Effect::ExpireCheckout], "the open link is closed");
    for (closed, subscription) in [
        (Some(session(SessionState::Expired, 1)), None),
        (Some(session(SessionState::Complete, 1)), Some(subscription("canceled"))),
        (None, None),
    ] {
        let mut case = case.clone().billing(subscription, closed);
        let status = case.recorded();
        assert!(fails(&status, "PaymentReceived", "SuspendedByAdmin") && status.checkout.is_none(), "{status:#?}");
        case.view.status = status;
        assert_eq!(case.decide(), Decision::Wait(None), "no other link is made");
        case.view.spec.suspension = None;
        assert!(matches!(case.effects()[..], [Effect::NextCheckout { .. } | Effect::OpenCheckout { .. }]));
    }
    // What was paid before the link was closed is kept until the admin decides.
    let paid = case.billing(Some(subscription("active")), None);
    assert!(matches!(paid.effects()[..], [Effect::StoreStripeIds { .. }]));
}

#[test]
fn another_plan_before_the_payment_gets_another_link_and_after_it_what_was_paid_counts() {
    let mut case = waiting().billing(None, Some(session(SessionState::Open, 1)));
    case.view.spec.plan = "pro".into();
    assert_eq!(case.effects(), [Effect::NextCheckout { attempt: 2 }], "the old link sells the old plan");
    let mut shown = waiting();
    shown.view.status.checkout = waiting().billing(None, Some(session(SessionState::Open, 1))).recorded().checkout;
    shown.view.generation = Some(2);
    assert_eq!(shown.effects(), [Effect::ReadBilling], "a changed spec is looked at, although a link is shown");
    let mut paid = waiting().billing(Some(subscription("active")), Some(session(SessionState::Complete, 1)));
    paid.view.spec.plan = "pro".into();
    assert_eq!(paid.effects(), [Effect::FollowPaidPlan { plan: "starter".into() }]);
}

#[test]
fn a_signups_link_is_looked_at_when_the_signup_ends_and_a_manifests_when_the_link_does() {
    let wait = |case: Case| {
        let mut case = case.billing(None, Some(session(SessionState::Open, 1)));
        case.policy.signup_ttl = 100;
        case.after_record()
    };
    assert_eq!(wait(waiting().confirmed()), Decision::Wait(Some(41)), "created 60 s ago, it may live 100");
    assert_eq!(wait(waiting()), Decision::Wait(Some(3600)));
    let at_its_limit = |ttl: i64| {
        let mut case = waiting().signed_up().billing(None, Some(session(SessionState::Open, 1)));
        case.policy.signup_ttl = ttl;
        matches!(case.decide(), Decision::Act(effects) if effects == [Effect::DeleteTenant])
    };
    assert!(!at_its_limit(60) && at_its_limit(59));
}

#[test]
fn a_session_beyond_the_number_in_the_spec_is_numbered_on_and_one_behind_it_does_not_count() {
    let case = waiting().billing(None, Some(session(SessionState::Open, 3)));
    assert_eq!(case.effects(), [Effect::NextCheckout { attempt: 4 }], "a lost spec must not reuse a key");
    let mut case = waiting().billing(None, Some(session(SessionState::Open, 1)));
    case.view.spec.billing.stripe.as_mut().expect("set").checkout_attempt = Some(2);
    assert_eq!(case.effects(), [Effect::OpenCheckout { attempt: 2 }]);
}

#[test]
fn a_trial_and_a_payment_are_told_apart() {
    for (status, reason) in [("trialing", "TrialStarted"), ("active", "Paid")] {
        let mut case = waiting().billing(Some(subscription(status)), None);
        case.view.spec.billing.stripe = Case::new(Some(Phase::Active)).view.spec.billing.stripe;
        assert!(holds(&case.recorded(), "PaymentReceived", reason), "{status}");
    }
}

/// As after `recover`, `kubectl tenant move`, or a restore without status.
#[test]
fn a_late_payer_who_was_served_before_keeps_the_service_and_is_sold_nothing() {
    let lost = |status: &str| {
        let mut case = new().billing(Some(subscription(status)), Some(session(SessionState::Complete, 2)));
        case.view.spec.billing.stripe.as_mut().expect("known").subscription_id = Some("sub_1".into());
        case.view.spec.plan_in_force = Some("starter".into());
        case.view.uid = "another".into();
        case
    };
    for (word, received) in [("past_due", "PaymentPastDue"), ("unpaid", "PaymentPastDue"), ("active", "Paid")] {
        let mut case = lost(word);
        if word == "active" {
            // The customer has removed the card.
            case.observed.billing.as_mut().and_then(|b| b.subscription.as_mut()).expect("there").payment_method = false;
        }
        let status = case.recorded();
        assert_eq!(status.phase, Some(Phase::Provisioning), "{word}");
        assert!(status.conditions.iter().any(|c| c.type_ == "PaymentReceived" && c.reason == received), "{status:#?}");
    }
    // One that was never served waits for its first payment, and no second subscription is sold beside it.
    for attempt in [1, 2] {
        for state in [SessionState::Open, SessionState::Expired, SessionState::Complete] {
            let never = waiting().billing(Some(subscription("past_due")), Some(session(state, attempt)));
            let status = never.recorded();
            assert!(fails(&status, "PaymentReceived", "PaymentProcessing") && status.checkout.is_none(), "{status:#?}");
        }
    }
}
