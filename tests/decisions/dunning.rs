//! Payments that stop, the suspension, and the way back.

use tenant_operator::api::phase::{EventType, TriggeredBy};
use tenant_operator::api::tenant::Desired;
use tenant_operator::api::{Phase, TenantStatus, Timestamp};
use tenant_operator::lifecycle::{Decision, Effect, Notice, ObservedSubscription, SessionState};

use crate::case::{Case, NOW, condition, fails, failure, holds, outage, session, subscription};

const DAY: i64 = 24 * 3600;

/// An Active tenant with nothing to do, of which Stripe says this.
fn active(status: &str) -> Case {
    let mut case = Case::new(Some(Phase::Active)).sent(&Notice::Welcome).billing(Some(subscription(status)), None);
    case.observed.api_key = Some(true);
    case
}

/// One whose payment has been late for so many seconds, and who was told.
pub fn late(ago: i64) -> Case {
    let mut case = active("past_due");
    case.view.status = case.recorded();
    let since = Timestamp::from_second(NOW - ago);
    for condition in &mut case.view.status.conditions {
        condition.last_transition_time = since;
    }
    *case.view.status.payment_late_since.as_mut().expect("it is late") = since;
    case.sent(&Notice::PaymentFailed(since))
}

fn entered(case: &Case, phase: Phase) -> (EventType, TriggeredBy) {
    let status = case.recorded();
    assert_eq!(status.phase, Some(phase));
    let last = status.transitions.last().expect("a transition");
    (last.event_type, last.triggered_by)
}

#[test]
fn a_late_payment_is_told_and_the_tenant_is_served_through_the_grace_period() {
    let case = active("past_due");
    let status = case.recorded();
    assert_eq!(status.phase, Some(Phase::Active));
    assert!(fails(&status, "PaymentReceived", "PaymentPastDue") && holds(&status, "Ready", "PaymentPastDue"));
    assert!(status.message.as_deref().is_some_and(|m| m.contains("served until")));
    let mut told = case;
    told.view.status = status;
    let notice = Notice::PaymentFailed(Timestamp::from_second(NOW));
    assert_eq!(told.effects(), [Effect::Notify(notice.clone())]);
    let told = told.sent(&notice);
    assert_eq!(told.decide(), Decision::Wait(Some(told.policy.payment_grace / 2)), "until the reminder");
}

#[test]
fn a_reminder_comes_at_half_time_and_the_suspension_at_the_end() {
    let grace = active("active").policy.payment_grace;
    let half = late(grace / 2);
    let since = Timestamp::from_second(NOW - grace / 2);
    assert_eq!(half.effects(), [Effect::Notify(Notice::PaymentReminder(since))]);
    let mut half = half.sent(&Notice::PaymentReminder(since));
    half.view.status = half.recorded();
    assert_eq!(half.decide(), Decision::Wait(Some(grace / 2)));
    assert!(matches!(late(grace - 1).at_rest().decide(), Decision::Act(_)), "the reminder, not the end");
    assert_eq!(entered(&late(grace), Phase::Suspended), (EventType::Suspend, TriggeredBy::System));
    let mut unread = late(grace);
    unread.observed.billing = None;
    assert_eq!(unread.effects(), [Effect::ReadBilling], "what Stripe says now counts");
}

#[test]
fn a_payment_in_time_ends_it() {
    let mut case = late(100);
    case = case.billing(Some(subscription("active")), None);
    let status = case.recorded();
    assert!(holds(&status, "PaymentReceived", "Recovered") && holds(&status, "Ready", "Active"));
    assert_eq!(status.phase, Some(Phase::Active));
}

#[test]
fn a_subscription_that_is_over_suspends_at_once() {
    for (word, reason) in [
        (Some("canceled"), "SubscriptionEnded"),
        (Some("incomplete_expired"), "SubscriptionEnded"),
        (None, "SubscriptionEnded"),
        (Some("unpaid"), "PaymentMissing"),
        (Some("paused"), "PaymentMissing"),
    ] {
        let mut case = active("active").billing(word.map(subscription), None);
        assert_eq!(entered(&case, Phase::Suspended), (EventType::Suspend, TriggeredBy::System), "{word:?}");
        case.view.status = case.recorded();
        assert!(fails(&case.view.status, "Ready", reason), "{word:?}: {:?}", condition(&case.view.status, "Ready"));
    }
    for word in ["trialing", "active"] {
        assert_eq!(active(word).recorded().phase, Some(Phase::Active), "{word}");
    }
    let mut unknown = active("canceled");
    unknown.observed.billing = None;
    assert_eq!(unknown.recorded().phase, Some(Phase::Active), "a tenant is not suspended before billing is read");
    let mut by_hand = active("canceled").manual(true);
    by_hand.view.spec.billing.approved = true;
    assert_eq!(by_hand.recorded().phase, Some(Phase::Active), "Stripe says nothing of a contract");
}

