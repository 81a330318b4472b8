use tenant_operator::api::phase::{EventType, Transition, TriggeredBy};
use tenant_operator::api::status::{Erasure, PlanChangeState, Refund};
use tenant_operator::api::tenant::{Desired, Wish};
use tenant_operator::api::{Phase, TenantStatus, Timestamp};
use tenant_operator::lifecycle::{
    Decision, Effect, Holdings, Notice, ObservedBilling, ObservedRefund, ObservedSubscription, Outcome,
};

use crate::case::{Case, NOW, ending, fails, failure, holds, subscription};
use crate::plan_change::noted;

const DAY: i64 = 24 * 3600;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second)
}

pub fn leaving(phase: Phase) -> Case {
    let mut case = Case::new(Some(phase)).sent(&Notice::Welcome);
    case.observed.api_key = Some(true);
    case.view.status.provisioned_at = Some(at(NOW - 3 * DAY));
    case.view.spec.desired = Desired::Deleted;
    case
}

/// A closed tenant that is erased so many seconds from now. If that day has come, Stripe was read and the subscription
/// has ended.
pub fn closed(seconds: i64) -> Case {
    let mut case = leaving(Phase::Deleting);
    case.view.status.erases_at = Some(at(NOW + seconds));
    if seconds <= 0 { case.billing(Some(subscription("canceled")), None) } else { case }
}

/// The renewal was stopped, and Stripe was read since then.
fn stopped(case: Case, found: &ObservedSubscription) -> Case {
    let mut case = case;
    case.observed.done.insert(Effect::StopRenewal);
    case.view.status = {
        let mut early = case.clone();
        early.observed.billing = None;
        early.view.status.erases_at = Some(at(NOW + DAY));
        early.recorded()
    };
    case.observed.done.clear();
    case.billing(Some(found.clone()), None)
}

#[test]
fn a_closed_tenant_whose_subscription_renews_is_shown_and_not_erased() {
    let renewing = subscription("active");
    for ending in
        [subscription("canceled"), ObservedSubscription { renews: false, ..renewing.clone() }, ending(NOW - DAY)]
    {
        let mut case = stopped(closed(DAY), &ending);
        case.view.status.erases_at = Some(at(NOW));
        assert_eq!(case.effects(), [Effect::CountHoldings], "{ending:?}");
    }
    for (left, late) in [(0, "active"), (DAY, "active"), (0, "past_due")] {
        let mut case = stopped(closed(DAY), &subscription(late));
        case.view.status.erases_at = Some(at(NOW + left));
        let status = case.recorded();
        assert!(fails(&status, "Erased", "SubscriptionRenews") && status.erasure.is_none(), "{status:#?}");
        assert_eq!((status.phase, status.erases_at), (Some(Phase::Deleting), Some(at(NOW + left))));
        case.view.status = status;
        let alert = Notice::RenewedAlert(renewing.id.clone());
        assert_eq!(case.effects(), [Effect::Notify(alert.clone())]);
        assert_eq!(case.clone().sent(&alert).at_rest().decide(), Decision::Wait(Some(600)), "until a person decides");
        case.view.spec.desired = Desired::Active;
        let kept = if late == "active" { Phase::Active } else { Phase::Suspended };
        assert_eq!(case.recorded().phase, Some(kept), "the customer is kept");
    }
    let mut second = stopped(closed(DAY), &subscription("canceled"));
    second.view.status.erases_at = Some(at(NOW));
    second.observed.billing.as_mut().expect("read").surplus_renewing = vec!["sub_2".into()];
    assert!(fails(&second.recorded(), "Erased", "SubscriptionRenews"), "a second one counts as well");
    let paused = ObservedSubscription { paused: true, ..renewing.clone() };
    let mut unpaid = stopped(closed(DAY), &paused);
    unpaid.view.status.erases_at = Some(at(NOW));
    assert_eq!(unpaid.effects(), [Effect::CountHoldings], "nothing is charged for it");
    let mut unread = stopped(closed(DAY), &renewing);
    (unread.view.status.erases_at, unread.observed.billing) = (Some(at(NOW)), None);
    assert_eq!(unread.effects(), [Effect::ReadBilling], "the day alone erases nothing");
}

