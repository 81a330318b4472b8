use tenant_operator::api::Phase;
use tenant_operator::api::status::Refund;
use tenant_operator::api::tenant::Desired;
use tenant_operator::api::{Timestamp, TriggeredBy};
use tenant_operator::lifecycle::{Decision, Effect, Notice, ObservedRefund, Outcome, Samples};

use crate::case::{Case, NOW, fails, failure, holds, subscription};

fn new() -> Case {
    Case::new(Some(Phase::Failed))
}

fn refunded() -> Case {
    let mut case = new();
    case.view.status.refund =
        Some(Refund { amount: 0, currency: None, at: Timestamp::from_second(NOW), waived: false });
    case
}

/// The platform team knows.
fn told() -> Case {
    let [alert, _] = notices();
    new().sent(&alert)
}

fn notices() -> [Notice; 2] {
    [Notice::FailedAlert("first".into()), Notice::FailedMail("first".into())]
}

#[test]
fn collection_is_paused_and_then_the_money_given_back() {
    assert_eq!(told().effects(), [Effect::ReadBilling]);
    let mut case = told().billing(Some(subscription("active")), None);
    assert_eq!(case.effects(), [Effect::PauseCollection]);
    case.observed.learn(&Effect::PauseCollection, Outcome::Done);
    assert_eq!(case.effects(), [Effect::Refund]);
    case.observed.refund =
        Some(ObservedRefund { amount: 4900, currency: Some("usd".into()), ..ObservedRefund::default() });
    let status = case.recorded();
    assert_eq!(status.refund.as_ref().map(|r| r.amount), Some(4900));
    assert!(holds(&status, "Refunded", "Refunded"));
}

/// Found by the model: the reconcile that paused collection goes on with a retry that was asked for meanwhile.
#[test]
fn collection_paused_by_this_pass_is_resumed_for_a_retry_that_came_meanwhile() {
    let mut case = told().billing(Some(subscription("active")), None);
    case.observed.learn(&Effect::PauseCollection, Outcome::Done);
    case.view.retry_token = Some("2".into());
    case.view.status = case.recorded();
    (case.observed.api_key, case.observed.namespace, case.observed.samples) = (Some(true), true, Samples::Seen);
    assert_eq!(case.effects(), [Effect::CollectAnew]);
}

#[test]
fn nothing_paid_is_nothing_given_back_and_says_so() {
    let mut case = told().billing(Some(subscription("trialing")), None);
    case.observed.learn(&Effect::PauseCollection, Outcome::Done);
    case.observed.refund = Some(ObservedRefund::default());
    assert!(holds(&case.recorded(), "Refunded", "NothingPaid"));
}

#[test]
fn billing_by_hand_has_nothing_to_give_back() {
    assert_eq!(new().manual(true).effects(), notices().map(Effect::Notify));
}

#[test]
fn ops_and_the_customer_are_told_once_in_each_run() {
    assert_eq!(refunded().effects(), notices().map(Effect::Notify));
    let mut case = refunded();
    case.observed.sent.extend(notices());
    assert_eq!(case.effects(), [Effect::MarkSent(notices().to_vec())]);
    let told = notices().iter().fold(refunded(), Case::sent);
    assert_eq!(told.decide(), Decision::Wait(None));
    let mut again = told;
    again.view.status.provisioning.as_mut().expect("a run").retry_token = Some("2".into());
    assert_eq!(again.effects().len(), 2, "a second run is announced again");
}

#[test]
fn a_mail_that_cannot_be_sent_is_tried_again() {
    let [alert, mail] = notices();
    let mut case = refunded().sent(&alert);
    case.observed.unsent.insert(mail, failure("Notice", true));
    assert_eq!(case.decide(), Decision::Wait(Some(case.policy.notice_retry)));
}

