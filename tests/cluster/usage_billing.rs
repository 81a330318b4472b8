//! What tenants use is on Stripe's invoice, to the unit.

use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use reqwest::Method;
use serde_json::{Value, json};
use tenant_operator::api::tenant::BillingMode;
use tenant_operator::api::usage_prices::MeteredUsage;
use tenant_operator::api::{ConditionStatus, Phase, Plan, Timestamp, Unit, UsageBilling};
use tenant_operator::ledger::account::Period;
use tenant_operator::ledger::units::Amounts;
use tenant_operator::ledger::wire::{Counted, Event, Events};
use tokio::process::Command;

use crate::support::{
    BINARY, World, control_plane, free_port, period_before, period_ends, plan_change, said, shows, stripe,
    stripe_objects,
};

const HOUR: i64 = 3600;

/// A world with a meter for queries, and no controller.
pub async fn world(name: &str) -> (World, String) {
    let mut world = World::without_controller(name).await;
    world.controller_args(&["--usage-interval=1", "--usage-billing-interval=1", "--usage-billing-lag=2"]);
    let meter = meter(&world, "queries").await;
    (world, meter)
}

pub fn id(object: &Value) -> String {
    object["id"].as_str().expect("an id").to_owned()
}

/// A price of the meter, with the fields that say what it costs.
pub async fn price(world: &World, meter: &str, cost: &[(&str, &str)]) -> String {
    let product = id(&stripe(world, Method::POST, "/products", &[("name", "queries")]).await);
    let form = [
        &[
            ("product", product.as_str()),
            ("currency", "usd"),
            ("recurring[interval]", "month"),
            ("recurring[usage_type]", "metered"),
            ("recurring[meter]", meter),
        ][..],
        cost,
    ];
    id(&stripe(world, Method::POST, "/prices", &form.concat()).await)
}

pub fn plan(name: &str, amount: i64, usage: &Value) -> Plan {
    let spec = json!({
        "stripePriceId": format!("price_{name}"), "monthlyPrice": {"amount": amount}, "trialDays": 0, "usagePrices": usage,
        "sampleDocuments": [{"id": "sample_1", "text": "RAG means retrieval-augmented generation."}],
    });
    let plan = json!({
        "apiVersion": "tenant-operator.dev/v1alpha1", "kind": "Plan", "metadata": {"name": name}, "spec": spec,
    });
    serde_json::from_value(plan).expect("a plan")
}

pub async fn offer(world: &World, plan: &Plan) {
    let (id, amount) = (plan.spec.stripe_price_id.as_deref().expect("a price"), plan.spec.monthly_price.amount);
    world.sandbox.add_price(id, amount, "usd");
    Api::<Plan>::all(world.client.clone()).create(&PostParams::default(), plan).await.expect("the plan is taken");
}

/// The tenant's period at the ledger, or an earlier one.
async fn period(world: &World, earlier: usize) -> Period {
    period_before(&world.status("acme").await.quota.expect("a quota"), earlier)
}

/// The tenant uses so many queries.
pub async fn used(world: &World, name: &str, queries: i64) {
    used_units(world, name, Amounts::of(Unit::Queries, queries)).await;
}

async fn used_units(world: &World, name: &str, amounts: Amounts) {
    world.ledger().settle(name, &counted(world, amounts).await).await.expect("counted");
}

/// So many documents are gone.
async fn deleted(world: &World, name: &str, documents: i64) {
    let gone = counted(world, Amounts::of(Unit::Documents, documents)).await;
    world.ledger().release(name, &gone).await.expect("counted");
}

/// In the tenant's present period.
async fn counted(world: &World, amounts: Amounts) -> Counted {
    let tenant = world.tenants().get("acme").await.expect("there").spec.tenant_id.expect("an id");
    Counted {
        tenant: tenant.try_into().expect("a name"),
        period: period(world, 0).await.try_into().expect("a period"),
        amounts,
    }
}

/// Another system reports what was used in the period before.
async fn told_late(world: &World, amounts: Amounts) {
    let tenant = world.tenants().get("acme").await.expect("there").spec.tenant_id.expect("an id");
    let event = Event {
        source: "gateway".into(),
        id: "late".into(),
        tenant: tenant.try_into().expect("a name"),
        period: period(world, 1).await.try_into().expect("a period"),
        amounts,
        time: Timestamp::now().plus(-24 * HOUR),
    };
    world.ledger().events(&Events { events: vec![event] }).await.expect("counted");
}

/// An hour passes, for Stripe and the ledger.
pub async fn hour_passes(world: &World) {
    world.sandbox_post("/_sandbox/clock", json!({"advance_seconds": HOUR})).await;
    world.end_ledgers_hour();
}

