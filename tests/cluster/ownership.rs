//! What a hostile manifest tries: another's id, another's Secret, another's plan. And what an honest move needs.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use serde_json::json;
use tenant_operator::api::conditions::get;
use tenant_operator::api::tenant::{BillingMode, Login};
use tenant_operator::api::{
    FINALIZER, KEEP_DATA_ANNOTATION, PROOF_ANNOTATION, Phase, Plan, TENANT_LABEL, Tenant, TenantStatus,
};
use tenant_operator::operator_keys::{IDENTITY_SECRET, SIGNING_SECRET};

use crate::support::{BINARY, World, control_plane, create_plan, kubectl, said, tenant};

fn refused(reason: &'static str) -> impl Fn(&TenantStatus) -> bool {
    move |s| get(&s.conditions, "IdentityVerified").is_some_and(|c| c.reason == reason) && s.phase.is_none()
}

/// An Active Tenant that pays by Stripe, with everything that an attacker might want.
async fn victim(name: &str) -> (World, Tenant) {
    let world = World::start(name).await;
    world.create_paying("victim", "paid").await;
    let victim = world.tenants().get("victim").await.expect("the tenant");
    (world, victim)
}

/// A copy of the victim under another name, with all that a manifest can carry.
fn copy(victim: &Tenant) -> Tenant {
    let mut copy = Tenant::new("thief", victim.spec.clone());
    copy.metadata.annotations.clone_from(&victim.metadata.annotations);
    copy.metadata.labels.clone_from(&victim.metadata.labels);
    copy.metadata.finalizers = Some(vec![FINALIZER.into()]);
    copy
}

/// Calls that change something: the bulk resync only reads.
async fn calls(world: &World) -> usize {
    world.calls(|r| r["method"] != "GET").await
}

#[tokio::test]
async fn a_copied_tenant_id_gets_no_key_and_its_deletion_erases_nothing() {
    let (world, victim) = victim("thief").await;
    let before = calls(&world).await;
    world.tenants().create(&PostParams::default(), &copy(&victim)).await.expect("the manifest is taken");
    let status = world.wait("thief", "refused", refused("TenantIdNotOwned")).await;
    assert!(get(&status.conditions, "Stalled").is_some_and(|c| c.message.contains("kubectl tenant adopt thief")));
    world.wait_event("thief", "TenantIdNotOwned").await;
    assert!(world.secrets().get_opt("thief-api-key").await.expect("the API answers").is_none());
    // Both are shown, and the rightful one goes on.
    let claimed = |s: &TenantStatus| {
        get(&s.conditions, "IdentityVerified")
            .is_some_and(|c| c.reason == "ClaimedElsewhere" && c.message.contains("thief"))
    };
    let status = world.wait("victim", "shown as claimed elsewhere", claimed).await;
    assert!(
        status.phase == Some(Phase::Active) && get(&status.conditions, "Ready").is_some_and(|c| c.reason == "Active")
    );

    for force in ["false", "true"] {
        world.annotate("thief", "tenant-operator.dev/force-delete", force).await;
    }
    world.erase("thief").await;
    world.wait_gone("thief").await;
    assert_eq!(calls(&world).await, before, "nothing was written at any provider");
    assert_eq!(world.sandbox_get("/_sandbox/state").await["subscription"][0]["status"], "active");
    let namespace = format!("tenant_{}", victim.metadata.uid.as_deref().expect("a uid"));
    assert_eq!(world.sandbox_get("/_sandbox/pinecone").await["namespaces"][&namespace], 1);
    world
        .wait("victim", "alone again", |s| get(&s.conditions, "IdentityVerified").is_some_and(|c| c.reason == "Issued"))
        .await;
}

#[tokio::test]
async fn an_invented_id_or_an_id_without_its_proof_is_refused_too() {
    let world = World::start("invented").await;
    let mut invented = tenant("invented", "enterprise", BillingMode::Manual);
    invented.spec.tenant_id = Some("acme".into());
    world.tenants().create(&PostParams::default(), &invented).await.expect("taken");
    world.wait("invented", "refused", refused("TenantIdNotOwned")).await;
    assert_eq!(calls(&world).await, 0);
}

