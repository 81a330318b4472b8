//! The controller replaces an expired payment link when the customer or an admin asks for it, and not each day.

use serde_json::Value;
use tenant_operator::api::tenant::BillingMode;
use tenant_operator::api::{Phase, TenantStatus};
use tenant_operator::lifecycle::link_on_request;

use crate::support::{Visitor, World, said};

async fn sessions(world: &World) -> Vec<Value> {
    let stripe = world.sandbox_get("/_sandbox/state").await;
    stripe["checkout.session"].as_array().cloned().unwrap_or_default()
}

/// Lets the open link expire, as after its 24 hours.
async fn expire(world: &World) {
    for session in sessions(world).await.iter().filter(|s| s["status"] == "open") {
        let id = session["id"].as_str().expect("an id");
        let url = format!("{}/v1/checkout/sessions/{id}/expire", world.sandbox.stripe_url);
        let answer = world.http.post(url).bearer_auth("sk_test_x").send().await.expect("it answers");
        assert!(answer.status().is_success());
    }
}

/// Says what `kubectl tenant open` prints.
async fn open(world: &World, name: &str) -> String {
    let mut command = tokio::process::Command::from(world.command("open"));
    let output = command.args([name, "--namespace", &world.namespace]).output().await.expect("it runs");
    assert!(output.status.success(), "{}", said(&output));
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_gets_a_link_for_a_tenant_that_was_not_paid_for_in_time() {
    let mut world = World::without_controller("link-admin").await;
    world.controller_args(&["--signup-ttl=0", "--link-renewal=0", "--full-resync=1"]);
    world.start_controller();
    world.create("acme", "paid", BillingMode::Stripe).await;
    let first = world.wait("acme", "given a link", |s| s.checkout.is_some()).await.checkout.expect("a link").url;
    assert_eq!(open(&world, "acme").await, first, "while it is open, it is the one");
    expire(&world).await;
    world.wait("acme", "without a link", link_on_request).await;
    world.wait_for_reads("/v1/subscriptions", 3).await;
    assert_eq!(sessions(&world).await.len(), 1, "the controller makes no link without a request");
    assert!(link_on_request(&world.status("acme").await));
    let second = open(&world, "acme").await;
    assert_ne!(second, first);
    assert_eq!(open(&world, "acme").await, second, "asked again, it is the same");
    assert_eq!(sessions(&world).await.len(), 2);
    expire(&world).await;
    world.wait("acme", "without a link", link_on_request).await;
    assert_eq!(sessions(&world).await.len(), 2, "the request was answered");
    open(&world, "acme").await;
    world.pay("acme").await;
    world.wait_phase("acme", Phase::Active).await;
    let subscriptions = world.sandbox_get("/_sandbox/state").await["subscription"].clone();
    let id = subscriptions[0]["id"].as_str().expect("an id").to_owned();
    let url = format!("{}/v1/subscriptions/{id}", world.sandbox.stripe_url);
    assert!(world.http.delete(url).bearer_auth("sk_test_x").send().await.expect("it answers").status().is_success());
    let ended = |s: &TenantStatus| s.phase == Some(Phase::Suspended) && link_on_request(s);
    world.wait("acme", "suspended without a link", ended).await;
    assert_eq!(sessions(&world).await.len(), 3, "an ended subscription costs no session");
    open(&world, "acme").await;
    world.pay("acme").await;
    world.wait_phase("acme", Phase::Active).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customer_whose_subscription_has_ended_asks_for_the_link_on_the_page() {
    let world = World::with_portal("link-page", &["--link-renewal=0"]).await;
    let mut ada = Visitor::new(&world);
    let name = ada.sign_up("ada@example.com", "Analytical Engines").await;
    world.pay(&name).await;
    world.wait_true(&name, "WelcomeEmailSent").await;
    let subscriptions = world.sandbox_get("/_sandbox/state").await["subscription"].clone();
    let url =
        format!("{}/v1/subscriptions/{}", world.sandbox.stripe_url, subscriptions[0]["id"].as_str().expect("an id"));
    assert!(world.http.delete(url).bearer_auth("sk_test_x").send().await.expect("it answers").status().is_success());
    world.wait(&name, "without a link", |s| s.phase == Some(Phase::Suspended) && link_on_request(s)).await;
    assert_eq!(sessions(&world).await.len(), 1, "the one that was paid at");
    let (_, page) = ada.get("/account").await;
    assert!(page.contains("Subscribe again</button>") && !page.contains("id=\"pay\""), "{page}");
    let csrf = ada.csrf("/account").await;
    assert_eq!(ada.post("/account/pay", &[("csrf", &csrf)]).await.0, 303);
    let (_, page) = ada.get("/account").await;
    let link = world.status(&name).await.checkout.expect("a link").session_id;
    assert!(page.contains("id=\"pay\"") && page.contains(&link), "{page}");
    assert_eq!(ada.post("/account/pay", &[("csrf", &csrf)]).await.0, 303, "asked again, nothing is made");
    assert_eq!(sessions(&world).await.len(), 2);
    world.pay(&name).await;
    world.wait_phase(&name, Phase::Active).await;
}
