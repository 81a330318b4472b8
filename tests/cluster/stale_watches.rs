//! Kubernetes answers, and does not tell web any more what becomes of the Tenants: a watch fails, or is refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use serde_json::{Value, json};
use tenant_operator::api::Phase;
use tenant_operator::api::tenant::{BillingMode, Desired};

use crate::support::{World, control_plane, desire, folder};

/// How long web serves with what Kubernetes last sent it.
const TRUST: Duration = Duration::from_secs(8);

/// A proxy before the API server. It refuses what a test chooses, and passes on everything else.
struct Door {
    upstream: kube::Client,
    /// Refuses watches of Tenants.
    watches: AtomicBool,
    /// Refuses lists of Tenants.
    lists: AtomicBool,
    /// Lists of Tenants that came.
    listed: AtomicUsize,
}

impl Door {
    /// A door, and the programs of the world that start from now on go through it.
    async fn before(world: &mut World) -> Arc<Self> {
        let (watches, lists) = (AtomicBool::new(false), AtomicBool::new(false));
        let door = Arc::new(Self { upstream: world.client.clone(), watches, lists, listed: AtomicUsize::new(0) });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let routes = Router::new().fallback(Self::pass).with_state(door.clone());
        tokio::spawn(axum::serve(listener, routes).into_future());
        let text = std::fs::read_to_string(&control_plane().kubeconfig).expect("a kubeconfig");
        let mut config: Value = serde_json::from_str(&text).expect("JSON");
        config["clusters"][0]["cluster"] = json!({"server": format!("http://{address}")});
        let path = folder(&format!("{}-door.kubeconfig", world.namespace));
        std::fs::write(&path, config.to_string()).expect("written");
        world.use_kubeconfig(path);
        door
    }

    fn refuses(&self, query: &str) -> bool {
        if query.contains("watch=true") {
            return self.watches.load(Ordering::Relaxed);
        }
        self.listed.fetch_add(1, Ordering::Relaxed);
        self.lists.load(Ordering::Relaxed)
    }

    async fn pass(State(door): State<Arc<Self>>, request: Request) -> Response {
        let (parts, body) = request.into_parts();
        let all = parts.uri.path().ends_with("/tenants") && parts.method == "GET";
        if all && door.refuses(parts.uri.query().unwrap_or_default()) {
            let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 429,
                "reason": "TooManyRequests", "message": "try again later"});
            return (StatusCode::TOO_MANY_REQUESTS, Json(status)).into_response();
        }
        let body = to_bytes(body, usize::MAX).await.expect("a body");
        let mut onward = axum::http::Request::builder().method(parts.method).uri(parts.uri);
        for (name, value) in parts.headers.iter().filter(|(name, _)| *name != "host" && *name != "authorization") {
            onward = onward.header(name, value);
        }
        let onward = onward.body(kube::client::Body::from(body.to_vec())).expect("a request");
        match door.upstream.send(onward).await {
            Ok(response) => response.map(Body::new),
            Err(_) => StatusCode::BAD_GATEWAY.into_response(),
        }
    }

    fn refuse(&self, watches: bool, lists: bool) {
        self.watches.store(watches, Ordering::Relaxed);
        self.lists.store(lists, Ordering::Relaxed);
    }
}

/// Status and code of a question.
async fn asked(world: &World, key: &str) -> (u16, String, bool) {
    let request = world.http.post(format!("{}/v1/query", world.web)).bearer_auth(key);
    let answer = request.json(&json!({"question": "What is RAG?"})).send().await.expect("it answers");
    let (status, waits) = (answer.status().as_u16(), answer.headers().contains_key("retry-after"));
    let body: Value = answer.json().await.expect("JSON");
    (status, body["code"].as_str().unwrap_or_default().to_owned(), waits)
}

async fn at_the_gateway(world: &World, key: &str) -> (u16, String) {
    let request = world.http.get(format!("{}/authz?quota_status=429", world.web)).bearer_auth(key);
    let answer = request.send().await.expect("it answers");
    let refusal = answer.headers().get("x-refusal").map(|value| value.to_str().expect("text").to_owned());
    (answer.status().as_u16(), refusal.unwrap_or_default())
}

