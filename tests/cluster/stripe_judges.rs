//! Stripe's own judges take every request that the product sends: stripe-mock, which goes by Stripe's description of
//! its API, for `/v1`, and Stripe's SDK for `/v2`, which the pinned stripe-mock and its description do not know.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use reqwest::Method;
use serde_json::{Value, json};
use tenant_operator::api::status::PlanChangeState;
use tenant_operator::api::tenant::{BillingMode, Desired};
use tenant_operator::api::{ConditionStatus, Phase};
use tokio::process::Command;

use super::usage_billing::{acme_buys, change_price, hour_passes, meter, price, sent, used};
use crate::support::{
    BY_A_TEST, ROOT, Visitor, World, desire, forward, free_port, must, period_ends, plan_change, python, said, shows,
    stripe, stripe_objects, target, wish,
};

/// What the code makes requests with, and the requests. [`the_judges_know_every_request_of_the_code`] fails for what is
/// not here, and [`stripes_judges_take_every_request_that_the_product_sends`] for what is here and was not sent.
const REQUESTS: [(&str, &str); 36] = [
    ("CancelSubscription", "DELETE /v1/subscriptions/{}"),
    ("CreateBillingPortalSession", "POST /v1/billing_portal/sessions"),
    ("CreateCheckoutSession", "POST /v1/checkout/sessions"),
    ("CreateCustomer", "POST /v1/customers"),
    ("CreateRefund", "POST /v1/refunds"),
    ("CreateSubscription", "POST /v1/subscriptions"),
    ("DeleteCustomer", "DELETE /v1/customers/{}"),
    ("ExpireCheckoutSession", "POST /v1/checkout/sessions/{}/expire"),
    ("ListCheckoutSession", "GET /v1/checkout/sessions"),
    ("ListCustomer", "GET /v1/customers"),
    ("ListDispute", "GET /v1/disputes"),
    ("ListEvent", "GET /v1/events"),
    ("ListInvoice", "GET /v1/invoices"),
    ("ListInvoicePayment", "GET /v1/invoice_payments"),
    ("ListRefund", "GET /v1/refunds"),
    ("ListSubscription", "GET /v1/subscriptions"),
    ("RetrieveCustomer", "GET /v1/customers/{}"),
    ("RetrieveInvoice", "GET /v1/invoices/{}"),
    ("RetrieveSubscription", "GET /v1/subscriptions/{}"),
    ("UpdateCustomer", "POST /v1/customers/{}"),
    ("UpdateInvoice", "POST /v1/invoices/{}"),
    ("UpdateSubscription", "POST /v1/subscriptions/{}"),
    ("VoidInvoiceInvoice", "POST /v1/invoices/{}/void"),
    ("/account", "GET /v1/account"),
    ("/billing/meter_events", "POST /v1/billing/meter_events"),
    ("/billing/meters/{id}", "GET /v1/billing/meters/{}"),
    ("/billing/meters/{meter}/event_summaries", "GET /v1/billing/meters/{}/event_summaries"),
    ("/billing_portal/configurations", "GET /v1/billing_portal/configurations"),
    ("/events", "GET /v2/core/events"),
    ("/events/{id}", "GET /v2/core/events/{}"),
    ("/invoices/{invoice}/lines", "GET /v1/invoices/{}/lines"),
    ("/prices/{id}", "GET /v1/prices/{}"),
    ("/prices/{}", "GET /v1/prices/{}"),
    ("/subscriptions/{}", "POST /v1/subscriptions/{}"),
    ("/subscriptions/{}/migrate", "POST /v1/subscriptions/{}/migrate"),
    ("/webhook_endpoints", "GET /v1/webhook_endpoints"),
];

/// Parts of requests.
const PARTS: [&str; 9] = [
    "/v1",
    "/v2/",
    "/v2/core{path}",
    "CreateCheckoutSessionLineItems",
    "CreateCheckoutSessionSubscriptionData",
    "CreateSubscriptionItems",
    "RequestBuilder",
    "UpdateSubscriptionItems",
    "UpdateSubscriptionPauseCollection",
];

