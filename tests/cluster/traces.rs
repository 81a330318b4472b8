//! Traces, as a collector of OpenTelemetry's own parts receives them.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tenant_operator::api::Phase;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::support::{ROOT, World, free_port, must, target};

/// A collector that prints every span it is sent.
struct Collector {
    url: String,
    lines: Arc<Mutex<Vec<String>>>,
    _child: Child,
}

/// What it printed of one span.
type Printed = BTreeMap<String, String>;

impl Collector {
    async fn start() -> Self {
        let binary = target().join("collector");
        let folder = format!("{ROOT}/tests/conformance/collector");
        must(Command::new("go").args(["build", "-o"]).arg(&binary).arg(".").current_dir(folder)).await;
        let port = free_port();
        let config = json!({
            "receivers": {"otlp": {"protocols": {"http": {"endpoint": format!("127.0.0.1:{port}")}}}},
            "exporters": {"debug": {"verbosity": "detailed"}},
            "service": {
                "pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["debug"]}},
                "telemetry": {"metrics": {"level": "none"}},
            },
        });
        let mut child = Command::new(binary)
            .arg("--config")
            .arg(format!("yaml:{config}"))
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the collector starts");
        let lines = Arc::<Mutex<Vec<String>>>::default();
        let (mut reader, keep) = (BufReader::new(child.stderr.take().expect("piped")).lines(), lines.clone());
        tokio::spawn(async move {
            while let Ok(Some(line)) = reader.next_line().await {
                keep.lock().expect("a list").push(line);
            }
        });
        Self { url: format!("http://127.0.0.1:{port}"), lines, _child: child }
    }

    fn spans(&self) -> Vec<Printed> {
        let lines = self.lines.lock().expect("a list");
        let mut spans = Vec::new();
        for line in lines.iter().map(|l| l.trim()) {
            if line.starts_with("Span #") {
                spans.push(Printed::new());
            } else if let (Some(span), Some((key, value))) = (spans.last_mut(), line.split_once(':')) {
                span.entry(key.trim_start_matches("-> ").trim().to_owned()).or_insert_with(|| value.trim().to_owned());
            }
        }
        spans
    }

    fn said(&self) -> String {
        self.lines.lock().expect("a list").join("\n")
    }
}

#[tokio::test]
async fn from_signup_to_active_is_one_trace() {
    let collector = Collector::start().await;
    let mut world = World::without_controller("traces").await;
    world.environment("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url);
    world.environment("OTEL_BSP_SCHEDULE_DELAY", "100");
    world.environment("LOG_FORMAT", "json");
    world.start_controller();
    world.start_web(&[]);
    let form =
        json!({"email": "ada@example.com", "company_name": "Acme", "password": "correct horse", "accept_terms": true});
    let answer = world.http.post(format!("{}/signup", world.web)).json(&form).send().await.expect("it answers");
    let answer: Value = answer.json().await.expect("JSON");
    let paid = world.http.post(answer["checkout_url"].as_str().expect("a link")).form(&[("card", "4242424242424242")]);
    assert_eq!(paid.send().await.expect("the page answers").status(), 303);
    let tenant = world.tenants().list(&Default::default()).await.expect("listed").items.remove(0);
    let name = tenant.metadata.name.clone().expect("a name");
    world.wait_phase(&name, Phase::Active).await;
    // Spans arrive when they end, so a part before its whole. Each parent comes, and only the whole has none.
    let together = |spans: &[Printed]| {
        let ids: BTreeSet<_> = spans.iter().map(|span| span["ID"].as_str()).collect();
        let whole = spans.iter().filter(|span| span["Parent ID"].is_empty()).map(|span| span["Name"].as_str());
        spans.iter().all(|span| span["Parent ID"].is_empty() || ids.contains(&*span["Parent ID"]))
            && whole.eq(["onboarding"])
            && spans.iter().any(|span| span["Name"] == "signup")
    };
    world.until("all spans hang together", async || together(&collector.spans())).await;

    let trace = tenant.metadata.uid.expect("a uid").replace('-', "");
    let spans = collector.spans();
    assert!(spans.iter().all(|span| span["Trace ID"] == trace), "one trace: {}", collector.said());
    let names: BTreeSet<_> = spans.iter().map(|span| span["Name"].as_str()).collect();
    for part in [
        "signup",
        "payment webhook",
        "reconcile",
        "AssignIdentity",
        "OpenCheckout",
        "EnsureNamespace",
        "EnsureApiKey",
        "StoreSamples",
        "VerifySamples",
        "onboarding",
    ] {
        assert!(names.contains(part), "{part} is missing in {names:?}");
    }
    let whole = spans.iter().find(|span| span["Name"] == "onboarding").expect("the whole");
    assert_eq!(whole["tenant.phase"], "Str(Active)");
    let said = collector.said();
    for secret in ["sk_live_", "correct horse", "ada@example.com", "sk_test_"] {
        assert!(!said.contains(secret), "{secret} was sent");
    }
}

/// A collector that is away or hangs delays neither the controller nor web.
#[tokio::test]
async fn a_collector_that_hangs_delays_nothing() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let mut world = World::without_controller("no-traces").await;
    world.environment("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("http://{}", silent.local_addr().expect("its address")));
    world.start_controller();
    world.create("acme", "paid", tenant_operator::api::tenant::BillingMode::Stripe).await;
    world.pay("acme").await;
    world.wait_phase("acme", Phase::Active).await;
    let mut controller = world.controllers.remove(0);
    controller.signal("TERM");
    assert_eq!(controller.exit_code().await, Some(0));
}
