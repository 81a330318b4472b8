//! Days that pass: on Stripe's clock, and for a tenant that is to be erased.

use kube::api::Patch;
use serde_json::{Value, json};
use tenant_operator::api::Timestamp;

use super::{World, stripe_objects};

const DAY: i64 = 24 * 60 * 60;

/// Moves Stripe's clock on.
pub async fn forward(world: &World, days: i64) {
    world.sandbox_post("/_sandbox/clock", json!({"advance_seconds": days * DAY})).await;
}

/// Moves Stripe's clock to a second after the end of the present period of the subscription that ends last. Months have
/// 28 to 31 days.
pub async fn period_ends(world: &World) {
    let left = left_of_period(world).await;
    world.sandbox_post("/_sandbox/clock", json!({"advance_seconds": left + 1})).await;
}

/// Moves Stripe's clock over half of what is left of that period.
pub async fn half_of_period(world: &World) {
    let left = left_of_period(world).await;
    world.sandbox_post("/_sandbox/clock", json!({"advance_seconds": left / 2})).await;
}

async fn left_of_period(world: &World) -> i64 {
    let living = |s: &Value| matches!(s["status"].as_str(), Some("trialing" | "active"));
    let ends = stripe_objects(world, "subscription").await;
    let ends = ends.iter().filter(|s| living(s)).filter_map(|s| s["items"]["data"][0]["current_period_end"].as_i64());
    ends.max().expect("a subscription") - stripes_now(world).await
}

/// The time at Stripe, in seconds since 1970.
pub async fn stripes_now(world: &World) -> i64 {
    let asked = world.http.post(format!("{}/_sandbox/clock", world.sandbox.url)).json(&json!({"advance_seconds": 0}));
    let told: Value = asked.send().await.expect("the sandbox answers").json().await.expect("JSON");
    told["now"].as_i64().expect("a time")
}

/// Lets the day of the erasure come: a retention of weeks is nothing that a test can wait for.
pub async fn day_comes(world: &World, name: &str) {
    let yesterday = Timestamp::now().plus(-DAY);
    let patch = Patch::Merge(json!({"status": {"erasesAt": yesterday}}));
    world.tenants().patch_status(name, &Default::default(), &patch).await.expect("patched");
}
