//! Confirming the e-mail address of a signup, and the other links that customers ask for.

use tenant_operator::api::{LinkKind, MailRequest, Phase, Timestamp};
use tenant_operator::lifecycle::{Decision, Effect, EmailVerification, Notice, SessionState};

use crate::case::{Case, NOW, fails, failure, holds, session, subscription};

const DAY: i64 = 24 * 3600;

fn first() -> Notice {
    Notice::Link(MailRequest { kind: LinkKind::VerifyEmail, at: Timestamp::from_second(NOW - 60) })
}

/// A signup with a payment link, whose status says so.
fn linked() -> Case {
    let case = Case::new(Some(Phase::PendingPayment)).signed_up();
    let mut case = stored(case).billing(None, Some(session(SessionState::Open, 1)));
    case.view.status = case.recorded();
    case
}

fn stored(mut case: Case) -> Case {
    let refs = case.view.spec.billing.stripe.get_or_insert_default();
    (refs.customer_id, refs.subscription_id) = (Some("cus_1".into()), None);
    case
}

fn paid(case: Case) -> Case {
    let mut case = stored(case).billing(Some(subscription("trialing")), Some(session(SessionState::Complete, 1)));
    case.view.spec.billing.stripe.as_mut().expect("refs").subscription_id = Some("sub_1".into());
    case
}

#[test]
fn the_payment_link_comes_first_and_the_e_mail_right_after_it() {
    let case = linked();
    assert!(fails(&case.view.status, "EmailVerified", "AwaitingVerification"));
    assert!(case.view.status.checkout.is_some());
    assert_eq!(case.effects(), [Effect::Notify(first())]);
    let mut sent = case.clone();
    sent.observed.sent.insert(first());
    assert_eq!(sent.effects(), [Effect::MarkSent(vec![first()])]);
    assert_eq!(case.clone().sent(&first()).decide(), Decision::Wait(Some(3600)), "until the link expires");
    let mut unsent = case;
    unsent.observed.unsent.insert(first(), failure("Notice", true));
    assert_eq!(unsent.decide(), Decision::Wait(Some(unsent.policy.notice_retry)), "sent again soon");
}

#[test]
fn a_later_one_that_the_customer_asked_for_stands_for_the_first() {
    let later = Notice::Link(MailRequest { kind: LinkKind::VerifyEmail, at: Timestamp::from_second(NOW) });
    assert_eq!(linked().sent(&later).decide(), Decision::Wait(Some(3600)));
    let another = Notice::Link(MailRequest { kind: LinkKind::LoginLink, at: Timestamp::from_second(NOW) });
    assert_eq!(linked().sent(&another).effects(), [Effect::Notify(first())]);
    assert!(later.supersedes(&first().key()) && !another.supersedes(&first().key()));
    assert!(!Notice::Welcome.supersedes(&first().key()));
}

#[test]
fn nothing_is_set_up_before_the_address_is_confirmed() {
    let status = paid(linked()).recorded();
    assert_eq!(status.phase, Some(Phase::PendingPayment));
    assert!(
        holds(&status, "PaymentReceived", "TrialStarted") && fails(&status, "EmailVerified", "AwaitingVerification")
    );
    assert!(fails(&status, "Ready", "AwaitingVerification") && status.checkout.is_none() && status.paid_at.is_none());
    let mut case = paid(linked()).sent(&first());
    case.view.status = status;
    assert_eq!(case.decide(), Decision::Wait(Some(case.policy.verification_limit)));
    case.view.email_verified = true;
    let status = case.recorded();
    assert_eq!((status.phase, status.paid_at), (Some(Phase::Provisioning), Some(Timestamp::from_second(NOW))));
    assert!(holds(&status, "EmailVerified", "Verified"));
}

#[test]
fn a_tenant_from_a_manifest_needs_no_confirmation_and_none_does_when_it_is_off() {
    let manifest = paid(Case::new(Some(Phase::PendingPayment)));
    assert_eq!(manifest.recorded().phase, Some(Phase::Provisioning));
    let mut off = paid(Case::new(Some(Phase::PendingPayment)).signed_up());
    off.policy.email_verification = EmailVerification::Off;
    let status = off.recorded();
    assert_eq!(status.phase, Some(Phase::Provisioning));
    assert!(status.conditions.iter().all(|c| &*c.type_ != "EmailVerified"));
}

