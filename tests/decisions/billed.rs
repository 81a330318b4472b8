//! What Stripe bills, compared with what the tenant has: another price, or a second subscription.

use tenant_operator::api::conditions::get;
use tenant_operator::api::plan::PriceChanges;
use tenant_operator::api::status::PlanChangeState as State;
use tenant_operator::api::tenant::{Desired, Wish};
use tenant_operator::api::{Phase, TenantStatus, Timestamp};
use tenant_operator::lifecycle::{Decision, Effect, Notice, ObservedSubscription};

use crate::case::{Case, NOW, condition, fails, holds, subscription};
use crate::plan_change::{noted, wishing};

/// Served by plan "middle" for 4900, with no other wish, while this price is billed.
fn billing(price: &str, plan: Option<&str>) -> Case {
    let mut case = wishing(Phase::Active, 19_900);
    case.view.spec.plan = "middle".into();
    let billed = ObservedSubscription {
        price: Some(price.into()),
        billed_plan: plan.map(Into::into),
        plan: Some("middle".into()),
        ..subscription("active")
    };
    case.billing(Some(billed), None)
}

fn message(status: &TenantStatus, type_: &str) -> String {
    get(&status.conditions, type_).map(|c| c.message.to_string()).unwrap_or_default()
}

#[test]
fn another_plans_price_is_shown_and_told_and_changes_nothing() {
    let mut case = billing("price_19900", Some("large"));
    let status = case.recorded();
    assert!(fails(&status, "PriceAsPlanned", "PriceOfAnotherPlan"), "{:?}", status.conditions);
    let message = message(&status, "PriceAsPlanned");
    assert!(message.contains("price_19900") && message.contains("Set spec.plan to large"), "{message}");
    assert_eq!((&status.config, status.phase), (&case.view.status.config, Some(Phase::Active)));
    case.view.status = status;
    let alert = Notice::PriceAlert("price_19900".into());
    assert_eq!(case.effects(), [Effect::Notify(alert.clone())]);
    let told = case.sent(&alert).at_rest();
    assert!(matches!(told.decide(), Decision::Wait(_)), "once");
    let mut right = told.clone();
    right.observed.billing = billing("price_4900", Some("middle")).observed.billing;
    assert!(holds(&right.recorded(), "PriceAsPlanned", "Recovered"));
}

#[test]
fn a_price_that_no_plan_has_is_shown_without_an_alert() {
    let case = billing("price_of_last_year", None).at_rest();
    assert!(fails(&case.view.status, "PriceAsPlanned", "UnknownPrice"));
    assert!(matches!(case.decide(), Decision::Wait(_)), "{:?}", case.decide());
}

#[test]
fn the_plan_follows_the_price_where_the_plan_says_so() {
    let mut case = billing("price_19900", Some("large"));
    case.plan.as_mut().expect("a plan").price_changes = PriceChanges::Follow;
    assert_eq!(case.effects(), [Effect::FollowPaidPlan { plan: "large".into() }]);
    case.view.spec.plan = "other".into();
    assert!(!crate::case::does(&case.decide(), &Effect::FollowPaidPlan { plan: "large".into() }), "a wish goes first");
    let mut unknown = billing("price_of_last_year", None);
    unknown.plan.as_mut().expect("a plan").price_changes = PriceChanges::Follow;
    assert!(fails(&unknown.recorded(), "PriceAsPlanned", "UnknownPrice"));
}

#[test]
fn a_change_that_is_under_way_explains_the_price() {
    let quiet = |case: &Case| condition(&case.clone().at_rest().view.status, "PriceAsPlanned");
    assert_eq!(quiet(&billing("price_4900", Some("middle"))), None);
    let mut scheduled = billing("price_900", Some("other"));
    scheduled.view.spec.plan = "other".into();
    assert_eq!(quiet(&noted(scheduled, State::Scheduled)), None);
    let mut kept_at_stripe = billing("price_900", Some("small"));
    let billing_now = kept_at_stripe.observed.billing.as_mut().expect("billing");
    billing_now.subscription.as_mut().expect("one").plan_before = Some("middle".into());
    assert_eq!(quiet(&kept_at_stripe), None);
    let mut by_hand = billing("price_900", Some("small")).manual(true);
    by_hand.view.spec.billing.approved = true;
    assert_eq!(quiet(&by_hand), None);
}

