//! The ledger in its pod: its volume, and what its restart costs the customers who ask meanwhile.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::node::Node;
use crate::release::NAMESPACE;
use crate::step;

const LIMIT: Duration = Duration::from_mins(2);
/// Customers who ask at the same time, and how often each does.
const ASKING: usize = 2;
const QUESTIONS: usize = 60;
/// Keeps them below the rate of one tenant.
const PAUSE: Duration = Duration::from_millis(150);
/// Nothing is counted late after so long.
const QUIET: Duration = Duration::from_secs(5);

/// A volume for the ledger's claim, of the empty storage class: this node has nothing that makes volumes.
pub fn volume(node: &Node) {
    let folder = node.folder.join("volume");
    std::fs::create_dir_all(&folder).expect("a folder");
    // The kubelet gives no group to a folder of the node.
    std::os::unix::fs::chown(&folder, Some(65532), Some(65532)).expect("root may");
    let volume = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "ledger"}, "spec": {
        "capacity": {"storage": "5Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "",
        "persistentVolumeReclaimPolicy": "Retain", "hostPath": {"path": folder.display().to_string()}}});
    let path = node.folder.join("volume.json");
    std::fs::write(&path, volume.to_string()).expect("a file");
    node.kubectl(&["apply", "-f", &path.display().to_string()]);
}

/// A tenant's API, with its key.
#[derive(Clone)]
pub struct Customer {
    pub http: reqwest::Client,
    pub web: String,
    pub key: String,
}

impl Customer {
    /// How many questions are counted, or what web says instead.
    pub async fn counted(&self) -> Result<i64, Value> {
        let asked = self.http.get(format!("{}/v1/usage", self.web)).bearer_auth(&self.key).send().await;
        let usage: Value = asked.expect("web answers").json().await.expect("JSON");
        usage["queries"]["used"].as_i64().ok_or(usage)
    }

    async fn asks(self) {
        let question = json!({"question": "How much may a hotel cost a night?"});
        for number in 0..QUESTIONS {
            let asked = self.http.post(format!("{}/v1/query", self.web)).bearer_auth(&self.key).json(&question);
            let answer = asked.send().await.expect("web answers");
            let (status, said) = (answer.status(), answer.text().await.expect("text"));
            assert_eq!(status, 200, "question {number}: {said}");
            tokio::time::sleep(PAUSE).await;
        }
    }
}

fn pod(node: &Node) -> Value {
    node.get(&["pod", "rag-ledger-0", "-n", NAMESPACE])
}

/// Whether a pod of the ledger is ready, and its uid.
fn ready(node: &Node) -> Option<Value> {
    let pod = pod(node);
    let is_ready = |all: &Vec<Value>| all.iter().any(|c| c["type"] == "Ready" && c["status"] == "True");
    pod["status"]["conditions"].as_array().is_some_and(is_ready).then(|| pod["metadata"]["uid"].clone())
}

/// Every question is answered while the ledger's pod is deleted, and each is counted once.
pub async fn is_deleted_under_questions(node: &Node, customer: &Customer) {
    let away = counts_while(customer, || {
        let old = ready(node).expect("the ledger is there");
        let start = Instant::now();
        node.kubectl(&["delete", "pod", "rag-ledger-0", "-n", NAMESPACE, "--wait=false"]);
        node.wait("another pod of the ledger is ready", LIMIT, |node| ready(node).is_some_and(|uid| uid != old));
        start.elapsed()
    });
    let away = away.await.as_secs_f64();
    step(&format!("the ledger's pod was replaced in {away:.1} s; every question was answered and counted once"));
}

/// Every question is answered and counted once while something happens to the ledger.
pub async fn counts_while<Seen>(customer: &Customer, happens: impl FnOnce() -> Seen) -> Seen {
    let before = customer.counted().await.expect("the ledger is there");
    let asking: Vec<_> = (0..ASKING).map(|_| tokio::spawn(customer.clone().asks())).collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let seen = tokio::task::block_in_place(happens);
    for asked in asking {
        asked.await.expect("every question is answered");
    }
    let wanted = before + i64::try_from(ASKING * QUESTIONS).expect("a small number");
    let start = Instant::now();
    while customer.counted().await != Ok(wanted) {
        assert!(start.elapsed() < LIMIT, "{:?} questions are counted, not {wanted}", customer.counted().await);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    tokio::time::sleep(QUIET).await;
    assert_eq!(customer.counted().await, Ok(wanted), "none is counted twice");
    seen
}
