//! Providers that fail: retries that are seen, and an end that gives the money back.

use serde_json::json;
use tenant_operator::api::conditions::{get, is_true};
use tenant_operator::api::tenant::BillingMode;
use tenant_operator::api::{ConditionStatus, Phase, RETRY_ANNOTATION, TenantStatus};

use crate::support::{World, control_plane};

#[tokio::test]
async fn a_manual_tenant_is_active_only_after_its_samples_were_seen() {
    let world = World::start("samples").await;
    world.sandbox_post("/_sandbox/pinecone", json!({"visibility_ms": 1500})).await;
    world.create("acme", "enterprise", BillingMode::Manual).await;
    let status = world.wait_phase("acme", Phase::Active).await;
    let namespace = status.namespace.expect("a namespace");
    let pinecone = world.sandbox_get("/_sandbox/pinecone").await;
    assert_eq!(pinecone["namespaces"][&namespace], 2);
    let started = status.provisioning.expect("a start").started_at;
    assert!(status.provisioned_at.expect("an end").since(started) >= 1, "Active before the samples could be seen");
    assert_eq!(status.quota.expect("a quota").queries_limit, 5_000_000);
    assert_eq!(status.config.expect("a config").models.chat, "gpt-4o-mini");
    world.wait_true("acme", "WelcomeEmailSent").await;
    world.assert_transitions("acme").await;
}

#[tokio::test]
async fn temporary_failures_are_retried_and_counted() {
    let mut world = World::without_controller("retry").await;
    world.controller_args(&["--provider-retries=1"]);
    world.start_controller();
    // Two rounds of two quick tries each fail; the third attempt succeeds.
    world
        .fault(json!({"provider": "pinecone", "method": "POST", "path": "/namespaces", "status": 500, "times": 4}))
        .await;
    world.create("acme", "enterprise", BillingMode::Manual).await;
    let retrying = world.wait("acme", "retrying", |s| s.provisioning.as_ref().is_some_and(|p| p.attempts == 1)).await;
    let p = retrying.provisioning.expect("attempts");
    assert!(p.next_retry_at.is_some());
    assert_eq!((p.failed_step.as_deref(), p.reason.as_deref()), (Some("Namespace"), Some("PineconeProviderError")));
    let status = world.wait_phase("acme", Phase::Active).await;
    assert_eq!(status.provisioning.expect("attempts").attempts, 2);
    world.assert_transitions("acme").await;
}

#[tokio::test]
async fn how_often_is_tried_can_be_set() {
    let mut world = World::without_controller("no-retry").await;
    world.controller_args(&["--provider-retries=0", "--retry-waits=1"]);
    world.start_controller();
    world.fault(json!({"provider": "pinecone", "path": "/vectors/upsert", "status": 500, "times": 2})).await;
    world.create("acme", "enterprise", BillingMode::Manual).await;
    let status = world.wait_phase("acme", Phase::Failed).await;
    assert_eq!(status.provisioning.expect("attempts").attempts, 2, "one retry, and no quick ones inside a call");
}

#[tokio::test]
async fn odd_answers_are_survived() {
    let world = World::start("odd").await;
    for fault in [
        json!({"provider": "pinecone", "path": "/vectors/upsert", "status": 429, "retry_after": 1}),
        json!({"provider": "pinecone", "path": "/vectors/upsert", "drop_after_effect": true}),
        json!({"provider": "pinecone", "method": "POST", "path": "/namespaces", "drop_after_effect": true}),
        json!({"provider": "openai", "path": "/v1/embeddings", "status": 200, "body": "<html>maintenance</html>"}),
        json!({"provider": "stripe", "method": "POST", "path": "/v1/customers", "drop_after_effect": true}),
        json!({"provider": "stripe", "method": "POST", "path": "/v1/checkout", "drop_after_effect": true}),
    ] {
        world.fault(fault).await;
    }
    world.create("acme", "starter", BillingMode::Stripe).await;
    world.pay("acme").await;
    world.wait_phase("acme", Phase::Active).await;
    world.assert_one_of_each("acme").await;
}

