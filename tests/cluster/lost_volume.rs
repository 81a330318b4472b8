//! The ledger loses its volume: limits hold, documents are counted again exactly, and nothing is billed twice. What
//! cannot be known is shown.

use std::time::Duration;

use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use reqwest::Method;
use serde_json::{Value, json};
use tenant_operator::api::tenant::BillingMode;
use tenant_operator::api::{ConditionStatus, Phase, Plan, TenantStatus, Timestamp, Unit, conditions};
use tenant_operator::ledger::units::Amounts;

use crate::support::{Client, Lab, World, backup, said, shows, stripe, stripe_objects};
use crate::usage_billing::{hour_passes, id, price};

/// A lab with the tenant "acme" on a metered plan of 12 queries and 6 documents, and "other" beside it.
async fn lab(name: &str) -> Lab {
    let mut world = World::without_controller(name).await;
    let meter = [("display_name", "queries"), ("event_name", "queries"), ("default_aggregation[formula]", "sum")];
    let meter = id(&stripe(&world, Method::POST, "/billing/meters", &meter).await);
    let priced = price(&world, &meter, &[("unit_amount", "10")]).await;
    let plan: Plan = serde_json::from_value(json!({
        "apiVersion": "tenant-operator.dev/v1alpha1", "kind": "Plan", "metadata": {"name": name},
        "spec": {"stripePriceId": format!("price_{name}"), "monthlyPrice": {"amount": 100}, "trialDays": 0,
            "limits": {"documents": 6, "queriesPerMonth": 12, "bytes": 100_000},
            "usagePrices": [{"unit": "queries", "stripePriceId": priced}],
            "sampleDocuments": [{"id": "sample_1", "text": "RAG means retrieval-augmented generation."}]},
    }))
    .expect("a plan");
    world.sandbox.add_price(&format!("price_{name}"), 100, "usd");
    Api::<Plan>::all(world.client.clone()).create(&PostParams::default(), &plan).await.expect("the plan is taken");
    world.controller_args(&["--usage-interval=1", "--usage-billing-interval=1"]);
    let namespace = world.namespace.clone();
    world.environment("WATCH_NAMESPACE", &namespace);
    world.start_controller();
    world.start_web(&["--requests-per-second", "1000"]);
    for tenant in ["acme", "other"] {
        world.create(tenant, name, BillingMode::Stripe).await;
        world.pay(tenant).await;
        world.wait_phase(tenant, Phase::Active).await;
    }
    Lab { world }
}

async fn store(client: &Client<'_>, number: u32) -> String {
    let text = format!("Report {number}: {}", "cats sleep. ".repeat(number as usize));
    client.store(&format!("report-{number}.txt"), &text).await["id"].as_str().expect("an id").to_owned()
}

async fn level(world: &World) -> Amounts {
    world.counted("acme").await.map(|usage| usage.used.only(true)).unwrap_or_default()
}

/// Waits until the controller has reported all documents to the ledger.
async fn recounted(world: &World) {
    let done = async || {
        let status = world.ledger().status().await.ok();
        status.and_then(|status| status.beginning).is_some_and(|beginning| beginning.recounted.is_some())
    };
    world.until("documents are counted again", done).await;
}

/// Takes a snapshot of what is counted.
async fn snapshot(lab: &mut Lab) {
    recounted(&lab.world).await;
    lab.world.kill_ledger();
    lab.world.start_ledger();
    lab.world.until("a snapshot", async || lab.world.snapshots() == 1).await;
}

/// A lab whose ledger has a snapshot with two documents of "acme", and what it counts of them.
async fn two_documents_in_a_snapshot(name: &str) -> (Lab, Amounts) {
    let mut lab = lab(name).await;
    lab.world.take_snapshots();
    let key = lab.client("acme").await.key.clone();
    for number in 1..=2 {
        store(&lab.client_with(&key), number).await;
    }
    snapshot(&mut lab).await;
    let exact = level(&lab.world).await;
    (lab, exact)
}

fn shown(queries: i64) -> impl Fn(&TenantStatus) -> bool {
    move |status| status.usage.is_some_and(|usage| usage.queries.used == queries)
}

/// What Stripe's meter has.
async fn billed(world: &World) -> i64 {
    let events = stripe_objects(world, "billing.meter_event").await;
    events.iter().filter_map(|event| event["event"]["value"].as_i64()).sum()
}

async fn answers(client: &Client<'_>, most: usize) -> usize {
    let mut answered = 0;
    for _ in 0..most {
        let answer = client.ask("What is RAG?").await;
        match answer.status().as_u16() {
            200 => answered += 1,
            429 => return answered,
            other => panic!("{other}: {:?}", answer.text().await),
        }
    }
    answered
}

