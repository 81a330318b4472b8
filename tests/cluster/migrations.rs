//! Documents that are embedded with another model: beside the old vectors, without a question that fails, and without a
//! document that is lost or comes back.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kube::api::Patch;
use serde_json::{Value, json};
use tenant_operator::api::migration::{EmbeddingSize, MigrationState as State};
use tenant_operator::api::tenant::BillingMode;
use tenant_operator::api::{ConditionStatus, Phase, Tenant, TenantStatus, Unit, conditions};
use tenant_operator_dev::apply_yaml;

use crate::support::{
    PASSWORD, Questions, Visitor, World, backup, document_titles, found, reason, report, said, upload,
};

const LARGE: &str = "text-embedding-3-large";

/// A plan with a choice, and a dearer one whose only model is the large one.
const PLANS: &str = "
apiVersion: tenant-operator.dev/v1alpha1
kind: Plan
metadata: {name: twin}
spec:
  stripePriceId: price_twin
  monthlyPrice: {amount: 1000}
  trialDays: 0
  models: {embeddingLarge: text-embedding-3-large}
  sampleDocuments: [{id: sample_1, text: RAG means retrieval-augmented generation.}]
---
apiVersion: tenant-operator.dev/v1alpha1
kind: Plan
metadata: {name: exact}
spec:
  stripePriceId: price_exact
  monthlyPrice: {amount: 9000}
  trialDays: 0
  models: {embedding: text-embedding-3-large}
  sampleDocuments: [{id: sample_1, text: RAG means retrieval-augmented generation.}]
";

/// An Active tenant "acme" on the plan with a choice.
async fn with_acme(name: &str, args: &[&str]) -> World {
    let world = World::with_portal(name, args).await;
    apply_yaml(&world.client, PLANS).await.expect("the plans apply");
    for (id, amount) in [("price_twin", 1000), ("price_exact", 9000)] {
        world.sandbox.add_price(id, amount, "usd");
    }
    world.create_paying("acme", "twin").await;
    world
}

async fn delete(world: &World, id: &str) {
    let url = format!("{}/v1/documents/{id}", world.web);
    let answer = world.http.delete(&url).bearer_auth(world.api_key("acme").await).send().await.expect("an answer");
    assert_eq!(answer.status(), 204);
}

/// The id of a document.
async fn id_of(world: &World, title: &str) -> String {
    let url = format!("{}/v1/documents", world.web);
    let answer = world.http.get(&url).bearer_auth(world.api_key("acme").await).send().await.expect("an answer");
    let body: Value = answer.json().await.expect("JSON");
    let all = body["documents"].as_array().expect("documents").clone();
    let one = all.iter().find(|document| document["title"] == title).expect("there");
    one["id"].as_str().expect("an id").to_owned()
}

async fn choose(world: &World, size: Option<EmbeddingSize>) {
    let patch = Patch::Merge(json!({"spec": {"settings": {"embedding": size}}}));
    world.tenants().patch("acme", &Default::default(), &patch).await.expect("patched");
}

/// How many vectors each namespace holds, of the tenant alone.
async fn namespaces(world: &World) -> BTreeMap<String, u64> {
    let state = world.sandbox_get("/_sandbox/pinecone").await;
    let all = state["namespaces"].as_object().expect("namespaces");
    all.iter().map(|(name, count)| (name.clone(), count.as_u64().expect("a number"))).collect()
}

fn state(status: &TenantStatus) -> Option<State> {
    status.migration.as_ref().map(|migration| migration.state)
}

async fn slow_embeddings(world: &World, delay_ms: u64) {
    world.fault(json!({"provider": "openai", "path": "/v1/embeddings", "delay_ms": delay_ms, "times": 100_000})).await;
}