pub fn erasing() -> Case {
    let mut case = closed(0);
    case.observed.holdings = Some(THERE);
    case.view.status = case.recorded();
    case.observed.holdings = None;
    case
}

const THERE: Holdings =
    Holdings { namespaces: 1, vectors: 12, secrets: 2, subscriptions: 1, customers: 1, kept_customers: 0, exports: 7 };

fn last_event(status: &TenantStatus) -> Option<EventType> {
    status.transitions.last().map(|t| t.event_type)
}

#[test]
fn a_customer_who_leaves_is_closed_at_once_and_kept_for_the_retention_of_the_plan() {
    for phase in [Phase::Active, Phase::Suspended, Phase::Failed, Phase::Provisioning] {
        let mut case = leaving(phase);
        case.plan.as_mut().expect("a plan").retention_days = 60;
        if phase == Phase::Failed {
            assert_ne!(case.decide_phase(), Some(Phase::Deleting), "the refund comes first");
            case.view.status.refund = Some(Refund { amount: 0, currency: None, at: at(NOW), waived: false });
        }
        let status = case.recorded();
        assert_eq!((status.phase, last_event(&status)), (Some(Phase::Deleting), Some(EventType::Delete)), "{phase}");
        assert_eq!(status.erases_at, Some(at(NOW + 60 * DAY)), "{phase}");
    }
    // A plan change that was scheduled at Stripe is kept, so that it can be undone when the customer comes back.
    let mut scheduled = noted(leaving(Phase::Active), PlanChangeState::Scheduled);
    let status = scheduled.recorded();
    assert_eq!(status.plan_change, scheduled.view.status.plan_change);
    scheduled.view.status = status;
    scheduled.view.spec.desired = Desired::Active;
    let back = scheduled.billing(Some(subscription("active")), None).recorded();
    assert!(back.phase == Some(Phase::Active) && back.plan_change.is_some());
    let mut no_plan = leaving(Phase::Active);
    no_plan.plan = None;
    assert_eq!(no_plan.recorded().erases_at, Some(at(NOW + 30 * DAY)), "the least that a Plan can say");
    let mut unpaid = leaving(Phase::PendingPayment);
    unpaid.view.sent.clear();
    (unpaid.view.spec.billing.stripe, unpaid.view.status.paid_at, unpaid.view.status.provisioned_at) =
        (None, None, None);
    assert_eq!(unpaid.recorded().erases_at, Some(at(NOW)), "a customer who never paid has nothing to keep");
    for phase in [Phase::Upgrading, Phase::Downgrading] {
        let decided = leaving(phase).decide();
        assert!(
            !matches!(decided, Decision::Record(status) if status.phase == Some(Phase::Deleting)),
            "first things first"
        );
    }
}

#[test]
fn the_subscription_is_not_renewed_and_the_customer_is_told() {
    let mut case = closed(30 * DAY);
    assert_eq!(case.effects(), [Effect::StopRenewal]);
    case.observed.done.insert(Effect::StopRenewal);
    let status = case.recorded();
    assert!(holds(&status, "RenewalStopped", "Stopped"));
    case.view.status = status;
    let told = Notice::DeletionRequested(case.view.created_at);
    assert_eq!(case.effects(), [Effect::Notify(told.clone())]);
    let mut told = case.sent(&told);
    assert_eq!(told.after_record_or_wait(), Decision::Wait(Some(30 * DAY)));
    told.observed.done.clear();
    told.observed.resync = true;
    assert_eq!(
        told.effects(),
        [Effect::ReadBilling],
        "the controller looks for a subscription that was bought meanwhile"
    );
    let mut failing = closed(30 * DAY);
    failing.observed.failure = Some(failure("Billing", true));
    assert!(fails(&failing.recorded(), "BillingReady", "PineconeProviderError"));
    let by_hand = closed(30 * DAY).manual(true);
    assert!(matches!(by_hand.effects()[..], [Effect::Notify(Notice::DeletionRequested(_))]));
}

