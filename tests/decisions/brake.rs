//! Harm to too many tenants at once, and an account that does not know a tenant: nothing happens until an admin
//! decides.

use tenant_operator::api::conditions::get;
use tenant_operator::api::facts::{Awaited, Awaiting};
use tenant_operator::api::phase::TriggeredBy;
use tenant_operator::api::tenant::Desired;
use tenant_operator::api::{CUSTOMER_GONE_ANNOTATION, Condition, ConditionStatus, Phase, Tenant, Timestamp};
use tenant_operator::cli::HeldDecision;
use tenant_operator::lifecycle::{
    Blame, Decision, Effect, Failure, Fault, Harm, Notice, Outcome, Provider, Reason, harm, held, met,
};

use crate::case::{Case, NOW, does, fails, failure, holds, subscription};
use crate::verification::unconfirmed;

/// An Active tenant whose subscription has ended.
fn ended() -> Case {
    let mut case = Case::new(Some(Phase::Active)).billing(Some(subscription("canceled")), None).sent(&Notice::Welcome);
    (case.observed.api_key, case.observed.namespace) = (Some(true), true);
    case
}

fn braked(mut case: Case, harm: Harm) -> Case {
    case.observed.held.insert(harm);
    case
}

/// The failure of a call that a mismatch refuses.
fn mismatch(step: &str) -> Failure {
    Failure {
        reason: Reason::Provider(Provider::Stripe, Fault::AccountMismatch),
        blame: Blame::Mismatch,
        ..failure(step, true)
    }
}

#[test]
fn a_suspension_is_held_shown_and_confirmed_once() {
    assert_eq!(ended().recorded().phase, Some(Phase::Suspended), "without the brake");
    assert_eq!(braked(ended(), Harm::Fail).recorded().phase, Some(Phase::Suspended), "each is counted for itself");
    let case = braked(ended(), Harm::Suspend).at_rest();
    assert_eq!(case.view.status.phase, Some(Phase::Active));
    assert!(holds(&case.view.status, "Held", "SuspensionHeld"));
    let message = get(&case.view.status.conditions, "Held").map(|c| c.message.to_string()).unwrap_or_default();
    assert!(message.contains("SubscriptionEnded") && message.contains("kubectl tenant confirm acme"), "{message}");
    // What else is due goes on meanwhile.
    assert!(matches!(case.decide(), Decision::Wait(Some(wait)) if wait <= case.policy.resync), "{:?}", case.decide());
    let mut replaced = case.clone();
    replaced.observed.api_key = None;
    assert_eq!(replaced.effects(), [Effect::EnsureApiKey]);
    let mut asked = case.clone();
    (asked.observed.resync, asked.observed.namespace) = (true, false);
    assert_eq!(asked.effects(), [Effect::CheckNamespace]);
    let (_, token) = held(&case.view.status).expect("held");
    let mut other = case.clone();
    other.view.confirmed = Some(token.replace("Suspension", "Erasure"));
    assert!(matches!(other.decide(), Decision::Wait(_)), "of another decision");
    let mut confirmed = case;
    confirmed.view.confirmed = Some(token.clone());
    let status = confirmed.recorded();
    assert_eq!(status.phase, Some(Phase::Suspended));
    assert_eq!(held(&status), None, "nothing is held any more");
    // A later hold is another one.
    let mut later = braked(ended(), Harm::Suspend);
    later.view.confirmed = Some(token.replace(&NOW.to_string(), "1"));
    assert!(held(&later.recorded()).is_some());
}

#[test]
fn a_hold_ends_with_its_reason_and_not_with_an_outage() {
    let case = braked(ended(), Harm::Suspend).at_rest();
    let mut paid = case.clone().billing(Some(subscription("active")), None);
    paid = paid.at_rest();
    assert_eq!(held(&paid.view.status), None);
    let mut away = case;
    (away.observed.billing, away.observed.failure) = (None, Some(failure("Billing", true)));
    assert!(held(&away.at_rest().view.status).is_some(), "billing was not read, so the brake still holds");
}

