//! Web as the internet meets it: clients that flood, guess, hang and never hang up.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::StreamExt;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, PostParams};
use serde_json::{Value, json};
use tenant_operator::api::{COMPONENT_LABEL, LOGIN_COMPONENT, SIGNUP_ANNOTATION, TENANT_LABEL};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{PASSWORD, Visitor, World, folder, name, sign_up, signed_up, signup_form, text};

/// Every error has the same form, from a handler or from a layer around it.
async fn problem(answer: reqwest::Response, status: u16, code: &str) -> Value {
    let (got, url) = (answer.status().as_u16(), answer.url().clone());
    assert_eq!(answer.headers()["content-type"], "application/problem+json", "{url} {got}");
    assert!(answer.headers().contains_key("x-request-id"));
    if status == 429 || status == 503 {
        assert!(answer.headers()["retry-after"].to_str().is_ok_and(|v| v.parse::<u64>().is_ok_and(|s| s > 0)));
    }
    let body: Value = answer.json().await.expect("JSON");
    assert_eq!((got, text(&body, "code")), (status, code), "{url}: {body}");
    assert_eq!(body["type"], format!("https://tenant-operator.dev/problems/{code}"));
    assert!(body["status"] == status && body["title"].is_string() && body["detail"].is_string(), "{body}");
    body
}

#[tokio::test]
async fn every_error_is_a_problem_document() {
    let mut world = World::without_controller("problems").await;
    world.start_web(&["--checkout-wait-ms", "100"]);
    let url = |path: &str| format!("{}{path}", world.web);
    let send = async |request: reqwest::RequestBuilder| request.send().await.expect("web answers");
    problem(send(world.http.get(url("/nowhere"))).await, 404, "no_such_path").await;
    let answer = send(world.http.get(url("/webhooks/stripe"))).await;
    assert_eq!(answer.headers()["allow"], "POST");
    problem(answer, 405, "method_not_allowed").await;
    problem(send(world.http.post(url("/signup")).body("x")).await, 415, "media_type").await;
    let json = |body: String| world.http.post(url("/signup")).header("content-type", "application/json").body(body);
    problem(send(json("{".into())).await, 400, "malformed").await;
    problem(send(json(" ".repeat(70 << 10))).await, 413, "too_large").await;
    problem(send(world.http.get(url("/tenant/x"))).await, 404, "not_found").await;
    let asked = world.http.post(url("/tenant/x/setup/sample-query")).bearer_auth("a.b.c");
    problem(send(asked.header("content-type", "text/plain").body("{}")).await, 415, "media_type").await;
    problem(send(world.http.post(url("/webhooks/stripe")).body("{}")).await, 400, "webhook").await;
    let body = problem(sign_up(&world, &signup_form("nobody")).await, 400, "invalid").await;
    assert!(body["fields"]["email"].is_string());
}

#[tokio::test]
async fn the_api_describes_itself_and_metrics_have_a_door_of_their_own() {
    let mut world = World::without_controller("openapi").await;
    world.start_web(&[]);
    let get = async |url: String| world.http.get(url).send().await.expect("web answers");
    let doc: Value = get(format!("{}/openapi.json", world.web)).await.json().await.expect("JSON");
    for (path, method) in [
        ("/signup", "post"),
        ("/tenant/{id}", "get"),
        ("/tenant/{id}/events", "get"),
        ("/tenant/{id}/events/ticket", "post"),
        ("/tenant/{id}/setup/sample-query", "post"),
        ("/webhooks/stripe", "post"),
    ] {
        let operation = &doc["paths"][path][method];
        assert!(operation["summary"].is_string(), "{method} {path} in {doc}");
        assert!(operation["responses"]["200"].is_object() || operation["responses"]["201"].is_object(), "{path}");
    }
    assert!(doc["components"]["schemas"]["ProblemBody"].is_object());
    let page = get(format!("{}/docs", world.web)).await.text().await.expect("a page").replace("&#x2f;", "/");
    // What a browser makes of it is for tests/browser/reference.mjs.
    assert!(page.contains("data-document=\"/openapi.json\""), "{page}");
    let loaded: Vec<_> = page.split("=\"/assets/").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert_eq!(loaded.len(), 6, "{page}");
    for name in loaded {
        let answer = get(format!("{}/assets/{name}", world.web)).await;
        let kind = answer.headers()["content-type"].to_str().expect("text").to_owned();
        assert_eq!((answer.status().as_u16(), kind.contains("css")), (200, name.contains(".css")), "{name}");
    }
    assert_eq!(get(format!("{}/metrics", world.web)).await.status(), 404);
    let metrics = get(world.web_metrics.clone()).await.text().await.expect("metrics");
    assert!(metrics.contains("onboarding_signups"), "{metrics}");
}