#[test]
fn until_the_last_second_it_can_be_taken_back() {
    let back = |case: Case| {
        let mut case = case;
        case.view.spec.desired = Desired::Active;
        case
    };
    let case = back(closed(1));
    assert_eq!(case.effects(), [Effect::ReadBilling]);
    let marked = ending(NOW - DAY);
    assert_eq!(case.clone().billing(Some(marked.clone()), None).effects(), [Effect::RenewAgain]);
    // Its end was undone at Stripe. The mark would undo what the customer cancels later.
    for status in ["active", "past_due"] {
        let undone = ObservedSubscription { ends: false, renews: true, status: status.into(), ..marked.clone() };
        assert_eq!(case.clone().billing(Some(undone), None).effects(), [Effect::ForgetClosing]);
    }
    let mut two = case.clone().billing(Some(marked), None);
    two.observed.billing.as_mut().expect("read").surplus_renewing = vec!["sub_2".into()];
    assert_eq!(two.effects(), [Effect::ForgetClosing], "the customer is billed by the one that renews");
    two.perform(&Effect::ForgetClosing);
    assert_eq!(two.decide_phase(), Some(Phase::Active));
    let status = case.clone().billing(Some(subscription("active")), None).recorded();
    assert_eq!((status.phase, last_event(&status)), (Some(Phase::Active), Some(EventType::Reactivate)));
    assert_eq!(status.erases_at, None);
    let status = case.clone().billing(Some(subscription("canceled")), None).recorded();
    assert_eq!(status.phase, Some(Phase::Suspended), "it is sold again first");
    let status = case.clone().manual(true).recorded();
    assert_eq!(status.phase, Some(Phase::Active));
    let mut never = case.clone().billing(Some(subscription("active")), None);
    never.view.status.provisioned_at = None;
    assert_eq!(never.recorded().phase, Some(Phase::PendingPayment), "there is something to set up first");
    let mut suspended = case.billing(Some(subscription("active")), None);
    suspended.view.spec.desired = Desired::Suspended;
    assert_eq!(suspended.recorded().phase, Some(Phase::Suspended));
    // Even a day late, as long as nothing was erased.
    let late = back(closed(-DAY)).billing(Some(subscription("active")), None);
    assert_eq!(late.recorded().phase, Some(Phase::Active));
    // Afterwards there is no way back.
    assert!(matches!(back(erasing()).decide(), Decision::Act(effects) if effects.contains(&Effect::DeleteNamespace)));
}

/// A customer cannot undo what an admin decided by closing the account and taking it back.
#[test]
fn a_suspension_by_an_admin_outlives_a_closed_and_reopened_account() {
    let admin = |desired| Wish::of_admin(desired, Some("alice"), Some("abuse"), at(NOW));
    let mut case = closed(DAY).billing(Some(subscription("active")), None);
    case.view.spec.suspension = Some(admin(Desired::Suspended));
    (case.view.spec.desired, case.view.spec.wish) =
        (Desired::Active, Some(Wish::of_customer(Desired::Active, at(NOW))));
    let status = case.recorded();
    assert_eq!(status.phase, Some(Phase::Suspended));
    let back = status.transitions.last().expect("a transition");
    assert_eq!(
        (back.triggered_by, &*back.reason),
        (TriggeredBy::User, "Taken back by the customer before its data was erased")
    );
    assert!(fails(&status, "Ready", "SuspendedByAdmin"), "{:?}", status.conditions);
    // Served, as after a backup of the status: the suspension counts there too.
    let mut served = leaving(Phase::Active).billing(Some(subscription("active")), None);
    (served.view.spec.desired, served.view.spec.suspension) = (Desired::Active, Some(admin(Desired::Suspended)));
    let status = served.recorded();
    let suspended = status.transitions.last().expect("a transition");
    assert_eq!((suspended.to_state, &*suspended.reason), (Phase::Suspended, "Suspended by admin alice (abuse)"));
    // Nothing that the customer pays ends it.
    case.view.status = status;
    let mut paid = case.sent(&Notice::Suspended(at(NOW)));
    paid.view.status.phase = Some(Phase::Suspended);
    assert_eq!(paid.effects(), [Effect::PauseCollection], "and nothing is charged meanwhile");
    paid.view.spec.suspension = None;
    assert_eq!(paid.recorded().phase, Some(Phase::Active), "the admin ends it");
}

