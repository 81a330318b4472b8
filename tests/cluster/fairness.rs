//! No tenant starves: not behind a provider that hangs, not behind a thousand others, not behind a bug of our own.

use std::time::{Duration, Instant};

use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding};
use kube::Api;
use kube::api::{Patch, PostParams};
use serde_json::{Value, json};
use tenant_operator::api::conditions::get;
use tenant_operator::api::tenant::BillingMode;
use tenant_operator::api::{Phase, TenantStatus};

use crate::support::{World, create_plan_with_samples, free_port};

/// Milliseconds far beyond any test: a call with this delay hangs.
const HANG: u64 = 3_600_000;

fn shows(condition: &'static str, reason: &'static str) -> impl Fn(&TenantStatus) -> bool {
    move |s| get(&s.conditions, condition).is_some_and(|c| c.reason == reason)
}

async fn create_many(world: &World, count: usize) -> Vec<String> {
    let names: Vec<_> = (0..count).map(|i| format!("many-{i}")).collect();
    for name in &names {
        world.create(name, "enterprise", BillingMode::Manual).await;
    }
    names
}

#[tokio::test]
async fn signups_and_cancellations_go_on_while_pinecone_hangs() {
    let mut world = World::without_controller("hang").await;
    // Without a breaker, every place would be taken until long after the test's limit.
    world.controller_args(&["--provider-timeout-ms=8000", "--attempt-limit=300", "--retry-waits=600"]);
    world.start_controller();
    world.create_paying("early", "paid").await;
    world.fault(json!({"provider": "pinecone", "delay_ms": HANG, "times": 100_000})).await;
    let names = create_many(&world, 120).await;
    world.wait(&names[0], "waiting for Pinecone", shows("NamespaceReady", "PineconeUnavailable")).await;
    // A signup that needs a payment link, and the end of another tenant's subscription.
    world.create("signup", "paid", BillingMode::Stripe).await;
    world.wait("signup", "given a link", |s| s.checkout.is_some()).await;
    world.erase("early").await;
    let start = Instant::now();
    while world.sandbox_get("/_sandbox/state").await["subscription"][0]["status"] != "canceled" {
        assert!(start.elapsed() < Duration::from_mins(1), "the subscription is not canceled");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Every other tenant's status says which provider it waits for and since when, and none has failed.
    for name in [&names[0], &names[119]] {
        let status = world.wait(name, "told", shows("Ready", "PineconeUnavailable")).await;
        let message = status.message.expect("a message");
        assert!(
            message.starts_with("Waiting since 20") && message.contains("Pinecone: has not answered since"),
            "{message}"
        );
        let run = status.provisioning.expect("a run");
        assert!(run.held_since.is_some() && run.attempts == 0, "{run:?}");
    }
    world.clear_faults().await;
    for name in &names {
        world.wait_phase(name, Phase::Active).await;
    }
    world.wait_gone("early").await;
}

/// Until the breaker opens, each tenant that is set up waits for Pinecone itself.
#[tokio::test]
async fn the_first_signup_after_pinecone_begins_to_hang_gets_its_link_at_once() {
    let mut world = World::without_controller("first-signup").await;
    // The breaker opens after five seconds.
    world.controller_args(&["--concurrency=8", "--provider-timeout-ms=20000", "--attempt-limit=300"]);
    world.start_controller();
    world.create("early", "enterprise", BillingMode::Manual).await;
    world.wait_phase("early", Phase::Active).await;
    world.fault(json!({"provider": "pinecone", "delay_ms": HANG, "times": 100_000})).await;
    let names = create_many(&world, 20).await;
    let hangs = async || world.calls(|r| r["provider"] == "pinecone" && r["path"] == "/namespaces").await >= 6;
    world.until("they wait for Pinecone", hangs).await;
    let start = Instant::now();
    world.create("signup", "paid", BillingMode::Stripe).await;
    world.wait("signup", "given a link", |s| s.checkout.is_some()).await;
    let waited = start.elapsed();
    assert!(waited < Duration::from_millis(2500), "the link took {waited:?}");
    world.clear_faults().await;
    for name in &names {
        world.wait_phase(name, Phase::Active).await;
    }
}

#[tokio::test]
async fn an_outage_costs_few_calls_and_no_attempts() {
    let mut world = World::without_controller("outage").await;
    world.controller_args(&["--provider-retries=0"]);
    // Reads fail as well: a resync that is answered would rightly count as "Pinecone is there".
    world.fault(json!({"provider": "pinecone", "status": 503, "times": 1_000_000})).await;
    world.start_controller();
    let names = create_many(&world, 60).await;
    world.wait(&names[59], "waiting", shows("NamespaceReady", "PineconeUnavailable")).await;
    let to_pinecone = |r: &Value| r["provider"] == "pinecone";
    let before = world.calls(to_pinecone).await;
    assert!(before < 60, "{before} calls for 60 tenants: the first few should have been enough");
    // One reconcile at a time probes whether it is back.
    world.until("Pinecone is probed", async || world.calls(to_pinecone).await > before).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let probes = world.calls(to_pinecone).await - before;
    assert!(probes <= 8, "{probes} probes in some seconds");
    world.clear_faults().await;
    let mut failed = 0;
    for name in &names {
        let status = world.wait_phase(name, Phase::Active).await;
        failed += status.provisioning.expect("a run").attempts;
    }
    assert!(failed < 6, "{failed} failed attempts: the calls before the outage was known, and none after");
}

#[tokio::test]
async fn one_place_is_enough_because_no_reconcile_holds_it_while_waiting() {
    let mut world = World::without_controller("one-place").await;
    world.controller_args(&["--concurrency=1"]);
    world.start_controller();
    world.sandbox_post("/_sandbox/pinecone", json!({"visibility_ms": 8000})).await;
    world.create("slow", "enterprise", BillingMode::Manual).await;
    world.wait_phase("slow", Phase::Provisioning).await;
    world.create("signup", "paid", BillingMode::Stripe).await;
    world.wait("signup", "given a link", |s| s.checkout.is_some()).await;
    assert_eq!(world.status("slow").await.phase, Some(Phase::Provisioning), "its samples cannot be seen yet");
    world.wait_phase("slow", Phase::Active).await;
    let upserts = world.calls(|r| r["path"] == "/vectors/upsert").await;
    assert_eq!(upserts, 1, "looking again does not store again");
}

#[tokio::test]
async fn samples_that_never_become_visible_fail_the_attempt() {
    let mut world = World::without_controller("invisible").await;
    world.controller_args(&["--attempt-limit=2", "--retry-waits=1"]);
    world.start_controller();
    world.sandbox_post("/_sandbox/pinecone", json!({"visibility_ms": HANG})).await;
    world.create("acme", "enterprise", BillingMode::Manual).await;
    let status = world.wait_phase("acme", Phase::Failed).await;
    let run = status.provisioning.expect("a run");
    assert_eq!((run.attempts, run.reason.as_deref()), (2, Some("Timeout")));
}

#[tokio::test]
async fn a_full_account_alerts_once_and_fails_no_tenant() {
    let mut world = World::without_controller("full").await;
    world.controller_args(&["--hold-retry=1"]);
    world.start_controller();
    world.sandbox_post("/_sandbox/pinecone", json!({"max_namespaces": 1})).await;
    world.create("first", "enterprise", BillingMode::Manual).await;
    world.wait_phase("first", Phase::Active).await;
    for name in ["second", "third"] {
        world.create(name, "enterprise", BillingMode::Manual).await;
        let status = world.wait(name, "on hold", shows("NamespaceReady", "PineconeQuotaExceeded")).await;
        assert_eq!(status.phase, Some(Phase::Provisioning));
        assert!(status.message.as_ref().is_some_and(|m| m.contains("max namespaces")), "{status:#?}");
    }
    // A customer is not asked to pay for a tenant that there is no room for.
    world.create("signup", "paid", BillingMode::Stripe).await;
    let status = world.wait("signup", "on hold", shows("PaymentReceived", "CapacityMissing")).await;
    assert!(status.checkout.is_none());
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(world.alerts("max namespaces").await, 1, "once, for three tenants and many tries");
    world.sandbox_post("/_sandbox/pinecone", json!({"max_namespaces": 100})).await;
    for name in ["second", "third"] {
        world.wait_phase(name, Phase::Active).await;
    }
    world.wait("signup", "given a link", |s| s.checkout.is_some()).await;
}

#[tokio::test]
async fn a_missing_index_or_a_refused_key_holds_the_tenant_and_says_what_to_fix() {
    let mut world = World::without_controller("index").await;
    world.controller_args(&["--hold-retry=1"]);
    world.fault(json!({"provider": "pinecone", "path": "/indexes/", "status": 404, "times": 4})).await;
    world.start_controller();
    world.create("acme", "enterprise", BillingMode::Manual).await;
    let status = world.wait("acme", "on hold", shows("NamespaceReady", "PineconeIndexMissing")).await;
    assert!(status.message.is_some_and(|m| m.contains("create it, or correct PINECONE_INDEX")));
    world.wait_phase("acme", Phase::Active).await;
    world.fault(json!({"provider": "openai", "status": 401, "times": 2})).await;
    create_plan_with_samples(&world, "other-samples").await;
    world.create("beta", "other-samples", BillingMode::Manual).await;
    world.wait("beta", "on hold", shows("SampleDataReady", "OpenAIUnauthorized")).await;
    world.wait_phase("beta", Phase::Active).await;
    assert_eq!(world.alerts("OpenAI").await, 1);
}

/// Lets the API server itself refuse an operation on Secrets of the tenants' namespace.
struct Refusal {
    policies: Api<ValidatingAdmissionPolicy>,
    bindings: Api<ValidatingAdmissionPolicyBinding>,
    name: String,
}

impl Refusal {
    async fn of(world: &World, operation: &str) -> Self {
        let name = format!("refuse-{}-{}", operation.to_lowercase(), world.namespace);
        let policy = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": name},
            "spec": {
                "matchConstraints": {"resourceRules": [
                    {"apiGroups": [""], "apiVersions": ["v1"], "operations": [operation], "resources": ["secrets"]}]},
                "validations": [{"expression": format!("request.namespace != '{}'", world.namespace),
                    "message": "no Secrets today"}],
            },
        });
        let binding = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": name}, "spec": {"policyName": name, "validationActions": ["Deny"]},
        });
        let (policies, bindings) = (Api::all(world.client.clone()), Api::all(world.client.clone()));
        let params = PostParams::default();
        policies.create(&params, &serde_json::from_value(policy).expect("a policy")).await.expect("made");
        bindings.create(&params, &serde_json::from_value(binding).expect("a binding")).await.expect("made");
        let refusal = Self { policies, bindings, name };
        // Admission policies take effect a moment after they are made.
        let start = Instant::now();
        while !refusal.holds(world, operation).await {
            assert!(start.elapsed() < Duration::from_mins(1), "the policy does not take effect");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        refusal
    }

    async fn holds(&self, world: &World, operation: &str) -> bool {
        let probe = json!({"metadata": {"name": "probe"}});
        let secret = serde_json::from_value(probe).expect("a Secret");
        let made = world.secrets().create(&PostParams::default(), &secret).await;
        if operation == "CREATE" {
            if made.is_ok() {
                world.secrets().delete("probe", &Default::default()).await.expect("deleted");
            }
            return made.is_err();
        }
        world.secrets().delete("probe", &Default::default()).await.is_err()
    }

    async fn lift(self) {
        self.bindings.delete(&self.name, &Default::default()).await.expect("deleted");
        self.policies.delete(&self.name, &Default::default()).await.expect("deleted");
    }
}