/// As the kubelet asks.
async fn ready(world: &World) -> (u16, String) {
    let answer = world.http.get(world.web_metrics.replace("/metrics", "/readyz")).send().await.expect("web answers");
    (answer.status().as_u16(), answer.text().await.expect("text"))
}

async fn age(world: &World, kind: &str) -> u64 {
    let text = world.http.get(&world.web_metrics).send().await.expect("metrics").text().await.expect("text");
    let line = format!("web_watch_age_seconds{{kind=\"{kind}\"}} ");
    text.lines().find_map(|at| at.strip_prefix(&line)).and_then(|age| age.parse().ok()).expect("an age")
}

/// Two tenants, and web behind a door.
async fn behind_a_door(name: &str) -> (World, Arc<Door>, [String; 2]) {
    let mut world = World::start(name).await;
    for name in ["acme", "other"] {
        world.create(name, "enterprise", BillingMode::Manual).await;
    }
    for name in ["acme", "other"] {
        world.wait_phase(name, Phase::Active).await;
    }
    let keys = [world.api_key("acme").await, world.api_key("other").await];
    let door = Door::before(&mut world).await;
    let namespace = world.namespace.clone();
    world.environment("WATCH_NAMESPACE", &namespace);
    world.start_web(&["--serve-without-kubernetes", "8s", "--requests-per-second", "1000"]);
    world.until("web is ready", async || ready(&world).await == (200, "ready".into())).await;
    (world, door, keys)
}

/// Web serves on while a watch is idle. When the watch fails and the API server still answers `/version`, web stops
/// serving, so that it does not serve a suspended tenant without end. It serves again once the watch works.
#[tokio::test(flavor = "multi_thread")]
async fn a_failing_watch_stops_serving_and_an_idle_watch_does_not() {
    let (world, door, [acme, other]) = behind_a_door("stale-watches").await;
    let quiet = Instant::now();
    while quiet.elapsed() < TRUST + Duration::from_secs(4) {
        assert_eq!((asked(&world, &acme).await.0, ready(&world).await.0), (200, 200), "{:?}", quiet.elapsed());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }

    door.refuse(true, true);
    let refused = Instant::now();
    desire(&world, "other", Desired::Suspended).await.expect("patched");
    world.wait_phase("other", Phase::Suspended).await;
    let over = |said: &(u16, String, bool)| (said.0, said.1.as_str(), said.2) == (503, "accounts_unavailable", true);
    world.until("web serves no one", async || over(&asked(&world, &other).await)).await;
    assert!(refused.elapsed() < TRUST * 3, "{:?}", refused.elapsed());
    assert!(over(&asked(&world, &acme).await));
    for key in [&acme, &other] {
        assert_eq!(at_the_gateway(&world, key).await, (503, "accounts_unavailable".into()));
    }
    let (status, why) = ready(&world).await;
    assert!(status == 503 && why.contains("has not confirmed the Tenants"), "{status} {why}");
    assert!(age(&world, "tenants").await >= 8 && age(&world, "key").await < 8, "the key is read all the same");
    let wrong = world.http.get(format!("{}/v1/usage", world.web)).bearer_auth("sk_live_a.b.c").send().await;
    assert_eq!(wrong.expect("it answers").status(), 401, "a key that is wrong is wrong");

    door.refuse(false, false);
    world.until("the suspension follows", async || asked(&world, &other).await.0 == 402).await;
    assert_eq!((asked(&world, &acme).await.0, at_the_gateway(&world, &acme).await.0), (200, 200));
    world.until("web is ready", async || ready(&world).await.0 == 200).await;
}

/// Who may list and not watch goes on with what the listings tell, with a growing pause between them.
#[tokio::test(flavor = "multi_thread")]
async fn where_watches_alone_are_refused_listings_tell_and_are_few() {
    let (world, door, [acme, other]) = behind_a_door("stale-lists").await;
    door.refuse(true, false);
    let (before, began) = (door.listed.load(Ordering::Relaxed), Instant::now());
    while began.elapsed() < Duration::from_secs(15) {
        assert_eq!(asked(&world, &acme).await.0, 200, "{:?}", began.elapsed());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let listed = door.listed.load(Ordering::Relaxed) - before;
    assert!((2..20).contains(&listed), "{listed} listings in 15 s");
    desire(&world, "other", Desired::Suspended).await.expect("patched");
    world.until("a listing tells it", async || asked(&world, &other).await.0 == 402).await;
}