pub async fn sent(world: &World, queries: i64) -> MeteredUsage {
    let has = |meters: &[MeteredUsage]| meters.iter().any(|usage| usage.sent == queries);
    let status = world.wait("acme", "sent", |s| s.usage_billing.as_ref().is_some_and(|b| has(&b.meters))).await;
    status.usage_billing.expect("billed").meters[0].clone()
}

/// What Stripe's meter has, and by how many events.
async fn at_stripe(world: &World) -> (i64, usize) {
    let events = stripe_objects(world, "billing.meter_event").await;
    (events.iter().filter_map(|event| event["event"]["value"].as_i64()).sum(), events.len())
}

/// Price, quantity and amount of the lines of usage on all invoices that are final.
async fn invoiced(world: &World) -> Vec<(String, i64, i64)> {
    let invoices = stripe_objects(world, "invoice").await;
    let lines = invoices.iter().filter(|invoice| invoice["status"] != "draft");
    let lines = lines.flat_map(|invoice| invoice["lines"]["data"].as_array().cloned().unwrap_or_default());
    let usage = lines.filter(|line| line["description"].as_str().is_some_and(|text| text.contains(" × ")));
    let line = |line: Value| {
        let price = line["pricing"]["price_details"]["price"].as_str().unwrap_or_default().to_owned();
        (price, line["quantity"].as_i64().unwrap_or(0), line["amount"].as_i64().unwrap_or(0))
    };
    usage.map(line).collect()
}

