//! An index for each region: data is where the plan says, a plan of an unknown region is not sold, and a tenant that
//! moves to a plan of another region takes its data along without a failed question.

use std::collections::BTreeSet;
use std::path::Path;

use kube::Api;
use kube::api::Patch;
use serde_json::{Value, json};
use tenant_operator::api::tenant::BillingMode;
use tenant_operator::api::{Phase, Plan, conditions, data_namespace};
use tenant_operator_dev::apply_yaml;

use crate::support::{Questions, World, document_titles, folder, found, reason, report, said, upload};

const EU: &str = "multi-tenant-rag-eu";
const REGIONS: &str = "us-east-1=multi-tenant-rag,eu-central-1=multi-tenant-rag-eu";

const PLANS: &str = "
apiVersion: tenant-operator.dev/v1alpha1
kind: Plan
metadata: {name: american}
spec:
  stripePriceId: price_american
  monthlyPrice: {amount: 1000}
  trialDays: 0
  sampleDocuments: [{id: sample_1, text: RAG means retrieval-augmented generation.}]
---
apiVersion: tenant-operator.dev/v1alpha1
kind: Plan
metadata: {name: european}
spec:
  stripePriceId: price_european
  monthlyPrice: {amount: 9000}
  trialDays: 0
  region: eu-central-1
  sampleDocuments: [{id: sample_1, text: RAG means retrieval-augmented generation.}]
---
apiVersion: tenant-operator.dev/v1alpha1
kind: Plan
metadata: {name: martian}
spec:
  stripePriceId: price_martian
  monthlyPrice: {amount: 9000}
  region: mars-1
  sampleDocuments: [{id: sample_1, text: RAG means retrieval-augmented generation.}]
";

async fn start(name: &str, args: &[&str], exports: Option<&Path>) -> World {
    let mut world = World::without_controller(name).await;
    if let Some(folder) = exports {
        world.environment("EXPORTS_URL", &format!("file://{}/others", folder.display()));
        world.environment("EXPORTS_REGIONS", &format!("eu-central-1=file://{}/eu", folder.display()));
    }
    apply_yaml(&world.client, PLANS).await.expect("the plans apply");
    for (id, amount) in [("price_american", 1000), ("price_european", 9000), ("price_martian", 9000)] {
        world.sandbox.add_price(id, amount, "usd");
    }
    world.environment("PINECONE_REGIONS", REGIONS);
    world.environment("STRIPE_PORTAL_KEY", "rk_test_portal");
    world.controller_args(args);
    world.start_controller();
    world.start_web(&[]);
    world
}

async fn active(world: &World, name: &str, plan: &str) {
    world.create_paying(name, plan).await;
}

/// The namespaces of the American and of the European index.
async fn namespaces(world: &World) -> [BTreeSet<String>; 2] {
    let state = world.sandbox_get("/_sandbox/pinecone").await;
    let names = |state: &Value| state["namespaces"].as_object().expect("namespaces").keys().cloned().collect();
    [names(&state), names(&state[EU])]
}

async fn namespace(world: &World, name: &str, generation: u32) -> String {
    data_namespace(world.tenants().get(name).await.expect("there").tenant_id(), generation)
}

