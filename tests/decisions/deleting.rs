use tenant_operator::api::Phase;
use tenant_operator::lifecycle::{Decision, Effect};

use crate::case::{Case, fails, failure};

const ALL: [Effect; 3] = [Effect::DeleteNamespace, Effect::DeleteSecrets, Effect::CancelBilling];

fn new(phase: Phase) -> Case {
    let mut case = Case::new(Some(phase));
    case.view.deleting = true;
    case
}

#[test]
fn every_phase_can_be_left() {
    for phase in [Phase::PendingPayment, Phase::Provisioning, Phase::Active, Phase::Failed, Phase::Suspended] {
        let status = new(phase).recorded();
        assert_eq!(status.phase, Some(Phase::Deleting));
        assert_eq!(status.transitions.last().and_then(|t| t.from_state), Some(phase));
        assert!(status.checkout.is_none());
    }
}

#[test]
fn providers_first_and_then_the_object() {
    let mut case = new(Phase::Deleting);
    assert_eq!(case.effects(), ALL);
    case.observed.done.insert(Effect::DeleteSecrets);
    assert_eq!(case.effects(), [Effect::DeleteNamespace, Effect::CancelBilling]);
    case.observed.done.extend(ALL);
    assert_eq!(case.effects(), [Effect::RemoveFinalizer]);
    assert_eq!(new(Phase::Deleting).manual(true).effects(), ALL[..2]);
}

#[test]
fn without_our_finalizer_there_is_nothing_to_do() {
    let mut case = new(Phase::Active);
    case.view.finalizer = false;
    assert_eq!(case.decide(), Decision::Wait(None));
}

#[test]
fn a_provider_that_is_away_is_named_and_waited_for() {
    let mut case = new(Phase::Deleting);
    case.observed.done.extend([Effect::DeleteSecrets, Effect::CancelBilling]);
    case.observed.failure = Some(failure("Namespace", true));
    let status = case.recorded();
    assert!(fails(&status, "CleanedUp", "PineconeProviderError"));
    let message = status.message.expect("a message");
    assert!(message.contains("namespace tenant_t1") && message.contains("force-delete"), "{message}");
}

#[test]
fn force_says_what_is_left_behind_and_lets_go() {
    let mut case = new(Phase::Deleting);
    case.view.force_delete = true;
    case.observed.failure = Some(failure("Namespace", true));
    let status = case.recorded();
    assert!(fails(&status, "CleanedUp", "Forced"));
    case.view.status = status;
    assert_eq!(case.effects(), [Effect::RemoveFinalizer]);
}
