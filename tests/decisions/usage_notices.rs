//! E-mails at 80 and 100 percent of a limit: once each for a limit and period, whatever comes in between.

use std::collections::BTreeSet;

use tenant_operator::api::quota::UsageNotices;
use tenant_operator::api::status::PlanConfig;
use tenant_operator::api::usage::{CountedUsage, Used};
use tenant_operator::api::{Phase, TenantStatus, Timestamp, Unit};
use tenant_operator::lifecycle::{Decision, Effect, Notice, Outcome};

use crate::case::{Case, NOW, failure};

const DAY: i64 = 24 * 3600;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second)
}

/// A tenant that was welcomed, on a plan of ten questions and ten documents, in a period that began a day ago.
fn served() -> Case {
    let mut case = Case::new(Some(Phase::Active)).sent(&Notice::Welcome);
    case.observed.api_key = Some(true);
    case.view.spec.plan_in_force = Some("starter".into());
    limit(&mut case, 10);
    let none = Used::default();
    case.view.status.config = case.plan.as_ref().map(|plan| PlanConfig::of("starter", plan));
    case.view.status.usage = Some(CountedUsage {
        observed_at: at(NOW),
        period_start: at(NOW - DAY),
        period_end: at(NOW - DAY).plus_months(1),
        queries: none,
        prompt_tokens: none,
        completion_tokens: none,
        embedding_tokens: none,
        embedded_bytes: none,
        documents: none,
        bytes: none,
    });
    case.at_rest()
}

/// Another limit of questions and documents.
fn limit(case: &mut Case, limit: i64) {
    let plan = case.plan.as_mut().expect("a plan");
    (plan.limits.queries_per_month, plan.limits.documents) = (limit, limit);
}

fn usage(case: &mut Case) -> &mut CountedUsage {
    case.view.status.usage.as_mut().expect("counted")
}

/// The next period begins.
fn next_period(case: &mut Case) {
    let usage = usage(case);
    usage.period_start = usage.period_start.plus(60);
    usage.period_end = usage.period_end.plus(60);
    usage.queries.used = 0;
}

/// Goes on to rest, and answers the e-mails about usage, each as its share and its units.
fn mails(case: &mut Case, next: fn(&Case) -> Decision) -> Vec<(u8, Vec<Unit>)> {
    let mut mails = Vec::new();
    for _ in 0..30 {
        match next(case) {
            Decision::Wait(_) => {
                // What this reconcile has seen and done ends with it.
                case.observed.sent.clear();
                case.observed.unsent.clear();
                return mails;
            }
            Decision::Record(status) => case.view.status = *status,
            Decision::Act(effects) => {
                for effect in effects {
                    if let Effect::Notify(Notice::UsageReached { percent, what }) = &effect {
                        mails.push((*percent, what.iter().map(|reached| reached.unit).collect()));
                    }
                    if let Effect::MarkSent(sent) = &effect {
                        // As the annotation is written.
                        case.view.sent.retain(|key| !sent.iter().any(|notice| notice.supersedes(key)));
                    }
                    case.perform(&effect);
                }
            }
        }
    }
    panic!("it never comes to rest: {:#?}", next(case));
}

fn told(case: &mut Case) -> Vec<(u8, Vec<Unit>)> {
    mails(case, Case::next)
}

fn ask(case: &mut Case, used: i64) -> Vec<(u8, Vec<Unit>)> {
    usage(case).queries.used = used;
    told(case)
}

fn store(case: &mut Case, used: i64) -> Vec<(u8, Vec<Unit>)> {
    usage(case).documents.used = used;
    told(case)
}

const QUERIES: Unit = Unit::Queries;
const DOCUMENTS: Unit = Unit::Documents;

#[test]
fn eighty_and_a_hundred_percent_are_told_once_each() {
    let mut case = served();
    let all: Vec<_> = (0..=12).map(|used| ask(&mut case, used)).collect();
    assert!(all[..8].iter().all(Vec::is_empty), "{all:?}");
    assert_eq!(all[8], [(80, vec![QUERIES])]);
    assert!(all[9].is_empty(), "{all:?}");
    assert_eq!(all[10], [(100, vec![QUERIES])]);
    assert!(all[11..].iter().all(Vec::is_empty), "{all:?}");
}

#[test]
fn a_jump_past_the_limit_is_one_email_and_so_are_limits_that_are_reached_together() {
    assert_eq!(ask(&mut served(), 50), [(100, vec![QUERIES])]);
    let mut both = served();
    usage(&mut both).documents.used = 9;
    assert_eq!(ask(&mut both, 8), [(80, vec![QUERIES, DOCUMENTS])]);
    assert_eq!(store(&mut both, 10), [(100, vec![DOCUMENTS])]);
    assert!(told(&mut both).is_empty());
    // Later than the other one: it is told by itself, and the other one is not told again.
    let mut later = served();
    assert_eq!(ask(&mut later, 9), [(80, vec![QUERIES])]);
    assert_eq!(store(&mut later, 9), [(80, vec![DOCUMENTS])]);
    assert!(told(&mut later).is_empty());
    // Both shares at the same moment.
    let mut mixed = served();
    usage(&mut mixed).documents.used = 9;
    assert_eq!(ask(&mut mixed, 10), [(100, vec![QUERIES]), (80, vec![DOCUMENTS])]);
}

