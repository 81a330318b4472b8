use tenant_operator::api::tenant::{Desired, Wish};
use tenant_operator::api::usage::{Cycle, Quota};
use tenant_operator::api::{Phase, Timestamp};
use tenant_operator::lifecycle::{Decision, Effect, Notice, ObservedBilling, ObservedSubscription};

use crate::case::{Case, NOW, ending, fails, failure, holds, subscription};

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
fn a_closed_subscription_goes_on_only_where_the_tenant_was_taken_back_since() {
    let wished = |desired, at| {
        let mut case = welcomed().billing(Some(ending(NOW - 100)), None);
        case.view.spec.wish = Some(Wish::of_customer(desired, Timestamp::from_second(at)));
        case
    };
    assert_eq!(wished(Desired::Active, NOW - 99).effects(), [Effect::RenewAgain]);
    // An object from before the closing: from a backup, its customer had come back from an earlier one.
    let mut never = wished(Desired::Active, NOW - 100);
    never.view.spec.wish = None;
    for older in [wished(Desired::Active, NOW - 100), wished(Desired::Suspended, NOW), never] {
        let status = older.recorded();
        assert!(holds(&status, "RenewalStopped", "ClosedBefore"), "{status:#?}");
        let mut shown = older.clone();
        shown.view.status = status;
        let alert = Notice::EndsAlert("sub_1".into());
        assert_eq!(shown.effects(), [Effect::Notify(alert.clone())]);
        let shown = shown.sent(&alert).at_rest();
        assert!(matches!(shown.decide(), Decision::Wait(_)), "the customer is served until the end, and not charged");
        let gone = shown.billing(Some(subscription("active")), None).recorded();
        assert!(!gone.conditions.iter().any(|c| c.type_ == "RenewalStopped"), "{gone:#?}");
    }
    // Renewing it as well would bill the customer twice.
    let mut two = wished(Desired::Active, NOW - 99);
    two.observed.billing.as_mut().expect("read").surplus_renewing = vec!["sub_2".into()];
    assert_eq!(two.effects(), [Effect::ForgetClosing], "the customer is billed by the other one");
    // The end was undone at Stripe, so the note of the closing is forgotten even if the Tenant says otherwise.
    let undone = ObservedSubscription { ends: false, renews: true, ..ending(NOW - 100) };
    assert_eq!(welcomed().billing(Some(undone), None).effects(), [Effect::ForgetClosing]);
    let over = ObservedSubscription { ends: false, ..ending(NOW - 100) };
    let mut over = welcomed().billing(Some(ObservedSubscription { status: "canceled".into(), ..over }), None);
    over.view.spec.wish = Some(Wish::of_customer(Desired::Active, Timestamp::from_second(NOW)));
    assert_eq!(over.decide_phase(), Some(Phase::Suspended), "there is nothing to renew");
}

#[test]
fn under_overload_the_welcome_waits_within_limits() {
    let mut case = new();
    case.observed.overloaded = true;
    case = case.at_rest();
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
    let case = case.failed(&Effect::EnsureApiKey, failure("ApiKey", true));
    assert!(fails(&case.recorded(), "ApiKeyReady", "PineconeProviderError"));
}

