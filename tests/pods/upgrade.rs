//! An installation of an earlier version is upgraded to this one, rolled back and upgraded again, while a customer asks.

use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tenant_operator::api::CRD_REVISION;

use crate::ledger::{self, Customer};
use crate::node::Node;
use crate::release::{
    CHART, NAME, NAMESPACE, documented_in, environment, image, image_of, providers, settings, settings_in,
    write_settings,
};
use crate::story::Story;
use crate::{ROOT, step};

const LIMIT: Duration = Duration::from_mins(2);
/// Keeps the customer below the rate of one tenant.
const PAUSE: Duration = Duration::from_millis(150);
/// Nothing is counted late after so long.
const QUIET: Duration = Duration::from_secs(10);
/// What a question of the document that the customer uploads is about.
const OWN: &str = "The warranty of the Zebra 9000 lasts 31 months.";

pub async fn run(node: &Node, earlier: &str) {
    let providers = providers().await;
    step("building the images of both versions");
    image_of(node, earlier, "earlier");
    image(node);
    write_settings(node, &settings_in(earlier, "earlier", &providers));
    let mut story = Story::new(node, providers, String::new());
    use_files_of(node, earlier);
    node.shell(&documented_in(earlier, "sh install"), &environment(&story.providers));
    story.find_web();
    story.served().await;
    let name = story.customer("before").await;
    let customer = Asking::new(story.caller(&name));
    step("the earlier version is installed, and has a customer");
    customer.uploads().await;
    customer.asks(30).await;
    let stored = stored(&customer.customer).await;

    use_files_of(node, ROOT);
    let values = settings(node, &story.providers);
    ledger::volume(node);
    plans_are_named_first(node, &values);
    customer.meanwhile(|| story.helm(&["upgrade", NAME, CHART, "-f", &values])).await;
    customer.is_counted().await;
    assert_eq!(self::stored(&customer.customer).await, stored, "documents and bytes are as before");
    step(&format!("upgraded under questions: {} are asked, answered and counted", customer.asked()));

    let refused = customer.meanwhile(|| node.try_helm(&["rollback", NAME, "1", "-n", NAMESPACE])).await;
    assert!(!refused.status.success(), "older definitions are refused");
    assert!(said(&refused).contains("--set crds.install=false"), "{}", said(&refused));
    let definition = node.get(&["crd", "tenants.tenant-operator.dev"]);
    let revision = &definition["metadata"]["annotations"]["tenant-operator.dev/crd-revision"];
    assert_eq!(revision, &CRD_REVISION.to_string(), "the definitions stay");
    step("a rollback keeps the newer definitions and fails, and serving goes on");
    let (chart, newer) = (format!("{earlier}/charts/tenant-operator"), "crds.install=false");
    let earlier_values = write_settings(node, &settings_in(earlier, "earlier", &story.providers));
    customer.meanwhile(|| story.helm(&["upgrade", NAME, &chart, "-f", &earlier_values, "--set", newer])).await;
    customer.asks(10).await;
    step("the earlier version, with the newer definitions: all questions are answered");
    let values = settings(node, &story.providers);
    customer.meanwhile(|| story.helm(&["upgrade", NAME, CHART, "-f", &values])).await;
    customer.is_counted().await;
    assert_eq!(self::stored(&customer.customer).await, stored, "documents and bytes are as before");
    story.customer("after").await;
    step(&format!("upgraded again: {} questions are asked, answered and counted", customer.asked()));
}

/// The chart and the examples that the node's shell sees.
fn use_files_of(node: &Node, root: &str) {
    for name in ["charts", "examples"] {
        let link = node.folder.join(name);
        drop(std::fs::remove_file(&link));
        std::os::unix::fs::symlink(format!("{root}/{name}"), link).expect("a link");
    }
}

/// Helm refuses the upgrade while a Plan would lose its API, and the command that it names ends that.
fn plans_are_named_first(node: &Node, values: &str) {
    let upgrade = || node.try_helm(&["upgrade", NAME, CHART, "-f", values, "-n", NAMESPACE, "--dry-run=server"]);
    let mut refused = upgrade();
    for _ in 0..10 {
        if refused.status.success() {
            return;
        }
        let text = said(&refused);
        let command = text.split_once("kubectl patch plan").and_then(|(_, rest)| rest.split_once("]'"));
        let (command, _) = command.unwrap_or_else(|| panic!("no command is named: {text}"));
        node.shell(&format!("kubectl patch plan{command}]'"), &[]);
        refused = upgrade();
    }
    panic!("the upgrade is refused after ten commands: {}", said(&refused));
}

fn said(refused: &Output) -> String {
    String::from_utf8_lossy(&refused.stderr).into_owned()
}

/// Documents and bytes that are counted.
async fn stored(customer: &Customer) -> [Option<i64>; 2] {
    let asked = customer.http.get(format!("{}/v1/usage", customer.web)).bearer_auth(&customer.key).send().await;
    let usage: Value = asked.expect("web answers").json().await.expect("JSON");
    ["documents", "bytes"].map(|unit| usage[unit]["used"].as_i64())
}

/// A customer who asks, and how often.
struct Asking {
    customer: Customer,
    asked: Arc<AtomicI64>,
}

impl Asking {
    fn new(customer: Customer) -> Self {
        Self { customer, asked: Arc::default() }
    }

    fn asked(&self) -> i64 {
        self.asked.load(Ordering::SeqCst)
    }

    async fn uploads(&self) {
        let Customer { http, web, key } = &self.customer;
        let url = format!("{web}/v1/documents?title=Warranty");
        let sent = http.post(url).bearer_auth(key).header("content-type", "text/plain").body(OWN).send().await;
        let answer = sent.expect("web answers");
        let (status, said) = (answer.status(), answer.text().await.expect("text"));
        assert!(status.is_success(), "{status} {said}");
    }

    async fn asks(&self, times: usize) {
        for _ in 0..times {
            ask(&self.customer).await;
            self.asked.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Asks while something happens, and a moment longer.
    async fn meanwhile<Done>(&self, happens: impl FnOnce() -> Done) -> Done {
        let over = Arc::new(AtomicBool::default());
        let (ended, customer, asked) = (over.clone(), self.customer.clone(), self.asked.clone());
        let asking = tokio::spawn(async move {
            while !ended.load(Ordering::SeqCst) {
                ask(&customer).await;
                asked.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(PAUSE).await;
            }
        });
        let done = tokio::task::block_in_place(happens);
        tokio::time::sleep(Duration::from_secs(2)).await;
        over.store(true, Ordering::SeqCst);
        asking.await.expect("every question is answered");
        done
    }

    /// Every question is counted, and none twice.
    async fn is_counted(&self) {
        let start = Instant::now();
        while self.customer.counted().await != Ok(self.asked()) {
            let counted = self.customer.counted().await;
            assert!(start.elapsed() < LIMIT, "{counted:?} questions are counted, and {} were asked", self.asked());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        tokio::time::sleep(QUIET).await;
        assert_eq!(self.customer.counted().await, Ok(self.asked()), "none is counted twice");
    }
}

async fn ask(customer: &Customer) {
    let question = json!({"question": "How long does the warranty of the Zebra 9000 last?"});
    let asked = customer.http.post(format!("{}/v1/query", customer.web)).bearer_auth(&customer.key).json(&question);
    let answer = asked.send().await.expect("web answers");
    let (status, said) = (answer.status(), answer.text().await.expect("text"));
    assert_eq!(status, 200, "{said}");
    assert!(said.contains("Warranty"), "the document is found: {said}");
}
