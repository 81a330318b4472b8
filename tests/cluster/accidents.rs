//! Deleting objects is not the wish to erase customers.

use std::time::Instant;

use futures::StreamExt;
use serde_json::{Value, json};
use tenant_operator::api::tenant::BillingMode;
use tenant_operator::api::{Phase, Tenant};

use crate::support::{Questions, ROOT, World, backup, said};

/// Calls that take something from a customer.
async fn losses(world: &World) -> Vec<Value> {
    let log = world.sandbox_get("/_sandbox/requests").await;
    let loss = |r: &&Value| r["method"] == "DELETE" || r["path"].as_str().is_some_and(|p| p.ends_with("/cancel"));
    log.as_array().into_iter().flatten().filter(loss).cloned().collect()
}

#[tokio::test]
async fn deleting_all_tenants_loses_no_customer_and_a_backup_brings_them_back() {
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
    assert_eq!(losses(&world).await, Vec::<Value>::new(), "no customer loses anything");
    let alerts = world.sandbox_get("/_sandbox/alerts").await;
    let texts: Vec<_> = alerts.as_array().into_iter().flatten().filter_map(|a| a["text"].as_str()).collect();
    let told = |what: &str| texts.iter().filter(|text| text.contains(what)).count();
    assert_eq!(told("was deleted without the annotation"), 3, "the first by name: {alerts}");
    assert_eq!(told("10 Tenants were deleted"), 1, "and all of them as one accident: {alerts}");
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
    assert_eq!(world.mails("welcome").await, 30, "no customer is welcomed twice");
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
    // Another tenant's id does not confirm the erasure.
    world.annotate("acme", "tenant-operator.dev/erase", "another-id").await;
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
    assert_eq!(open, 0, "no payment link is left open: {stripe}");
}

#[tokio::test]
async fn the_deletion_policy_of_a_tenant_says_what_its_deletion_means() {
    let world = World::start("policy").await;
    for (name, policy) in [("test", "Erase"), ("kept", "Retain")] {
        world.create(name, "paid", BillingMode::Stripe).await;
        let change = kube::api::Patch::Merge(json!({"spec": {"deletionPolicy": policy}}));
        world.tenants().patch(name, &Default::default(), &change).await.expect("patched");
    }
    world.pay("test").await;
    world.wait_true("test", "WelcomeEmailSent").await;
    world.tenants().delete("test", &Default::default()).await.expect("asked for");
    world.wait_gone("test").await;
    let pinecone = world.sandbox_get("/_sandbox/pinecone").await;
    assert_eq!(pinecone["namespaces"].as_object().map(serde_json::Map::len), Some(0), "{pinecone}");
    assert_eq!(world.sandbox_get("/_sandbox/state").await["subscription"][0]["status"], "canceled");
    // Never paid, and nothing is touched all the same.
    world.wait("kept", "waiting", |s| s.checkout.is_some()).await;
    world.tenants().delete("kept", &Default::default()).await.expect("asked for");
    world.wait_event("kept", "Kept").await;
    world.wait_gone("kept").await;
    let stripe = world.sandbox_get("/_sandbox/state").await;
    let open = stripe["checkout.session"].as_array().into_iter().flatten().filter(|s| s["status"] == "open").count();
    assert_eq!(open, 1, "its link can still be paid: {stripe}");
    let wrong = kube::api::Patch::Merge(json!({"spec": {"deletionPolicy": "Delete"}}));
    world.create("wrong", "paid", BillingMode::Stripe).await;
    let refused = world.tenants().patch("wrong", &Default::default(), &wrong).await.expect_err("no policy");
    assert!(refused.to_string().contains("spec.deletionPolicy") && refused.to_string().contains("Retain"), "{refused}");
}

