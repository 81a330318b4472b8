//! Refunds: only for paid time that was not served.

use std::time::Duration;

use kube::api::{Patch, PatchParams};
use reqwest::Method;
use serde_json::{Value, json};
use tenant_operator::api::conditions::get;
use tenant_operator::api::tenant::BillingMode;
use tenant_operator::api::{ConditionStatus, Phase, RETRY_ANNOTATION, TenantStatus};

use crate::support::{
    World, answer_dispute, closed, day_comes, desire, disputes, paid, period_ends, said, shows, stripe, stripe_state,
};

/// Pinecone refuses the sample documents for good.
async fn fails_for_good(world: &World) {
    world.fault(json!({"provider": "pinecone", "path": "/vectors/upsert", "status": 400, "times": 100_000})).await;
}

async fn pay_with(world: &World, name: &str, card: &str) {
    let url = world.wait(name, "waiting", |s| s.checkout.is_some()).await.checkout.expect("a link").url;
    let answer = world.http.post(url).form(&[("card", card)]).send().await.expect("the page answers");
    assert_eq!(answer.status(), 303);
}

/// The amounts of all refunds that did not fail.
async fn refunds(world: &World) -> Vec<i64> {
    let all = stripe_state(world).await["refund"].as_array().cloned().unwrap_or_default();
    all.iter().filter(|r| r["status"] != "failed").filter_map(|r| r["amount"].as_i64()).collect()
}

async fn forward(world: &World, seconds: i64) {
    world.sandbox_post("/_sandbox/clock", json!({"advance_seconds": seconds})).await;
}

/// An Active customer who has paid for four months.
async fn old_customer(name: &str, args: &[&str]) -> World {
    let mut world = World::without_controller(name).await;
    world.controller_args(args);
    world.start_controller();
    world.create_paying("acme", "paid").await;
    for _ in 0..3 {
        period_ends(&world).await;
    }
    assert_eq!(paid(&world).await, [4900; 4]);
    world
}

/// Stays as it is for some seconds, which is far beyond every limit that the controller was given.
async fn waits_and_keeps_the_money(world: &World) -> TenantStatus {
    let long = |s: &TenantStatus| {
        s.phase == Some(Phase::Provisioning)
            && get(&s.conditions, "Stalled").is_some_and(|c| c.status == ConditionStatus::True)
    };
    world.wait("acme", "waiting beyond the limit", long).await;
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(world.status("acme").await.phase, Some(Phase::Provisioning));
    }
    let state = stripe_state(world).await;
    assert!(state["refund"].as_array().is_none_or(Vec::is_empty), "{}", state["refund"]);
    assert!(state["subscription"][0]["pause_collection"].is_null(), "{}", state["subscription"]);
    assert_eq!(world.mails("failed-mail").await, 0);
    world.status("acme").await
}

#[tokio::test]
async fn a_customer_of_four_months_keeps_the_account_and_the_charges_through_an_outage_and_a_lost_status() {
    let args = ["--hold-limit=1", "--hold-retry=1", "--slow-after=2"];
    let world = old_customer("old-outage", &args).await;
    world.fault(json!({"provider": "pinecone", "status": 500, "times": 100_000})).await;
    world.lose_status("acme").await;
    waits_and_keeps_the_money(&world).await;
    let status = world.wait("acme", "shown", shows("Slow", ConditionStatus::True, "WaitsWithoutLimit")).await;
    assert!(status.message.is_some_and(|m| m.contains("refunds nothing")));
    let alerts = world.sandbox_get("/_sandbox/alerts").await.to_string();
    assert!(alerts.contains("still not Active"), "{alerts}");
    world.clear_faults().await;
    world.wait_phase("acme", Phase::Active).await;
    assert_eq!((paid(&world).await, refunds(&world).await), (vec![4900; 4], vec![]));
    assert_eq!(world.mails("welcome").await, 1);
}

#[tokio::test]
async fn a_customer_of_four_months_is_set_up_again_after_any_number_of_failed_attempts() {
    let world = old_customer("old-attempts", &["--retry-waits=1"]).await;
    let namespace = world.status("acme").await.namespace.expect("a namespace");
    let url = format!("{}/namespaces/{namespace}", world.sandbox.pinecone_url);
    assert!(world.http.delete(url).header("api-key", "x").send().await.expect("it answers").status().is_success());
    world.wait("acme", "shown", shows("NamespaceReady", ConditionStatus::False, "NamespaceMissing")).await;
    fails_for_good(&world).await;
    world.annotate("acme", RETRY_ANNOTATION, "recreate").await;
    world.wait("acme", "tried often", |s| s.provisioning.as_ref().is_some_and(|p| p.attempts > 3)).await;
    waits_and_keeps_the_money(&world).await;
    world.clear_faults().await;
    world.wait_phase("acme", Phase::Active).await;
    assert_eq!((paid(&world).await, refunds(&world).await), (vec![4900; 4], vec![]));
}

