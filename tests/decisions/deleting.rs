use tenant_operator::api::plan::DeletionPolicy::{Erase, Retain};
use tenant_operator::api::status::Refund;
use tenant_operator::api::{Phase, Timestamp};
use tenant_operator::lifecycle::{Decision, Effect, Notice, ObservedRefund};

use crate::case::{Case, NOW, fails, failure, subscription};

const ALL: [Effect; 3] = [Effect::DeleteNamespace, Effect::DeleteSecrets, Effect::EraseBilling];

fn new(phase: Phase) -> Case {
    let mut case = Case::new(Some(phase));
    case.view.deleting = true;
    // A customer who paid and was never served is owed a refund.
    if phase != Phase::PendingPayment {
        case.view.status.provisioned_at = Some(Timestamp::from_second(NOW - 60));
    }
    if phase == Phase::Failed {
        case.view.status.refund =
            Some(Refund { amount: 0, currency: None, at: Timestamp::from_second(NOW - 9), waived: false });
    }
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
    assert_eq!(case.effects(), [Effect::DeleteNamespace, Effect::EraseBilling]);
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

/// The policy comes from the Tenant, otherwise from its Plan, otherwise from the customer's history. A confirmed
/// erasure overrides each.
#[test]
fn the_deletion_policy_decides_and_the_tenants_goes_before_the_plans() {
    let kept =
        |case: &Case| matches!(case.decide(), Decision::Act(all) if all.contains(&Effect::Notify(Notice::KeptAlert)));
    for (tenant, plan, customer, unpaid) in [
        (None, None, true, false),
        (None, Some(Retain), true, true),
        (None, Some(Erase), false, false),
        (Some(Retain), Some(Erase), true, true),
        (Some(Erase), Some(Retain), false, false),
    ] {
        for (phase, wanted) in [(Phase::Active, customer), (Phase::PendingPayment, unpaid)] {
            let mut case = new(phase);
            case.view.erase = false;
            case.view.spec.deletion_policy = tenant;
            case.plan.as_mut().expect("a plan").deletion_policy = plan;
            assert_eq!(kept(&case), wanted, "{tenant:?} {plan:?} {phase}");
            case.view.erase = true;
            assert!(!kept(&case), "it is confirmed: {tenant:?} {plan:?} {phase}");
        }
    }
}

/// Deleting an object is not the wish to erase a customer.
#[test]
fn a_customer_is_erased_only_by_intent() {
    for phase in [Phase::Provisioning, Phase::Active, Phase::Suspended, Phase::Failed] {
        let mut case = new(phase);
        case.view.erase = false;
        assert_eq!(case.effects(), [Effect::Notify(Notice::KeptAlert)], "{phase}");
        let mut told = case.clone().sent(&Notice::KeptAlert);
        let status = told.recorded();
        assert!(fails(&status, "CleanedUp", "Kept") && status.phase == Some(phase), "{phase}");
        let message = status.message.clone().expect("a message");
        assert!(
            message.contains("tenant-operator.dev/erase=t1") && message.contains("kubectl tenant erase"),
            "{message}"
        );
        told.view.status = status;
        assert_eq!(told.effects(), [Effect::RemoveFinalizer], "{phase}");
        let mut mute = case.clone();
        mute.observed.unsent.insert(Notice::KeptAlert, failure("Notice", true));
        assert!(matches!(mute.decide(), Decision::Record(_)), "the deletion does not wait for the alert");
        case.view.erase = true;
        assert_eq!(case.recorded().phase, Some(Phase::Deleting), "{phase}");
    }
    // A tenant that was never paid for is erased at once. An erasure that has begun goes on.
    let mut unpaid = new(Phase::PendingPayment);
    unpaid.view.erase = false;
    assert_eq!(unpaid.recorded().phase, Some(Phase::Deleting));
    let mut begun = new(Phase::Deleting);
    begun.view.erase = false;
    assert_eq!(begun.effects(), [Effect::DeleteNamespace, Effect::DeleteSecrets, Effect::CancelBilling]);
}

#[test]
fn every_sign_of_a_customer_counts_by_itself() {
    let bare = || {
        let mut case = new(Phase::PendingPayment);
        case.view.erase = false;
        case
    };
    let kept = |case: &Case| case.decide() == Decision::Act(vec![Effect::Notify(Notice::KeptAlert)]);
    assert!(!kept(&bare()));
    let mut subscribed = bare();
    subscribed.view.spec.billing.stripe.get_or_insert_default().subscription_id = Some("sub_1".into());
    assert!(kept(&subscribed), "the status may be lost");
    let mut paid = bare();
    paid.view.status.paid_at = Some(Timestamp::from_second(NOW));
    assert!(kept(&paid));
    let mut served = bare();
    served.view.status.provisioned_at = Some(Timestamp::from_second(NOW));
    assert!(kept(&served));
    let mut restored = bare();
    restored.view.uid = "another".into();
    assert!(kept(&restored), "the object may be older than the payment");
    let mut set_up = bare().manual(false);
    set_up.view.spec.plan_in_force = Some("starter".into());
    assert!(kept(&set_up), "a contract that was approved before");
    let (approved, waiting) = (bare().manual(true), bare().manual(false));
    assert!(kept(&approved) && !kept(&waiting), "a contract that is signed");
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
    case.observed.done.extend([Effect::DeleteSecrets, Effect::EraseBilling]);
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
fn the_message_names_each_thing_that_is_still_there() {
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
    let some = left(&[Effect::DeleteNamespace, Effect::EraseBilling]);
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

#[test]
fn only_an_erasure_that_is_meant_deletes_the_customer_at_stripe() {
    assert!(new(Phase::Deleting).effects().contains(&Effect::EraseBilling));
    let mut expired = new(Phase::Deleting);
    expired.view.erase = false;
    assert!(expired.effects().contains(&Effect::CancelBilling));
    expired.view.spec.deletion_policy = Some(Erase);
    assert!(expired.effects().contains(&Effect::EraseBilling), "the policy says so");
}

#[test]
fn everything_is_deleted_once_more_when_no_upload_can_be_under_way() {
    let mut case = new(Phase::Deleting);
    case.view.created_at = Timestamp::from_second(NOW - 10);
    case.view.status.provisioned_at = Some(Timestamp::from_second(NOW - 10));
    case.observed.done.extend(ALL);
    let said = case.recorded().message.expect("a message").to_string();
    assert!(said.contains("can still write until"), "{said}");
    assert_eq!(case.clone().after_record(), Decision::Wait(Some(50)), "an upload may write for 60 seconds");
    case.view.created_at = Timestamp::from_second(NOW - 60);
    assert_eq!(case.effects(), [Effect::RemoveFinalizer]);
    case.observed.done.clear();
    assert_eq!(case.effects(), ALL, "after the wait");
}

/// A payment may arrive at the last moment, so the payment links are closed before the look.
#[test]
fn a_tenant_that_was_never_served_is_refunded_before_the_rest_is_deleted() {
    let mut never_served = Case::new(Some(Phase::Deleting));
    never_served.view.deleting = true;
    let mut failed = new(Phase::Failed);
    failed.view.status.refund = None;
    for mut case in [never_served, failed] {
        assert_eq!(case.effects(), [Effect::StopRenewal]);
        case.observed.done.insert(Effect::StopRenewal);
        assert_eq!(case.effects(), [Effect::ReadBilling]);
        case = case.billing(Some(subscription("active")), None);
        assert_eq!(case.effects(), [Effect::PauseCollection]);
        case = case.billing(Some(subscription("canceled")), None);
        assert_eq!(case.effects(), [Effect::Refund]);
        let refund = |amount, pending| Some(ObservedRefund { amount, pending, ..ObservedRefund::default() });
        case.observed.refund = refund(0, 4900);
        let waiting = case.clone().at_rest();
        assert!(fails(&waiting.view.status, "CleanedUp", "RefundOpen"), "{:#?}", waiting.view.status);
        assert_eq!(waiting.decide(), Decision::Wait(Some(case.policy.resync)), "it may still fail");
        case.observed.refund = refund(4900, 0);
        case.view.status = case.recorded();
        assert_eq!(case.view.status.refund.as_ref().map(|refund| refund.amount), Some(4900));
        if case.view.status.phase == Some(Phase::Failed) {
            case.view.status = case.recorded();
        }
        assert_eq!(case.effects(), ALL);
    }
    let mut unpaid = Case::new(Some(Phase::Deleting)).billing(None, None);
    unpaid.view.deleting = true;
    unpaid.observed.done.insert(Effect::StopRenewal);
    unpaid.observed.refund = Some(ObservedRefund::default());
    assert_eq!(unpaid.effects(), ALL, "nothing was paid, so there is nothing to write down");
}

#[test]
fn a_refund_that_fails_holds_the_deletion_up_until_it_is_forced() {
    let mut case = Case::new(Some(Phase::Deleting));
    case.view.deleting = true;
    case.observed.failure = Some(failure("Billing", true));
    assert!(fails(&case.recorded(), "CleanedUp", "PineconeProviderError"));
    assert!(matches!(case.clone().after_record(), Decision::Wait(Some(_))));
    case.view.force_delete = true;
    assert_eq!(case.after_record(), Decision::Act(vec![Effect::RemoveFinalizer]));
}

/// In Deleting, a tenant that was served before is not owed anything, and its customer is deleted at Stripe.
#[test]
fn a_refund_of_a_failed_tenant_that_was_served_goes_before_the_deletion_even_if_stripe_fails() {
    for effect in [Effect::StopRenewal, Effect::Refund] {
        let mut case = new(Phase::Failed);
        case.view.status.refund = None;
        case = case.failed(&effect, failure("Billing", true));
        let status = case.recorded();
        assert_eq!(status.phase, Some(Phase::Failed), "{effect:?}");
        assert!(fails(&status, "CleanedUp", "PineconeProviderError"), "{effect:?}");
        let wait = case.policy.notice_retry;
        assert_eq!(case.clone().after_record(), Decision::Wait(Some(wait)), "{effect:?}");
        let mut again = case.clone();
        (again.view.status, again.observed) = (status, Default::default());
        assert_eq!(again.effects(), [Effect::StopRenewal], "the next reconcile asks again");
        case.view.force_delete = true;
        assert_eq!(case.recorded().phase, Some(Phase::Deleting), "an admin gives up on it");
    }
    let settled = new(Phase::Failed).failed(&Effect::StopRenewal, failure("Billing", true));
    assert_eq!(settled.recorded().phase, Some(Phase::Deleting), "nothing is owed any more");
}

/// Its object is deleted after Stripe said that the refund was done, and the bank has returned the money since.
#[test]
fn an_object_stays_while_a_refund_that_came_back_is_made_again() {
    let mut case = new(Phase::Deleting).billing(Some(subscription("canceled")), None);
    case.view.status.refund =
        Some(Refund { amount: 4900, currency: None, at: Timestamp::from_second(NOW - 9), waived: false });
    assert_eq!(case.effects(), [Effect::StopRenewal], "it looks before it deletes the customer at Stripe");
    let failing = case.clone().failed(&Effect::StopRenewal, failure("Billing", true));
    let status = failing.recorded();
    assert!(
        fails(&status, "CleanedUp", "PineconeProviderError") && fails(&status, "Refunded", "PineconeProviderError")
    );
    assert!(status.refund_owed_since.is_some());
    case.observed.done.insert(Effect::StopRenewal);
    case.observed.refund = Some(ObservedRefund { pending: 4900, ..ObservedRefund::default() });
    let mut waiting = case.at_rest();
    assert!(fails(&waiting.view.status, "CleanedUp", "RefundOpen"), "{:#?}", waiting.view.status);
    assert_eq!(waiting.decide(), Decision::Wait(Some(waiting.policy.resync)));
    let mut waived = waiting.clone();
    waived.view.waived_refund = Some(waived.view.refund_name());
    assert_eq!(waived.effects(), ALL);
    waiting.observed.refund = Some(ObservedRefund { amount: 4900, ..ObservedRefund::default() });
    assert_eq!(waiting.effects(), ALL);
    assert!(waiting.at_rest().view.status.refund_owed_since.is_none());
}
