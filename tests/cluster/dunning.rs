//! Payments that stop, on the sandbox's clock: late, lost, paid after all; cancelled and bought again; suspended by an
//! admin.

use futures::{StreamExt, stream};
use serde_json::{Value, json};
use tenant_operator::api::tenant::BillingMode;
use tenant_operator::api::{Phase, TenantStatus};

use crate::support::{Visitor, World, answer_dispute, disputes, forward, free_port, portal, said};

/// Customers who do something at the same time.
const AT_ONCE: usize = 8;

/// A customer who signed up, paid with this card, and is Active.
async fn customer(world: &World, visitor: &mut Visitor<'_>, card: &str) -> String {
    let name = visitor.sign_up("ada@example.com", "Acme").await;
    let url = world.wait(&name, "waiting", |s| s.checkout.is_some()).await.checkout.expect("a link").url;
    let answer = world.http.post(url).form(&[("card", card)]).send().await.expect("the page answers");
    assert_eq!(answer.status(), 303);
    world.wait_true(&name, "WelcomeEmailSent").await;
    name
}

/// What a question with the API key is answered.
async fn ask(world: &World, key: &str) -> (u16, Value) {
    let request = world.http.post(format!("{}/v1/query", world.web)).bearer_auth(key);
    let answer = request.json(&json!({"question": "What is RAG?"})).send().await.expect("it answers");
    (answer.status().as_u16(), answer.json().await.expect("JSON"))
}

fn reason(status: &TenantStatus) -> &str {
    tenant_operator::api::conditions::get(&status.conditions, "Ready").map_or("", |c| &*c.reason)
}

async fn namespaces(world: &World) -> Value {
    world.sandbox_get("/_sandbox/pinecone").await["created"].clone()
}

/// The e-mail says why the account is suspended, and what helps.
async fn told(world: &World, why: &str) {
    world
        .until(why, async || {
            let mails = world.sandbox_get("/_sandbox/mails").await;
            let of = |m: &Value| m["subject"] == "Your RAG Service account is suspended";
            let says = |m: &Value| {
                m["text"].as_str().is_some_and(|t| t.split_whitespace().collect::<Vec<_>>().join(" ").contains(why))
            };
            mails.as_array().into_iter().flatten().any(|m| of(m) && says(m))
        })
        .await;
}

#[tokio::test]
async fn a_card_that_is_declined_after_the_trial_is_told_suspended_and_paid_after_all() {
    let world = World::with_portal("late", &["--payment-grace=3"]).await;
    let mut ada = Visitor::new(&world);
    let name = customer(&world, &mut ada, "4000000000000341").await;
    let key = world.api_key(&name).await;
    assert_eq!(ask(&world, &key).await.0, 200);
    forward(&world, 15).await;
    let status = world.wait(&name, "late", |s| reason(s) == "PaymentPastDue").await;
    assert_eq!(status.phase, Some(Phase::Active));
    assert_eq!(ask(&world, &key).await.0, 200, "served while Stripe tries again");
    world.mail_links("ada@example.com", "Your payment").await;
    let status = world.wait_phase(&name, Phase::Suspended).await;
    assert_eq!(reason(&status), "PaymentMissing");
    world.until("queries are refused", async || ask(&world, &key).await.0 == 402).await;
    let (_, refusal) = ask(&world, &key).await;
    assert!(
        refusal["code"] == "suspended" && refusal["detail"].as_str().is_some_and(|d| d.contains("/account")),
        "{refusal}"
    );
    told(&world, "A payment is missing. Pay on your account page").await;
    assert_eq!((world.mails("payment-failed").await, world.mails("suspended").await), (1, 1));
    let (_, page) = ada.get("/account").await;
    assert!(page.contains("because a payment is missing") && page.contains("Invoices and payment methods"), "{page}");
    // Another card, and Stripe collects what is open. The webhook brings the tenant back.
    portal(&world, &mut ada, "card").await;
    world.wait_phase(&name, Phase::Active).await;
    world.until("queries are answered", async || ask(&world, &key).await.0 == 200).await;
    assert_eq!(world.api_key(&name).await, key, "with the same key");
    assert_eq!(namespaces(&world).await, 1, "and the same data");
    world.assert_transitions(&name).await;
}

