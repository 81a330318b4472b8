//! What the on-call asks `kubectl tenant`.

use std::process::Output;

use serde_json::json;
use tenant_operator::api::Phase;
use tenant_operator::api::conditions::{READY, get};
use tenant_operator::api::tenant::BillingMode;
use tokio::process::Command;

use crate::support::{BINARY, World, control_plane, said};

async fn tenant(args: &[&str]) -> Output {
    let mut command = Command::new(BINARY);
    command.args(args).arg("--kubeconfig").arg(&control_plane().kubeconfig);
    command.output().await.expect("it runs")
}

#[tokio::test]
async fn why_says_what_the_conditions_say_and_what_to_do() {
    let world = World::start("why").await;
    let ns = world.namespace.as_str();
    world.create("acme", "paid", BillingMode::Stripe).await;
    let status = world.wait("acme", "given a link", |s| s.checkout.is_some()).await;
    let why = tenant(&["why", "acme", "-n", ns]).await;
    assert_eq!(why.status.code(), Some(1), "not Ready");
    let text = said(&why);
    assert!(text.starts_with(&format!("acme is PendingPayment: {}", status.message.expect("a message"))), "{text}");
    assert!(text.contains("Reason: AwaitingPayment") && text.contains("Fix: Nothing: the customer pays"), "{text}");
    let open = tenant(&["open", "acme", "-n", ns]).await;
    assert_eq!(said(&open).trim(), status.checkout.expect("a link").url);

    world.fault(json!({"provider": "pinecone", "method": "POST", "path": "/namespaces", "status": 400})).await;
    world.pay("acme").await;
    let status = world.wait("acme", "Failed", |s| s.phase == Some(Phase::Failed)).await;
    let text = said(&tenant(&["why", "acme", "-n", ns]).await);
    let ready = get(&status.conditions, READY).expect("Ready");
    for part in
        [&*ready.message, &*ready.reason, "Fix the cause, then run `kubectl tenant retry`", "the last at Namespace"]
    {
        assert!(text.contains(part), "{part:?} is missing in: {text}");
    }
    assert_eq!(said(&tenant(&["open", "acme", "-n", ns]).await).trim(), "http://localhost:8080");

    assert!(tenant(&["retry", "acme", "-n", ns]).await.status.success());
    world.wait("acme", "Active", |s| s.phase == Some(Phase::Active)).await;
    let why = tenant(&["why", "acme", "-n", ns]).await;
    assert!(why.status.success() && said(&why).contains("Fix: Nothing to do"), "{}", said(&why));
    let unknown = tenant(&["why", "unknown", "-n", ns]).await;
    assert!(!unknown.status.success() && said(&unknown).contains("there is no Tenant unknown here"), "{}", said(&unknown));
}

#[tokio::test]
async fn list_shows_what_each_waits_for_and_can_be_narrowed() {
    let world = World::start("list").await;
    let ns = world.namespace.as_str();
    world.create("waits", "paid", BillingMode::Stripe).await;
    world.wait("waits", "given a link", |s| s.checkout.is_some()).await;
    world.create("works", "paid", BillingMode::Stripe).await;
    world.pay("works").await;
    world.wait("works", "Active", |s| s.phase == Some(Phase::Active)).await;
    let list = async |more: &[&str]| said(&tenant(&[&["list", "-n", ns], more].concat()).await);
    let all = list(&[]).await;
    assert!(all.contains("AwaitingPayment") && all.contains("The tenant is ready for use"), "{all}");
    let active = list(&["--phase", "Active"]).await;
    assert!(active.contains("works") && !active.contains("waits"), "{active}");
    let not_ready = list(&["--not-ready"]).await;
    assert!(not_ready.contains("waits") && !not_ready.contains("works"), "{not_ready}");
    assert!(list(&["--phase", "Activ"]).await.contains("Activ is not a phase"));
    let completions = said(&tenant(&["completions", "bash"]).await);
    assert!(completions.contains("preflight") && completions.contains("complete -F"), "{completions}");
}

#[tokio::test]
async fn describe_shows_everything_on_one_screen() {
    let world = World::with_active("describe").await;
    let ns = world.namespace.as_str();
    world.wait_event("acme", "Active").await;
    let text = said(&tenant(&["describe", "acme", "-n", ns]).await);
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let object = world.tenants().get("acme").await.expect("it is there");
    let stripe = object.spec.billing.stripe.clone().expect("ids");
    for part in [
        object.tenant_id(),
        &stripe.customer_id.expect("a customer"),
        &stripe.subscription_id.expect("a subscription"),
        "The tenant is ready for use",
        "1000 documents,",
        "acme-api-key",
        "SampleDataReady",
        "PendingPayment Provisioning",
        "Events",
    ] {
        assert!(words.contains(part), "{part:?} is missing in: {text}");
    }
    assert!(!text.contains("sk_live_"), "no key is shown");
}

/// The level changes from inside the pod, for a while, and in this pod alone.
#[tokio::test]
async fn the_log_level_changes_for_a_while() {
    let mut world = World::start("log-level").await;
    world.start_web(&[]);
    let url = world.web_metrics.replace("/metrics", "");
    let level = async |more: &[&str]| tenant_alone(&[&["log-level", "--url", &url], more].concat()).await;
    let before = said(&level(&[]).await);
    assert!(before.contains("tenant_operator=info"), "{before}");
    let changed = level(&["debug", "--seconds", "2"]).await;
    assert!(changed.status.success() && said(&changed).contains("tenant_operator=debug"), "{}", said(&changed));
    // Changed again: the first level comes back, not the second.
    let changed = said(&level(&["trace", "--seconds", "2"]).await);
    assert!(changed.contains("tenant_operator=trace") && changed.contains("warn"), "{changed}");
    world.until("the level is as it was", async || said(&level(&[]).await) == before).await;
    for (body, seconds) in
        [("tenant_operator=trace,hyper=trace", "5"), ("debug", "0"), ("debug", "99999999"), ("", "5")]
    {
        let put =
            world.http.put(format!("{url}/log-level?seconds={seconds}")).body(body).send().await.expect("it answers");
        assert_eq!(put.status(), 400, "{body} {seconds}");
    }
    assert_eq!(said(&level(&[]).await), before);
    let public = world.http.get(format!("{}/log-level", world.web)).send().await.expect("it answers");
    assert_eq!(public.status(), 404, "not where the internet is");
}

async fn tenant_alone(args: &[&str]) -> Output {
    Command::new(BINARY).args(args).output().await.expect("it runs")
}

#[tokio::test]
async fn audit_counts_the_tenants_and_finds_what_is_odd() {
    let world = World::with_active("audit").await;
    let ns = world.namespace.as_str();
    let sound = tenant(&["audit", "-n", ns, "-o", "json"]).await;
    let facts: serde_json::Value = serde_json::from_slice(&sound.stdout).expect("JSON");
    assert_eq!((sound.status.code(), &facts), (Some(0), &json!({"phases": {"Active": 1}, "findings": []})));
    // An admin edits the record while no controller runs that would rebuild it.
    let mut world = world;
    world.controllers.clear();
    let mut object = world.tenants().get("acme").await.expect("there");
    object.status.as_mut().expect("a status").transitions.remove(1);
    world.tenants().replace_status("acme", &Default::default(), &object).await.expect("written");
    let odd = tenant(&["audit", "-n", &world.namespace]).await;
    let text = said(&odd);
    assert!(odd.status.code() == Some(1) && text.contains("MissingTransition") && text.contains("acme"), "{text}");
}
