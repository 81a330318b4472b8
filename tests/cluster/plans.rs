//! Customers who move to another plan: charged once, served all the while, and as before where something goes wrong.

use kube::api::Patch;
use serde_json::{Value, json};
use tenant_operator::api::status::PlanChangeState as State;
use tenant_operator::api::{ConditionStatus, Phase, TenantStatus, conditions};

use crate::support::{
    Questions, Visitor, World, billed, document_limit, forward, half_of_period, paid, period_ends, plan_change, portal,
    stripe_objects, wish,
};

const DAY: i64 = 24 * 3600;

#[tokio::test(flavor = "multi_thread")]
async fn a_larger_plan_is_charged_once_and_every_question_is_answered_meanwhile() {
    let world = World::on_middle_plan("upgrade", &[]).await;
    let key = world.api_key("acme").await;
    let questions = Questions::begin(&world, "acme").await;
    questions.more(&world, 5).await;
    half_of_period(&world).await;
    world.fault(json!({"provider": "stripe", "method": "POST", "path": "/v1/subscriptions", "delay_ms": 500})).await;
    wish(&world, "acme", "large").await.expect("patched");
    let status = world.wait("acme", "on the large plan", |s| document_limit(s) == 100).await;
    assert_eq!((status.phase, plan_change(&status)), (Some(Phase::Active), Some(State::Applied)));
    assert!(conditions::is_true(&status.conditions, "PlanInForce"));
    world.until("the customer is told", async || world.mails("plan-changed").await == 1).await;
    questions.more(&world, 5).await;
    questions.end().await;
    // Half of the period is left: half of the difference is due, and never more.
    assert_eq!(paid(&world).await, [4900, 7500]);
    assert_eq!(billed(&world).await, 19_900);
    let subscriptions = stripe_objects(&world, "subscription").await;
    assert_eq!(subscriptions[0]["metadata"]["plan"], "large", "a lost status finds its plan there");
    let answer = world.http.post(format!("{}/v1/query", world.web)).bearer_auth(key);
    let answer = answer.json(&json!({"question": "What is RAG?"})).send().await.expect("it answers");
    assert_eq!(answer.status(), 200, "the key from before is good");
    world.assert_transitions("acme").await;
    period_ends(&world).await;
    world.until("the next period is billed", async || paid(&world).await == [4900, 7500, 19_900]).await;
}

