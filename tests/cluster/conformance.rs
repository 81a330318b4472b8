//! Conformance tests: the vendors' official SDKs drive the sandbox, and Stripe's own stripe-mock takes every
//! request that the product sends.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::post;
use serde_json::{Value, json};
use tenant_operator::api::Phase;
use tenant_operator::api::status::PlanChangeState;
use tenant_operator::api::tenant::BillingMode;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::support::{Lab, ROOT, Visitor, WEBHOOK_SECRET, World, free_port, must, python, said, target};

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

/// Every kind of request that the product sends to Stripe, from one tenant that pays, fails, is refunded, comes back
/// and leaves, and one that leaves before it has paid.
async fn every_request() -> Vec<Value> {
    let mut world = World::start("requests").await;
    world.fault(json!({"provider": "pinecone", "path": "/vectors/upsert", "status": 400, "times": 1})).await;
    world.create("acme", "paid", BillingMode::Stripe).await;
    world.pay("acme").await;
    world.wait_true("acme", "Refunded").await;
    world.annotate("acme", tenant_operator::api::RETRY_ANNOTATION, "again").await;
    world.wait_true("acme", "WelcomeEmailSent").await;
    for (plan, state) in [("pro", PlanChangeState::Applied), ("paid", PlanChangeState::Scheduled)] {
        let patch = kube::api::Patch::Merge(json!({"spec": {"plan": plan}}));
        world.tenants().patch("acme", &Default::default(), &patch).await.expect("patched");
        let there = |c: &tenant_operator::api::status::PlanChange| &*c.plan == plan && c.state == state;
        world.wait("acme", "on another plan", |s| s.plan_change.as_ref().is_some_and(there)).await;
    }
    let desire = async |desired: &str| {
        let patch = kube::api::Patch::Merge(json!({"spec": {"desired": desired}}));
        world.tenants().patch("leaver", &Default::default(), &patch).await.expect("patched");
    };
    world.create_paying("leaver", "paid").await;
    desire("Deleted").await;
    world.wait_true("leaver", "RenewalStopped").await;
    desire("Active").await;
    world.wait_phase("leaver", Phase::Active).await;
    desire("Deleted").await;
    world.wait_true("leaver", "RenewalStopped").await;
    let due = kube::api::Patch::Merge(json!({"status": {"erasesAt": "2026-01-01T00:00:00Z"}}));
    world.tenants().patch_status("leaver", &Default::default(), &due).await.expect("patched");
    world.wait_phase("leaver", Phase::Deleted).await;
    world.create("trial", "starter", BillingMode::Stripe).await;
    world.wait("trial", "waiting", |s| s.checkout.is_some()).await;
    world.environment("STRIPE_PORTAL_KEY", "rk_test_portal");
    world.start_web(&[]);
    let mut customer = Visitor::new(&world);
    let name = customer.sign_up("portal@example.com", "Portal").await;
    world.pay(&name).await;
    world.wait_phase(&name, Phase::Active).await;
    let csrf = customer.csrf("/account").await;
    assert_eq!(customer.post("/account/billing", &[("csrf", &csrf)]).await.0, 200);
    for name in ["acme", "trial"] {
        world.erase(name).await;
        world.wait_gone(name).await;
    }
    // Other checks may fail here, so the exit code does not matter.
    let preflight = tokio::task::block_in_place(|| world.command("preflight").arg("stripe").output());
    let preflight = said(&preflight.expect("it runs"));
    assert!(preflight.contains("√ a subscription can be made and cancelled"), "{preflight}");
    let log = world.sandbox_get("/_sandbox/requests").await;
    let ours = |r: &&Value| r["provider"] == "stripe" && r["path"].as_str().is_some_and(|p| p.starts_with("/v1/"));
    log.as_array().into_iter().flatten().filter(ours).cloned().collect()
}

/// Starts it on a port that was free a moment ago; another process may take that first.
async fn start_mock(binary: &Path) -> (tokio::process::Child, u16) {
    for _ in 0..10 {
        let port = free_port();
        let mut command = Command::new(binary);
        command.args(["-http-addr", &format!("127.0.0.1:{port}")]).stdout(Stdio::null()).kill_on_drop(true);
        let mut mock = command.spawn().expect("stripe-mock starts");
        while mock.try_wait().expect("a child of ours").is_none() {
            if tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                return (mock, port);
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }
    panic!("stripe-mock does not listen");
}

#[tokio::test(flavor = "multi_thread")]
async fn stripe_mock_takes_every_request_that_the_product_sends() {
    let binary = target().join("stripe-mock");
    let folder = format!("{ROOT}/tests/conformance/stripe-mock");
    must(
        Command::new("go").args(["build", "-o"]).arg(&binary).arg("github.com/stripe/stripe-mock").current_dir(folder),
    )
    .await;
    let (mut mock, port) = start_mock(&binary).await;
    let requests = every_request().await;
    let http = reqwest::Client::new();
    let mut kinds = std::collections::BTreeSet::new();
    for request in &requests {
        let text = |key: &str| request[key].as_str().unwrap_or_default().to_owned();
        let url = format!("http://127.0.0.1:{port}{}?{}", text("path"), text("query"));
        let method: reqwest::Method = text("method").parse().expect("a method");
        let call = http
            .request(method.clone(), url)
            .bearer_auth("sk_test_123")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(text("body"));
        let answer = call.send().await.expect("stripe-mock answers");
        let status = answer.status();
        let said = answer.text().await.unwrap_or_default();
        assert!(status.is_success(), "{request}: {status} {said}");
        let path: Vec<_> = request["path"]
            .as_str()
            .into_iter()
            .flat_map(|p| p.split('/'))
            .filter(|p| !p.contains('_') || ["billing_portal", "invoice_payments", "webhook_endpoints"].contains(p))
            .map(str::to_owned)
            .collect();
        kinds.insert(format!("{method} {}", path.join("/")));
    }
    // Proof that all kinds were seen: a new request of the product must be added to the scenario.
    for kind in [
        "POST /v1/customers",
        "POST /v1/checkout/sessions",
        "POST /v1/checkout/sessions/expire",
        "POST /v1/billing_portal/sessions",
        "GET /v1/subscriptions",
        "GET /v1/events",
        "GET /v1/disputes",
        "POST /v1/subscriptions",
        "DELETE /v1/subscriptions",
        "GET /v1/invoices",
        "GET /v1/invoice_payments",
        "GET /v1/refunds",
        "POST /v1/refunds",
        "GET /v1/account",
        "GET /v1/webhook_endpoints",
        "POST /v1/subscriptions",
        "DELETE /v1/customers",
    ] {
        assert!(kinds.contains(kind), "{kind} was not sent: {kinds:?}");
    }
    // And that it refuses what is wrong.
    let wrong = http
        .post(format!("http://127.0.0.1:{port}/v1/checkout/sessions"))
        .bearer_auth("sk_test_123")
        .form(&[("mode", "barter")]);
    assert_eq!(wrong.send().await.expect("stripe-mock answers").status(), 400);
    mock.kill().await.expect("it ends");
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