#[test]
fn a_failure_that_is_held_goes_on_trying() {
    let mut case = Case::new(Some(Phase::Provisioning)).billing(Some(subscription("active")), None);
    case.observed.failure = Some(failure("Namespace", false));
    assert_eq!(case.recorded().phase, Some(Phase::Failed));
    let case = braked(case, Harm::Fail);
    assert!(holds(&case.recorded(), "Held", "FailureHeld"));
    assert_eq!(case.at_rest().view.status.phase, Some(Phase::Provisioning));
}

#[test]
fn a_request_of_an_admin_by_name_is_never_held() {
    let mut case = ended();
    case.observed.held.extend(Harm::ALL);
    case.view.spec.desired = Desired::Suspended;
    assert_eq!(case.recorded().phase, Some(Phase::Suspended));
    let mut erased = ended();
    erased.observed.held.extend(Harm::ALL);
    (erased.view.deleting, erased.view.erase) = (true, true);
    assert_eq!(erased.recorded().phase, Some(Phase::Deleting), "the tenant's id is in the annotation");
}

#[test]
fn many_closings_and_erasures_are_held_and_those_who_never_had_anything_are_not() {
    let mut closing = ended();
    closing.view.spec.desired = Desired::Deleted;
    assert_eq!(closing.recorded().phase, Some(Phase::Deleting));
    assert!(holds(&braked(closing.clone(), Harm::Close).recorded(), "Held", "ClosingHeld"));
    let mut due = closing;
    due.view.status.phase = Some(Phase::Deleting);
    due.view.status.erases_at = Some(Timestamp::from_second(NOW - 1));
    due.observed.holdings = Some(Default::default());
    assert!(due.recorded().erasure.is_some());
    let held = braked(due, Harm::Erase).recorded();
    assert!(held.erasure.is_none() && holds(&held, "Held", "ErasureHeld"), "{held:#?}");
    let mut unpaid = Case::new(Some(Phase::PendingPayment));
    unpaid.view.spec.desired = Desired::Deleted;
    assert_eq!(braked(unpaid, Harm::Close).recorded().phase, Some(Phase::Deleting));
}

#[test]
fn a_restart_counts_what_the_statuses_say() {
    let case = ended();
    let status = case.recorded();
    assert_eq!(harm(&case.view, &status), Some(Harm::Suspend));
    assert_eq!(met(&status), [(Harm::Suspend, Timestamp::from_second(NOW))]);
    let mut by_admin = status;
    by_admin.transitions.iter_mut().for_each(|t| t.triggered_by = TriggeredBy::Admin);
    assert_eq!(met(&by_admin), []);
}

#[test]
fn another_stripe_account_suspends_fails_and_refunds_no_tenant() {
    let mut active = ended();
    active.observed.billing = None;
    active.observed.learn(&Effect::ReadBilling, Outcome::Failed(mismatch("Billing")));
    let active = active.at_rest();
    assert_eq!(active.view.status.phase, Some(Phase::Active));
    assert!(fails(&active.view.status, "BillingReady", "StripeAccountMismatch"));
    // On hold for longer than the limit.
    let mut provisioning = Case::new(Some(Phase::Provisioning));
    provisioning.observed.failure = Some(mismatch("Billing"));
    let run = provisioning.view.status.provisioning.as_mut().expect("a run");
    run.held_since = Some(Timestamp::from_second(NOW - 10 * provisioning.policy.hold_limit));
    assert_eq!(provisioning.recorded().phase, Some(Phase::Provisioning));
    let mut failed = Case::new(Some(Phase::Failed));
    failed.observed.failure = Some(mismatch("Billing"));
    assert!(!does(&failed.decide(), &Effect::Refund));
}