#[test]
fn a_transition_says_who_asked_for_it() {
    let by = |wish: Option<Wish>| {
        let mut case = leaving(Phase::Active).signed_up();
        case.view.spec.wish = wish;
        let status = case.recorded();
        let last = status.transitions.last().expect("a transition");
        (last.triggered_by, last.reason.to_string())
    };
    let (who, why) = by(Some(Wish::of_customer(Desired::Deleted, at(NOW))));
    assert!(who == TriggeredBy::User && why.starts_with("Closed by the customer."), "{why}");
    let (who, why) = by(Some(Wish::of_admin(Desired::Deleted, Some("alice"), None, at(NOW))));
    assert!(who == TriggeredBy::Admin && why.starts_with("Closed by admin alice."), "{why}");
    let stale = Wish::of_customer(Desired::Active, at(NOW));
    for wish in [None, Some(stale)] {
        let (who, why) = by(wish);
        assert!(who == TriggeredBy::Admin && why.starts_with("Closed. "), "an edit of the object: {why}");
    }
}

#[test]
fn only_a_customer_who_agreed_to_offers_gets_one() {
    let case = |since: i64, change: fn(&mut Case)| {
        let mut case = closed(20 * DAY).signed_up();
        case.view.marketing = true;
        case.observed.done.insert(Effect::StopRenewal);
        case.view.status.transitions = vec![Transition {
            tenant_id: "t1".into(),
            event_type: EventType::Delete,
            from_state: Some(Phase::Active),
            to_state: Phase::Deleting,
            timestamp: at(since),
            triggered_by: TriggeredBy::User,
            reason: "".into(),
            seq: 1,
        }];
        case = case.sent(&Notice::DeletionRequested(at(since)));
        change(&mut case);
        while let Decision::Record(status) = case.decide() {
            case.view.status = *status;
        }
        case.decide()
    };
    let due = NOW - 7 * DAY;
    assert_eq!(case(due, |_| {}), Decision::Act(vec![Effect::Notify(Notice::WinBack)]));
    assert_eq!(case(due + 90, |_| {}), Decision::Wait(Some(90)), "when its time has come");
    for not in [
        (|c| c.view.marketing = false) as fn(&mut Case),
        |c| c.view.unsubscribed = true,
        |c| c.view.spec.login = None,
        |c| c.view.status.provisioned_at = None,
        |c| c.policy.win_back_after = 0,
        |c| c.view.sent.extend(["win-back".into()]),
    ] {
        assert_eq!(case(due, not), Decision::Wait(Some(20 * DAY)));
    }
}

#[test]
fn the_certificate_counts_before_and_after() {
    let mut case = closed(0);
    assert_eq!(case.effects(), [Effect::CountHoldings]);
    case.observed.holdings = Some(THERE);
    let status = case.recorded();
    let erasure = status.erasure.clone().expect("a certificate");
    let before: Vec<_> = erasure.lines.iter().map(|line| (line.before, line.after)).collect();
    assert_eq!(before, [(1, None), (12, None), (2, None), (1, None), (1, None), (7, None)]);
    case.observed.holdings = Some(Holdings { exports: 0, ..THERE });
    let lines = case.recorded().erasure.expect("a certificate").lines;
    assert_eq!(lines.len(), 5, "who never had an export need not read of any");
    let mut case = erasing();
    assert_eq!(case.effects(), [Effect::DeleteNamespace, Effect::DeleteSecrets, Effect::EraseBilling]);
    case.policy.exports_kept = Some(60);
    let all = [Effect::DeleteNamespace, Effect::DeleteSecrets, Effect::EraseBilling, Effect::DeleteExports];
    assert_eq!(case.effects(), all);
    case.observed.done.extend(all);
    case.observed.holdings = Some(Holdings { exports: 1, ..Holdings::default() });
    assert!(fails(&case.recorded(), "Erased", "NotErased"), "a file is still there");
    let mut case = erasing();
    case.observed.done.extend([Effect::DeleteNamespace, Effect::DeleteSecrets, Effect::EraseBilling]);
    assert_eq!(case.effects(), [Effect::CountHoldings]);
    case.observed.holdings = Some(Holdings { vectors: 3, ..Holdings::default() });
    let status = case.recorded();
    assert!(fails(&status, "Erased", "NotErased"), "{status:#?}");
    assert!(status.erasure.is_some_and(|e| e.erased_at.is_none()));
    assert_eq!(case.after_record_or_wait(), Decision::Wait(Some(case.policy.notice_retry)), "and tried again");
    case.observed.holdings = Some(Holdings::default());
    let status = case.recorded();
    let erasure = status.erasure.clone().expect("a certificate");
    assert_eq!(erasure.erased_at, Some(at(NOW)));
    assert!(erasure.lines.iter().all(|line| line.after == Some(0)));
    case.view.status = status;
    assert_eq!(case.effects(), [Effect::Notify(Notice::Erased)], "while the address is known");
    let done = case.clone().sent(&Notice::Erased);
    assert_eq!(done.effects(), [Effect::EraseIdentity]);
    let mut unsent = case.clone();
    unsent.observed.unsent.insert(Notice::Erased, failure("Notice", true));
    assert_eq!(unsent.decide(), Decision::Wait(Some(unsent.policy.notice_retry)));
    unsent.view.status.erasure.as_mut().expect("there").erased_at = Some(at(NOW - 2 * DAY));
    assert_eq!(unsent.effects(), [Effect::EraseIdentity], "an address that takes no mail is erased all the same");
    let by_hand = erasing().manual(true);
    assert_eq!(by_hand.effects(), [Effect::DeleteNamespace, Effect::DeleteSecrets]);
    let mut failing = erasing();
    failing.observed.failure = Some(failure("Namespace", true));
    assert!(fails(&failing.recorded(), "Erased", "PineconeProviderError"));
}

