//! Deleting objects is not the wish to erase customers.

use serde_json::Value;
use tenant_operator::api::tenant::BillingMode;
use tenant_operator::api::{Phase, Tenant};

use crate::support::{World, said};

/// Calls that take something from a customer.
async fn losses(world: &World) -> Vec<Value> {
    let log = world.sandbox_get("/_sandbox/requests").await;
    let loss = |r: &&Value| r["method"] == "DELETE" || r["path"].as_str().is_some_and(|p| p.ends_with("/cancel"));
    log.as_array().into_iter().flatten().filter(loss).cloned().collect()
}

/// As a backup has it: without what the API server fills in.
fn backup(tenant: &Tenant) -> Tenant {
    let mut kept = tenant.clone();
    (kept.metadata.uid, kept.metadata.resource_version, kept.metadata.creation_timestamp) = (None, None, None);
    (kept.metadata.deletion_timestamp, kept.metadata.generation, kept.status) = (None, None, None);
    kept
}

#[tokio::test]
async fn whoever_deletes_all_tenants_loses_no_customer_and_a_backup_brings_them_back() {
    let world = World::start("accident").await;
    let names: Vec<_> = (0..30).map(|n| format!("tenant-{n}")).collect();
    for name in &names {
        world.create(name, "paid", BillingMode::Stripe).await;
    }
    for name in &names {
        world.pay(name).await;
    }
    let mut backups = Vec::new();
    for name in &names {
        world.wait_true(name, "WelcomeEmailSent").await;
        backups.push((world.tenants().get(name).await.expect("there"), world.api_key(name).await));
    }
    world.tenants().delete_collection(&Default::default(), &Default::default()).await.expect("asked for");
    for name in &names {
        world.wait_gone(name).await;
    }
    assert_eq!(losses(&world).await, Vec::<Value>::new(), "nothing is taken from anybody");
    let alerts = world.sandbox_get("/_sandbox/alerts").await;
    let told = alerts
        .as_array()
        .into_iter()
        .flatten()
        .filter(|a| a["text"].as_str().is_some_and(|t| t.contains("was deleted without the wish")));
    assert_eq!(told.count(), names.len(), "{alerts}");
    // No garbage collector runs here; a cluster's takes the Secrets that the objects owned.
    for name in &names {
        drop(world.secrets().delete(&format!("{name}-api-key"), &Default::default()).await);
    }
    for (tenant, _) in &backups {
        world.tenants().create(&Default::default(), &backup(tenant)).await.expect("restored");
    }
    for (tenant, key) in &backups {
        let name = tenant.metadata.name.as_deref().expect("a name");
        world.wait_phase(name, Phase::Active).await;
        assert_eq!(world.api_key(name).await, *key, "the key is the same");
        let now = world.tenants().get(name).await.expect("there");
        assert_eq!(
            (now.spec.tenant_id, now.spec.billing),
            (tenant.spec.tenant_id.clone(), tenant.spec.billing.clone())
        );
    }
    let stripe = world.sandbox_get("/_sandbox/state").await;
    let count = |kind: &str| stripe[kind].as_array().map(Vec::len);
    assert_eq!(
        (count("customer"), count("subscription"), count("invoice")),
        (Some(30), Some(30), Some(30)),
        "no double"
    );
    assert_eq!(world.sandbox_get("/_sandbox/pinecone").await["created"], 30);
    assert_eq!(world.mails("welcome").await, 30, "nobody is welcomed twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customer_is_erased_by_name_and_only_when_it_is_meant() {
    let world = World::with_active("meant").await;
    let erase = |args: &[&str]| {
        let all: Vec<_> = ["acme", "--namespace", &world.namespace].into_iter().chain(args.iter().copied()).collect();
        tokio::task::block_in_place(|| world.command("erase").args(&all).output()).expect("it runs")
    };
    for args in [&[][..], &["--confirm", "other"]] {
        let output = erase(args);
        let text = said(&output);
        assert!(!output.status.success() && text.contains("add --confirm acme"), "{text}");
        assert!(text.contains("Pinecone namespace tenant_") && text.contains("Stripe subscription sub_"), "{text}");
    }
    assert_eq!(world.status("acme").await.phase, Some(Phase::Active));
    // Another tenant's id is no intent.
    world.annotate("acme", "tenant-operator.dev/erase", "somebody-else").await;
    let output = erase(&["--confirm", "acme"]);
    assert!(output.status.success(), "{}", said(&output));
    world.wait_gone("acme").await;
    let pinecone = world.sandbox_get("/_sandbox/pinecone").await;
    assert_eq!(pinecone["namespaces"].as_object().map(serde_json::Map::len), Some(0));
    let stripe = world.sandbox_get("/_sandbox/state").await;
    assert!(
        stripe["subscription"].as_array().is_some_and(|all| all.iter().all(|s| s["status"] == "canceled")),
        "{stripe}"
    );
}

#[tokio::test]
async fn a_wrong_annotation_is_no_intent_and_an_unpaid_signup_leaves_nothing_behind() {
    let world = World::with_active("almost").await;
    world.annotate("acme", "tenant-operator.dev/erase", "true").await;
    world.tenants().delete("acme", &Default::default()).await.expect("asked for");
    world.wait_event("acme", "Kept").await;
    world.wait_gone("acme").await;
    assert_eq!(losses(&world).await, Vec::<Value>::new());
    world.create("unpaid", "paid", BillingMode::Stripe).await;
    world.wait("unpaid", "waiting", |s| s.checkout.is_some()).await;
    world.tenants().delete("unpaid", &Default::default()).await.expect("asked for");
    world.wait_gone("unpaid").await;
    let stripe = world.sandbox_get("/_sandbox/state").await;
    let open = stripe["checkout.session"].as_array().into_iter().flatten().filter(|s| s["status"] == "open").count();
    assert_eq!(open, 0, "nobody can pay for it any more: {stripe}");
}