fn suspended(word: &str) -> Case {
    let mut case = active("active").billing(Some(subscription(word)), Some(session(SessionState::Complete, 1)));
    case.view.status = case.recorded();
    assert_eq!(case.view.status.phase, Some(Phase::Suspended));
    case.sent(&Notice::Suspended(Timestamp::from_second(NOW)))
}

#[test]
fn the_customer_is_told_once_of_each_suspension() {
    let mut case = active("canceled");
    case.view.status = case.recorded();
    let notice = Notice::Suspended(Timestamp::from_second(NOW));
    assert_eq!(case.effects(), [Effect::Notify(notice.clone())]);
    assert!(notice.supersedes("suspended.1") && !notice.supersedes("payment-failed.1"));
}

#[test]
fn a_tenant_whose_subscription_is_over_gets_a_new_link_and_no_second_trial() {
    let case = suspended("canceled");
    assert_eq!(case.effects(), [Effect::NextCheckout { attempt: 2 }]);
    let mut next = case.clone();
    next.view.spec.billing.stripe.as_mut().expect("ids").checkout_attempt = Some(2);
    assert_eq!(next.effects(), [Effect::OpenCheckout { attempt: 2 }]);
    let open = next.clone().billing(Some(subscription("canceled")), Some(session(SessionState::Open, 2)));
    let status = open.recorded();
    assert_eq!(status.phase, Some(Phase::Suspended));
    assert!(status.checkout.is_some() && fails(&status, "Ready", "AwaitingPayment"));
    let mut shown = open;
    shown.view.status = status;
    shown.observed.billing = None;
    assert_eq!(shown.decide(), Decision::Wait(Some(3600)), "nothing is asked of Stripe until the link expires");
    let new = ObservedSubscription { id: "sub_2".into(), ..subscription("active") };
    let paid = shown.billing(Some(new), Some(session(SessionState::Complete, 2)));
    let store = Effect::StoreStripeIds { customer: "cus_1".into(), subscription: Some("sub_2".into()) };
    assert_eq!(paid.effects(), [store]);
    let mut stored = paid;
    stored.view.spec.billing.stripe.as_mut().expect("ids").subscription_id = Some("sub_2".into());
    assert_eq!(entered(&stored, Phase::Active), (EventType::Reactivate, TriggeredBy::User));
    let status = stored.recorded();
    assert!(
        status.checkout.is_none()
            && holds(&status, "Ready", "Active")
            && holds(&status, "PaymentReceived", "Recovered")
    );
}

#[test]
fn open_invoices_are_paid_and_not_bought_again() {
    for word in ["past_due", "unpaid"] {
        let mut case = suspended("unpaid").billing(Some(subscription(word)), Some(session(SessionState::Complete, 1)));
        case.view.status = case.recorded();
        assert!(fails(&case.view.status, "Ready", "PaymentMissing") && case.view.status.checkout.is_none(), "{word}");
        assert_eq!(case.decide(), Decision::Wait(None), "{word}");
        let paid = case.billing(Some(subscription("active")), None);
        assert_eq!(entered(&paid, Phase::Active), (EventType::Reactivate, TriggeredBy::User));
    }
}

#[test]
fn an_admin_suspends_without_a_charge_and_resumes() {
    let mut case = active("active");
    case.view.spec.desired = Desired::Suspended;
    case.observed.billing = None;
    assert_eq!(entered(&case, Phase::Suspended), (EventType::Suspend, TriggeredBy::Admin));
    case.view.status = case.recorded();
    let case = case.sent(&Notice::Suspended(Timestamp::from_second(NOW)));
    assert_eq!(case.effects(), [Effect::ReadBilling]);
    let running = case.clone().billing(Some(subscription("active")), None);
    assert_eq!(running.effects(), [Effect::PauseCollection]);
    let paused = ObservedSubscription { paused: true, ..subscription("active") };
    let mut held = running.billing(Some(paused.clone()), None);
    held.view.status = held.recorded();
    assert!(holds(&held.view.status, "CollectionPaused", "SuspendedByAdmin"));
    assert_eq!(held.decide(), Decision::Wait(None));
    held.observed.billing = None;
    assert_eq!(held.decide(), Decision::Wait(None), "Stripe is not asked at each look");
    held.observed.resync = true;
    assert_eq!(held.effects(), [Effect::ReadBilling], "unless something changed there");
    held.view.spec.desired = Desired::Active;
    let mut back = held.billing(Some(paused), None);
    assert_eq!(back.effects(), [Effect::CollectAnew], "before it is served");
    back = back.billing(Some(subscription("active")), None);
    assert_eq!(entered(&back, Phase::Active), (EventType::Reactivate, TriggeredBy::Admin));
    assert_eq!(condition(&back.recorded(), "CollectionPaused"), None);
    let mut over = back.billing(Some(subscription("canceled")), None);
    over.view.spec.desired = Desired::Suspended;
    assert_eq!(over.decide(), Decision::Wait(None), "there is nothing to pause");
}