/// The namespace of a generation of the tenant's data.
async fn namespace(world: &World, generation: u32) -> String {
    let tenant = world.tenants().get("acme").await.expect("there");
    tenant_operator::api::data_namespace(tenant.tenant_id(), generation)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_question_fails_and_no_document_is_lost_or_comes_back() {
    let world = with_acme("embedanew", &["--migration-overlap", "4"]).await;
    upload(&world, "Report", &report(9000)).await;
    let gone = upload(&world, "Gone", "Parrots repeat what they hear.").await;
    let questions = Questions::begin(&world, "acme").await;
    slow_embeddings(&world, 150).await;
    choose(&world, Some(EmbeddingSize::Large)).await;
    let status = world.wait("acme", "to be copied", |s| state(s) == Some(State::Copying)).await;
    assert!(conditions::is_true(&status.conditions, "Ready"), "served meanwhile");
    // Uploads and deletions in every state on the way.
    let mut expected = BTreeSet::from(["Report".to_owned()]);
    delete(&world, &gone).await;
    for n in 0.. {
        let title = format!("Note{n}");
        upload(&world, &title, &format!("Note number {n} speaks of geyser{n} alone.")).await;
        if n % 3 == 2 {
            let id = upload(&world, "Short", &format!("For a moment only, {n}.")).await;
            delete(&world, &id).await;
        }
        expected.insert(title);
        if state(&world.status("acme").await) == Some(State::Switched) {
            break;
        }
        assert!(n < 200, "{:?}", world.status("acme").await.migration);
    }
    world.clear_faults().await;
    let status = world.wait("acme", "the old vectors to go", |s| s.migration.is_none()).await;
    assert_eq!(reason(&status, "DataMigrated"), "Migrated");
    let tenant = world.tenants().get("acme").await.expect("there");
    let data = tenant.spec.data.as_ref().expect("written down");
    assert_eq!((data.generation, &*data.embedding), (2, LARGE));
    assert_eq!(status.namespace, Some(namespace(&world, 2).await));
    assert_eq!(document_titles(&world).await, expected);
    questions.more(&world, 3).await;
    questions.end().await;
    for title in expected.iter().filter(|title| title.starts_with("Note")) {
        let question = format!("Where is {}?", title.replace("Note", "geyser"));
        assert_eq!(found(&world, &question).await.first(), Some(title), "{question}");
    }
    let there = namespaces(&world).await;
    assert_eq!(there.keys().cloned().collect::<Vec<_>>(), [namespace(&world, 2).await], "the old ones are gone");
    // And back, which is a third namespace.
    choose(&world, None).await;
    world.wait("acme", "to move back", |s| s.namespace.as_deref().is_some_and(|n| n.ends_with(".3"))).await;
    assert_eq!(document_titles(&world).await, expected);
}

/// A replica of web that was frozen answers what came meanwhile from what it knew.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_slept_through_the_switch_loses_nothing_and_brings_nothing_back() {
    let mut world = with_acme("embedasleep", &[]).await;
    let mut old = Vec::new();
    for n in 0..8 {
        old.push(upload(&world, &format!("Old{n}"), &format!("Old number {n} speaks of lagoon{n}.")).await);
    }
    let key = world.api_key("acme").await;
    choose(&world, Some(EmbeddingSize::Large)).await;
    world.wait("acme", "to move", |s| s.migration.is_some()).await;
    world.first_web().signal("STOP");
    let (http, web) = (world.http.clone(), world.web.clone());
    let asked: Vec<_> = old
        .iter()
        .enumerate()
        .flat_map(|(n, id)| {
            let new = http.post(format!("{web}/v1/documents?title=New{n}")).header("content-type", "text/plain");
            [new.body(format!("New number {n} speaks of geyser{n}.")), http.delete(format!("{web}/v1/documents/{id}"))]
        })
        .map(|request| tokio::spawn(request.bearer_auth(&key).send()))
        .collect();
    world.wait("acme", "to be moved", |s| state(s) == Some(State::Switched)).await;
    world.first_web().signal("CONT");
    for answer in asked {
        let answer = answer.await.expect("it ends").expect("an answer");
        assert!(answer.status().is_success(), "{}", answer.status());
    }
    assert_eq!(document_titles(&world).await, (0..8).map(|n| format!("New{n}")).collect());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_that_is_killed_on_the_way_goes_on_where_it_stood() {
    let mut world = with_acme("embedkilled", &["--migration-overlap", "1"]).await;
    upload(&world, "Report", &report(9000)).await;
    slow_embeddings(&world, 250).await;
    let questions = Questions::begin(&world, "acme").await;
    choose(&world, Some(EmbeddingSize::Large)).await;
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(rand::random_range(500..1500))).await;
        world.replace_controller();
    }
    let before = namespaces(&world).await[&namespace(&world, 1).await];
    world.wait("acme", "to be moved", |s| s.namespace.as_deref().is_some_and(|n| n.ends_with(".2"))).await;
    world.wait("acme", "the old vectors to go", |s| s.migration.is_none()).await;
    questions.more(&world, 1).await;
    questions.end().await;
    assert_eq!(namespaces(&world).await, BTreeMap::from([(namespace(&world, 2).await, before)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_with_another_model_is_paid_once_and_in_force_once_everything_is_embedded() {
    let world = with_acme("embedplan", &["--migration-overlap", "1"]).await;
    upload(&world, "Report", &report(3000)).await;
    let questions = Questions::begin(&world, "acme").await;
    slow_embeddings(&world, 300).await;
    let wish = Patch::Merge(json!({"spec": {"plan": "exact"}}));
    world.tenants().patch("acme", &Default::default(), &wish).await.expect("patched");
    let status = world.wait("acme", "to be copied", |s| state(s) == Some(State::Copying)).await;
    assert_eq!(status.phase, Some(Phase::Upgrading));
    let paid = async || {
        let state = world.sandbox_get("/_sandbox/state").await;
        let invoices = state["invoice"].as_array().expect("invoices").clone();
        invoices.iter().filter_map(|i| i["amount_paid"].as_i64()).collect::<Vec<_>>()
    };
    assert_eq!(paid().await, [1000], "nothing is charged before");
    world.wait("acme", "the plan", |s| s.config.as_ref().is_some_and(|c| &*c.plan == "exact")).await;
    world.clear_faults().await;
    assert_eq!(paid().await.len(), 2, "and once then");
    let tenant = world.tenants().get("acme").await.expect("there");
    assert_eq!(tenant.embedding().map(|e| &**e), Some(LARGE));
    assert_eq!(
        found(&world, "Sentence number 7 of the report on cats").await.first().map(String::as_str),
        Some("Report")
    );
    questions.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_is_refused_leaves_everything_as_it_was() {
    let world = with_acme("embedrefused", &[]).await;
    let refusal = json!({"error": {"message": "The model does not exist", "code": "model_not_found"}}).to_string();
    world
        .fault(
            json!({"provider": "openai", "path": "/v1/embeddings", "status": 404, "body": refusal, "times": 100_000}),
        )
        .await;
    let wish = Patch::Merge(json!({"spec": {"plan": "exact"}}));
    world.tenants().patch("acme", &Default::default(), &wish).await.expect("patched");
    let status = world.wait("acme", "to go back", |s| reason(s, "PlanInForce") == "DataNotMigrated").await;
    assert_eq!(status.phase, Some(Phase::Active));
    let status = world.wait("acme", "to be tidy", |s| s.migration.is_none()).await;
    assert_eq!(&*status.config.expect("a config").plan, "twin");
    let first = namespace(&world, 1).await;
    assert_eq!(namespaces(&world).await.keys().collect::<Vec<_>>(), [&first]);
    // The same by choice.
    choose(&world, Some(EmbeddingSize::Large)).await;
    let status = world.wait("acme", "to fail", |s| state(s) == Some(State::Failed)).await;
    let condition = conditions::get(&status.conditions, "DataMigrated").expect("there");
    assert_eq!((condition.status, &*condition.reason), (ConditionStatus::False, "Failed"));
    assert!(condition.message.contains("does not exist"), "{}", condition.message);
    world.clear_faults().await;
    assert_eq!(namespaces(&world).await.keys().collect::<Vec<_>>(), [&first]);
    let wish = Patch::Merge(json!({"spec": {"plan": "twin"}}));
    world.tenants().patch("acme", &Default::default(), &wish).await.expect("patched");
    world.annotate("acme", "tenant-operator.dev/retry", "again").await;
    world.wait("acme", "to be moved", |s| s.namespace.as_deref().is_some_and(|n| n.ends_with(".2"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_that_is_erased_on_the_way_leaves_no_namespace() {
    let world = with_acme("embederased", &[]).await;
    upload(&world, "Report", &report(9000)).await;
    slow_embeddings(&world, 400).await;
    choose(&world, Some(EmbeddingSize::Large)).await;
    let copying = namespace(&world, 2).await;
    world.until("the copy has begun", async || namespaces(&world).await.contains_key(&copying)).await;
    world.erase("acme").await;
    world.wait_gone("acme").await;
    for _ in 0..10 {
        assert_eq!(namespaces(&world).await, BTreeMap::new());
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovered_tenant_has_its_data_and_its_model() {
    let world = with_acme("embedrecover", &["--migration-overlap", "1"]).await;
    upload(&world, "Cats", "Cats sleep for sixteen hours a day, mostly in the sun.").await;
    choose(&world, Some(EmbeddingSize::Large)).await;
    world.wait("acme", "to be moved", |s| reason(s, "DataMigrated") == "Migrated" && s.migration.is_none()).await;
    let before = world.tenants().get("acme").await.expect("there");
    world.annotate("acme", "tenant-operator.dev/keep-data", "true").await;
    world.tenants().delete("acme", &Default::default()).await.expect("deleted");
    world.wait_gone("acme").await;
    let output = tokio::task::block_in_place(|| world.command("recover").arg("--apply").output()).expect("it runs");
    assert!(said(&output).contains("1 Tenants made"), "{}", said(&output));
    world.wait_phase("acme", Phase::Active).await;
    let after = world.tenants().get("acme").await.expect("there");
    assert_eq!(after.spec.data, before.spec.data);
    world
        .until("it answers", async || {
            found(&world, "How long do cats sleep?").await.first().is_some_and(|t| t == "Cats")
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customer_chooses_the_model_and_not_twice_in_a_row() {
    let world = World::with_portal("embedpage", &[]).await;
    apply_yaml(&world.client, PLANS).await.expect("the plans apply");
    world.sandbox.add_price("price_twin", 1000, "usd");
    let form = json!({
        "email": "ada@example.com", "company_name": "Acme", "password": PASSWORD, "plan": "twin", "accept_terms": true,
    });
    let answer = world.http.post(format!("{}/signup", world.web)).json(&form).send().await.expect("it answers");
    let signup: Value = answer.json().await.expect("JSON");
    let name = signup["token"].as_str().and_then(|token| token.split('.').next()).expect("a name").to_owned();
    world.pay(&name).await;
    world.wait_phase(&name, Phase::Active).await;
    let mut page = Visitor::new(&world);
    assert_eq!(page.log_in("ada@example.com", PASSWORD).await, 303);
    let csrf = page.csrf("/settings/advanced").await;
    let save = async |page: &mut Visitor<'_>, embedding: &str| {
        page.post("/settings/advanced", &[("csrf", &*csrf), ("chunking", "auto"), ("embedding", embedding)]).await
    };
    let (status, _, text) = save(&mut page, "large").await;
    assert!(status == 200 && text.contains("Large model"), "{status} {text}");
    world.wait(&name, "to be moved", |s| reason(s, "DataMigrated") == "Migrated").await;
    // Within the hour it does not go back, and other settings are saved all the same.
    assert_eq!(save(&mut page, "small").await.0, 409);
    assert_eq!(save(&mut page, "large").await.0, 200);
    let tenant = world.tenants().get(&name).await.expect("there");
    assert_eq!(tenant.spec.settings.embedding, Some(EmbeddingSize::Large));
}

#[tokio::test]
async fn vectors_of_a_move_that_a_lost_status_forgot_are_deleted() {
    let world = with_acme("forgotten", &["--migration-overlap=3600"]).await;
    choose(&world, Some(EmbeddingSize::Large)).await;
    let status = world.wait("acme", "moved", |s| state(s) == Some(State::Switched)).await;
    let new = status.namespace.expect("a namespace");
    let old = new.trim_end_matches(".2").to_owned();
    assert_ne!(old, new);
    assert!(namespaces(&world).await.contains_key(&old), "kept for an hour");
    let lost = Patch::Merge(json!({"status": {"migration": null}}));
    world.tenants().patch_status("acme", &Default::default(), &lost).await.expect("patched");
    world.until("the old vectors are gone", async || !namespaces(&world).await.contains_key(&old)).await;
    assert!(namespaces(&world).await[&new] > 0, "those in use are not");
    assert_eq!(found(&world, "What does RAG mean?").await.len(), 1);
    assert_eq!(world.status("acme").await.namespace, Some(new));
}

/// Deletes the object as an accident does, and restores it.
async fn restore(world: &World, backup: &Tenant) {
    world.tenants().delete("acme", &Default::default()).await.expect("deleted");
    world.wait_gone("acme").await;
    // No garbage collector runs here.
    drop(world.secrets().delete("acme-api-key", &Default::default()).await);
    world.tenants().create(&Default::default(), backup).await.expect("restored");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_backup_is_served_from_the_namespace_with_the_documents() {
    let world = with_acme("olderbackup", &["--migration-overlap=1", "--full-resync=1"]).await;
    upload(&world, "Cats", "Cats sleep for sixteen hours a day, mostly in the sun.").await;
    let older = backup(&world.tenants().get("acme").await.expect("there"));
    choose(&world, Some(EmbeddingSize::Large)).await;
    world.wait("acme", "moved", |s| reason(s, "DataMigrated") == "Migrated" && s.migration.is_none()).await;
    let second = namespace(&world, 2).await;
    let held = namespaces(&world).await[&second];
    assert!(older.spec.data.is_none(), "the backup knows nothing of the move");
    restore(&world, &older).await;
    world.wait_phase("acme", Phase::Active).await;
    assert_eq!(world.alerts("holds no documents").await, 1);
    // Wherever they are embedded by now, as the restored object asks for: no document is lost, and questions find them.
    let most = async || namespaces(&world).await.values().copied().max();
    for _ in 0..20 {
        assert_eq!(most().await, Some(held));
        assert_eq!(document_titles(&world).await, BTreeSet::from(["Cats".to_owned()]));
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    world
        .until("it answers", async || {
            found(&world, "How long do cats sleep?").await.first().is_some_and(|title| title == "Cats")
        })
        .await;
}

/// The wrong, older backup was restored for a while, and the customer went on with its namespace.
#[tokio::test(flavor = "multi_thread")]
async fn an_older_namespace_with_documents_of_its_own_is_kept_even_if_the_counts_are_equal() {
    let world = with_acme("wrongbackup", &["--migration-overlap=3600", "--full-resync=1"]).await;
    for (title, text) in [("Cats", "Cats sleep for sixteen hours a day."), ("Cows", "Cows eat grass all day long.")] {
        upload(&world, title, text).await;
    }
    let older = backup(&world.tenants().get("acme").await.expect("there"));
    choose(&world, Some(EmbeddingSize::Large)).await;
    world.wait("acme", "moved", |s| state(s) == Some(State::Switched)).await;
    let newer = backup(&world.tenants().get("acme").await.expect("there"));
    restore(&world, &older).await;
    world.wait("acme", "the question", |s| reason(s, "DataInOnePlace") == "TwoGenerations").await;
    // As many as in the other namespace.
    upload(&world, "Dogs", "Dogs need two walks a day, whatever the weather.").await;
    delete(&world, &id_of(&world, "Cats").await).await;
    let first = namespace(&world, 1).await;
    let held = namespaces(&world).await[&first];
    restore(&world, &newer).await;
    let status = world.wait("acme", "a question", |s| reason(s, "DataInOnePlace") == "TwoGenerations").await;
    assert_eq!(status.phase, Some(Phase::Active));
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(namespaces(&world).await.get(&first), Some(&held), "the dogs are nowhere else");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_namespaces_with_documents_wait_for_a_choice() {
    let world = with_acme("twoplaces", &["--migration-overlap=3600", "--full-resync=1"]).await;
    upload(&world, "Cats", "Cats sleep for sixteen hours a day, mostly in the sun.").await;
    let older = backup(&world.tenants().get("acme").await.expect("there"));
    choose(&world, Some(EmbeddingSize::Large)).await;
    world.wait("acme", "moved", |s| state(s) == Some(State::Switched)).await;
    upload(&world, "Dogs", "Dogs need two walks a day, whatever the weather.").await;
    restore(&world, &older).await;
    world.wait_phase("acme", Phase::Active).await;
    let status = world.wait("acme", "the question", |s| reason(s, "DataInOnePlace") == "TwoGenerations").await;
    assert!(conditions::is_true(&status.conditions, "Ready"), "served meanwhile");
    world
        .until("the platform team is told", async || {
            world.alerts("More than one Pinecone namespace holds documents").await == 1
        })
        .await;
    let before = namespaces(&world).await;
    assert_eq!(before.len(), 2);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(namespaces(&world).await, before, "nothing is deleted");
    let unsure = choose_second(&world, &[]);
    assert!(!unsure.status.success() && said(&unsure).contains("--confirm acme"), "{}", said(&unsure));
    assert_eq!(namespaces(&world).await, before);
    let sure = choose_second(&world, &["--confirm", "acme"]);
    assert!(sure.status.success(), "{}", said(&sure));
    world.wait("acme", "the end", |s| reason(s, "DataInOnePlace") == "Recovered").await;
    let both = BTreeSet::from(["Cats".to_owned(), "Dogs".to_owned()]);
    world.until("both are served", async || document_titles(&world).await == both).await;
    assert!(!namespaces(&world).await.contains_key(&namespace(&world, 1).await), "the other one is gone");
}

/// `kubectl tenant data choose acme --generation 2`.
fn choose_second(world: &World, more: &[&str]) -> std::process::Output {
    let mut command = world.command("data");
    command.args(["choose", "acme", "--generation", "2", "--namespace", &world.namespace]).args(more);
    tokio::task::block_in_place(|| command.output()).expect("it runs")
}

/// etcd is restored to a moment in the middle of a move, after the switch and an upload.
#[tokio::test(flavor = "multi_thread")]
async fn a_move_that_an_object_from_a_backup_resumes_deletes_no_document() {
    let mut world = with_acme("olderstatus", &["--migration-overlap=3600", "--full-resync=1"]).await;
    upload(&world, "Cats", "Cats sleep for sixteen hours a day, mostly in the sun.").await;
    upload(&world, "Birds", "Birds build a nest each spring, mostly in trees.").await;
    slow_embeddings(&world, 700).await;
    choose(&world, Some(EmbeddingSize::Large)).await;
    let copying = world.wait("acme", "copying", |s| state(s) == Some(State::Copying)).await;
    let data = world.tenants().get("acme").await.expect("there").spec.data;
    world.clear_faults().await;
    world.wait("acme", "moved", |s| state(s) == Some(State::Switched)).await;
    // As many documents as before the switch: counts tell nothing.
    delete(&world, &id_of(&world, "Birds").await).await;
    upload(&world, "Dogs", "Dogs need two walks a day, whatever the weather.").await;
    let second = namespace(&world, 2).await;
    let held = namespaces(&world).await[&second];
    world.controllers.remove(0).kill();
    let spec = Patch::Merge(json!({"spec": {"data": data}}));
    world.tenants().patch("acme", &Default::default(), &spec).await.expect("patched");
    let mut restored = world.tenants().get("acme").await.expect("there");
    restored.status = Some(copying);
    world.tenants().replace_status("acme", &Default::default(), &restored).await.expect("restored");
    world.start_controller();
    let status = world.wait("acme", "the question", |s| reason(s, "DataInOnePlace") == "TwoGenerations").await;
    let shown = conditions::get(&status.conditions, "DataInOnePlace").expect("there").message.clone();
    assert!(shown.contains("(generation 2)") && shown.contains("kubectl tenant data choose acme"), "{shown}");
    world
        .until("the alert", async || world.alerts("More than one Pinecone namespace holds documents").await == 1)
        .await;
    world.wait("acme", "the end of the move", |s| state(s) == Some(State::Failed)).await;
    // Neither the move nor the question holds up an upload.
    upload(&world, "Fish", "Fish sleep with open eyes, mostly at night.").await;
    for _ in 0..20 {
        assert_eq!(namespaces(&world).await.get(&second), Some(&held), "nothing of the copy is deleted");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let sure = choose_second(&world, &["--confirm", "acme"]);
    assert!(sure.status.success(), "{}", said(&sure));
    world.wait("acme", "the end", |s| reason(s, "DataInOnePlace") == "Recovered").await;
    let there = BTreeSet::from(["Cats".to_owned(), "Dogs".to_owned()]);
    world.until("the copy is served", async || document_titles(&world).await == there).await;
    let first = namespace(&world, 1).await;
    world.until("the other one goes", async || !namespaces(&world).await.contains_key(&first)).await;
}

async fn lag(world: &World, visibility_ms: u64) {
    world.sandbox_post("/_sandbox/pinecone", json!({"visibility_ms": visibility_ms})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_pinecone_lags_no_document_is_lost_and_none_is_counted_twice() {
    let world = with_acme("lagging", &["--migration-overlap=1"]).await;
    lag(&world, 2000).await;
    let text = "Cats sleep for sixteen hours a day, mostly in the sun.";
    let id = upload(&world, "Cats", text).await;
    // The same file again: the deleted head, which is still served for a while, is not taken for it.
    delete(&world, &id).await;
    upload(&world, "Cats", text).await;
    let cats = BTreeSet::from(["Cats".to_owned()]);
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(document_titles(&world).await, cats);
    let first = namespace(&world, 1).await;
    assert_eq!(namespaces(&world).await[&first], 2, "a sample and a passage");
    choose(&world, Some(EmbeddingSize::Large)).await;
    world.wait("acme", "to be copied", |s| s.migration.is_some()).await;
    let dogs = upload(&world, "Dogs", "Dogs need two walks a day, whatever the weather.").await;
    upload(&world, "Birds", "Parrots repeat what they hear.").await;
    delete(&world, &dogs).await;
    world.wait("acme", "moved", |s| reason(s, "DataMigrated") == "Migrated" && s.migration.is_none()).await;
    lag(&world, 0).await;
    assert_eq!(document_titles(&world).await, BTreeSet::from(["Birds".to_owned(), "Cats".to_owned()]));
    assert_eq!(namespaces(&world).await, BTreeMap::from([(namespace(&world, 2).await, 3)]));
    assert_eq!(world.settled("acme", Unit::Documents).await, 2);
}

#[tokio::test]
async fn a_month_whose_units_are_used_up_is_an_incident_and_not_a_failed_attempt() {
    let world = World::start("month").await;
    world.sandbox_post("/_sandbox/pinecone", json!({"month_used_up": true})).await;
    world.create("acme", "paid", BillingMode::Stripe).await;
    world.pay("acme").await;
    world
        .until("the platform team is told", async || world.alerts("unit limit for the current month").await == 1)
        .await;
    // The alert may be sent before the status that is held back is written.
    let status = world.wait_phase("acme", Phase::Provisioning).await;
    assert_eq!(status.provisioning.map(|p| p.attempts), Some(0));
    world.sandbox_post("/_sandbox/pinecone", json!({"month_used_up": false})).await;
    world.wait_phase("acme", Phase::Active).await;
}