#[tokio::test]
async fn a_client_has_so_many_signups_and_its_proxy_says_who_it_is() {
    let mut world = World::without_controller("flooding").await;
    world.start_web(&[
        "--signups-per-minute",
        "3",
        "--client-ip",
        "RightmostXForwardedFor",
        "--checkout-wait-ms",
        "50",
    ]);
    let from = async |client: &str, i: u32| {
        let request = world.http.post(format!("{}/signup", world.web)).header("x-forwarded-for", client);
        request.json(&signup_form(&format!("ada{i}@example.com"))).send().await.expect("web answers")
    };
    for i in 0..3 {
        assert_eq!(from("192.0.2.1", i).await.status(), 202);
    }
    problem(from("192.0.2.1", 3).await, 429, "too_many_requests").await;
    // What the client itself writes into the header is not believed; the proxy's entry is the last one.
    problem(from("198.51.100.9, 192.0.2.1", 4).await, 429, "too_many_requests").await;
    assert_eq!(from("192.0.2.2", 5).await.status(), 202, "another client");
    let tenant = world.tenants().list(&Default::default()).await.expect("a list").items.remove(0);
    let record: Value =
        serde_json::from_str(&tenant.metadata.annotations.expect("some")[SIGNUP_ANNOTATION]).expect("JSON");
    assert!(record["client"].as_str().is_some_and(|c| c.starts_with("192.0.2.")), "{record}");
    assert!(record["at"].is_string() && record["requestId"].as_str().is_some_and(|id| id.len() == 24), "{record}");
}

#[tokio::test]
async fn passwords_cannot_be_guessed_at_any_number_of_replicas() {
    let mut world = World::without_controller("guessing").await;
    world.start_web(&["--checkout-wait-ms", "50"]);
    let first = world.web.clone();
    world.start_web(&["--checkout-wait-ms", "50"]);
    assert_eq!(sign_up(&world, &signup_form("ada@example.com")).await.status(), 202);
    let guess = async |web: &str, password: &str| {
        let mut form = signup_form("ada@example.com");
        form["password"] = json!(password);
        world.http.post(format!("{web}/signup")).json(&form).send().await.expect("web answers")
    };
    for i in 0..10 {
        let web = if i % 2 == 0 { &first } else { &world.web };
        problem(guess(web, &format!("guess number {i}")).await, 400, "email_taken").await;
    }
    let login = world.secrets().list(&Default::default()).await.expect("a list").items;
    let login =
        login.iter().find(|s| s.metadata.labels.as_ref().is_some_and(|l| l[COMPONENT_LABEL] == LOGIN_COMPONENT));
    let login = login.and_then(|s| s.metadata.name.clone()).expect("a login");
    let counted = async || {
        let secret = world.secrets().get(&login).await.expect("there");
        secret.metadata.annotations.is_some_and(|a| a["tenant-operator.dev/password-tries"].starts_with("10@"))
    };
    world.until("all are counted", counted).await;
    // A locked account answers the right password, a wrong one and an unknown address alike, so that addresses stay
    // private.
    for web in [&first, &world.web] {
        problem(guess(web, "difference-engine").await, 400, "email_taken").await;
        let token_for = async |email: &str| {
            let credentials = json!({"email": email, "password": "difference-engine"});
            let answer = world.http.post(format!("{web}/tenant/token")).json(&credentials).send().await;
            problem(answer.expect("web answers"), 401, "unauthorized").await
        };
        assert_eq!(token_for("ada@example.com").await, token_for("unknown@example.com").await);
    }
    // Others are not held up by it.
    assert_eq!(sign_up(&world, &signup_form("grace@example.com")).await.status(), 202);
}