#[tokio::test]
async fn a_refusal_of_kubernetes_is_shown_and_tried_again_in_provisioning_and_deletion() {
    let mut world = World::without_controller("refused").await;
    world.controller_args(&["--hold-retry=1"]);
    world.start_controller();
    world.create("first", "enterprise", BillingMode::Manual).await;
    world.wait_phase("first", Phase::Active).await;

    let refusal = Refusal::of(&world, "CREATE").await;
    world.create("second", "enterprise", BillingMode::Manual).await;
    let status = world.wait("second", "refused", shows("ApiKeyReady", "KubernetesInvalid")).await;
    assert!(status.message.as_ref().is_some_and(|m| m.contains("no Secrets today")), "{status:#?}");
    assert_eq!(status.phase, Some(Phase::Provisioning), "our own fault is not the customer's");
    world.wait_event("second", "KubernetesInvalid").await;
    refusal.lift().await;
    world.wait_phase("second", Phase::Active).await;

    let refusal = Refusal::of(&world, "DELETE").await;
    world.erase("first").await;
    let status = world.wait("first", "held up", shows("CleanedUp", "KubernetesInvalid")).await;
    assert!(
        status.message.as_ref().is_some_and(|m| m.starts_with("Cleanup incomplete:") && m.contains("first-api-key"))
    );
    refusal.lift().await;
    world.wait_gone("first").await;
}

