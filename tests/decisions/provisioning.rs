use tenant_operator::api::tenant::Desired;
use tenant_operator::api::usage::Quota;
use tenant_operator::api::{Phase, SampleData, Timestamp};
use tenant_operator::lifecycle::{Decision, Effect, Notice, Outcome, Samples, Step};

use crate::case::{Case, NOW, condition, fails, failure, holds, operator_fault, outage, subscription};

fn new() -> Case {
    Case::new(Some(Phase::Provisioning)).billing(Some(subscription("active")), None)
}

/// Everything made and the samples seen.
fn done() -> Case {
    let mut case = new();
    (case.observed.api_key, case.observed.namespace, case.observed.samples) = (Some(true), true, Samples::Seen);
    case
}

#[test]
fn independent_steps_run_side_by_side() {
    let mut case = Case::new(Some(Phase::Provisioning));
    assert_eq!(case.effects(), [Effect::EnsureApiKey, Effect::ReadBilling, Effect::EnsureNamespace]);
    case.observed.namespace = true;
    assert_eq!(case.effects(), [Effect::EnsureApiKey, Effect::ReadBilling, Effect::StoreSamples]);
    assert_eq!(new().manual(true).effects(), [Effect::EnsureApiKey, Effect::EnsureNamespace]);
}

#[test]
fn samples_that_were_stored_are_not_yet_seen() {
    let mut case = done();
    case.observed.samples = Samples::Stored;
    assert_eq!(case.effects(), [Effect::VerifySamples]);
}

#[test]
fn a_plan_without_samples_waits_for_none() {
    let mut case = done();
    case.observed.samples = Samples::Unknown;
    case.plan.as_mut().expect("a plan").sample_data = SampleData::None;
    assert!(holds(&case.recorded(), "SampleDataReady", "NotWanted"));
}

#[test]
fn all_done_is_active_with_what_the_plan_gives() {
    let status = done().recorded();
    assert_eq!(status.phase, Some(Phase::Active));
    assert!(holds(&status, "Ready", "Active") && holds(&status, "SampleDataReady", "Seen"));
    assert_eq!(status.namespace.as_deref(), Some("tenant_t1"));
    assert_eq!(status.api_key_secret.as_deref(), Some("acme-api-key"));
    let quota = status.quota.expect("a quota");
    assert_eq!((quota.period_start.as_second(), quota.period_end), (NOW, quota.period_start.plus(Quota::PERIOD)));
    assert_eq!((quota.queries_limit, quota.documents_limit), (10_000, 1000));
}

#[test]
fn collection_that_a_failure_paused_is_resumed_before_active() {
    let mut case = done();
    case.observed.billing.as_mut().and_then(|b| b.subscription.as_mut()).expect("there").paused = true;
    assert_eq!(case.effects(), [Effect::CollectAnew]);
    case.observed.learn(&Effect::CollectAnew, Outcome::Done);
    assert_eq!(case.recorded().phase, Some(Phase::Active));
}

#[test]
fn a_new_run_can_be_refunded_anew() {
    let mut case = Case::new(Some(Phase::Failed));
    case.view.status.refund = Some(tenant_operator::api::status::Refund {
        amount: 1,
        currency: None,
        at: Timestamp::from_second(NOW),
        waived: false,
    });
    case.view.retry_token = Some("again".into());
    assert_eq!(case.recorded().refund, None);
}

#[test]
fn an_attempt_that_failed_is_counted_and_waited_after() {
    let mut case = new();
    case.policy.jitter_percent = 0;
    for (attempt, wait) in [(1, 60), (2, 120), (3, 240)] {
        case.observed.failure = Some(failure("Namespace", true));
        let status = case.recorded();
        let run = status.provisioning.clone().expect("attempts");
        assert_eq!((run.attempts, run.next_retry_at.map(Timestamp::as_second)), (attempt, Some(NOW + wait)));
        assert!(fails(&status, "NamespaceReady", "PineconeProviderError"));
        case.view.status = status;
    }
    case.observed.failure = Some(failure("Namespace", true));
    let status = case.recorded();
    assert_eq!((status.phase, status.provisioning.expect("attempts").attempts), (Some(Phase::Failed), 4));
}

#[test]
fn a_failure_that_no_retry_can_fix_ends_at_once() {
    let mut case = new();
    case.observed.failure = Some(failure("SampleData", false));
    let status = case.recorded();
    assert_eq!(status.phase, Some(Phase::Failed));
    assert!(holds(&status, "Stalled", "PineconeProviderError"));
}

