//! Transitions are shipped before a tenant rests, and none leaves the status before that.

use tenant_operator::api::phase::{EventType, Transition, TriggeredBy};
use tenant_operator::api::{Phase, Timestamp};
use tenant_operator::lifecycle::{Decision, Effect, Notice};

use crate::case::{Case, NOW};

fn transition(seq: i64) -> Transition {
    Transition {
        tenant_id: "t1".into(),
        event_type: EventType::Suspend,
        from_state: None,
        to_state: Phase::Active,
        timestamp: Timestamp::from_second(NOW - 1),
        triggered_by: TriggeredBy::System,
        reason: "".into(),
        seq,
    }
}

/// A tenant that needs nothing else, with so many transitions.
fn resting(count: i64) -> Case {
    let mut case = Case::new(Some(Phase::Active)).sent(&Notice::Welcome);
    case.policy.outbox = true;
    case.observed.api_key = Some(true);
    while let Decision::Record(status) = case.decide() {
        case.view.status = *status;
    }
    assert!(matches!(case.decide(), Decision::Wait(_)), "{:?}", case.decide());
    case.view.status.transitions = (1..=count).map(transition).collect();
    case
}

#[test]
fn unshipped_transitions_are_shipped_before_the_tenant_rests() {
    let mut case = resting(3);
    assert_eq!(case.effects(), [Effect::ShipTransitions]);
    case.observed.shipped = 2;
    assert_eq!(case.effects(), [Effect::ShipTransitions], "one is left");
    case.observed.shipped = 3;
    assert!(matches!(case.decide(), Decision::Wait(None)), "nothing is written for it alone");
    let mut known = resting(3);
    known.view.status.shipped_seq = Some(3);
    assert!(matches!(known.decide(), Decision::Wait(None)), "after a restart");
    let mut away = resting(3);
    away.observed.unshipped = true;
    assert_eq!(away.decide(), Decision::Wait(Some(away.policy.notice_retry)), "and tried again");
    let mut other = resting(3);
    other.policy.outbox = false;
    assert!(matches!(other.decide(), Decision::Wait(None)));
    let mut copied = resting(3);
    copied.view.credentials.proof = false;
    assert_ne!(copied.decide(), Decision::Act(vec![Effect::ShipTransitions]), "they belong to another tenant");
}

#[test]
fn work_goes_on_before_it_is_told_of() {
    let mut case = Case::new(Some(Phase::Provisioning));
    case.policy.outbox = true;
    case.view.status.transitions = vec![transition(1)];
    assert!(!case.effects().contains(&Effect::ShipTransitions));
}

#[test]
fn an_object_goes_after_its_transitions() {
    let mut case = Case::new(Some(Phase::Deleting)).sent(&Notice::Welcome);
    case.view.deleting = true;
    case.policy.outbox = true;
    case.view.status.transitions = vec![transition(1)];
    case.observed.done.extend([Effect::DeleteNamespace, Effect::DeleteSecrets, Effect::EraseBilling]);
    assert_eq!(case.effects(), [Effect::ShipTransitions]);
    case.observed.unshipped = true;
    assert_eq!(case.decide(), Decision::Wait(Some(case.policy.notice_retry)), "the file is full");
    let mut forced = case.clone();
    forced.view.force_delete = true;
    assert_eq!(forced.effects(), [Effect::RemoveFinalizer]);
    case.observed.shipped = 1;
    case.observed.unshipped = false;
    assert_eq!(case.effects(), [Effect::RemoveFinalizer]);
}

#[test]
fn no_transition_leaves_the_status_before_it_is_shipped() {
    // A suspension adds one.
    let kept = |count: i64, shipped: i64, status: Option<i64>, outbox: bool| {
        let mut case = resting(count);
        case.policy.outbox = outbox;
        case.observed.shipped = shipped;
        case.view.status.shipped_seq = status;
        case.view.spec.desired = tenant_operator::api::tenant::Desired::Suspended;
        let status = case.recorded();
        assert_eq!(status.phase, Some(Phase::Suspended));
        let first = status.transitions.first().expect("some").seq;
        (first, status.transitions.len(), status.shipped_seq)
    };
    assert_eq!(kept(10, 10, None, true), (1, 11, Some(10)));
    assert_eq!(kept(60, 60, None, true), (12, 50, Some(60)), "as many as are kept");
    assert_eq!(kept(60, 0, Some(60), true), (12, 50, Some(60)));
    assert_eq!(kept(60, 0, None, true), (1, 61, None), "nothing is shipped yet");
    assert_eq!(kept(60, 5, None, true), (6, 56, Some(5)));
    assert_eq!(kept(60, 0, None, false), (12, 50, None));
    assert_eq!(kept(1200, 0, None, true), (202, 1000, None), "more fits into no object");
}