/// Nothing tells any more that the tenant was served: even then, the months that were served stay paid.
#[tokio::test]
async fn of_four_payments_only_the_last_is_given_back() {
    let mut world = old_customer("old-forgotten", &["--retry-waits=1"]).await;
    fails_for_good(&world).await;
    world.controllers.remove(0).kill();
    let forget = Patch::Merge(json!({"metadata": {"annotations": {"tenant-operator.dev/sent": null}}}));
    world.tenants().patch("acme", &PatchParams::default(), &forget).await.expect("patched");
    world.lose_status("acme").await;
    world.start_controller();
    let status = world.wait("acme", "refunded", |s| s.refund.is_some()).await;
    assert_eq!(status.refund.map(|refund| refund.amount), Some(4900));
    assert_eq!(refunds(&world).await, [4900]);
    world.clear_faults().await;
    world.annotate("acme", RETRY_ANNOTATION, "again").await;
    world.wait_phase("acme", Phase::Active).await;
    assert_eq!(paid(&world).await, [4900; 5], "the period that begins with the retry is paid for, once");
}

#[tokio::test]
async fn a_subscription_cancelled_at_stripe_blocks_neither_the_refund_nor_the_closing() {
    let world = World::start("cancelled-failing").await;
    fails_for_good(&world).await;
    world
        .fault(json!({"provider": "stripe", "method": "GET", "path": "/v1/invoices", "status": 400, "times": 100_000}))
        .await;
    world.create("acme", "paid", BillingMode::Stripe).await;
    world.pay("acme").await;
    world.wait_phase("acme", Phase::Failed).await;
    let id = stripe_state(&world).await["subscription"][0]["id"].as_str().expect("an id").to_owned();
    stripe(&world, Method::POST, &format!("/subscriptions/{id}"), &[("pause_collection", "")]).await;
    stripe(&world, Method::DELETE, &format!("/subscriptions/{id}"), &[]).await;
    let close = Patch::Merge(json!({"spec": {"desired": "Deleted"}}));
    world.tenants().patch("acme", &PatchParams::default(), &close).await.expect("patched");
    world.clear_faults().await;
    let status = world.wait_phase("acme", Phase::Deleting).await;
    assert_eq!(status.refund.map(|refund| refund.amount), Some(4900));
    assert_eq!(refunds(&world).await, [4900]);
}

#[tokio::test]
async fn a_failed_tenant_is_refunded_before_its_erasure() {
    let world = World::start("erased-owed").await;
    fails_for_good(&world).await;
    world
        .fault(json!({"provider": "stripe", "method": "POST", "path": "/v1/refunds", "status": 500, "times": 100_000}))
        .await;
    world.create("acme", "paid", BillingMode::Stripe).await;
    world.pay("acme").await;
    world.wait_phase("acme", Phase::Failed).await;
    world.erase("acme").await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(world.tenants().get_opt("acme").await.expect("it answers").is_some(), "the refund comes first");
    world.clear_faults().await;
    world.wait_gone("acme").await;
    assert_eq!(refunds(&world).await, [4900]);
    assert_eq!(stripe_state(&world).await["subscription"][0]["status"], "canceled");
}

/// The customer closes the signup while the payment is under way, and the webhook has not come.
#[tokio::test]
async fn a_payment_that_comes_with_the_closing_of_a_signup_is_given_back() {
    let mut world = World::start("late-payment").await;
    world.create("acme", "paid", BillingMode::Stripe).await;
    world.wait("acme", "waiting", |s| s.checkout.is_some()).await;
    world.controllers.remove(0).kill();
    world.pay("acme").await;
    let close = Patch::Merge(json!({"spec": {"desired": "Deleted"}}));
    world.tenants().patch("acme", &PatchParams::default(), &close).await.expect("patched");
    world.start_controller();
    world.wait_phase("acme", Phase::Deleted).await;
    assert_eq!((paid(&world).await, refunds(&world).await), (vec![4900], vec![4900]));
}

