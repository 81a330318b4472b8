//! A cluster whose clock is ahead. The parts of the operator go by the `Date` of the API server's answers, so an API
//! server that passes everything on and moves that header moves their time, and the sandbox's clock moves along.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::{CONNECTION, DATE, HOST, TRANSFER_ENCODING};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use jiff::fmt::rfc2822::DateTimePrinter;
use serde_json::json;
use tenant_operator::api::Timestamp;

use super::{World, folder, stripes_now};

#[derive(Clone)]
struct Api {
    client: kube::Client,
    ahead: Arc<AtomicI64>,
}

async fn pass(State(api): State<Api>, request: Request) -> Response {
    let (mut parts, body) = request.into_parts();
    parts.headers.remove(HOST);
    let Ok(body) = to_bytes(body, usize::MAX).await else { return StatusCode::BAD_REQUEST.into_response() };
    let request = axum::http::Request::from_parts(parts, kube::client::Body::from(body.to_vec()));
    let Ok(answer) = api.client.send(request).await else { return StatusCode::BAD_GATEWAY.into_response() };
    let (mut parts, body) = answer.into_parts();
    for header in [CONNECTION, TRANSFER_ENCODING] {
        parts.headers.remove(header);
    }
    let now = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second() + api.ahead.load(Ordering::Relaxed));
    let date = DateTimePrinter::new().timestamp_to_rfc9110_string(&now.expect("a time")).expect("a date");
    parts.headers.insert(DATE, HeaderValue::from_str(&date).expect("text"));
    Response::from_parts(parts, Body::new(body))
}

/// The clock of a world whose processes start after it.
pub struct Later {
    ahead: Arc<AtomicI64>,
    controller: String,
}

impl Later {
    /// Begins at a moment that is not earlier than the present. `port` is where the controller shall have its metrics.
    pub async fn begin(world: &mut World, moment: Timestamp, port: u16) -> Self {
        let ahead = Arc::new(AtomicI64::new(0));
        let api = Api { client: world.client.clone(), ahead: ahead.clone() };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let server = format!("http://{}", listener.local_addr().expect("an address"));
        let routes = Router::new().fallback(pass).with_state(api);
        tokio::spawn(async move { axum::serve(listener, routes).await });
        let kubeconfig: PathBuf = folder(&format!("{}-later", world.namespace)).join("kubeconfig");
        let text = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "later",
            "clusters": [{"name": "later", "cluster": {"server": server}}],
            "users": [{"name": "later", "user": {}}],
            "contexts": [{"name": "later", "context": {"cluster": "later", "user": "later"}}],
        });
        std::fs::create_dir_all(kubeconfig.parent().expect("a folder")).expect("made");
        std::fs::write(&kubeconfig, text.to_string()).expect("written");
        world.use_kubeconfig(kubeconfig);
        world.controller_args(&[&format!("--listen=127.0.0.1:{port}")]);
        let later = Self { ahead, controller: format!("http://127.0.0.1:{port}") };
        later.set(world, moment).await;
        later
    }

    /// The time of the cluster.
    pub fn now(&self) -> Timestamp {
        Timestamp::now().plus(self.ahead.load(Ordering::Relaxed))
    }

    async fn set(&self, world: &World, moment: Timestamp) {
        self.ahead.store(moment.since(Timestamp::now()), Ordering::Relaxed);
        let left = moment.as_second() - stripes_now(world).await;
        world.sandbox_post("/_sandbox/clock", json!({"advance_seconds": left})).await;
    }

    /// Moves on to a later moment, and waits until controller, web and ledger see it.
    pub async fn becomes(&self, world: &mut World, moment: Timestamp) {
        self.set(world, moment).await;
        // The ledger asks for the time every 20 seconds, and at its start.
        world.kill_ledger();
        world.start_ledger();
        let there = |ahead: i64| (ahead + self.ahead.load(Ordering::Relaxed)).abs() < 5;
        let (controller, web) = (self.controller.clone(), world.web_metrics.clone());
        let seen = async || {
            let ledger = world.ledger().status().await.is_ok_and(|status| status.now.since(self.now()).abs() < 5);
            let [controller, web] = [skew(world, &controller).await, skew(world, &web).await];
            ledger && [controller, web].into_iter().all(|ahead| ahead.is_some_and(there))
        };
        world.until("all clocks have moved", seen).await;
    }
}

/// By how many seconds the clock of a process is ahead of the API server's.
async fn skew(world: &World, metrics: &str) -> Option<i64> {
    let url = if metrics.ends_with("/metrics") { metrics.to_owned() } else { format!("{metrics}/metrics") };
    let text = world.http.get(url).send().await.ok()?.text().await.ok()?;
    text.lines().find_map(|line| line.strip_prefix("clock_skew_seconds ")).and_then(|value| value.parse().ok())
}
