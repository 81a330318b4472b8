//! From a signup to the first answer, and what a signup refuses.

use serde_json::{Value, json};
use tenant_operator::api::Phase;

use crate::support::World;

fn form(email: &str) -> Value {
    json!({"email": email, "company_name": "Analytical Engines", "password": "difference-engine", "plan": "starter", "accept_terms": true})
}

async fn post(world: &World, form: &Value) -> (u16, Value) {
    post_to(world, &world.web, form).await
}

async fn post_to(world: &World, web: &str, form: &Value) -> (u16, Value) {
    let answer = world.http.post(format!("{web}/signup")).json(form).send().await.expect("web answers");
    (answer.status().as_u16(), answer.json().await.expect("JSON"))
}

fn text<'a>(body: &'a Value, key: &str) -> &'a str {
    body[key].as_str().unwrap_or_else(|| panic!("{key} in {body}"))
}

fn name(body: &Value) -> String {
    text(body, "token").split('.').next().expect("a name").to_owned()
}

#[tokio::test]
async fn a_company_signs_up_pays_and_gets_an_answer_with_sources() {
    let mut world = World::start("signup").await;
    world.start_web(&[]);
    let (status, body) = post(&world, &form("ada@example.com")).await;
    assert_eq!((status, text(&body, "status")), (201, "pending_payment"), "{body}");
    let (id, token) = (text(&body, "tenant_id"), text(&body, "token"));

    let pay = |card: &'static str| world.http.post(text(&body, "checkout_url")).form(&[("card", card)]).send();
    assert_eq!(pay("4000 0000 0000 0002").await.expect("the page answers").status(), 402);
    assert_eq!(pay("4242 4242 4242 4242").await.expect("the page answers").status(), 303);
    world.wait_phase(&name(&body), Phase::Active).await;

    let url = format!("{}/tenant/{id}", world.web);
    let shown: Value =
        world.http.get(&url).bearer_auth(token).send().await.expect("web answers").json().await.expect("JSON");
    assert_eq!(shown["phase"], "Active");
    assert_eq!(world.http.get(&url).send().await.expect("web answers").status(), 404);
    assert_eq!(world.http.get(&url).bearer_auth(format!("{token}x")).send().await.expect("web answers").status(), 404);

    let asked = world.http.post(format!("{url}/setup/sample-query")).bearer_auth(token).json(&json!({}));
    let answer: Value = asked.send().await.expect("web answers").json().await.expect("JSON");
    assert!(answer["sources"].as_array().is_some_and(|s| s.iter().any(|s| s["id"] == "sample_2")), "{answer}");
    world.assert_one_of_each(&name(&body)).await;

    let (status, body) = post(&world, &form("ada@example.com")).await;
    assert_eq!((status, text(&body, "code")), (400, "email_taken"));
}

#[tokio::test]
async fn a_plain_html_form_signs_up_too() {
    let mut world = World::start("form").await;
    world.start_web(&[]);
    let fields = [
        ("email", "ada@example.com"),
        ("company_name", "Ada & Söhne"),
        ("password", "difference-engine"),
        ("plan", "pro"),
        ("accept_terms", "on"),
    ];
    let answer = world.http.post(format!("{}/signup", world.web)).form(&fields).send().await.expect("web answers");
    assert_eq!(answer.status(), 201);
    let body: Value = answer.json().await.expect("JSON");
    let tenant = world.tenants().get(&name(&body)).await.expect("the tenant");
    assert_eq!((tenant.spec.company_name.as_str(), tenant.spec.plan.as_str()), ("Ada & Söhne", "pro"));
    let login = world.secrets().get(&tenant.spec.login.expect("a login").secret_name).await.expect("a Secret");
    let hash = String::from_utf8(login.data.expect("data")["password-hash"].0.clone()).expect("text");
    assert!(hash.starts_with("$argon2id$"), "{hash}");
}

