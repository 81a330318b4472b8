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
fn a_deletion_that_keeps_the_data_touches_nothing() {
    for phase in [Phase::Active, Phase::Deleting] {
        let mut case = new(phase);
        case.view.keep_data = true;
        let status = case.recorded();
        assert!(fails(&status, "CleanedUp", "Kept") && status.phase == Some(phase));
        assert_eq!(case.after_record(), Decision::Act(vec![Effect::RemoveFinalizer]));
    }
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

#[test]
fn what_is_still_there_is_named_each_by_its_own_name() {
    let left = |done: &[Effect]| {
        let mut case = new(Phase::Deleting);
        case.observed.done.extend(done.iter().cloned());
        case.observed.failure = Some(failure("Billing", true));
        case.recorded().message.expect("a message")
    };
    let all = left(&[]);
    for wanted in ["the Pinecone namespace tenant_t1", "the Secret acme-api-key", "the Stripe subscription"] {
        assert!(all.contains(wanted), "{all}");
    }
    let some = left(&[Effect::DeleteNamespace, Effect::CancelBilling]);
    assert!(
        some.contains("the Secret acme-api-key") && !some.contains("tenant_t1") && !some.contains("Stripe"),
        "{some}"
    );
    assert!(some.starts_with("Cleanup incomplete: Pinecone: answered 500. Still to delete:"), "{some}");
}

#[test]
fn a_cleanup_that_fails_again_and_again_is_tried_less_and_less_often() {
    let waits: Vec<_> = (0..8)
        .map(|failures| {
            let mut case = new(Phase::Deleting);
            (case.observed.failure, case.observed.failures) = (Some(failure("Namespace", true)), failures);
            case.after_record()
        })
        .collect();
    let wanted = [30, 60, 120, 240, 480, 960, 960, 960].map(|s| Decision::Wait(Some(s)));
    assert_eq!(waits, wanted);
}
