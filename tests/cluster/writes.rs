//! The writes that take a tenant to Active: no more than a user could observe, with every transition in one of them.

use futures::{StreamExt, TryStreamExt};
use kube::api::WatchParams;
use kube::core::WatchEvent;
use serde_json::json;
use tenant_operator::api::tenant::BillingMode;
use tenant_operator::api::{Phase, Tenant};

use crate::support::World;

/// The phases of a tenant as a watch shows them, until it is Active.
async fn phases(world: &World, name: &str) -> Vec<Option<Phase>> {
    let params = WatchParams::default().fields(&format!("metadata.name={name}"));
    let mut changes = world.tenants().watch(&params, "0").await.expect("a watch").boxed();
    world.create(name, "enterprise", BillingMode::Manual).await;
    let mut seen = Vec::new();
    while let Some(event) = changes.try_next().await.expect("an event") {
        let (WatchEvent::Added(tenant) | WatchEvent::Modified(tenant)) = event else { continue };
        let tenant: Tenant = tenant;
        seen.push(tenant.status.and_then(|s| s.phase));
        if seen.last() == Some(&Some(Phase::Active)) {
            return seen;
        }
    }
    panic!("the watch of {name} ended");
}

#[tokio::test]
async fn a_phase_too_short_to_see_is_no_write_and_still_a_transition_and_an_event() {
    let world = World::start("quick").await;
    // A busy machine may take long enough for the phase to be worth a write.
    for i in 0..20 {
        let name = format!("quick-{i}");
        let seen = phases(&world, &name).await;
        world.assert_transitions(&name).await;
        world.wait_event(&name, "Provisioning").await;
        world.wait_event(&name, "Active").await;
        let status = world.status(&name).await;
        let ways: Vec<_> = status.transitions.iter().map(|t| (t.from_state, t.to_state)).collect();
        let way = [
            (None, Phase::PendingPayment),
            (Some(Phase::PendingPayment), Phase::Provisioning),
            (Some(Phase::Provisioning), Phase::Active),
        ];
        assert_eq!(ways, way);
        if seen == [None, None, Some(Phase::Active)] {
            return;
        }
    }
    panic!("each of 20 tenants needed a write for Provisioning alone");
}

#[tokio::test]
async fn a_phase_that_lasts_is_shown_while_the_provider_takes_its_time() {
    let world = World::start("lasting").await;
    let slow = json!({"provider": "pinecone", "path": "/vectors/upsert", "delay_ms": 4000, "times": 1});
    world.fault(slow).await;
    let seen = phases(&world, "acme").await;
    assert_eq!(seen, [None, None, Some(Phase::Provisioning), Some(Phase::Active)]);
    world.assert_transitions("acme").await;
    let upserts = world.calls(|r| r["path"] == "/vectors/upsert").await;
    assert_eq!(upserts, 1, "the write did not interrupt the call");
}