#[tokio::test]
async fn more_signups_than_passwords_can_be_hashed_are_turned_away_and_hold_nothing() {
    let mut world = World::without_controller("hashing").await;
    world.start_web(&["--checkout-wait-ms", "50"]);
    let world = &world;
    // Half of the clients hang up at once; what they asked for must not keep its place.
    let burst = futures::stream::iter(0..80).map(async |i: u32| {
        let request =
            world.http.post(format!("{}/signup", world.web)).json(&signup_form(&format!("ada{i}@example.com")));
        let limit = if i.is_multiple_of(2) { Duration::from_millis(20) } else { Duration::from_secs(50) };
        request.timeout(limit).send().await.ok().map(|r| r.status().as_u16())
    });
    let codes: Vec<_> = burst.buffer_unordered(80).collect().await;
    assert!(codes.iter().flatten().all(|c| matches!(c, 202 | 429)), "{codes:?}");
    assert!(codes.contains(&Some(429)) && codes.contains(&Some(202)), "{codes:?}");
    let start = Instant::now();
    while sign_up(world, &signup_form("later@example.com")).await.status() != 202 {
        assert!(start.elapsed() < Duration::from_mins(1), "places are lost");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn a_signup_that_broke_off_between_its_two_objects_locks_no_address_for_ever() {
    let mut world = World::without_controller("orphan").await;
    world.controller_args(&["--orphan-ttl=2"]);
    world.start_web(&[]);
    world.start_controller();
    let login = |name: &str, component: &str| Secret {
        metadata: ObjectMeta {
            name: Some(format!("{name}-login")),
            labels: Some(BTreeMap::from([
                (TENANT_LABEL.to_owned(), name.to_owned()),
                (COMPONENT_LABEL.to_owned(), component.to_owned()),
            ])),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([("password-hash".to_owned(), ByteString(b"$argon2id$x".to_vec()))])),
        ..Secret::default()
    };
    let kept = signed_up(&world, "grace@example.com").await;
    for secret in [login("t-orphan", LOGIN_COMPONENT), login("not-ours", "something-else")] {
        world.secrets().create(&PostParams::default(), &secret).await.expect("made");
    }
    let there = async |name: &str| world.secrets().get_opt(name).await.expect("the API answers").is_some();
    let start = Instant::now();
    while there("t-orphan-login").await {
        assert!(start.elapsed() < Duration::from_mins(1), "the orphan is still there");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(there("not-ours-login").await && there(&format!("{}-login", name(&kept))).await);
}

/// docs/incidents.md reads the audit lines, and without an events file the log has the only copy of an event.
#[tokio::test]
async fn a_log_in_leaves_an_audit_line_in_the_log_of_web() {
    let mut world = World::without_controller("auditlines").await;
    let file = folder("auditlines.log");
    let log = std::fs::File::create(&file).expect("a file");
    world.start_web_logging(&["--checkout-wait-ms", "50"], log.into());
    let name = name(&signed_up(&world, "ada@example.com").await);
    let mut ada = Visitor::new(&world);
    assert_eq!(ada.log_in("ada@example.com", "difference-engine").await, 303);
    let credentials = json!({"email": "ada@example.com", "password": "difference-engine"});
    let answer = world.http.post(format!("{}/tenant/token", world.web)).json(&credentials).send().await;
    assert_eq!(answer.expect("web answers").status(), 200);
    let log = std::fs::read_to_string(&file).expect("a log");
    for event in ["signup", "logged_in", "token_issued"] {
        let audited =
            |line: &str| line.contains(" audit: ") && line.contains(&format!("\"{event}\"")) && line.contains(&name);
        assert!(log.lines().any(audited), "{event}: {log}");
    }
    assert!(log.lines().any(|line| line.contains(" activation: ") && line.contains("signup")), "{log}");
}

#[tokio::test]
async fn a_token_ends_with_its_object() {
    let mut world = World::start("token").await;
    world.start_web(&[]);
    let first = signed_up(&world, "ada@example.com").await;
    world.erase(&name(&first)).await;
    world.wait_gone(&name(&first)).await;
    let second = signed_up(&world, "ada@example.com").await;
    assert_eq!(name(&first), name(&second), "the same address, the same name");
    let show = async |id: &str, token: &str| {
        world
            .http
            .get(format!("{}/tenant/{id}", world.web))
            .bearer_auth(token)
            .send()
            .await
            .expect("web answers")
            .status()
    };
    assert_eq!(show(text(&second, "tenant_id"), text(&second, "token")).await, 200);
    for id in [text(&first, "tenant_id"), text(&second, "tenant_id")] {
        assert_eq!(show(id, text(&first, "token")).await, 404);
    }
    // Parts of one in the other's place.
    let (old, new): (Vec<_>, Vec<_>) =
        (text(&first, "token").split('.').collect(), text(&second, "token").split('.').collect());
    let mixed = |part: usize| {
        let mut parts = new.clone();
        parts[part] = old[part];
        parts.join(".")
    };
    let mut longer = new.clone();
    longer[4] = "9999999999";
    for forged in [mixed(1), mixed(5), longer.join("."), "..".into()] {
        assert_eq!(show(text(&second, "tenant_id"), &forged).await, 404, "{forged}");
    }
}

/// Reads an event stream until it ends or holds a text.
async fn read_until(answer: reqwest::Response, wanted: &str) -> String {
    let (mut seen, mut stream) = (String::new(), answer.bytes_stream());
    while !seen.contains(wanted) {
        let Ok(chunk) = tokio::time::timeout(Duration::from_mins(1), stream.next()).await else { panic!("{seen}") };
        match chunk {
            Some(Ok(chunk)) => seen.push_str(&String::from_utf8_lossy(&chunk)),
            _ => break,
        }
    }
    seen
}

#[tokio::test]
async fn a_stream_ends_with_the_log_out_and_with_a_new_password() {
    let mut world = World::without_controller("streamend").await;
    world.start_web(&["--checkout-wait-ms", "50"]);
    let mut ada = Visitor::new(&world);
    let acme = ada.sign_up("ada@example.com", "Ada Ltd").await;
    let open = async |visitor: &Visitor<'_>| {
        let stream = visitor.request(reqwest::Method::GET, "/account/events").send().await.expect("web answers");
        assert_eq!(stream.status(), 200);
        stream
    };
    let ended = async |stream: reqwest::Response| {
        tokio::time::timeout(Duration::from_secs(10), read_until(stream, "no such text: read to the end")).await
    };
    let mut other = Visitor::new(&world);
    assert_eq!(other.log_in("ada@example.com", PASSWORD).await, 303);
    // Web notes the log-in a moment later, and each change is shown.
    let version = async || world.tenants().get(&acme).await.expect("there").metadata.resource_version;
    let mut noted = version().await;
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let before = std::mem::replace(&mut noted, version().await);
        if before == noted {
            break;
        }
    }
    let (own, others) = (open(&ada).await, open(&other).await);
    let csrf = ada.csrf("/account").await;
    assert_eq!(ada.post("/logout", &[("csrf", &csrf)]).await.0, 303);
    let seen = ended(own).await.expect("the stream ends with the log-out");
    assert!(seen.contains("event: tenant"), "{seen}");
    // A new password notes since when sessions count.
    let soon = (jiff::Timestamp::now().as_second() + 2).to_string();
    world.annotate(&acme, "tenant-operator.dev/sessions-since", &soon).await;
    let seen = ended(others).await.expect("the stream ends with a new password");
    assert_eq!(seen.matches("event: tenant").count(), 1, "the change is not shown any more: {seen}");
}

#[tokio::test]
async fn an_event_source_opens_a_stream_by_a_ticket_and_it_ends_with_the_tenant() {
    let mut world = World::start("stream").await;
    world.start_web(&[]);
    let body = signed_up(&world, "ada@example.com").await;
    let url = format!("{}/tenant/{}", world.web, text(&body, "tenant_id"));
    let ticket = async || {
        let asked = world.http.post(format!("{url}/events/ticket")).bearer_auth(text(&body, "token"));
        let answer: Value = asked.send().await.expect("web answers").json().await.expect("JSON");
        assert!(answer["expires_in"].as_i64().is_some_and(|s| s <= 60), "{answer}");
        text(&answer, "ticket").to_owned()
    };
    let open =
        async |ticket: &str| world.http.get(format!("{url}/events?ticket={ticket}")).send().await.expect("web answers");
    let good = ticket().await;
    let mut parts: Vec<_> = good.split('.').collect();
    parts[4] = "9999999999";
    let longer = parts.join(".");
    for bad in [longer.as_str(), "", text(&body, "token")] {
        problem(open(bad).await, 404, "not_found").await;
    }
    // One window too many.
    let mut streams = Vec::new();
    for _ in 0..8 {
        let stream = open(&good).await;
        assert_eq!(stream.status(), 200);
        streams.push(stream);
    }
    assert_eq!(open(&good).await.status(), 429);
    drop(streams.split_off(1));
    let start = Instant::now();
    while open(&good).await.status() != 200 {
        assert!(start.elapsed() < Duration::from_mins(1), "closed windows still count");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    world.erase(&name(&body)).await;
    let seen = read_until(streams.remove(0), "no such text: read to the end").await;
    assert!(seen.contains("id: ") && seen.contains("retry: 3000") && seen.contains("event: tenant"), "{seen}");
    assert!(seen.trim_end().ends_with("event: deleted\ndata: {}"), "it ends with the deletion: {seen}");
}

#[tokio::test]
async fn customers_read_sentences_of_ours_and_no_others() {
    let mut world = World::without_controller("sentences").await;
    world.controller_args(&["--hold-retry=1"]);
    world.start_controller();
    world.start_web(&[]);
    world.fault(json!({"provider": "openai", "status": 401, "body": "{\"error\": {\"message\": \"Incorrect API key provided: sk-secret\"}}", "times": 100_000})).await;
    let body = signed_up(&world, "ada@example.com").await;
    world.pay(&name(&body)).await;
    world.wait(&name(&body), "on hold", |s| s.provisioning.as_ref().is_some_and(|p| p.held_since.is_some())).await;
    let shown =
        world.http.get(format!("{}/tenant/{}", world.web, text(&body, "tenant_id"))).bearer_auth(text(&body, "token"));
    let shown: Value = shown.send().await.expect("web answers").json().await.expect("JSON");
    assert_eq!(shown["message"], "Setting up your account takes longer than usual. We are on it.", "{shown}");
    let step = shown["steps"].as_array().expect("steps").iter().find(|s| s["name"] == "SampleDataReady").expect("one");
    assert_eq!((text(step, "status"), text(step, "message")), ("delayed", "Sample documents take longer than usual"));
    for vendor in ["OpenAI", "sk-", "kubectl", "Pinecone", "Kubernetes", "Unauthorized"] {
        assert!(!shown.to_string().contains(vendor), "{vendor} in {shown}");
    }
    let asked = world.http.post(format!("{}/tenant/{}/setup/sample-query", world.web, text(&body, "tenant_id")));
    let answer = asked.bearer_auth(text(&body, "token")).json(&json!({})).send().await.expect("web answers");
    let body = problem(answer, 409, "not_ready").await;
    assert!(!body.to_string().contains("OpenAI"), "{body}");
}

#[tokio::test]
async fn only_the_frontends_pages_may_call_from_a_browser() {
    let mut world = World::without_controller("cors").await;
    world.start_web(&["--frontend-url", "https://app.example.com/some/path"]);
    let preflight = async |origin: &str| {
        let request =
            world.http.request(reqwest::Method::OPTIONS, format!("{}/signup", world.web)).header("origin", origin);
        let request = request.header("access-control-request-method", "POST");
        let answer =
            request.header("access-control-request-headers", "content-type").send().await.expect("web answers");
        answer.headers().get("access-control-allow-origin").map(|v| v.to_str().expect("text").to_owned())
    };
    assert_eq!(preflight("https://app.example.com").await.as_deref(), Some("https://app.example.com"));
    for other in ["https://evil.example.com", "http://app.example.com", "null"] {
        assert_ne!(preflight(other).await.as_deref(), Some(other));
    }
}

#[tokio::test]
async fn a_client_that_sends_nothing_is_hung_up_on_and_others_get_its_place() {
    let mut world = World::without_controller("loris").await;
    world.start_web(&["--header-timeout", "1", "--max-connections", "4"]);
    let addr = world.web.trim_start_matches("http://").to_owned();
    let mut slow = Vec::new();
    for begun in ["", "GET /healthz HTTP/1.1\r\nHost: x\r\nX-A: ", "GET /healthz HTTP/1.1\r\n", "P"] {
        let mut stream = tokio::net::TcpStream::connect(&addr).await.expect("connected");
        stream.write_all(begun.as_bytes()).await.expect("sent");
        slow.push((begun, stream));
    }
    let answer = world.http.get(format!("{}/healthz", world.web)).send().await.expect("in the end there is a place");
    assert_eq!(answer.status(), 200);
    for (begun, mut stream) in slow {
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(Duration::from_mins(1), stream.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "still connected after {begun:?}");
    }
}

// The request under way must be served while the test waits for the process.
#[tokio::test(flavor = "multi_thread")]
async fn sigterm_turns_away_ends_streams_and_loses_no_request() {
    let mut world = World::start("sigterm").await;
    world.start_web(&["--checkout-wait-ms", "3000", "--shutdown-delay", "1"]);
    let body = signed_up(&world, "ada@example.com").await;
    let url = format!("{}/tenant/{}/events", world.web, text(&body, "tenant_id"));
    let stream = world.http.get(url).bearer_auth(text(&body, "token")).send().await.expect("web answers");
    // A signup that waits for a link which does not come.
    world.controllers.remove(0).kill();
    let (http, web) = (world.http.clone(), world.web.clone());
    let waiting = tokio::spawn(async move {
        http.post(format!("{web}/signup"))
            .json(&signup_form("grace@example.com"))
            .send()
            .await
            .map(|r| r.status().as_u16())
    });
    let start = Instant::now();
    while world.tenants().list(&Default::default()).await.expect("a list").items.len() < 2 {
        assert!(start.elapsed() < Duration::from_mins(1), "the signup did not begin");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let asked = Instant::now();
    world.first_web().signal("TERM");
    let mut stopping = None;
    while asked.elapsed() < Duration::from_millis(900) && stopping.is_none() {
        let ready = world.http.get(format!("{}/readyz", world.web)).send().await;
        stopping = ready.ok().filter(|answer| answer.status() == 503);
    }
    let stopping = stopping.expect("readiness turns false while requests are still taken");
    assert_eq!(stopping.headers()["connection"], "close", "the next request goes elsewhere");
    let seen = read_until(stream, "no such text: read to the end").await;
    assert!(seen.contains("event: tenant"), "{seen}");
    assert_eq!(waiting.await.expect("it ends").expect("an answer"), 202, "the request under way was finished");
    assert_eq!(world.first_web().exit_code().await, Some(0));
    assert!(asked.elapsed() < Duration::from_secs(30), "{:?}", asked.elapsed());
    assert!(world.http.get(format!("{}/healthz", world.web)).send().await.is_err());
}

#[tokio::test]
async fn a_customer_whose_tenant_was_deleted_by_accident_keeps_the_password() {
    let mut world = World::without_controller("keptlogin").await;
    world.controller_args(&["--orphan-ttl=2"]);
    world.start_web(&[]);
    world.start_controller();
    let signup = signed_up(&world, "ada@example.com").await;
    let acme = name(&signup);
    world.pay(&acme).await;
    world.wait_phase(&acme, tenant_operator::api::Phase::Active).await;
    world.tenants().delete(&acme, &Default::default()).await.expect("deleted");
    world.wait_gone(&acme).await;
    let login = format!("{acme}-login");
    for _ in 0..20 {
        let there = world.secrets().get_opt(&login).await.expect("the API answers");
        assert!(there.is_some(), "the sweep took the password of a customer who is kept");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}
