//! Money and truth: what was paid, given back, cancelled, and what the status says of it.

use std::time::{Duration, Instant};

use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tenant_operator::api::conditions::get;
use tenant_operator::api::tenant::BillingMode;
use tenant_operator::api::{ConditionStatus, Phase, Plan, RETRY_ANNOTATION, TenantStatus};

use crate::support::{World, answer_dispute, create_plan, disputes, shows, stripe, stripe_state};

async fn wait_for(what: &str, holds: impl AsyncFn() -> bool) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < Duration::from_secs(90), "{what} never held");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn edit(world: &World, spec: Value) {
    let edit = Patch::Merge(json!({"spec": spec}));
    world.tenants().patch("acme", &PatchParams::default(), &edit).await.expect("edited");
}

#[tokio::test]
async fn a_failed_refund_stops_no_e_mail_and_is_shown_until_it_works() {
    let world = World::start("refund-fails").await;
    world.fault(json!({"provider": "pinecone", "path": "/vectors/upsert", "status": 400, "times": 1000})).await;
    world.fault(json!({"provider": "stripe", "path": "/v1/refunds", "status": 500, "times": 1000})).await;
    world.create("acme", "paid", BillingMode::Stripe).await;
    world.pay("acme").await;
    world.wait("acme", "without a refund", shows("Refunded", ConditionStatus::False, "StripeProviderError")).await;
    wait_for("the e-mail", async || world.mails("failed-mail").await == 1).await;
    let mails = world.sandbox_get("/_sandbox/mails").await;
    assert!(mails.to_string().contains("you will get your money back"), "{mails}");
    let alerts = world.sandbox_get("/_sandbox/alerts").await;
    assert!(alerts.to_string().contains("Provisioning of tenant"), "{alerts}");
    world.wait_event("acme", "StripeProviderError").await;
    world.clear_faults().await;
    let status = world.wait("acme", "refunded", shows("Refunded", ConditionStatus::True, "Refunded")).await;
    assert_eq!(status.refund.expect("a refund").amount, 4900);
    assert_eq!(world.mails("failed-mail").await, 1);
}

#[tokio::test]
async fn a_disputed_payment_is_not_refunded_twice_and_settled_once_the_bank_has_decided() {
    let world = World::start("refund-disputed").await;
    world.fault(json!({"provider": "pinecone", "path": "/vectors/upsert", "status": 400, "times": 100_000})).await;
    world.create("acme", "paid", BillingMode::Stripe).await;
    let url = world.wait("acme", "waiting", |s| s.checkout.is_some()).await.checkout.expect("a link").url;
    let answer = world.http.post(url).form(&[("card", "4000000000000259")]).send().await.expect("the page answers");
    assert_eq!(answer.status(), 303);
    let status =
        world.wait("acme", "disputed", shows("Refunded", ConditionStatus::False, "StripePaymentDisputed")).await;
    let dispute = disputes(&world).await.remove(0);
    let message = get(&status.conditions, "Refunded").expect("a condition").message.to_string();
    assert!(message.contains(&dispute) && message.contains("accept the dispute"), "{message}");
    answer_dispute(&world, &dispute, "losing_evidence").await;
    let status = world.wait("acme", "settled", |s| s.refund.is_some()).await;
    assert_eq!(status.refund.expect("a refund").amount, 4900, "by the bank");
    assert!(
        stripe_state(&world).await["refund"].as_array().is_none_or(Vec::is_empty),
        "and the operator made no refund"
    );
    // The new run is paid for again.
    world.clear_faults().await;
    world.annotate("acme", RETRY_ANNOTATION, "again").await;
    world.wait_phase("acme", Phase::Active).await;
    let invoices = stripe_state(&world).await["invoice"].as_array().expect("some").clone();
    assert_eq!(invoices.iter().filter_map(|i| i["amount_paid"].as_i64()).collect::<Vec<_>>(), [4900, 4900]);
}

