//! The controller repairs what a user broke by hand.

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tenant_operator::api::tenant::BillingMode;
use tenant_operator::api::{EMAIL_LABEL, Phase, Plan, TENANT_LABEL, TenantStatus};

use crate::support::{PASSWORD, Visitor, World, create_plan, document_limit, wish};

/// Deletes a plan past the finalizer that protects it while tenants use it.
async fn force_delete_plan(plans: &Api<Plan>, name: &str) {
    plans.delete(name, &Default::default()).await.expect("deleted");
    while plans.get_opt(name).await.expect("the API answers").is_some() {
        let free = Patch::Merge(json!({"metadata": {"finalizers": null}}));
        drop(plans.patch(name, &PatchParams::default(), &free).await);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

fn without_plan(status: &TenantStatus) -> bool {
    status.conditions.iter().any(|c| c.type_ == "PlanFound" && c.reason == "PlanNotFound")
}

#[tokio::test]
async fn a_deleted_secret_comes_back_with_the_same_key() {
    let world = World::start("secret").await;
    world.create("acme", "enterprise", BillingMode::Manual).await;
    world.wait_true("acme", "WelcomeEmailSent").await;
    let key = world.api_key("acme").await;
    assert!(key.starts_with("sk_live_"));
    world.secrets().delete("acme-api-key", &Default::default()).await.expect("deleted");
    while world.secrets().get_opt("acme-api-key").await.expect("the API answers").is_none() {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(world.api_key("acme").await, key);
}

#[tokio::test]
async fn an_edited_secret_is_repaired_and_a_new_generation_gives_a_new_key() {
    let world = World::start("edited-secret").await;
    world.create("acme", "enterprise", BillingMode::Manual).await;
    world.wait_true("acme", "WelcomeEmailSent").await;
    let key = world.api_key("acme").await;
    for edit in [
        json!({"stringData": {"api-key": "sk_live_forged"}}),
        json!({"metadata": {"labels": {TENANT_LABEL: null}}, "stringData": {"namespace": "tenant_other"}}),
    ] {
        let params = PatchParams::default();
        world.secrets().patch("acme-api-key", &params, &Patch::Merge(edit)).await.expect("edited");
        let right = |secret: &Secret| {
            let data = secret.data.as_ref().expect("data");
            let namespace = String::from_utf8_lossy(&data["namespace"].0).into_owned();
            let labelled = secret.metadata.labels.as_ref().is_some_and(|l| l.contains_key(TENANT_LABEL));
            data["api-key"].0 == key.as_bytes()
                && namespace.starts_with("tenant_")
                && namespace != "tenant_other"
                && labelled
        };
        world.wait_secret("acme-api-key", right).await;
    }
    let raise = Patch::Merge(json!({"spec": {"apiKeyGeneration": 2}}));
    world.tenants().patch("acme", &PatchParams::default(), &raise).await.expect("raised");
    world.wait_secret("acme-api-key", |secret| secret.data.as_ref().is_some_and(|d| d["key-id"].0 == b"2")).await;
    assert_ne!(world.api_key("acme").await, key);
}

#[tokio::test]
async fn damage_in_the_middle_of_a_reconcile_is_repaired() {
    let mut world = World::without_controller("meanwhile").await;
    // So that no resync heals it.
    world.controller_args(&["--resync=600"]);
    world.start_controller();
    let plans: Api<Plan> = Api::all(world.client.clone());
    create_plan(&plans, "fleeting").await;
    // The reconcile that makes the tenant Active goes on until the welcome is sent.
    world.fault(json!({"provider": "smtp", "delay_ms": 1500})).await;
    world.create("acme", "fleeting", BillingMode::Manual).await;
    world.wait_phase("acme", Phase::Active).await;
    let key = world.api_key("acme").await;
    let edit = Patch::Merge(json!({"stringData": {"api-key": "sk_live_forged"}}));
    world.secrets().patch("acme-api-key", &PatchParams::default(), &edit).await.expect("edited");
    force_delete_plan(&plans, "fleeting").await;
    world
        .wait_secret("acme-api-key", |secret| secret.data.as_ref().is_some_and(|d| d["api-key"].0 == key.as_bytes()))
        .await;
    world.wait("acme", "without a plan", without_plan).await;
}

/// What a write answers may hold a wish that is newer than what was read before the write.
#[tokio::test]
async fn a_key_that_is_replaced_while_an_email_is_sent_is_there_before_the_status_says_so() {
    let world = World::start("key-meanwhile").await;
    world.create("acme", "middle", BillingMode::Manual).await;
    world.wait_true("acme", "WelcomeEmailSent").await;
    let before = world.api_key("acme").await;
    world.fault(json!({"provider": "smtp", "delay_ms": 3000})).await;
    wish(&world, "acme", "large").await.expect("patched");
    world.wait("acme", "on the large plan", |s| document_limit(s) == 100).await;
    let raise = Patch::Merge(json!({"spec": {"apiKeyGeneration": 2}}));
    world.tenants().patch("acme", &PatchParams::default(), &raise).await.expect("patched");
    world.wait("acme", "of the second generation", |s| s.api_key_generation == Some(2)).await;
    assert_ne!(world.api_key("acme").await, before);
}

#[tokio::test]
async fn a_wiped_status_is_rebuilt_without_doing_anything_twice() {
    let world = World::start("wiped").await;
    world.create_paying("acme", "paid").await;
    let before = world.tenants().get("acme").await.expect("the tenant");
    world.lose_status("acme").await;
    let after = world.wait_true("acme", "WelcomeEmailSent").await;
    assert_eq!(after.phase, Some(Phase::Active));
    assert_eq!(after.namespace, before.status.as_ref().and_then(|s| s.namespace.clone()));
    assert!(after.transitions[0].seq > before.status.expect("a status").transitions.last().expect("one").seq);
    world.assert_one_of_each("acme").await;
}

#[tokio::test]
async fn an_unknown_plan_is_named_and_found_when_it_comes() {
    let world = World::start("plan").await;
    world.create("acme", "bespoke", BillingMode::Manual).await;
    let status = world.wait_true("acme", "Stalled").await;
    assert!(status.message.as_deref().is_some_and(|m| m.contains("No Plan is named \"bespoke\"")), "{status:#?}");
    let plans: Api<Plan> = Api::all(world.client.clone());
    create_plan(&plans, "bespoke").await;
    world.wait_phase("acme", Phase::Active).await;
    // A plan that goes away takes no tenant with it.
    force_delete_plan(&plans, "bespoke").await;
    let status = world.wait("acme", "without a plan", without_plan).await;
    assert_eq!(status.phase, Some(Phase::Active));
}

#[tokio::test]
async fn a_new_address_is_found_by_its_own_label() {
    let world = World::start("address").await;
    world.create("acme", "enterprise", BillingMode::Manual).await;
    world.wait_true("acme", "WelcomeEmailSent").await;
    let label = async || world.tenants().get("acme").await.expect("the tenant").metadata.labels.unwrap_or_default();
    let before = label().await[EMAIL_LABEL].clone();
    let edit = Patch::Merge(json!({"spec": {"adminEmail": "grace@example.com"}}));
    world.tenants().patch("acme", &PatchParams::default(), &edit).await.expect("edited");
    while label().await[EMAIL_LABEL] == before {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(world.status("acme").await.phase, Some(Phase::Active));
    assert_eq!(world.mails("welcome").await, 1, "no second welcome to the new address");
}

/// Stripe, logins and e-mails use the new address. The old address gets a notice of the change and can sign up as a new
/// customer.
#[tokio::test]
async fn a_changed_address_is_followed_everywhere() {
    let mut world = World::start("moved").await;
    world.start_web(&[]);
    let mut ada = Visitor::new(&world);
    let name = ada.sign_up("ada@example.com", "Acme").await;
    world.pay(&name).await;
    world.wait_true(&name, "WelcomeEmailSent").await;
    let edit = Patch::Merge(json!({"spec": {"adminEmail": "grace@example.com"}}));
    world.tenants().patch(&name, &PatchParams::default(), &edit).await.expect("edited");
    world.wait(&name, "followed", |s| s.admin_email.as_deref() == Some("grace@example.com")).await;
    world.mail_links("ada@example.com", "The e-mail address of your").await;
    let stripe = world.sandbox_get("/_sandbox/state").await;
    assert_eq!(stripe["customer"][0]["email"], "grace@example.com", "{stripe}");
    let log_in = async |email: &str| Visitor::new(&world).log_in(email, PASSWORD).await;
    assert_eq!((log_in("grace@example.com").await, log_in("ada@example.com").await), (303, 401));
    let mut other = Visitor::new(&world);
    assert_eq!(other.sign_up("ada@example.com", "Another").await, format!("{name}-2"));
    assert_eq!(world.mails("address-changed").await, 1);
    let taken = Visitor::new(&world).try_sign_up("grace@example.com").await;
    assert_ne!(taken, 303, "an address belongs to one customer");
}

#[tokio::test]
async fn a_spec_edited_in_mid_flight_is_not_lost() {
    let world = World::start("edited").await;
    world.fault(json!({"provider": "pinecone", "path": "/vectors/upsert", "delay_ms": 1500})).await;
    world.create("acme", "enterprise", BillingMode::Manual).await;
    world.wait_phase("acme", Phase::Provisioning).await;
    let edit = Patch::Merge(json!({"spec": {"companyName": "Renamed Engines"}}));
    world.tenants().patch("acme", &PatchParams::default(), &edit).await.expect("edited");
    world.wait_true("acme", "WelcomeEmailSent").await;
    let tenant = world.tenants().get("acme").await.expect("the tenant");
    assert_eq!(tenant.spec.company_name, "Renamed Engines");
    assert_eq!(tenant.status.expect("a status").observed_generation, tenant.metadata.generation);
    world.assert_transitions("acme").await;
}
