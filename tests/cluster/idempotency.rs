//! Effects happen once, even if answers fail or are lost. Stripe saves failures under a request's idempotency key, and
//! the operator finds another way without doing anything twice.

use serde_json::{Value, json};
use tenant_operator::api::tenant::BillingMode;
use tenant_operator::api::{ConditionStatus, Phase, RETRY_ANNOTATION};

use crate::support::{World, shows, stripe_state};

const POSTS: [&str; 2] = ["/v1/customers", "/v1/checkout/sessions"];

/// A call that Stripe begins to execute and then fails, as often as that.
async fn breaks(world: &World, path: &str, execution: &str, times: u32) {
    let fault = json!({
        "provider": "stripe", "method": "POST", "path": path, "status": 500, "execution": execution, "times": times,
    });
    world.fault(fault).await;
}

async fn count(world: &World, kind: &str) -> usize {
    stripe_state(world).await[kind].as_array().map_or(0, Vec::len)
}

#[tokio::test]
async fn a_purchase_goes_on_after_failures_that_stripe_has_saved() {
    for execution in ["begun", "done"] {
        let world = World::start(&format!("saved-purchase-{execution}")).await;
        for path in POSTS {
            breaks(&world, path, execution, 2).await;
        }
        world.create("acme", "paid", BillingMode::Stripe).await;
        world.pay("acme").await;
        world.wait_phase("acme", Phase::Active).await;
        assert_eq!((count(&world, "customer").await, count(&world, "subscription").await), (1, 1), "{execution}");
        assert_eq!(count(&world, "checkout.session").await, 1, "{execution}");
    }
}

#[tokio::test]
async fn a_refund_goes_on_after_failures_that_stripe_has_saved() {
    for execution in ["begun", "done"] {
        let world = World::start(&format!("saved-refund-{execution}")).await;
        world.fault(json!({"provider": "pinecone", "path": "/vectors/upsert", "status": 400, "times": 100_000})).await;
        breaks(&world, "/v1/refunds", execution, 2).await;
        world.create("acme", "paid", BillingMode::Stripe).await;
        world.pay("acme").await;
        world.wait("acme", "refunded", shows("Refunded", ConditionStatus::True, "Refunded")).await;
        assert_eq!(count(&world, "refund").await, 1, "{execution}");
    }
}

/// A restart forgets which keys hold a saved failure, and Stripe tells again.
#[tokio::test]
async fn a_restart_forgets_no_saved_failure() {
    let mut world = World::without_controller("saved-restart").await;
    world.controller_args(&["--notice-retry=1"]);
    world.start_controller();
    breaks(&world, "/v1/checkout/sessions", "begun", 4).await;
    world.create("acme", "paid", BillingMode::Stripe).await;
    let tried = async || world.calls(|r| r["method"] == "POST" && r["path"] == "/v1/checkout/sessions").await > 3;
    world.until("it was tried more than once", tried).await;
    world.replace_controller();
    world.pay("acme").await;
    world.wait_phase("acme", Phase::Active).await;
    assert_eq!(count(&world, "checkout.session").await, 1);
}

/// The price of the Plan was wrong, and Stripe has saved the refusal.
#[tokio::test]
async fn a_price_that_is_corrected_can_be_bought_at_once() {
    let world = World::start("corrected-price").await;
    let plan = |price: &str| {
        format!(
            "apiVersion: tenant-operator.dev/v1alpha1\nkind: Plan\nmetadata: {{name: corrected-price}}\nspec:\n  \
             stripePriceId: {price}\n  monthlyPrice: {{amount: 4900}}\n  trialDays: 0\n  \
             sampleDocuments: [{{id: sample_1, text: RAG means retrieval-augmented generation.}}]\n"
        )
    };
    tenant_operator_dev::apply_yaml(&world.client, &plan("price_wrong")).await.expect("applied");
    world.create("acme", "corrected-price", BillingMode::Stripe).await;
    world.until("it was refused", async || world.calls(|r| r["path"] == "/v1/checkout/sessions").await > 2).await;
    tenant_operator_dev::apply_yaml(&world.client, &plan("price_paid")).await.expect("applied");
    world.pay("acme").await;
    world.wait_phase("acme", Phase::Active).await;
    world.assert_one_of_each("acme").await;
}

/// The answer to the charge of a new period is lost: sent again without a key, it would charge a second period.
#[tokio::test]
async fn a_period_whose_answer_is_lost_is_charged_once() {
    let world = World::start("period-once").await;
    world.fault(json!({"provider": "pinecone", "path": "/vectors/upsert", "status": 400, "times": 100_000})).await;
    world.create("acme", "paid", BillingMode::Stripe).await;
    world.pay("acme").await;
    world.wait("acme", "refunded", shows("Refunded", ConditionStatus::True, "Refunded")).await;
    world.clear_faults().await;
    let lost = json!({"provider": "stripe", "method": "POST", "path": "/v1/subscriptions", "drop_after_effect": true});
    world.fault(lost).await;
    world.annotate("acme", RETRY_ANNOTATION, "again").await;
    world.wait_phase("acme", Phase::Active).await;
    let invoices = stripe_state(&world).await["invoice"].as_array().expect("some").clone();
    let paid: Vec<_> = invoices.iter().filter_map(|i| i["amount_paid"].as_i64()).collect();
    assert_eq!(paid, [4900, 4900], "the first was given back");
}

/// Every POST that creates something or moves money carries a key; none is sent twice without one.
#[tokio::test]
async fn no_post_without_a_key_is_sent_again() {
    let world = World::with_active("no-resend").await;
    let posts = async || {
        world.calls(|r| r["provider"] == "stripe" && r["method"] == "POST" && r["idempotency_key"] == Value::Null).await
    };
    let before = posts().await;
    world.fault(json!({"provider": "stripe", "method": "POST", "path": "/v1/customers", "status": 500})).await;
    let rename = kube::api::Patch::Merge(json!({"spec": {"adminEmail": "grace@example.com"}}));
    world.tenants().patch("acme", &kube::api::PatchParams::default(), &rename).await.expect("patched");
    world.until("it was tried", async || posts().await > before).await;
    tokio::time::sleep(std::time::Duration::from_millis(400)).await;
    assert_eq!(posts().await, before + 1, "the next reconcile looks before it acts");
    world
        .until("the customer has the new address", async || {
            stripe_state(&world).await["customer"][0]["email"] == "grace@example.com"
        })
        .await;
    let all = world.sandbox_get("/_sandbox/requests").await;
    for request in all.as_array().expect("a list") {
        let path = request["path"].as_str().unwrap_or_default();
        let makes = ["/v1/customers", "/v1/checkout/sessions", "/v1/refunds"].contains(&path);
        let keyed = request["idempotency_key"].is_string();
        assert!(request["method"] != "POST" || !makes || keyed, "{request}");
    }
}
