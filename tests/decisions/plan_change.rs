use tenant_operator::api::phase::EventType;
use tenant_operator::api::plan::{Downgrades, Limits, Upgrades};
use tenant_operator::api::status::{PlanChange, PlanChangeState as State, PlanConfig};
use tenant_operator::api::usage::Quota;
use tenant_operator::api::{Phase, PlanSpec, TenantStatus, Timestamp};
use tenant_operator::lifecycle::{
    Decision, Effect, Failure, Fault, Notice, ObservedSubscription, Proration, Provider, Reason, Stored,
    UnconfirmedPrice, is_smaller,
};

use crate::case::{Case, NOW, condition, fails, failure, holds, operator_fault, outage, plan, subscription};

const DAY: i64 = 24 * 3600;

/// A plan of that price, with as many documents as cents.
pub fn costing(amount: i64) -> PlanSpec {
    let mut plan = plan();
    plan.monthly_price.amount = amount;
    plan.limits = Limits { documents: amount, queries_per_month: amount, ..Limits::default() };
    plan.stripe_price_id = Some(format!("price_{amount}"));
    plan
}

/// On "middle", for 4900, and asked to move to a plan of that price.
pub fn wishing(phase: Phase, amount: i64) -> Case {
    let mut case = Case::new(Some(phase)).sent(&Notice::Welcome);
    case.observed.api_key = Some(true);
    let middle = costing(4900);
    let status = &mut case.view.status;
    status.config = Some(PlanConfig::of("middle", &middle));
    status.provisioned_at = Some(Timestamp::from_second(NOW - 3 * DAY));
    status.quota = Some(Quota {
        period_start: Timestamp::from_second(NOW - 3 * DAY),
        period_end: Timestamp::from_second(NOW + 27 * DAY),
        anchor: None,
        queries_limit: 4900,
        documents_limit: 4900,
    });
    case.view.spec.plan = "other".into();
    case.plan = Some(middle);
    case.wanted = Some(costing(amount));
    case
}

fn up() -> Case {
    wishing(Phase::Active, 19_900)
}

fn down() -> Case {
    wishing(Phase::Active, 900)
}

fn paying(case: Case, price: &str) -> Case {
    let plan = if price == "price_4900" { "middle" } else { "other" };
    let subscription = ObservedSubscription {
        price: Some(price.into()),
        plan: Some(plan.into()),
        billed_plan: None,
        ..subscription("active")
    };
    case.billing(Some(subscription), None)
}

pub fn noted(mut case: Case, state: State) -> Case {
    case.view.status.plan_change = Some(PlanChange {
        from: "middle".into(),
        plan: "other".into(),
        state,
        since: Timestamp::from_second(NOW - 10),
        effective_at: matches!(state, State::Scheduled | State::Unconfirmed).then(|| Timestamp::from_second(NOW + DAY)),
        confirm_url: None,
        retry_token: None,
    });
    case
}

/// In the middle of the change.
fn running(phase: Phase, amount: i64) -> Case {
    noted(wishing(phase, amount), State::Running)
}

fn state(status: &TenantStatus) -> Option<State> {
    status.plan_change.as_ref().map(|change| change.state)
}

fn last_event(status: &TenantStatus) -> Option<EventType> {
    status.transitions.last().map(|t| t.event_type)
}

#[test]
fn a_larger_plan_is_charged_and_then_in_force() {
    assert_eq!(up().effects(), [Effect::ReadBilling], "what Stripe says counts");
    let status = paying(up(), "price_4900").recorded();
    assert_eq!((status.phase, last_event(&status)), (Some(Phase::Upgrading), Some(EventType::Upgrade)));
    assert_eq!(state(&status), Some(State::Running));
    assert!(holds(&status, "Ready", "Upgrading") && holds(&status, "Reconciling", "Upgrading"), "served meanwhile");
    assert_eq!(status.config.expect("a config").limits.documents, 4900, "by the plan before");
    let case = running(Phase::Upgrading, 19_900);
    assert_eq!(case.effects(), [Effect::ReadBilling]);
    let charge = Effect::SwitchPrice { plan: "other".into(), proration: Proration::ChargeNow };
    assert_eq!(paying(case.clone(), "price_4900").effects(), [charge]);
    let status = paying(case, "price_19900").recorded();
    assert_eq!((status.phase, state(&status)), (Some(Phase::Active), Some(State::Applied)));
    let config = status.config.clone().expect("a config");
    assert_eq!((&*config.plan, config.limits.documents), ("other", 19_900));
    let quota = status.quota.clone().expect("a quota");
    assert_eq!((quota.queries_limit, quota.documents_limit), (19_900, 19_900));
    assert_eq!(quota.period_start, Timestamp::from_second(NOW - 3 * DAY), "the same period");
    assert!(holds(&status, "PlanInForce", "InForce") && holds(&status, "Ready", "Active"));
}

