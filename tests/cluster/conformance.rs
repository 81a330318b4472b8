//! Conformance tests: the vendors' official SDKs drive the sandbox. [`super::stripe_judges`] has what the product sends
//! to Stripe.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::post;
use serde_json::json;
use tenant_operator::api::Phase;
use tenant_operator::api::tenant::BillingMode;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::support::{Lab, ROOT, WEBHOOK_SECRET, World, must, python, target};

type Deliveries = Arc<Mutex<Vec<String>>>;

async fn receive(State(got): State<Deliveries>, headers: HeaderMap, body: String) {
    let signature = headers.get("stripe-signature").and_then(|v| v.to_str().ok()).unwrap_or_default();
    got.lock().expect("a lock").push(json!({"signature": signature, "body": body}).to_string());
}

#[tokio::test]
async fn the_official_sdks_drive_the_sandbox() {
    let python = python("conformance").await.join("python");
    let world = World::start("sdks").await;
    let got = Deliveries::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    world.sandbox.send_webhooks_to(&format!("http://{}/", listener.local_addr().expect("an address")));
    let routes = Router::new().route("/", post(receive)).with_state(got.clone());
    tokio::spawn(async move { axum::serve(listener, routes).await });
    world.create("acme", "paid", BillingMode::Stripe).await;
    world.pay("acme").await;
    world.wait_phase("acme", Phase::Active).await;
    while got.lock().expect("a lock").len() < 3 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let file = target().join("deliveries.jsonl");
    std::fs::write(&file, got.lock().expect("a lock").join("\n")).expect("written");
    let mut driver = Command::new(python);
    driver
        .arg(format!("{ROOT}/tests/conformance/sdks.py"))
        .env("SANDBOX_URL", &world.sandbox.url)
        .env("STRIPE_URL", &world.sandbox.stripe_url)
        .env("SANDBOX_URL", &world.sandbox.url)
        .env("PINECONE_URL", &world.sandbox.pinecone_url)
        .env("OPENAI_BASE_URL", &world.sandbox.openai_url)
        .env("STRIPE_WEBHOOK_SECRET", WEBHOOK_SECRET)
        .env("DELIVERIES", file);
    let said = must(&mut driver).await;
    assert_eq!(said.matches(": passed").count(), 11, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_official_sdk_of_cloudevents_reports_usage() {
    let python = python("conformance").await.join("python");
    let token = "0123456789abcdef".repeat(2);
    let mut lab = Lab::start("cloudevents", &[("acme", "enterprise")]).await;
    lab.world.environment("USAGE_EVENTS_TOKEN", &token);
    lab.world.start_web(&["--requests-per-second", "1000"]);
    lab.client("acme").await;
    let tenant = lab.world.tenants().get("acme").await.expect("it is there");
    let mut driver = Command::new(python);
    driver
        .arg(format!("{ROOT}/tests/conformance/usage_events.py"))
        .env("WEB_URL", &lab.world.web)
        .env("USAGE_EVENTS_TOKEN", token)
        .env("TENANT_ID", tenant.spec.tenant_id.expect("an id"));
    let said = must(&mut driver).await;
    assert_eq!(said.matches(": passed").count(), 2, "{said}");
}

/// What others say of a Tenant, by their own code: kstatus, and Argo CD with the script of docs/gitops.md.
struct Judges {
    binary: PathBuf,
    script: PathBuf,
}

impl Judges {
    async fn build() -> Self {
        let (binary, script) = (target().join("health"), target().join("health.lua"));
        let folder = format!("{ROOT}/tests/conformance/health");
        must(Command::new("go").args(["build", "-o"]).arg(&binary).arg(".").current_dir(folder)).await;
        let page = std::fs::read_to_string(format!("{ROOT}/docs/gitops.md")).expect("the page");
        let block = page.split("\n```lua\n").nth(1).and_then(|rest| rest.split("\n```").next()).expect("a script");
        std::fs::write(&script, block).expect("written");
        Self { binary, script }
    }

    async fn judge(&self, args: &[&Path], tenant: &impl serde::Serialize) -> String {
        let mut command = Command::new(&self.binary);
        let mut child = command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
        let text = serde_json::to_vec(tenant).expect("JSON");
        child.stdin.take().expect("piped").write_all(&text).await.expect("it reads");
        let output = child.wait_with_output().await.expect("it ends");
        assert!(output.status.success());
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Both agree with what is expected of a Tenant in the cluster, and Argo CD shows its message.
    async fn agree(&self, world: &World, name: &str, kstatus: &str, argo: &str) {
        let tenant = world.tenants().get(name).await.expect("the Tenant");
        assert_eq!(self.judge(&[], &tenant).await, kstatus, "{name}");
        let said = self.judge(&[&self.script], &tenant).await;
        let message = tenant.status.and_then(|s| s.message).expect("a message").to_string();
        assert_eq!(said, format!("{argo}: {message}"), "{name}");
    }
}

#[tokio::test]
async fn kstatus_and_argo_cd_understand_every_phase() {
    let judges = Judges::build().await;
    let world = World::start("kstatus").await;
    let fresh = json!({"apiVersion": "tenant-operator.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": "new", "generation": 1}});
    assert_eq!(judges.judge(&[&judges.script], &fresh).await, "Progressing: Waiting for the controller");
    world.create("acme", "paid", BillingMode::Stripe).await;
    world.wait("acme", "waiting for payment", |s| s.checkout.is_some()).await;
    judges.agree(&world, "acme", "InProgress", "Suspended").await;
    world.fault(json!({"provider": "pinecone", "status": 503, "times": 1000})).await;
    world.pay("acme").await;
    world.wait("acme", "provisioning", |s| s.phase == Some(Phase::Provisioning)).await;
    judges.agree(&world, "acme", "InProgress", "Progressing").await;
    world.clear_faults().await;
    world.wait("acme", "Active", |s| s.phase == Some(Phase::Active)).await;
    judges.agree(&world, "acme", "Current", "Healthy").await;
    let suspend = |desired: &str| kube::api::Patch::Merge(json!({"spec": {"desired": desired}}));
    world.tenants().patch("acme", &Default::default(), &suspend("Suspended")).await.expect("patched");
    world.wait_true("acme", "CollectionPaused").await;
    judges.agree(&world, "acme", "InProgress", "Suspended").await;
    world.tenants().patch("acme", &Default::default(), &suspend("Active")).await.expect("patched");
    world.wait("acme", "Active again", |s| s.phase == Some(Phase::Active)).await;
    // What was changed and not looked at yet is not healthy.
    let mut changed = json!(world.tenants().get("acme").await.expect("the Tenant"));
    changed["metadata"]["generation"] = json!(99);
    assert!(judges.judge(&[&judges.script], &changed).await.starts_with("Progressing: "));
    world.fault(json!({"provider": "pinecone", "method": "POST", "path": "/namespaces", "status": 400})).await;
    world.create("unlucky", "paid", BillingMode::Stripe).await;
    world.pay("unlucky").await;
    world.wait("unlucky", "Failed", |s| s.phase == Some(Phase::Failed)).await;
    judges.agree(&world, "unlucky", "Failed", "Degraded").await;
    world.fault(json!({"provider": "pinecone", "method": "DELETE", "status": 503, "times": 1000})).await;
    world.erase("acme").await;
    world.wait("acme", "deleting", |s| s.phase == Some(Phase::Deleting)).await;
    judges.agree(&world, "acme", "Terminating", "Progressing").await;
    world.clear_faults().await;
    world.wait_gone("acme").await;
}