#[tokio::test]
async fn a_partial_refund_is_completed_and_a_retry_that_works_leaves_nothing_behind() {
    let world = World::start("partial").await;
    world.fault(json!({"provider": "pinecone", "path": "/vectors/upsert", "status": 400, "times": 1000})).await;
    world.fault(json!({"provider": "stripe", "path": "/v1/refunds", "status": 500, "times": 3})).await;
    world.create("acme", "paid", BillingMode::Stripe).await;
    world.pay("acme").await;
    wait_for("the payment", async || stripe_state(&world).await["payment_intent"].is_array()).await;
    let intent = stripe_state(&world).await["payment_intent"][0]["id"].as_str().expect("an id").to_owned();
    world.clear_faults().await;
    world.fault(json!({"provider": "pinecone", "path": "/vectors/upsert", "status": 400, "times": 1000})).await;
    stripe(&world, reqwest::Method::POST, "/refunds", &[("payment_intent", &intent), ("amount", "900")]).await;
    // Whichever of the two was first, in the end all of it is back, once.
    let status = world.wait("acme", "refunded", |s| s.refund.is_some()).await;
    assert_eq!(status.refund.expect("a refund").amount, 4900);
    let refunds = stripe_state(&world).await["refund"].as_array().expect("some").clone();
    assert_eq!(refunds.iter().filter_map(|r| r["amount"].as_i64()).sum::<i64>(), 4900, "{refunds:?}");

    world.clear_faults().await;
    world.annotate("acme", RETRY_ANNOTATION, "again").await;
    let status = world.wait_phase("acme", Phase::Active).await;
    assert!(get(&status.conditions, "Refunded").is_none(), "{status:#?}");
    assert!(status.refund.is_none() && status.conditions[0].type_ == "Ready", "{status:#?}");
}

#[tokio::test]
async fn an_address_edited_before_the_payment_makes_no_second_customer() {
    let world = World::start("edited-address").await;
    world.create("acme", "paid", BillingMode::Stripe).await;
    let first = world.wait("acme", "given a link", |s| s.checkout.is_some()).await.checkout.expect("a link");
    edit(&world, json!({"adminEmail": "grace@example.com"})).await;
    // The next link is made for the same customer.
    stripe(&world, reqwest::Method::POST, &format!("/checkout/sessions/{}/expire", first.session_id), &[]).await;
    let another = |s: &TenantStatus| s.checkout.as_ref().is_some_and(|c| c.session_id != first.session_id);
    world.wait("acme", "given a new link", another).await;
    world.pay("acme").await;
    world.wait_phase("acme", Phase::Active).await;
    world.assert_one_of_each("acme").await;
}

#[tokio::test]
async fn a_purchase_cancelled_before_it_was_seen_gets_a_new_link() {
    let mut world = World::start("cancelled").await;
    world.create("acme", "paid", BillingMode::Stripe).await;
    let first = world.wait("acme", "given a link", |s| s.checkout.is_some()).await.checkout.expect("a link");
    world.controllers.remove(0).kill();
    world.pay("acme").await;
    let bought = stripe_state(&world).await["subscription"][0]["id"].as_str().expect("an id").to_owned();
    stripe(&world, reqwest::Method::DELETE, &format!("/subscriptions/{bought}"), &[]).await;
    world.start_controller();
    // The hint makes the controller read Stripe. Otherwise only the bulk resync or the link's expiry would.
    world.annotate("acme", "tenant-operator.dev/stripe-event", "evt_1").await;
    let another = |s: &TenantStatus| s.checkout.as_ref().is_some_and(|c| c.session_id != first.session_id);
    world.wait("acme", "given a new link", another).await;
    world.pay("acme").await;
    world.wait_phase("acme", Phase::Active).await;
}

#[tokio::test]
async fn a_customer_deleted_at_stripe_holds_up_no_deletion_and_a_new_one_can_pay() {
    let world = World::with_active("customer-gone").await;
    let customer = stripe_state(&world).await["customer"][0]["id"].as_str().expect("an id").to_owned();
    stripe(&world, reqwest::Method::DELETE, &format!("/customers/{customer}"), &[]).await;
    world
        .wait("acme", "canceled", |s| s.subscription.as_deref() == Some("canceled") || s.phase == Some(Phase::Active))
        .await;
    world.erase("acme").await;
    world.wait_gone("acme").await;

    // Before the payment: a new customer, although Stripe still knows the old one's idempotency key.
    world.create("beta", "paid", BillingMode::Stripe).await;
    let first = world.wait("beta", "given a link", |s| s.checkout.is_some()).await.checkout.expect("a link");
    let id = |t: &tenant_operator::api::Tenant| t.spec.billing.stripe.clone().and_then(|s| s.customer_id);
    let before = id(&world.tenants().get("beta").await.expect("the tenant")).expect("kept as soon as it was made");
    stripe(&world, reqwest::Method::DELETE, &format!("/customers/{before}"), &[]).await;
    world.annotate("beta", "tenant-operator.dev/stripe-event", "evt_1").await;
    let another = |s: &TenantStatus| s.checkout.as_ref().is_some_and(|c| c.session_id != first.session_id);
    world.wait("beta", "given a new link", another).await;
    assert_ne!(id(&world.tenants().get("beta").await.expect("the tenant")), Some(before));
    world.pay("beta").await;
    world.wait_phase("beta", Phase::Active).await;
}

