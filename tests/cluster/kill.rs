//! The real process, killed in the middle of each step, and two of them at once.

use std::time::Duration;

use serde_json::{Value, json};
use tenant_operator::api::Phase;
use tenant_operator::api::tenant::BillingMode;

use crate::support::World;

/// Holds a provider's call, kills the controller while it waits, and starts another.
async fn killed_at(name: &str, provider: &str, method: &str, path: &str, paid: bool) {
    let mut world = World::start(name).await;
    let hold = json!({"provider": provider, "method": method, "path": path, "delay_ms": 2500});
    if !paid {
        world.fault(hold.clone()).await;
    }
    world.create("acme", "paid", BillingMode::Stripe).await;
    if paid {
        world.wait("acme", "waiting", |s| s.checkout.is_some()).await;
        world.fault(hold).await;
        world.pay("acme").await;
    }
    let calls = |log: &Value| {
        let all = log.as_array().into_iter().flatten();
        all.filter(|r| r["provider"] == provider && r["method"] == method)
            .any(|r| r["path"].as_str().is_some_and(|p| p.starts_with(path)))
    };
    while !calls(&world.sandbox_get("/_sandbox/requests").await) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    world.controllers.remove(0).kill();
    world.start_controller();
    if !paid {
        world.pay("acme").await;
    }
    world.wait_phase("acme", Phase::Active).await;
    world.assert_one_of_each("acme").await;
}

#[tokio::test]
async fn killed_while_the_customer_is_made() {
    killed_at("kill-customer", "stripe", "POST", "/v1/customers", false).await;
}

#[tokio::test]
async fn killed_while_the_checkout_session_is_made() {
    killed_at("kill-checkout", "stripe", "POST", "/v1/checkout/sessions", false).await;
}

#[tokio::test]
async fn killed_while_the_namespace_is_made() {
    killed_at("kill-namespace", "pinecone", "POST", "/namespaces", true).await;
}

#[tokio::test]
async fn killed_while_samples_are_embedded() {
    killed_at("kill-embed", "openai", "POST", "/v1/embeddings", true).await;
}

#[tokio::test]
async fn killed_while_samples_are_stored() {
    killed_at("kill-upsert", "pinecone", "POST", "/vectors/upsert", true).await;
}

#[tokio::test]
async fn killed_while_samples_are_looked_for() {
    killed_at("kill-query", "pinecone", "POST", "/query", true).await;
}

#[tokio::test]
async fn two_controllers_started_by_mistake_do_the_work_of_one() {
    let mut world = World::start("two").await;
    world.start_controller();
    world.create("acme", "paid", BillingMode::Stripe).await;
    world.pay("acme").await;
    world.wait_phase("acme", Phase::Active).await;
    world.assert_one_of_each("acme").await;
    // The other takes over when the leader dies, whichever of them leads.
    world.controllers.remove(0).kill();
    let before = world.api_key("acme").await;
    world.secrets().delete("acme-api-key", &Default::default()).await.expect("deleted");
    while world.secrets().get_opt("acme-api-key").await.expect("the API answers").is_none() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(world.api_key("acme").await, before);
}