#[tokio::test]
async fn a_subscription_that_was_cancelled_is_bought_again_without_a_second_trial() {
    let world = World::with_portal("cancelled", &[]).await;
    let mut ada = Visitor::new(&world);
    let name = customer(&world, &mut ada, "4242424242424242").await;
    let key = world.api_key(&name).await;
    portal(&world, &mut ada, "cancel").await;
    assert_eq!(world.status(&name).await.phase, Some(Phase::Active), "to the end of what was paid for");
    forward(&world, 15).await;
    let status = world
        .wait(&name, "waiting for a new subscription", |s| s.phase == Some(Phase::Suspended) && s.checkout.is_some())
        .await;
    assert_eq!(ask(&world, &key).await.0, 402);
    told(&world, "Your subscription has ended. Subscribe again").await;
    let (_, page) = ada.get("/account").await;
    assert!(page.contains("id=\"pay\"") && page.contains("because your subscription has ended"), "{page}");
    let url = status.checkout.expect("a link").url;
    let shown = world.http.get(&url).send().await.expect("it answers").text().await.expect("text");
    assert!(shown.contains("due now: 49"), "no second trial: {shown}");
    world.pay(&name).await;
    world.wait_phase(&name, Phase::Active).await;
    world.until("queries are answered", async || ask(&world, &key).await.0 == 200).await;
    let stripe = world.sandbox_get("/_sandbox/state").await;
    let count = |kind: &str| stripe[kind].as_array().map(Vec::len);
    assert_eq!((count("customer"), count("subscription")), (Some(1), Some(2)), "the same customer: {stripe}");
    assert_eq!(namespaces(&world).await, 1);
}

