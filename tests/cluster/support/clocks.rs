//! Days that pass: on Stripe's clock, and for a tenant that is to be erased.

use kube::api::Patch;
use serde_json::json;
use tenant_operator::api::Timestamp;

use super::World;

const DAY: i64 = 24 * 60 * 60;

/// Moves Stripe's clock on.
pub async fn forward(world: &World, days: i64) {
    world.sandbox_post("/_sandbox/clock", json!({"advance_seconds": days * DAY})).await;
}

/// Lets the day of the erasure come: a retention of weeks is nothing that a test can wait for.
pub async fn day_comes(world: &World, name: &str) {
    let yesterday = Timestamp::now().plus(-DAY);
    let patch = Patch::Merge(json!({"status": {"erasesAt": yesterday}}));
    world.tenants().patch_status(name, &Default::default(), &patch).await.expect("patched");
}