#[tokio::test]
async fn progress_is_streamed() {
    use futures::StreamExt;
    let mut world = World::start("sse").await;
    world.start_web(&[]);
    let (_, body) = post(&world, &form("ada@example.com")).await;
    let url = format!("{}/tenant/{}/events", world.web, text(&body, "tenant_id"));
    let answer = world.http.get(url).bearer_auth(text(&body, "token")).send().await.expect("web answers");
    world.pay(&name(&body)).await;
    let (mut seen, mut stream) = (String::new(), answer.bytes_stream());
    while !seen.contains(r#""phase":"Active""#) {
        let chunk = stream.next().await.expect("the stream goes on").expect("a chunk");
        seen.push_str(&String::from_utf8_lossy(&chunk));
    }
    assert!(seen.contains(r#""phase":"PendingPayment""#), "{seen}");
}

#[tokio::test]
async fn an_unfinished_signup_is_resumed_by_the_same_password_alone() {
    let mut world = World::start("resume").await;
    world.start_web(&[]);
    let (_, first) = post(&world, &form("ada@example.com")).await;
    let (status, again) = post(&world, &form(" ADA@example.com ")).await;
    assert_eq!(status, 200, "{again}");
    assert_eq!(first["checkout_url"], again["checkout_url"]);
    assert_eq!(first["tenant_id"], again["tenant_id"]);
    let mut other = form("ada@example.com");
    other["password"] = json!("a guess by a stranger");
    assert_eq!(post(&world, &other).await.0, 400);
}

#[tokio::test]
async fn two_replicas_asked_at_once_make_one_tenant() {
    let mut world = World::start("twice").await;
    world.start_web(&[]);
    let first = world.web.clone();
    world.start_web(&[]);
    assert_ne!(first, world.web);
    let mut other = form("ada@example.com");
    other["password"] = json!("another-password");
    let form = form("ada@example.com");
    let (a, b) = tokio::join!(post_to(&world, &first, &form), post_to(&world, &world.web, &other));
    let mut codes = [a.0, b.0];
    codes.sort_unstable();
    assert_eq!(codes, [201, 400]);
    assert_eq!(world.tenants().list(&Default::default()).await.expect("a list").items.len(), 1);
}

#[tokio::test]
async fn a_signup_is_kept_while_the_controller_is_away() {
    let mut world = World::without_controller("away").await;
    world.start_web(&["--checkout-wait-ms", "300"]);
    let (status, body) = post(&world, &form("ada@example.com")).await;
    assert_eq!(status, 202, "{body}");
    assert!(text(&body, "progress_url").starts_with("/tenant/"));
    world.start_controller();
    world.pay(&name(&body)).await;
    world.wait_phase(&name(&body), Phase::Active).await;
}

#[tokio::test]
async fn a_signup_that_is_never_paid_for_is_removed_with_its_secrets() {
    let mut world = World::without_controller("unpaid").await;
    world.controller_args(&["--signup-ttl=2"]);
    world.start_controller();
    world.start_web(&[]);
    let (_, body) = post(&world, &form("ada@example.com")).await;
    world.wait_gone(&name(&body)).await;
    let login = format!("{}-login", name(&body));
    assert!(world.secrets().get_opt(&login).await.expect("the API answers").is_none());
    let stripe = world.sandbox_get("/_sandbox/state").await;
    assert_eq!(stripe["checkout.session"][0]["status"], "expired");
}

#[tokio::test]
async fn bad_forms_get_errors_that_name_the_field() {
    let mut world = World::without_controller("forms").await;
    world.start_web(&["--checkout-wait-ms", "100"]);
    let cases = [
        ("email", json!("not an address")),
        ("email", json!("a@b")),
        ("email", json!("a@b.c,d@e.f")),
        ("company_name", json!("   ")),
        ("password", json!("short")),
        ("plan", json!("no-such-plan")),
        ("plan", json!("../../etc")),
        ("plan", json!("enterprise")),
        ("accept_terms", json!(false)),
    ];
    for (field, value) in cases {
        let mut form = form("ada@example.com");
        form[field] = value.clone();
        let (status, body) = post(&world, &form).await;
        assert_eq!(status, 400, "{field}={value}: {body}");
        assert!(body["fields"][field].is_string(), "{field}={value}: {body}");
    }
    let huge = vec![b'['; 10 << 20];
    let sent = world.http.post(format!("{}/signup", world.web)).header("content-type", "application/json").body(huge);
    // The server may close the connection before it has read all of it.
    if let Ok(answer) = sent.send().await {
        assert_eq!(answer.status(), 413);
    }
    let sent = world.http.post(format!("{}/signup", world.web)).header("content-type", "application/json").body("{");
    assert_eq!(sent.send().await.expect("web answers").status(), 400);
    assert!(world.tenants().list(&Default::default()).await.expect("a list").items.is_empty());
}

#[tokio::test]
async fn a_signup_resumed_with_another_plan_buys_that_plan() {
    let mut world = World::start("other-plan").await;
    world.start_web(&[]);
    let (_, first) = post(&world, &form("ada@example.com")).await;
    let mut other = form("ada@example.com");
    other["plan"] = json!("pro");
    let (status, again) = post(&world, &other).await;
    assert_eq!(status, 200, "{again}");
    assert_ne!(first["checkout_url"], again["checkout_url"]);
    let old = world.http.post(text(&first, "checkout_url")).form(&[("card", "4242424242424242")]).send().await;
    assert_eq!(old.expect("the page answers").status(), 400, "the old link sells nothing any more");
    world.pay(&name(&again)).await;
    world.wait_phase(&name(&again), Phase::Active).await;
    let stripe = world.sandbox_get("/_sandbox/state").await;
    assert_eq!(stripe["subscription"][0]["items"]["data"][0]["price"]["id"], "price_pro_monthly", "{stripe}");
    assert_eq!(world.status(&name(&again)).await.config.expect("a config").plan, "pro");
    world.assert_one_of_each(&name(&again)).await;
}

#[tokio::test]
async fn the_plan_that_was_paid_for_counts_even_if_the_spec_changed_meanwhile() {
    let mut world = World::start("paid-plan").await;
    world.create("acme", "paid", tenant_operator::api::tenant::BillingMode::Stripe).await;
    world.wait("acme", "given a link", |s| s.checkout.is_some()).await;
    world.controllers.remove(0).kill();
    world.pay("acme").await;
    let change = kube::api::Patch::Merge(json!({"spec": {"plan": "pro"}}));
    world.tenants().patch("acme", &Default::default(), &change).await.expect("before the payment was seen");
    world.start_controller();
    world.wait_phase("acme", Phase::Active).await;
    assert_eq!(world.tenants().get("acme").await.expect("the tenant").spec.plan, "paid");
    world.assert_one_of_each("acme").await;
}
