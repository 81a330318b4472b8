//! An expired payment link is replaced for a while, and then when one is asked for.

use tenant_operator::api::facts::SuspendedFor;
use tenant_operator::api::tenant::StripeRefs;
use tenant_operator::api::{Phase, Timestamp};
use tenant_operator::lifecycle::{Decision, Effect, Notice, SessionState, link_on_request, suspended_for};

use crate::case::{Case, NOW, fails, session, subscription};

const DAY: i64 = 24 * 3600;

/// Suspended since then because the subscription ended, with a link that has expired.
fn ended(since: i64) -> Case {
    let mut case = Case::new(Some(Phase::Active)).billing(Some(subscription("canceled")), None);
    case.observed.api_key = Some(true);
    case.view.status = case.recorded();
    assert_eq!(case.view.status.phase, Some(Phase::Suspended));
    case.view.status.transitions.last_mut().expect("a transition").timestamp = Timestamp::from_second(since);
    let case = case.sent(&Notice::Suspended(Timestamp::from_second(since)));
    case.billing(Some(subscription("canceled")), Some(session(SessionState::Expired, 1)))
}

/// From a manifest, never paid for, with a link that has expired.
fn unpaid(created: i64) -> Case {
    let mut case = Case::new(Some(Phase::PendingPayment));
    case.view.created_at = Timestamp::from_second(created);
    let customer_id = Some("cus_1".into());
    case.view.spec.billing.stripe = Some(StripeRefs { customer_id, ..StripeRefs::default() });
    case.billing(None, Some(session(SessionState::Expired, 1)))
}

/// A later reconcile, which has read nothing yet.
fn later(case: &Case) -> Case {
    let mut later = case.clone().at_rest();
    later.observed.billing = None;
    later
}

#[test]
fn the_link_of_a_customer_who_left_is_not_renewed_each_day() {
    let next = [Effect::NextCheckout { attempt: 2 }];
    assert_eq!(ended(NOW - DAY + 1).effects(), next, "one link for each suspension");
    let case = ended(NOW - DAY);
    let status = case.recorded();
    assert_eq!(status.phase, Some(Phase::Suspended));
    assert!(status.checkout.is_none() && fails(&status, "Ready", "LinkOnRequest") && link_on_request(&status));
    assert!(status.message.as_deref().is_some_and(|m| m.contains("kubectl tenant open acme")));
    assert_eq!(suspended_for(&status), SuspendedFor::End);
    assert_eq!(case.clone().after_record(), Decision::Wait(None));
    assert_eq!(later(&case).decide(), Decision::Wait(None), "Stripe is not asked again");
}

#[test]
fn a_link_is_made_once_for_each_time_that_it_is_asked_for() {
    for case in [ended(NOW - 30 * DAY), unpaid(NOW - 30 * DAY)] {
        let mut asked = later(&case);
        asked.view.link_asked = Some(2);
        assert_eq!(asked.effects(), [Effect::ReadBilling]);
        asked.observed.billing.clone_from(&case.observed.billing);
        assert_eq!(asked.effects(), [Effect::NextCheckout { attempt: 2 }]);
        asked.view.spec.billing.stripe.as_mut().expect("ids").checkout_attempt = Some(2);
        assert_eq!(asked.effects(), [Effect::OpenCheckout { attempt: 2 }]);
        let subscription = asked.observed.billing.as_ref().and_then(|b| b.subscription.clone());
        let open = asked.clone().billing(subscription.clone(), Some(session(SessionState::Open, 2))).recorded();
        assert!(open.checkout.is_some() && fails(&open, "Ready", "AwaitingPayment"));
        let again = asked.billing(subscription, Some(session(SessionState::Expired, 2)));
        assert_eq!(later(&again).decide(), Decision::Wait(None), "the request was answered");
        for other in [1, 3, u32::MAX] {
            let mut wrong = later(&case);
            wrong.view.link_asked = Some(other);
            assert_eq!(wrong.decide(), Decision::Wait(None), "{other} asks for nothing");
        }
    }
}

#[test]
fn changes_at_stripe_are_read_without_a_link() {
    let mut case = later(&ended(NOW - 30 * DAY));
    case.observed.resync = true;
    assert_eq!(case.effects(), [Effect::ReadBilling]);
    let mut changed = later(&unpaid(NOW - 30 * DAY));
    changed.view.generation = Some(2);
    assert_eq!(changed.effects(), [Effect::ReadBilling], "a changed spec may ask for another plan");
}

#[test]
fn a_manifests_link_is_renewed_for_as_long_as_a_signup_lives() {
    let next = [Effect::NextCheckout { attempt: 2 }];
    assert_eq!(unpaid(NOW - 7 * DAY + 1).effects(), next);
    let case = unpaid(NOW - 7 * DAY);
    let status = case.recorded();
    assert!(status.phase == Some(Phase::PendingPayment) && fails(&status, "Ready", "LinkOnRequest"));
    assert_eq!(later(&case).decide(), Decision::Wait(None));
    let taken_back = |mut case: Case| {
        let mut fresh = Case::new(None).billing(None, Some(session(SessionState::Open, 1)));
        fresh.view.spec.billing.stripe.clone_from(&case.view.spec.billing.stripe);
        let mut entered = fresh.recorded().transitions.pop().expect("a transition");
        entered.timestamp = Timestamp::from_second(NOW - DAY);
        case.view.status.transitions.push(entered);
        case
    };
    assert_eq!(
        taken_back(unpaid(NOW - 30 * DAY)).effects(),
        next,
        "the wait starts again when the account is taken back"
    );
}

/// A signup is removed when it is never paid for, and its link with it.
#[test]
fn a_signups_link_is_renewed_until_it_is_removed() {
    let signup = |created: i64| unpaid(created).confirmed();
    assert_eq!(signup(NOW - 6 * DAY).effects(), [Effect::NextCheckout { attempt: 2 }]);
    assert_eq!(signup(NOW - 7 * DAY - 1).effects(), [Effect::DeleteTenant]);
}

/// One that was closed before it was served, and taken back, is not removed: its subscription is known. It must not ask
/// Stripe each second.
#[test]
fn a_signup_with_a_subscription_waits_for_its_link_and_not_for_its_removal() {
    let mut case = unpaid(NOW - 30 * DAY).confirmed();
    case.view.spec.billing.stripe.as_mut().expect("ids").subscription_id = Some("sub_1".into());
    let open = case.clone().billing(Some(subscription("canceled")), Some(session(SessionState::Open, 1)));
    assert_eq!(open.after_record(), Decision::Wait(Some(3600)), "until the link expires");
    let expired = case.billing(Some(subscription("canceled")), Some(session(SessionState::Expired, 1)));
    assert_eq!(later(&expired).decide(), Decision::Wait(None));
}