#[tokio::test]
async fn every_subscription_of_a_deleted_tenant_is_cancelled() {
    let world = World::with_active("several").await;
    let tenant = world.tenants().get("acme").await.expect("the tenant");
    let (id, customer) = (tenant.tenant_id().to_owned(), stripe_state(&world).await["customer"][0]["id"].clone());
    let customer = customer.as_str().expect("an id");
    let session = |tenant_id: &str| {
        let form = [
            ("mode", "subscription"),
            ("customer", customer),
            ("line_items[0][price]", "price_paid"),
            ("line_items[0][quantity]", "1"),
            ("metadata[tenant_id]", tenant_id),
            ("subscription_data[metadata][tenant_id]", tenant_id),
        ];
        form.map(|(k, v)| (k.to_owned(), v.to_owned()))
    };
    // A second subscription of the tenant, an open link, and another tenant's subscription with the same customer.
    for (owner, paid) in [(id.as_str(), true), (id.as_str(), false), ("another-tenant", true)] {
        let form = session(owner);
        let form: Vec<_> = form.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let made = stripe(&world, reqwest::Method::POST, "/checkout/sessions", &form).await;
        if paid {
            let url = made["url"].as_str().expect("a link");
            let answer =
                world.http.post(url).form(&[("card", "4242424242424242")]).send().await.expect("the page answers");
            assert_eq!(answer.status(), 303);
        }
    }
    world.erase("acme").await;
    world.wait_gone("acme").await;
    let state = stripe_state(&world).await;
    for subscription in state["subscription"].as_array().expect("three") {
        let wanted = if subscription["metadata"]["tenant_id"] == id.as_str() { "canceled" } else { "active" };
        assert_eq!(subscription["status"], wanted, "{subscription}");
    }
    let open = state["checkout.session"].as_array().expect("some").iter().filter(|s| s["status"] == "open").count();
    assert_eq!(open, 0);
}

#[tokio::test]
async fn a_namespace_that_vanished_is_shown_and_remade_only_on_demand() {
    let world = World::with_active("vanished").await;
    let namespace = world.status("acme").await.namespace.expect("a namespace");
    let pinecone = format!("{}/namespaces/{namespace}", world.sandbox.pinecone_url);
    let gone = world.http.delete(pinecone).header("api-key", "x").send().await.expect("Pinecone answers");
    assert_eq!(gone.status(), 200);
    let missing = shows("NamespaceReady", ConditionStatus::False, "NamespaceMissing");
    let status = world.wait("acme", "shown", missing).await;
    assert!(shows("Stalled", ConditionStatus::True, "NamespaceMissing")(&status), "{status:#?}");
    assert!(status.message.is_some_and(|m| m.contains("kubectl tenant retry acme")));
    wait_for("the alert", async || {
        world.sandbox_get("/_sandbox/alerts").await.to_string().contains("no longer exists")
    })
    .await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let alerts = world.sandbox_get("/_sandbox/alerts").await;
    assert_eq!(alerts.as_array().map(Vec::len), Some(1), "{alerts}");
    assert_eq!(world.sandbox_get("/_sandbox/pinecone").await["namespaces"], json!({}), "nothing empty in its place");

    world.annotate("acme", RETRY_ANNOTATION, "recreate").await;
    world.wait("acme", "usable again", shows("NamespaceReady", ConditionStatus::True, "Usable")).await;
    assert_eq!(world.sandbox_get("/_sandbox/pinecone").await["namespaces"][&namespace], 1);
    world.wait_true("acme", "Ready").await;
    world.assert_transitions("acme").await;
    assert_eq!(world.mails("welcome").await, 1, "no second welcome");
}