#[test]
fn what_is_soft_is_told_too_and_what_has_no_limit_is_not() {
    let mut case = served();
    case.plan.as_mut().expect("a plan").quota.soft = vec![QUERIES];
    assert_eq!(ask(&mut case, 10), [(100, vec![QUERIES])]);
    usage(&mut case).prompt_tokens.used = 1 << 40;
    assert!(told(&mut case).is_empty());
    let mut none = served();
    limit(&mut none, 0);
    assert!(ask(&mut none, 5).is_empty(), "a plan without questions has no share of them");
}

#[test]
fn the_next_period_tells_again_and_a_period_that_is_over_does_not() {
    let mut case = served();
    assert_eq!(ask(&mut case, 10), [(100, vec![QUERIES])]);
    next_period(&mut case);
    assert!(told(&mut case).is_empty());
    assert!(case.view.status.usage_reached.is_empty());
    assert_eq!(ask(&mut case, 8), [(80, vec![QUERIES])]);
    assert_eq!(ask(&mut case, 10), [(100, vec![QUERIES])]);
    let mut over = served();
    usage(&mut over).period_end = at(NOW);
    assert!(ask(&mut over, 10).is_empty(), "the ledger has counted nothing in the present period");
    // The mail server was away until the period ended.
    let mut late = served();
    usage(&mut late).queries.used = 8;
    late = late.at_rest();
    assert!(!late.view.status.usage_reached.is_empty());
    next_period(&mut late);
    assert!(told(&mut late).is_empty());
}

#[test]
fn a_level_is_told_again_only_after_it_was_low_and_once_in_a_period() {
    let mut case = served();
    assert_eq!(store(&mut case, 8), [(80, vec![DOCUMENTS])]);
    next_period(&mut case);
    assert!(told(&mut case).is_empty(), "it was high all the time");
    assert_eq!(store(&mut case, 10), [(100, vec![DOCUMENTS])]);
    assert!(store(&mut case, 9).is_empty() && store(&mut case, 10).is_empty(), "it was never low");
    assert!(store(&mut case, 7).is_empty());
    assert_eq!(store(&mut case, 8), [(80, vec![DOCUMENTS])], "80 percent were told in the period before");
    assert!(store(&mut case, 10).is_empty(), "and 100 percent in this one");
    assert!(store(&mut case, 7).is_empty() && store(&mut case, 8).is_empty(), "once in a period");
    assert!(store(&mut case, 7).is_empty());
    // What is told of another unit in a later period forgets nothing of a level.
    assert!(store(&mut case, 10).is_empty());
    next_period(&mut case);
    assert_eq!(ask(&mut case, 8), [(80, vec![QUERIES])]);
    assert_eq!(ask(&mut case, 10), [(100, vec![QUERIES])]);
    assert!(told(&mut case).is_empty());
    assert!(case.view.sent.len() < 8, "what is noted has a bound: {:?}", case.view.sent);
}

#[test]
fn another_plan_tells_of_its_own_limits() {
    let mut larger = served();
    assert_eq!(ask(&mut larger, 10), [(100, vec![QUERIES])]);
    limit(&mut larger, 20);
    assert!(told(&mut larger).is_empty(), "half of the new limit");
    assert_eq!(ask(&mut larger, 16), [(80, vec![QUERIES])]);
    assert_eq!(ask(&mut larger, 20), [(100, vec![QUERIES])]);
    let mut smaller = served();
    assert_eq!(ask(&mut smaller, 8), [(80, vec![QUERIES])]);
    limit(&mut smaller, 9);
    assert!(told(&mut smaller).is_empty(), "still between the shares");
    limit(&mut smaller, 5);
    assert_eq!(told(&mut smaller), [(100, vec![QUERIES])]);
    limit(&mut smaller, 4);
    assert!(told(&mut smaller).is_empty());
    // Past the limit, and not past that of a plan that is a little larger.
    limit(&mut smaller, 9);
    assert_eq!(told(&mut smaller), [(80, vec![QUERIES])]);
    assert_eq!(ask(&mut smaller, 9), [(100, vec![QUERIES])]);
}

#[test]
fn an_email_that_cannot_be_sent_is_tried_again_and_what_is_reached_meanwhile_joins_it() {
    let mut case = served();
    usage(&mut case).queries.used = 8;
    let mut case = case.at_rest();
    let effects = case.effects();
    let [Effect::Notify(Notice::UsageReached { .. })] = &effects[..] else { panic!("{effects:?}") };
    case.observed.learn(&effects[0], Outcome::Failed(failure("Notice", true)));
    assert_eq!(case.decide(), Decision::Wait(Some(case.policy.notice_retry)));
    case.observed.unsent.clear();
    usage(&mut case).documents.used = 8;
    assert_eq!(told(&mut case), [(80, vec![QUERIES, DOCUMENTS])]);
}

