use tenant_operator::api::{Phase, Timestamp};
use tenant_operator::lifecycle::{Decision, Effect, Notice};

use crate::case::{Case, NOW, fails, failure, holds, subscription};

fn new() -> Case {
    let mut case = Case::new(Some(Phase::Active));
    case.observed.api_key = Some(true);
    case
}

fn welcomed() -> Case {
    new().sent(&Notice::Welcome)
}

#[test]
fn the_welcome_is_sent_then_noted_then_shown() {
    assert_eq!(new().effects(), [Effect::Notify(Notice::Welcome)]);
    let mut case = new();
    case.observed.sent.insert(Notice::Welcome);
    assert_eq!(case.effects(), [Effect::MarkSent(vec![Notice::Welcome])]);
    let case = welcomed();
    assert!(holds(&case.recorded(), "WelcomeEmailSent", "Sent"));
    assert_eq!(case.clone().after_record(), Decision::Wait(None));
}

#[test]
fn under_overload_the_welcome_waits_within_limits() {
    let mut case = new();
    case.observed.overloaded = true;
    assert_eq!(case.decide(), Decision::Wait(Some(2)));
    case.view.status.provisioned_at = Some(Timestamp::from_second(NOW - case.policy.welcome_hold));
    assert_eq!(case.effects(), [Effect::Notify(Notice::Welcome)]);
    // A clock that was set back must not hold it for ever.
    case.view.status.provisioned_at = Some(Timestamp::from_second(NOW + 3600));
    assert_eq!(case.effects(), [Effect::Notify(Notice::Welcome)]);
}

#[test]
fn a_welcome_that_cannot_be_sent_alerts_once_and_is_tried_again() {
    let mut case = new();
    case.observed.unsent.insert(Notice::Welcome, failure("Notice", true));
    assert_eq!(case.effects(), [Effect::Notify(Notice::WelcomeFailedAlert)]);
    case.observed.sent.insert(Notice::WelcomeFailedAlert);
    assert_eq!(case.effects(), [Effect::MarkSent(vec![Notice::WelcomeFailedAlert])]);
    let case = case.sent(&Notice::WelcomeFailedAlert);
    let status = case.recorded();
    assert_eq!(status.phase, Some(Phase::Active));
    assert!(fails(&status, "WelcomeEmailSent", "PineconeProviderError"));
    assert_eq!(case.clone().after_record(), Decision::Wait(Some(case.policy.notice_retry)));
}

#[test]
fn an_address_that_is_refused_for_good_is_tried_at_the_resync_only() {
    let mut case = new().sent(&Notice::WelcomeFailedAlert);
    case.observed.unsent.insert(Notice::Welcome, failure("Notice", false));
    assert_eq!(case.clone().after_record(), Decision::Wait(Some(case.policy.resync)));
}

#[test]
fn a_secret_that_is_gone_comes_back_at_once() {
    let mut case = welcomed();
    case.observed.api_key = None;
    assert_eq!(case.effects(), [Effect::EnsureApiKey], "edited, or not looked at since the start");
    case.observed.api_key = Some(false);
    assert_eq!(case.effects(), [Effect::EnsureApiKey]);
    case.observed.failure = Some(failure("ApiKey", true));
    assert!(fails(&case.recorded(), "ApiKeyReady", "PineconeProviderError"));
}

#[test]
fn a_resync_reads_everything_back() {
    let mut case = welcomed();
    case.observed.resync = true;
    assert_eq!(case.effects(), [Effect::CheckNamespace, Effect::ReadBilling]);
    case.observed.namespace = true;
    let case = case.billing(Some(subscription("past_due")), None);
    assert_eq!(case.recorded().subscription.as_deref(), Some("past_due"));
    assert_eq!(welcomed().manual(true).recorded().phase, Some(Phase::Active));
}

#[test]
fn collection_that_is_paused_for_a_served_tenant_is_resumed() {
    let mut paused = subscription("active");
    paused.paused = true;
    assert_eq!(welcomed().billing(Some(paused), None).effects(), [Effect::ResumeCollection]);
}

#[test]
fn a_plan_that_went_away_takes_no_tenant_with_it() {
    let mut case = welcomed();
    case.plan = None;
    let status = case.recorded();
    assert_eq!(status.phase, Some(Phase::Active));
    assert!(fails(&status, "PlanFound", "PlanNotFound") && holds(&status, "Ready", "Active"));
}