#[test]
fn before_the_payment_there_is_no_link_until_the_address_is_confirmed() {
    let mut case = stored(Case::new(Some(Phase::PendingPayment)).signed_up()).billing(None, None);
    case.policy.email_verification = EmailVerification::BeforePayment;
    let status = case.recorded();
    assert!(
        fails(&status, "PaymentReceived", "AwaitingVerification") && fails(&status, "Ready", "AwaitingVerification")
    );
    case.view.status = status;
    assert_eq!(case.effects(), [Effect::Notify(first())]);
    let waits = case.clone().sent(&first());
    assert_eq!(waits.decide(), Decision::Wait(Some(waits.policy.signup_ttl - 60 + 1)), "until the signup ends");
    case.view.email_verified = true;
    assert_eq!(case.effects(), [Effect::OpenCheckout { attempt: 1 }]);
    let mut other = stored(Case::new(Some(Phase::PendingPayment)).signed_up()).billing(None, None);
    other.policy.email_verification = EmailVerification::BeforeProvisioning;
    assert_eq!(other.effects(), [Effect::OpenCheckout { attempt: 1 }]);
}

/// What it waits for, it has waited for since then.
fn waits_since(case: &mut Case, since: Timestamp) {
    case.view.status.awaiting.as_mut().expect("it waits").since = since;
    for condition in &mut case.view.status.conditions {
        condition.last_transition_time = since;
    }
}

/// Paid, and not confirmed within the limit.
pub fn unconfirmed() -> Case {
    let mut case = paid(linked()).sent(&first());
    case.view.status = case.recorded();
    let paid_at = Timestamp::from_second(NOW - case.policy.verification_limit);
    waits_since(&mut case, paid_at);
    case
}

/// A customer is not charged for a tenant that is not served.
#[test]
fn paid_and_never_confirmed_ends_with_the_money_back() {
    let mut case = paid(linked()).sent(&first());
    case.view.status = case.recorded();
    let limit = case.policy.verification_limit;
    waits_since(&mut case, Timestamp::from_second(NOW - limit + 1));
    assert_eq!(case.decide(), Decision::Wait(Some(1)));
    let mut case = unconfirmed();
    let status = case.recorded();
    assert_eq!(status.phase, Some(Phase::Failed));
    assert!(fails(&status, "Ready", "EmailNotVerified"));
    case.view.status = status;
    let run = "email-not-verified".to_owned();
    case = case.sent(&Notice::FailedAlert(run.clone()));
    assert_eq!(case.effects(), [Effect::PauseCollection], "the way of every failure: pause, refund, tell");
    let mut case = case.sent(&Notice::FailedMail(run));
    case.view.email_verified = true;
    let status = case.recorded();
    assert_eq!(status.phase, Some(Phase::Provisioning), "a late confirmation goes on by itself");
    assert!(holds(&status, "EmailVerified", "Verified"));
    assert_eq!(status.provisioning.and_then(|p| p.failed_step), None);
}

#[test]
fn another_failure_does_not_start_over_because_the_address_is_confirmed() {
    let mut case = Case::new(Some(Phase::Failed)).confirmed();
    case.view.status.provisioning.as_mut().expect("a run").failed_step = Some("Namespace".into());
    assert_eq!(case.effects(), [Effect::Notify(Notice::FailedAlert("first".into()))]);
}

fn asked(kind: LinkKind, ago: i64) -> MailRequest {
    MailRequest { kind, at: Timestamp::from_second(NOW - ago) }
}

#[test]
fn links_that_are_asked_for_are_sent_first_and_once() {
    let mut case = Case::new(Some(Phase::Active)).confirmed();
    let (login, reset) = (asked(LinkKind::LoginLink, 1), asked(LinkKind::PasswordReset, 2));
    case.view.mail_requests = vec![login, reset];
    let both = [login, reset].map(Notice::Link);
    assert_eq!(case.effects(), both.clone().map(Effect::Notify), "before the Secret is looked at");
    case.observed.sent.extend(both.clone());
    assert_eq!(case.effects(), [Effect::MarkSent(both.to_vec())]);
    let case = case.sent(&both[0]).sent(&both[1]);
    assert_eq!(case.effects(), [Effect::EnsureApiKey]);
}

#[test]
fn a_link_that_could_not_be_sent_is_tried_again_and_one_that_is_too_old_is_not() {
    let mut case = Case::new(Some(Phase::Deleted)).confirmed();
    let login = asked(LinkKind::LoginLink, 1);
    case.view.mail_requests = vec![login];
    case.observed.unsent.insert(Notice::Link(login), failure("Notice", true));
    assert_eq!(case.decide(), Decision::Wait(Some(case.policy.notice_retry)));
    case.observed.unsent.clear();
    case.view.mail_requests = vec![asked(LinkKind::LoginLink, LinkKind::LoginLink.life())];
    assert_eq!(case.decide(), Decision::Wait(None));
    case.view.mail_requests = vec![login];
    case.view.spec.login = None;
    assert_eq!(case.decide(), Decision::Wait(None), "a tenant without a login has no pages");
}

