//! The sandbox as a process of its own, with its state on disk.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::programs::program;
use crate::support::{folder, install_crypto, signal};

struct Sandbox {
    child: Child,
    urls: HashMap<String, String>,
}

impl Sandbox {
    fn start(data: &Path) -> Self {
        let mut command = Command::new(program("tenant-operator-sandbox"));
        let mut child = command.arg("--data").arg(data).stdout(Stdio::piped()).spawn().expect("it starts");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines().take(5).map_while(Result::ok);
        let pair = |line: String| line.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()));
        let urls: HashMap<_, _> = lines.filter_map(pair).collect();
        assert_eq!(urls.len(), 5, "{urls:?}");
        Self { child, urls }
    }

    fn stop(mut self) {
        assert!(signal(&self.child, "TERM"));
        assert!(self.child.wait().expect("it ends").success());
    }

    fn url(&self, server: &str, path: &str) -> String {
        format!("{}{path}", self.urls[server])
    }
}

#[tokio::test]
async fn state_on_disk_outlives_the_process() {
    install_crypto();
    let (data, http) = (folder("data"), reqwest::Client::new());
    let first = Sandbox::start(&data);
    let customer =
        http.post(first.url("STRIPE_URL", "/v1/customers")).bearer_auth("sk_test").form(&[("email", "a@b.cd")]);
    let customer: Value = customer.send().await.expect("an answer").json().await.expect("JSON");
    let namespace = http.post(first.url("PINECONE_URL", "/namespaces")).json(&json!({"name": "kept"}));
    assert!(namespace.send().await.expect("an answer").status().is_success());
    let alert = http.post(first.url("SANDBOX_URL", "/_sandbox/alerts")).json(&json!({"text": "kept"}));
    assert!(alert.send().await.expect("an answer").status().is_success());
    first.stop();

    let second = Sandbox::start(&data);
    let path = format!("/v1/customers/{}", customer["id"].as_str().expect("an id"));
    let found = http.get(second.url("STRIPE_URL", &path)).bearer_auth("sk_test").send().await.expect("an answer");
    assert_eq!(found.json::<Value>().await.expect("JSON")["email"], "a@b.cd");
    let found = http.get(second.url("PINECONE_URL", "/namespaces/kept")).send().await.expect("an answer");
    assert_eq!(found.status(), 200);
    let alerts = http.get(second.url("SANDBOX_URL", "/_sandbox/alerts")).send().await.expect("an answer");
    assert_eq!(alerts.json::<Value>().await.expect("JSON")[0]["text"], "kept");
    second.stop();
}

#[test]
fn a_state_that_cannot_be_read_is_named_and_left_alone() {
    let data = folder("broken");
    std::fs::create_dir_all(&data).expect("made");
    std::fs::write(data.join("sandbox.json"), "{").expect("written");
    let output = Command::new(program("tenant-operator-sandbox")).arg("--data").arg(&data).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("sandbox.json cannot be read"), "{said}");
    assert_eq!(std::fs::read_to_string(data.join("sandbox.json")).expect("still there"), "{");
}