#[test]
fn a_resync_reads_everything_back() {
    let mut case = welcomed();
    case.observed.resync = true;
    assert_eq!(case.effects(), [Effect::ReadBilling]);
    let mut case = case.billing(Some(subscription("active")), None);
    assert_eq!(case.effects(), [Effect::CheckNamespace]);
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

#[test]
fn a_provider_that_fails_is_shown_and_the_tenant_stays_ready() {
    let billing = ("Billing", Effect::ReadBilling, "BillingReady");
    for (step, effect, condition) in [billing, ("Namespace", Effect::CheckNamespace, "NamespaceReady")] {
        let mut case = welcomed().billing(Some(subscription("active")), None).at_rest();
        (case.observed.resync, case.observed.namespace) = (true, step == "Billing");
        case.observed.billing = case.observed.billing.filter(|_| step != "Billing");
        let mut case = case.failed(&effect, failure(step, true));
        let status = case.recorded();
        assert!(fails(&status, condition, "PineconeProviderError") && holds(&status, "Ready", "Active"), "{step}");
        assert_eq!(case.clone().after_record(), Decision::Wait(Some(case.policy.notice_retry)));
        case.observed.failures = 2;
        assert_eq!(case.clone().after_record(), Decision::Wait(Some(case.policy.notice_retry * 4)));
        // And the welcome goes out all the same.
        let mut unwelcomed = new();
        unwelcomed.view.status = status;
        let unwelcomed = unwelcomed.failed(&effect, failure(step, true));
        assert_eq!(unwelcomed.effects(), [Effect::Notify(Notice::Welcome)]);
        // Until it works again.
        (case.observed.failure, case.observed.failed) = (None, Default::default());
        case.view.status = unwelcomed.view.status;
        case.observed.namespace = true;
        let status = case.billing(Some(subscription("active")), None).recorded();
        assert!(!fails(&status, condition, "PineconeProviderError"), "{step}");
    }
}

#[test]
fn a_namespace_that_is_gone_is_alerted_shown_and_remade_only_on_demand() {
    let alert = Notice::NamespaceMissingAlert("first".into());
    let mut case = welcomed();
    (case.observed.resync, case.observed.namespace_missing) = (true, true);
    let mut case = case.billing(Some(subscription("active")), None);
    assert_eq!(case.effects(), [Effect::Notify(alert.clone())]);
    case = case.sent(&alert);
    let status = case.recorded();
    assert!(fails(&status, "NamespaceReady", "NamespaceMissing") && holds(&status, "Stalled", "NamespaceMissing"));
    assert_eq!(status.phase, Some(Phase::Active));
    case.view.status = status;
    // A reconcile for another reason does not take it back.
    let mut later = case.clone();
    (later.observed.resync, later.observed.namespace_missing, later.observed.billing) = (false, false, None);
    assert_eq!(later.decide(), Decision::Wait(Some(later.policy.resync)));
    later.view.retry_token = Some("remake".into());
    let status = later.recorded();
    assert_eq!(status.phase, Some(Phase::Provisioning));
    assert_eq!(status.provisioning.expect("a run").retry_token.as_deref(), Some("remake"));
    // It came back by itself.
    (case.observed.namespace_missing, case.observed.namespace) = (false, true);
    assert!(holds(&case.recorded(), "NamespaceReady", "Usable"));
    // A retry of a tenant that is well is nothing.
    let mut well = welcomed();
    well.view.retry_token = Some("x".into());
    assert_eq!(well.recorded().phase, Some(Phase::Active));
}

#[test]
fn edited_limits_and_features_reach_the_tenant_unless_the_plan_says_otherwise() {
    use tenant_operator::api::plan::LimitChanges;
    use tenant_operator::api::status::PlanConfig;
    use tenant_operator::api::usage::Quota;
    let mut case = welcomed();
    let plan = case.plan.clone().expect("a plan");
    case.view.status.config = Some(PlanConfig {
        plan: "starter".into(),
        limits: plan.limits.clone(),
        quota: plan.quota.clone(),
        models: plan.models.clone(),
        features: vec![],
        api_access: None,
        sample_question: "What was asked before?".into(),
    });
    case.view.status.quota = Some(Quota {
        period_start: Timestamp::from_second(0),
        period_end: Timestamp::from_second(NOW),
        anchor: None,
        queries_limit: 1,
        documents_limit: 1,
    });
    let edited = case.plan.as_mut().expect("a plan");
    (edited.limits.documents, edited.limits.queries_per_month) = (7, 8);
    edited.features = vec!["api_access".into()];
    edited.models.chat = "other".into();
    let status = case.recorded();
    let config = status.config.expect("a config");
    assert_eq!((config.limits.documents, config.features), (7, vec!["api_access".into()]));
    assert_eq!(config.api_access, Some(true));
    assert_eq!(config.models.chat, "gpt-4o-mini");
    let quota = status.quota.expect("a quota");
    assert_eq!((quota.documents_limit, quota.queries_limit), (7, 8));
    case.plan.as_mut().expect("a plan").features.clear();
    assert_eq!(case.recorded().config.expect("a config").api_access, Some(false));
    case.plan.as_mut().expect("a plan").limit_changes = LimitChanges::NewTenants;
    assert_eq!(case.recorded().config.expect("a config").api_access, None, "it keeps its key");
    assert_eq!(case.recorded().config.expect("a config").limits.documents, 1000);
}

#[test]
fn edited_token_limits_and_quota_rules_reach_the_tenant_as_other_limits_do() {
    use tenant_operator::api::Unit;
    use tenant_operator::api::plan::LimitChanges;
    use tenant_operator::api::quota::{QuotaRules, WhenUnavailable};
    use tenant_operator::api::status::PlanConfig;
    let mut case = welcomed();
    let before = PlanConfig::of("starter", case.plan.as_ref().expect("a plan"));
    assert_eq!((before.hard_limit(Unit::Queries), before.hard_limit(Unit::PromptTokens)), (Some(10_000), None));
    case.view.status.config = Some(before.clone());
    let edited = case.plan.as_mut().expect("a plan");
    edited.limits.prompt_tokens_per_month = Some(5);
    edited.limits.completion_tokens_per_month = Some(6);
    edited.limits.embedding_tokens_per_month = Some(7);
    edited.quota = QuotaRules {
        when_unavailable: WhenUnavailable::Refuse,
        soft: vec![Unit::Queries, Unit::EmbeddingTokens, Unit::Documents],
        ..QuotaRules::default()
    };
    let config = case.recorded().config.expect("a config");
    assert_eq!(config, PlanConfig::of("starter", case.plan.as_ref().expect("a plan")));
    let tokens = [Unit::PromptTokens, Unit::CompletionTokens, Unit::EmbeddingTokens];
    assert_eq!(tokens.map(|unit| config.limits.of(unit)), [Some(5), Some(6), Some(7)]);
    assert_eq!(tokens.map(|unit| config.hard_limit(unit)), [Some(5), Some(6), None], "a soft unit is counted only");
    let others = [Unit::Queries, Unit::EmbeddedBytes, Unit::Documents, Unit::Bytes];
    assert_eq!(others.map(|unit| config.hard_limit(unit)), [None, Some(5 << 30), None, Some(1 << 30)]);
    case.plan.as_mut().expect("a plan").limit_changes = LimitChanges::NewTenants;
    assert_eq!(case.recorded().config, Some(before), "which was provisioned before the edit");
}

#[test]
fn a_key_that_is_missing_and_cannot_be_made_is_not_ready_and_one_that_is_there_stays_ready() {
    let ready = |effect: Effect, step: &str, api_key: Option<bool>| {
        let mut case = welcomed().at_rest();
        case.observed.api_key = api_key;
        holds(&case.failed(&effect, failure(step, true)).recorded(), "Ready", "Active")
    };
    assert!(!ready(Effect::EnsureApiKey, "ApiKey", None) && !ready(Effect::EnsureApiKey, "ApiKey", Some(false)));
    assert!(ready(Effect::EnsureApiKey, "ApiKey", Some(true)) && ready(Effect::ReadBilling, "Billing", Some(true)));
}

#[test]
fn a_replaced_key_is_noted_with_its_time_and_a_lost_status_makes_none_up() {
    let mut case = welcomed();
    case.view.spec.api_key_generation = 2;
    case.view.status.api_key_generation = Some(1);
    case.view.status.api_key_created_at = Some(Timestamp::from_second(NOW - 1000));
    // Not before the Secret holds it.
    case.observed.api_key = Some(false);
    assert_eq!(case.effects(), [Effect::EnsureApiKey]);
    case.observed.api_key = Some(true);
    let status = case.recorded();
    assert_eq!((status.api_key_generation, status.api_key_created_at), (Some(2), Some(Timestamp::from_second(NOW))));
    let mut lost = welcomed();
    lost.view.spec.api_key_generation = 2;
    lost.view.status.api_key_created_at = Some(Timestamp::from_second(NOW - 1000));
    let status = lost.recorded();
    assert_eq!(status.api_key_created_at, Some(Timestamp::from_second(NOW - 1000)), "nothing says that it is new");
}

#[test]
fn the_quota_period_moves_on() {
    let mut case = welcomed();
    case.view.status.quota = Some(Quota::begin(None, Timestamp::from_second(NOW - Quota::PERIOD - 5)));
    let next = case.recorded().quota.expect("a quota");
    assert_eq!(next.period_start, Timestamp::from_second(NOW - 5));
    assert_eq!(next.period_end, next.period_start.plus(Quota::PERIOD));
}

/// Of a tenant that an earlier version provisioned, of one that was moved to Stripe, and of one with another
/// subscription.
#[test]
fn the_quota_follows_the_periods_at_stripe() {
    let mut case = welcomed();
    case.view.status.quota = Some(Quota::begin(None, Timestamp::from_second(NOW - 20 * 24 * 3600)));
    let (anchor, period_start) = (Timestamp::from_second(NOW - 100), Timestamp::from_second(NOW - 100));
    let subscription = ObservedSubscription { cycle: Some(Cycle { anchor, period_start }), ..subscription("active") };
    case.observed.billing = Some(ObservedBilling { subscription: Some(subscription), ..ObservedBilling::default() });
    let status = case.recorded();
    let quota = status.quota.clone().expect("a quota");
    assert_eq!((quota.period_start, quota.period_end), (period_start, period_start.plus_months(1)));
    case.view.status = status;
    assert!(!matches!(case.decide(), Decision::Record(_)), "it is written once");
}