fn certificate() -> Erasure {
    let mut case = erasing();
    case.observed.done.extend([Effect::DeleteNamespace, Effect::DeleteSecrets, Effect::EraseBilling]);
    case.observed.holdings = Some(Holdings::default());
    case.recorded().erasure.expect("a certificate")
}

#[test]
fn the_record_says_that_it_is_erased_and_nothing_else() {
    let mut case = erasing();
    case.view.erasure = Some(certificate());
    case.view.status.erasure = Some(certificate());
    let status = case.recorded();
    assert_eq!(status.phase, Some(Phase::Deleted));
    assert!(status.config.is_none() && status.api_key_secret.is_none() && status.erases_at.is_none());
    assert_eq!(status.erasure, Some(certificate()));
    case.view.status = status;
    assert_eq!(case.decide(), Decision::Wait(None));
    // A lost status is found again by what the object says.
    case.view.status = TenantStatus::default();
    assert_eq!(case.recorded().phase, Some(Phase::Deleted));
    // Of a tenant that is not being erased, it says nothing.
    let mut active = leaving(Phase::Active);
    active.view.erasure = Some(certificate());
    assert_eq!(active.recorded().phase, Some(Phase::Deleting));
    let mut kept = closed(DAY);
    kept.view.erasure = Some(certificate());
    assert_eq!(kept.effects(), [Effect::StopRenewal], "nor of one whose day has not come");
}

#[test]
fn a_legal_hold_stops_every_erasure() {
    let mut case = stopped(closed(0), &subscription("canceled"));
    case.view.status.erases_at = Some(at(NOW));
    case.view.legal_hold = Some("case 12".into());
    let status = case.recorded();
    assert!(fails(&status, "Erased", "LegalHold"));
    assert!(status.message.as_deref().is_some_and(|m| m.contains("case 12") && m.contains("legal-hold")));
    assert_eq!(case.after_record_or_wait(), Decision::Wait(None));
    let mut begun = erasing();
    begun.view.legal_hold = Some("case 12".into());
    assert!(fails(&begun.recorded(), "Erased", "LegalHold"));
    let mut object = closed(DAY);
    (object.view.legal_hold, object.view.deleting, object.view.erase) = (Some("case 12".into()), true, true);
    assert!(fails(&object.recorded(), "CleanedUp", "LegalHold"));
    assert_eq!(object.after_record_or_wait(), Decision::Wait(None));
}

#[test]
fn the_object_of_a_closed_tenant_that_is_deleted_erases_nothing_before_its_day() {
    let mut case = closed(DAY);
    (case.view.deleting, case.view.erase) = (true, false);
    assert_eq!(case.effects(), [Effect::Notify(Notice::KeptAlert)]);
    case.view.erase = true;
    assert!(case.effects().contains(&Effect::DeleteNamespace), "unless it is meant");
    let mut erased = Case::new(Some(Phase::Deleted));
    (erased.view.deleting, erased.view.erase) = (true, false);
    assert_eq!(erased.effects(), [Effect::RemoveFinalizer], "there is nothing left to lose");
}