/// An Active tenant with nothing to do.
fn quiet(ago: i64) -> Case {
    let mut case = Case::new(Some(Phase::Active)).confirmed().sent(&Notice::Welcome);
    case.observed.api_key = Some(true);
    case.view.status.provisioned_at = Some(Timestamp::from_second(NOW - ago));
    case
}

#[test]
fn a_customer_who_asks_nothing_is_reminded_once_after_a_day() {
    let early = quiet(DAY - 10);
    let mut settled = early.clone();
    settled.view.status = early.recorded();
    assert_eq!(settled.decide(), Decision::Wait(Some(10)));
    let remind = [Effect::Notify(Notice::FirstQuestion)];
    assert_eq!(quiet(DAY).effects(), remind);
    for change in [
        |c: &mut Case| c.view.asked = true,
        |c: &mut Case| c.view.unsubscribed = true,
        |c: &mut Case| c.view.spec.login = None,
        |c: &mut Case| c.policy.nudge_after = 0,
        |c: &mut Case| c.view.sent.extend(["first-question".to_owned()]),
        |c: &mut Case| c.view.status.provisioned_at = Some(Timestamp::from_second(NOW - 2 * DAY)),
    ] {
        let mut case = quiet(DAY);
        change(&mut case);
        assert!(matches!(case.decide(), Decision::Record(_)), "{:?}", case.decide());
        case.view.status = case.recorded();
        assert_eq!(case.decide(), Decision::Wait(None));
    }
    let mut unsent = quiet(DAY);
    unsent.view.status = {
        let mut c = quiet(DAY);
        c.view.asked = true;
        c.recorded()
    };
    unsent.view.status.provisioned_at = Some(Timestamp::from_second(NOW - DAY));
    unsent.observed.unsent.insert(Notice::FirstQuestion, failure("Notice", true));
    assert_eq!(unsent.decide(), Decision::Wait(Some(unsent.policy.notice_retry)));
}

#[test]
fn the_agreement_and_the_congratulation_come_once_and_in_time() {
    let mut case = quiet(100);
    case.policy.data_processing_agreement = true;
    case.view.completed_at = Some(Timestamp::from_second(NOW - 5));
    let both = [Notice::DataProcessingAgreement, Notice::Congratulation];
    assert_eq!(case.effects(), both.clone().map(Effect::Notify));
    case.view.completed_at = Some(Timestamp::from_second(NOW + 5));
    assert_eq!(case.effects(), both.clone().map(Effect::Notify), "noted by a clock that is a little ahead");
    let case = case.sent(&both[0]).sent(&both[1]);
    assert!(matches!(case.decide(), Decision::Record(_)));
    let mut late = quiet(2 * DAY);
    late.policy.data_processing_agreement = true;
    late.view.completed_at = Some(Timestamp::from_second(NOW - DAY));
    assert!(matches!(late.decide(), Decision::Record(_)), "no e-mail is sent about an event that is long past");
    let mut unsubscribed = quiet(100);
    (unsubscribed.view.completed_at, unsubscribed.view.unsubscribed) = (Some(Timestamp::from_second(NOW)), true);
    assert!(matches!(unsubscribed.decide(), Decision::Record(_)));
}

#[test]
fn a_retry_hurries_an_attempt_that_is_still_to_come() {
    let mut case = Case::new(Some(Phase::Provisioning));
    let run = case.view.status.provisioning.as_mut().expect("a run");
    (run.attempts, run.next_retry_at) = (2, Some(Timestamp::from_second(NOW + 200)));
    assert_eq!(case.decide(), Decision::Wait(Some(200)));
    case.view.retry_token = Some("customer-1".into());
    let run = case.recorded().provisioning.expect("a run");
    assert_eq!((run.attempts, run.next_retry_at, run.retry_token.as_deref()), (2, None, Some("customer-1")));
    assert!(matches!(case.after_record(), Decision::Act(_)), "and once only");
}

/// Otherwise each failure of Stripe would give the customer another week, paid for and not served.
#[test]
fn the_limit_of_a_confirmation_runs_on_while_stripe_does_not_answer() {
    let mut case = paid(linked()).sent(&first());
    case.view.status = case.recorded();
    let limit = case.policy.verification_limit;
    let since = Timestamp::from_second(NOW - limit + 100);
    waits_since(&mut case, since);
    let mut away = case.clone().failed(&Effect::ReadBilling, failure("Billing", true));
    away.view.status = away.recorded();
    assert_eq!(away.view.status.awaiting.map(|awaiting| awaiting.since), Some(since));
    away.observed = case.observed;
    away.view.status = away.recorded();
    assert_eq!(away.decide(), Decision::Wait(Some(100)));
}