/// What the forms of requests that do several things must have held.
const FORMS: [(&str, &str); 13] = [
    ("POST /v1/checkout/sessions", "line_items[1][price]="),
    ("POST /v1/subscriptions/{}", "billing_cycle_anchor=now"),
    ("POST /v1/subscriptions/{}", "cancel_at_period_end=true"),
    ("POST /v1/subscriptions/{}", "items[0][deleted]=true"),
    ("POST /v1/subscriptions/{}", "items[1][price]="),
    ("POST /v1/subscriptions/{}", "metadata[plan_before]="),
    ("POST /v1/subscriptions/{}", "metadata[usage_meters_queries]="),
    ("POST /v1/subscriptions/{}", "pause_collection[behavior]=void"),
    ("POST /v1/subscriptions/{}", "payment_behavior=error_if_incomplete"),
    ("POST /v1/subscriptions/{}", "payment_behavior=pending_if_incomplete"),
    ("POST /v1/subscriptions/{}", "proration_behavior=create_prorations"),
    ("GET /v1/invoices", "status=draft"),
    ("GET /v1/prices/{}", "expand[0]=tiers"),
];

/// Everything of the code that makes a request: types of Stripe's builders, and paths.
fn of_the_code() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for file in std::fs::read_dir(format!("{ROOT}/src/providers/stripe")).expect("a folder") {
        let text = std::fs::read_to_string(file.expect("a file").path()).expect("text");
        let text = text.split("#[cfg(test)]").next().unwrap_or_default();
        let imports = text.split("use stripe_").skip(1).filter_map(|rest| rest.split(';').next());
        let names = imports.flat_map(|import| import.split(|c: char| !c.is_alphanumeric() && c != '_'));
        let made = names.filter(|name| !name.is_empty() && text.contains(&format!("{name}::new(")));
        found.extend(made.map(str::to_owned));
        // Every second part is between quotes. A comment may hold one quote, so each line begins anew.
        let quoted = text.lines().flat_map(|line| line.split('"').skip(1).step_by(2));
        found.extend(quoted.filter(|text| text.starts_with('/')).map(str::to_owned));
    }
    found
}

/// A request that is added to the code must be added to the judge.
#[test]
fn the_judges_know_every_request_of_the_code() {
    let known: BTreeSet<_> = REQUESTS.iter().map(|(name, _)| *name).chain(PARTS).map(str::to_owned).collect();
    assert_eq!(of_the_code(), known, "add what is new to REQUESTS, and send it in this file");
    let elsewhere = |path: &Path| !path.starts_with(format!("{ROOT}/src/providers/stripe"));
    for path in sources(Path::new(&format!("{ROOT}/src"))).into_iter().filter(|path| elsewhere(path)) {
        let text = std::fs::read_to_string(&path).expect("text");
        assert!(!text.contains("use stripe_"), "{} calls Stripe outside of src/providers/stripe", path.display());
    }
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let below = |path: PathBuf| if path.is_dir() { sources(&path) } else { vec![path] };
    entries.flat_map(below).filter(|path| path.extension().is_some_and(|end| end == "rs")).collect()
}

async fn sent_to_stripe(world: &World) -> Vec<Value> {
    let log = world.sandbox_get("/_sandbox/requests").await;
    let api = |path: &str| path.starts_with("/v1/") || path.starts_with("/v2/");
    let by_a_test = |r: &Value| r["idempotency_key"].as_str().is_some_and(|key| key.starts_with(BY_A_TEST));
    let ours = |r: &&Value| r["provider"] == "stripe" && r["path"].as_str().is_some_and(api) && !by_a_test(r);
    log.as_array().into_iter().flatten().filter(ours).cloned().collect()
}

