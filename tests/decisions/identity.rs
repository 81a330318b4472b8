use tenant_operator::api::Phase;
use tenant_operator::lifecycle::{Claim, Credentials, Decision, Effect};

use crate::case::{Case, condition, fails, failure, holds};

fn unproven() -> Case {
    let mut case = Case::new(None);
    case.view.uid = "u1".into();
    case.view.credentials.proof = false;
    case
}

fn rivalled(outranked: bool) -> Case {
    let mut case = Case::new(Some(Phase::Active));
    case.view.credentials =
        Credentials { proof: true, labelled: true, rivals: vec!["shop/copy".into()], outranked, more_rivals: 0 };
    case
}

#[test]
fn an_id_is_its_own_uid_or_proven_or_refused() {
    let mut case = Case::new(None);
    case.view.uid = "u1".into();
    assert_eq!(case.view.claim(), Claim::Rightful, "proven");
    case.view.credentials.proof = false;
    assert_eq!(case.view.claim(), Claim::Unproven);
    case.view.spec.tenant_id = Some("u1".into());
    assert_eq!(case.view.claim(), Claim::Rightful, "its own uid");
    assert_eq!(
        case.effects(),
        [Effect::AssignIdentity { plan: None }],
        "which gets its proof, so that a backup carries it"
    );
    case.view.spec.tenant_id = None;
    assert_eq!(case.view.claim(), Claim::Unassigned);
    assert_eq!(rivalled(true).view.claim(), Claim::Outranked);
    let mut both = unproven();
    both.view.credentials.outranked = true;
    assert_eq!(both.view.claim(), Claim::Unproven, "without proof, rank is nothing");
}

#[test]
fn a_claim_without_proof_is_shown_with_the_fix_and_nothing_is_done() {
    let status = unproven().recorded();
    assert!(fails(&status, "IdentityVerified", "TenantIdNotOwned") && holds(&status, "Stalled", "TenantIdNotOwned"));
    let message = status.message.clone().expect("a message");
    assert!(message.contains("t1 was not issued to shop/acme"), "{message}");
    assert!(
        message.contains("`kubectl tenant adopt acme --namespace shop --operator-namespace RELEASE-NAMESPACE`"),
        "{message}"
    );
    assert_eq!(status.phase, None);
    assert_eq!(unproven().after_record(), Decision::Wait(None));
}

#[test]
fn its_deletion_says_that_nothing_was_deleted_and_lets_go() {
    let mut case = unproven();
    case.view.deleting = true;
    let status = case.recorded();
    assert!(fails(&status, "CleanedUp", "TenantIdNotOwned"));
    assert_eq!(case.clone().after_record(), Decision::Act(vec![Effect::RemoveFinalizer]));
    case.view.force_delete = true;
    case.view.status = status;
    assert_eq!(case.effects(), [Effect::RemoveFinalizer], "force forces nothing");
    case.view.finalizer = false;
    assert_eq!(case.decide(), Decision::Wait(None));
}

#[test]
fn the_rightful_one_goes_on_and_shows_its_rivals_until_they_are_gone() {
    let mut case = rivalled(false);
    case.observed.api_key = Some(true);
    let status = case.recorded();
    assert!(holds(&status, "IdentityVerified", "ClaimedElsewhere") && status.phase == Some(Phase::Active));
    case.view.status = status;
    assert!(!case.effects().is_empty(), "the welcome, as if nothing were");
    case.view.credentials.rivals.push("shop/another".into());
    assert!(case.recorded().conditions.iter().any(|c| c.message.contains("shop/another")));
    case.view.credentials.rivals.clear();
    assert!(holds(&case.recorded(), "IdentityVerified", "Issued"));
}

#[test]
fn of_two_that_hold_an_id_the_outranked_one_stops() {
    let status = rivalled(true).recorded();
    assert!(fails(&status, "IdentityVerified", "TenantIdConflict") && holds(&status, "Stalled", "TenantIdConflict"));
    let message = status.message.clone().expect("a message");
    assert!(message.contains("t1 is served for an older object") && message.contains("shop/copy"), "{message}");
    assert_eq!(status.phase, Some(Phase::Active), "what it was is not rewritten");
    assert_eq!(rivalled(true).after_record(), Decision::Wait(None));
}

#[test]
fn a_tenant_without_rivals_gets_no_such_condition() {
    let mut case = Case::new(Some(Phase::Active));
    case.observed.api_key = Some(true);
    case.view.sent.insert("welcome".into());
    assert_eq!(condition(&case.recorded(), "IdentityVerified"), None);
}

#[test]
fn an_identity_that_kubernetes_refuses_is_shown_and_tried_again_later() {
    let mut case = Case::new(None);
    (case.view.finalizer, case.view.spec.tenant_id) = (false, None);
    case.observed.failure = Some(failure("Identity", true));
    assert!(holds(&case.recorded(), "Reconciling", "PineconeProviderError"));
    assert_eq!(case.clone().after_record(), Decision::Wait(Some(case.policy.notice_retry)));
}