#[test]
fn a_lost_status_tells_nothing_of_the_period_again() {
    let mut case = served();
    usage(&mut case).documents.used = 10;
    assert_eq!(ask(&mut case, 8).len(), 2);
    case.view.status.usage_reached.clear();
    assert!(told(&mut case).is_empty());
    assert_eq!(case.view.status.usage_reached.len(), 2, "it is rebuilt");
}

#[test]
fn a_tenant_that_is_not_served_and_a_plan_that_says_so_get_none() {
    for phase in [Phase::Suspended, Phase::Deleting, Phase::Deleted, Phase::Failed] {
        let mut case = served();
        usage(&mut case).queries.used = 10;
        let mut case = case.at_rest();
        assert!(!case.view.status.usage_reached.is_empty());
        case.view.status.phase = Some(phase);
        let tells = |decision: &Decision| matches!(decision, Decision::Act(effects) if effects.iter().any(|e| matches!(e, Effect::Notify(Notice::UsageReached { .. }))));
        for _ in 0..5 {
            let decision = case.next();
            assert!(!tells(&decision), "{phase}: {decision:?}");
            match decision {
                Decision::Record(status) if status.phase == Some(phase) => case.view.status = *status,
                Decision::Act(effects) => effects.iter().for_each(|effect| case.perform(effect)),
                _ => break,
            }
        }
    }
    let mut off = served();
    off.plan.as_mut().expect("a plan").quota.notify = UsageNotices::None;
    assert!(ask(&mut off, 10).is_empty());
    assert!(off.view.status.usage_reached.is_empty());
}

#[test]
fn too_many_at_once_wait_and_those_who_have_begun_go_on() {
    let mut case = served();
    case.observed.usage_mails_held = true;
    usage(&mut case).queries.used = 8;
    assert_eq!(case.clone().at_rest().decide(), Decision::Wait(Some(case.policy.resync)));
    assert!(told(&mut case).is_empty() && case.view.status.usage_reached.is_empty());
    case.observed.usage_mails_held = false;
    let mut begun = case.clone().at_rest();
    assert_eq!(told(&mut case), [(80, vec![QUERIES])]);
    begun.observed.usage_mails_held = true;
    assert_eq!(told(&mut begun), [(80, vec![QUERIES])], "it was written down before");
    // A status that is lost is no news.
    case.view.status.usage_reached.clear();
    case.observed.usage_mails_held = true;
    assert!(told(&mut case).is_empty());
    assert_eq!(case.view.status.usage_reached.len(), 1);
}

/// The sweep replaces `status.usage` between any two steps, and the controller may be killed there. What was noted
/// stays.
#[test]
fn a_sweep_and_a_restart_between_any_two_steps_tell_nothing_twice() {
    for stop in 0..6 {
        let mut case = served();
        usage(&mut case).queries.used = 8;
        let mut sent = BTreeSet::new();
        for step in 0..12 {
            match case.next() {
                Decision::Wait(_) => {}
                Decision::Record(status) => case.view.status = *status,
                Decision::Act(effects) => {
                    for effect in effects {
                        if let Effect::Notify(notice) = &effect {
                            sent.insert(notice.key());
                        }
                        case.perform(&effect);
                    }
                }
            }
            if step == stop {
                let before: TenantStatus = case.view.status.clone();
                usage(&mut case).queries.used = 9;
                assert_eq!(before.usage_reached, case.view.status.usage_reached);
                case.observed.sent.clear();
            }
        }
        assert_eq!(
            sent.len(),
            1,
            "stopped after step {stop}, the mail server may get it twice, under one name: {sent:?}"
        );
    }
}

/// Seeded mistakes: each is found by what the tests above look at.
#[test]
fn an_email_that_is_sent_twice_never_or_in_the_wrong_period_is_found() {
    let way = |next: fn(&Case) -> Decision, between: fn(&mut Case)| {
        let mut case = served();
        let mut all = Vec::new();
        for used in [8, 9, 10] {
            usage(&mut case).queries.used = used;
            all.extend(mails(&mut case, next));
            between(&mut case);
        }
        next_period(&mut case);
        usage(&mut case).queries.used = 8;
        all.extend(mails(&mut case, next));
        all.into_iter().map(|(percent, _)| percent).collect::<Vec<_>>()
    };
    let right = [80, 100, 80];
    assert_eq!(way(Case::next, |_| {}), right);
    let twice = way(Case::next, |case| {
        case.view.status.usage_reached.clear();
        case.view.sent.retain(|key| !key.starts_with("usage"));
    });
    assert_eq!(twice, [80, 80, 100, 80], "what was told is lost");
    let never = way(
        |case| match case.next() {
            Decision::Act(effects) if matches!(effects[..], [Effect::Notify(Notice::UsageReached { .. })]) => {
                Decision::Wait(None)
            }
            other => other,
        },
        |_| {},
    );
    assert!(never.is_empty(), "{never:?}");
    let wrong = way(
        |case| {
            let mut case = case.clone();
            usage(&mut case).period_start = at(NOW - DAY);
            case.next()
        },
        |_| {},
    );
    assert_eq!(wrong, [80, 100], "the next period counts as the one before");
}
