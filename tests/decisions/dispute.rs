//! Payments that customers dispute: shown and alerted once, and a reason to suspend only if an admin has set it so.

use tenant_operator::api::conditions::get;
use tenant_operator::api::phase::TriggeredBy;
use tenant_operator::api::{Phase, TenantStatus, Timestamp};
use tenant_operator::lifecycle::{
    Decision, Dispute, Effect, Harm, Notice, ObservedDispute, ObservedSubscription, held,
};

use crate::case::{Case, NOW, fails, failure, holds, subscription};

fn dispute(lost: bool) -> Dispute {
    let due_by = Some(Timestamp::from_second(NOW + 1000));
    Dispute { id: "du_1".into(), cause: "fraudulent".into(), amount: 4905, currency: "usd".into(), lost, due_by }
}

/// An Active tenant with nothing else to do.
fn disputed(lost: bool) -> Case {
    let mut case = Case::new(Some(Phase::Active)).sent(&Notice::Welcome).billing(Some(subscription("active")), None);
    (case.observed.api_key, case.observed.dispute) = (Some(true), ObservedDispute::Disputed(dispute(lost)));
    case
}

fn message(status: &TenantStatus) -> String {
    get(&status.conditions, "PaymentDisputed").expect("there").message.to_string()
}

fn alert(state: &str) -> Notice {
    Notice::DisputeAlert(format!("du_1.{state}"))
}

/// Shown and told already.
fn known(lost: bool) -> Case {
    let mut case = disputed(lost).sent(&alert(if lost { "lost" } else { "open" }));
    case.view.status = case.recorded();
    case
}

/// Suspended because of it.
fn suspended() -> Case {
    let mut case = known(false);
    case.policy.suspend_disputed = true;
    case.view.status = case.recorded();
    assert_eq!(case.view.status.phase, Some(Phase::Suspended));
    let since = Timestamp::from_second(NOW);
    case.sent(&Notice::Suspended(since))
}

#[test]
fn it_is_shown_with_what_to_do_and_told_once_for_each_state() {
    let case = disputed(false);
    let status = case.recorded();
    assert!(holds(&status, "PaymentDisputed", "Open") && status.phase == Some(Phase::Active));
    let text = message(&status);
    for part in ["49.05 USD", "du_1", "fraudulent", "by 1970-01-12"] {
        assert!(text.contains(part), "{text}");
    }
    let mut shown = case;
    shown.view.status = status;
    assert_eq!(shown.effects(), [Effect::Notify(alert("open"))]);
    shown.observed.unsent.insert(alert("open"), failure("Notice", true));
    assert!(matches!(shown.after_record_or_wait(), Decision::Wait(Some(wait)) if wait == shown.policy.notice_retry));
    assert!(matches!(known(false).after_record_or_wait(), Decision::Wait(_)), "served on");
    let mut lost = known(false);
    lost.observed.dispute = ObservedDispute::Disputed(dispute(true));
    let status = lost.recorded();
    assert!(holds(&status, "PaymentDisputed", "Lost"));
    let text = message(&status);
    assert!(text.contains("tenant-operator.dev/accept-dispute=du_1"), "{text}");
    lost.view.status = status;
    assert_eq!(lost.effects(), [Effect::Notify(alert("lost"))]);
}

#[test]
fn it_ends_when_it_is_won_or_settled() {
    let mut won = known(false);
    won.observed.dispute = ObservedDispute::None;
    assert!(fails(&won.recorded(), "PaymentDisputed", "Over"));
    let mut settled = known(true);
    settled.view.accepted_dispute = Some("du_1".into());
    assert!(fails(&settled.recorded(), "PaymentDisputed", "Over"));
    settled.view.accepted_dispute = Some("du_0".into());
    assert!(matches!(settled.after_record_or_wait(), Decision::Wait(_)), "another one was settled");
    let mut restarted = known(false);
    restarted.observed.dispute = ObservedDispute::Unknown;
    assert!(
        matches!(restarted.after_record_or_wait(), Decision::Wait(_)),
        "disputes are not read yet, so nothing changes"
    );
    let mut by_hand = disputed(false).manual(true);
    by_hand.observed.billing = None;
    by_hand.policy.suspend_disputed = true;
    assert!(
        matches!(by_hand.after_record_or_wait(), Decision::Wait(_)),
        "a tenant that pays by invoice has no disputes at Stripe"
    );
}

#[test]
fn with_suspend_disputed_the_tenant_is_suspended_uncharged_until_the_dispute_is_over() {
    let mut case = disputed(false);
    case.policy.suspend_disputed = true;
    assert_eq!(case.recorded().phase, Some(Phase::Active), "the platform team is told first");
    let case = suspended();
    let last = case.view.status.transitions.last().expect("there").clone();
    assert_eq!(
        (last.triggered_by, &*last.reason),
        (TriggeredBy::System, "A payment is disputed, and disputed tenants are not served")
    );
    assert_eq!(case.effects(), [Effect::PauseCollection]);
    let paused = ObservedSubscription { paused: true, ..subscription("active") };
    let mut held = case.clone().billing(Some(paused.clone()), None);
    let status = held.recorded();
    assert!(fails(&status, "Ready", "PaymentDisputed") && holds(&status, "CollectionPaused", "PaymentDisputed"));
    held.view.status = status;
    assert!(matches!(held.after_record_or_wait(), Decision::Wait(_)));
    // A restart does not bring it back.
    let mut restarted = held.clone();
    restarted.observed.dispute = ObservedDispute::Unknown;
    assert!(matches!(restarted.after_record_or_wait(), Decision::Wait(_)), "{:?}", restarted.decide());
    held.observed.dispute = ObservedDispute::None;
    held.view.status = held.recorded();
    assert!(fails(&held.view.status, "PaymentDisputed", "Over"));
    assert_eq!(held.effects(), [Effect::CollectAnew]);
    let back = held.billing(Some(subscription("active")), None).recorded();
    assert_eq!(back.phase, Some(Phase::Active));
    let last = back.transitions.last().expect("there");
    assert_eq!((last.triggered_by, &*last.reason), (TriggeredBy::System, "The dispute is over"));
    // Who changes the setting gets everybody back.
    let mut lenient = suspended().billing(Some(paused), None);
    lenient.policy.suspend_disputed = false;
    assert_eq!(lenient.effects(), [Effect::CollectAnew]);
}

/// The dispute may be over by now.
#[test]
fn a_dispute_that_was_known_before_a_restart_suspends_no_tenant_that_is_served() {
    let mut case = known(false);
    case.policy.suspend_disputed = true;
    let mut restarted = case.clone();
    restarted.observed.dispute = ObservedDispute::Unknown;
    assert_eq!(restarted.at_rest().view.status.phase, Some(Phase::Active));
    // What the brake held before the restart stays held until disputes are read.
    case.observed.held.insert(Harm::Suspend);
    let mut braked = case.at_rest();
    assert!(holds(&braked.view.status, "Held", "SuspensionHeld"));
    braked.observed.dispute = ObservedDispute::Unknown;
    let mut braked = braked.at_rest();
    assert!(holds(&braked.view.status, "Held", "SuspensionHeld"), "{:#?}", braked.view.status);
    braked.observed.dispute = ObservedDispute::None;
    assert_eq!(held(&braked.at_rest().view.status), None);
}