#[tokio::test(flavor = "multi_thread")]
async fn data_is_in_the_region_of_the_plan_from_the_first_vector_to_the_last() {
    let exports = folder("regions-exports");
    let world = start("regions", &["--full-resync=1"], Some(&exports)).await;
    active(&world, "acme", "european").await;
    let there = namespace(&world, "acme", 1).await;
    assert_eq!(namespaces(&world).await, [BTreeSet::new(), BTreeSet::from([there])]);
    assert_eq!(world.status("acme").await.region.as_deref(), Some("eu-central-1"));
    upload(&world, "Cats", "Cats sleep for sixteen hours a day, mostly in the sun.").await;
    assert_eq!(found(&world, "How long do cats sleep?").await.first().map(String::as_str), Some("Cats"));
    // The comparison of namespaces looks into both.
    let looked = || world.calls(|call| call["path"] == "/namespaces" && call["method"] == "GET");
    let before = looked().await;
    world.until("both indexes are compared again", async || looked().await >= before + 6).await;
    assert!(conditions::is_true(&world.status("acme").await.conditions, "NamespaceReady"), "it is seen where it is");
    // So is an export.
    let wish = Patch::Merge(json!({"spec": {"exportRequest": "first"}}));
    world.tenants().patch("acme", &Default::default(), &wish).await.expect("patched");
    world.wait_true("acme", "ExportReady").await;
    let id = world.tenants().get("acme").await.expect("there").tenant_id().to_owned();
    assert!(exports.join("eu").join(&id).join("first/manifest.json").is_file());
    assert!(!exports.join("others").join(&id).exists(), "nothing of it is elsewhere");
    // Lost, it is found in its region.
    world.annotate("acme", "tenant-operator.dev/keep-data", "true").await;
    let before = world.tenants().get("acme").await.expect("there");
    world.tenants().delete("acme", &Default::default()).await.expect("deleted");
    world.wait_gone("acme").await;
    let output = tokio::task::block_in_place(|| world.command("recover").arg("--apply").output()).expect("it runs");
    assert!(output.status.success(), "{}", said(&output));
    world.wait_phase("acme", Phase::Active).await;
    let after = world.tenants().get("acme").await.expect("there");
    assert_eq!(after.tenant_id(), before.tenant_id());
    assert_eq!(after.spec.data.as_ref().and_then(|data| data.region.as_deref()), Some("eu-central-1"));
    assert_eq!(document_titles(&world).await, BTreeSet::from(["Cats".to_owned()]));
    world.erase("acme").await;
    world.wait_gone("acme").await;
    assert_eq!(namespaces(&world).await, [BTreeSet::new(), BTreeSet::new()]);
    assert!(!exports.join("eu").join(&id).exists(), "nor is an export left");
    std::fs::remove_dir_all(exports).expect("removed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_that_moves_to_a_plan_of_another_region_takes_its_data_along() {
    let exports = folder("abroad-exports");
    let mut world = start("abroad", &["--migration-overlap=2"], Some(&exports)).await;
    active(&world, "acme", "american").await;
    upload(&world, "Report", &report(4000)).await;
    let wish = Patch::Merge(json!({"spec": {"exportRequest": "before"}}));
    world.tenants().patch("acme", &Default::default(), &wish).await.expect("patched");
    world.wait_true("acme", "ExportReady").await;
    let (first, second) = (namespace(&world, "acme", 1).await, namespace(&world, "acme", 2).await);
    let questions = Questions::begin(&world, "acme").await;
    world.fault(json!({"provider": "openai", "path": "/v1/embeddings", "delay_ms": 250, "times": 100_000})).await;
    let wish = Patch::Merge(json!({"spec": {"plan": "european"}}));
    world.tenants().patch("acme", &Default::default(), &wish).await.expect("patched");
    world.wait("acme", "to be copied", |s| s.migration.is_some()).await;
    upload(&world, "Meanwhile", "Geysers erupt every ninety minutes.").await;
    world.replace_controller();
    let in_force = |s: &tenant_operator::api::TenantStatus| s.config.as_ref().is_some_and(|c| &*c.plan == "european");
    world.wait("acme", "to be on the plan", in_force).await;
    world.clear_faults().await;
    world.wait("acme", "the old vectors to go", |s| s.migration.is_none()).await;
    assert_eq!(namespaces(&world).await, [BTreeSet::new(), BTreeSet::from([second])], "{first} is gone");
    let status = world.status("acme").await;
    assert_eq!((status.phase, status.region.as_deref()), (Some(Phase::Active), Some("eu-central-1")));
    questions.more(&world, 2).await;
    questions.end().await;
    assert_eq!(document_titles(&world).await, BTreeSet::from(["Meanwhile".to_owned(), "Report".to_owned()]));
    let answer = found(&world, "How often do geysers erupt?").await;
    assert_eq!(answer.first().map(String::as_str), Some("Meanwhile"));
    // The export from before is where it was, and with the next one it goes.
    let id = world.tenants().get("acme").await.expect("there").tenant_id().to_owned();
    let at = |region: &str, request: &str| exports.join(region).join(&id).join(request).join("manifest.json").is_file();
    assert!(at("others", "before"));
    let wish = Patch::Merge(json!({"spec": {"exportRequest": "after"}}));
    world.tenants().patch("acme", &Default::default(), &wish).await.expect("patched");
    world.until("it is exported in its region", async || at("eu", "after")).await;
    world.until("the one before goes", async || !at("others", "before")).await;
    std::fs::remove_dir_all(exports).expect("removed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_of_a_region_without_an_index_is_refused_and_no_plan_changes_its_region() {
    let world = start("mars", &[], None).await;
    world.create("early", "martian", BillingMode::Stripe).await;
    let status = world.wait("early", "to be refused", |s| reason(s, "Stalled") == "RegionUnsupported").await;
    assert!(status.checkout.is_none(), "nothing is sold");
    let message = status.message.expect("said").to_string();
    assert!(message.contains("mars-1") && message.contains("PINECONE_REGIONS"), "{message}");
    active(&world, "acme", "american").await;
    let wish = Patch::Merge(json!({"spec": {"plan": "martian"}}));
    world.tenants().patch("acme", &Default::default(), &wish).await.expect("patched");
    let status = world.wait("acme", "to stay", |s| reason(s, "PlanInForce") == "RegionUnsupported").await;
    assert_eq!(status.phase, Some(Phase::Active));
    let plans: Api<Plan> = Api::all(world.client.clone());
    let change = Patch::Merge(json!({"spec": {"region": "eu-central-1"}}));
    let refused = plans.patch("american", &Default::default(), &change).await.expect_err("its tenants' data is there");
    assert!(refused.to_string().contains("make another Plan for another region"), "{refused}");
    assert_eq!(&*plans.get("american").await.expect("there").spec.region, "us-east-1");
}