#[tokio::test]
async fn a_refund_is_settled_when_stripe_has_completed_it() {
    let world = World::start("refund-pending").await;
    fails_for_good(&world).await;
    world.create("acme", "paid", BillingMode::Stripe).await;
    pay_with(&world, "acme", "4000000000007726").await;
    let status = world.wait("acme", "pending", shows("Refunded", ConditionStatus::False, "Pending")).await;
    assert!(status.refund.is_none(), "{status:#?}");
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(refunds(&world).await, [4900], "it is not made again while it is pending");
    forward(&world, 13 * 3600).await;
    let status = world.wait("acme", "refunded", shows("Refunded", ConditionStatus::True, "Refunded")).await;
    assert_eq!(status.refund.map(|refund| refund.amount), Some(4900));
    assert_eq!(refunds(&world).await, [4900]);
}

#[tokio::test]
async fn a_refund_that_fails_later_is_made_again_and_then_shown_to_people() {
    let world = World::start("refund-failing").await;
    fails_for_good(&world).await;
    world.create("acme", "paid", BillingMode::Stripe).await;
    pay_with(&world, "acme", "4000000000005126").await;
    world.wait("acme", "refunded", shows("Refunded", ConditionStatus::True, "Refunded")).await;
    for attempt in 1..=3 {
        assert_eq!(stripe_state(&world).await["refund"].as_array().map(Vec::len), Some(attempt));
        forward(&world, 13 * 3600).await;
        let more = async || stripe_state(&world).await["refund"].as_array().is_some_and(|all| all.len() > attempt);
        if attempt < 3 {
            world.until("another refund", more).await;
        }
    }
    let status = world.wait("acme", "shown", shows("Refunded", ConditionStatus::False, "StripeRefundFailed")).await;
    let message = get(&status.conditions, "Refunded").expect("a condition").message.to_string();
    assert!(message.contains("Refund it in Stripe's dashboard"), "{message}");
    assert_eq!(refunds(&world).await, Vec::<i64>::new());
}

#[tokio::test]
async fn of_a_payment_that_the_bank_has_given_back_in_part_the_rest_is_refunded() {
    let world = World::start("partial-dispute").await;
    fails_for_good(&world).await;
    world
        .fault(json!({"provider": "stripe", "method": "POST", "path": "/v1/refunds", "status": 500, "times": 100_000}))
        .await;
    world.create("acme", "paid", BillingMode::Stripe).await;
    world.pay("acme").await;
    world.wait_phase("acme", Phase::Failed).await;
    let customer = stripe_state(&world).await["customer"][0]["id"].clone();
    world.sandbox_post("/_sandbox/disputes", json!({"customer": customer, "amount": 1500})).await;
    world.clear_faults().await;
    world.wait("acme", "disputed", shows("Refunded", ConditionStatus::False, "StripePaymentDisputed")).await;
    let dispute = disputes(&world).await.remove(0);
    answer_dispute(&world, &dispute, "losing_evidence").await;
    let status = world.wait("acme", "settled", |s| s.refund.is_some()).await;
    assert_eq!(status.refund.map(|refund| refund.amount), Some(4900), "by the bank and by us");
    assert_eq!(refunds(&world).await, [3400]);
}

/// The permissions of `docs/providers.md`, as its table lists them.
fn documented() -> Value {
    let text = include_str!("../../docs/providers.md");
    let rows = text.split("| permission | level | for |").nth(1).expect("the table").lines().skip(2);
    let rows = rows.take_while(|line| line.starts_with('|')).map(|line| {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        (cells[1].to_owned(), json!(cells[2]))
    });
    Value::Object(rows.collect())
}