#[test]
fn a_contract_by_hand_is_suspended_and_resumed_without_stripe() {
    let mut case = active("active").manual(true);
    case.observed.billing = None;
    case.view.spec.desired = Desired::Suspended;
    case.view.status = case.recorded();
    let mut case = case.sent(&Notice::Suspended(Timestamp::from_second(NOW)));
    assert_eq!(case.decide(), Decision::Wait(None));
    case.view.spec.desired = Desired::Active;
    assert_eq!(entered(&case, Phase::Active), (EventType::Reactivate, TriggeredBy::Admin));
}

#[test]
fn a_stripe_that_is_away_is_shown_and_changes_nothing() {
    let mut case = suspended("canceled");
    case.observed.billing = None;
    case.observed.failure = Some(outage("Billing"));
    let status = case.recorded();
    assert!(fails(&status, "BillingReady", "PineconeUnavailable") && status.phase == Some(Phase::Suspended));
    case.view.status = status;
    assert!(matches!(case.decide(), Decision::Wait(Some(_))));
}

#[test]
fn a_notice_that_could_not_be_sent_is_tried_again_soon() {
    let mut case = active("past_due");
    case.view.status = case.recorded();
    let retry = Decision::Wait(Some(case.policy.notice_retry));
    case.observed.unsent.insert(Notice::PaymentFailed(Timestamp::from_second(NOW)), failure("Notice", true));
    assert_eq!(case.decide(), retry);
    let mut gone = active("active").billing(Some(subscription("unpaid")), None);
    gone.view.status = gone.recorded();
    gone.observed.unsent.insert(Notice::Suspended(Timestamp::from_second(NOW)), failure("Notice", true));
    gone.view.status = gone.recorded();
    assert_eq!(gone.decide(), retry);
}

/// Each attempt to begin the period of a refunded subscription is a charge of its own.
#[test]
fn a_card_that_is_declined_when_a_suspension_ends_is_charged_again_a_day_later() {
    let paused = ObservedSubscription { paused: true, ..subscription("active") };
    let case = suspended("canceled");
    let case = case.billing(Some(paused), None);
    assert_eq!(case.effects(), [Effect::CollectAnew]);
    let mut declined = case.clone().failed(&Effect::CollectAnew, failure("Billing", false));
    let status = declined.recorded();
    assert!(fails(&status, "BillingReady", "PineconeProviderError") && status.phase == Some(Phase::Suspended));
    assert_eq!(status.collect_after, Some(Timestamp::from_second(NOW + DAY)));
    declined.view.status = status.clone();
    assert_eq!(declined.decide(), Decision::Wait(Some(DAY)));
    let mut later = case.clone();
    later.view.status = status.clone();
    later.observed.resync = true;
    assert_eq!(later.decide(), Decision::Wait(Some(DAY)), "not at each comparison");
    later.view.status.collect_after = Some(Timestamp::from_second(NOW));
    assert_eq!(later.effects(), [Effect::CollectAnew]);
    later.view.status = status;
    let back = later.billing(Some(subscription("active")), None).recorded();
    assert_eq!((back.phase, back.collect_after), (Some(Phase::Active), None));
    let away = case.failed(&Effect::CollectAnew, failure("Billing", true)).recorded();
    assert_eq!(away.collect_after, None, "what may be tried again is");
}

/// A definition of an earlier build of the same revision prunes the fields: they are read back from the conditions.
#[test]
fn a_suspended_tenant_comes_to_rest_where_its_facts_are_pruned() {
    let pruned = |status: &TenantStatus| {
        let mut stored = serde_json::to_value(status).expect("JSON");
        for field in ["suspendedFor", "awaiting"] {
            stored.as_object_mut().expect("an object").remove(field);
        }
        serde_json::from_value::<TenantStatus>(stored).expect("a status")
    };
    let changes: [fn(&mut Case); 4] = [
        |_| {},
        |c| c.plan = None,
        |c| c.plan.as_mut().expect("a plan").stripe_price_id = None,
        |c| c.observed.capacity_missing = Some("Pinecone: the index is full".into()),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let mut case = suspended("canceled");
        change(&mut case);
        let billing = case.observed.billing.as_mut().expect("read");
        billing.session = (number == 0).then(|| session(SessionState::Open, 1));
        let mut case = case.at_rest();
        case.view.status = pruned(&case.view.status);
        assert!(!matches!(case.decide(), Decision::Record(_)), "{number}: {:#?}", case.decide());
    }
}