#[test]
fn a_provider_that_names_a_longer_wait_gets_it() {
    let mut case = new();
    case.observed.failure =
        Some(tenant_operator::lifecycle::Failure { retry_after: Some(900), ..failure("Namespace", true) });
    let run = case.recorded().provisioning.expect("attempts");
    assert_eq!(run.next_retry_at.map(Timestamp::as_second), Some(NOW + 900));
}

#[test]
fn samples_that_are_a_best_effort_hold_no_tenant_up() {
    let mut case = done();
    case.observed.samples = Samples::Stored;
    case.plan.as_mut().expect("a plan").sample_data = SampleData::BestEffort;
    case.observed.failure = Some(failure("SampleData", true));
    let status = case.recorded();
    assert_eq!(status.phase, Some(Phase::Active));
    assert!(fails(&status, "SampleDataReady", "PineconeProviderError"));
    case.observed.failure = Some(failure("Namespace", true));
    assert_eq!(case.recorded().phase, Some(Phase::Provisioning), "the namespace is never optional");
}

fn between_attempts(paid_ago: i64) -> Case {
    let mut case = new();
    let run = case.view.status.provisioning.as_mut().expect("attempts");
    (run.attempts, run.next_retry_at) = (3, Some(Timestamp::from_second(NOW + 200)));
    run.started_at = Timestamp::from_second(NOW - paid_ago);
    case.view.status.paid_at = Some(Timestamp::from_second(NOW - paid_ago));
    case
}

#[test]
fn slow_is_said_while_waiting_at_the_moment_it_is_true() {
    assert_eq!(between_attempts(10).decide(), Decision::Wait(Some(200)));
    assert_eq!(between_attempts(200).decide(), Decision::Wait(Some(100)), "until slow, not until the next attempt");
    let case = between_attempts(300);
    assert_eq!(case.effects(), [Effect::Notify(slow_alert())]);
    let mut told = case.clone();
    told.observed.sent.insert(slow_alert());
    assert_eq!(told.effects(), [Effect::MarkSent(vec![slow_alert()])]);
    let marked = case.sent(&slow_alert());
    assert!(holds(&marked.recorded(), "Slow", "SlowProvisioning"));
    assert_eq!(marked.after_record(), Decision::Wait(Some(200)));
}

#[test]
fn slow_is_said_of_a_tenant_whose_plan_went_away_too() {
    let mut case = between_attempts(300);
    case.plan = None;
    case.view.status = case.recorded();
    assert!(holds(&case.view.status, "Stalled", "PlanNotFound"));
    assert_eq!(case.effects(), [Effect::Notify(slow_alert())]);
    case.observed.unsent.insert(slow_alert(), failure("Notice", true));
    assert!(holds(&case.recorded(), "Slow", "SlowProvisioning"), "without the alert, too");
    let retry = case.policy.notice_retry;
    assert_eq!(case.after_record(), Decision::Wait(Some(retry)), "and the alert is tried again");
}

#[test]
fn slow_ends_with_active_and_a_retry_begins_anew() {
    let mut case = done();
    case.view.status = between_attempts(300).sent(&slow_alert()).recorded();
    case.view.status.provisioning.as_mut().expect("a run").next_retry_at = None;
    assert!(fails(&case.sent(&slow_alert()).recorded(), "Slow", "Active"));
    let mut retried = between_attempts(3000);
    retried.view.status.provisioning.as_mut().expect("a run").started_at = Timestamp::from_second(NOW - 10);
    assert_eq!(retried.decide(), Decision::Wait(Some(200)));
}

#[test]
fn the_welcome_is_announced_unless_it_was_sent() {
    let pending = condition(&done().recorded(), "WelcomeEmailSent");
    assert_eq!(pending.map(|(_, reason)| reason).as_deref(), Some("Pending"));
    assert_eq!(condition(&done().sent(&Notice::Welcome).recorded(), "WelcomeEmailSent"), None);
}

fn slow_alert() -> Notice {
    Notice::SlowAlert("first".into())
}

