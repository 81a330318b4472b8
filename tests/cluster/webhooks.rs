//! Stripe's webhooks: which are refused, which are ignored, and that the controller recovers from lost ones.

use jiff::Timestamp;
use serde_json::json;
use tenant_operator::api::status::Checkout;
use tenant_operator::api::tenant::BillingMode;
use tenant_operator::api::{Phase, Tenant, TenantStatus};
use tenant_operator_sandbox::stripe::webhooks::sign;

use crate::support::{WEBHOOK_SECRET, World};

async fn deliver(world: &World, signature: Option<String>, body: &str) -> u16 {
    let mut request = world.http.post(format!("{}/webhooks/stripe", world.web)).body(body.to_owned());
    if let Some(signature) = signature {
        request = request.header("stripe-signature", signature);
    }
    request.send().await.expect("web answers").status().as_u16()
}

/// Waits until the tenant has another link than this one.
async fn wait_new_link(world: &World, first: &Checkout) {
    let another = |s: &TenantStatus| s.checkout.as_ref().is_some_and(|c| c.session_id != first.session_id);
    world.wait("acme", "given a new link", another).await;
}

#[tokio::test]
async fn only_signed_fresh_events_are_taken() {
    let mut world = World::without_controller("signature").await;
    world.start_web(&[]);
    let now = Timestamp::now().as_second();
    let body = json!({"id": "evt_1", "type": "some.future.type", "data": {"object": {"object": "thing"}}}).to_string();
    assert_eq!(deliver(&world, Some(sign(WEBHOOK_SECRET, now, &body)), &body).await, 200, "a type that is not used");
    assert_eq!(deliver(&world, Some(sign("whsec_old", now, &body)), &body).await, 200, "the other of two secrets");
    assert_eq!(deliver(&world, None, &body).await, 400, "unsigned");
    assert_eq!(deliver(&world, Some("t=1,v1=zz".into()), &body).await, 400, "malformed");
    assert_eq!(deliver(&world, Some(sign("whsec_wrong", now, &body)), &body).await, 400, "another secret");
    assert_eq!(deliver(&world, Some(sign(WEBHOOK_SECRET, now - 301, &body)), &body).await, 400, "stale");
    assert_eq!(deliver(&world, Some(sign(WEBHOOK_SECRET, now, &body)), "{}").await, 400, "another body");
    assert_eq!(deliver(&world, Some(sign(WEBHOOK_SECRET, now, "no JSON")), "no JSON").await, 400, "no JSON");
    let thin = json!({
        "id": "evt_test_3", "object": "v2.core.event", "type": "v1.billing.meter.error_report_triggered", "livemode": false,
        "created": "2026-11-29T12:00:00.000Z", "context": null, "reason": null,
        "related_object": {"id": "mtr_1", "type": "billing.meter", "url": "/v1/billing/meters/mtr_1"},
    })
    .to_string();
    assert_eq!(deliver(&world, Some(sign(WEBHOOK_SECRET, now, &thin)), &thin).await, 200, "a thin event");
    assert_eq!(deliver(&world, None, &thin).await, 400, "unsigned");
    let unknown = json!({"id": "evt_2", "type": "checkout.session.completed", "data": {"object": {
        "customer": "cus_1", "subscription": "sub_1",
        "metadata": {"tenant_id": "x", "tenant_namespace": world.namespace, "tenant_name": "nobody"}}}})
    .to_string();
    assert_eq!(deliver(&world, Some(sign(WEBHOOK_SECRET, now, &unknown)), &unknown).await, 200, "no such tenant");
}

#[tokio::test]
async fn events_twice_late_and_in_any_order_make_one_tenant() {
    let mut world = World::start("order").await;
    world.start_web(&[]);
    world.sandbox_post("/_sandbox/webhooks", json!({"repeat": 2, "reverse": true, "delay_ms": 200})).await;
    world.create("acme", "starter", BillingMode::Stripe).await;
    world.pay("acme").await;
    world.wait_phase("acme", Phase::Active).await;
    world.assert_one_of_each("acme").await;
}

#[tokio::test]
async fn an_event_of_an_earlier_tenant_of_that_name_changes_nothing() {
    let mut world = World::start("namesake").await;
    world.start_web(&[]);
    world.create("acme", "starter", BillingMode::Stripe).await;
    world.wait("acme", "waiting", |s| s.checkout.is_some()).await;
    let before = world.tenants().get("acme").await.expect("the tenant");
    let event = json!({"id": "evt_old", "type": "checkout.session.completed", "data": {"object": {
        "customer": "cus_old", "subscription": "sub_old",
        "metadata": {"tenant_id": "another", "tenant_namespace": world.namespace, "tenant_name": "acme"}}}})
    .to_string();
    let signature = sign(WEBHOOK_SECRET, Timestamp::now().as_second(), &event);
    assert_eq!(deliver(&world, Some(signature), &event).await, 200);
    let after = world.tenants().get("acme").await.expect("the tenant");
    assert_eq!((before.spec, before.metadata.annotations), (after.spec, after.metadata.annotations));
}

