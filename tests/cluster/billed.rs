//! What Stripe bills and knows: another price, a second subscription, closed and paused subscriptions, late events,
//! late invoices.

use kube::api::Patch;
use serde_json::{Value, json};
use tenant_operator::api::conditions::get;
use tenant_operator::api::tenant::{BillingMode, Desired};
use tenant_operator::api::{ConditionStatus, Phase, Plan, TenantStatus};

use crate::support::{
    World, billed, closed, desire, document_limit, forward, paid, period_ends, said, stripe_objects, wish,
};

/// A call to Stripe as an admin makes it in the dashboard.
async fn at_stripe(world: &World, path: &str, form: &[(&str, &str)]) -> Value {
    let call = world.http.post(format!("{}/v1{path}", world.sandbox.stripe_url)).bearer_auth("sk_test_test").form(form);
    let answer = call.send().await.expect("Stripe answers");
    assert!(answer.status().is_success(), "{path}: {}", answer.status());
    answer.json().await.expect("JSON")
}

/// Makes a second subscription of the same customer and tenant.
async fn beside(world: &World, first: &Value) -> Value {
    let metadata = first["metadata"].as_object().expect("metadata").clone();
    let pairs: Vec<_> =
        metadata.iter().map(|(key, value)| (format!("metadata[{key}]"), value.as_str().unwrap_or_default())).collect();
    let customer = first["customer"].as_str().expect("a customer");
    let mut form = vec![("customer", customer), ("items[0][price]", "price_paid"), ("trial_period_days", "1")];
    form.extend(pairs.iter().map(|(key, value)| (key.as_str(), *value)));
    at_stripe(world, "/subscriptions", &form).await
}

async fn subscription(world: &World) -> Value {
    stripe_objects(world, "subscription").await[0].clone()
}

fn id(object: &Value) -> &str {
    object["id"].as_str().expect("an id")
}

fn fails(status: &TenantStatus, condition: &str, reason: &str) -> bool {
    get(&status.conditions, condition).is_some_and(|c| c.status == ConditionStatus::False && &*c.reason == reason)
}

/// Switches the price as the customer portal does.
async fn switch(world: &World, price: &str) {
    let there = subscription(world).await;
    let item = there["items"]["data"][0]["id"].as_str().expect("an item");
    let form = [("items[0][id]", item), ("items[0][price]", price), ("proration_behavior", "always_invoice")];
    at_stripe(world, &format!("/subscriptions/{}", id(&there)), &form).await;
}

#[tokio::test]
async fn a_price_that_was_switched_at_stripe_is_shown_alerted_and_followed_where_the_plan_says_so() {
    let world = World::on_middle_plan("switched", &[]).await;
    // No event tells of it: the comparison of everything does.
    world.sandbox_post("/_sandbox/webhooks", json!({"lose": true, "list_after_ms": 3_600_000})).await;
    switch(&world, "price_large").await;
    let status = world.wait("acme", "shown", |s| fails(s, "PriceAsPlanned", "PriceOfAnotherPlan")).await;
    assert_eq!((status.phase, document_limit(&status)), (Some(Phase::Active), 10), "served by the plan it has");
    world.until("the platform team is told", async || world.alerts("Set spec.plan to large").await == 1).await;
    world.wait_event("acme", "PriceOfAnotherPlan").await;
    let charged = paid(&world).await;
    // The admin decides for the plan that is billed.
    wish(&world, "acme", "large").await.expect("patched");
    let status = world.wait("acme", "on the large plan", |s| document_limit(s) == 100).await;
    assert_eq!((status.phase, paid(&world).await), (Some(Phase::Active), charged), "nothing is charged again");
    world.wait_true("acme", "PriceAsPlanned").await;
    assert_eq!(world.alerts("Set spec.plan to").await, 1, "once");
}