#[test]
fn a_refund_that_fails_is_shown_and_silences_no_notice() {
    let [alert, mail] = notices();
    assert_eq!(new().effects(), [Effect::Notify(alert.clone())], "before anything is asked of Stripe");
    let mut case = told();
    case.observed.failure = Some(failure("Billing", true));
    assert!(fails(&case.recorded(), "Refunded", "PineconeProviderError"));
    let status = case.recorded();
    case.observed.recorded(&case.view.status, &status);
    case.view.status = status;
    assert_eq!(case.effects(), [Effect::Notify(mail.clone())], "the customer is told all the same");
    let mut case = case.sent(&mail);
    assert_eq!(case.decide(), Decision::Wait(Some(case.policy.notice_retry)));
    case.observed.failures = 3;
    assert_eq!(case.decide(), Decision::Wait(Some(case.policy.notice_retry * 8)), "less and less often");
}

#[test]
fn a_refund_that_a_person_settles_is_not_made_and_collection_is_paused_all_the_same() {
    let mut case = notices().iter().fold(new(), Case::sent).billing(Some(subscription("active")), None);
    case.view.waived_refund = Some(case.view.refund_name());
    assert_eq!(case.effects(), [Effect::PauseCollection]);
    case.observed.learn(&Effect::PauseCollection, Outcome::Done);
    assert_eq!(case.effects(), [Effect::WaiveRefund]);
    let mut hasty = case.clone();
    hasty.view.retry_token = Some("2".into());
    assert_eq!(hasty.effects(), [Effect::WaiveRefund], "the retry reads at Stripe whether to charge");
    let mut unnamed = case.clone();
    unnamed.observed.learn(&Effect::WaiveRefund, Outcome::PaymentNotNamed("in_7".into()));
    let status = unnamed.recorded();
    assert!(fails(&status, "Refunded", "PaymentNotNamed") && status.refund.is_none(), "{status:#?}");
    let said = status.conditions.iter().find(|c| &*c.type_ == "Refunded").expect("a condition").message.to_string();
    let value = format!("{}.in_7", unnamed.view.refund_name());
    assert!(said.contains(&format!("waive-refund={value}.")), "{said}");
    unnamed.view.waived_refund = Some(value);
    unnamed.observed.payment_not_named = None;
    assert_eq!((unnamed.effects(), unnamed.view.waived_invoice()), (vec![Effect::WaiveRefund], Some("in_7")));
    unnamed.view.waived_refund = Some(format!("{}0.in_7", unnamed.view.refund_name()));
    assert!(!unnamed.view.refund_waived(), "another refund");
    let away = case.clone().failed(&Effect::WaiveRefund, failure("Billing", true));
    assert!(matches!(away.at_rest().decide(), Decision::Wait(Some(_))), "it is tried again");
    for case in [&mut case, &mut hasty] {
        case.observed.learn(&Effect::WaiveRefund, Outcome::Done);
    }
    let mut rest = case.at_rest();
    assert!(fails(&rest.view.status, "Refunded", "Waived"), "{:#?}", rest.view.status);
    assert!(rest.view.status.refund.as_ref().is_some_and(|refund| refund.waived && refund.amount == 0));
    hasty.view.status = hasty.recorded();
    assert_eq!(hasty.recorded().phase, Some(Phase::Provisioning), "then it begins");
    assert_eq!(rest.decide(), Decision::Wait(None));
    rest.observed.billing = None;
    assert_eq!(rest.decide(), Decision::Wait(None), "nor is Stripe read again and again");
    // The customer pays anew, and that run fails, too.
    let mut next = rest.billing(Some(subscription("active")), None);
    next.view.status.provisioning.as_mut().expect("a run").started_at = Timestamp::from_second(NOW + 60);
    next.view.status.refund = None;
    assert_eq!(next.effects(), [Effect::PauseCollection]);
    next.observed.learn(&Effect::PauseCollection, Outcome::Done);
    assert_eq!(next.effects(), [Effect::Refund], "that is another payment");
    next.view.waived_refund = Some("t1".into());
    assert_eq!(next.effects(), [Effect::Refund], "a value that does not name the refund");
    // That run has charged nothing: the payment is the one that a person settles, as Stripe's record says.
    next.observed.refund = Some(ObservedRefund { waived: 4900, ..ObservedRefund::default() });
    let status = next.recorded();
    assert!(fails(&status, "Refunded", "Waived") && status.refund.is_some_and(|refund| refund.waived), "not refunded");
}