#[test]
fn the_plan_says_whether_the_difference_is_charged_now() {
    let mut case = paying(running(Phase::Upgrading, 19_900), "price_4900");
    case.wanted.as_mut().expect("a plan").upgrades = Upgrades::Immediately;
    let later = Effect::SwitchPrice { plan: "other".into(), proration: Proration::NextInvoice };
    assert_eq!(case.effects(), [later]);
    let case = paying(running(Phase::Downgrading, 900), "price_4900");
    let credit = Effect::SwitchPrice { plan: "other".into(), proration: Proration::NextInvoice };
    assert_eq!(case.effects(), [credit]);
}

#[test]
fn a_declined_card_leaves_the_plan_before_in_force_until_the_change_is_tried_again() {
    let declined = Failure {
        reason: Reason::Provider(Provider::Stripe, Fault::Refused),
        message: "declined".into(),
        ..failure("Billing", false)
    };
    let mut case = paying(running(Phase::Upgrading, 19_900), "price_4900");
    case.observed.failure = Some(declined);
    let status = case.recorded();
    assert_eq!((status.phase, state(&status)), (Some(Phase::Active), Some(State::Declined)));
    assert_eq!(&*status.config.as_ref().expect("a config").plan, "middle");
    assert!(fails(&status, "PlanInForce", "PaymentDeclined") && holds(&status, "Ready", "Active"));
    let mut after = noted(up(), State::Declined);
    after.view.status.conditions = status.conditions;
    assert_eq!(
        after.effects(),
        [Effect::Notify(Notice::PlanDeclined(Timestamp::from_second(NOW - 10)))],
        "the customer hears of it, and Stripe is not asked again"
    );
    after.view.retry_token = Some("again".into());
    assert_eq!(after.effects(), [Effect::ReadBilling], "a retry does");
    let mut given_up = noted(up(), State::Declined);
    given_up.view.spec.plan = "middle".into();
    let status = given_up.recorded();
    assert!(status.plan_change.is_none() && holds(&status, "PlanInForce", "InForce"), "the change was taken back");
}

#[test]
fn a_retry_of_a_change_is_no_retry_of_anything_else() {
    let mut case = paying(noted(up(), State::Declined), "price_4900");
    case.view.retry_token = Some("again".into());
    let status = case.recorded();
    assert_eq!(status.phase, Some(Phase::Upgrading));
    assert_eq!(status.provisioning.expect("a run").retry_token.as_deref(), Some("again"));
}

#[test]
fn stripe_away_or_a_refused_key_is_waited_for_and_declines_nothing() {
    for fault in [failure("Billing", true), outage("Billing"), operator_fault("Billing")] {
        let mut case = running(Phase::Upgrading, 19_900);
        case.observed.failure = Some(fault);
        let status = case.recorded();
        assert_eq!((status.phase, state(&status)), (Some(Phase::Upgrading), Some(State::Running)));
        assert_eq!(condition(&status, "Ready").map(|c| c.0), condition(&status, "Reconciling").map(|c| c.0));
        assert!(matches!(case.after_record(), Decision::Wait(Some(_))));
    }
}

