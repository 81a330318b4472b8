//! Faults of the ledger, which turn its checks red.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use tenant_operator::api::Timestamp;
use tenant_operator::operator_keys::LEDGER_SECRET;
use tokio::process::{Child, Command};

use super::{Lab, Seed, words};
use crate::support::{BINARY, free_port};

pub(super) const KEY: [u8; 32] = [7; 32];

/// The Secret with this key of the ledger.
pub(super) fn secret(key: [u8; 32]) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": LEDGER_SECRET, "namespace": "default"},
        "data": {"key": BASE64.encode(key)}})
}

/// The program as a ledger. It ends with the test.
pub(super) struct Running {
    pub url: String,
    _child: Child,
}

impl Running {
    pub fn start(folder: &Path) -> Self {
        let key = folder.join("ledger.key");
        std::fs::write(&key, KEY).expect("a file");
        let address = format!("127.0.0.1:{}", free_port());
        let mut command = Command::new(BINARY);
        command
            .args(["ledger", "--own-clock", "--metrics-listen", "127.0.0.1:0", "--listen", &address])
            .arg("--key-file")
            .arg(key);
        command.arg("--data").arg(folder.join("ledger"));
        command.args(["--snapshots", &format!("file://{}", folder.join("snapshots").display())]);
        let child = command.env_clear().kill_on_drop(true).spawn().expect("it starts");
        Self { url: format!("http://{address}"), _child: child }
    }
}

/// A ledger that says this of itself.
async fn false_ledger(ready: u16, status: Value) -> Vec<(&'static str, String)> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("its address"));
    let ready = axum::http::StatusCode::from_u16(ready).expect("a status");
    let routes = axum::Router::new()
        .route("/readyz", axum::routing::get(move || async move { ready }))
        .route("/v1/status", axum::routing::get(move || async move { axum::Json(status) }));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    vec![("LEDGER_ENDPOINT", url)]
}

pub(super) async fn seeds(lab: &Lab) -> Vec<Seed> {
    let failed = |check, says| Seed { check, says, verdict: "failed", ..Seed::default() };
    let warned = |check, says| Seed { verdict: "warning", ..failed(check, says) };
    let at = |seconds: i64| {
        let time = Timestamp::from_second(Timestamp::now().as_second() + seconds);
        serde_json::to_value(time).expect("a time")
    };
    let says =
        async |ahead: i64, snapshots: Value| false_ledger(200, json!({"now": at(ahead), "snapshots": snapshots})).await;
    let taken = |ago: i64| json!({"every_seconds": 300, "latest": at(-ago)});
    let right = words(&format!("apply -f {}", lab.manifest("ledger-key", &secret(KEY))));
    let wrong = words(&format!("apply -f {}", lab.manifest("other-key", &secret([8; 32]))));
    let gone = words(&format!("delete secret {LEDGER_SECRET} -n default"));
    let away = vec![("LEDGER_ENDPOINT", "http://127.0.0.1:9".to_owned())];
    vec![
        Seed { env: away, ..failed("ledger/ready", "does not answer") },
        Seed { env: false_ledger(503, json!({})).await, ..failed("ledger/ready", "answers 503") },
        Seed {
            kubectl: vec![wrong],
            undo: vec![right.clone()],
            ..failed("ledger/key", "does not show the ledger's key")
        },
        Seed {
            kubectl: vec![gone],
            undo: vec![right],
            ..failed("ledger/key", "there is no Secret default/tenant-operator-ledger")
        },
        Seed { env: lab_web(lab), ..failed("ledger/key", "cannot be reached") },
        Seed { env: says(3600, taken(0)).await, ..failed("ledger/clock", "ahead of the API server's") },
        Seed { env: says(-120, taken(0)).await, ..warned("ledger/clock", "behind the API server's") },
        Seed { env: says(0, taken(1000)).await, ..failed("ledger/snapshots", "one is due every 300 s") },
        Seed {
            env: says(0, json!({"every_seconds": 300, "latest": null})).await,
            ..failed("ledger/snapshots", "none was taken")
        },
    ]
}

/// Something else listens where the ledger should be.
fn lab_web(lab: &Lab) -> Vec<(&'static str, String)> {
    vec![("LEDGER_ENDPOINT", lab.web.clone())]
}