#[test]
fn an_edited_spec_is_observed() {
    let mut case = notices().iter().fold(refunded(), Case::sent);
    assert_eq!(case.decide(), Decision::Wait(None));
    case.view.generation = Some(2);
    assert_eq!(case.recorded().observed_generation, Some(2));
    assert_eq!(case.after_record(), Decision::Wait(None));
}

#[test]
fn a_new_value_of_the_annotation_starts_over_and_an_old_one_does_not() {
    let mut case = refunded();
    case.view.retry_token = Some("2".into());
    let status = case.recorded();
    assert_eq!(status.phase, Some(Phase::Provisioning));
    let run = status.provisioning.as_ref().expect("a run");
    assert_eq!((run.attempts, run.retry_token.as_deref()), (0, Some("2")));
    assert_eq!(status.transitions.last().expect("one").triggered_by, TriggeredBy::Admin);
    case.view.status = status;
    case.view.status.phase = Some(Phase::Failed);
    assert_eq!(case.effects(), [Effect::Notify(Notice::FailedAlert("2".into()))], "the same value is answered once");
}

/// Stripe answers 400 to a pause of a subscription that is over.
#[test]
fn a_subscription_that_was_cancelled_at_stripe_is_refunded_without_a_pause() {
    for status in ["canceled", "incomplete_expired"] {
        let case = told().billing(Some(subscription(status)), None);
        assert_eq!(case.effects(), [Effect::Refund], "{status}");
    }
    // The wish to leave waits for the refund alone.
    let mut case = told().billing(Some(subscription("canceled")), None);
    case.view.spec.desired = Desired::Deleted;
    assert_eq!(case.effects(), [Effect::Refund]);
    case.observed.refund = Some(ObservedRefund { amount: 4900, ..ObservedRefund::default() });
    case.view.status = case.recorded();
    assert_eq!(case.recorded().phase, Some(Phase::Deleting));
}

#[test]
fn a_refund_that_is_pending_is_shown_and_not_settled() {
    let mut case = told().billing(Some(subscription("canceled")), None);
    case.observed.refund = Some(ObservedRefund { amount: 900, pending: 4000, currency: Some("usd".into()), waived: 0 });
    let status = case.recorded();
    assert!(fails(&status, "Refunded", "Pending") && status.refund.is_none(), "{status:#?}");
    let [_, mail] = notices();
    case.view.status = status;
    assert_eq!(case.effects(), [Effect::Notify(mail.clone())], "the customer is told all the same");
    let mut case = case.sent(&mail);
    assert_eq!(case.decide(), Decision::Wait(Some(case.policy.resync)), "and Stripe is asked again");
    case.observed.refund =
        Some(ObservedRefund { amount: 4900, currency: Some("usd".into()), ..ObservedRefund::default() });
    assert_eq!(case.recorded().refund.map(|refund| refund.amount), Some(4900));
}

/// A refund can fail after it succeeded; Stripe tells of that by an event.
#[test]
fn an_event_at_stripe_is_a_reason_to_look_at_a_refund_again() {
    let mut case = notices().iter().fold(new(), Case::sent);
    case.view.status.refund =
        Some(Refund { amount: 4900, currency: None, at: Timestamp::from_second(NOW - 9), waived: false });
    assert_eq!(case.decide(), Decision::Wait(None));
    case.observed.resync = true;
    assert_eq!(case.effects(), [Effect::ReadBilling]);
    let mut case = case.billing(Some(subscription("canceled")), None);
    assert_eq!(case.effects(), [Effect::Refund]);
    case.observed.refund = Some(ObservedRefund { pending: 4900, ..ObservedRefund::default() });
    let status = case.recorded();
    assert!(status.refund.is_none() && fails(&status, "Refunded", "Pending"), "another one is on its way");
    case.observed.refund = Some(ObservedRefund { amount: 4900, ..ObservedRefund::default() });
    let status = case.recorded();
    assert_eq!(status.refund.as_ref().map(|refund| refund.at), Some(Timestamp::from_second(NOW - 9)), "nothing new");
    case.view.status = status;
    assert_eq!(case.decide(), Decision::Wait(None));
    (case.observed.refund, case.observed.failure) = (None, Some(failure("Billing", true)));
    let status = case.recorded();
    assert!(
        status.refund.is_none() && fails(&status, "Refunded", "PineconeProviderError"),
        "it is not settled any more"
    );
}