#[test]
fn an_erasure_that_has_begun_ends_with_its_certificate_also_without_the_object() {
    let gone = |mut case: Case| {
        (case.view.deleting, case.view.erase) = (true, false);
        case
    };
    assert_eq!(gone(closed(0)).effects(), [Effect::CountHoldings], "its day has come");
    let mut late = gone(closed(0));
    late.view.spec.desired = Desired::Active;
    assert_eq!(late.effects(), [Effect::Notify(Notice::KeptAlert)], "it was taken back in the last moment");
    let begun = gone(erasing());
    assert_eq!(begun.effects(), erasing().effects());
    assert!(begun.effects().contains(&Effect::EraseBilling), "the customer goes too");
    let mut held = begun.clone();
    held.view.legal_hold = Some("a court".into());
    assert!(fails(&held.recorded(), "Erased", "LegalHold"));
    let mut forced = begun.clone();
    (forced.view.force_delete, forced.observed.failure) = (true, Some(failure("Namespace", true)));
    assert!(fails(&forced.recorded(), "CleanedUp", "Forced"), "an admin forces the deletion");
    let mut told = begun;
    told.view.status.erasure = Some(certificate());
    told.view.erasure = Some(certificate());
    assert_eq!(told.recorded().phase, Some(Phase::Deleted), "and no e-mail goes to an address that is erased");
}

#[test]
fn a_lost_status_shortens_no_retention() {
    for manual in [false, true] {
        let mut restored = leaving(Phase::Active);
        restored.view.status = TenantStatus::default();
        if manual {
            restored = restored.manual(true);
        } else {
            restored.view.spec.billing.stripe = None;
        }
        restored.view.spec.plan_in_force = Some("starter".into());
        assert_eq!(restored.recorded().erases_at, Some(at(NOW + 30 * DAY)));
        restored.view.spec.plan_in_force = None;
        assert_eq!(restored.recorded().erases_at, Some(at(NOW + 30 * DAY)), "who was welcomed was served");
        restored.view.sent.clear();
        let restored_object = {
            let mut case = restored.clone();
            case.view.uid = "another".into();
            case
        };
        assert_eq!(restored_object.recorded().erases_at, Some(at(NOW + 30 * DAY)), "older than the object");
        assert_eq!(restored.recorded().erases_at, Some(at(NOW)), "nothing is kept of who never had anything");
    }
}

#[test]
fn a_closed_tenant_without_a_day_gets_one() {
    let mut case = leaving(Phase::Deleting);
    case.view.status.erases_at = None;
    assert_eq!(case.recorded().erases_at, Some(at(NOW + 30 * DAY)));
}

/// The customer closes an unpaid signup, and has paid a moment before.
#[test]
fn a_payment_that_came_late_is_given_back_before_a_signup_is_erased() {
    let mut case = Case::new(Some(Phase::PendingPayment)).signed_up();
    case.view.spec.desired = Desired::Deleted;
    case.view.status = case.recorded();
    assert_eq!((case.view.status.phase, case.view.status.erases_at), (Some(Phase::Deleting), Some(at(NOW))));
    assert_eq!(case.effects(), [Effect::StopRenewal], "open payment links are closed");
    case.observed.done.insert(Effect::StopRenewal);
    assert_eq!(case.effects(), [Effect::ReadBilling]);
    case = case.billing(Some(subscription("active")), None);
    assert_eq!(case.effects(), [Effect::PauseCollection]);
    case.observed.learn(&Effect::PauseCollection, Outcome::Done);
    assert_eq!(case.effects(), [Effect::Refund]);
    let mut unpaid = case.clone();
    unpaid.observed.refund = Some(ObservedRefund::default());
    assert_eq!(unpaid.effects(), [Effect::CountHoldings]);
    case.observed.refund =
        Some(ObservedRefund { amount: 4900, currency: Some("usd".into()), ..ObservedRefund::default() });
    case.view.status = case.recorded();
    assert_eq!(case.view.status.refund.as_ref().map(|refund| refund.amount), Some(4900));
    assert_eq!(case.effects(), [Effect::CountHoldings]);
}

