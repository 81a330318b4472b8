//! The setup, its events, and what clients say of it.

use serde_json::{Value, json};
use tenant_operator::api::Phase;

use crate::support::{World, folder};
use crate::visitor::{PASSWORD, Visitor};

struct Customer {
    id: String,
    token: String,
    name: String,
}

async fn customer(world: &World, email: &str) -> Customer {
    let form = json!({"email": email, "company_name": "Acme", "password": PASSWORD, "accept_terms": true});
    let answer = world.http.post(format!("{}/signup", world.web)).json(&form).send().await.expect("it answers");
    let signup: Value = answer.json().await.expect("JSON");
    let text = |key: &str| signup[key].as_str().unwrap_or_else(|| panic!("{signup}")).to_owned();
    let (id, token) = (text("tenant_id"), text("token"));
    let name = token.split('.').next().expect("a name").to_owned();
    world.pay(&name).await;
    world.wait_phase(&name, Phase::Active).await;
    Customer { id, token, name }
}

impl Customer {
    async fn post(&self, world: &World, path: &str, body: Value) -> (u16, Value) {
        let url = format!("{}{}", world.web, path.replace("{id}", &self.id));
        let answer = world.http.post(url).bearer_auth(&self.token).json(&body).send().await.expect("it answers");
        (answer.status().as_u16(), answer.json().await.expect("JSON"))
    }

    async fn upload(&self, world: &World, text: &'static str) -> (u16, Value) {
        let url = format!("{}/tenant/{}/setup/upload-document", world.web, self.id);
        let answer = world.http.post(url).bearer_auth(&self.token).body(text).send().await.expect("it answers");
        (answer.status().as_u16(), answer.json().await.expect("JSON"))
    }

    async fn setup(&self, world: &World) -> Value {
        let url = format!("{}/tenant/{}/setup", world.web, self.id);
        world.http.get(url).bearer_auth(&self.token).send().await.expect("it answers").json().await.expect("JSON")
    }
}

const TEXT: &str = "Vacation policy. Every employee has thirty days of vacation a year.";

async fn start(name: &str) -> (World, std::path::PathBuf) {
    let file = folder(&format!("{name}.jsonl"));
    drop(std::fs::remove_file(&file));
    let mut world = World::without_controller(name).await;
    world.environment("EVENTS_FILE", file.to_str().expect("a path"));
    world.start_controller();
    world.start_web(&[]);
    (world, file)
}