/// From one tenant that pays, fails, is refunded, comes back and leaves, and one that leaves before it has paid.
async fn of_tenants_lives() -> Vec<Value> {
    let mut world = World::start("requests").await;
    world.fault(json!({"provider": "pinecone", "path": "/vectors/upsert", "status": 400, "times": 1})).await;
    world.create("acme", "paid", BillingMode::Stripe).await;
    world.pay("acme").await;
    world.wait_true("acme", "Refunded").await;
    world.annotate("acme", tenant_operator::api::RETRY_ANNOTATION, "again").await;
    world.wait_true("acme", "WelcomeEmailSent").await;
    for (plan, state) in [("pro", PlanChangeState::Applied), ("paid", PlanChangeState::Scheduled)] {
        let patch = kube::api::Patch::Merge(json!({"spec": {"plan": plan}}));
        world.tenants().patch("acme", &Default::default(), &patch).await.expect("patched");
        let there = |c: &tenant_operator::api::status::PlanChange| &*c.plan == plan && c.state == state;
        world.wait("acme", "on another plan", |s| s.plan_change.as_ref().is_some_and(there)).await;
    }
    let desire = async |desired: &str| {
        let patch = kube::api::Patch::Merge(json!({"spec": {"desired": desired}}));
        world.tenants().patch("leaver", &Default::default(), &patch).await.expect("patched");
    };
    world.create_paying("leaver", "paid").await;
    desire("Deleted").await;
    world.wait_true("leaver", "RenewalStopped").await;
    desire("Active").await;
    world.wait_phase("leaver", Phase::Active).await;
    desire("Deleted").await;
    world.wait_true("leaver", "RenewalStopped").await;
    let due = kube::api::Patch::Merge(json!({"status": {"erasesAt": "2026-01-01T00:00:00Z"}}));
    world.tenants().patch_status("leaver", &Default::default(), &due).await.expect("patched");
    world.wait_phase("leaver", Phase::Deleted).await;
    world.create("trial", "starter", BillingMode::Stripe).await;
    world.wait("trial", "waiting", |s| s.checkout.is_some()).await;
    world.environment("STRIPE_PORTAL_KEY", "rk_test_portal");
    world.start_web(&[]);
    let mut customer = Visitor::new(&world);
    let name = customer.sign_up("portal@example.com", "Portal").await;
    world.pay(&name).await;
    world.wait_phase(&name, Phase::Active).await;
    let csrf = customer.csrf("/account").await;
    assert_eq!(customer.post("/account/billing", &[("csrf", &csrf)]).await.0, 200);
    for name in ["acme", "trial"] {
        world.erase(name).await;
        world.wait_gone(name).await;
    }
    // Other checks may fail here, so the exit code does not matter.
    let preflight = tokio::task::block_in_place(|| world.command("preflight").arg("stripe").output());
    let preflight = said(&preflight.expect("it runs"));
    assert!(preflight.contains("√ a subscription can be made and cancelled"), "{preflight}");
    sent_to_stripe(&world).await
}