#[test]
fn a_customer_at_stripe_that_is_kept_ends_the_erasure_with_a_line_that_says_why() {
    let mut case = erasing();
    case.observed.done.extend([Effect::DeleteNamespace, Effect::DeleteSecrets, Effect::EraseBilling]);
    case.observed.holdings = Some(Holdings { kept_customers: 1, ..Holdings::default() });
    let erasure = case.recorded().erasure.expect("a certificate");
    assert_eq!(erasure.erased_at, Some(at(NOW)));
    let kept: Vec<_> = erasure.lines.iter().filter(|line| line.after != Some(0)).collect();
    assert!(matches!(&*kept, [line] if line.what.contains("subscriptions that are not this tenant's")), "{kept:?}");
}

/// A refund can fail after it succeeded, when the account is closed already.
#[test]
fn a_refund_of_a_closed_account_that_fails_later_is_made_again() {
    let mut case = Case::new(Some(Phase::Deleting));
    case.view.spec.desired = Desired::Deleted;
    case.view.status.erases_at = Some(at(NOW + 30 * DAY));
    case.view.status.refund = Some(Refund { amount: 4900, currency: None, at: at(NOW - 9), waived: false });
    case.observed.done.insert(Effect::StopRenewal);
    case.view.status = case.recorded();
    assert!(holds(&case.view.status, "RenewalStopped", "Stopped"));
    case.observed.done.clear();
    case.observed.resync = true;
    assert_eq!(case.effects(), [Effect::StopRenewal]);
    case.observed.done.insert(Effect::StopRenewal);
    assert_eq!(case.effects(), [Effect::ReadBilling]);
    let mut case = case.billing(Some(ObservedSubscription { paused: true, ..subscription("active") }), None);
    assert_eq!(case.effects(), [Effect::Refund]);
    case.observed.refund = Some(ObservedRefund { pending: 4900, ..ObservedRefund::default() });
    let status = case.recorded();
    assert!(status.refund.is_none() && fails(&status, "Refunded", "Pending"), "another one is on its way");
    case.view.status = status;
    (case.observed.refund, case.observed.billing, case.observed.resync) = (None, None, false);
    assert_eq!(case.effects(), [Effect::ReadBilling], "and is looked at until Stripe has completed it");
}

/// A hold keeps the data. It does not keep the customer paying, whether the day has come or not.
#[test]
fn a_legal_hold_does_not_keep_a_subscription_that_renews() {
    for day in [DAY, 0] {
        let mut held = closed(day);
        held.view.legal_hold = Some("case 12".into());
        held.observed.billing = None;
        assert_eq!(held.effects(), [Effect::StopRenewal]);
        let mut renews = stopped(held, &subscription("active"));
        renews.view.status.erases_at = Some(at(NOW + day));
        let status = renews.recorded();
        assert!(fails(&status, "Erased", "SubscriptionRenews"), "{status:#?}");
        renews.observed.billing = None;
        renews.observed.resync = true;
        assert_eq!(renews.effects(), [Effect::ReadBilling], "with each comparison");
        let told = Notice::DeletionRequested(renews.view.created_at);
        let rest = renews.sent(&told).billing(Some(ending(NOW - DAY)), None).at_rest();
        let why = if day == 0 { "LegalHold" } else { "Closed" };
        assert!(rest.view.status.conditions.iter().any(|c| c.reason == why), "{:#?}", rest.view.status);
    }
}

/// A tenant that was served, whose refund Stripe said was done, and whose erasure is due.
fn refunded_and_due() -> Case {
    let mut case = closed(0);
    case.view.status.refund = Some(Refund { amount: 4900, currency: None, at: at(NOW - DAY), waived: false });
    case
}

fn refund(amount: i64, pending: i64) -> ObservedRefund {
    ObservedRefund { amount, pending, ..ObservedRefund::default() }
}