fn events(file: &std::path::Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

#[tokio::test]
async fn the_whole_way_is_told_once_with_its_attempts() {
    let (world, file) = start("activation").await;
    let ada = customer(&world, "ada@example.com").await;
    let incomplete = ada.post(&world, "/tenant/{id}/setup/complete", json!({})).await;
    assert_eq!((incomplete.0, &incomplete.1["detail"]), (400, &json!("complete all setup steps first")));
    world.fault(json!({"provider": "openai", "path": "/v1/chat/completions", "status": 400, "times": 1})).await;
    assert_eq!(ada.post(&world, "/tenant/{id}/setup/sample-query", json!({})).await.0, 502);
    for _ in 0..2 {
        assert_eq!(ada.post(&world, "/tenant/{id}/setup/sample-query", json!({})).await.0, 200);
    }
    assert_eq!(ada.upload(&world, "").await.0, 400);
    assert_eq!(ada.upload(&world, TEXT).await.0, 201);
    assert_eq!(ada.upload(&world, TEXT).await.0, 200, "the same content is stored once");
    let question = json!({"question": "How many days of vacation does an employee have?"});
    for _ in 0..8 {
        assert_eq!(ada.post(&world, "/tenant/{id}/setup/sample-query", question.clone()).await.0, 200);
    }
    let (status, setup) = ada.post(&world, "/tenant/{id}/setup/complete", json!({})).await;
    assert_eq!((status, &setup["completion_percentage"]), (200, &json!(100)));
    assert!(setup["time_to_activate"].as_i64().is_some_and(|s| (0..60).contains(&s)), "{setup}");
    let mails = world.mail_links("ada@example.com", "You are all set").await;
    assert!(mails.iter().any(|link| link.ends_with("/account")), "{mails:?}");

    world.until("the events are written", async || events(&file).iter().any(|e| e["event_type"] == "completed")).await;
    let all = events(&file);
    let of =
        |name: &str, outcome: &str| all.iter().filter(|e| e["event_type"] == name && e["outcome"] == outcome).count();
    for milestone in
        ["signup", "payment", "provisioned", "sample_query", "first_document", "own_query", "ten_queries", "completed"]
    {
        assert_eq!(of(milestone, "success"), 1, "{milestone}: {all:#?}");
    }
    assert_eq!(
        (of("sample_query", "attempt"), of("first_document", "attempt")),
        (11, 3),
        "attempts and successes apart"
    );
    let variants: std::collections::BTreeSet<_> = all.iter().map(|e| e["variant"].to_string()).collect();
    assert_eq!(variants.len(), 1, "one variant for a tenant: {variants:?}");
    assert_eq!(setup["variant"].to_string(), *variants.first().expect("one"));
    assert!(all.iter().all(|e| e["tenant_id"] == ada.id.as_str() && e["source"] == "server"));
    let metrics = world.http.get(world.web_metrics.clone()).send().await.expect("it answers");
    let metrics = metrics.text().await.expect("text");
    let counted = r#"activation_events_total{event="completed",outcome="success",source="server"} 1"#;
    assert!(metrics.contains(counted), "{metrics}");
}

#[tokio::test]
async fn what_a_client_says_is_kept_apart_and_compared() {
    let (world, file) = start("claims").await;
    let (ada, eve) = (customer(&world, "ada@example.com").await, customer(&world, "eve@example.com").await);
    let track = async |who: &Customer, body: Value| who.post(&world, "/activation/track", body).await;
    let view = json!({"tenant_id": ada.id, "event_type": "page_view", "metadata": {"path": "/account", "ms": 12, "new": true}});
    let (status, told) = track(&ada, view.clone()).await;
    assert_eq!((status, &told["confirmed"]), (202, &json!(null)));
    let claim = json!({"tenant_id": ada.id, "event_type": "completed"});
    assert_eq!(track(&ada, claim.clone()).await.1["confirmed"], false, "nobody is activated by saying so");
    assert_eq!(ada.setup(&world).await["completed_at"], json!(null));
    assert_eq!(ada.post(&world, "/tenant/{id}/setup/sample-query", json!({})).await.0, 200);
    assert_eq!(track(&ada, json!({"tenant_id": ada.id, "event_type": "sample_query"})).await.1["confirmed"], true);
    // Another tenant's token, none, and what is no event.
    assert_eq!(track(&eve, view).await.0, 404);
    let naked =
        world.http.post(format!("{}/activation/track", world.web)).json(&claim).send().await.expect("it answers");
    assert_eq!(naked.status(), 404);
    let many: serde_json::Map<_, _> = (0..21).map(|n| (n.to_string(), json!(n))).collect();
    for (event_type, metadata) in [
        ("made_up", json!({})),
        ("page_view", json!({"text": "x".repeat(201)})),
        ("page_view", json!({"nested": {"deep": 1}})),
        ("page_view", json!({"list": [1]})),
        ("page_view", Value::Object(many)),
    ] {
        let (status, refusal) =
            track(&ada, json!({"tenant_id": ada.id, "event_type": event_type, "metadata": metadata})).await;
        assert_eq!(status, 400, "{refusal}");
    }
    let odd = track(&ada, json!({"tenant_id": ada.id, "event_type": "page_view", "surprise": 1})).await;
    assert!((400..500).contains(&odd.0), "{odd:?}");
    let clients = || events(&file).iter().filter(|e| e["source"] == "client").count();
    world.until("three are written", async || clients() >= 3).await;
    assert_eq!(clients(), 3);
    let metrics = world.http.get(world.web_metrics.clone()).send().await.expect("it answers");
    let metrics = metrics.text().await.expect("text");
    assert!(metrics.contains(r#"activation_unconfirmed_total{kind="completed"} 1"#), "{metrics}");
}

#[tokio::test]
async fn whoever_works_by_api_key_comes_along_as_well() {
    let (world, _) = start("byapi").await;
    let ada = customer(&world, "ada@example.com").await;
    let key = String::from_utf8(world.api_key(&ada.name).await).expect("text");
    let call = |path: &str| world.http.post(format!("{}{path}", world.web)).bearer_auth(&key);
    let ask = async || {
        let answer = call("/v1/query").json(&json!({"question": "How many days of vacation?"})).send().await;
        assert!(answer.expect("it answers").status().is_success());
    };
    let next = async || ada.setup(&world).await["next_step"].clone();
    ask().await;
    world.until("the question counts", async || next().await == "first-document").await;
    assert!(call("/v1/documents").body(TEXT).send().await.expect("it answers").status().is_success());
    world.until("the document counts", async || next().await == "own-query").await;
    // The directory of the tenants hears of it a moment later.
    world
        .until("the question about it counts", async || {
            ask().await;
            next().await.is_null()
        })
        .await;
    assert_eq!(ada.post(&world, "/tenant/{id}/setup/complete", json!({})).await.0, 200);
}

#[tokio::test]
async fn the_setup_can_be_put_aside_and_taken_up_again() {
    let (world, _) = start("skip").await;
    let ada = customer(&world, "ada@example.com").await;
    assert_eq!(ada.post(&world, "/tenant/{id}/setup/sample-query", json!({})).await.0, 200);
    let (status, setup) = ada.post(&world, "/tenant/{id}/setup/skip", json!({})).await;
    assert!(status == 200 && setup["skipped"] == true && setup["completion_percentage"] == 33, "{setup}");
    let (_, setup) = ada.post(&world, "/tenant/{id}/setup/skip", json!({"skipped": false})).await;
    assert!(setup["skipped"] == false && setup["next_step"] == "first-document", "{setup}");
    let mut page = Visitor::new(&world);
    assert_eq!(page.log_in("ada@example.com", PASSWORD).await, 303);
    let csrf = page.csrf("/account").await;
    page.post("/account/setup", &[("csrf", &csrf), ("action", "skip")]).await;
    let (_, text) = page.get("/account").await;
    assert!(text.contains("Show the setup again") && !text.contains("Skip the setup"), "{text}");
    page.post("/account/setup", &[("csrf", &csrf), ("action", "resume")]).await;
    assert!(page.get("/account").await.1.contains("Skip the setup"));
    page.post("/account/setup", &[("csrf", &csrf), ("action", "complete")]).await;
    assert_eq!(ada.setup(&world).await["completed_at"], json!(null), "not before its steps are done");
    assert_eq!(page.post("/account/setup", &[("action", "skip")]).await.0, 403);
}

#[tokio::test]
async fn a_customer_chooses_how_documents_are_cut() {
    let (world, _) = start("chunking").await;
    let ada = customer(&world, "ada@example.com").await;
    let mut page = Visitor::new(&world);
    assert_eq!(page.log_in("ada@example.com", PASSWORD).await, 303);
    let csrf = page.csrf("/settings/advanced").await;
    let save = async |page: &mut Visitor<'_>, max: &str, overlap: &str| {
        let fields =
            [("csrf", &*csrf), ("chunking", "custom"), ("max_characters", max), ("overlap_characters", overlap)];
        page.post("/settings/advanced", &fields).await
    };
    for (max, overlap) in
        [("199", "0"), ("4001", "0"), ("400", "201"), ("4000", "1001"), ("", ""), ("x", "-1"), ("99999999999", "0")]
    {
        let (status, _, text) = save(&mut page, max, overlap).await;
        assert!(status == 400 && text.contains("chunking-error"), "{max} {overlap}: {status}");
    }
    let (status, _, text) = save(&mut page, "200", "0").await;
    assert!(status == 200 && text.contains("Saved"), "{status} {text}");
    let long: &'static str = Box::leak("A sentence about vacation policy. ".repeat(60).into_boxed_str());
    // The directory of the tenants may be a moment behind.
    let chunking = async || world.tenants().get(&ada.name).await.expect("there").spec.settings.chunking;
    assert_eq!(chunking().await.map(|c| c.max_characters), Some(200));
    let (_, document) = ada.upload(&world, long).await;
    assert!(document["passages"].as_u64().is_some_and(|n| n > 8), "{document}");
    let fields = [("csrf", &*csrf), ("chunking", "auto")];
    assert_eq!(page.post("/settings/advanced", &fields).await.0, 200);
    assert_eq!(chunking().await, None);
    // A manifest is held to the same.
    let wrong = json!({"spec": {"settings": {"chunking": {"maxCharacters": 400, "overlapCharacters": 300}}}});
    let refused = world.tenants().patch(&ada.name, &Default::default(), &kube::api::Patch::Merge(wrong)).await;
    assert!(refused.expect_err("refused").to_string().contains("overlapCharacters must be at most half"));
}