/// From a tenant that is billed by usage, over the end of a month, a change of its prices, a meter that Stripe finds
/// archived later, and a subscription in the classic billing mode.
async fn of_usage() -> Vec<Value> {
    let mut world = World::without_controller("requests-usage").await;
    world.controller_args(&["--usage-interval=1", "--usage-billing-interval=1", "--usage-billing-lag=2"]);
    let queries = meter(&world, "queries").await;
    let tiers: Vec<_> = (1..13).map(|tier| (tier, if tier < 12 { tier.to_string() } else { "inf".into() })).collect();
    let tiers = tiers.iter().flat_map(|(tier, up_to)| {
        let field = |name: &str| format!("tiers[{}][{name}]", tier - 1);
        [(field("up_to"), up_to.clone()), (field("unit_amount"), tier.to_string())]
    });
    let tiers: Vec<_> = tiers.collect();
    let mut cost = vec![("billing_scheme", "tiered"), ("tiers_mode", "graduated")];
    cost.extend(tiers.iter().map(|(name, value)| (&**name, &**value)));
    let (tiered, plain) =
        (price(&world, &queries, &cost).await, price(&world, &queries, &[("unit_amount", "3")]).await);
    let usage = json!([{"unit": "queries", "stripePriceId": tiered}]);
    acme_buys(&mut world, "judged", &usage).await;
    used(&world, "a", 15).await;
    hour_passes(&world).await;
    sent(&world, 15).await;
    // Each tier has a line of its own on the draft, more than an invoice embeds.
    period_ends(&world).await;
    used(&world, "b", 4).await;
    world.end_ledgers_hour();
    sent(&world, 19).await;

    // A subscription that was made before Stripe's flexible billing mode.
    world.create("classic", "judged", BillingMode::Stripe).await;
    world.wait("classic", "waiting", |s| s.checkout.is_some()).await;
    let tenant = world.tenants().get("classic").await.expect("there");
    let customer = tenant.spec.billing.stripe.clone().and_then(|refs| refs.customer_id).expect("a customer");
    let form = [
        ("customer", &*customer),
        ("items[0][price]", "price_judged"),
        ("billing_mode[type]", "classic"),
        ("trial_period_days", "1"),
        ("metadata[tenant_id]", tenant.tenant_id()),
        ("metadata[plan]", "judged"),
    ];
    stripe(&world, Method::POST, "/subscriptions", &form).await;
    world.wait_phase("classic", Phase::Active).await;
    change_price(&world, "judged", &plain).await;
    for name in ["acme", "classic"] {
        world.wait(name, "noticed", |s| s.usage_billing.as_ref().is_some_and(|b| b.replace_at.is_some())).await;
    }
    hour_passes(&world).await;
    for name in ["acme", "classic"] {
        let billed = |s: &tenant_operator::api::TenantStatus| {
            s.usage_billing.as_ref().is_some_and(|b| b.meters.iter().any(|usage| *usage.price == *plain))
        };
        world.wait(name, "at the other price", billed).await;
    }
    world.sandbox_post("/_sandbox/meters", json!({"report_errors_later": true})).await;
    stripe(&world, Method::POST, &format!("/billing/meters/{queries}/deactivate"), &[]).await;
    used(&world, "c", 5).await;
    hour_passes(&world).await;
    let reports = || world.calls(|r| r["path"].as_str().is_some_and(|path| path.starts_with("/v2/core/events/")));
    world.until("the report is read", async || reports().await > 0).await;
    sent_to_stripe(&world).await
}

/// From a tenant whose card asks for the customer, and from one that is suspended while it pays late.
async fn of_cards() -> Vec<Value> {
    let world = World::with_portal("requests-cards", &[]).await;
    world.create("asks", "middle", BillingMode::Stripe).await;
    let pay = world.wait("asks", "waiting", |s| s.checkout.is_some()).await.checkout.expect("a link").url;
    let form = [("card", "4000002760003184"), ("challenge", "complete")];
    assert_eq!(world.http.post(pay).form(&form).send().await.expect("it answers").status(), 303);
    world.wait_true("asks", "WelcomeEmailSent").await;
    wish(&world, "asks", "large").await.expect("patched");
    world.wait("asks", "unconfirmed", |s| plan_change(s) == Some(PlanChangeState::Unconfirmed)).await;
    wish(&world, "asks", "middle").await.expect("patched");
    world.wait("asks", "taken back", |s| s.plan_change.is_none()).await;

    world.create_paying("late", "paid").await;
    let renewed = kube::api::Patch::Merge(json!({"spec": {"apiKeyGeneration": 2}}));
    world.tenants().patch("late", &Default::default(), &renewed).await.expect("patched");
    world.wait("late", "its key is noted at Stripe", |s| s.key_generation_at_stripe == Some(2)).await;
    for method in stripe_objects(&world, "payment_method").await {
        world.sandbox_post("/_sandbox/decline", json!({"payment_method": method["id"]})).await;
    }
    forward(&world, 31).await;
    world.wait("late", "late", shows("PaymentReceived", ConditionStatus::False, "PaymentPastDue")).await;
    desire(&world, "late", Desired::Suspended).await.expect("patched");
    world.wait_true("late", "CollectionPaused").await;
    sent_to_stripe(&world).await
}

