//! The setup, its events, and what clients say of it.

use serde_json::{Value, json};
use tenant_operator::api::Phase;

use crate::support::{PASSWORD, Visitor, World, folder};

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
    // A step is tried until it is reached: the second sample question and the second document are no attempts at it.
    let tried = |name: &str| (of(name, "attempt"), of(name, "failure"));
    assert_eq!(
        (tried("sample_query"), tried("first_document"), tried("own_query")),
        ((2, 1), (2, 1), (1, 0)),
        "{all:#?}"
    );
    let reasons: Vec<_> =
        all.iter().filter(|e| e["outcome"] == "failure").map(|e| e["metadata"]["reason"].clone()).collect();
    assert_eq!(reasons, [json!("provider"), json!("no_file")]);
    assert!(all.iter().all(|e| e["origin"] == "signup"), "{all:#?}");
    let variants: std::collections::BTreeSet<_> = all.iter().map(|e| e["variant"].to_string()).collect();
    assert_eq!(variants.len(), 1, "one variant for a tenant: {variants:?}");
    assert_eq!(setup["variant"].to_string(), *variants.first().expect("one"));
    assert!(all.iter().all(|e| e["tenant_id"] == ada.id.as_str() && e["source"] == "server"));
    let metrics = world.http.get(world.web_metrics.clone()).send().await.expect("it answers");
    let metrics = metrics.text().await.expect("text");
    let counted = r#"activation_events_total{event="completed",outcome="success",origin="signup",source="server"} 1"#;
    assert!(metrics.contains(counted), "{metrics}");
}

/// A signup that has neither paid nor confirmed its address may send events: few, and small ones.
#[tokio::test]
async fn events_of_a_client_are_small_and_not_too_many() {
    let mut world = World::without_controller("smallclaims").await;
    let fast = ["--requests-per-second", "1000", "--client-requests-per-second", "10000"];
    world.start_web(&[&fast[..], &["--checkout-wait-ms", "50"]].concat());
    let form = json!({"email": "ada@example.com", "company_name": "Acme", "password": PASSWORD, "accept_terms": true});
    let answer = world.http.post(format!("{}/signup", world.web)).json(&form).send().await.expect("it answers");
    let signup: Value = answer.json().await.expect("JSON");
    let text = |key: &str| signup[key].as_str().unwrap_or_else(|| panic!("{signup}")).to_owned();
    let ada = Customer { id: text("tenant_id"), token: text("token"), name: String::new() };
    let fields: serde_json::Map<_, _> = (0..20).map(|n| (n.to_string(), json!("\u{1}".repeat(200)))).collect();
    let large = json!({"tenant_id": ada.id, "event_type": "page_view", "metadata": fields});
    let (status, refusal) = ada.post(&world, "/activation/track", large).await;
    assert_eq!(status, 400, "{refusal}");
    assert!(refusal["detail"].as_str().is_some_and(|detail| detail.contains("may take 2048")), "{refusal}");
    let view = json!({"tenant_id": ada.id, "event_type": "page_view"});
    let mut taken = 0;
    for _ in 0..80 {
        taken += u32::from(ada.post(&world, "/activation/track", view.clone()).await.0 == 202);
    }
    assert!((59..70).contains(&taken), "{taken} of 80");
}