#[test]
fn an_outage_and_an_operators_fault_hold_the_tenant_without_counting_an_attempt() {
    for (failure, wait) in [(outage("Namespace"), 5), (operator_fault("Namespace"), 30)] {
        let mut case = new();
        case.observed.failure = Some(failure.clone());
        let status = case.recorded();
        let run = status.provisioning.clone().expect("a run");
        assert_eq!((run.attempts, run.held_since.map(Timestamp::as_second)), (0, Some(NOW)));
        assert!(
            fails(&status, "NamespaceReady", &failure.reason.to_string())
                && holds(&status, "Reconciling", &failure.reason.to_string())
        );
        assert!(status.message.as_ref().is_some_and(|m| m.contains("since 1970-01-12T13:46:40Z")), "{status:?}");
        assert_eq!(case.clone().after_record(), Decision::Wait(Some(wait)));
        // Still so, later: nothing new to write, and the same wait.
        case.view.status = status;
        case.observed.failure_recorded = false;
        assert_eq!(case.decide(), Decision::Wait(Some(wait)));
    }
}

#[test]
fn a_hold_ends_with_its_limit_and_begins_anew_after_an_attempt() {
    let mut case = new();
    case.observed.failure = Some(operator_fault("Namespace"));
    let held = |case: &mut Case, ago: i64| {
        case.view.status.provisioning.as_mut().expect("a run").held_since = Some(Timestamp::from_second(NOW - ago));
    };
    held(&mut case, 3599);
    assert_eq!(case.recorded().phase, Some(Phase::Provisioning));
    held(&mut case, 3600);
    let status = case.recorded();
    assert_eq!(status.phase, Some(Phase::Failed));
    assert!(status.message.is_some_and(|m| m.contains("after 3600 s on hold")));
    case.observed.failure = Some(failure("Namespace", true));
    let run = case.recorded().provisioning.expect("a run");
    assert_eq!((run.attempts, run.held_since), (1, None));
}

#[test]
fn slow_is_said_of_a_tenant_on_hold_too() {
    let mut case = new();
    case.view.status.paid_at = Some(Timestamp::from_second(NOW - 300));
    case.view.status.provisioning.as_mut().expect("a run").started_at = Timestamp::from_second(NOW - 300);
    case.observed.failure = Some(outage("Namespace"));
    case.view.status = case.recorded();
    assert_eq!(case.effects(), [Effect::Notify(slow_alert())]);
    case.view.status.provisioning.as_mut().expect("a run").started_at = Timestamp::from_second(NOW - 298);
    case.view.status.paid_at = Some(Timestamp::from_second(NOW - 298));
    assert_eq!(case.decide(), Decision::Wait(Some(2)), "at its moment, not at the next probe");
}

#[test]
fn samples_that_are_not_visible_yet_are_looked_for_until_the_attempts_limit() {
    let mut case = new();
    (case.observed.api_key, case.observed.namespace) = (Some(true), true);
    case.observed.learn(&Effect::VerifySamples, Outcome::NotYet);
    assert_eq!(case.decide(), Decision::Wait(Some(1)));
    case.observed.attempt_age = case.policy.attempt_limit;
    assert_eq!(case.decide(), Decision::Wait(Some(1)));
    case.observed.attempt_age += 1;
    let status = case.recorded();
    let run = status.provisioning.expect("a run");
    assert_eq!((run.attempts, run.failed_step.as_deref()), (1, Some("SampleData")));
    case.observed.namespace = false;
    assert_eq!(case.recorded().provisioning.expect("a run").failed_step.as_deref(), Some("Namespace"));
}

#[test]
fn active_forgets_what_an_earlier_run_left_behind() {
    let mut case = done();
    case.view.status = Case::new(Some(Phase::Provisioning)).view.status;
    let condition = |type_: &str, status: &str| {
        let json = format!(
            r#"{{"type":"{type_}","status":"{status}","reason":"X","message":"","lastTransitionTime":"1970-01-01T00:00:00Z"}}"#
        );
        serde_json::from_str(&json).expect("a condition")
    };
    case.view.status.conditions = vec![condition("Refunded", "True"), condition("BillingReady", "False")];
    case.view.status.provisioning.as_mut().expect("a run").held_since = Some(Timestamp::from_second(NOW - 9));
    let status = case.recorded();
    assert_eq!(super::case::condition(&status, "Refunded"), None);
    assert!(holds(&status, "BillingReady", "Recovered") && holds(&status, "Ready", "Active"));
    assert_eq!(status.conditions[0].type_, "Ready", "what people look for comes first");
    assert_eq!(status.provisioning.expect("a run").held_since, None);
}