/// A shorter limit, or a controller that was away for long, ends the wait of many at once.
#[test]
fn many_signups_that_are_paid_and_not_confirmed_are_held_before_they_fail() {
    let case = unconfirmed();
    let failed = case.recorded();
    assert_eq!(harm(&case.view, &failed), Some(Harm::Fail));
    assert_eq!(met(&failed), [(Harm::Fail, Timestamp::from_second(NOW))], "a restart still counts it");
    let case = braked(case, Harm::Fail).at_rest();
    assert_eq!(case.view.status.phase, Some(Phase::PendingPayment));
    assert!(holds(&case.view.status, "Held", "FailureHeld"));
    let mut confirmed = case;
    confirmed.view.confirmed = held(&confirmed.view.status).map(|(_, token)| token);
    let status = confirmed.recorded();
    assert_eq!((status.phase, held(&status)), (Some(Phase::Failed), None));
    let mut unpaid = Case::new(Some(Phase::PendingPayment));
    unpaid.view.status.awaiting = Some(Awaiting { what: Awaited::Payment, since: Timestamp::from_second(NOW) });
    assert_eq!(met(&unpaid.view.status), []);
    unpaid.view.spec.desired = Desired::Deleted;
    assert_eq!(braked(unpaid, Harm::Close).recorded().phase, Some(Phase::Deleting));
}

/// The message of the controller names the command, so the command has to find what it confirms.
#[test]
fn a_customer_whom_stripe_does_not_know_can_be_confirmed_in_each_phase() {
    let unknown = Failure {
        reason: Reason::Provider(Provider::Stripe, Fault::CustomerUnknown),
        blame: Blame::Mismatch,
        ..failure("Billing", true)
    };
    let served = |phase| {
        let mut case = Case::new(Some(phase)).sent(&Notice::FailedAlert("first".into())).sent(&Notice::Welcome);
        case.view.status.provisioned_at = Some(Timestamp::from_second(NOW - 60));
        (case.observed.api_key, case.observed.namespace) = (Some(true), true);
        case
    };
    let deleted = |phase| {
        let mut case = served(phase);
        case.view.deleting = true;
        case
    };
    let mut recovered = Case::new(Some(Phase::PendingPayment));
    recovered.view.spec.billing.stripe.get_or_insert_default().customer_id = Some("cus_1".into());
    recovered.view.status.conditions = vec![Condition {
        type_: "BillingReady".into(),
        status: ConditionStatus::True,
        reason: "Recovered".into(),
        message: "Stripe answers".into(),
        last_transition_time: Timestamp::from_second(NOW - 60),
        observed_generation: None,
    }];
    let mut closed = served(Phase::Deleting);
    closed.view.spec.desired = Desired::Deleted;
    closed.view.status.erases_at = Some(Timestamp::from_second(NOW + 60));
    for (case, what) in vec![
        (served(Phase::Failed), "a refund"),
        (deleted(Phase::Failed), "a refund of an object that is deleted"),
        (deleted(Phase::Deleting), "a cleanup"),
        (recovered, "a payment, where Stripe answered before"),
        (Case::new(Some(Phase::Provisioning)), "provisioning"),
        (served(Phase::Active), "service"),
        (served(Phase::Upgrading), "a change of plan"),
        (served(Phase::Suspended).sent(&Notice::Suspended(Timestamp::from_second(NOW - 60))), "a suspension"),
        (closed, "a closed account"),
    ] {
        let case = case.failed(&Effect::ReadBilling, unknown.clone()).at_rest();
        let mut tenant = Tenant::new("acme", case.view.spec.clone());
        tenant.status = Some(case.view.status);
        let held = HeldDecision::of(&tenant).unwrap_or_else(|| panic!("{what}: {:#?}", tenant.status));
        assert_eq!((held.annotation, &*held.value), (CUSTOMER_GONE_ANNOTATION, "cus_1"), "{what}");
    }
    let mut fine = Tenant::new("acme", served(Phase::Active).view.spec);
    fine.status = Some(served(Phase::Active).at_rest().view.status);
    assert_eq!(HeldDecision::of(&fine), None);
}
