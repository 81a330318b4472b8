use tenant_operator::api::Phase;
use tenant_operator::lifecycle::{Decision, Effect, Notice};

use crate::case::{Case, does, failure};

/// A tenant whose address was changed.
fn moved(phase: Phase) -> Case {
    let mut case = Case::new(Some(phase)).sent(&Notice::Welcome);
    case.observed.api_key = Some(true);
    case.view.status.provisioned_at = Some(case.view.created_at);
    case.view.status.admin_email = Some("ada@example.com".into());
    case = case.at_rest();
    case.view.status.admin_email = Some("before@example.com".into());
    case
}

#[test]
fn a_changed_address_is_followed_at_stripe_and_told_to_the_address_before() {
    let mut case = moved(Phase::Active);
    let effects = case.effects();
    let [Effect::UpdateCustomer, Effect::Notify(notice @ Notice::AddressChanged(_))] = &effects[..] else {
        panic!("{effects:?}")
    };
    case.observed.done.insert(Effect::UpdateCustomer);
    let mut unsent = case.clone();
    unsent.observed.unsent.insert(notice.clone(), failure("Notice", true));
    assert_eq!(unsent.after_record_or_wait(), Decision::Wait(Some(unsent.policy.notice_retry)), "it is tried again");
    assert_eq!(unsent.view.status.admin_email.as_deref(), Some("before@example.com"));
    unsent.observed.unsent.insert(notice.clone(), failure("Notice", false));
    assert_eq!(unsent.recorded().admin_email.as_deref(), Some("ada@example.com"), "a dead mailbox holds up nothing");
    let told = case.clone().sent(notice);
    let status = told.recorded();
    assert_eq!(status.admin_email.as_deref(), Some("ada@example.com"));
    let mut back = told;
    back.view.status.admin_email = Some("ada@example.com".into());
    back.view.spec.admin_email = "before@example.com".into();
    back.observed.done.clear();
    assert!(back.effects().contains(&Effect::UpdateCustomer), "and back again");
}

#[test]
fn an_address_that_got_no_e_mail_is_not_told_of_its_change() {
    for phase in [Phase::PendingPayment, Phase::Deleting, Phase::Deleted] {
        assert!(!does(&moved(phase).decide(), &Effect::UpdateCustomer), "{phase}");
    }
    let mut never_set_up = moved(Phase::Failed);
    never_set_up.view.status.provisioned_at = None;
    let tells = |d: &Decision| matches!(d, Decision::Act(e) if matches!(e.last(), Some(Effect::Notify(Notice::AddressChanged(_)))));
    assert_eq!(never_set_up.clone().on_the_way(tells), None, "it may have been a stranger's");
    let follows =
        |d: &Decision| matches!(d, Decision::Record(s) if s.admin_email.as_deref() == Some("ada@example.com"));
    assert!(never_set_up.on_the_way(follows).is_some());
    assert!(moved(Phase::Failed).on_the_way(tells).is_some());
    let by_hand = moved(Phase::Active).manual(true);
    assert!(matches!(by_hand.effects()[..], [Effect::Notify(Notice::AddressChanged(_))]));
    let failing = moved(Phase::Active).failed(&Effect::UpdateCustomer, failure("Billing", true));
    let effects = failing.effects();
    let [Effect::Notify(notice @ Notice::AddressChanged(_))] = &effects[..] else { panic!("{effects:?}") };
    let told = failing.sent(notice);
    assert!(matches!(told.after_record_or_wait(), Decision::Wait(Some(_))), "Stripe is not asked again at once");
    let mut same = moved(Phase::Active);
    same.view.status.admin_email = Some("ada@example.com".into());
    assert!(!does(&same.decide(), &Effect::UpdateCustomer));
    // Of an earlier version, which kept no address: it is written with the next status, and by itself it is none.
    same.view.status.admin_email = None;
    assert_eq!(same.decide(), Decision::Wait(None));
    same.view.generation = Some(2);
    assert_eq!(same.recorded().admin_email.as_deref(), Some("ada@example.com"));
}