#[test]
fn a_recorded_attempt_is_waited_after_and_a_recorded_end_leaves_no_failure_behind() {
    let mut case = new();
    case.policy.jitter_percent = 0;
    case.observed.failure = Some(failure("Namespace", true));
    assert_eq!(case.after_record(), Decision::Wait(Some(60)));
    // The end of a hold changes the phase and no count: what follows is the refund, not the failure.
    let mut case = new();
    case.observed.failure = Some(operator_fault("Namespace"));
    case.observed.pending = true;
    case.view.status.provisioning.as_mut().expect("a run").held_since = Some(Timestamp::from_second(NOW - 3600));
    let status = case.recorded();
    case.observed.recorded(&case.view.status, &status);
    assert!(case.observed.failure.is_none() && !case.observed.pending && !case.observed.failure_recorded);
    // While nothing changes but the words, the failure stands until the reconcile ends.
    let mut case = new();
    case.observed.failure = Some(outage("Namespace"));
    let status = case.recorded();
    case.observed.recorded(&case.view.status, &status);
    assert!(case.observed.failure.is_some() && case.observed.failure_recorded);
}

#[test]
fn the_first_failure_counts_unless_a_later_one_ends_the_attempts() {
    let learned = |failures: &[(&str, bool)]| {
        let mut case = new();
        for (step, retryable) in failures {
            case.observed.learn(&Effect::EnsureNamespace, Outcome::Failed(failure(step, *retryable)));
        }
        case.observed.failure.expect("one").step
    };
    assert_eq!(learned(&[("Namespace", true), ("ApiKey", true)]), Step::Namespace);
    assert_eq!(learned(&[("Namespace", true), ("ApiKey", false)]), Step::ApiKey);
    assert_eq!(learned(&[("Namespace", false), ("ApiKey", true)]), Step::Namespace);
    assert_eq!(learned(&[("Namespace", false), ("ApiKey", false)]), Step::Namespace);
}

#[test]
fn an_attempt_is_due_at_its_very_second() {
    let mut case = Case::new(Some(Phase::Provisioning));
    let next = |case: &mut Case, at: i64| {
        case.view.status.provisioning.as_mut().expect("a run").next_retry_at = Some(Timestamp::from_second(at));
    };
    next(&mut case, NOW + 1);
    assert_eq!(case.decide(), Decision::Wait(Some(1)));
    next(&mut case, NOW);
    assert!(matches!(case.decide(), Decision::Act(_)));
}

/// The jitter is the tenant's own, so that the same decision is made twice, and spreads over its whole range.
#[test]
fn waits_are_lengthened_by_up_to_their_jitter() {
    let policy = tenant_operator::lifecycle::Policy::default();
    assert_eq!([1, 2, 3, 4].map(|n| policy.wait_after(n, "t1")), [Some(64), Some(130), Some(251), None]);
    assert_eq!(policy.wait_after(0, "t1"), None);
    let seen: std::collections::BTreeSet<_> =
        (0..200).filter_map(|i| policy.wait_after(1, &format!("tenant-{i}"))).collect();
    assert_eq!(seen, (60..=66).collect());
    let exact = tenant_operator::lifecycle::Policy { jitter_percent: 0, ..policy };
    assert_eq!(exact.wait_after(2, "t1"), Some(120));
}

/// Each fact by which a tenant counts as served before, even if its status is lost.
fn served() -> Vec<Case> {
    let mut by_status = new();
    by_status.view.status.provisioned_at = Some(Timestamp::from_second(NOW - 900));
    let mut by_question = new();
    by_question.view.asked = true;
    let mut by_id = new();
    by_id.view.uid = "another".into();
    // Their status was lost before the welcome could be sent.
    let [mut by_upload, mut by_document, mut by_query] = [new(), new(), new()];
    by_upload.view.stored = true;
    by_document.view.usage.documents = 1;
    by_query.view.usage.earlier_queries = 1;
    vec![
        by_status,
        by_question,
        by_id,
        by_upload,
        by_document,
        by_query,
        new().sent(&Notice::Welcome),
        new().sent(&Notice::WelcomeFailedAlert),
    ]
}