#[tokio::test]
async fn a_restore_under_the_same_name_finds_its_tenant_and_a_move_needs_an_adoption() {
    let (world, victim) = victim("restore").await;
    let key = world.api_key("victim").await;
    let backup = |name: &str| {
        let mut backup = copy(&victim);
        backup.metadata.name = Some(name.into());
        backup
    };
    // The cluster is lost.
    let mut world = world;
    world.controllers.remove(0).kill();
    lose_all(&world, "victim").await;
    world.secrets().delete("victim-api-key", &Default::default()).await.expect("deleted");
    world.tenants().create(&PostParams::default(), &backup("victim")).await.expect("restored");
    world.start_controller();
    world.wait_phase("victim", Phase::Active).await;
    world.wait_secret("victim-api-key", |_| true).await;
    assert_eq!(world.api_key("victim").await, key, "the same key");
    world.assert_one_of_each("victim").await;

    // To another name: refused, adopted, served.
    world.tenants().create(&PostParams::default(), &backup("moved")).await.expect("taken");
    world.wait("moved", "refused", refused("TenantIdNotOwned")).await;
    let adopt = async || {
        let mut command = tokio::process::Command::new(BINARY);
        let ns = &world.namespace;
        command.args(["adopt", "moved", "--namespace", ns, "--operator-namespace", ns]);
        command.arg("--kubeconfig").arg(&control_plane().kubeconfig);
        command.output().await.expect("it runs")
    };
    let held = adopt().await;
    assert_eq!(held.status.code(), Some(1));
    assert!(said(&held).contains(&format!("is held by {}/victim", world.namespace)), "{}", said(&held));
    world.annotate("victim", KEEP_DATA_ANNOTATION, "true").await;
    world.erase("victim").await;
    world.wait_gone("victim").await;
    for _ in 0..2 {
        let adopted = adopt().await;
        assert!(adopted.status.success(), "{}", said(&adopted));
    }
    world.wait_phase("moved", Phase::Active).await;
    let place = async || {
        let stripe = world.sandbox_get("/_sandbox/state").await;
        let metadata = &stripe["subscription"][0]["metadata"];
        (metadata["tenant_namespace"].clone(), metadata["tenant_name"].clone())
    };
    let here = (json!(world.namespace), json!("moved"));
    world.until("Stripe knows where the Tenant is", async || place().await == here).await;
    world.wait_secret("moved-api-key", |_| true).await;
    assert_eq!(world.api_key("moved").await, key, "the same tenant, so the same key");
    assert_eq!(world.sandbox_get("/_sandbox/pinecone").await["created"], 1);
}

/// Deletes the object without its finalizer, so that nothing it owned is cleaned up.
async fn lose_all(world: &World, name: &str) {
    let free = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    world.tenants().patch(name, &PatchParams::default(), &free).await.expect("freed");
    world.erase(name).await;
    world.wait_gone(name).await;
}