#[tokio::test]
async fn a_provider_that_never_answers_is_given_up_for_the_attempt() {
    let mut world = World::without_controller("silent").await;
    world.controller_args(&["--provider-timeout-ms=500"]);
    world.start_controller();
    world.fault(json!({"provider": "openai", "path": "/v1/embeddings", "delay_ms": 60_000, "times": 3})).await;
    world.create("acme", "enterprise", BillingMode::Manual).await;
    let status = world.wait_phase("acme", Phase::Active).await;
    assert_eq!(status.provisioning.expect("attempts").reason.as_deref(), Some("OpenAITimeout"));
}

#[tokio::test]
async fn a_payment_is_refunded_once_and_a_retry_starts_over() {
    let world = World::start("refund").await;
    world.fault(json!({"provider": "pinecone", "path": "/vectors/upsert", "status": 500, "times": 1000})).await;
    world.create("acme", "paid", BillingMode::Stripe).await;
    world.pay("acme").await;
    let status = world.wait_phase("acme", Phase::Failed).await;
    let p = status.provisioning.expect("attempts");
    assert_eq!((p.attempts, p.failed_step.as_deref()), (4, Some("SampleData")));
    let status = world.wait("acme", "refunded", |s| s.refund.is_some()).await;
    assert_eq!(status.refund.expect("a refund").amount, 4900);
    world.wait_true("acme", "Refunded").await;
    while world.mails("failed-mail").await == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let alerts = world.sandbox_get("/_sandbox/alerts").await;
    assert!(alerts.to_string().contains("Provisioning of tenant"), "{alerts}");
    let stripe = world.sandbox_get("/_sandbox/state").await;
    assert_eq!(stripe["refund"].as_array().map(Vec::len), Some(1));
    assert!(stripe["subscription"][0]["pause_collection"].is_object(), "{stripe}");

    world.clear_faults().await;
    world.annotate("acme", RETRY_ANNOTATION, "again").await;
    world.wait_phase("acme", Phase::Active).await;
    let stripe = world.sandbox_get("/_sandbox/state").await;
    assert!(stripe["subscription"][0]["pause_collection"].is_null(), "{stripe}");
    assert_eq!(stripe["refund"].as_array().map(Vec::len), Some(1));
    // Who got the money back has paid for nothing: a new period began, and was charged.
    let paid: Vec<_> = stripe["invoice"].as_array().into_iter().flatten().map(|i| i["amount_paid"].clone()).collect();
    assert_eq!(paid, [4900, 4900], "{stripe}");
    for kind in ["customer", "subscription"] {
        assert_eq!(stripe[kind].as_array().map(Vec::len), Some(1), "{kind}: {stripe}");
    }
    assert_eq!(world.sandbox_get("/_sandbox/pinecone").await["created"], 1);
    world.assert_transitions("acme").await;
}