#[test]
fn a_tenant_that_was_served_before_waits_out_an_outage_without_a_limit() {
    for failure in [outage("Namespace"), operator_fault("Namespace")] {
        for mut case in served() {
            case.view.status.provisioning.as_mut().expect("a run").held_since =
                Some(Timestamp::from_second(NOW - 90 * 24 * 3600));
            case.observed.failure = Some(failure.clone());
            let status = case.recorded();
            assert_eq!(status.phase, Some(Phase::Provisioning));
            assert!(holds(&status, "Stalled", &failure.reason.to_string()), "{status:#?}");
            assert!(status.message.as_ref().is_some_and(|m| m.contains("without a limit and refunds nothing")));
            assert!(matches!(case.after_record(), Decision::Wait(Some(_)) | Decision::Act(_)));
        }
    }
}

#[test]
fn a_tenant_that_was_served_before_has_no_last_attempt() {
    for retryable in [true, false] {
        for mut case in served() {
            case.policy.jitter_percent = 0;
            case.view.status.provisioning.as_mut().expect("a run").attempts = 1000;
            case.observed.failure = Some(failure("SampleData", retryable));
            let status = case.recorded();
            let run = status.provisioning.as_ref().expect("a run");
            assert_eq!((status.phase, run.attempts), (Some(Phase::Provisioning), 1001));
            assert_eq!(run.next_retry_at.map(Timestamp::as_second), Some(NOW + 240));
            assert!(holds(&status, "Stalled", "PineconeProviderError"), "{status:#?}");
        }
    }
}

#[test]
fn the_long_wait_of_a_tenant_that_was_served_before_is_alerted_and_shown() {
    let mut case = between_attempts(300).sent(&Notice::Welcome);
    assert_eq!(case.effects(), [Effect::Notify(slow_alert())]);
    case = case.sent(&slow_alert());
    assert!(holds(&case.recorded(), "Slow", "WaitsWithoutLimit"));
}

/// The customer cancelled at Stripe meanwhile: there is nothing to resume or to renew, and nothing to serve.
#[test]
fn a_subscription_that_ended_meanwhile_suspends_instead_of_blocking() {
    let mut case = done();
    let over = case.observed.billing.as_mut().and_then(|b| b.subscription.as_mut()).expect("there");
    (over.status, over.paused, over.ends) = ("canceled".into(), true, true);
    let status = case.recorded();
    assert_eq!(status.phase, Some(Phase::Suspended));
    assert!(fails(&status, "Ready", "SubscriptionEnded"), "{status:#?}");
}

/// Such a tenant is owed what it paid when it is closed, so nothing says that it was served.
#[test]
fn a_tenant_that_is_suspended_on_its_way_was_not_served() {
    let mut case = done();
    case.view.spec.desired = Desired::Suspended;
    let status = case.recorded();
    assert_eq!((status.phase, status.provisioned_at), (Some(Phase::Suspended), None));
    assert!(fails(&status, "Ready", "SuspendedByAdmin"), "{status:#?}");
    let mut ended = done();
    ended.observed.billing.as_mut().and_then(|b| b.subscription.as_mut()).expect("there").status = "canceled".into();
    assert_eq!(ended.recorded().provisioned_at, None);
    case.view.status = status;
    let mut told = case.clone().sent(&Notice::Suspended(Timestamp::from_second(NOW)));
    assert!(!told.view.served_before(), "the e-mail of the suspension is no proof of service");
    told.view.spec.desired = Desired::Active;
    let back = told.billing(Some(subscription("active")), None).recorded();
    assert_eq!((back.phase, back.provisioned_at), (Some(Phase::Active), Some(Timestamp::from_second(NOW))));
}

#[test]
fn a_declined_card_is_charged_again_a_day_later() {
    let declined = failure("Billing", false);
    for mut case in served() {
        case = case.failed(&Effect::CollectAnew, declined.clone());
        let run = case.recorded().provisioning.expect("a run");
        assert_eq!(run.next_retry_at.map(Timestamp::as_second), Some(NOW + 24 * 3600));
    }
}

#[test]
fn a_tenant_that_is_set_up_again_and_pays_nothing_is_suspended_without_a_moment_of_service() {
    let mut case = done().billing(Some(subscription("unpaid")), None);
    let status = case.recorded();
    assert_eq!(status.phase, Some(Phase::Suspended));
    assert!(fails(&status, "Ready", "PaymentMissing") && fails(&status, "PaymentReceived", "Unpaid"), "{status:#?}");
    case = case.billing(Some(subscription("past_due")), None);
    assert_eq!(case.recorded().phase, Some(Phase::Active), "the days of grace are the customer's");
}
