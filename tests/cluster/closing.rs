//! What becomes of a closed customer at Stripe: no period begins, no cancellation of theirs is undone, and nothing that
//! is not the tenant's is deleted.

use kube::api::Patch;
use reqwest::Method;
use serde_json::{Value, json};
use tenant_operator::api::tenant::Desired;
use tenant_operator::api::{ConditionStatus, Phase, TenantStatus};

use crate::support::{World, closed, day_comes, desire, said, shows, stripe, stripe_state};

async fn subscriptions(world: &World) -> Vec<Value> {
    stripe_state(world).await["subscription"].as_array().cloned().unwrap_or_default()
}

fn id(object: &Value) -> String {
    object["id"].as_str().expect("an id").to_owned()
}

async fn all_end(world: &World) -> bool {
    subscriptions(world).await.iter().all(|s| s["cancel_at_period_end"] == true)
}

/// A form with the metadata of a subscription under a prefix.
fn with_metadata(of: &Value, prefixes: &[&str], form: &[(&str, &str)]) -> Vec<(String, String)> {
    let metadata = of["metadata"].as_object().expect("metadata");
    let pairs = prefixes.iter().flat_map(|prefix| {
        metadata.iter().map(move |(key, value)| (format!("{prefix}[{key}]"), value.as_str().unwrap_or("").to_owned()))
    });
    pairs.chain(form.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))).collect()
}

async fn make(world: &World, path: &str, form: &[(String, String)]) -> Value {
    let form: Vec<_> = form.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    stripe(world, Method::POST, path, &form).await
}

#[tokio::test]
async fn a_payment_at_a_link_that_is_being_closed_begins_no_second_period() {
    let world = World::with_active("closing-paid").await;
    let there = subscriptions(&world).await.remove(0);
    let customer = there["customer"].as_str().expect("a customer");
    let (price, quantity) = (("line_items[0][price]", "price_paid"), ("line_items[0][quantity]", "1"));
    let sale = [("mode", "subscription"), ("customer", customer), price, quantity];
    let sale = with_metadata(&there, &["metadata", "subscription_data[metadata]"], &sale);
    let session = make(&world, "/checkout/sessions", &sale).await;
    // The events stay away: what the controller does by itself counts.
    world.sandbox_post("/_sandbox/webhooks", json!({"lose": true, "list_after_ms": 3_600_000})).await;
    let expire = format!("/v1/checkout/sessions/{}/expire", id(&session));
    world.fault(json!({"provider": "stripe", "method": "POST", "path": expire, "delay_ms": 3000})).await;
    desire(&world, "acme", Desired::Deleted).await.expect("patched");
    world.until("it is being expired", async || world.calls(|call| call["path"] == *expire).await > 0).await;
    let paid = world.http.post(session["url"].as_str().expect("a page")).form(&[("card", "4242424242424242")]);
    assert_eq!(paid.send().await.expect("the page answers").status(), 303);
    world.wait("acme", "closed", closed).await;
    assert_eq!(subscriptions(&world).await.len(), 2);
    assert!(all_end(&world).await, "{:?}", subscriptions(&world).await);
}

#[tokio::test]
async fn a_subscription_that_is_bought_for_a_closed_account_is_shown_and_waits_for_a_person() {
    let world = World::with_active("closing-late").await;
    desire(&world, "acme", Desired::Deleted).await.expect("patched");
    world.wait("acme", "closed", closed).await;
    world.sandbox_post("/_sandbox/webhooks", json!({"lose": true, "list_after_ms": 3_600_000})).await;
    let there = subscriptions(&world).await.remove(0);
    let customer = there["customer"].as_str().expect("a customer");
    let form = [("customer", customer), ("items[0][price]", "price_paid"), ("trial_period_days", "1")];
    make(&world, "/subscriptions", &with_metadata(&there, &["metadata"], &form)).await;
    let renews = shows("Erased", ConditionStatus::False, "SubscriptionRenews");
    let status = world.wait("acme", "shown", &renews).await;
    assert_eq!(status.phase, Some(Phase::Deleting));
    let alerted = async || world.sandbox_get("/_sandbox/alerts").await.to_string().contains("Stripe renews");
    world.until("the alert is sent", alerted).await;
    // A person decides that the customer leaves.
    for bought in subscriptions(&world).await.iter().filter(|s| s["id"] != there["id"]) {
        stripe(&world, Method::DELETE, &format!("/subscriptions/{}", id(bought)), &[]).await;
    }
    world.wait("acme", "agreed", |s| !renews(s)).await;
}

#[tokio::test]
async fn a_cancellation_of_the_customer_outlives_a_closing_that_is_taken_back() {
    let world = World::with_active("closing-cancelled").await;
    let subscription = format!("/subscriptions/{}", id(&subscriptions(&world).await[0]));
    let close_and_reopen = async || {
        desire(&world, "acme", Desired::Deleted).await.expect("patched");
        world.wait("acme", "closed", closed).await;
        assert!(all_end(&world).await, "no period begins while it is closed");
        desire(&world, "acme", Desired::Active).await.expect("patched");
        let open = |s: &TenantStatus| s.phase == Some(Phase::Active) && s.erases_at.is_none();
        world.wait("acme", "reopened", open).await;
        subscriptions(&world).await.remove(0)
    };
    stripe(&world, Method::POST, &subscription, &[("cancel_at_period_end", "true")]).await;
    let after = close_and_reopen().await;
    assert_eq!((&after["cancel_at_period_end"], &after["metadata"]["closed"]), (&json!(true), &Value::Null));
    // One that ends in a year is billed until then, but not while the account is closed.
    stripe(&world, Method::POST, &subscription, &[("cancel_at_period_end", "false")]).await;
    let year = tenant_operator::api::Timestamp::now().as_second() + 365 * 24 * 3600;
    stripe(&world, Method::POST, &subscription, &[("cancel_at", &year.to_string())]).await;
    let after = close_and_reopen().await;
    assert_eq!((&after["cancel_at_period_end"], &after["cancel_at"]), (&json!(false), &json!(year)));
    assert_eq!(after["metadata"]["cancel_at_before"], Value::Null);
}