#[tokio::test]
async fn a_tenant_follows_the_price_that_is_billed_where_its_plan_says_so() {
    let mut world = World::apart("followed").await;
    world.start_controller();
    let follow = Patch::Merge(json!({"spec": {"priceChanges": "Follow"}}));
    kube::Api::<Plan>::all(world.client.clone()).patch("middle", &Default::default(), &follow).await.expect("patched");
    world.create_paying("acme", "middle").await;
    switch(&world, "price_large").await;
    let status = world.wait("acme", "on the large plan", |s| document_limit(s) == 100).await;
    assert_eq!(status.phase, Some(Phase::Active));
    assert_eq!(world.tenants().get("acme").await.expect("there").spec.plan, "large");
    assert_eq!((billed(&world).await, paid(&world).await.len()), (19_900, 2), "charged once, by the switch");
    // What Stripe says is what a lost status is made of.
    assert_eq!(subscription(&world).await["metadata"]["plan"], "large");
    world.lose_status("acme").await;
    let status = world.wait("acme", "on the large plan", |s| s.phase == Some(Phase::Active)).await;
    assert_eq!(document_limit(&status), 100);
    assert_eq!(world.tenants().get("acme").await.expect("there").spec.plan, "large");
    world.assert_transitions("acme").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_subscription_is_shown_and_ended_and_refunded_by_name() {
    let world = World::with_active("surplus").await;
    let first = subscription(&world).await;
    let second = beside(&world, &first).await;
    // Its trial ends, and both are charged.
    forward(&world, 2).await;
    world.wait("acme", "shown", |s| fails(s, "SingleSubscription", "SurplusSubscription")).await;
    world.until("the platform team is told", async || world.alerts("more than one subscription").await == 1).await;
    assert_eq!(paid(&world).await, [4900, 0, 4900]);
    let run = |args: &[&str]| {
        let all: Vec<_> = ["acme", "--namespace", &world.namespace].into_iter().chain(args.iter().copied()).collect();
        tokio::task::block_in_place(|| world.command("subscriptions").args(&all).output()).expect("it runs")
    };
    let listed = said(&run(&[]));
    assert!(listed.contains(id(&first)) && listed.contains(id(&second)), "{listed}");
    let unmeant = run(&["--end", id(&second), "--confirm", "other"]);
    assert!(!unmeant.status.success() && said(&unmeant).contains("add --confirm acme"), "{}", said(&unmeant));
    let ended = run(&["--end", id(&second), "--confirm", "acme", "--refund"]);
    assert!(ended.status.success() && said(&ended).contains("Refunded 4900 usd"), "{}", said(&ended));
    world.wait_true("acme", "SingleSubscription").await;
    let last = run(&["--end", id(&first), "--confirm", "acme"]);
    assert!(!last.status.success() && said(&last).contains("the only subscription"), "{}", said(&last));
    let all = stripe_objects(&world, "subscription").await;
    let statuses: Vec<_> = all.iter().map(|s| s["status"].as_str().unwrap_or_default()).collect();
    assert_eq!((statuses, stripe_objects(&world, "refund").await.len()), (vec!["active", "canceled"], 1));
}

/// Closed, suspended, cancelled in the portal, and as it was: what Stripe knows of each decides.
#[tokio::test(flavor = "multi_thread")]
async fn a_recovered_tenant_is_renewed_and_charged_only_if_it_was_before() {
    let world = World::start("recover-wishes").await;
    let names = ["closed", "suspended", "cancelled", "served"];
    for name in names {
        world.create_paying(name, "paid").await;
    }
    desire(&world, "closed", Desired::Deleted).await.expect("patched");
    world.wait("closed", "closed", closed).await;
    desire(&world, "suspended", Desired::Suspended).await.expect("patched");
    world.wait_true("suspended", "CollectionPaused").await;
    let of = async |name: &str| {
        let tenant = world.tenants().get(name).await.expect("there");
        tenant.spec.billing.stripe.and_then(|refs| refs.subscription_id).expect("a subscription")
    };
    let cancelled = of("cancelled").await;
    at_stripe(&world, &format!("/subscriptions/{cancelled}"), &[("cancel_at", "min_period_end")]).await;
    let before = stripe_objects(&world, "subscription").await;
    for name in names {
        world.annotate(name, "tenant-operator.dev/keep-data", "true").await;
        world.tenants().delete(name, &Default::default()).await.expect("asked for");
        world.wait_gone(name).await;
    }
    let made = tokio::task::block_in_place(|| world.command("recover").arg("--apply").output()).expect("it runs");
    assert!(said(&made).contains("4 Tenants made"), "{}", said(&made));
    world.wait("closed", "closed again", closed).await;
    world.wait("suspended", "suspended again", |s| s.phase == Some(Phase::Suspended)).await;
    world.wait_true("suspended", "CollectionPaused").await;
    world.wait_phase("cancelled", Phase::Active).await;
    world.wait_phase("served", Phase::Active).await;
    let terms = |all: &[Value]| -> Vec<_> {
        all.iter().map(|s| [s["cancel_at"].clone(), s["pause_collection"].clone(), s["status"].clone()]).collect()
    };
    assert_eq!(terms(&stripe_objects(&world, "subscription").await), terms(&before), "as they were");
    let calls = world.calls(|r| {
        let body = r["body"].as_str().unwrap_or_default();
        body.contains("cancel_at_period_end=false") || body.ends_with("pause_collection=")
    });
    assert_eq!(calls.await, 0, "and nothing was renewed or collected meanwhile");
    forward(&world, 31).await;
    assert_eq!(
        paid(&world).await.iter().filter(|cents| **cents > 0).count(),
        5,
        "four periods, and one more of one tenant"
    );
}

#[tokio::test]
async fn an_account_closed_after_a_cancellation_by_date_is_taken_back_and_ends_on_that_date() {
    let world = World::with_active("cancel-at").await;
    let path = format!("/subscriptions/{}", id(&subscription(&world).await));
    at_stripe(&world, &path, &[("cancel_at", "min_period_end")]).await;
    desire(&world, "acme", Desired::Deleted).await.expect("patched");
    world.wait("acme", "closed", closed).await;
    let there = subscription(&world).await;
    assert!(
        there["metadata"]["closed"].is_string() && there["cancel_at"].is_i64(),
        "recover reads that it is closed: {there}"
    );
    desire(&world, "acme", Desired::Active).await.expect("patched");
    world.wait_phase("acme", Phase::Active).await;
    let after = subscription(&world).await;
    assert_eq!(after["cancel_at"], there["cancel_at"], "the customer's cancellation stays");
    assert_eq!((&after["metadata"]["closed"], &after["metadata"]["cancel_at_before"]), (&Value::Null, &Value::Null));
}

#[tokio::test]
async fn an_event_that_stripe_lists_late_is_read() {
    let mut world = World::without_controller("late-event").await;
    world.controller_args(&["--resync=1", "--full-resync=3600"]);
    world.start_controller();
    for name in ["late", "other"] {
        world.create(name, "paid", BillingMode::Stripe).await;
        world.wait(name, "waiting", |s| s.checkout.is_some()).await;
    }
    world.sandbox_post("/_sandbox/webhooks", json!({"lose": true, "list_after_ms": 6000})).await;
    world.pay("late").await;
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    // A newer event is listed before the older one.
    world.sandbox_post("/_sandbox/webhooks", json!({"lose": true})).await;
    world.pay("other").await;
    world.wait_phase("other", Phase::Active).await;
    assert_eq!(world.status("late").await.phase, Some(Phase::PendingPayment), "not listed yet");
    world.wait_phase("late", Phase::Active).await;
}

#[tokio::test]
async fn events_are_read_while_the_list_of_subscriptions_fails() {
    let mut world = World::without_controller("no-full-pass").await;
    world.controller_args(&["--resync=1", "--full-resync=1"]);
    let listing =
        json!({"provider": "stripe", "method": "GET", "path": "/v1/subscriptions", "status": 400, "times": 100_000});
    world.start_controller();
    world.create("acme", "paid", BillingMode::Stripe).await;
    world.wait("acme", "waiting", |s| s.checkout.is_some()).await;
    world.fault(listing).await;
    world.sandbox_post("/_sandbox/webhooks", json!({"lose": true})).await;
    world.pay("acme").await;
    let asked = || world.calls(|r| r["path"] == "/v1/events");
    let before = asked().await;
    world.until("the events are read", async || asked().await > before + 2).await;
    // What was read of them is acted on as soon as the tenant's own subscription can be read.
    world.clear_faults().await;
    world.wait_phase("acme", Phase::Active).await;
}

#[tokio::test]
async fn a_late_invoice_is_not_collected_while_the_tenant_is_suspended_and_collected_afterwards() {
    let world = World::with_active("late-and-suspended").await;
    let method = stripe_objects(&world, "payment_method").await[0].clone();
    world.sandbox_post("/_sandbox/decline", json!({"payment_method": id(&method)})).await;
    forward(&world, 31).await;
    world.wait("acme", "late", |s| fails(s, "PaymentReceived", "PaymentPastDue")).await;
    desire(&world, "acme", Desired::Suspended).await.expect("patched");
    world.wait_true("acme", "CollectionPaused").await;
    world.sandbox_post("/_sandbox/decline", json!({"payment_method": id(&method), "declined": false})).await;
    // The days of Stripe's retries.
    forward(&world, 4).await;
    assert_eq!(paid(&world).await, [4900, 0], "nothing is charged while the tenant is suspended");
    desire(&world, "acme", Desired::Active).await.expect("patched");
    world
        .until("collection goes on", async || {
            let open = stripe_objects(&world, "invoice").await;
            open.iter().any(|invoice| invoice["auto_advance"] == true || invoice["amount_paid"] == 4900)
                && subscription(&world).await["pause_collection"].is_null()
        })
        .await;
    forward(&world, 2).await;
    assert_eq!(paid(&world).await, [4900, 4900]);
    world.wait_phase("acme", Phase::Active).await;
}

#[tokio::test]
async fn a_draft_of_a_period_without_service_is_not_collected_once_the_tenant_is_resumed() {
    let world = World::with_active("draft-elapsed").await;
    world.sandbox_post("/_sandbox/drafts", json!({"seconds": 3600})).await;
    period_ends(&world).await;
    let drafts = async || stripe_objects(&world, "invoice").await.iter().filter(|i| i["status"] == "draft").count();
    world.until("the renewal is a draft", async || drafts().await == 1).await;
    desire(&world, "acme", Desired::Suspended).await.expect("patched");
    world.wait_true("acme", "CollectionPaused").await;
    // The period of the draft passes.
    forward(&world, 31).await;
    desire(&world, "acme", Desired::Active).await.expect("patched");
    world.until("collection goes on", async || subscription(&world).await["pause_collection"].is_null()).await;
    world.wait_phase("acme", Phase::Active).await;
    forward(&world, 1).await;
    assert_eq!(paid(&world).await.iter().filter(|cents| **cents > 0).count(), 1, "{:?}", paid(&world).await);
    assert_eq!(drafts().await, 1, "an admin sends it, or deletes it");
}

/// The invoice of a renewal is a draft for an hour. A pause of collection holds for the invoices that come after it.
#[tokio::test]
async fn a_draft_from_before_a_suspension_is_not_collected_before_the_tenant_is_resumed() {
    let world = World::with_active("draft").await;
    world.sandbox_post("/_sandbox/drafts", json!({"seconds": 3600})).await;
    period_ends(&world).await;
    world
        .until("the renewal is a draft", async || {
            stripe_objects(&world, "invoice").await.iter().any(|i| i["status"] == "draft" && i["auto_advance"] == true)
        })
        .await;
    desire(&world, "acme", Desired::Suspended).await.expect("patched");
    world.wait_true("acme", "CollectionPaused").await;
    forward(&world, 1).await;
    assert_eq!(paid(&world).await, [4900, 0], "nothing is charged while the tenant is suspended");
    desire(&world, "acme", Desired::Active).await.expect("patched");
    world.until("collection goes on", async || subscription(&world).await["pause_collection"].is_null()).await;
    forward(&world, 1).await;
    assert_eq!(paid(&world).await, [4900, 4900]);
    world.wait_phase("acme", Phase::Active).await;
}

#[tokio::test]
async fn no_subscription_of_a_suspended_tenant_is_collected_and_one_is_when_it_is_resumed() {
    let world = World::with_active("surplus-suspended").await;
    let first = subscription(&world).await;
    desire(&world, "acme", Desired::Suspended).await.expect("patched");
    world.wait_true("acme", "CollectionPaused").await;
    beside(&world, &first).await;
    let paused = async || {
        let all = stripe_objects(&world, "subscription").await;
        all.iter().map(|s| !s["pause_collection"].is_null()).collect::<Vec<_>>()
    };
    world.until("both are paused", async || paused().await == [true, true]).await;
    let status = world.wait("acme", "shown", |s| fails(s, "SingleSubscription", "SurplusSubscription")).await;
    assert_eq!(status.phase, Some(Phase::Suspended));
    world.until("the platform team is told", async || world.alerts("more than one subscription").await == 1).await;
    desire(&world, "acme", Desired::Active).await.expect("patched");
    world.wait_phase("acme", Phase::Active).await;
    world.until("one is collected", async || paused().await == [false, true]).await;
}
