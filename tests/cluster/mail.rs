//! What a mail server refuses, at each stage of the conversation: for a while, for good, or for every e-mail.

use kube::api::{Patch, PatchParams};
use serde_json::json;
use tenant_operator::api::conditions::get;
use tenant_operator::api::tenant::BillingMode;
use tenant_operator::api::{ConditionStatus, Phase, TenantStatus};

use crate::support::{Process, World};

const STAGES: [&str; 6] = ["CONNECT", "EHLO", "MAIL", "RCPT", "DATA", "BODY"];

fn welcome(reason: &'static str) -> impl Fn(&TenantStatus) -> bool {
    move |s| {
        get(&s.conditions, "WelcomeEmailSent").is_some_and(|c| c.status == ConditionStatus::False && c.reason == reason)
    }
}

#[tokio::test]
async fn a_mail_server_that_defers_at_any_stage_gets_each_email_once() {
    let world = World::start("mail-later").await;
    for stage in STAGES {
        world.fault(json!({"provider": "smtp", "method": stage, "status": 451, "times": 2})).await;
        let name = format!("at-{}", stage.to_lowercase());
        world.create(&name, "enterprise", BillingMode::Manual).await;
        world.wait_true(&name, "WelcomeEmailSent").await;
        let mails = world.sandbox_get("/_sandbox/mails").await;
        let ours = |mail: &&serde_json::Value| mail["to"] == format!("{name}@example.com");
        assert_eq!(mails.as_array().expect("a list").iter().filter(ours).count(), 1, "{stage}");
    }
}

#[tokio::test]
async fn an_address_that_is_refused_is_not_tried_again_at_once_and_a_refused_server_is() {
    let mut world = World::without_controller("mail-refused").await;
    world.controller_args(&["--resync=600"]);
    world.start_controller();
    for stage in ["RCPT", "BODY"] {
        world.fault(json!({"provider": "smtp", "method": stage, "status": 550})).await;
        let name = format!("no-{}", stage.to_lowercase());
        world.create(&name, "enterprise", BillingMode::Manual).await;
        world.wait(&name, "refused", welcome("MailRefused")).await;
    }
    for stage in ["CONNECT", "EHLO"] {
        world.fault(json!({"provider": "smtp", "method": stage, "status": 554, "times": 4})).await;
        let name = format!("late-{}", stage.to_lowercase());
        world.create(&name, "enterprise", BillingMode::Manual).await;
        world.wait_true(&name, "WelcomeEmailSent").await;
    }
    for name in ["no-rcpt", "no-body"] {
        assert!(welcome("MailRefused")(&world.status(name).await), "{name} was tried again");
    }
}

#[tokio::test]
async fn a_login_that_is_missing_is_the_operators_to_fix_and_no_email_is_lost() {
    let world = World::start("mail-login").await;
    world.sandbox_post("/_sandbox/smtp", json!({"login": "someone:secret"})).await;
    world.create("acme", "enterprise", BillingMode::Manual).await;
    let status = world.wait("acme", "told", welcome("MailServerRefused")).await;
    assert_eq!(status.phase, Some(Phase::Active));
    let alerts = world.sandbox_get("/_sandbox/alerts").await.to_string();
    assert!(alerts.contains("Correct SMTP_URL") && alerts.contains("E-mails wait"), "{alerts}");
    world.sandbox_post("/_sandbox/smtp", json!({})).await;
    world.wait_true("acme", "WelcomeEmailSent").await;
}

/// While the mail server is away, everything else of a tenant goes on.
#[tokio::test]
async fn a_welcome_that_fails_keeps_no_replaced_key_out_of_force_and_no_late_payment_out_of_sight() {
    let mut world = World::start("mail-hides").await;
    let namespace = world.namespace.clone();
    world.environment("WATCH_NAMESPACE", &namespace);
    world.start_web(&[]);
    world.fault(json!({"provider": "smtp", "status": 451, "times": 100_000})).await;
    world.create("acme", "starter", BillingMode::Stripe).await;
    let link = world.wait("acme", "given a link", |s| s.checkout.is_some()).await.checkout.expect("a link").url;
    // A card that is declined after the trial.
    let paid = world.http.post(link).form(&[("card", "4000000000000341")]).send().await.expect("the page answers");
    assert_eq!(paid.status(), 303);
    world.wait("acme", "not welcomed", welcome("MailUnreachable")).await;
    let usage = async |key: &str| {
        let asked = world.http.get(format!("{}/v1/usage", world.web)).bearer_auth(key).send().await;
        asked.expect("it answers").status().as_u16()
    };
    let leaked = world.api_key("acme").await;
    world.until("web knows the tenant", async || usage(&leaked).await == 200).await;
    let raise = Patch::Merge(json!({"spec": {"apiKeyGeneration": 3}}));
    world.tenants().patch("acme", &PatchParams::default(), &raise).await.expect("patched");
    world.wait("acme", "of the third generation", |s| s.api_key_generation == Some(3)).await;
    world.until("the leaked key is refused", async || usage(&leaked).await == 401).await;
    assert_eq!(usage(&world.api_key("acme").await).await, 200);
    // A payment that fails is seen as well.
    world.sandbox_post("/_sandbox/clock", json!({"advance_seconds": 15 * 24 * 3600})).await;
    let late = |s: &TenantStatus| get(&s.conditions, "PaymentReceived").is_some_and(|c| c.reason == "PaymentPastDue");
    world.wait("acme", "late with its payment", late).await;
    assert!(welcome("MailUnreachable")(&world.status("acme").await));
}

/// A new `spec.apiKeyGeneration` revokes keys without a controller and before the status shows it.
#[tokio::test]
async fn a_key_that_is_replaced_twice_while_no_controller_runs_is_refused_by_every_replica_of_web() {
    let mut world = World::start("key-alone").await;
    let namespace = world.namespace.clone();
    world.environment("WATCH_NAMESPACE", &namespace);
    world.start_web(&[]);
    let first = world.web.clone();
    world.start_web(&[]);
    let replicas = [first, world.web.clone()];
    world.create("acme", "enterprise", BillingMode::Manual).await;
    world.wait_phase("acme", Phase::Active).await;
    let leaked = world.api_key("acme").await;
    let usage = async |web: &str| {
        let asked = world.http.get(format!("{web}/v1/usage")).bearer_auth(&leaked).send().await;
        asked.expect("it answers").status().as_u16()
    };
    for web in &replicas {
        world.until("web knows the tenant", async || usage(web).await == 200).await;
    }
    world.controllers.drain(..).for_each(Process::kill);
    let replace = async |generation: u32| {
        let raise = Patch::Merge(json!({"spec": {"apiKeyGeneration": generation}}));
        world.tenants().patch("acme", &PatchParams::default(), &raise).await.expect("patched");
    };
    replace(2).await;
    for web in &replicas {
        assert_eq!(usage(web).await, 200, "replaced once: the customer has no other key yet");
    }
    replace(3).await;
    for web in &replicas {
        world.until("the leaked key is refused", async || usage(web).await == 401).await;
    }
    assert_eq!(world.status("acme").await.api_key_generation, Some(1), "no controller has seen it");
}