fn secret(name: &str, labels: &[(&str, &str)]) -> Secret {
    Secret {
        metadata: ObjectMeta {
            name: Some(name.into()),
            labels: Some(labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([("api-key".to_owned(), ByteString(b"another owner's".to_vec()))])),
        ..Secret::default()
    }
}

#[tokio::test]
async fn a_foreign_secret_is_neither_written_nor_deleted() {
    let mut world = World::without_controller("secrets").await;
    world.controller_args(&["--hold-retry=1"]);
    world.start_controller();
    let before = world.secrets().create(&PostParams::default(), &secret("acme-api-key", &[])).await.expect("made");
    world.create("acme", "enterprise", BillingMode::Manual).await;
    let conflict = |s: &TenantStatus| get(&s.conditions, "ApiKeyReady").is_some_and(|c| c.reason == "SecretConflict");
    let status = world.wait("acme", "in conflict", conflict).await;
    assert_eq!(status.phase, Some(Phase::Provisioning), "on hold, not failed");
    let message = &get(&status.conditions, "ApiKeyReady").expect("there").message;
    assert!(message.contains("acme-api-key") && message.contains("Delete or rename it"), "{message}");
    world.wait_event("acme", "SecretConflict").await;
    world.erase("acme").await;
    world.wait_gone("acme").await;
    let after = world.secrets().get("acme-api-key").await.expect("still there");
    assert_eq!((before.metadata.uid, before.data), (after.metadata.uid, after.data));

    // Once it is out of the way, or handed over by its owner, the tenant goes on.
    world.create("acme", "enterprise", BillingMode::Manual).await;
    world.wait("acme", "in conflict", conflict).await;
    let hand_over = Patch::Merge(json!({"metadata": {"labels": {TENANT_LABEL: "acme"}}}));
    world.secrets().patch("acme-api-key", &PatchParams::default(), &hand_over).await.expect("labelled");
    world.wait_phase("acme", Phase::Active).await;
    assert!(world.api_key("acme").await.starts_with("sk_live_"));
}

#[tokio::test]
async fn the_login_secret_is_the_tenants_own_and_no_other() {
    let world = World::start("login").await;
    for stolen in [SIGNING_SECRET, IDENTITY_SECRET, "other-login"] {
        let mut thief = tenant("thief", "enterprise", BillingMode::Manual);
        thief.spec.login = Some(Login { secret_name: stolen.into() });
        let error = world.tenants().create(&PostParams::default(), &thief).await.expect_err("refused");
        assert!(error.to_string().contains("must be the Tenant's name followed by -login"), "{error}");
    }
    let mut acme = tenant("acme", "enterprise", BillingMode::Manual);
    acme.spec.login = Some(Login { secret_name: "acme-login".into() });
    world.secrets().create(&PostParams::default(), &secret("acme-login", &[])).await.expect("created by an admin");
    world.tenants().create(&PostParams::default(), &acme).await.expect("taken");
    world.wait_phase("acme", Phase::Active).await;
    world.erase("acme").await;
    world.wait_gone("acme").await;
    for kept in ["acme-login", SIGNING_SECRET, IDENTITY_SECRET] {
        assert!(world.secrets().get_opt(kept).await.expect("the API answers").is_some(), "{kept} is gone");
    }
    assert!(world.secrets().get_opt("acme-api-key").await.expect("the API answers").is_none());
}

#[tokio::test]
async fn a_name_that_is_no_label_is_refused_at_once() {
    let world = World::without_controller("long-name").await;
    let long = tenant(&"a".repeat(64), "enterprise", BillingMode::Manual);
    let error = world.tenants().create(&PostParams::default(), &long).await.expect_err("refused");
    assert!(error.to_string().contains("at most 63 characters"), "{error}");
}

#[tokio::test]
async fn deleting_all_tenants_of_a_namespace_deletes_no_plan() {
    let world = World::start("all").await;
    world.create("acme", "enterprise", BillingMode::Manual).await;
    world.wait_true("acme", "WelcomeEmailSent").await;
    let ns = world.namespace.as_str();
    let listed = said(&kubectl(&["get", "tenants", "-n", ns, "-o", "name"]).await);
    assert_eq!(listed.trim(), "tenant.tenant-operator.dev/acme");
    let everything = said(&kubectl(&["get", "tenant-operator", "-n", ns, "-o", "name"]).await);
    assert!(everything.contains("tenant.tenant-operator.dev/acme") && everything.contains("plan.tenant-operator.dev/"));
    let deleted = kubectl(&["delete", "tenants", "--all", "-n", ns, "--timeout=60s"]).await;
    assert!(deleted.status.success() && !said(&deleted).contains("plan"), "{}", said(&deleted));
    let plans: Api<Plan> = Api::all(world.client.clone());
    assert!(
        plans
            .get_opt("enterprise")
            .await
            .expect("the API answers")
            .is_some_and(|p| p.metadata.deletion_timestamp.is_none())
    );
}

#[tokio::test]
async fn a_plan_in_use_is_deleted_only_when_its_last_tenant_is_gone() {
    let world = World::start("plan-in-use").await;
    let plans: Api<Plan> = Api::all(world.client.clone());
    create_plan(&plans, "in-use").await;
    world.create("acme", "in-use", BillingMode::Manual).await;
    world.wait_phase("acme", Phase::Active).await;
    let wait = async |what: &str, wanted: &dyn Fn(Option<&Plan>) -> bool| {
        let start = std::time::Instant::now();
        while !wanted(plans.get_opt("in-use").await.expect("the API answers").as_ref()) {
            assert!(start.elapsed().as_secs() < 60, "the plan is not {what}");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    wait("protected", &|p| p.is_some_and(|p| p.metadata.finalizers.as_ref().is_some_and(|f| !f.is_empty()))).await;
    plans.delete("in-use", &Default::default()).await.expect("asked for");
    let start = std::time::Instant::now();
    loop {
        let events = said(&kubectl(&["get", "events", "-A", "--field-selector", "reason=PlanInUse"]).await);
        if events.contains("1 tenants use this Plan") && events.contains("acme") {
            break;
        }
        assert!(start.elapsed().as_secs() < 60, "{events}");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert!(plans.get_opt("in-use").await.expect("the API answers").is_some());
    world.erase("acme").await;
    wait("gone", &|p| p.is_none()).await;
}

/// The proof is bound to namespace and name, and to nothing that a manifest can choose.
#[tokio::test]
async fn the_proof_of_one_place_is_worth_nothing_in_another() {
    let world = World::start("proof").await;
    world.create("acme", "enterprise", BillingMode::Manual).await;
    world.wait_true("acme", "WelcomeEmailSent").await;
    let acme = world.tenants().get("acme").await.expect("the tenant");
    let proof = acme.metadata.annotations.as_ref().expect("annotations")[PROOF_ANNOTATION].clone();
    // Two names whose concatenation could be mistaken for another's.
    for name in ["acm", "acmee"] {
        let mut thief = tenant(name, "enterprise", BillingMode::Manual);
        thief.spec.tenant_id.clone_from(&acme.spec.tenant_id);
        thief.metadata.annotations = Some(BTreeMap::from([(PROOF_ANNOTATION.into(), proof.clone())]));
        world.tenants().create(&PostParams::default(), &thief).await.expect("taken");
        world.wait(name, "refused", refused("TenantIdNotOwned")).await;
    }
    // An own id needs no proof; an edited one is put back.
    world.annotate("acme", PROOF_ANNOTATION, "forged").await;
    let start = std::time::Instant::now();
    while world.tenants().get("acme").await.expect("the tenant").metadata.annotations.expect("some")[PROOF_ANNOTATION]
        != proof
    {
        assert!(start.elapsed().as_secs() < 60, "the proof was not put back");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}
