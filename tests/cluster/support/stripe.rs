//! What Stripe holds of the tenants, and what its dashboard, its portal and the banks do there.

use serde_json::Value;

use super::{Visitor, World};

/// Everything that Stripe holds, by kind.
pub async fn stripe_state(world: &World) -> Value {
    world.sandbox_get("/_sandbox/state").await
}

/// What Stripe holds of one kind.
pub async fn stripe_objects(world: &World, kind: &str) -> Vec<Value> {
    stripe_state(world).await[kind].as_array().cloned().unwrap_or_default()
}

/// How the idempotency keys of the tests' own calls begin, by which the sandbox's list of requests tells them apart.
pub const BY_A_TEST: &str = "by-a-test-";

/// A call to the Stripe stand-in, in place of an admin's click in the dashboard.
pub async fn stripe(world: &World, method: reqwest::Method, path: &str, form: &[(&str, &str)]) -> Value {
    let call = world.http.request(method, format!("{}/v1{path}", world.sandbox.stripe_url));
    let key = format!("{BY_A_TEST}{:016x}", rand::random::<u64>());
    let call = call.bearer_auth("sk_test").header("idempotency-key", key);
    let answer = call.form(form).send().await.expect("Stripe answers");
    assert!(answer.status().is_success(), "{path}: {}", answer.status());
    answer.json().await.expect("JSON")
}

/// What was paid, in cents, an entry for each invoice.
pub async fn paid(world: &World) -> Vec<i64> {
    stripe_objects(world, "invoice").await.iter().filter_map(|i| i["amount_paid"].as_i64()).collect()
}

/// The price that Stripe bills now.
pub async fn billed(world: &World) -> i64 {
    let all = stripe_objects(world, "subscription").await;
    assert_eq!(
        (all.len(), stripe_objects(world, "customer").await.len()),
        (1, 1),
        "one customer with one subscription: {all:?}"
    );
    all[0]["items"]["data"][0]["price"]["unit_amount"].as_i64().expect("a price")
}

/// The ids of all disputes.
pub async fn disputes(world: &World) -> Vec<String> {
    let all = stripe_objects(world, "dispute").await;
    all.iter().map(|d| d["id"].as_str().expect("an id").to_owned()).collect()
}

/// What the operator of the service answers in Stripe's dashboard.
pub async fn answer_dispute(world: &World, dispute: &str, evidence: &str) {
    let url = format!("{}/v1/disputes/{dispute}", world.sandbox.stripe_url);
    let form = [("evidence[uncategorized_text]", evidence), ("submit", "true")];
    let answer = world.http.post(url).bearer_auth("sk_test").form(&form).send().await.expect("it answers");
    assert_eq!(answer.status(), 200);
}

/// What the customer does in the portal.
pub async fn portal(world: &World, customer: &mut Visitor<'_>, action: &str) {
    let csrf = customer.csrf("/account").await;
    let (_, _, page) = customer.post("/account/billing", &[("csrf", &csrf)]).await;
    let rest = page.split("id=\"portal\" href=\"").nth(1).unwrap_or_else(|| panic!("{page}"));
    let url = rest.split('"').next().expect("a link").replace("&#x2f;", "/");
    let shown = world.http.get(&url).send().await.expect("it answers").text().await.expect("text");
    let subscription = shown
        .split("name=\"subscription\" value=\"")
        .nth(1)
        .and_then(|rest| rest.split('"').next())
        .expect("a subscription");
    let form = [("subscription", subscription), ("action", action)];
    assert_eq!(world.http.post(&url).form(&form).send().await.expect("it answers").status(), 303);
}