#[tokio::test]
async fn events_that_come_while_no_controller_sees_the_tenant_are_not_lost() {
    let mut world = World::start("unseen").await;
    world.start_web(&[]);
    world.create("acme", "starter", BillingMode::Stripe).await;
    world.wait("acme", "waiting", |s| s.checkout.is_some()).await;
    world.controllers.remove(0).kill();
    world.pay("acme").await;
    let told = |t: &Tenant| t.spec.billing.stripe.as_ref().is_some_and(|s| s.subscription_id.is_some());
    while !told(&world.tenants().get("acme").await.expect("the tenant")) {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    world.start_controller();
    world.wait_phase("acme", Phase::Active).await;
    world.assert_one_of_each("acme").await;
}

#[tokio::test]
async fn a_lost_webhook_is_healed_by_the_resync() {
    let mut world = World::start("lost").await;
    world.start_web(&[]);
    world.sandbox_post("/_sandbox/webhooks", json!({"lose": true})).await;
    world.create("acme", "starter", BillingMode::Stripe).await;
    world.pay("acme").await;
    let status = world.wait_phase("acme", Phase::Active).await;
    assert_eq!(status.subscription.as_deref(), Some("trialing"));
    assert!(status.trial_ends_at.is_some());
    world.assert_one_of_each("acme").await;
}

#[tokio::test]
async fn a_lost_webhook_is_healed_while_pinecone_is_away_too() {
    let mut world = World::without_controller("lost-away").await;
    world.fault(json!({"provider": "pinecone", "status": 503, "times": 1_000_000})).await;
    world.start_controller();
    world.start_web(&[]);
    world.sandbox_post("/_sandbox/webhooks", json!({"lose": true})).await;
    world.create("acme", "starter", BillingMode::Stripe).await;
    world.pay("acme").await;
    world.wait_phase("acme", Phase::Provisioning).await;
    world.clear_faults().await;
    world.wait_phase("acme", Phase::Active).await;
}

#[tokio::test]
async fn an_expired_session_is_replaced_by_a_new_one() {
    let world = World::start("expired").await;
    world.create("acme", "starter", BillingMode::Stripe).await;
    let first = world.wait("acme", "waiting", |s| s.checkout.is_some()).await.checkout.expect("a link");
    let expire = format!("{}/v1/checkout/sessions/{}/expire", world.sandbox.stripe_url, first.session_id);
    assert_eq!(world.http.post(expire).bearer_auth("sk_test").send().await.expect("an answer").status(), 200);
    wait_new_link(&world, &first).await;
    world.pay("acme").await;
    world.wait_phase("acme", Phase::Active).await;
}

#[tokio::test]
async fn a_link_expires_and_a_trial_ends_with_time() {
    let world = World::start("time").await;
    world.create("acme", "starter", BillingMode::Stripe).await;
    let first = world.wait("acme", "waiting", |s| s.checkout.is_some()).await.checkout.expect("a link");
    world.sandbox_post("/_sandbox/clock", json!({"advance_seconds": 25 * 3600})).await;
    wait_new_link(&world, &first).await;
    world.pay("acme").await;
    let status = world.wait_phase("acme", Phase::Active).await;
    assert_eq!(status.subscription.as_deref(), Some("trialing"));
    world.sandbox_post("/_sandbox/clock", json!({"advance_seconds": 15 * 24 * 3600})).await;
    world.wait("acme", "charged", |s| s.subscription.as_deref() == Some("active")).await;
    let stripe = world.sandbox_get("/_sandbox/state").await;
    assert_eq!(stripe["payment_intent"].as_array().map(Vec::len), Some(1), "{stripe}");
    assert_eq!(stripe["payment_intent"][0]["amount"], 4900);
}

#[tokio::test(flavor = "multi_thread")]
async fn web_asks_stripe_to_come_again_while_kubernetes_is_away() {
    let mut world = World::without_controller("unavailable").await;
    let mut proxy = world.proxy_kubernetes().await;
    world.start_web(&[]);
    let tenant = world.create("acme", "starter", BillingMode::Stripe).await;
    let event = json!({"id": "evt_1", "type": "invoice.paid", "data": {"object": {"parent": {"subscription_details": {
        "metadata": {"tenant_id": tenant.metadata.uid, "tenant_namespace": world.namespace, "tenant_name": "acme"}}}}}})
    .to_string();
    let signed = || Some(sign(WEBHOOK_SECRET, Timestamp::now().as_second(), &event));
    let ready = || world.http.get(format!("{}/readyz", world.web)).send();
    assert_eq!(deliver(&world, signed(), &event).await, 200);
    world.until("web knows the tenants", async || ready().await.expect("web answers").status() == 200).await;
    let seen = world.tenants().get("acme").await.expect("the tenant");
    assert_eq!(seen.metadata.annotations.expect("a hint")["tenant-operator.dev/stripe-event"], "evt_1");
    proxy.stop().await;
    assert_eq!(deliver(&world, signed(), &event).await, 503);
    assert_eq!(deliver(&world, None, &event).await, 400, "an unsigned event is refused even while Kubernetes is away");
}

/// As Stripe sends them after an outage of ours: many of one tenant, many at a time.
#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_events_of_one_tenant_are_all_taken() {
    use futures::StreamExt;
    let mut world = World::start("flood").await;
    world.start_web(&[]);
    world.create("acme", "starter", BillingMode::Stripe).await;
    world.wait("acme", "waiting", |s| s.checkout.is_some()).await;
    let tenant = world.tenants().get("acme").await.expect("the tenant");
    let body = |i: usize| {
        json!({"id": format!("evt_{i}"), "type": "customer.subscription.updated", "data": {"object": {"metadata": {
            "tenant_id": tenant.tenant_id(), "tenant_namespace": world.namespace, "tenant_name": "acme"}}}})
        .to_string()
    };
    let generation = |t: &Tenant| t.metadata.resource_version.clone();
    let send = async |i: usize| {
        let body = body(i);
        deliver(&world, Some(sign(WEBHOOK_SECRET, Timestamp::now().as_second(), &body)), &body).await
    };
    let codes: Vec<_> = futures::stream::iter(0..500).map(send).buffer_unordered(64).collect().await;
    assert!(codes.iter().all(|code| *code == 200), "{codes:?}");
    let after = world.tenants().get("acme").await.expect("the tenant");
    assert_ne!(generation(&tenant), generation(&after));
    assert!(after.metadata.annotations.expect("a hint")["tenant-operator.dev/stripe-event"].starts_with("evt_"));
    world.pay("acme").await;
    world.wait_phase("acme", Phase::Active).await;
    world.assert_one_of_each("acme").await;
}