fn missing(status: &TenantStatus) -> Option<(Timestamp, Timestamp)> {
    let source = status.usage_source.as_ref()?;
    source.missing_since.zip(source.missing_until)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_volume_loses_no_limit_counts_documents_exactly_and_bills_nothing_twice() {
    let mut lab = lab("lost-empty").await;
    recounted(&lab.world).await;
    let acme = lab.client("acme").await;
    let mut documents = Vec::new();
    for number in 1..=4 {
        documents.push(store(&acme, number).await);
    }
    assert_eq!(answers(&acme, 7).await, 7);
    let before = level(&lab.world).await;
    assert_eq!(before[Unit::Documents], 4);
    lab.world.wait("acme", "shown", |s| shown(7)(s) && s.usage.is_some_and(|u| u.documents.used == 4)).await;
    hour_passes(&lab.world).await;
    lab.world.until("what was used is billed", async || billed(&lab.world).await == 7).await;
    let key = acme.key.clone();

    lab.world.lose_ledger();
    // Deleted and stored while the ledger is away: web's journal has it.
    let acme = lab.client_with(&key);
    assert_eq!(acme.delete(&documents[0]).await, 204);
    store(&acme, 5).await;
    lab.world.start_ledger();
    // As late as it is at Stripe.
    lab.world.end_ledgers_hour();
    // And before it knows of any document.
    let acme = lab.client_with(&key);
    assert_eq!(acme.delete(&documents[1]).await, 204);
    store(&acme, 6).await;
    recounted(&lab.world).await;

    let listed: Value = acme.get("/v1/documents").await.json().await.expect("JSON");
    let bytes: i64 =
        listed["documents"].as_array().expect("documents").iter().filter_map(|d| d["bytes"].as_i64()).sum();
    let exact = Amounts::of(Unit::Documents, 4).with(Unit::Bytes, bytes);
    lab.world.until("exact", async || level(&lab.world).await == exact).await;
    lab.world.wait("acme", "what is missing is shown", |s| shown(7)(s) && missing(s).is_some()).await;
    lab.world.wait("acme", "a condition", shows("UsageCounted", ConditionStatus::False, "UsageMissing")).await;
    lab.world.wait_event("acme", "UsageMissing").await;
    lab.world.wait_event("acme", "DocumentsRecounted").await;
    let told = lab.world.command("usage").args(["-n", &lab.world.namespace, "acme"]).output().expect("it runs");
    assert!(said(&told).contains("The ledger lost its data"), "{}", said(&told));

    // Another leader counts nothing again.
    lab.world.replace_controller();
    assert_eq!(answers(&lab.client_with(&key), 20).await, 5, "what is left of 12");
    lab.world.wait("acme", "shown", shown(12)).await;
    for deleted in &documents[2..] {
        assert_eq!(lab.client_with(&key).delete(deleted).await, 204);
    }
    assert_eq!(level(&lab.world).await[Unit::Documents], 2);
    hour_passes(&lab.world).await;
    lab.world.wait("acme", "billed", |s| s.usage_billing.as_ref().is_some_and(|b| b.meters[0].sent == 12)).await;
    assert_eq!(billed(&lab.world).await, 12, "nothing twice");
    let status = lab.world.status("acme").await;
    assert!(conditions::get(&status.conditions, "UsageBilled").is_none_or(|c| c.status == ConditionStatus::True));
    assert_eq!(
        lab.world.counted("other").await.map(|usage| usage.used.only(true)),
        lab.world.counted("other").await.map(|_| Amounts::ZERO)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_is_older_than_the_loss_is_brought_up_to_what_others_know() {
    let mut lab = lab("lost-snapshot").await;
    lab.world.take_snapshots();
    let key = lab.client("acme").await.key.clone();
    let acme = lab.client_with(&key);
    let mut documents = Vec::new();
    for number in 1..=3 {
        documents.push(store(&acme, number).await);
    }
    assert_eq!(answers(&acme, 4).await, 4);
    snapshot(&mut lab).await;

    // After the snapshot: one is deleted, one replaced by the same file again, two are new.
    let acme = lab.client_with(&key);
    for deleted in &documents[..2] {
        assert_eq!(acme.delete(deleted).await, 204);
    }
    assert_eq!(store(&acme, 2).await, documents[1]);
    for number in 4..=5 {
        store(&acme, number).await;
    }
    assert_eq!(answers(&acme, 3).await, 3);
    lab.world.wait("acme", "shown", |s| shown(7)(s) && s.usage.is_some_and(|u| u.documents.used == 4)).await;
    hour_passes(&lab.world).await;
    lab.world.until("what was used is billed", async || billed(&lab.world).await == 7).await;
    let exact = level(&lab.world).await;
    // The span of what is missing begins and ends with a second.
    tokio::time::sleep(Duration::from_secs(2)).await;

    lab.world.lose_ledger();
    lab.world.start_ledger();
    lab.world.end_ledgers_hour();
    let status = lab.world.ledger().status().await.expect("it answers");
    assert!(status.beginning.is_some_and(|beginning| beginning.began.snapshot.is_some()), "it has a snapshot");
    recounted(&lab.world).await;
    lab.world.until("exact", async || level(&lab.world).await == exact).await;
    lab.world.wait("acme", "what is missing is shown", |s| shown(7)(s) && missing(s).is_some()).await;
    assert_eq!(answers(&lab.client_with(&key), 20).await, 5, "what is left of 12");
    hour_passes(&lab.world).await;
    lab.world.wait("acme", "billed", |s| s.usage_billing.as_ref().is_some_and(|b| b.meters[0].sent == 12)).await;
    assert_eq!(billed(&lab.world).await, 12, "nothing twice");
}

async fn queries(world: &World, tenant: &str) -> i64 {
    world.counted(tenant).await.map_or(0, |usage| usage.used[Unit::Queries])
}

/// How often the vector store was asked for a list.
async fn lists(world: &World) -> usize {
    let log = world.sandbox_get("/_sandbox/requests").await;
    log.as_array().map_or(0, |all| all.iter().filter(|request| request["path"] == "/vectors/list").count())
}

/// Usage as the status of a Tenant shows it that another ledger counted, observed at that moment.
fn shown_by_another(kept: &TenantStatus, queries: i64, observed: Timestamp) -> Value {
    let mut usage = json!(kept.usage.expect("usage"));
    (usage["queries"]["used"], usage["observedAt"]) = (json!(queries), json!(observed));
    json!({"status": {"usage": usage, "usageSource": {"ledger": "another", "began": "2026-01-01T00:00:00Z"}}})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_that_a_backup_brings_back_after_the_recount_is_counted_then() {
    let mut lab = lab("lost-restored").await;
    let acme = lab.client("acme").await;
    let key = acme.key.clone();
    for number in 1..=2 {
        store(&acme, number).await;
    }
    assert_eq!(answers(&acme, 3).await, 3);
    assert_eq!(answers(&lab.client("other").await, 1).await, 1);
    lab.world.wait("acme", "shown", |s| shown(3)(s) && s.usage.is_some_and(|u| u.documents.used == 2)).await;
    lab.world.wait("other", "shown", shown(1)).await;
    let exact = level(&lab.world).await;
    let kept = lab.world.tenants().get("acme").await.expect("there");
    lab.world.tenants().delete("acme", &Default::default()).await.expect("asked for");
    lab.world.wait_gone("acme").await;
    // No garbage collector runs here.
    drop(lab.world.secrets().delete("acme-api-key", &Default::default()).await);

    lab.world.lose_ledger();
    lab.world.start_ledger();
    recounted(&lab.world).await;
    let status = kept.status.clone().expect("a status");
    lab.world.tenants().create(&Default::default(), &backup(&kept)).await.expect("restored");
    lab.world.wait_phase("acme", Phase::Active).await;
    assert_eq!(level(&lab.world).await, Amounts::ZERO, "the recount of the others is over");
    assert_eq!(queries(&lab.world, "acme").await, 0);
    // The status comes back later than the object.
    let restored =
        json!({"status": {"quota": status.quota, "usage": status.usage, "usageSource": status.usage_source}});
    let patch = |name: &'static str, status: Value| {
        let tenants = lab.world.tenants();
        async move { tenants.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.expect("patched") }
    };
    patch("acme", restored).await;
    lab.world.until("usage is counted", async || queries(&lab.world, "acme").await == 3).await;
    lab.world.until("documents are counted", async || level(&lab.world).await == exact).await;
    lab.world.wait_event("acme", "DocumentsRecounted").await;
    assert_eq!(lab.world.counted("other").await.map(|usage| usage.used.only(true)), Some(Amounts::ZERO));

    // What a status shows decides by which ledger told it, not by when: it was written while the ledger was lost. A later
    // backup that shows more counts the rest, and one that shows less nothing.
    for (shows, has) in [(4, 4), (2, 4), (6, 6)] {
        patch("other", shown_by_another(&lab.world.status("other").await, shows, Timestamp::now())).await;
        lab.world.until("it is counted", async || queries(&lab.world, "other").await == has).await;
        lab.world.wait("other", "shown", shown(has)).await;
    }
    // A ledger that began later may have what this one has: both are no sum.
    let mut later = shown_by_another(&lab.world.status("other").await, 11, Timestamp::now());
    later["status"]["usageSource"]["began"] = json!(Timestamp::now());
    patch("other", later).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(queries(&lab.world, "other").await, 6);

    // Another leader counts nothing again.
    lab.world.replace_controller();
    assert_eq!(answers(&lab.client_with(&key), 20).await, 9, "what is left of 12");
    lab.world.wait("acme", "shown", shown(12)).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!((level(&lab.world).await, queries(&lab.world, "other").await), (exact, 6));
}

/// Writes to the vector store.
async fn pinecone(world: &World, path: &str, body: Value) {
    let call = world.http.post(format!("{}{path}", world.sandbox.pinecone_url)).header("api-key", "x").json(&body);
    let answer = call.send().await.expect("it answers");
    assert!(answer.status().is_success(), "{path}: {answer:?}");
}

/// The vectors of these ids, as the vector store has them.
async fn vectors(world: &World, namespace: &str, id: &str) -> Value {
    let url = format!("{}/vectors/fetch?namespace={namespace}&ids={id}", world.sandbox.pinecone_url);
    let answer = world.http.get(url).header("api-key", "x").send().await.expect("it answers");
    answer.json::<Value>().await.expect("JSON")["vectors"][id].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_was_completed_long_after_a_crash_keeps_the_name_that_it_was_counted_under() {
    let mut lab = lab("lost-completed").await;
    let acme = lab.client("acme").await;
    let key = acme.key.clone();
    let id = store(&acme, 1).await;
    let exact = level(&lab.world).await;
    let namespace = lab.world.status("acme").await.namespace.expect("a namespace");
    let mut head = vectors(&lab.world, &namespace, &format!("d/{id}")).await;
    let upload = head["metadata"]["upload"].clone();
    let begun = Timestamp::now().plus(-2 * 24 * 3600);
    (head["metadata"]["state"], head["metadata"]["uploaded_at"]) = (json!("processing"), json!(begun));
    pinecone(&lab.world, "/vectors/upsert", json!({"namespace": namespace, "vectors": [head]})).await;
    assert_eq!(store(&acme, 1).await, id);
    assert_eq!(level(&lab.world).await, exact, "once");
    let head = vectors(&lab.world, &namespace, &format!("d/{id}")).await["metadata"].clone();
    assert_eq!((&head["upload"], &head["counted_at"], &head["state"]), (&upload, &json!(begun), &json!("ready")));

    lab.world.lose_ledger();
    lab.world.start_ledger();
    recounted(&lab.world).await;
    lab.world.until("counted again", async || level(&lab.world).await == exact).await;
    assert_eq!(lab.client_with(&key).delete(&id).await, 204);
    lab.world.until("deleted", async || level(&lab.world).await == Amounts::ZERO).await;
}

/// The vector store does not list documents of the snapshot, and then does not return what it lists: no proof that they
/// are gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_the_vector_store_shows_late_or_not_whole_stays_counted() {
    let (mut lab, exact) = two_documents_in_a_snapshot("lost-late").await;
    let hides = |path: &str, body: Value| json!({"provider": "pinecone", "path": path, "status": 200, "body": body.to_string(), "times": 100_000});
    lab.world.fault(hides("/vectors/list", json!({"vectors": []}))).await;
    let before = lists(&lab.world).await;
    lab.world.lose_ledger();
    lab.world.start_ledger();
    lab.world.until("two looks", async || lists(&lab.world).await > before + 1).await;
    assert_eq!(level(&lab.world).await, exact, "the store has them, and does not list them");
    lab.world.clear_faults().await;
    lab.world.fault(hides("/vectors/fetch", json!({"vectors": {}}))).await;
    lab.world.wait_event("acme", "DocumentsUnreadable").await;
    assert_eq!(level(&lab.world).await, exact, "they are listed, and cannot be read");
    lab.world.clear_faults().await;
    recounted(&lab.world).await;
    assert_eq!(level(&lab.world).await, exact);
}

/// An object from a backup may name the namespace of before a move of data. What is in the later one is not gone.
#[tokio::test(flavor = "multi_thread")]
async fn documents_of_a_later_namespace_stay_counted() {
    let (mut lab, exact) = two_documents_in_a_snapshot("lost-moved").await;
    let namespace = lab.world.status("acme").await.namespace.expect("a namespace");
    let sample = vectors(&lab.world, &namespace, "sample_1").await;
    let moved = json!({"namespace": format!("{namespace}.2"), "vectors": [sample]});
    pinecone(&lab.world, "/vectors/upsert", moved).await;
    pinecone(&lab.world, "/vectors/delete", json!({"namespace": namespace, "deleteAll": true})).await;
    lab.world.lose_ledger();
    lab.world.start_ledger();
    // Documents that are gone are released after two looks, 20 seconds apart.
    tokio::time::sleep(Duration::from_secs(45)).await;
    assert_eq!(level(&lab.world).await, exact);
}