#[test]
fn a_smaller_plan_is_billed_from_the_next_period_and_in_force_at_its_end() {
    let status = paying(down(), "price_4900").recorded();
    assert_eq!(
        (status.phase, state(&status)),
        (Some(Phase::Active), Some(State::Preparing)),
        "noted before Stripe is told"
    );
    let case = noted(down(), State::Preparing);
    assert_eq!(case.effects(), [Effect::ReadBilling]);
    let switch = Effect::SwitchPrice { plan: "other".into(), proration: Proration::AtPeriodEnd };
    assert_eq!(paying(case.clone(), "price_4900").effects(), [switch]);
    let status = paying(case, "price_900").recorded();
    assert_eq!(state(&status), Some(State::Scheduled));
    let at = status.plan_change.as_ref().and_then(|c| c.effective_at);
    assert_eq!(at, Some(Timestamp::from_second(NOW + 10 * DAY)), "the end of what was paid for");
    assert!(fails(&status, "PlanInForce", "Scheduled"));
    let scheduled = noted(down(), State::Scheduled).sent(&Notice::PlanScheduled(Timestamp::from_second(NOW - 10)));
    let settled = scheduled.clone().after_record();
    assert_eq!(settled, Decision::Wait(Some(DAY)), "and until then everything stays as it is");
    let mut renewed = paying(scheduled.clone(), "price_900");
    renewed.observed.billing.as_mut().and_then(|b| b.subscription.as_mut()).expect("there").period_ends_at =
        Some(Timestamp::from_second(NOW + DAY));
    assert_ne!(renewed.decide_phase(), Some(Phase::Downgrading), "the same period");
    renewed.observed.billing.as_mut().and_then(|b| b.subscription.as_mut()).expect("there").period_ends_at =
        Some(Timestamp::from_second(NOW + 31 * DAY));
    assert_eq!(renewed.decide_phase(), Some(Phase::Downgrading), "Stripe has begun the next one");
    let mut due = scheduled;
    due.view.status.plan_change.as_mut().expect("a change").effective_at = Some(Timestamp::from_second(NOW));
    let status = due.recorded();
    assert_eq!((status.phase, last_event(&status)), (Some(Phase::Downgrading), Some(EventType::Downgrade)));
    due.view.status = status;
    let status = paying(due.clone(), "price_900").recorded();
    assert_eq!(status.config.expect("a config").limits.documents, 900);
    let switch = Effect::SwitchPrice { plan: "other".into(), proration: Proration::None };
    assert_eq!(paying(due, "price_4900").effects(), [switch], "nothing is credited for a period that is over");
}

#[test]
fn billed_by_hand_a_smaller_plan_waits_for_the_end_of_the_quota_period() {
    let status = noted(down(), State::Preparing).manual(true).recorded();
    let at = status.plan_change.as_ref().and_then(|c| c.effective_at);
    assert_eq!(at, Some(Timestamp::from_second(NOW + 27 * DAY)));
    assert_eq!(up().manual(true).recorded().phase, Some(Phase::Upgrading));
    let status = running(Phase::Upgrading, 19_900).manual(true).recorded();
    assert_eq!(status.phase, Some(Phase::Active), "and Stripe has no say");
}

#[test]
fn a_scheduled_change_that_was_taken_back_is_undone_at_stripe_first() {
    for state in [State::Preparing, State::Scheduled] {
        let mut case = noted(down(), state);
        for wish in ["middle", "third"] {
            case.view.spec.plan = wish.into();
            assert_eq!(case.effects(), [Effect::ReadBilling]);
            let back = Effect::SwitchPrice { plan: "middle".into(), proration: Proration::None };
            let mut smaller = paying(case.clone(), "price_900");
            let subscription = smaller.observed.billing.as_mut().and_then(|b| b.subscription.as_mut()).expect("there");
            (subscription.plan_before, subscription.period_ends_at) =
                (Some("middle".into()), Some(Timestamp::from_second(NOW + DAY)));
            assert_eq!(smaller.effects(), [back]);
            let status = paying(case.clone(), "price_4900").recorded();
            assert!(status.plan_change.is_none() && holds(&status, "PlanInForce", "InForce"), "{wish}");
        }
    }
}