#[tokio::test]
async fn a_customer_who_pays_for_something_else_is_kept_unnamed_and_the_erasure_ends() {
    let world = World::with_active("closing-kept").await;
    let there = subscriptions(&world).await.remove(0);
    let customer = there["customer"].as_str().expect("a customer");
    let form = [("customer", customer), ("items[0][price]", "price_paid"), ("trial_period_days", "30")];
    let other = stripe(&world, Method::POST, "/subscriptions", &form).await;
    desire(&world, "acme", Desired::Deleted).await.expect("patched");
    world.wait("acme", "closed", closed).await;
    day_comes(&world, "acme").await;
    let erasure = world.wait_phase("acme", Phase::Deleted).await.erasure.expect("a certificate");
    let kept: Vec<_> = erasure.lines.iter().filter(|line| line.after != Some(0)).map(|line| &*line.what).collect();
    assert_eq!(kept, ["customers kept, because subscriptions that are not this tenant's bill them"]);
    let state = stripe_state(&world).await;
    assert_eq!((&state["customer"][0]["deleted"], &state["customer"][0]["metadata"]), (&Value::Null, &json!({})));
    let living = subscriptions(&world).await.into_iter().filter(|s| s["status"] != "canceled").map(|s| id(&s));
    assert_eq!(living.collect::<Vec<_>>(), [id(&other)]);
}

/// The object comes from a backup of before the closing: its customer does not pay for another period, and is served to
/// the end of the one that was paid.
#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_that_is_restored_from_before_its_closing_is_shown_and_not_renewed() {
    let mut world = World::with_active("closing-restored").await;
    let before = world.tenants().get("acme").await.expect("there");
    desire(&world, "acme", Desired::Deleted).await.expect("patched");
    world.wait("acme", "closed", closed).await;
    world.controllers.remove(0).kill();
    desire(&world, "acme", Desired::Active).await.expect("patched");
    let status = Patch::Merge(json!({"status": null}));
    world.tenants().patch_status("acme", &Default::default(), &status).await.expect("patched");
    let status = Patch::Merge(json!({"status": before.status}));
    world.tenants().patch_status("acme", &Default::default(), &status).await.expect("patched");
    world.start_controller();
    let contradicted = shows("RenewalStopped", ConditionStatus::True, "ClosedBefore");
    let status = world.wait("acme", "shown", &contradicted).await;
    assert_eq!(status.phase, Some(Phase::Active));
    let alerted = async || world.sandbox_get("/_sandbox/alerts").await.to_string().contains("the Tenant says Active");
    world.until("the alert is sent", alerted).await;
    assert!(all_end(&world).await, "nothing is renewed: {:?}", subscriptions(&world).await);
    let mut reactivate = world.command("reactivate");
    reactivate.args(["acme", "--namespace", &world.namespace]);
    let output = tokio::task::block_in_place(|| reactivate.output()).expect("it runs");
    assert!(output.status.success(), "{}", said(&output));
    world.until("an admin keeps the customer", async || !all_end(&world).await).await;
    world.wait("acme", "agreed", |s| !contradicted(s)).await;
}

#[tokio::test]
async fn an_end_that_was_undone_at_stripe_leaves_no_mark_that_undoes_a_later_cancellation() {
    let world = World::with_active("closing-undone").await;
    let subscription = format!("/subscriptions/{}", id(&subscriptions(&world).await[0]));
    // A later end was set before; undoing the closing's end undoes it as well.
    let year = tenant_operator::api::Timestamp::now().as_second() + 365 * 24 * 3600;
    stripe(&world, Method::POST, &subscription, &[("cancel_at", &year.to_string())]).await;
    desire(&world, "acme", Desired::Deleted).await.expect("patched");
    world.wait("acme", "closed", closed).await;
    stripe(&world, Method::POST, &subscription, &[("cancel_at_period_end", "false")]).await;
    let renews = shows("Erased", ConditionStatus::False, "SubscriptionRenews");
    world.wait("acme", "shown", &renews).await;
    desire(&world, "acme", Desired::Active).await.expect("patched");
    world.wait_phase("acme", Phase::Active).await;
    let there = subscriptions(&world).await.remove(0);
    assert_eq!((&there["cancel_at"], &there["cancel_at_period_end"]), (&Value::Null, &json!(false)), "{there}");
    assert_eq!((&there["metadata"]["closed"], &there["metadata"]["cancel_at_before"]), (&Value::Null, &Value::Null));
    // The customer cancels in the portal, and no wish from before undoes that.
    stripe(&world, Method::POST, &subscription, &[("cancel_at_period_end", "true")]).await;
    let asked = world.calls(|call| call["path"] == "/v1/subscriptions").await;
    world
        .until("all were compared", async || world.calls(|c| c["path"] == "/v1/subscriptions").await > asked + 2)
        .await;
    assert!(all_end(&world).await, "{:?}", subscriptions(&world).await);
}