/// A purchase, another plan, a closing that is taken back, a failure with its refund, a retry, an erasure and
/// preflight.
#[tokio::test(flavor = "multi_thread")]
async fn the_documented_restricted_key_is_enough() {
    let mut world = World::without_controller("restricted-key").await;
    let key = "rk_test_documented";
    let permissions = documented();
    assert!(permissions.as_object().is_some_and(|all| all.len() > 5), "{permissions}");
    world.sandbox_post("/_sandbox/restricted-keys", json!({"key": key, "permissions": permissions})).await;
    world.environment("STRIPE_SECRET_KEY", key);
    world.start_controller();
    world.start_web(&[]);
    world.create("beta", "small", BillingMode::Stripe).await;
    world.pay("beta").await;
    world.wait_phase("beta", Phase::Active).await;
    let edit = async |spec: Value| {
        let edit = Patch::Merge(json!({"spec": spec}));
        world.tenants().patch("beta", &PatchParams::default(), &edit).await.expect("patched");
    };
    edit(json!({"plan": "middle"})).await;
    world.wait("beta", "on the middle plan", |s| s.config.as_ref().is_some_and(|c| &*c.plan == "middle")).await;
    edit(json!({"desired": "Deleted"})).await;
    world.wait_true("beta", "RenewalStopped").await;
    edit(json!({"desired": "Active"})).await;
    world.wait_phase("beta", Phase::Active).await;

    fails_for_good(&world).await;
    world.create("acme", "paid", BillingMode::Stripe).await;
    world.pay("acme").await;
    world.wait("acme", "refunded", shows("Refunded", ConditionStatus::True, "Refunded")).await;
    world.clear_faults().await;
    world.annotate("acme", RETRY_ANNOTATION, "again").await;
    world.wait_phase("acme", Phase::Active).await;
    world.erase("acme").await;
    world.wait_gone("acme").await;

    let preflight = world.command("preflight").arg("stripe").output().expect("it runs");
    let said = said(&preflight);
    assert!(!said.contains("permission"), "{said}");
    let refused = world.sandbox_get("/_sandbox/requests").await;
    let refused = refused.as_array().expect("a list").iter().filter(|r| r["provider"] == "stripe").count();
    assert!(refused > 20, "the calls were made with the key");
}

/// The bank returns the money of a customer who has used the service before, and who leaves.
#[tokio::test]
async fn a_refund_that_comes_back_is_made_again_before_the_customer_is_erased() {
    let mut world = World::start("refund-erasure").await;
    fails_for_good(&world).await;
    world.create("acme", "paid", BillingMode::Stripe).await;
    pay_with(&world, "acme", "4000000000005126").await;
    world.wait("acme", "refunded", shows("Refunded", ConditionStatus::True, "Refunded")).await;
    world.annotate("acme", "tenant-operator.dev/reached-own-query", "2026-11-01T00:00:00Z").await;
    desire(&world, "acme", tenant_operator::api::tenant::Desired::Deleted).await.expect("patched");
    world.wait("acme", "closed", closed).await;
    world
        .fault(json!({"provider": "stripe", "method": "POST", "path": "/v1/refunds", "status": 500, "times": 100_000}))
        .await;
    // No reconcile is under way that has looked at the refund before that.
    world.controllers.remove(0).kill();
    forward(&world, 13 * 3600).await;
    day_comes(&world, "acme").await;
    world.start_controller();
    let status = world.wait("acme", "owed again", |s| s.refund_owed_since.is_some() && s.erases_at.is_some()).await;
    assert!(status.refund.is_none() && status.phase == Some(Phase::Deleting), "{status:#?}");
    let held = |s: &TenantStatus| get(&s.conditions, "Erased").is_some_and(|c| c.message.contains("waive-refund"));
    world.wait("acme", "held", held).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_ne!(stripe_state(&world).await["customer"][0]["deleted"], true, "the customer leads to the payment");
    world.clear_faults().await;
    world.wait_phase("acme", Phase::Deleted).await;
    assert_eq!(refunds(&world).await, [4900]);
    assert_eq!(stripe_state(&world).await["customer"][0]["deleted"], true);
}

/// The bank returns the money after the account was closed, or while no controller runs and for longer than events are
/// read again.
#[tokio::test]
async fn a_refund_that_fails_after_the_closing_or_unseen_is_made_again() {
    let mut world = World::start("refund-returned").await;
    fails_for_good(&world).await;
    for name in ["closed", "unseen"] {
        world.create(name, "paid", BillingMode::Stripe).await;
        pay_with(&world, name, "4000000000005126").await;
        world.wait(name, "refunded", shows("Refunded", ConditionStatus::True, "Refunded")).await;
    }
    desire(&world, "closed", tenant_operator::api::tenant::Desired::Deleted).await.expect("patched");
    world.wait("closed", "closed", closed).await;
    assert_eq!(stripe_state(&world).await["refund"].as_array().map(Vec::len), Some(2));
    world.controllers.remove(0).kill();
    forward(&world, 13 * 3600).await;
    forward(&world, 3600).await;
    let id = stripe_state(&world).await["subscription"][1]["id"].as_str().expect("an id").to_owned();
    stripe(&world, Method::POST, &format!("/subscriptions/{id}"), &[("metadata[touched]", "1")]).await;
    world.start_controller();
    world.until("both are made again", async || refunds(&world).await.len() == 2).await;
    let all = stripe_state(&world).await["refund"].as_array().map_or(0, Vec::len);
    assert_eq!(all, 4);
    // An event tells of the next failure, of a closed account too.
    forward(&world, 13 * 3600).await;
    world.until("once more", async || stripe_state(&world).await["refund"].as_array().map_or(0, Vec::len) == 6).await;
}

