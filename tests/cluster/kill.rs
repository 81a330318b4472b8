//! The real process, killed in the middle of each step, and two of them at once.

use std::time::Duration;

use futures::StreamExt;
use kube::runtime::watcher::watch_object;
use serde_json::{Value, json};
use tenant_operator::api::tenant::BillingMode;
use tenant_operator::api::{Phase, Tenant};

use crate::support::World;

/// Waits until a provider was called.
async fn called(world: &World, provider: &str, method: &str, path: &str) {
    let ours = |r: &Value| {
        let there = r["path"].as_str().is_some_and(|p| p.starts_with(path));
        there && r["provider"] == provider && r["method"] == method
    };
    while world.calls(ours).await == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

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
    called(&world, provider, method, path).await;
    world.replace_controller();
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
async fn killed_while_the_welcome_is_sent() {
    killed_at("kill-welcome", "smtp", "DATA", "acme@example.com", true).await;
}

/// Kills the controller as soon as the tenant is as wanted, and starts another.
async fn killed_when(name: &str, wanted: impl Fn(&Tenant) -> bool) {
    let mut world = World::start(name).await;
    // Long enough for Provisioning to be a write of its own.
    world.fault(json!({"provider": "pinecone", "path": "/vectors/upsert", "delay_ms": 2500, "times": 1})).await;
    world.create("acme", "paid", BillingMode::Stripe).await;
    let mut changes = watch_object(world.tenants(), "acme").boxed();
    let (mut killed, mut paid) = (false, false);
    while let Some(change) = changes.next().await {
        let Ok(Some(tenant)) = change else { continue };
        if !killed && wanted(&tenant) {
            world.replace_controller();
            killed = true;
        }
        let status = tenant.status.clone().unwrap_or_default();
        if status.checkout.is_some() && !paid {
            world.pay("acme").await;
            paid = true;
        }
        if status.phase == Some(Phase::Active) && killed {
            break;
        }
    }
    assert!(killed && paid);
    world.assert_one_of_each("acme").await;
}

fn phase(tenant: &Tenant) -> Option<Phase> {
    tenant.status.as_ref()?.phase
}

#[tokio::test]
async fn killed_once_the_identity_is_written() {
    killed_when("kill-identity", |t| t.spec.tenant_id.is_some()).await;
}

#[tokio::test]
async fn killed_once_the_link_is_written() {
    killed_when("kill-link", |t| t.status.as_ref().is_some_and(|s| s.checkout.is_some())).await;
}

#[tokio::test]
async fn killed_once_the_stripe_ids_are_written() {
    killed_when("kill-ids", |t| t.spec.billing.stripe.as_ref().is_some_and(|s| s.subscription_id.is_some())).await;
}

#[tokio::test]
async fn killed_once_provisioning_has_begun() {
    killed_when("kill-begun", |t| phase(t) == Some(Phase::Provisioning)).await;
}

#[tokio::test]
async fn killed_once_active() {
    killed_when("kill-active", |t| phase(t) == Some(Phase::Active)).await;
}

#[tokio::test]
async fn killed_while_the_money_is_given_back() {
    let mut world = World::start("kill-refund").await;
    world.fault(json!({"provider": "pinecone", "path": "/vectors/upsert", "status": 400, "times": 1000})).await;
    world.fault(json!({"provider": "stripe", "method": "POST", "path": "/v1/refunds", "delay_ms": 2500})).await;
    world.create("acme", "paid", BillingMode::Stripe).await;
    world.pay("acme").await;
    called(&world, "stripe", "POST", "/v1/refunds").await;
    world.replace_controller();
    let status = world.wait_true("acme", "Refunded").await;
    assert_eq!(status.refund.expect("a refund").amount, 4900);
    let stripe = world.sandbox_get("/_sandbox/state").await;
    assert_eq!(stripe["refund"].as_array().map(Vec::len), Some(1), "{stripe}");
    world.assert_transitions("acme").await;
}

/// Their reconciles all begin before the caches of plans and Secrets have filled.
#[tokio::test]
async fn tenants_that_were_there_before_the_controller_are_all_served() {
    let mut world = World::without_controller("before").await;
    let names: Vec<_> = (0..20).map(|i| format!("acme-{i}")).collect();
    for name in &names {
        world.create(name, "enterprise", BillingMode::Manual).await;
    }
    world.start_controller();
    for name in &names {
        world.wait_phase(name, Phase::Active).await;
    }
    // And again, with everything made.
    world.controllers.remove(0).kill();
    for name in &names {
        world.secrets().delete(&format!("{name}-api-key"), &Default::default()).await.expect("deleted");
    }
    world.start_controller();
    for name in &names {
        world.wait_secret(&format!("{name}-api-key"), |_| true).await;
    }
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

/// A leader that froze for longer than its lease lasts wakes up in the middle of an effect.
#[tokio::test]
async fn a_leader_that_froze_ends_and_does_nothing_more_once_another_leads() {
    let mut world = World::start("frozen").await;
    world.create("acme", "paid", BillingMode::Stripe).await;
    world.wait("acme", "waiting", |s| s.checkout.is_some()).await;
    world.fault(json!({"provider": "pinecone", "method": "POST", "path": "/namespaces", "delay_ms": 1500})).await;
    world.pay("acme").await;
    called(&world, "pinecone", "POST", "/namespaces").await;
    world.controllers[0].signal("STOP");
    world.start_controller();
    world.wait_true("acme", "WelcomeEmailSent").await;
    let before = world.tenants().get("acme").await.expect("the tenant").metadata.resource_version;
    world.controllers[0].signal("CONT");
    assert_eq!(world.controllers[0].exit_code().await, Some(1), "it says that it lost the lease");
    let after = world.tenants().get("acme").await.expect("the tenant").metadata.resource_version;
    assert_eq!(before, after, "nothing was written over what its successor did");
    world.assert_one_of_each("acme").await;
}