/// An unsigned request must not cost more than a signed one, even with a huge header.
#[tokio::test]
async fn a_flood_of_signatures_is_refused_like_any_other() {
    let mut world = World::without_controller("signatures").await;
    world.start_web(&[]);
    let now = Timestamp::now().as_second();
    let flood = format!("t={now}{}", ",v1=".repeat(3000));
    assert_eq!(deliver(&world, Some(flood), "{}").await, 400);
    let body = "x".repeat(512 << 10);
    let wrong = format!("t={now}{}", format!(",v1={}", "00".repeat(32)).repeat(12));
    assert_eq!(deliver(&world, Some(wrong.clone()), &body).await, 400);
    assert_eq!(deliver(&world, Some(wrong), &(body + "x")).await, 413, "no event of Stripe is so large");
}

/// A late event of a signup that was deleted must not give its namesake the old id, nor the old subscription.
#[tokio::test]
async fn a_namesake_that_the_controller_never_saw_keeps_its_own_identity() {
    let mut world = World::without_controller("namesake-new").await;
    world.start_web(&[]);
    let tenant = world.create("acme", "starter", BillingMode::Stripe).await;
    let event = json!({"id": "evt_old", "type": "checkout.session.completed", "data": {"object": {
        "customer": "cus_old", "subscription": "sub_old",
        "metadata": {"tenant_id": "the-old-one", "tenant_namespace": world.namespace, "tenant_name": "acme"}}}})
    .to_string();
    let signature = sign(WEBHOOK_SECRET, Timestamp::now().as_second(), &event);
    assert_eq!(deliver(&world, Some(signature), &event).await, 200);
    let after = world.tenants().get("acme").await.expect("the tenant");
    assert_eq!(
        (after.spec.tenant_id.clone(), &after.spec.billing, &after.metadata.annotations),
        (None, &tenant.spec.billing, &None)
    );
    world.start_controller();
    world.pay("acme").await;
    let status = world.wait_phase("acme", Phase::Active).await;
    assert_eq!(status.namespace, Some(format!("tenant_{}", tenant.metadata.uid.expect("a uid"))));
}

/// Two operators may share an account, each with namespaces of its own: Stripe tells both of every event.
#[tokio::test]
async fn an_event_of_a_namespace_that_is_not_served_is_taken_and_changes_nothing() {
    let mut world = World::without_controller("unserved").await;
    let other = World::without_controller("served-elsewhere").await;
    let tenant = other.create("acme", "starter", BillingMode::Stripe).await;
    let served = world.namespace.clone();
    world.environment("WATCH_NAMESPACE", &served);
    world.start_web(&[]);
    let event = json!({"id": "evt_1", "type": "invoice.paid", "data": {"object": {"parent": {"subscription_details": {
        "metadata": {"tenant_id": tenant.metadata.uid, "tenant_namespace": other.namespace, "tenant_name": "acme"}}}}}})
    .to_string();
    let signed = sign(WEBHOOK_SECRET, Timestamp::now().as_second(), &event);
    assert_eq!(deliver(&world, Some(signed), &event).await, 200);
    let seen = other.tenants().get("acme").await.expect("the tenant");
    assert_eq!(seen.metadata.annotations, None, "no hint");
}