/// An admin deletes the definition of Tenants, which deletes every object past every admission check. No customer loses
/// anything, and without a backup all of them come back with the same id, key and subscription.
/// `tests/run` tries it with a thousand.
#[tokio::test(flavor = "multi_thread")]
async fn all_customers_survive_the_deletion_of_their_definition() {
    let customers = std::env::var("CUSTOMERS").ok().and_then(|n| n.parse().ok()).unwrap_or(200);
    let mut world = World::apart("many-lost").await;
    // So much work at once is not to cost the lease on a slow machine.
    // Nor is a comparison of all of them, every three seconds.
    world.controller_args(&["--concurrency=32", "--lease-duration=15", "--resync=5", "--full-resync=30"]);
    world.start_controller();
    let names: Vec<_> = (0..customers).map(|n| format!("tenant-{n:04}")).collect();
    world.start_web(&[]);
    let world = &world;
    let each = async |what: &str, work: fn(&World, String) -> futures::future::BoxFuture<'_, ()>| {
        let started = Instant::now();
        let all = futures::stream::iter(names.iter().cloned().map(|name| work(world, name)));
        all.buffer_unordered(32).collect::<()>().await;
        println!("{what}: {:.1} s", started.elapsed().as_secs_f64());
    };
    each("made", |world, name| Box::pin(async move { drop(world.create(&name, "paid", BillingMode::Stripe).await) }))
        .await;
    world.all_are(customers, "waiting for payment", |s| s.checkout.is_some()).await;
    each("paid", |world, name| Box::pin(async move { world.pay(&name).await })).await;
    world.all_are(customers, "Active", |s| s.phase == Some(Phase::Active)).await;
    let facts = async || {
        let all = world.tenants().list(&Default::default()).await.expect("listed").items;
        let fact = |t: Tenant| (t.metadata.name, t.spec.tenant_id, json!(t.spec.billing.stripe), t.spec.admin_email);
        all.into_iter().map(fact).collect::<Vec<_>>()
    };
    let before = facts().await;
    let mut keys = Vec::new();
    for name in names.iter().step_by(100) {
        keys.push((name, world.api_key(name).await));
    }
    let questions = Questions::begin(world, &names[0]).await;
    questions.more(world, 5).await;
    let started = Instant::now();
    let deleted = world.kubectl(&["delete", "crd", "tenants.tenant-operator.dev", "--timeout=400s"]);
    assert!(deleted.status.success(), "{}", said(&deleted));
    println!("deleted: {:.1} s", started.elapsed().as_secs_f64());
    assert_eq!(losses(world).await, Vec::<Value>::new(), "no customer loses anything");
    // No garbage collector runs here; a cluster's takes the Secrets that the objects owned.
    world
        .secrets()
        .delete_collection(&Default::default(), &kube::api::ListParams::default().labels("tenant-operator.dev/tenant"))
        .await
        .expect("deleted");
    let applied = world.kubectl(&["apply", "--server-side", "-f", &format!("{ROOT}/crds")]);
    assert!(applied.status.success(), "{}", said(&applied));
    let recover = |args: &[&str]| {
        let args: Vec<_> = args.iter().map(|arg| (*arg).to_owned()).collect();
        tokio::task::block_in_place(|| world.command("recover").args(args).output()).expect("it runs")
    };
    world
        .until("the definition is served again", async || world.tenants().list(&Default::default()).await.is_ok())
        .await;
    let dry = recover(&[]);
    assert!(said(&dry).contains(&format!("{customers} Tenants would be made")), "{}", said(&dry));
    assert_eq!(facts().await.len(), 0, "and none was");
    let started = Instant::now();
    let made = recover(&["--apply"]);
    assert!(said(&made).contains(&format!("{customers} Tenants made")), "{}", said(&made));
    world.all_are(customers, "Active again", |s| s.phase == Some(Phase::Active)).await;
    println!("recovered in {:.1} s", started.elapsed().as_secs_f64());
    questions.more(world, 5).await;
    // From before the deletion until after the recovery, not one failed.
    questions.end().await;
    let mut after = facts().await;
    after.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(after, before, "the same ids, customers and subscriptions");
    for (name, key) in keys {
        assert_eq!(world.api_key(name).await, key, "the same key");
    }
    assert_eq!(losses(world).await, Vec::<Value>::new());
    let (stripe, pinecone) =
        (world.sandbox_get("/_sandbox/state").await, world.sandbox_get("/_sandbox/pinecone").await);
    let count = |kind: &str| stripe[kind].as_array().map(Vec::len);
    assert_eq!(
        (count("customer"), count("subscription"), count("invoice")),
        (Some(customers), Some(customers), Some(customers))
    );
    assert_eq!(pinecone["created"], customers, "no namespace twice");
    let nothing = recover(&[]);
    assert!(said(&nothing).contains("0 Tenants would be made"), "{}", said(&nothing));
}