#[tokio::test]
async fn a_restart_asks_no_provider_about_a_single_tenant_and_writes_nothing() {
    let mut world = World::without_controller("restart").await;
    let port = free_port();
    world.controller_args(&["--resync=600", "--full-resync=600", &format!("--listen=127.0.0.1:{port}")]);
    world.start_controller();
    for i in 0..12 {
        world.create(&format!("paid-{i}"), "paid", BillingMode::Stripe).await;
    }
    for i in 0..12 {
        world.pay(&format!("paid-{i}")).await;
    }
    // Two that only have a link.
    for name in ["link-1", "link-2"] {
        world.create(name, "paid", BillingMode::Stripe).await;
        world.wait(name, "given a link", |s| s.checkout.is_some()).await;
    }
    // Nothing told the controller of the payments: it has just started to be told nothing at all.
    world.replace_controller();
    for i in 0..12 {
        world.wait_true(&format!("paid-{i}"), "WelcomeEmailSent").await;
    }
    let versions = async |world: &World| {
        let list = world.tenants().list(&Default::default()).await.expect("a list").items;
        list.into_iter().map(|t| t.metadata.resource_version).collect::<Vec<_>>()
    };
    let of_all =
        |r: &Value| r["path"] == "/v1/subscriptions" && !r["query"].as_str().expect("text").contains("customer");
    let before = (versions(&world).await, world.calls(|_| true).await, world.calls(of_all).await);
    world.controllers.remove(0).kill();
    // Broken while no controller runs.
    let broken = json!({"stringData": {"api-key": "stolen"}});
    let secrets = world.secrets();
    secrets.patch("paid-0-api-key", &Default::default(), &Patch::Merge(&broken)).await.expect("a patch");
    world.start_controller();
    let start = Instant::now();
    while world.calls(of_all).await == before.2 {
        assert!(start.elapsed() < Duration::from_mins(1), "no bulk resync after the restart");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    let after = world.calls(|_| true).await - before.1;
    assert!(
        after <= 7,
        "{after} calls for 14 tenants: the account, the index for its check and for its use, the newest event, subscriptions, disputes and \
         namespaces"
    );
    assert_eq!(versions(&world).await, before.0, "nothing was written");
    let repaired = secrets.get("paid-0-api-key").await.expect("a Secret").data.expect("data");
    assert_ne!(repaired["api-key"].0, b"stolen", "a Secret that was broken meanwhile is repaired");
    let metrics = reqwest::get(format!("http://127.0.0.1:{port}/metrics")).await.expect("metrics");
    let metrics = metrics.text().await.expect("text");
    assert!(metrics.contains("kubernetes_secret_reads_total 1\n"), "only the broken one was read by itself: {metrics}");
}