/// A person gives the money back by bank transfer, and the operator tries again.
#[tokio::test]
async fn a_refund_that_a_person_settles_is_made_by_no_later_run_and_the_next_one_is_charged() {
    let mut world = World::without_controller("waived").await;
    world.controller_args(&["--retry-waits=1", "--hold-retry=1"]);
    world.start_controller();
    fails_for_good(&world).await;
    world.fault(json!({"provider": "stripe", "path": "/v1/refunds", "status": 500, "times": 100_000})).await;
    // Stripe's clock is far ahead of the cluster's, as a test clock may be.
    world.sandbox_post("/_sandbox/clock", json!({"advance_seconds": 40 * 24 * 3600})).await;
    world.create("acme", "paid", BillingMode::Stripe).await;
    world.pay("acme").await;
    let open = |s: &TenantStatus| get(&s.conditions, "Refunded").is_some_and(|c| c.message.contains("waive-refund="));
    let said = world.wait("acme", "waiting for its refund", open).await;
    let said = get(&said.conditions, "Refunded").expect("it is there").message.to_string();
    let value_of = |said: &str| {
        let value = said.split_once("waive-refund=").and_then(|(_, value)| value.split_whitespace().next());
        value.expect("a value").trim_end_matches('.').to_owned()
    };
    let refund = value_of(&said);
    // Collection is paused, so the renewal's invoice is void: it is the latest one, and no payment.
    period_ends(&world).await;
    let state = stripe_state(&world).await;
    let of_status = |status: &str| {
        let invoice = state["invoice"].as_array().and_then(|all| all.iter().find(|i| i["status"] == status));
        invoice.and_then(|invoice| invoice["id"].as_str()).expect("an invoice").to_owned()
    };
    let (paid_one, renewal) = (of_status("paid"), of_status("void"));
    for wrong in [format!("{refund}.{renewal}"), refund.clone()] {
        world.annotate("acme", tenant_operator::api::WAIVE_REFUND_ANNOTATION, &wrong).await;
        world.wait("acme", "asked", shows("Refunded", ConditionStatus::False, "PaymentNotNamed")).await;
        assert!(stripe_state(&world).await["subscription"][0]["metadata"]["waived_refund"].is_null());
    }
    let said = world.status("acme").await;
    let value = value_of(&get(&said.conditions, "Refunded").expect("it is there").message);
    assert_eq!(value, format!("{refund}.{paid_one}"));
    world.annotate("acme", tenant_operator::api::WAIVE_REFUND_ANNOTATION, &value).await;
    world.wait("acme", "waived", shows("Refunded", ConditionStatus::False, "Waived")).await;
    let state = stripe_state(&world).await;
    assert_eq!(state["subscription"][0]["metadata"]["waived_refund"], state["invoice"][0]["id"], "{state}");

    // It fails again, before anything is charged. A run that begins in another second has a refund of another name.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    world.clear_faults().await;
    fails_for_good(&world).await;
    world.annotate("acme", RETRY_ANNOTATION, "again").await;
    let again = |s: &TenantStatus| s.phase == Some(Phase::Failed) && s.refund.as_ref().is_some_and(|r| r.waived);
    let started = refund.rsplit_once('.').map(|(_, at)| at.to_owned());
    let other = |s: &TenantStatus| s.provisioning.as_ref().map(|run| run.started_at.to_string()) != started;
    world.wait("acme", "settled again", |s| again(s) && other(s)).await;
    assert_eq!(refunds(&world).await, [0; 0], "nothing is refunded twice");

    // It works: the customer pays for the period that begins, and is refunded that one if it is owed.
    world.clear_faults().await;
    world.annotate("acme", RETRY_ANNOTATION, "once more").await;
    world.wait_phase("acme", Phase::Active).await;
    assert_eq!((paid(&world).await, refunds(&world).await), (vec![4900, 0, 4900], vec![]), "the renewal is void");
}