#[tokio::test]
async fn milestones_that_a_client_claims_are_kept_apart_and_compared() {
    let (world, file) = start("claims").await;
    let (ada, eve) = (customer(&world, "ada@example.com").await, customer(&world, "eve@example.com").await);
    let track = async |who: &Customer, body: Value| who.post(&world, "/activation/track", body).await;
    let view = json!({"tenant_id": ada.id, "event_type": "page_view", "metadata": {"path": "/account", "ms": 12, "new": true}});
    let (status, told) = track(&ada, view.clone()).await;
    assert_eq!((status, &told["confirmed"]), (202, &json!(null)));
    let claim = json!({"tenant_id": ada.id, "event_type": "completed"});
    assert_eq!(track(&ada, claim.clone()).await.1["confirmed"], false, "a client's claim does not activate a tenant");
    assert_eq!(ada.setup(&world).await["completed_at"], json!(null));
    assert_eq!(ada.post(&world, "/tenant/{id}/setup/sample-query", json!({})).await.0, 200);
    assert_eq!(track(&ada, json!({"tenant_id": ada.id, "event_type": "sample_query"})).await.1["confirmed"], true);
    let other_name = json!({"tenant_id": ada.id, "event_type": "first_query_executed"});
    assert_eq!(track(&ada, other_name).await.1["confirmed"], true, "another name of sample_query");
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
    world.until("four are written", async || clients() >= 4).await;
    assert_eq!(clients(), 4);
    let from_clients =
        |name: &str| events(&file).iter().filter(|e| e["event_type"] == name && e["source"] == "client").count();
    assert_eq!((from_clients("sample_query"), from_clients("first_query_executed")), (2, 0));
    let metrics = world.http.get(world.web_metrics.clone()).send().await.expect("it answers");
    let metrics = metrics.text().await.expect("text");
    assert!(metrics.contains(r#"activation_unconfirmed_total{kind="completed"} 1"#), "{metrics}");
}

#[tokio::test]
async fn a_customer_who_works_by_api_key_reaches_the_milestones_too() {
    let (world, file) = start("byapi").await;
    let ada = customer(&world, "ada@example.com").await;
    let key = world.api_key(&ada.name).await;
    let call = |path: &str| world.http.post(format!("{}{path}", world.web)).bearer_auth(&key);
    let ask = async |question: &str| {
        let answer = call("/v1/query").json(&json!({"question": question})).send().await;
        assert!(answer.expect("it answers").status().is_success());
    };
    let next = async || ada.setup(&world).await["next_step"].clone();
    let refused = call("/v1/query").json(&json!({"question": ""})).send().await.expect("it answers");
    assert_eq!(refused.status(), 400);
    ask("What is RAG?").await;
    world.until("the question counts", async || next().await == "first-document").await;
    let refused = call("/v1/documents").body("").send().await.expect("it answers");
    assert_eq!(refused.status(), 400);
    assert!(call("/v1/documents").body(TEXT).send().await.expect("it answers").status().is_success());
    world.until("the document counts", async || next().await == "own-query").await;
    // The directory of the tenants hears of it a moment later.
    world
        .until("the question about it counts", async || {
            ask("How many days of vacation?").await;
            next().await.is_null()
        })
        .await;
    assert_eq!(ada.post(&world, "/tenant/{id}/setup/complete", json!({})).await.0, 200);
    let all = events(&file);
    let of = |name: &str, outcome: &str| all.iter().any(|e| e["event_type"] == name && e["outcome"] == outcome);
    for step in ["sample_query", "first_document"] {
        assert!(["attempt", "failure", "success"].iter().all(|outcome| of(step, outcome)), "{step}: {all:#?}");
    }
}

/// Milestones that the tenant's object names.
async fn reached(world: &World, name: &str) -> Vec<String> {
    let tenant = world.tenants().get(name).await.expect("there");
    let annotations = tenant.metadata.annotations.unwrap_or_default();
    let prefix = "tenant-operator.dev/reached-";
    annotations.keys().filter_map(|key| key.strip_prefix(prefix)).map(str::to_owned).collect()
}

async fn used(world: &World, key: &str) -> Value {
    let answer = world.http.get(format!("{}/v1/usage", world.web)).bearer_auth(key).send().await.expect("it answers");
    answer.json::<Value>().await.expect("JSON")["queries"]["used"].clone()
}

const BROKEN_STREAM: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"RAG means\"},\"finish_reason\":null}]}\n\n\
                             data: {\"error\":{\"message\":\"The server had an error\",\"type\":\"server_error\"}}\n\n";

#[tokio::test]
async fn an_answer_that_found_nothing_or_broke_off_is_neither_a_first_query_nor_counted() {
    let (world, file) = start("in-vain").await;
    let ada = customer(&world, "ada@example.com").await;
    let key = world.api_key(&ada.name).await;
    let ask = async |question: &str, stream: bool| {
        let call = world.http.post(format!("{}/v1/query", world.web)).bearer_auth(&key);
        let answer = call.json(&json!({"question": question, "stream": stream})).send().await.expect("it answers");
        assert!(answer.status().is_success());
        answer.text().await.expect("text")
    };
    for stream in [false, true] {
        let text = ask("Zebras xylophones quuxly?", stream).await;
        assert!(text.contains("say nothing about this question"), "{text}");
    }
    world
        .fault(json!({"provider": "openai", "path": "/v1/chat/completions", "status": 200, "body": BROKEN_STREAM}))
        .await;
    let text = ask("What is RAG?", true).await;
    assert!(text.contains("event: error") && !text.contains("event: done"), "{text}");
    let vain = || events(&file).iter().filter(|e| e["outcome"] == "failure").count();
    world.until("three failures are written", async || vain() == 3).await;
    assert!(reached(&world, &ada.name).await.is_empty());
    assert_eq!(used(&world, &key).await, 0);
    let text = ask("What is RAG?", true).await;
    assert!(text.contains("event: done"), "{text}");
    world.until("the first answer counts", async || !reached(&world, &ada.name).await.is_empty()).await;
    assert_eq!(reached(&world, &ada.name).await, ["sample-query"]);
    assert_eq!(used(&world, &key).await, 1);
    let reasons: std::collections::BTreeSet<_> =
        events(&file).iter().filter_map(|e| e["metadata"]["reason"].as_str().map(str::to_owned)).collect();
    assert_eq!(reasons.into_iter().collect::<Vec<_>>(), ["broken_off", "nothing_found"]);
}

#[tokio::test]
async fn the_first_login_is_the_first_look_at_an_account_that_is_ready() {
    let (world, _) = start("first-login").await;
    let form = json!({"email": "ada@example.com", "company_name": "Acme", "password": PASSWORD, "accept_terms": true});
    let answer = world.http.post(format!("{}/signup", world.web)).json(&form).send().await.expect("it answers");
    let signup: Value = answer.json().await.expect("JSON");
    let name = signup["token"].as_str().and_then(|token| token.split('.').next()).expect("a name").to_owned();
    let mut page = Visitor::new(&world);
    assert_eq!(page.log_in("ada@example.com", PASSWORD).await, 303);
    assert_eq!(page.get("/account").await.0, 200);
    assert!(reached(&world, &name).await.is_empty(), "there is nothing to use before the payment");
    world.pay(&name).await;
    world.wait_phase(&name, Phase::Active).await;
    assert_eq!(page.get("/account").await.0, 200);
    assert!(reached(&world, &name).await.contains(&"first-login".to_owned()));
}

#[tokio::test]
async fn the_wizard_books_a_question_about_an_own_document_as_that() {
    let (world, file) = start("own-first").await;
    let ada = customer(&world, "ada@example.com").await;
    assert_eq!(ada.upload(&world, TEXT).await.0, 201);
    // The answer rests on the samples: a question about the document is still to come.
    assert_eq!(ada.post(&world, "/tenant/{id}/setup/sample-query", json!({})).await.0, 200);
    assert_eq!(ada.setup(&world).await["next_step"], "own-query");
    let question = json!({"question": "How many days of vacation does an employee have?"});
    assert_eq!(ada.post(&world, "/tenant/{id}/setup/sample-query", question).await.0, 200);
    assert_eq!(ada.setup(&world).await["next_step"], json!(null));
    let attempts = || -> Vec<_> {
        let query = |e: &Value| e["event_type"].as_str().is_some_and(|name| name.ends_with("query"));
        events(&file)
            .iter()
            .filter(|e| e["outcome"] == "attempt" && query(e))
            .map(|e| e["event_type"].clone())
            .collect()
    };
    world.until("both are written", async || attempts().len() >= 2).await;
    assert_eq!(attempts(), ["own_query", "own_query"]);
}

#[tokio::test]
async fn a_chat_model_that_reasons_is_asked_without_a_temperature_and_never_answers_with_nothing() {
    let (world, _) = start("reasoning").await;
    let plan = "apiVersion: tenant-operator.dev/v1alpha1\nkind: Plan\nmetadata: {name: reasoning}\nspec:\n  \
                stripePriceId: price_paid\n  monthlyPrice: {amount: 4900}\n  trialDays: 0\n  models: {chat: o4-mini}\n  \
                sampleDocuments: [{id: sample_1, text: RAG means retrieval-augmented generation.}]\n";
    tenant_operator_dev::apply_yaml(&world.client, plan).await.expect("the plan applies");
    world.create("acme", "reasoning", tenant_operator::api::tenant::BillingMode::Manual).await;
    world.wait_phase("acme", Phase::Active).await;
    let key = world.api_key("acme").await;
    let ask = async |stream: bool| {
        let call = world.http.post(format!("{}/v1/query", world.web)).bearer_auth(&key);
        let answer =
            call.json(&json!({"question": "What is RAG?", "stream": stream})).send().await.expect("it answers");
        (answer.status().as_u16(), answer.text().await.expect("text"))
    };
    for stream in [false, true] {
        let (status, text) = ask(stream).await;
        assert!(status == 200 && text.contains("retrieval-augmented"), "{status} {text}");
    }
    let usage = async || {
        let call = world.http.get(format!("{}/v1/usage", world.web)).bearer_auth(&key);
        let body: Value = call.send().await.expect("it answers").json().await.expect("JSON");
        ["queries", "prompt_tokens", "completion_tokens"].map(|unit| body[unit]["used"].as_i64().expect("a number"))
    };
    let empty = json!({
        "choices": [{"message": {"content": ""}, "finish_reason": "length"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 400},
    });
    let before = usage().await;
    world
        .fault(json!({"provider": "openai", "path": "/v1/chat/completions", "status": 200, "body": empty.to_string()}))
        .await;
    let (status, text) = ask(false).await;
    assert_eq!(status, 502, "{text}");
    let after = usage().await;
    assert_eq!([0, 1, 2].map(|i| after[i] - before[i]), [1, 9, 400], "the model is paid for");
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