#[tokio::test]
async fn a_card_that_is_declined_leaves_everything_as_it_was_and_another_one_helps() {
    let world = World::with_portal("declined", &[]).await;
    let mut ada = Visitor::new(&world);
    let name = ada.sign_up_for("ada@example.com", "Acme", Some("middle")).await;
    world.pay(&name).await;
    world.wait_true(&name, "WelcomeEmailSent").await;
    // The card goes bad.
    let method = stripe_objects(&world, "payment_method").await[0]["id"].as_str().expect("an id").to_owned();
    world.sandbox_post("/_sandbox/decline", json!({"payment_method": method})).await;
    let csrf = ada.csrf("/account/plan").await;
    let (status, _, page) = ada.post("/account/plan", &[("csrf", &csrf), ("plan", "large")]).await;
    assert_eq!(status, 402, "{page}");
    assert!(page.contains("declined"), "{page}");
    let after = world.status(&name).await;
    assert_eq!(
        (after.phase, plan_change(&after), document_limit(&after)),
        (Some(Phase::Active), Some(State::Declined), 10)
    );
    let condition = conditions::get(&after.conditions, "PlanInForce").expect("a condition");
    assert_eq!((condition.status, &*condition.reason), (ConditionStatus::False, "PaymentDeclined"));
    world.wait_event(&name, "PaymentDeclined").await;
    world.until("the customer is told", async || world.mails("plan-declined").await == 1).await;
    assert_eq!((paid(&world).await, billed(&world).await), (vec![4900], 4900));
    let (_, page) = ada.get("/account").await;
    assert!(page.contains("which is not in force"), "{page}");
    // Too soon, then with a card that works.
    let (status, _, page) = ada.post("/account/plan", &[("csrf", &csrf), ("plan", "large")]).await;
    assert_eq!(status, 429, "{page}");
    world.sandbox_post("/_sandbox/decline", json!({"payment_method": method, "declined": false})).await;
    let started = std::time::Instant::now();
    loop {
        let (status, place, page) = ada.post("/account/plan", &[("csrf", &csrf), ("plan", "large")]).await;
        if status != 429 {
            assert_eq!((status, &*place), (303, "/account#plan"), "{page}");
            break;
        }
        assert!(started.elapsed().as_secs() < 60, "too soon for ever");
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
    let status = world.wait(&name, "on the large plan", |s| document_limit(s) == 100).await;
    assert_eq!(plan_change(&status), Some(State::Applied));
    assert_eq!(billed(&world).await, 19_900);
}

/// Stripe answers `subscription_payment_intent_requires_action` to the charge.
#[tokio::test]
async fn a_card_that_asks_for_the_customer_moves_to_a_larger_plan_once_they_confirm() {
    let world = World::with_portal("confirm", &[]).await;
    let mut ada = Visitor::new(&world);
    let name = ada.sign_up_for("ada@example.com", "Acme", Some("middle")).await;
    let pay = world.wait(&name, "waiting", |s| s.checkout.is_some()).await.checkout.expect("a link").url;
    let form = [("card", "4000002760003184"), ("challenge", "complete")];
    assert_eq!(world.http.post(pay).form(&form).send().await.expect("it answers").status(), 303);
    world.wait_true(&name, "WelcomeEmailSent").await;
    let csrf = ada.csrf("/account/plan").await;
    let (status, place, page) = ada.post("/account/plan", &[("csrf", &csrf), ("plan", "large")]).await;
    assert_eq!((status, &*place), (303, "/account#plan"), "{page}");
    let waiting = world.wait(&name, "unconfirmed", |s| plan_change(s) == Some(State::Unconfirmed)).await;
    assert_eq!((waiting.phase, document_limit(&waiting)), (Some(Phase::Active), 10));
    assert_eq!((billed(&world).await, paid(&world).await), (4900, vec![4900, 0]), "nothing is charged yet");
    world.until("the customer is told", async || world.mails("plan-unconfirmed").await == 1).await;
    let url = waiting.plan_change.and_then(|c| c.confirm_url).expect("a page");
    let (_, page) = ada.get("/account").await;
    assert!(page.contains("id=\"confirm\"") && page.contains("Confirm the payment"), "{page}");
    assert_eq!(world.http.post(url).send().await.expect("it answers").status(), 200);
    let status = world.wait(&name, "on the large plan", |s| document_limit(s) == 100).await;
    assert_eq!((status.phase, plan_change(&status)), (Some(Phase::Active), Some(State::Applied)));
    assert_eq!((billed(&world).await, paid(&world).await.len()), (19_900, 2), "charged once");
    world.assert_transitions(&name).await;
}

#[tokio::test]
async fn a_smaller_plan_is_in_force_at_the_end_of_the_period_and_can_be_taken_back_until_then() {
    let world = World::on_middle_plan("downgrade", &[]).await;
    wish(&world, "acme", "small").await.expect("patched");
    let status = world.wait("acme", "scheduled", |s| plan_change(s) == Some(State::Scheduled)).await;
    assert_eq!((status.phase, document_limit(&status)), (Some(Phase::Active), 10), "what was paid for");
    let at = status.plan_change.and_then(|c| c.effective_at).expect("a day");
    let left = at.since(tenant_operator::api::Timestamp::now());
    assert!((27 * DAY..=31 * DAY).contains(&left), "a month: {left}");
    assert_eq!(billed(&world).await, 900, "from the next period on");
    world.until("the customer is told", async || world.mails("plan-scheduled").await == 1).await;
    // Taken back, and asked for again.
    wish(&world, "acme", "middle").await.expect("patched");
    world.wait("acme", "as before", |s| s.plan_change.is_none()).await;
    assert_eq!(billed(&world).await, 4900);
    wish(&world, "acme", "small").await.expect("patched");
    world.wait("acme", "scheduled", |s| plan_change(s) == Some(State::Scheduled)).await;
    assert_eq!(paid(&world).await, [4900], "nothing was charged for any of it");
    forward(&world, 31).await;
    let status = world.wait("acme", "on the small plan", |s| document_limit(s) == 1).await;
    assert_eq!(plan_change(&status), Some(State::Applied));
    assert_eq!(paid(&world).await, [4900, 900]);
    world.assert_transitions("acme").await;
    let events: Vec<_> = status.transitions.iter().map(|t| format!("{:?}", t.event_type)).collect();
    assert_eq!(events, ["Signup", "Provision", "Activate", "Downgrade", "Activate"]);
}

/// What a write answers may hold an event that is newer than what was read before the write.
#[tokio::test]
async fn an_event_that_comes_while_an_email_is_sent_is_acted_upon() {
    let world = World::on_middle_plan("event-meanwhile", &["--resync=3600", "--full-resync=3600"]).await;
    world.fault(json!({"provider": "smtp", "delay_ms": 3000})).await;
    wish(&world, "acme", "small").await.expect("patched");
    world.wait("acme", "scheduled", |s| plan_change(s) == Some(State::Scheduled)).await;
    forward(&world, 31).await;
    world.wait("acme", "on the small plan", |s| document_limit(s) == 1).await;
}

/// A controller that restarts takes the events that it finds for old ones.
#[tokio::test]
async fn a_scheduled_plan_comes_into_force_even_if_no_event_tells_of_the_next_period() {
    let world = World::on_middle_plan("downgrade-unheard", &[]).await;
    wish(&world, "acme", "small").await.expect("patched");
    world.wait("acme", "scheduled", |s| plan_change(s) == Some(State::Scheduled)).await;
    world.sandbox_post("/_sandbox/webhooks", json!({"lose": true})).await;
    forward(&world, 31).await;
    world.wait("acme", "on the small plan", |s| document_limit(s) == 1).await;
    assert_eq!(paid(&world).await, [4900, 900]);
}

#[tokio::test]
async fn a_plan_too_small_for_the_documents_is_refused_with_numbers_until_they_fit() {
    let world = World::on_middle_plan("unfit", &[]).await;
    let key = world.api_key("acme").await;
    let documents_url = format!("{}/v1/documents", world.web);
    let mut ids = Vec::new();
    for text in ["Cats sleep for sixteen hours.", "Dogs bark at the postman.", "Fish swim in the pond."] {
        let upload = world.http.post(&documents_url).bearer_auth(&key).header("content-type", "text/plain").body(text);
        let answer: Value = upload.send().await.expect("it answers").json().await.expect("JSON");
        ids.push(answer["id"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned());
    }
    wish(&world, "acme", "tiny").await.expect("patched");
    let blocked = |s: &TenantStatus| plan_change(s) == Some(State::Blocked);
    let status = world.wait("acme", "blocked", blocked).await;
    let condition = conditions::get(&status.conditions, "PlanInForce").expect("a condition");
    assert_eq!(&*condition.reason, "UsageExceedsPlan");
    assert!(
        condition.message.contains("3 documents") && condition.message.contains("Remove 2"),
        "{}",
        condition.message
    );
    assert_eq!((document_limit(&status), billed(&world).await), (10, 4900));
    for id in &ids[..2] {
        let gone = world.http.delete(format!("{documents_url}/{id}")).bearer_auth(&key).send().await;
        assert!(gone.expect("it answers").status().is_success());
    }
    let status = world.wait("acme", "on the tiny plan", |s| document_limit(s) == 1).await;
    assert_eq!(plan_change(&status), Some(State::Applied));
    // What was paid too much is credited to the next invoice.
    forward(&world, 31).await;
    world.until("the next period is billed", async || paid(&world).await.len() == 2).await;
    assert_eq!(paid(&world).await, [4900, 0]);
}

#[tokio::test]
async fn a_second_change_is_refused_by_the_api_server_while_stripe_is_away_and_no_customer_pays_twice() {
    let mut world = World::on_middle_plan("hang", &[]).await;
    world
        .fault(
            json!({"provider": "stripe", "method": "POST", "path": "/v1/subscriptions", "status": 503, "times": 1_000}),
        )
        .await;
    wish(&world, "acme", "large").await.expect("patched");
    let status = world.wait_phase("acme", Phase::Upgrading).await;
    assert!(conditions::is_true(&status.conditions, "Ready"), "served meanwhile");
    assert_eq!(document_limit(&status), 10, "by the plan before");
    // Ten times a second: refused, with what is running and since when.
    for size in ["small", "middle", "tiny", "small", "middle"].into_iter().cycle().take(20) {
        let refused = wish(&world, "acme", size).await.expect_err("refused").to_string();
        let since = status.plan_change.as_ref().expect("a change").since.to_string();
        assert!(refused.contains("to plan large is running since"), "{refused}");
        assert!(refused.contains(since.trim_end_matches('Z')), "{refused}, {since}");
    }
    wish(&world, "acme", "large").await.expect("the same wish changes nothing");
    world.wait("acme", "waiting for Stripe", |s| s.message.as_deref().is_some_and(|m| m.contains("Stripe"))).await;
    world.clear_faults().await;
    // The change reaches Stripe, and its answer is lost, and the controller with it.
    world.fault(json!({"provider": "stripe", "method": "POST", "path": "/v1/subscriptions", "drop_after_effect": true, "times": 3})).await;
    world.until("Stripe has it", async || billed(&world).await == 19_900).await;
    world.replace_controller();
    world.wait("acme", "on the large plan", |s| s.phase == Some(Phase::Active) && document_limit(s) == 100).await;
    assert_eq!(paid(&world).await.len(), 2, "{:?}", paid(&world).await);
    world.assert_transitions("acme").await;
}

/// The API for programs: its permissions and answers. A repeated request changes nothing.
#[tokio::test]
async fn the_api_answers_what_became_of_a_change() {
    let world = World::with_portal("api", &[]).await;
    let signup = json!({"email": "ada@example.com", "company_name": "Acme", "password": "correct horse battery",
        "accept_terms": true, "plan": "middle"});
    let answer = world.http.post(format!("{}/signup", world.web)).json(&signup).send().await.expect("it answers");
    let answer: Value = answer.json().await.expect("JSON");
    let (id, token) = (answer["tenant_id"].as_str().expect("an id"), answer["token"].as_str().expect("a token"));
    let url = format!("{}/tenant/{id}/plan", world.web);
    let ask = async |name: &str, token: &str| {
        let request = world.http.post(&url).bearer_auth(token).json(&json!({"plan": name}));
        let answer = request.send().await.expect("it answers");
        (answer.status().as_u16(), answer.json::<Value>().await.expect("JSON"))
    };
    assert_eq!(ask("large", token).await.0, 409, "not before it is Active");
    let tenants = world.tenants().list(&Default::default()).await.expect("listed");
    let name = tenants.items[0].metadata.name.clone().expect("a name");
    world.pay(&name).await;
    world.wait_true(&name, "WelcomeEmailSent").await;
    assert_eq!(ask("large", "someone.else.entirely").await.0, 404);
    let (status, body) = ask("no-such-plan", token).await;
    assert!(status == 400 && body["fields"]["plan"].is_string(), "{body}");
    let (status, body) = ask("enterprise", token).await;
    assert!(status == 409 && body["code"] == "plan_not_available", "{body}");
    let (status, body) = ask("large", token).await;
    assert_eq!((status, &body["state"], &body["plan"]), (200, &json!("applied"), &json!("large")), "{body}");
    let (status, body) = ask("large", token).await;
    assert_eq!((status, &body["state"]), (200, &json!("applied")), "again: {body}");
    assert_eq!(ask("small", token).await.0, 429, "each change may be charged");
    assert_eq!(paid(&world).await.len(), 2);
    let shown =
        world.http.get(format!("{}/tenant/{id}", world.web)).bearer_auth(token).send().await.expect("it answers");
    assert_eq!(shown.json::<Value>().await.expect("JSON")["plan"], json!("large"));
}

/// `operations/kills.rs` kills at every call that changes something.
#[tokio::test]
async fn killed_while_the_price_is_read() {
    let mut world = World::on_middle_plan("kill-price-read", &[]).await;
    for (size, holds) in [("large", 100), ("middle", 100)] {
        world
            .fault(json!({"provider": "stripe", "method": "GET", "path": "/v1/subscriptions/", "delay_ms": 2500}))
            .await;
        wish(&world, "acme", size).await.expect("patched");
        let running = |s: &TenantStatus| matches!(plan_change(s), Some(State::Running | State::Preparing));
        world.wait("acme", "changing", running).await;
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        world.replace_controller();
        let settled = |s: &TenantStatus| matches!(plan_change(s), Some(State::Applied | State::Scheduled));
        let status = world.wait("acme", "settled", |s| s.phase == Some(Phase::Active) && settled(s)).await;
        assert_eq!(document_limit(&status), holds);
        world.clear_faults().await;
    }
    assert_eq!((paid(&world).await.len(), billed(&world).await), (2, 4900));
    world.assert_transitions("acme").await;
}

/// A customer's whole life, one thing after the other, on the sandbox's clock.
#[tokio::test(flavor = "multi_thread")]
async fn a_whole_life_from_the_signup_to_the_certificate() {
    let world = World::with_portal("life", &["--payment-grace=2"]).await;
    let mut ada = Visitor::new(&world);
    let name = ada.sign_up("ada@example.com", "Acme").await;
    world.pay(&name).await;
    world.wait_true(&name, "WelcomeEmailSent").await;
    // Documents of their own.
    let key = world.api_key(&name).await;
    for text in ["Cats sleep for sixteen hours.", "Dogs bark at the postman."] {
        let url = format!("{}/v1/documents", world.web);
        let stored =
            world.http.post(url).bearer_auth(&key).header("content-type", "text/plain").body(text).send().await;
        assert!(stored.expect("it answers").status().is_success());
    }
    let ask = async || {
        let request = world.http.post(format!("{}/v1/query", world.web)).bearer_auth(&key);
        let answer = request.json(&json!({"question": "How long do cats sleep?"})).send().await.expect("it answers");
        (answer.status().as_u16(), answer.text().await.expect("text"))
    };
    // Up, a smaller plan that does not fit, and one for later.
    wish(&world, &name, "large").await.expect("patched");
    world.wait(&name, "on the large plan", |s| document_limit(s) == 100).await;
    wish(&world, &name, "tiny").await.expect("patched");
    let status = world.wait(&name, "blocked", |s| plan_change(s) == Some(State::Blocked)).await;
    assert_eq!(&*conditions::get(&status.conditions, "PlanInForce").expect("there").reason, "UsageExceedsPlan");
    wish(&world, &name, "small").await.expect("patched");
    world.wait(&name, "scheduled", |s| plan_change(s) == Some(State::Scheduled)).await;
    forward(&world, 15).await;
    world.wait(&name, "on the small plan", |s| document_limit(s) == 1).await;
    assert!(ask().await.1.contains("sixteen"), "what is beyond the plan still answers");
    // A payment fails, the grace is over, another card.
    let method = stripe_objects(&world, "payment_method").await[0]["id"].as_str().expect("an id").to_owned();
    world.sandbox_post("/_sandbox/decline", json!({"payment_method": method})).await;
    forward(&world, 31).await;
    world.wait_phase(&name, Phase::Suspended).await;
    world.until("questions are refused", async || ask().await.0 == 402).await;
    portal(&world, &mut ada, "card").await;
    world.wait_phase(&name, Phase::Active).await;
    // Away, back on the last day, and away for good.
    let desire = async |desired: &str| {
        let patch = Patch::Merge(json!({"spec": {"desired": desired}}));
        world.tenants().patch(&name, &Default::default(), &patch).await.expect("patched");
    };
    desire("Deleted").await;
    world.wait_true(&name, "RenewalStopped").await;
    desire("Active").await;
    world.wait_phase(&name, Phase::Active).await;
    world.until("questions are answered", async || ask().await.1.contains("sixteen")).await;
    desire("Deleted").await;
    world.wait_true(&name, "RenewalStopped").await;
    let due = Patch::Merge(json!({"status": {"erasesAt": "2026-01-01T00:00:00Z"}}));
    world.tenants().patch_status(&name, &Default::default(), &due).await.expect("patched");
    let status = world.wait_phase(&name, Phase::Deleted).await;
    let erasure = status.erasure.clone().expect("a certificate");
    assert!(erasure.lines.iter().all(|line| line.before > 0 && line.after == Some(0)), "{erasure:#?}");
    world.assert_transitions(&name).await;
    // Every provider says that nothing is left.
    let pinecone = world.sandbox_get("/_sandbox/pinecone").await;
    assert_eq!(pinecone["namespaces"], json!({}), "{pinecone}");
    let customers = stripe_objects(&world, "customer").await;
    assert!(customers.len() == 1 && customers[0]["deleted"] == true, "{customers:?}");
    assert!(stripe_objects(&world, "subscription").await.iter().all(|s| s["status"] == "canceled"));
    let secrets = world.secrets().list(&Default::default()).await.expect("listed");
    assert!(!secrets.items.iter().any(|s| s.metadata.name.as_deref().unwrap_or_default().starts_with(&name)));
    assert!(!json!(world.tenants().get(&name).await.expect("the record")).to_string().contains("ada@example.com"));
    assert_eq!(ask().await.0, 410);
}