#[test]
fn a_plan_that_the_documents_do_not_fit_is_refused_with_numbers_unless_it_is_for_later() {
    let mut case = down();
    assert_eq!(
        state(&paying(case.clone(), "price_4900").recorded()),
        Some(State::Preparing),
        "the ledger is not asked"
    );
    case.wanted.as_mut().expect("a plan").downgrades = Downgrades::Immediately;
    assert_eq!(case.effects(), [Effect::ReadBilling, Effect::CountStored]);
    assert_eq!(paying(case.clone(), "price_4900").effects(), [Effect::CountStored]);
    case.observed.stored = Some(stored(1000, 0));
    let status = paying(case.clone(), "price_4900").recorded();
    assert_eq!(state(&status), Some(State::Blocked));
    assert!(fails(&status, "PlanInForce", "UsageExceedsPlan"));
    let message = status.conditions.iter().find(|c| &*c.type_ == "PlanInForce").expect("there").message.to_string();
    assert!(
        message.contains("1000 documents") && message.contains("900") && message.contains("Remove 100"),
        "{message}"
    );
    case.view.status = status;
    assert_eq!(case.after_record_or_wait(), Decision::Wait(None), "Stripe is not asked again for that");
    case.observed.stored = None;
    assert_eq!(case.effects(), [Effect::CountStored], "the ledger is asked in each reconcile");
    case.observed.stored = Some(stored(900, 0));
    assert_eq!(case.effects(), [Effect::ReadBilling], "it fits now");
    assert_eq!(paying(case.clone(), "price_4900").recorded().phase, Some(Phase::Downgrading));
    // A larger plan that holds less of something is refused as well.
    let mut dearer = up();
    dearer.wanted.as_mut().expect("a plan").limits.bytes = 1 << 20;
    assert_eq!(paying(dearer.clone(), "price_4900").effects(), [Effect::CountStored]);
    dearer.observed.stored = Some(stored(0, 2 << 20));
    assert_eq!(state(&paying(dearer, "price_4900").recorded()), Some(State::Blocked));
}

fn stored(documents: i64, bytes: i64) -> Stored {
    Stored::Counted { documents, bytes }
}

#[test]
fn an_upgrade_needs_no_ledger_and_a_smaller_plan_waits_for_it() {
    let mut larger = paying(up(), "price_4900");
    larger.observed.stored = Some(Stored::Unknown);
    assert_eq!(larger.recorded().phase, Some(Phase::Upgrading));
    let mut smaller = paying(down(), "price_4900");
    smaller.wanted.as_mut().expect("a plan").downgrades = Downgrades::Immediately;
    smaller.observed.stored = Some(Stored::Unknown);
    let status = smaller.recorded();
    assert_eq!((status.phase, state(&status)), (Some(Phase::Active), Some(State::Blocked)));
    assert!(fails(&status, "PlanInForce", "UsageUnknown"), "{status:#?}");
    smaller.view.status = status;
    let Decision::Wait(Some(wait)) = smaller.after_record_or_wait() else { panic!("it is asked again after a while") };
    assert!((1..=60).contains(&wait), "{wait}");
    smaller.observed.stored = Some(stored(0, 0));
    assert_eq!(smaller.recorded().phase, Some(Phase::Downgrading), "it goes on once the ledger answers");
}

#[test]
fn an_impossible_change_is_refused_before_stripe_is_asked() {
    type Change = fn(&mut Case);
    let cases: [(&str, Change); 4] = [
        ("PlanNotFound", |c| c.wanted = None),
        ("PlanHasNoPrice", |c| c.wanted.as_mut().expect("a plan").stripe_price_id = None),
        ("RegionDiffers", |c| c.wanted.as_mut().expect("a plan").region = "elsewhere".into()),
        ("CurrencyDiffers", |c| c.wanted.as_mut().expect("a plan").monthly_price.currency = "eur".into()),
    ];
    for (reason, change) in cases {
        let mut case = up();
        change(&mut case);
        let status = case.recorded();
        assert!(fails(&status, "PlanInForce", reason), "{reason}: {status:#?}");
        assert_eq!((status.phase, state(&status)), (Some(Phase::Active), Some(State::Blocked)));
        case.view.status = status;
        assert_eq!(case.after_record_or_wait(), Decision::Wait(None), "{reason}");
    }
    let mut by_hand = up().manual(true);
    by_hand.wanted.as_mut().expect("a plan").stripe_price_id = None;
    assert_eq!(by_hand.recorded().phase, Some(Phase::Upgrading), "a tenant that pays by invoice needs no Stripe price");
}

