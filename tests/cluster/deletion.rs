//! A deleted Tenant takes its things along, even when a provider is away for a while.

use serde_json::json;
use tenant_operator::api::{FORCE_DELETE_ANNOTATION, Phase, TenantStatus};

use crate::support::World;

fn says(reason: &'static str) -> impl Fn(&TenantStatus) -> bool {
    move |s| s.conditions.iter().any(|c| c.type_ == "CleanedUp" && c.reason == reason)
}

#[tokio::test]
async fn nothing_is_left_behind() {
    let world = World::with_active("delete").await;
    world.erase("acme").await;
    world.wait_gone("acme").await;
    let pinecone = world.sandbox_get("/_sandbox/pinecone").await;
    assert_eq!(pinecone["namespaces"], json!({}));
    assert!(world.secrets().get_opt("acme-api-key").await.expect("the API answers").is_none());
    let stripe = world.sandbox_get("/_sandbox/state").await;
    assert_eq!(stripe["subscription"][0]["status"], "canceled");
    assert_eq!(stripe["customer"][0]["deleted"], true, "with name and address: {}", stripe["customer"]);
}

#[tokio::test]
async fn an_unreachable_provider_is_waited_for() {
    let world = World::with_active("delete-later").await;
    world
        .fault(json!({"provider": "pinecone", "method": "DELETE", "path": "/namespaces", "status": 503, "times": 6}))
        .await;
    world.erase("acme").await;
    let status = world.wait("acme", "held up", says("PineconeProviderError")).await;
    assert_eq!(status.phase, Some(Phase::Deleting));
    world.wait_gone("acme").await;
    assert_eq!(world.sandbox_get("/_sandbox/pinecone").await["namespaces"], json!({}));
}

#[tokio::test]
async fn a_forced_deletion_says_what_is_left_behind() {
    let world = World::with_active("delete-force").await;
    world
        .fault(json!({"provider": "pinecone", "method": "DELETE", "path": "/namespaces", "status": 503, "times": 1000}))
        .await;
    world.erase("acme").await;
    world.wait("acme", "held up", says("PineconeProviderError")).await;
    world.annotate("acme", FORCE_DELETE_ANNOTATION, "true").await;
    world.wait_gone("acme").await;
    let pinecone = world.sandbox_get("/_sandbox/pinecone").await;
    assert_eq!(pinecone["namespaces"].as_object().map(serde_json::Map::len), Some(1));
}