#[test]
fn nothing_is_erased_while_a_refund_that_came_back_is_made_again() {
    let mut begun = refunded_and_due();
    begun.view.status.erasure = Some(Erasure { started_at: at(NOW - 60), erased_at: None, lines: vec![] });
    for due in [refunded_and_due(), begun] {
        let mut case = due.clone();
        assert_eq!(case.effects(), [Effect::StopRenewal], "it looks, although no event has told of it");
        case.observed.done.insert(Effect::StopRenewal);
        assert_eq!(case.effects(), [Effect::Refund]);
        case.observed.refund = Some(refund(4900, 0));
        case.at_rest().effects().iter().for_each(|effect| assert_ne!(*effect, Effect::Refund, "all is well"));

        let mut case = due.clone();
        case.observed.done.insert(Effect::StopRenewal);
        case.observed.refund = Some(refund(0, 4900));
        let case = case.at_rest();
        let status = &case.view.status;
        assert!(fails(status, "Refunded", "Pending") && fails(status, "Erased", "RefundOpen"), "{status:#?}");
        assert_eq!((status.refund.is_none(), status.refund_owed_since), (true, Some(at(NOW))));
        assert_eq!(case.decide(), Decision::Wait(Some(case.policy.resync)));
        // Much later, after a restart.
        let mut later = Case { observed: due.observed.clone(), ..case.clone() };
        assert_eq!(later.effects(), [Effect::StopRenewal], "it is still owed");
        later.observed.done.insert(Effect::StopRenewal);
        later.observed.refund = Some(refund(4900, 0));
        let later = later.at_rest();
        let status = &later.view.status;
        assert!(holds(status, "Refunded", "Refunded") && status.refund_owed_since.is_none(), "{status:#?}");
        assert!(!later.effects().is_empty(), "the erasure goes on");
    }
}

#[test]
fn a_refund_that_fails_again_and_again_holds_the_erasure_until_a_person_settles_it() {
    let mut case = refunded_and_due().failed(&Effect::Refund, failure("Billing", true));
    let status = case.recorded();
    for condition in ["Refunded", "Erased"] {
        assert!(fails(&status, condition, "PineconeProviderError"), "{status:#?}");
    }
    let said = status.conditions.iter().find(|c| &*c.type_ == "Erased").expect("a condition").message.to_string();
    let named = case.view.refund_name();
    assert!(said.contains(&format!("tenant-operator.dev/waive-refund={named}")), "{said}");
    assert!(status.refund.is_none() && status.refund_owed_since.is_some());
    assert!(matches!(case.clone().after_record(), Decision::Wait(Some(_))));
    (case.view.status, case.observed) = (status, closed(0).observed);
    assert_eq!(case.effects(), [Effect::StopRenewal], "the next reconcile tries again");
    case.view.waived_refund = Some(case.view.refund_name());
    assert_eq!(case.effects(), [Effect::CountHoldings], "a person settles it");
}

/// The customer pays for others, too, so the erasure has kept it, and it names the tenant no more.
#[test]
fn an_erasure_that_was_interrupted_after_it_left_the_customer_goes_on() {
    let mut case = refunded_and_due();
    case.view.status.erasure = Some(Erasure { started_at: at(NOW - 60), erased_at: None, lines: vec![] });
    case.observed.done.insert(Effect::StopRenewal);
    case.observed.billing = Some(ObservedBilling::default());
    assert_eq!(case.effects(), [Effect::Refund]);
    case.observed.refund = Some(refund(0, 0));
    assert!(case.effects().contains(&Effect::EraseBilling));
    let status = case.at_rest().view.status;
    assert!(status.refund.is_some() && status.refund_owed_since.is_none(), "nothing is owed");
}

#[test]
fn another_failure_puts_no_refund_in_doubt() {
    let mut case = refunded_and_due();
    case.observed.done.insert(Effect::StopRenewal);
    case.observed.refund = Some(refund(4900, 0));
    case.view.status.erasure = Some(Erasure { started_at: at(NOW), erased_at: None, lines: vec![] });
    for step in ["Namespace", "Billing"] {
        let case = case.clone().failed(&Effect::EraseBilling, failure(step, true));
        let status = case.at_rest().view.status;
        assert!(status.refund.is_some() && status.refund_owed_since.is_none(), "{step}");
    }
}

#[test]
fn a_refund_that_is_owed_again_ends_with_a_tenant_that_is_taken_back() {
    let mut case = closed(DAY).billing(Some(subscription("active")), None);
    case.view.spec.desired = Desired::Active;
    case.view.status.refund_owed_since = Some(at(NOW - 60));
    assert_eq!(case.recorded().refund_owed_since, None, "the next period is served");
}