#[test]
fn a_second_subscription_is_shown_and_alerted_and_never_ended() {
    let mut case = billing("price_4900", Some("middle"));
    case.observed.billing.as_mut().expect("billing").surplus = vec!["sub_2".into()];
    let status = case.recorded();
    assert!(fails(&status, "SingleSubscription", "SurplusSubscription"));
    let message = message(&status, "SingleSubscription");
    assert!(message.contains("kubectl tenant subscriptions acme --end sub_2"), "{message}");
    case.view.status = status;
    let alert = Notice::SurplusAlert("sub_2".into());
    assert_eq!(case.effects(), [Effect::Notify(alert.clone())]);
    let mut told = case.sent(&alert).at_rest();
    assert!(matches!(told.decide(), Decision::Wait(_)));
    told.observed.billing.as_mut().expect("billing").surplus.clear();
    assert!(holds(&told.recorded(), "SingleSubscription", "Recovered"));
}

/// As `recover` makes it, or after a lost status.
#[test]
fn a_tenant_that_is_to_be_suspended_is_not_charged_on_the_way() {
    let paused = ObservedSubscription { paused: true, ..subscription("active") };
    // The customer may write `desired` after the admin has written `suspension`.
    let suspension = Wish::of_admin(Desired::Suspended, None, None, Timestamp::from_second(NOW));
    let wishes = [(Desired::Suspended, None), (Desired::Active, Some(suspension))];
    let both =
        [Phase::Provisioning, Phase::Active].into_iter().flat_map(|phase| wishes.clone().map(|wish| (phase, wish)));
    for (phase, (desired, suspension)) in both {
        let mut case = Case::new(Some(phase)).sent(&Notice::Welcome).billing(Some(paused.clone()), None);
        (case.view.spec.desired, case.view.spec.suspension) = (desired, suspension);
        case.observed.api_key = Some(true);
        let charges = |decision: &Decision| {
            let all = [Effect::CollectAnew, Effect::ResumeCollection, Effect::RenewAgain];
            all.iter().any(|effect| crate::case::does(decision, effect))
        };
        let suspends = |decision: &Decision| matches!(decision, Decision::Record(status) if status.phase == Some(Phase::Suspended));
        let first = case.on_the_way(|decision| charges(decision) || suspends(decision));
        assert!(first.as_ref().is_some_and(suspends), "{phase}: {first:?}");
    }
}

#[test]
fn no_subscription_of_a_tenant_that_is_not_served_is_collected() {
    let second = |case: Case, paused: bool| {
        let own = ObservedSubscription { paused: true, ..subscription("active") };
        let mut case = case.billing(Some(own), None);
        let billing = case.observed.billing.as_mut().expect("billing");
        billing.surplus = vec!["sub_2".into()];
        billing.surplus_collected = if paused { Vec::new() } else { vec!["sub_2".into()] };
        case
    };
    let mut suspended = Case::new(Some(Phase::Suspended)).sent(&Notice::Suspended(Timestamp::from_second(NOW - 60)));
    suspended.view.spec.desired = Desired::Suspended;
    let [first, run] = [Notice::FailedAlert("first".into()), Notice::FailedMail("first".into())];
    let failed = Case::new(Some(Phase::Failed)).sent(&first).sent(&run);
    let alert = Notice::SurplusAlert("sub_2".into());
    for case in [suspended, failed] {
        let phase = case.view.status.phase;
        let pauses = |decision: &Decision| crate::case::does(decision, &Effect::PauseCollection);
        assert!(second(case.clone(), false).on_the_way(pauses).is_some(), "{phase:?}");
        assert!(second(case.clone(), true).on_the_way(pauses).is_none(), "{phase:?}: once");
        let shows = |decision: &Decision| matches!(decision, Decision::Record(status) if fails(status, "SingleSubscription", "SurplusSubscription"));
        assert!(second(case.clone(), true).on_the_way(shows).is_some(), "{phase:?}");
        let tells = |decision: &Decision| crate::case::does(decision, &Effect::Notify(alert.clone()));
        assert!(second(case, true).on_the_way(tells).is_some(), "{phase:?}");
    }
}
