//! The plan in force outlives the status: it is in the spec before anything is set up by it, and before another one is.

use tenant_operator::api::status::{PlanChangeState as State, PlanConfig};
use tenant_operator::api::{Phase, Timestamp};
use tenant_operator::lifecycle::{Decision, Effect, ObservedSubscription};

use crate::case::{Case, NOW, plan, session, subscription};
use crate::plan_change::{costing, noted, wishing};
use tenant_operator::lifecycle::SessionState;

fn record(plan: &str) -> Decision {
    Decision::Act(vec![Effect::RecordPlan { plan: plan.into() }])
}

fn bought(plan: &str, price: &str) -> ObservedSubscription {
    ObservedSubscription { plan: Some(plan.into()), price: Some(price.into()), ..subscription("active") }
}

/// Restored without its status: on "middle", and asked to move to "other", which costs 900.
fn restored() -> Case {
    let mut case = wishing(Phase::Active, 900);
    case.view.status = Default::default();
    case.view.spec.plan_in_force = Some("middle".into());
    case
}

#[test]
fn it_is_written_down_before_anything_is_set_up() {
    assert_eq!(Case::new(Some(Phase::PendingPayment)).manual(true).next(), record("starter"));
    let mut unassigned = Case::new(None).manual(true);
    unassigned.view.credentials.labelled = false;
    let with = |plan: Option<&str>| vec![Effect::AssignIdentity { plan: plan.map(ToOwned::to_owned) }];
    assert_eq!(unassigned.effects(), with(Some("starter")), "in the same write");
    let mut named_wrong = unassigned.clone();
    named_wrong.plan = None;
    assert_eq!(
        named_wrong.effects(),
        with(None),
        "a plan that does not exist is not kept, because the spec may still be corrected"
    );
    assert_eq!(unassigned.clone().manual(false).effects(), with(None), "nor a plan that was not approved");
    unassigned.view.spec.plan_in_force = Some("starter".into());
    assert_eq!(unassigned.effects(), with(None), "once");
    let mut served = wishing(Phase::Active, 900);
    served.view.credentials.labelled = false;
    assert_eq!(served.effects(), with(Some("middle")), "of a tenant that an earlier release set up");
}

#[test]
fn another_plan_is_looked_at_once_the_one_in_force_is_written_down() {
    let mut case = wishing(Phase::Active, 19_900);
    assert_eq!(case.next(), record("middle"));
    case.view.spec.plan_in_force = Some("stale".into());
    assert_eq!(case.next(), record("middle"), "what the status says counts");
    case.view.spec.plan_in_force = Some("middle".into());
    assert_eq!(case.effects(), [Effect::ReadBilling]);
    let mut paid =
        noted(wishing(Phase::Upgrading, 19_900), State::Running).billing(Some(bought("other", "price_19900")), None);
    paid.view.spec.plan_in_force = Some("middle".into());
    assert_eq!(paid.next(), record("other"), "before the status says so");
}

#[test]
fn a_lost_status_goes_on_with_the_plan_before_and_the_wish_is_kept() {
    let case = restored().billing(Some(bought("middle", "price_4900")), None);
    assert_eq!(case.decide_phase(), Some(Phase::Provisioning), "the wish is not overwritten by what was paid for");
    let mut served = restored().billing(Some(bought("middle", "price_4900")), None);
    served.view.status.phase = Some(Phase::Provisioning);
    served.observed.api_key = Some(true);
    served.observed.namespace = true;
    served.observed.samples = tenant_operator::lifecycle::Samples::Seen;
    let status = served.recorded();
    assert_eq!(status.config, Some(PlanConfig::of("middle", &costing(4900))));
    let elsewhere = restored().billing(Some(bought("third", "price_3")), None);
    assert_eq!(
        elsewhere.effects(),
        [Effect::FollowPaidPlan { plan: "third".into() }],
        "a paid plan that is neither is followed"
    );
}

#[test]
fn writing_that_a_plan_is_in_force_does_not_grant_it() {
    let mut case = restored().billing(Some(bought("other", "price_900")), None);
    case.view.spec.plan_in_force = Some("enterprise".into());
    assert_eq!(case.next(), record("other"), "what was paid for is");
    let mut unnamed = case.clone().billing(Some(ObservedSubscription { plan: None, ..bought("", "price_900") }), None);
    assert_eq!(unnamed.next(), record("other"), "a subscription that was made by hand pays for the plan of the spec");
    unnamed.view.spec.plan_in_force = Some("other".into());
    assert_eq!(unnamed.decide_phase(), Some(Phase::Provisioning));
    let before = ObservedSubscription { plan_before: Some("enterprise".into()), ..bought("other", "price_900") };
    assert_eq!(case.billing(Some(before), None).decide_phase(), Some(Phase::Provisioning), "until the period ends");
}

#[test]
fn a_lost_status_knows_a_scheduled_change_from_stripe() {
    let scheduled = ObservedSubscription { plan_before: Some("middle".into()), ..bought("other", "price_900") };
    let mut case = wishing(Phase::Active, 900).billing(Some(scheduled.clone()), None);
    let change = case.recorded().plan_change.expect("a change");
    let end = Timestamp::from_second(NOW + 10 * 24 * 3600);
    assert_eq!((change.state, change.effective_at), (State::Scheduled, Some(end)));
    let elsewhere = ObservedSubscription { plan_before: Some("third".into()), ..scheduled };
    case = case.billing(Some(elsewhere), None);
    assert_eq!(case.decide_phase(), Some(Phase::Downgrading), "bought again, with another plan before it");
}

#[test]
fn nothing_is_sold_without_a_price() {
    let mut case = restored().billing(None, Some(session(SessionState::Expired, 1)));
    case.view.spec.billing.stripe.as_mut().expect("refs").checkout_attempt = Some(2);
    assert_eq!(case.effects(), [Effect::OpenCheckout { attempt: 2 }]);
    case.wanted = Some(tenant_operator::api::PlanSpec { stripe_price_id: None, ..plan() });
    assert_eq!(crate::case::condition(&case.recorded(), "Ready").map(|c| c.1), Some("PlanHasNoPrice".into()));
    case.wanted = None;
    assert_eq!(crate::case::condition(&case.recorded(), "Ready").map(|c| c.1), Some("PlanNotFound".into()));
}