fn total(lines: &[(String, i64, i64)]) -> (i64, i64) {
    lines.iter().fold((0, 0), |(queries, cents), (_, q, c)| (queries + q, cents + c))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_invoice_equals_the_usage_to_the_unit_whatever_fails() {
    let (mut world, meter) = world("usage-invoice").await;
    let tiers = [
        ("billing_scheme", "tiered"),
        ("tiers_mode", "graduated"),
        ("tiers[0][up_to]", "5"),
        ("tiers[0][unit_amount]", "0"),
        ("tiers[1][up_to]", "inf"),
        ("tiers[1][unit_amount]", "10"),
    ];
    let price = price(&world, &meter, &tiers).await;
    let usage = |unit: &str, included: i64| json!([{"unit": unit, "stripePriceId": price, "included": included}]);
    let plans = Api::<Plan>::all(world.client.clone());
    let refused = plans.create(&PostParams::default(), &plan("stored", 1, &usage("documents", 5))).await;
    let why = refused.expect_err("documents are a level").to_string();
    assert!(why.contains("what is stored cannot be billed by usage"), "{why}");
    // At first, the Plan promises more than the price.
    offer(&world, &plan("by-usage", 2000, &usage("queries", 6))).await;
    world.start_controller();
    world.create_paying("acme", "by-usage").await;
    let items = stripe_objects(&world, "subscription").await[0]["items"]["data"].as_array().cloned().expect("items");
    assert_eq!((items.len(), items[1]["quantity"].clone()), (2, Value::Null), "bought with the plan: {items:?}");
    used_units(&world, "a", Amounts::of(Unit::Queries, 12).with(Unit::Documents, 3)).await;
    hour_passes(&world).await;
    world.wait("acme", "held", shows("UsageBilled", ConditionStatus::False, "PriceUnfit")).await;
    assert_eq!(at_stripe(&world).await, (0, 0));
    let right = Patch::Merge(json!({"spec": {"usagePrices": usage("queries", 5)}}));
    plans.patch("by-usage", &PatchParams::default(), &right).await.expect("patched");
    sent(&world, 12).await;
    world.wait("acme", "billed", shows("UsageBilled", ConditionStatus::True, "Sent")).await;

    // An answer is lost, and the event is sent again.
    world
        .fault(json!({
            "provider": "stripe", "method": "POST", "path": "/v1/billing/meter_events", "drop_after_effect": true, "times": 1,
        }))
        .await;
    used(&world, "b", 7).await;
    // More is deleted in this hour than stored.
    deleted(&world, "gone-a", 2).await;
    hour_passes(&world).await;
    let recorded = sent(&world, 19).await;
    assert_eq!(at_stripe(&world).await, (19, 2));

    // Killed between sending and recording: the status is that of before. Then all of it is lost.
    world.controllers.remove(0).kill();
    let before = MeteredUsage { sent: 12, through: recorded.through.plus(-HOUR), ..recorded.clone() };
    let status = Patch::Merge(json!({"status": {"usageBilling": {"meters": [before]}}}));
    world.tenants().patch_status("acme", &PatchParams::default(), &status).await.expect("patched");
    world.start_controller();
    assert_eq!(sent(&world, 19).await, recorded);
    world.lose_status("acme").await;
    world.wait_phase("acme", Phase::Active).await;
    assert_eq!(sent(&world, 19).await, recorded);
    assert_eq!(at_stripe(&world).await, (19, 2), "nothing twice");

    // The month ends. What comes while the invoice is a draft is on it, also of an earlier period.
    period_ends(&world).await;
    used(&world, "c", 3).await;
    told_late(&world, Amounts::of(Unit::Queries, 4)).await;
    world.end_ledgers_hour();
    sent(&world, 26).await;
    world.sandbox_post("/_sandbox/clock", json!({"advance_seconds": 2 * HOUR})).await;
    world.until("the invoice is final", async || total(&invoiced(&world).await).0 == 26).await;
    assert_eq!(total(&invoiced(&world).await), (26, 210), "five are included: {:?}", invoiced(&world).await);

    // What comes later is on the next one.
    used(&world, "d", 9).await;
    world.end_ledgers_hour();
    sent(&world, 35).await;
    period_ends(&world).await;
    world.sandbox_post("/_sandbox/clock", json!({"advance_seconds": 2 * HOUR})).await;
    world.until("the next invoice is final", async || total(&invoiced(&world).await).0 == 35).await;
    assert_eq!(total(&invoiced(&world).await), (35, 250));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_change_in_the_middle_of_a_period_loses_no_usage() {
    let (mut world, meter) = world("usage-plan-change").await;
    let (dear, cheap) =
        (price(&world, &meter, &[("unit_amount", "10")]).await, price(&world, &meter, &[("unit_amount", "3")]).await);
    for (name, amount, price) in [("usage-less", 2000, &dear), ("usage-more", 5000, &cheap)] {
        offer(&world, &plan(name, amount, &json!([{"unit": "queries", "stripePriceId": price}]))).await;
    }
    world.start_controller();
    world.create_paying("acme", "usage-less").await;
    used(&world, "a", 5).await;
    hour_passes(&world).await;
    sent(&world, 5).await;
    used(&world, "b", 4).await;
    let change = Patch::Merge(json!({"spec": {"plan": "usage-more"}}));
    world.tenants().patch("acme", &PatchParams::default(), &change).await.expect("patched");
    let applied = tenant_operator::api::status::PlanChangeState::Applied;
    world.wait("acme", "on the larger plan", |s| plan_change(s) == Some(applied)).await;
    world.wait("acme", "noticed", |s| s.usage_billing.as_ref().is_some_and(|b| b.replace_at.is_some())).await;
    used(&world, "c", 2).await;
    hour_passes(&world).await;
    let on = |price: &str, sent: i64| {
        let price = price.to_owned();
        move |usage: &MeteredUsage| *usage.price == *price && usage.sent == sent
    };
    let wait = async |what: &str, wanted: &dyn Fn(&MeteredUsage) -> bool| {
        world.wait("acme", what, |s| s.usage_billing.as_ref().is_some_and(|b| b.meters.iter().any(wanted))).await
    };
    wait("the price of the larger plan", &on(&cheap, 0)).await;
    used(&world, "d", 7).await;
    hour_passes(&world).await;
    wait("sent", &on(&cheap, 7)).await;
    assert_eq!(at_stripe(&world).await.0, 18);
    period_ends(&world).await;
    world.sandbox_post("/_sandbox/clock", json!({"advance_seconds": 2 * HOUR})).await;
    world.until("the invoice is final", async || total(&invoiced(&world).await).0 == 18).await;
    let mut lines = invoiced(&world).await;
    lines.sort_unstable_by_key(|(_, queries, _)| *queries);
    assert_eq!(lines, [(cheap, 7, 21), (dear, 11, 110)]);
    assert_eq!(stripe_objects(&world, "subscription").await.len(), 1);
}

/// Two plans price different units. Each unit is on the invoice for the time in which its price was on the subscription,
/// the hour of the change at the prices before, and what comes late at the prices that are there.
#[tokio::test(flavor = "multi_thread")]
async fn a_unit_that_only_one_of_two_plans_prices_is_billed_for_its_time() {
    let (mut world, queries) = world("usage-other-unit").await;
    let tokens = meter(&world, "tokens").await;
    let (query, token) = (
        price(&world, &queries, &[("unit_amount", "10")]).await,
        price(&world, &tokens, &[("unit_amount", "3")]).await,
    );
    offer(&world, &plan("by-query", 2000, &json!([{"unit": "queries", "stripePriceId": query}]))).await;
    offer(&world, &plan("by-token", 5000, &json!([{"unit": "completionTokens", "stripePriceId": token}]))).await;
    world.start_controller();
    world.create_paying("acme", "by-query").await;
    let amounts = |queries, tokens| Amounts::of(Unit::Queries, queries).with(Unit::CompletionTokens, tokens);
    used_units(&world, "a", amounts(5, 100)).await;
    hour_passes(&world).await;
    sent(&world, 5).await;
    let change = Patch::Merge(json!({"spec": {"plan": "by-token"}}));
    world.tenants().patch("acme", &PatchParams::default(), &change).await.expect("patched");
    let applied = tenant_operator::api::status::PlanChangeState::Applied;
    world.wait("acme", "on the other plan", |s| plan_change(s) == Some(applied)).await;
    world.wait("acme", "noticed", |s| s.usage_billing.as_ref().is_some_and(|b| b.replace_at.is_some())).await;
    used_units(&world, "b", amounts(4, 50)).await;
    hour_passes(&world).await;
    let by_token = |billing: &UsageBilling| billing.meters.iter().all(|usage| *usage.price == *token);
    world.wait("acme", "replaced", |s| s.usage_billing.as_ref().is_some_and(|b| by_token(b))).await;
    assert_eq!(at_stripe(&world).await.0, 9, "the tokens of the hour of the change had no price");
    used_units(&world, "c", amounts(6, 30)).await;
    hour_passes(&world).await;
    sent(&world, 30).await;

    period_ends(&world).await;
    used_units(&world, "d", amounts(1, 8)).await;
    told_late(&world, amounts(3, 7)).await;
    world.end_ledgers_hour();
    sent(&world, 45).await;
    world.wait("acme", "billed", shows("UsageBilled", ConditionStatus::True, "Sent")).await;
    world.sandbox_post("/_sandbox/clock", json!({"advance_seconds": 2 * HOUR})).await;
    world.until("the invoice is final", async || total(&invoiced(&world).await).0 >= 54).await;
    let mut lines = invoiced(&world).await;
    lines.sort_unstable_by_key(|(_, queries, _)| *queries);
    assert_eq!(lines, [(query, 9, 90), (token, 45, 135)]);
}

/// A person puts another price of a unit on the subscription, with a meter of its own: both would bill the same usage.
#[tokio::test(flavor = "multi_thread")]
async fn a_unit_with_two_prices_is_sent_to_neither() {
    let (mut world, [_, other]) = two_meters("usage-two-prices").await;
    let (path, item) = item_of(&world, &other).await;
    assert_eq!(item, "", "not yet");
    world.controllers.remove(0).kill();
    stripe(&world, Method::POST, &path, &[("items[0][price]", &*other)]).await;
    let plans = Api::<Plan>::all(world.client.clone());
    let another = plan("usage-of-others", 3000, &json!([{"unit": "queries", "stripePriceId": other}]));
    plans.create(&PostParams::default(), &another).await.expect("the plan is taken");
    used(&world, "b", 4).await;
    hour_passes(&world).await;
    world.start_controller();
    world.wait("acme", "held", shows("UsageBilled", ConditionStatus::False, "UnitPricedTwice")).await;
    assert_eq!(at_stripe(&world).await, (5, 1));
    let (path, item) = item_of(&world, &other).await;
    stripe(&world, Method::POST, &path, &[("items[0][id]", &*item), ("items[0][deleted]", "true")]).await;
    sent(&world, 9).await;
    assert_eq!(at_stripe(&world).await, (9, 2), "each hour once");
}

/// A Checkout that was opened before the Plan named another price sells the earlier one. It gives way: both would bill
/// the same meter.
#[tokio::test(flavor = "multi_thread")]
async fn a_price_that_no_plan_names_any_more_gives_way_to_its_successor() {
    let (mut world, meter) = world("usage-successor").await;
    let (before, after) =
        (price(&world, &meter, &[("unit_amount", "10")]).await, price(&world, &meter, &[("unit_amount", "3")]).await);
    let usage = |price: &str| json!([{"unit": "queries", "stripePriceId": price}]);
    offer(&world, &plan("price-changed", 2000, &usage(&before))).await;
    world.start_controller();
    world.create("acme", "price-changed", BillingMode::Stripe).await;
    world.wait("acme", "waiting for payment", |s| s.checkout.is_some()).await;
    hour_passes(&world).await;
    let edited = Patch::Merge(json!({"spec": {"usagePrices": usage(&after)}}));
    Api::<Plan>::all(world.client.clone())
        .patch("price-changed", &PatchParams::default(), &edited)
        .await
        .expect("patched");
    world.pay("acme").await;
    world.wait_true("acme", "WelcomeEmailSent").await;
    let prices = async || {
        let subscriptions = stripe_objects(&world, "subscription").await;
        let items = subscriptions[0]["items"]["data"].as_array().cloned().expect("items");
        items.iter().map(|item| item["price"]["id"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    assert!(prices().await.contains(&before), "bought with the earlier price: {:?}", prices().await);
    world.wait("acme", "noticed", |s| s.usage_billing.as_ref().is_some_and(|b| b.replace_at.is_some())).await;
    used(&world, "a", 5).await;
    hour_passes(&world).await;
    let has = |meters: &[MeteredUsage]| meters.len() == 1 && *meters[0].price == *after;
    world.wait("acme", "replaced", |s| s.usage_billing.as_ref().is_some_and(|b| has(&b.meters))).await;
    let now = prices().await;
    assert!(now.len() == 2 && now.contains(&after) && !now.contains(&before), "one price of the meter: {now:?}");
    used(&world, "b", 7).await;
    hour_passes(&world).await;
    sent(&world, 7).await;
    assert_eq!(at_stripe(&world).await, (12, 2), "each hour once");
}

/// The path of the subscription at Stripe, and the id of its item with a price, or nothing if it has none.
async fn item_of(world: &World, price: &str) -> (String, String) {
    let subscription = stripe_objects(world, "subscription").await.remove(0);
    let items = subscription["items"]["data"].as_array().expect("items");
    let item = items.iter().find(|item| item["price"]["id"] == *price).map(id).unwrap_or_default();
    (format!("/subscriptions/{}", id(&subscription)), item)
}

/// A person takes the metered price off the subscription at Stripe, while usage waits to be sent.
#[tokio::test(flavor = "multi_thread")]
async fn usage_without_a_price_waits_until_there_is_one() {
    let (mut world, meter) = world("usage-waits").await;
    let price = price(&world, &meter, &[("unit_amount", "10")]).await;
    let usage = json!([{"unit": "queries", "stripePriceId": price}]);
    acme_buys(&mut world, "usage-waits", &usage).await;
    used(&world, "a", 5).await;
    hour_passes(&world).await;
    sent(&world, 5).await;
    world.controllers.remove(0).kill();
    used(&world, "b", 7).await;
    hour_passes(&world).await;
    let (path, item) = item_of(&world, &price).await;
    stripe(&world, Method::POST, &path, &[("items[0][id]", &item), ("items[0][deleted]", "true")]).await;
    let plans = Api::<Plan>::all(world.client.clone());
    let charge = async |usage: &Value| {
        let edit = Patch::Merge(json!({"spec": {"usagePrices": usage}}));
        plans.patch("usage-waits", &PatchParams::default(), &edit).await.expect("patched");
    };
    charge(&json!([])).await;
    world.start_controller();
    world.wait("acme", "shown", shows("UsageBilled", ConditionStatus::False, "WaitsForPrice")).await;
    let waits = async || world.status("acme").await.usage_billing.map(|billing| billing.waiting[0].amount);
    assert_eq!(waits().await, Some(7));
    charge(&usage).await;
    world.wait("acme", "noticed", |s| s.usage_billing.as_ref().is_some_and(|b| b.replace_at.is_some())).await;
    hour_passes(&world).await;
    sent(&world, 7).await;
    world.wait("acme", "billed", shows("UsageBilled", ConditionStatus::True, "Sent")).await;
    assert_eq!(at_stripe(&world).await, (12, 2), "each once");
}

/// Waits until the status shows these numbers.
async fn differs(world: &World, sent: i64, theirs: i64) {
    let shown = |billing: &UsageBilling| {
        billing.differences.iter().any(|shown| (shown.sent, shown.at_stripe) == (sent, theirs))
    };
    world.wait("acme", "it differs", |s| s.usage_billing.as_ref().is_some_and(|b| shown(b))).await;
    world.wait("acme", "shown", shows("UsageBilled", ConditionStatus::False, "NumbersDiffer")).await;
}

/// What `kubectl tenant settle-usage` answers an admin who keeps one of the numbers.
pub async fn settle(namespace: &str, keep: &str, confirm: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(BINARY);
    command.args(["settle-usage", "acme", "-n", namespace, "--unit", "queries", "--keep", keep]).args(confirm);
    let output = command.arg("--kubeconfig").arg(&control_plane().kubeconfig).output().await.expect("it runs");
    (output.status.code(), said(&output))
}

/// Another system reports to the customer's meter, and the status of a restored object says more than Stripe has. Each
/// waits for a person, who decides once, and whatever is decided, what is used later is billed once.
#[tokio::test(flavor = "multi_thread")]
async fn a_person_decides_about_numbers_that_differ() {
    let (mut world, meter) = world("usage-differs").await;
    let price = price(&world, &meter, &[("unit_amount", "10")]).await;
    acme_buys(&mut world, "usage-differs", &json!([{"unit": "queries", "stripePriceId": price}])).await;
    used(&world, "a", 5).await;
    hour_passes(&world).await;
    let recorded = sent(&world, 5).await;
    let namespace = world.namespace.clone();
    let settle = async |keep: &str, confirm: &[&str]| settle(&namespace, keep, confirm).await;
    let (code, said) = settle("stripe", &["--confirm", "acme"]).await;
    assert!(code == Some(1) && said.contains("nothing to decide"), "{said}");

    let customer = world.tenants().get("acme").await.expect("there").spec.billing.stripe.expect("ids").customer_id;
    let customer = customer.expect("a customer");
    let foreign = [("event_name", "queries"), ("payload[stripe_customer_id]", &*customer), ("payload[value]", "3")];
    stripe(&world, Method::POST, "/billing/meter_events", &foreign).await;
    used(&world, "b", 4).await;
    hour_passes(&world).await;
    differs(&world, 5, 8).await;
    assert_eq!(at_stripe(&world).await, (8, 2), "nothing is sent while the numbers differ");
    let (code, said) = settle("stripe", &[]).await;
    assert!(code == Some(1) && said.contains("--confirm acme"), "{said}");
    let (code, said) = settle("stripe", &["--confirm", "acme"]).await;
    assert!(code == Some(0) && said.contains("the 8 queries that Stripe has"), "{said}");
    sent(&world, 12).await;
    world.wait("acme", "billed", shows("UsageBilled", ConditionStatus::True, "Sent")).await;
    assert_eq!(at_stripe(&world).await, (12, 3));

    // The object comes back from a backup of another cluster that had sent more.
    world.controllers.remove(0).kill();
    let more = MeteredUsage { sent: 18, through: recorded.through.plus(HOUR), ..recorded };
    let status = Patch::Merge(json!({"status": {"usageBilling": {"meters": [more]}}}));
    world.tenants().patch_status("acme", &PatchParams::default(), &status).await.expect("patched");
    used(&world, "c", 2).await;
    hour_passes(&world).await;
    world.start_controller();
    differs(&world, 18, 12).await;
    assert_eq!(at_stripe(&world).await, (12, 3));
    let (code, said) = settle("ledger", &["--confirm", "acme"]).await;
    assert!(code == Some(0) && said.contains("sends 6 queries"), "{said}");
    sent(&world, 20).await;
    world.wait("acme", "billed", shows("UsageBilled", ConditionStatus::True, "Sent")).await;
    assert_eq!(at_stripe(&world).await, (20, 5), "the difference once, and what came later once");
    let decision = world.status("acme").await.usage_billing.and_then(|billing| billing.decision).expect("kept");
    assert_eq!((decision.ledger, decision.stripe), (18, 12));

    // Without its status, all hours since the price began look unsent. Stripe's number covers them.
    world.lose_status("acme").await;
    differs(&world, 0, 20).await;
    let (code, said) = settle("stripe", &["--confirm", "acme"]).await;
    assert!(code == Some(0) && said.contains("Of the 11 that were not sent yet"), "{said}");
    sent(&world, 20).await;
    world.wait("acme", "billed", shows("UsageBilled", ConditionStatus::True, "Sent")).await;
    assert_eq!(at_stripe(&world).await, (20, 5), "nothing is sent again");
}

/// Offers a plan with these usage prices, and has acme buy it.
pub async fn acme_buys(world: &mut World, plan_name: &str, usage: &Value) {
    offer(world, &plan(plan_name, 2000, usage)).await;
    world.start_controller();
    world.create_paying("acme", plan_name).await;
}

/// A meter that sums, named by its events.
pub async fn meter(world: &World, name: &str) -> String {
    let form = [("display_name", name), ("event_name", name), ("default_aggregation[formula]", "sum")];
    id(&stripe(world, Method::POST, "/billing/meters", &form).await)
}

/// A tenant that has used five queries, whose plan gets a price with another meter. Returns both prices.
async fn two_meters(name: &str) -> (World, [String; 2]) {
    let (mut world, first) = world(name).await;
    world.controller_args(&["--usage-interval=1", "--usage-billing-interval=1", "--usage-billing-lag=2"]);
    let other = meter(&world, "questions").await;
    let before = price(&world, &first, &[("unit_amount", "10")]).await;
    let after = price(&world, &other, &[("unit_amount", "3")]).await;
    acme_buys(&mut world, name, &json!([{"unit": "queries", "stripePriceId": before}])).await;
    used(&world, "a", 5).await;
    hour_passes(&world).await;
    sent(&world, 5).await;
    (world, [before, after])
}

/// The plan gets another price. So many queries of the hour of the change are sent at the price before.
async fn move_to(world: &World, plan: &str, price: &str, (operation, queries): (&str, i64)) {
    change_price(world, plan, price).await;
    world.wait("acme", "noticed", |s| s.usage_billing.as_ref().is_some_and(|b| b.replace_at.is_some())).await;
    used(world, operation, queries).await;
    hour_passes(world).await;
    let replaced = |billing: &UsageBilling| billing.meters.iter().any(|usage| *usage.price == *price);
    world.wait("acme", "replaced", |s| s.usage_billing.as_ref().is_some_and(|b| replaced(b))).await;
}

/// A tenant whose plan was edited twice, each time with a price of another meter, and whose status then comes back from
/// before the first change. No Plan names the meter in between any more.
async fn back_from_before_two_changes(name: &str, third: Option<&str>) -> (World, String) {
    let (mut world, [before, between]) = two_meters(name).await;
    let last = match third {
        Some(third) => price(&world, &meter(&world, third).await, &[("unit_amount", "2")]).await,
        None => before,
    };
    let backup = json!(world.status("acme").await.usage_billing.expect("billed"));
    move_to(&world, name, &between, ("b", 4)).await;
    used(&world, "c", 7).await;
    hour_passes(&world).await;
    sent(&world, 7).await;
    move_to(&world, name, &last, ("d", 2)).await;
    assert_eq!(at_stripe(&world).await, (18, 4));
    world.controllers.remove(0).kill();
    restore(&world, &backup).await;
    (world, last)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_from_before_two_changes_of_the_meter_bills_nothing_twice() {
    let (mut world, last) = back_from_before_two_changes("usage-there-and-back", None).await;
    used(&world, "e", 3).await;
    hour_passes(&world).await;
    world.start_controller();
    sent(&world, 3).await;
    world.wait("acme", "billed", shows("UsageBilled", ConditionStatus::True, "Sent")).await;
    assert_eq!(at_stripe(&world).await, (21, 5), "each hour once, on one of the meters");
    let meters = world.status("acme").await.usage_billing.expect("billed").meters;
    assert!(matches!(&meters[..], [one] if *one.price == *last), "{meters:?}");
}

/// What the meter in between has cannot be told apart from what was used: nothing is sent until a person has decided.
#[tokio::test(flavor = "multi_thread")]
async fn a_meter_in_between_whose_numbers_differ_waits_for_a_person() {
    let (mut world, _) = back_from_before_two_changes("usage-third-meter", Some("asked")).await;
    let customer = world.tenants().get("acme").await.expect("there").spec.billing.stripe.expect("ids").customer_id;
    let customer = customer.expect("a customer");
    let foreign = [("event_name", "questions"), ("payload[stripe_customer_id]", &*customer), ("payload[value]", "1")];
    stripe(&world, Method::POST, "/billing/meter_events", &foreign).await;
    used(&world, "e", 3).await;
    hour_passes(&world).await;
    world.start_controller();
    differs(&world, 0, 10).await;
    assert_eq!(at_stripe(&world).await, (19, 5), "nothing is sent while the numbers differ");
    let (code, said) = settle(&world.namespace, "stripe", &["--confirm", "acme"]).await;
    assert_eq!(code, Some(0), "{said}");
    sent(&world, 3).await;
    world.wait("acme", "billed", shows("UsageBilled", ConditionStatus::True, "Sent")).await;
    assert_eq!(at_stripe(&world).await, (22, 6), "the hours of the meter in between are not sent again");
}

pub async fn change_price(world: &World, plan: &str, price: &str) {
    let edit = json!({"spec": {"usagePrices": [{"unit": "queries", "stripePriceId": price}]}});
    let plans = Api::<Plan>::all(world.client.clone());
    plans.patch(plan, &PatchParams::default(), &Patch::Merge(edit)).await.expect("patched");
}

async fn restore(world: &World, billing: &Value) {
    let status = Patch::Merge(json!({"status": {"usageBilling": billing}}));
    world.tenants().patch_status("acme", &PatchParams::default(), &status).await.expect("patched");
}

/// A backup brings back the status.
#[tokio::test(flavor = "multi_thread")]
async fn a_status_from_before_a_change_to_another_meter_bills_nothing_twice() {
    let (mut world, [_, after]) = two_meters("usage-other-meter").await;
    let backup = json!(world.status("acme").await.usage_billing.expect("billed"));
    move_to(&world, "usage-other-meter", &after, ("b", 4)).await;
    used(&world, "c", 7).await;
    hour_passes(&world).await;
    sent(&world, 7).await;
    assert_eq!(at_stripe(&world).await, (16, 3));
    world.controllers.remove(0).kill();
    restore(&world, &backup).await;
    used(&world, "d", 2).await;
    hour_passes(&world).await;
    world.start_controller();
    sent(&world, 9).await;
    world.wait("acme", "billed", shows("UsageBilled", ConditionStatus::True, "Sent")).await;
    assert_eq!(at_stripe(&world).await, (18, 4), "each hour once, on one of the meters");
}

/// The controller is killed right after it sent an hour, and a person replaces the price at Stripe by one of another meter.
/// Stripe's sums do not show that hour yet.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_to_another_meter_right_after_a_crash_sends_no_hour_twice() {
    let (mut world, [before, after]) = two_meters("usage-crash-meter").await;
    let backup = json!(world.status("acme").await.usage_billing.expect("billed"));
    world.sandbox_post("/_sandbox/meters", json!({"shown_after_ms": 25_000})).await;
    used(&world, "b", 4).await;
    hour_passes(&world).await;
    sent(&world, 9).await;
    world.controllers.remove(0).kill();
    // As if it was killed before it wrote down what it sent.
    restore(&world, &backup).await;
    let (path, item) = item_of(&world, &before).await;
    let replace = [("items[0][id]", item.as_str()), ("items[0][deleted]", "true"), ("items[1][price]", &after)];
    stripe(&world, Method::POST, &path, &replace).await;
    change_price(&world, "usage-crash-meter", &after).await;
    world.controller_args(&["--usage-interval=1", "--usage-billing-interval=1", "--usage-billing-lag=35"]);
    world.start_controller();
    let waits = |billing: &UsageBilling| billing.meters.is_empty() && billing.waiting.iter().any(|w| w.amount == 4);
    world.wait("acme", "waits for Stripe", |s| s.usage_billing.as_ref().is_some_and(|b| waits(b))).await;
    used(&world, "c", 2).await;
    hour_passes(&world).await;
    sent(&world, 2).await;
    assert_eq!(at_stripe(&world).await, (11, 3), "each hour once, on one of the meters");
}

/// A person replaces the price at Stripe while the numbers of its meter differ, and the decision about them is lost with
/// the status.
#[tokio::test(flavor = "multi_thread")]
async fn a_decision_about_a_meter_that_was_replaced_is_carried_out_once() {
    let (mut world, [before, after]) = two_meters("usage-replaced").await;
    world.controllers.remove(0).kill();
    let mut more = json!(world.status("acme").await.usage_billing.expect("billed"));
    more["meters"][0]["sent"] = json!(11);
    restore(&world, &more).await;
    let (path, item) = item_of(&world, &before).await;
    let replace = [("items[0][id]", item.as_str()), ("items[0][deleted]", "true"), ("items[1][price]", &after)];
    stripe(&world, Method::POST, &path, &replace).await;
    change_price(&world, "usage-replaced", &after).await;
    world.start_controller();
    differs(&world, 11, 5).await;
    let mut backup = json!(world.status("acme").await.usage_billing.expect("billed"));
    backup["decision"] = Value::Null;
    let (code, said) = settle(&world.namespace, "ledger", &["--confirm", "acme"]).await;
    assert_eq!(code, Some(0), "{said}");
    sent(&world, 6).await;
    assert_eq!(at_stripe(&world).await, (11, 2));
    world.controllers.remove(0).kill();
    restore(&world, &backup).await;
    used(&world, "b", 2).await;
    hour_passes(&world).await;
    world.start_controller();
    sent(&world, 8).await;
    world.wait("acme", "billed", shows("UsageBilled", ConditionStatus::True, "Sent")).await;
    assert_eq!(at_stripe(&world).await, (13, 3), "the difference once");
}

/// Stripe takes an event, and finds later that its meter was archived meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn usage_that_stripe_finds_wrong_later_is_told() {
    let (mut world, meter) = world("usage-wrong").await;
    let port = free_port();
    world.controller_args(&["--usage-interval=1", "--usage-billing-interval=1", &format!("--listen=127.0.0.1:{port}")]);
    let price = price(&world, &meter, &[("unit_amount", "10")]).await;
    acme_buys(&mut world, "usage-wrong", &json!([{"unit": "queries", "stripePriceId": price}])).await;
    used(&world, "a", 5).await;
    hour_passes(&world).await;
    sent(&world, 5).await;
    world.sandbox_post("/_sandbox/meters", json!({"report_errors_later": true})).await;
    stripe(&world, Method::POST, &format!("/billing/meters/{meter}/deactivate"), &[]).await;
    used(&world, "b", 7).await;
    hour_passes(&world).await;
    sent(&world, 12).await;
    let told = async || {
        let metrics = reqwest::get(format!("http://127.0.0.1:{port}/metrics")).await.expect("metrics");
        metrics.text().await.expect("text").contains("stripe_usage_errors_total{kind=\"archived_meter\"} 1")
    };
    world.until("the error is counted", told).await;
    assert_eq!(at_stripe(&world).await, (5, 1));
}