#[tokio::test]
async fn an_event_whose_reading_fails_is_acted_on_when_stripe_is_back() {
    let mut world = World::without_controller("hint").await;
    // So that neither resync heals it.
    world.controller_args(&["--resync=600", "--full-resync=600"]);
    world.start_controller();
    world.start_web(&[]);
    world.create_paying("acme", "paid").await;
    world.fault(json!({"provider": "stripe", "method": "GET", "status": 500, "times": 6})).await;
    let id = stripe_state(&world).await["subscription"][0]["id"].as_str().expect("an id").to_owned();
    stripe(&world, reqwest::Method::POST, &format!("/subscriptions/{id}"), &[("pause_collection[behavior]", "void")])
        .await;
    let status =
        world.wait("acme", "shown", shows("BillingReady", ConditionStatus::False, "StripeProviderError")).await;
    assert!(shows("Ready", ConditionStatus::True, "Active")(&status), "the tenant is served all the same");
    world.wait_event("acme", "StripeProviderError").await;
    // If an admin pauses collection for a tenant that is served, the controller resumes it once it has seen that.
    wait_for("collection", async || stripe_state(&world).await["subscription"][0]["pause_collection"].is_null()).await;
    world.wait("acme", "cleared", shows("BillingReady", ConditionStatus::True, "Recovered")).await;
}

#[tokio::test]
async fn edited_limits_reach_the_plans_tenants_and_models_do_not() {
    let world = World::start("edited-plan").await;
    let plans: Api<Plan> = Api::all(world.client.clone());
    let edit = async |spec: Value| {
        let edit = Patch::Merge(json!({"spec": spec}));
        plans.patch("edited-plan", &PatchParams::default(), &edit).await.expect("edited");
    };
    create_plan(&plans, "edited-plan").await;
    world.create("acme", "edited-plan", BillingMode::Manual).await;
    world.wait_true("acme", "WelcomeEmailSent").await;
    edit(json!({"limits": {"documents": 7, "queriesPerMonth": 8}, "features": ["api_access"], "models": {"chat": "other"}}))
        .await;
    let followed =
        |s: &TenantStatus| s.config.as_ref().is_some_and(|c| c.limits.documents == 7 && c.features == ["api_access"]);
    let status = world.wait("acme", "given the new limits", followed).await;
    let quota = status.quota.expect("a quota");
    assert_eq!((quota.documents_limit, quota.queries_limit), (7, 8));
    assert_eq!(status.config.expect("a config").models.chat, "gpt-4o-mini", "vectors and answers stay as they are");

    edit(json!({"limitChanges": "NewTenants", "limits": {"documents": 1}})).await;
    // The edit reaches the controller a moment after it is made.
    wait_for("a new tenant with the new limits", async || {
        let name = format!("new-{}", world.tenants().list(&Default::default()).await.expect("a list").items.len());
        world.create(&name, "edited-plan", BillingMode::Manual).await;
        world.wait_phase(&name, Phase::Active).await.config.expect("a config").limits.documents == 1
    })
    .await;
    assert_eq!(world.status("acme").await.config.expect("a config").limits.documents, 7);
}

#[tokio::test]
async fn slow_is_alerted_once_in_each_run_and_a_new_run_observes_the_spec() {
    let mut world = World::without_controller("slow-runs").await;
    world.controller_args(&["--slow-after=1", "--retry-waits=3"]);
    world.start_controller();
    world.fault(json!({"provider": "pinecone", "path": "/vectors/upsert", "status": 500, "times": 12})).await;
    world.create("acme", "paid", BillingMode::Stripe).await;
    world.pay("acme").await;
    world.wait_phase("acme", Phase::Failed).await;
    edit(&world, json!({"companyName": "Renamed"})).await;
    let generation = world.tenants().get("acme").await.expect("the tenant").metadata.generation;
    world.wait("acme", "observed", |s| s.observed_generation == generation).await;
    world.annotate("acme", RETRY_ANNOTATION, "2").await;
    let slow = async || {
        let alerts = world.sandbox_get("/_sandbox/alerts").await;
        alerts.as_array().expect("a list").iter().filter(|a| a.to_string().contains("still not Active")).count()
    };
    wait_for("the second alert", async || slow().await == 2).await;
}