#[tokio::test]
async fn a_lost_webhook_delays_a_suspension_and_a_return_and_loses_neither() {
    let world = World::with_portal("unheard", &["--payment-grace=1"]).await;
    let mut ada = Visitor::new(&world);
    let name = customer(&world, &mut ada, "4000000000000341").await;
    world.sandbox.send_webhooks_to("http://127.0.0.1:1/nowhere");
    forward(&world, 15).await;
    world.wait_phase(&name, Phase::Suspended).await;
    portal(&world, &mut ada, "card").await;
    world.wait_phase(&name, Phase::Active).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_suspends_and_resumes_and_the_customer_is_not_charged_meanwhile() {
    let world = World::with_portal("admin", &[]).await;
    let mut ada = Visitor::new(&world);
    let name = customer(&world, &mut ada, "4242424242424242").await;
    let key = world.api_key(&name).await;
    let run = |command: &str| {
        let args = [name.as_str(), "--namespace", &world.namespace];
        tokio::task::block_in_place(|| world.command(command).args(args).output()).expect("it runs")
    };
    assert!(said(&run("resume")).contains("is not suspended"));
    let output = run("suspend");
    assert!(output.status.success() && said(&output).contains("will be suspended"), "{}", said(&output));
    world.wait_true(&name, "CollectionPaused").await;
    world.until("queries are refused", async || ask(&world, &key).await.0 == 402).await;
    told(&world, "Our team has suspended it").await;
    forward(&world, 50).await;
    let (_, page) = ada.get("/account").await;
    assert!(page.contains("Please write to us"), "{page}");
    let output = run("resume");
    assert!(output.status.success() && said(&output).contains("will be served again"), "{}", said(&output));
    world.wait_phase(&name, Phase::Active).await;
    world.until("queries are answered", async || ask(&world, &key).await.0 == 200).await;
    let invoices = world.sandbox_get("/_sandbox/state").await["invoice"].clone();
    let paid: i64 = invoices.as_array().into_iter().flatten().filter_map(|i| i["amount_paid"].as_i64()).sum();
    assert_eq!(paid, 0, "{invoices}");
    world.wait(&name, "collected from again", |s| s.subscription.as_deref() == Some("active")).await;
}

#[tokio::test]
async fn a_contract_by_hand_can_be_suspended_too() {
    let world = World::with_portal("contract", &[]).await;
    world.create("acme", "starter", BillingMode::Manual).await;
    world.wait_phase("acme", Phase::Active).await;
    let set = async |desired: &str| {
        let patch = kube::api::Patch::Merge(json!({"spec": {"desired": desired}}));
        world.tenants().patch("acme", &Default::default(), &patch).await
    };
    set("Suspended").await.expect("patched");
    world.wait_phase("acme", Phase::Suspended).await;
    set("Active").await.expect("patched");
    world.wait_phase("acme", Phase::Active).await;
    assert!(set("Gone").await.is_err(), "no other wish is taken");
}

/// A hundred customers lose their subscriptions at the same moment: all are suspended, none is deleted, all come back.
#[tokio::test]
async fn many_at_once_are_suspended_and_lose_nothing() {
    // A busy machine may not renew a short lease while a hundred tenants are set up, and the test does not restart the
    // controller. The brake would hold so many suspensions at once, and here they are intended.
    let world = World::with_portal("many", &["--lease-duration=30", "--brake-percent=100"]).await;
    let names: Vec<_> = (0..100).map(|n| format!("tenant-{n}")).collect();
    stream::iter(&names)
        .for_each_concurrent(AT_ONCE, async |name| drop(world.create(name, "paid", BillingMode::Stripe).await))
        .await;
    stream::iter(&names).for_each_concurrent(AT_ONCE, async |name| world.pay(name).await).await;
    for name in &names {
        world.wait_phase(name, Phase::Active).await;
    }
    let stripe = world.sandbox_get("/_sandbox/state").await;
    for subscription in stripe["subscription"].as_array().expect("subscriptions") {
        let url =
            format!("{}/v1/subscriptions/{}", world.sandbox.stripe_url, subscription["id"].as_str().expect("an id"));
        assert!(
            world.http.delete(url).bearer_auth("sk_test_x").send().await.expect("it answers").status().is_success()
        );
    }
    for name in &names {
        world.wait(name, "suspended with a link", |s| s.phase == Some(Phase::Suspended) && s.checkout.is_some()).await;
    }
    assert_eq!(namespaces(&world).await, 100);
    stream::iter(&names).for_each_concurrent(AT_ONCE, async |name| world.pay(name).await).await;
    for name in &names {
        world.wait_phase(name, Phase::Active).await;
        assert!(world.secrets().get_opt(&format!("{name}-api-key")).await.expect("read").is_some());
    }
    let pinecone = world.sandbox_get("/_sandbox/pinecone").await;
    assert_eq!(
        (&pinecone["created"], pinecone["namespaces"].as_object().map(serde_json::Map::len)),
        (&json!(100), Some(100)),
        "nothing was made or deleted"
    );
}

/// A tenant that paid with a card whose payments are disputed.
async fn with_disputed(name: &str, args: &[&str]) -> World {
    let world = World::with_portal(name, args).await;
    world.create("acme", "middle", BillingMode::Stripe).await;
    let url = world.wait("acme", "waiting", |s| s.checkout.is_some()).await.checkout.expect("a link").url;
    let answer = world.http.post(url).form(&[("card", "4000000000000259")]).send().await.expect("the page answers");
    assert_eq!(answer.status(), 303);
    world.wait_true("acme", "PaymentDisputed").await;
    world
}

async fn dispute_alerts(world: &World) -> usize {
    let alerts = world.sandbox_get("/_sandbox/alerts").await;
    let texts = alerts.as_array().into_iter().flatten().filter_map(|a| a["text"].as_str());
    texts.filter(|text| text.contains("du_")).count()
}

fn disputed(status: &TenantStatus) -> (bool, String) {
    let condition = tenant_operator::api::conditions::get(&status.conditions, "PaymentDisputed").expect("there");
    (condition.status == tenant_operator::api::ConditionStatus::True, condition.reason.to_string())
}

#[tokio::test]
async fn a_disputed_payment_is_told_to_ops_and_the_tenant_is_served_on() {
    let world = with_disputed("disputed", &[]).await;
    world.wait_true("acme", "WelcomeEmailSent").await;
    world.until("the platform team is told", async || dispute_alerts(&world).await == 1).await;
    let key = world.api_key("acme").await;
    assert_eq!(ask(&world, &key).await.0, 200);
    let id = disputes(&world).await.remove(0);
    answer_dispute(&world, &id, "losing_evidence").await;
    world.wait("acme", "told that it is lost", |s| disputed(s) == (true, "Lost".into())).await;
    world.until("the platform team is told", async || dispute_alerts(&world).await == 2).await;
    world.annotate("acme", "tenant-operator.dev/accept-dispute", &id).await;
    let status = world.wait("acme", "settled", |s| disputed(s) == (false, "Over".into())).await;
    assert_eq!(status.phase, Some(Phase::Active));
}

#[tokio::test]
async fn a_disputed_tenant_is_suspended_where_that_is_wished_and_back_when_the_dispute_is_won() {
    let port = free_port();
    let listen = format!("--listen=127.0.0.1:{port}");
    let mut world = with_disputed("disputedoff", &["--suspend-disputed", &listen]).await;
    let open = async || {
        let metrics = reqwest::get(format!("http://127.0.0.1:{port}/metrics")).await.expect("metrics");
        let text = metrics.text().await.expect("text");
        text.lines().find_map(|line| line.strip_prefix("stripe_open_disputes ")?.parse::<u32>().ok())
    };
    world.wait_phase("acme", Phase::Suspended).await;
    assert_eq!(open().await, Some(1));
    let status = world.wait_true("acme", "CollectionPaused").await;
    assert_eq!(reason(&status), "PaymentDisputed");
    told(&world, "A payment was disputed at your bank").await;
    let key = world.api_key("acme").await;
    world.until("keys are refused", async || ask(&world, &key).await.0 == 402).await;
    // A restarted controller does not know of the dispute at first.
    world.replace_controller();
    world.wait_for_reads("/v1/disputes", 2).await;
    assert_eq!(world.status("acme").await.phase, Some(Phase::Suspended));
    let id = disputes(&world).await.remove(0);
    answer_dispute(&world, &id, "winning_evidence").await;
    world.wait_phase("acme", Phase::Active).await;
    world.until("keys are taken", async || ask(&world, &key).await.0 == 200).await;
    assert_eq!(open().await, Some(0));
    let state = world.sandbox_get("/_sandbox/state").await;
    let subscription = &state["subscription"][0];
    assert_eq!((&subscription["status"], &subscription["pause_collection"]), (&json!("active"), &Value::Null));
}

/// Holds a call of an admin's suspension and of the return from it, kills the controller while it waits, and starts
/// another.
async fn killed_at(name: &str, provider: &str, method: &str, path: &str) {
    let mut world = World::with_portal(name, &[]).await;
    let mut ada = Visitor::new(&world);
    let customer = customer(&world, &mut ada, "4242424242424242").await;
    let key = world.api_key(&customer).await;
    for (desired, phase, answer) in [("Suspended", Phase::Suspended, 402), ("Active", Phase::Active, 200)] {
        let ours = |call: &Value| {
            call["provider"] == provider
                && call["method"] == method
                && call["path"].as_str().is_some_and(|there| there.starts_with(path))
        };
        let before = world.calls(ours).await;
        world.fault(json!({"provider": provider, "method": method, "path": path, "delay_ms": 2500})).await;
        let wish = kube::api::Patch::Merge(json!({"spec": {"desired": desired}}));
        world.tenants().patch(&customer, &Default::default(), &wish).await.expect("patched");
        world.until("the call is made", async || world.calls(ours).await > before).await;
        world.replace_controller();
        world.clear_faults().await;
        world.wait_phase(&customer, phase).await;
        world.until("queries hear of it", async || ask(&world, &key).await.0 == answer).await;
        let paused = desired == "Suspended";
        world
            .until("collection follows", async || {
                let state = world.sandbox_get("/_sandbox/state").await;
                state["subscription"][0]["pause_collection"].is_null() != paused
            })
            .await;
    }
    told(&world, "Our team has suspended it").await;
    let state = world.sandbox_get("/_sandbox/state").await;
    assert_eq!(state["subscription"].as_array().map(Vec::len), Some(1), "{state}");
    world.assert_transitions(&customer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_collection_is_paused_and_resumed() {
    killed_at("kill-pause", "stripe", "POST", "/v1/subscriptions/").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_the_suspended_subscription_is_read() {
    killed_at("kill-suspend-read", "stripe", "GET", "/v1/subscriptions").await;
}