#[test]
fn a_late_payment_comes_first() {
    let case =
        up().billing(Some(ObservedSubscription { price: Some("price_4900".into()), ..subscription("past_due") }), None);
    let status = case.recorded();
    assert!(fails(&status, "PlanInForce", "PaymentMissing"), "{status:#?}");
    let mut ended = running(Phase::Upgrading, 19_900).billing(Some(subscription("canceled")), None);
    ended.view.status.subscription = Some("active".into());
    assert_eq!(state(&ended.recorded()), Some(State::Declined), "nothing is changed for a subscription that ended");
}

#[test]
fn a_plan_that_was_bought_anew_is_in_force_at_once() {
    let mut case = paying(down(), "price_900");
    case.observed.stored = Some(stored(5000, 0));
    assert_eq!(
        case.recorded().phase,
        Some(Phase::Downgrading),
        "the smaller plan is billed, even if the documents do not fit yet"
    );
}

#[test]
fn a_plan_that_is_deleted_meanwhile_changes_nothing() {
    let mut case = running(Phase::Upgrading, 19_900);
    case.wanted = None;
    let status = case.recorded();
    assert!(fails(&status, "PlanInForce", "PlanNotFound"));
    assert_eq!(status.phase, Some(Phase::Active));
}

#[test]
fn the_customer_is_told_once_and_not_a_day_later() {
    let since = Timestamp::from_second(NOW - 10);
    let mut case = noted(up(), State::Applied);
    case.view.spec.plan = "middle".into();
    assert_eq!(case.effects(), [Effect::Notify(Notice::PlanChanged(since))]);
    let told = case.clone().sent(&Notice::PlanChanged(since));
    assert!(matches!(told.after_record(), Decision::Wait(None)));
    case.view.status.plan_change.as_mut().expect("a change").since = Timestamp::from_second(NOW - DAY);
    assert!(matches!(case.decide(), Decision::Record(_)), "long past");
    let mut unsent = noted(up(), State::Applied);
    unsent.view.spec.plan = "middle".into();
    unsent.observed.unsent.insert(Notice::PlanChanged(since), failure("Notice", true));
    assert_eq!(unsent.clone().after_record(), Decision::Wait(Some(unsent.policy.notice_retry)));
    assert!(
        Notice::PlanChanged(since).supersedes("plan-changed.7") && !Notice::PlanChanged(since).supersedes("welcome")
    );
}

#[test]
fn the_smaller_plan_is_the_cheaper_one_or_the_one_with_less() {
    let (small, large) = (costing(900), costing(4900));
    assert!(is_smaller(&small, Some(&large), None) && !is_smaller(&large, Some(&small), None));
    let mut same_price = costing(4900);
    assert!(!is_smaller(&same_price, Some(&large), Some(&large.limits)));
    for lower in [
        Limits { documents: 1, ..large.limits.clone() },
        Limits { queries_per_month: 1, ..large.limits.clone() },
        Limits { bytes: 1, ..large.limits.clone() },
        Limits { embedded_bytes_per_month: 1, ..large.limits.clone() },
        Limits { prompt_tokens_per_month: Some(1), ..large.limits.clone() },
        Limits { completion_tokens_per_month: Some(1), ..large.limits.clone() },
        Limits { embedding_tokens_per_month: Some(1), ..large.limits.clone() },
    ] {
        same_price.limits = lower;
        assert!(is_smaller(&same_price, Some(&large), Some(&large.limits)));
        assert!(is_smaller(&same_price, None, Some(&large.limits)), "the plan before is gone");
    }
    let tokens = |limit| Limits { prompt_tokens_per_month: limit, ..large.limits.clone() };
    for (new, before, wanted) in [(Some(2), Some(2), false), (Some(2), Some(3), true), (None, Some(3), false)] {
        same_price.limits = tokens(new);
        assert_eq!(is_smaller(&same_price, Some(&large), Some(&tokens(before))), wanted, "{new:?} after {before:?}");
    }
}

/// A change to the price of the larger plan that waits at Stripe, with the page that confirms it.
fn asked(url: Option<&str>) -> ObservedSubscription {
    let (expires_at, url) = (Timestamp::from_second(NOW + DAY), url.map(Into::into));
    let pending = UnconfirmedPrice { price: "price_19900".into(), url, expires_at };
    ObservedSubscription { price: Some("price_4900".into()), unconfirmed: Some(pending), ..subscription("active") }
}