#[tokio::test]
async fn a_card_that_is_declined_after_a_refund_is_served_nothing_and_charged_nothing() {
    let world = World::start("refund-declined").await;
    world.fault(json!({"provider": "pinecone", "path": "/vectors/upsert", "status": 400, "times": 1})).await;
    world.create("acme", "paid", BillingMode::Stripe).await;
    world.pay("acme").await;
    world.wait_true("acme", "Refunded").await;
    let method = world.sandbox_get("/_sandbox/state").await["payment_method"][0]["id"].clone();
    world.sandbox_post("/_sandbox/decline", json!({"payment_method": method})).await;
    world.annotate("acme", RETRY_ANNOTATION, "again").await;
    let again = |s: &TenantStatus| s.transitions.len() > 4 && s.phase == Some(Phase::Failed) && s.refund.is_some();
    let status = world.wait("acme", "Failed again", again).await;
    let run = status.provisioning.expect("attempts");
    assert_eq!((run.failed_step.as_deref(), run.attempts), (Some("Billing"), 1));
    let stripe = world.sandbox_get("/_sandbox/state").await;
    assert!(stripe["subscription"][0]["pause_collection"].is_object(), "{stripe}");
    assert_eq!(stripe["invoice"].as_array().map(Vec::len), Some(1), "{stripe}");
    world.sandbox_post("/_sandbox/decline", json!({"payment_method": method, "declined": false})).await;
    world.annotate("acme", RETRY_ANNOTATION, "once more").await;
    world.wait_phase("acme", Phase::Active).await;
    assert_eq!(world.sandbox_get("/_sandbox/state").await["refund"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn a_trial_has_nothing_to_refund_and_says_so() {
    let mut world = World::without_controller("trial").await;
    world.controller_args(&["--hold-limit=1", "--hold-retry=1"]);
    world.start_controller();
    world.fault(json!({"provider": "openai", "path": "/v1/embeddings", "status": 401, "times": 1000})).await;
    world.create("acme", "starter", BillingMode::Stripe).await;
    world.pay("acme").await;
    let status = world.wait_phase("acme", Phase::Failed).await;
    assert_eq!(
        status.provisioning.expect("attempts").attempts,
        0,
        "a refused key is not the customer's failed attempt"
    );
    let status = world.wait_true("acme", "Refunded").await;
    let refunded = status.conditions.iter().find(|c| c.type_ == "Refunded").expect("the condition");
    assert_eq!(refunded.reason, "NothingPaid");
    let before = status.transitions.len();

    let retry = || {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_kubectl-tenant"));
        command.args(["retry", "acme", "--namespace", &world.namespace]);
        command.arg("--kubeconfig").arg(&control_plane().kubeconfig);
        command
    };
    assert!(retry().status().await.expect("it runs").success());
    let again = |s: &TenantStatus| s.phase == Some(Phase::Failed) && s.transitions.len() == before + 2;
    world.wait("acme", "failed again", again).await;
    world.annotate("acme", "example.com/unrelated", "1").await;
    world.assert_transitions("acme").await;
    let missing = retry().arg("--context=none").output().await.expect("it runs");
    assert_eq!(missing.status.code(), Some(1));
}

#[tokio::test]
async fn a_welcome_that_cannot_be_sent_alerts_and_never_fails_the_tenant() {
    let world = World::start("welcome").await;
    world.fault(json!({"provider": "smtp", "status": 451, "times": 1000})).await;
    world.create("acme", "enterprise", BillingMode::Manual).await;
    let unsent =
        |s: &TenantStatus| get(&s.conditions, "WelcomeEmailSent").is_some_and(|c| c.status == ConditionStatus::False);
    let status = world.wait("acme", "without a welcome", unsent).await;
    assert_eq!(status.phase, Some(Phase::Active));
    assert!(is_true(&status.conditions, "Ready"), "{status:#?}");
    assert_eq!(get(&status.conditions, "WelcomeEmailSent").expect("there").reason, "MailUnreachable");
    let alerted = async || world.sandbox_get("/_sandbox/alerts").await.to_string().contains("welcome e-mail");
    world.until("the platform team is told of the welcome", alerted).await;
    world.clear_faults().await;
    world.wait_true("acme", "WelcomeEmailSent").await;
    let alerts = world.sandbox_get("/_sandbox/alerts").await;
    assert_eq!(alerts.as_array().map(Vec::len), Some(1), "{alerts}");
    assert_eq!(world.mails("welcome").await, 1);
    world.wait_event("acme", "MailUnreachable").await;
}

#[tokio::test]
async fn a_tenant_that_has_paid_and_is_not_active_in_time_is_shown_as_slow() {
    let mut world = World::without_controller("slow").await;
    world.controller_args(&["--slow-after=2", "--retry-waits=1,6,1"]);
    world.start_controller();
    // Two attempts of three quick tries each fail; the wait after the second outlasts the limit.
    world.fault(json!({"provider": "pinecone", "path": "/vectors/upsert", "status": 500, "times": 6})).await;
    world.create("acme", "paid", BillingMode::Stripe).await;
    world.pay("acme").await;
    let status = world.wait_true("acme", "Slow").await;
    assert_eq!(status.phase, Some(Phase::Provisioning), "slow is said long before Failed");
    let alerts = world.sandbox_get("/_sandbox/alerts").await;
    assert!(alerts.to_string().contains("still not Active"), "{alerts}");
    let status = world.wait_phase("acme", Phase::Active).await;
    assert!(!is_true(&status.conditions, "Slow"), "{status:#?}");
    world.wait_event("acme", "SlowProvisioning").await;
    let alerts = world.sandbox_get("/_sandbox/alerts").await;
    assert_eq!(alerts.as_array().map(Vec::len), Some(1), "{alerts}");
    world.assert_one_of_each("acme").await;
}