/// Starts it on a port that was free a moment ago; another process may take that first.
async fn start_mock(binary: &Path) -> (tokio::process::Child, u16) {
    for _ in 0..10 {
        let port = free_port();
        let mut command = Command::new(binary);
        command.args(["-http-addr", &format!("127.0.0.1:{port}")]).stdout(Stdio::null()).kill_on_drop(true);
        let mut mock = command.spawn().expect("stripe-mock starts");
        while mock.try_wait().expect("a child of ours").is_none() {
            if tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                return (mock, port);
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }
    panic!("stripe-mock does not listen");
}

/// A request, without what is different in each one.
fn kind(request: &Value) -> String {
    const WORDS: [&str; 5] =
        ["billing_portal", "event_summaries", "invoice_payments", "meter_events", "webhook_endpoints"];
    let path = request["path"].as_str().unwrap_or_default();
    let parts: Vec<_> =
        path.split('/').map(|part| if part.contains('_') && !WORDS.contains(&part) { "{}" } else { part }).collect();
    format!("{} {}", request["method"].as_str().unwrap_or_default(), parts.join("/"))
}

fn text<'a>(request: &'a Value, key: &str) -> &'a str {
    request[key].as_str().unwrap_or_default()
}

/// Query and form, readable.
fn form(request: &Value) -> String {
    let pairs = [text(request, "query"), text(request, "body")].join("&");
    let pairs: Vec<_> =
        url::form_urlencoded::parse(pairs.as_bytes()).map(|(name, value)| format!("{name}={value}")).collect();
    pairs.join("&")
}

/// Stripe's SDK sends the same requests of `/v2`.
async fn the_sdk_sends_the_same(requests: &[&Value]) {
    let python = python("conformance").await.join("python");
    let file = target().join("v2-requests.json");
    std::fs::write(&file, json!(requests).to_string()).expect("written");
    let said = must(Command::new(python).arg(format!("{ROOT}/tests/conformance/v2_requests.py")).arg(file)).await;
    assert!(said.contains(&format!("{} requests: passed", requests.len())), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn stripes_judges_take_every_request_that_the_product_sends() {
    let binary = target().join("stripe-mock");
    let folder = format!("{ROOT}/tests/conformance/stripe-mock");
    must(
        Command::new("go").args(["build", "-o"]).arg(&binary).arg("github.com/stripe/stripe-mock").current_dir(folder),
    )
    .await;
    let (mut mock, port) = start_mock(&binary).await;
    let requests = [of_tenants_lives().await, of_usage().await, of_cards().await].concat();
    let http = reqwest::Client::new();
    let mut kinds: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for request in &requests {
        kinds.entry(kind(request)).or_default().push(form(request));
        if text(request, "path").starts_with("/v2/") {
            continue;
        }
        let url = format!("http://127.0.0.1:{port}{}?{}", text(request, "path"), text(request, "query"));
        let call = http
            .request(text(request, "method").parse().expect("a method"), url)
            .bearer_auth("sk_test_123")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(text(request, "body").to_owned());
        let answer = call.send().await.expect("stripe-mock answers");
        let status = answer.status();
        let said = answer.text().await.unwrap_or_default();
        assert!(status.is_success(), "{request}: {status} {said}");
    }
    let unsent: Vec<_> = REQUESTS.iter().filter(|(_, request)| !kinds.contains_key(*request)).collect();
    assert!(unsent.is_empty(), "not sent: {unsent:?}, but {:?}", kinds.keys());
    for (request, part) in FORMS {
        assert!(kinds[request].iter().any(|form| form.contains(part)), "{request} was never sent with {part}");
    }
    let v2: Vec<_> = requests.iter().filter(|request| text(request, "path").starts_with("/v2/")).collect();
    the_sdk_sends_the_same(&v2).await;
    // And that the judges refuse what is wrong.
    for (path, form) in [
        ("checkout/sessions", [("mode", "barter")]),
        ("billing/meter_events", [("identifier", "no-name")]),
        ("subscriptions/sub_1/migrate", [("billing_mode[type]", "strict")]),
    ] {
        let wrong = http.post(format!("http://127.0.0.1:{port}/v1/{path}")).bearer_auth("sk_test_123").form(&form);
        assert_eq!(wrong.send().await.expect("stripe-mock answers").status(), 400, "{path}");
    }
    mock.kill().await.expect("it ends");
}