#[test]
fn a_card_that_must_be_confirmed_leaves_the_plan_before_in_force_until_it_is() {
    let case = running(Phase::Upgrading, 19_900);
    let pays = Effect::SwitchPrice { plan: "other".into(), proration: Proration::ChargeNow };
    assert_eq!(case.clone().billing(Some(asked(None)), None).effects(), [pays], "which tells the page");
    let status = case.billing(Some(asked(Some("https://pay.example/i"))), None).recorded();
    assert_eq!((status.phase, state(&status)), (Some(Phase::Active), Some(State::Unconfirmed)));
    assert!(fails(&status, "PlanInForce", "ConfirmationRequired") && holds(&status, "Ready", "Active"));
    assert_eq!(&*status.config.as_ref().expect("a config").plan, "middle");
    let change = status.plan_change.as_ref().expect("a change");
    assert_eq!(change.confirm_url.as_deref(), Some("https://pay.example/i"));
    assert_eq!(change.effective_at, Some(Timestamp::from_second(NOW + DAY)));
    let told = Notice::PlanUnconfirmed(change.since);
    let mut waiting = up();
    waiting.view.status = status;
    assert_eq!(waiting.effects(), [Effect::Notify(told.clone())]);
    let waiting = waiting.sent(&told).at_rest();
    assert_eq!(waiting.decide(), Decision::Wait(Some(DAY)), "until Stripe drops it");
    let confirmed = paying(waiting.clone(), "price_19900");
    assert_eq!(
        (confirmed.recorded().phase, state(&confirmed.recorded())),
        (Some(Phase::Upgrading), Some(State::Running))
    );
    let late = paying(waiting.clone(), "price_4900").recorded();
    assert_eq!(state(&late), Some(State::Declined), "Stripe dropped it");
    assert!(fails(&late, "PlanInForce", "ConfirmationMissing"));
    let mut back = waiting.billing(Some(asked(None)), None);
    back.view.spec.plan = "middle".into();
    let drop = Effect::SwitchPrice { plan: "middle".into(), proration: Proration::None };
    assert_eq!(back.effects(), [drop], "the customer cannot confirm it any more");
    let too_late = paying(back, "price_19900").recorded();
    assert_eq!(too_late.plan_change, None, "what is paid stays billed, and is compared with the plan");
}

/// The customer portal and the dashboard change a price and no metadata.
#[test]
fn a_plan_whose_price_is_billed_already_is_named_at_stripe_before_it_is_in_force() {
    for (phase, amount) in [(Phase::Upgrading, 19_900), (Phase::Downgrading, 900)] {
        let mut case = paying(running(phase, amount), &format!("price_{amount}"));
        let subscription = case.observed.billing.as_mut().and_then(|b| b.subscription.as_mut()).expect("there");
        subscription.plan = Some("middle".into());
        let effects = case.effects();
        assert!(
            matches!(&*effects, [Effect::SwitchPrice { plan, .. }] if plan == "other"),
            "a lost status is made again by the name: {effects:?}"
        );
        let named = paying(case, &format!("price_{amount}"));
        assert_eq!(state(&named.recorded()), Some(State::Applied));
    }
}

#[test]
fn a_smaller_plan_that_is_taken_back_after_its_period_began_costs_the_difference() {
    let undone = |case: Case, proration| {
        let mut case = case;
        case.view.spec.plan = "middle".into();
        assert_eq!(case.effects(), [Effect::SwitchPrice { plan: "middle".into(), proration }]);
    };
    let mut scheduled = paying(noted(down(), State::Scheduled), "price_900");
    let end = |case: &mut Case, second| {
        let subscription = case.observed.billing.as_mut().and_then(|b| b.subscription.as_mut()).expect("there");
        subscription.period_ends_at = Some(Timestamp::from_second(second));
    };
    end(&mut scheduled, NOW + DAY);
    undone(scheduled.clone(), Proration::None);
    end(&mut scheduled, NOW + 31 * DAY);
    undone(scheduled, Proration::NextInvoice);
    let mut preparing = paying(noted(down(), State::Preparing), "price_900");
    undone(preparing.clone(), Proration::NextInvoice);
    let subscription = preparing.observed.billing.as_mut().and_then(|b| b.subscription.as_mut()).expect("there");
    subscription.plan_before = Some("middle".into());
    undone(preparing, Proration::None);
}
