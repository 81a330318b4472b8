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
    let nobody = tenant(&["why", "nobody", "-n", ns]).await;
    assert!(!nobody.status.success() && said(&nobody).contains("\"nobody\" not found"), "{}", said(&nobody));
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
