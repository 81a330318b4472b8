//! The plan that a customer has paid for outlives a lost status and a lost object, also while another one is wished
//! for.

use kube::api::{Patch, PatchParams};
use serde_json::json;
use tenant_operator::api::status::PlanChangeState as State;
use tenant_operator::api::tenant::BillingMode;
use tenant_operator::api::{Phase, TenantStatus};

use crate::support::{World, billed, document_limit, forward, paid, plan_change, said, tenant, wish};

fn is_scheduled(status: &TenantStatus) -> bool {
    plan_change(status) == Some(State::Scheduled)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduled_plan_and_a_replaced_key_survive_a_lost_status_and_a_lost_object() {
    let world = World::on_middle_plan("downgrade-lost", &[]).await;
    wish(&world, "acme", "small").await.expect("patched");
    let before = world.wait("acme", "scheduled", is_scheduled).await.plan_change.expect("a change");
    world.lose_status("acme").await;
    let change = async || {
        let status = world.wait("acme", "scheduled again", is_scheduled).await;
        assert_eq!((status.phase, document_limit(&status)), (Some(Phase::Active), 10), "served by what was paid for");
        status.plan_change.expect("a change")
    };
    let after = change().await;
    assert_eq!((after.effective_at, &after.from), (before.effective_at, &before.from), "to the same day");
    let first = world.api_key("acme").await;
    let replace = Patch::Merge(json!({"spec": {"apiKeyGeneration": 3}}));
    world.tenants().patch("acme", &PatchParams::default(), &replace).await.expect("patched");
    world.wait("acme", "noted at Stripe", |s| s.key_generation_at_stripe == Some(3)).await;
    let key = world.api_key("acme").await;
    assert_ne!(key, first);
    world.tenants().delete("acme", &Default::default()).await.expect("deleted");
    world.until("it is gone", async || world.tenants().get_opt("acme").await.is_ok_and(|t| t.is_none())).await;
    let made = tokio::task::block_in_place(|| world.command("recover").arg("--apply").output()).expect("it runs");
    assert!(said(&made).contains("1 Tenants made"), "{}", said(&made));
    assert_eq!(change().await.effective_at, before.effective_at, "which Stripe alone remembered");
    assert_eq!(world.api_key("acme").await, key, "the key that was in use");
    assert_eq!((billed(&world).await, paid(&world).await), (900, vec![4900]));
    forward(&world, 31).await;
    let status = world.wait("acme", "on the small plan", |s| document_limit(s) == 1).await;
    assert_eq!((status.phase, paid(&world).await), (Some(Phase::Active), vec![4900, 900]));
    // Stripe keeps the note of a change that is over; it counts no more.
    world.lose_status("acme").await;
    let status = world.wait("acme", "Active again", |s| s.phase == Some(Phase::Active)).await;
    assert_eq!((document_limit(&status), status.plan_change), (1, None));
}

#[tokio::test]
async fn a_larger_plan_that_is_not_paid_yet_is_not_in_force_after_a_lost_status() {
    let world = World::on_middle_plan("upgrade-lost", &[]).await;
    let rule =
        json!({"provider": "stripe", "method": "POST", "path": "/v1/subscriptions", "status": 503, "times": 100_000});
    world.fault(rule).await;
    wish(&world, "acme", "large").await.expect("patched");
    world.wait_phase("acme", Phase::Upgrading).await;
    world.lose_status("acme").await;
    let status = world.wait("acme", "served again", |s| document_limit(s) > 0).await;
    assert_eq!((document_limit(&status), billed(&world).await), (10, 4900), "by the plan that is paid for");
    world.clear_faults().await;
    world.wait("acme", "on the large plan", |s| document_limit(s) == 100).await;
    assert_eq!((billed(&world).await, paid(&world).await.len()), (19_900, 2), "charged once");
}

#[tokio::test]
async fn a_manifest_that_names_a_larger_plan_as_in_force_gets_the_one_that_is_paid() {
    let world = World::start("in-force-forged").await;
    let mut forged = tenant("acme", "small", BillingMode::Stripe);
    forged.spec.plan_in_force = Some("large".into());
    world.tenants().create(&Default::default(), &forged).await.expect("created");
    world.pay("acme").await;
    let status = world.wait("acme", "set up", |s| document_limit(s) > 0).await;
    assert_eq!((document_limit(&status), billed(&world).await), (1, 900));
    let kept = world.tenants().get("acme").await.expect("there").spec;
    assert_eq!((kept.plan_in_force.as_deref(), &*kept.plan), (Some("small"), "small"));
}
